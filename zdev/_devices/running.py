"""The devices that run in this process: stopped at its exit, left behind by its forks.

A device is known here by what it can be asked: whether it is a daemon, its launcher, and to stop.
"""

from __future__ import annotations

import contextlib
import multiprocessing.process
import multiprocessing.util
import os
import threading
import time
from collections.abc import Iterable
from typing import Any, Callable, Protocol

from zdev import _tasks
from zdev._threads import Thread
from zdev._times import PATIENCE

from .progress import Progress

__all__ = ["add", "addresses", "discard", "watch_main_thread"]


class Running(Protocol):
    """What is asked of a device here."""

    daemon: bool
    launcher: Any
    _run: Progress | None

    def stop(self, drain: float | None = None, timeout: float | None = None) -> object:
        """End it."""

    def _forget_run(self) -> None:
        """Be as never started."""


_running: set[Running] = set()
"""A running device is kept alive, as its thread would."""

_of_parents: list[Any] = []
"""What a fork left here of its parent's devices. It is never touched: it was caught in the act."""


def add(device: Running) -> None:
    """Take in a device that begins to run."""
    _running.add(device)
    _stop_at_exit()


def discard(device: Running) -> None:
    """Forget a device that ends."""
    _running.discard(device)


def addresses() -> list[str]:
    """Return where the devices of this process are bound."""
    runs = [device._run for device in list(_running)]
    roles = [role for run in runs if run is not None for role in run.endpoints().values()]
    return [address for role in roles for address in role]


# The exit


def _stop_all(devices: Iterable[Running]) -> None:
    """Stop devices at the exit, which goes on whatever becomes of them."""
    devices = list(devices)
    for device in devices:
        with contextlib.suppress(Exception):
            if device._run is not None:
                device._run.stop(None)
    deadline = time.monotonic() + PATIENCE
    for device in devices:
        with contextlib.suppress(Exception):
            device.stop(timeout=max(deadline - time.monotonic(), 0))


_exit_of: int | None = None


def _stop_at_exit() -> None:
    """Stop what runs before `multiprocessing` waits for it, here and in its own processes."""
    global _exit_of  # noqa: PLW0603 - once a process
    if _exit_of != os.getpid():
        _exit_of = os.getpid()
        multiprocessing.util.Finalize(None, lambda: _stop_all(_running), exitpriority=1000)


# The exit waits for threads that are no daemons, before it calls anything. A thread of ours, which
# is one, stops the devices for whose threads it would wait. `test_exit` has such devices.

_watcher: threading.Thread | None = None


def watch_main_thread() -> None:
    """See to it that the exit does not wait for devices for ever."""
    global _watcher  # noqa: PLW0603 - once a process
    if _watcher is not None or _tasks.has_replaced_threads():  # the exit knows no thread of ours
        return
    wait: Callable[[], Any] = threading.main_thread().join
    # To join the main thread is a race with CPython's own look at whether that has ended, which may
    # then fail at the exit. concurrent.futures does it this way.
    main_ends = threading.Event()
    with contextlib.suppress(AttributeError, RuntimeError):
        threading._register_atexit(main_ends.set)  # type: ignore[attr-defined]
        wait = main_ends.wait
    _watcher = Thread(target=_stop_the_rest, args=(wait,), name="zdev-exit", daemon=True)
    _watcher.start()


def _stop_the_rest(wait_for_main_thread: Callable[[], Any]) -> None:
    """Stop the devices that are no daemons, when no other thread is left but daemons."""
    wait_for_main_thread()
    while True:
        devices = [device for device in list(_running) if not device.daemon]
        ours = {device._run.worker for device in devices if device._run is not None}
        others = [t for t in threading.enumerate() if not t.daemon and t not in ours]
        others = [t for t in others if t is not threading.main_thread()]
        if not others:
            return _stop_all(devices)
        others[0].join()


# Forks


def _after_fork() -> None:
    """Have none of the parent's devices in a fork."""
    global _watcher  # noqa: PLW0603 - once a process
    _watcher = None
    # At its exit multiprocessing would terminate its parent's processes
    children: set[Any] = getattr(multiprocessing.process, "_children", set())
    for device in list(_running):
        children.discard(device.launcher)
        _of_parents.append((device._run, device.launcher))
        device._forget_run()
        device.launcher = None
    _running.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
