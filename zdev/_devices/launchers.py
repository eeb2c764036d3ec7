"""Where a device runs: in a thread (here) or in a process (see `process`), and the exit of both."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing.process
import multiprocessing.util
import os
import threading
import time
import traceback
from typing import Any, Callable, ClassVar

import zmq.devices
import zmq.devices.basedevice

from .base import PATIENCE, Device, Run
from .latch import Latch

__all__ = ["PATIENCE", "BackgroundDevice", "ThreadDevice"]

GRACE = 0.2
"""Seconds in which what a subclass runs instead of a relay of zdev's may still fail its start."""

_running: set[BackgroundDevice] = set()
"""A running device is kept alive, as its thread would, and stopped when the interpreter exits."""

_of_parents: list[Any] = []
"""What a fork left here of its parent's devices. It is never touched: it was caught in the act."""

_watcher: threading.Thread | None = None

_main_ends: Latch | None = None
"""Set when the main thread has come to its end, where that can be known."""


def _stop_all(devices: list[BackgroundDevice]) -> None:
    """Stop devices at the exit, which goes on whatever becomes of them."""
    for device in devices:
        with contextlib.suppress(Exception):
            device._ask("stop", None)
    deadline = time.monotonic() + PATIENCE
    for device in devices:
        with contextlib.suppress(Exception):
            device.stop(timeout=max(deadline - time.monotonic(), 0))


def _stop_when_the_rest_ends() -> None:
    """Stop the devices whose threads are no daemons, for which the exit would wait.

    As for daemons, the time has come when no other thread is left for which it waits.
    """
    if _main_ends is None:
        threading.main_thread().join()
    else:
        _main_ends.wait()
    while True:
        devices = [device for device in list(_running) if not device.daemon]
        ours = {device._run.worker for device in devices}
        others = [t for t in threading.enumerate() if not t.daemon and t not in ours]
        others = [t for t in others if t is not threading.main_thread()]
        if not others:
            return _stop_all(devices)
        others[0].join()


def _watch() -> None:
    global _main_ends, _watcher  # noqa: PLW0603 - once a process
    if _watcher is None:
        # To join the main thread is a race with its own look at whether it has ended, which may
        # then fail (python/cpython: threading._shutdown). concurrent.futures does it this way.
        ending = Latch()
        with contextlib.suppress(AttributeError, RuntimeError):
            threading._register_atexit(ending.set)  # type: ignore[attr-defined]
            _main_ends = ending
        _watcher = threading.Thread(target=_stop_when_the_rest_ends, name="zdev-exit", daemon=True)
        _watcher.start()


_exit_of: int | None = None


def _stop_at_exit() -> None:
    """Stop what runs before `multiprocessing` waits for it, here and in its own processes."""
    global _exit_of  # noqa: PLW0603 - once a process
    if _exit_of != os.getpid():
        _exit_of = os.getpid()
        multiprocessing.util.Finalize(None, lambda: _stop_all(list(_running)), exitpriority=1000)


def _after_fork() -> None:
    """Have none of the parent's devices in a fork."""
    global _watcher  # noqa: PLW0603 - once a process
    _watcher = None
    # At its exit multiprocessing would terminate its parent's processes
    children: set[Any] = getattr(multiprocessing.process, "_children", set())
    for device in list(_running):
        children.discard(device.launcher)
        _of_parents.append((device._run, device._sockets, device._context, device.launcher))
        device._never_started()
        device.launcher = None
    _running.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class BackgroundDevice(Device, zmq.devices.basedevice.BackgroundDevice):
    """A device that runs in the background."""

    launcher: Any = None
    _launch_class: Any = None
    _in_background: ClassVar[bool] = True

    def _begin(self) -> None:
        super()._begin()
        _running.add(self)
        _stop_at_exit()

    def _no_more_running(self) -> None:
        _running.discard(self)

    def _misses_start(self) -> bool:
        return not self._run.ready.is_set()

    def _make_launcher(self, target: Any) -> None:
        self.launcher = self._launch_class(target=target)
        self.launcher.name = self.name
        self.launcher.daemon = self.daemon

    def join(self, timeout: float | None = None) -> None:
        if self.launcher is not None and not self._started:
            self.launcher.join(timeout)  # a subclass has launched it, as pyzmq's start() does
        else:
            super().join(timeout)

    join.__doc__ = Device.join.__doc__

    def _give_up(self, error: BaseException, undo: Callable[[], None]) -> None:
        """End a start that failed, or that Ctrl-C interrupts when the worker may have begun."""
        run = self._run
        if run.claim.acquire(blocking=False):
            run.worker = None
            self._fail(error)
            undo()
        else:
            self._interrupt()

    def _interrupt(self) -> None:
        """Stop a device whose start Ctrl-C interrupts."""
        run = self._run
        with contextlib.suppress(TimeoutError):
            self.stop(timeout=PATIENCE)
            self._await_end(PATIENCE, run)  # stop() has not, where the worker is not yet known

    def _await_ready(self, run: Run) -> None:
        """Return when the device relays, or raise what prevented it."""
        try:
            run.ready.wait()
            run.settled.wait(GRACE)
        except BaseException:  # Ctrl-C
            run.is_awaited = False
            self._interrupt()
            raise
        with self._lock:  # from here on, an error is not raised but shown
            run.is_awaited = False
            error = run.exception
        if error is not None:
            self._await_end(None, run)
            run.bound = {}  # of which nothing came
            raise error


class ThreadDevice(BackgroundDevice, zmq.devices.ThreadDevice):
    """A `Device` that runs in a thread of its own."""

    _launch_class = threading.Thread

    def _begin(self) -> None:
        super()._begin()
        if threading.current_thread() is self.launcher:  # as in `join`
            self._run.worker = self.launcher

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
        run = self._run
        run.is_awaited = True
        try:
            self._make_launcher(functools.partial(self._run_in_thread, run))
            run.worker = self.launcher
            if not self.daemon:
                _watch()
            self.launcher.start()
        except BaseException as error:
            self._give_up(error, self._end)
            raise
        self._await_ready(run)

    def _run_in_thread(self, run: Run) -> None:
        if not run.claim.acquire(blocking=False):
            return
        try:
            self._launch()
        except BaseException as error:  # raised by start or join
            run.exception = error
            # Nobody keeps sockets and relays by keeping the error.
            traceback.clear_frames(error.__traceback__)
