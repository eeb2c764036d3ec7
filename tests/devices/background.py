"""Devices that make their own sockets, for tests that run on each launcher."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Iterator
from typing import Any, Callable

import zdev

from ..support import DEADLINE, Background, wait_until

LAUNCHERS = ["Thread", "Process"]


class Devices:
    """Makes devices of any kind for one launcher, and stops them behind the test.

    Processes are forked, so that they have the test's engine.
    """

    def __init__(self, launcher: str) -> None:
        self.launcher = launcher
        self.in_this_process = launcher == "Thread"
        self._made: list[Any] = []

    def __call__(self, kind: str, *args: Any, **kwargs: Any) -> Any:
        """Make a device; the kind is the name of its class without the launcher's."""
        return self.of(lambda base: base, kind, *args, **kwargs)

    def of(self, derive: Callable[[Any], Any], kind: str, *args: Any, **kwargs: Any) -> Any:
        """Make a device of a class that is derived from that of the launcher."""
        device = derive(getattr(zdev, self.launcher + kind))(*args, **kwargs)
        if not self.in_this_process:
            device._launch_class = multiprocessing.get_context("fork").Process
        self._made.append(device)
        return device

    def close(self) -> None:
        for device in self._made:
            device.stop(timeout=DEADLINE)


@contextlib.contextmanager
def running_device(device: Any) -> Iterator[None]:
    """Run a device, in the background also if it is of the foreground, and stop it."""
    if hasattr(device, "launcher"):
        with device:
            yield
        return
    background = Background(device.start)
    # Which has a list for each socket that is there, and fills it.
    wait_until(lambda: device._is_running and any(device.endpoints.values()))
    try:
        yield
    finally:
        device.stop(timeout=DEADLINE)
        background.join()
