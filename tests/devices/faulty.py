"""Devices that cannot start, that fail, or that take their time, when a test says so."""

from __future__ import annotations

import multiprocessing
from typing import Any

from ..support import DEADLINE

FORK = multiprocessing.get_context("fork")


class Trouble(Exception):
    """What a subclass may raise."""


def trouble() -> Any:
    raise Trouble("none to be had")


def bad_option(device: Any) -> None:
    device.setsockopt_out(99_999, 1)


def bad_prefix(device: Any) -> None:
    device._in_prefix = 3.14


class Hesitant:
    """A device whose sockets take their time."""

    def __init__(self) -> None:
        self.entered, self.gate = FORK.Event(), FORK.Event()

    def __call__(self, base: Any) -> Any:
        class Device(base):  # type: ignore[misc]
            def _setup_sockets(device) -> Any:  # noqa: N805
                self.entered.set()
                assert self.gate.wait(DEADLINE)
                return super()._setup_sockets()

        return Device


class Failing:
    """A device that fails when it is told."""

    def __init__(self, error: BaseException) -> None:
        self.fail, self.error = FORK.Event(), error

    def __call__(self, base: Any) -> Any:
        class Device(base):  # type: ignore[misc]
            def run_device(device) -> None:  # noqa: N805
                device._setup_sockets()
                assert self.fail.wait(DEADLINE)
                raise self.error

        return Device
