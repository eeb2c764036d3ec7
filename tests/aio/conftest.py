"""An event loop for a test, one after the other; devices that are stopped behind it."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from zdev import aio

from ..support import DEADLINE, wait_until
from .libraries import NAMES, Library, library_of


@pytest.fixture(params=NAMES)
def library(request: pytest.FixtureRequest) -> Library:
    """Run the test on each event loop."""
    return library_of(request.param)


class Devices:
    """Makes devices that are bound at both ends."""

    def __init__(self) -> None:
        self.made: list[aio.Device] = []
        self.closing: list[zmq.Socket[bytes]] = []

    def __call__(self, kind: str = "Proxy", *args: Any, **options: Any) -> Any:
        types = args or (zmq.PULL, zmq.PUSH)
        device = getattr(aio, kind)(*types, **options)
        if options.get("in_process"):  # so that it has the test's engine
            device._plain._launch_class = multiprocessing.get_context("fork").Process
        for bind in (device.bind_in, device.bind_out):
            bind("tcp://127.0.0.1:*")
        self.made.append(device)
        return device


@pytest.fixture
def devices() -> Iterator[Devices]:
    """Make devices; none of them, and no thread, may be left when the test has ended."""
    made, before = Devices(), set(threading.enumerate())
    try:
        yield made
        assert not any(device._plain._is_running for device in made.made)
        wait_until(lambda: not {t for t in threading.enumerate() if is_ours(t)} - before)
    finally:
        for device in made.made:
            device._plain.stop(timeout=DEADLINE)
        for each in made.closing:
            each.close(0)


def is_ours(thread: threading.Thread) -> bool:
    if thread.name == "zdev-exit":  # that of the process's first device stays
        return False
    return thread.name.startswith("zdev") or " of " in thread.name or "Proxy" in thread.name


IN_PROCESS = pytest.mark.parametrize("in_process", [False, True], ids=["thread", "process"])


def fails() -> None:
    raise ZeroDivisionError


def taken(devices: Devices) -> Any:
    """Return a device whose address is another one's."""
    device = devices()
    holder = zmq.Context.instance().socket(zmq.PULL)
    devices.closing.append(holder)
    port = holder.bind_to_random_port("tcp://127.0.0.1")
    device.bind_in(f"tcp://127.0.0.1:{port}")
    return device
