"""Where a device runs: in a thread (here) or in a process (see `process`), and the exit of both."""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing.util  # noqa: F401 - its exit handler must be older than ours, and so run later
import threading
from typing import Any

import zmq.devices
import zmq.devices.basedevice

from .base import PATIENCE, Device

__all__ = ["PATIENCE", "BackgroundDevice", "ThreadDevice", "running", "watch_main"]

running: set[BackgroundDevice] = set()
"""A running device is kept alive, as its thread would, and stopped when the interpreter exits."""


def _stop_all(devices: list[BackgroundDevice]) -> None:
    for device in devices:
        with contextlib.suppress(Exception):  # the exit goes on; the device has logged it
            device.stop(timeout=PATIENCE)


@atexit.register
def _stop_at_exit() -> None:
    _stop_all(list(running))


def _stop_when_main_ends() -> None:
    """Stop the devices whose threads are no daemons, for which the exit would wait."""
    threading.main_thread().join()
    _stop_all([device for device in list(running) if not device.daemon])


_watch_lock = threading.Lock()
_watching = False


def watch_main() -> None:
    global _watching  # noqa: PLW0603 - once a process
    with _watch_lock:
        if not _watching:
            _watching = True
            threading.Thread(target=_stop_when_main_ends, name="zdev-exit", daemon=True).start()


class BackgroundDevice(Device, zmq.devices.basedevice.BackgroundDevice):
    """A device that runs in the background."""

    launcher: Any = None
    _launch_class: Any = None


class ThreadDevice(BackgroundDevice, zmq.devices.ThreadDevice):
    """A `Device` that runs in a thread of its own."""

    _launch_class = threading.Thread

    def start(self) -> None:
        """Start the thread, and return when the device relays.

        Raises
        ------
        zmq.ZMQError, ValueError, TypeError
            What went wrong; then there is no thread, and the sockets are closed. `zdev.BindError`
            if an address was not to be had.
        RuntimeError
            If the device is running already.
        """
        self._begin()
        ready = threading.Event()
        self._run.on_ready = ready.set

        def run() -> None:
            try:
                self._launch()
            except BaseException as error:  # raised by start or join
                self.exception = error
            finally:
                running.discard(self)
                ready.set()

        running.add(self)
        if not self.daemon:
            watch_main()
        self.launcher = self._launch_class(target=run)
        self.launcher.name = self.name
        self.launcher.daemon = self.daemon
        try:
            self.launcher.start()
        except BaseException:
            running.discard(self)
            self._end()
            raise
        try:
            ready.wait()
        except BaseException:  # Ctrl-C
            self.stop()
            raise
        if self.exception is not None:
            self.launcher.join()
            raise self.exception

    def _await_end(self, timeout: float | None) -> bool:
        self.launcher.join(timeout)
        return not self.launcher.is_alive()
