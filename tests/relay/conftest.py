"""What the tests of relays are given: a relay with peers, and a handler of a signal."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator

import pytest

from ..support import Network
from .scenes import Handler
from .streamer import Streamer


@pytest.fixture
def streamer(net: Network) -> Streamer:
    return Streamer(net)


@pytest.fixture
def handler() -> Iterator[Handler]:
    """Handle SIGUSR1, and see that everything is put back."""
    handler = Handler()
    gc.collect()  # what it raises in the finalizer of an earlier test's garbage would be lost
    previous = signal.signal(signal.SIGUSR1, handler)
    interrupt = signal.getsignal(signal.SIGINT)
    yield handler
    assert signal.getsignal(signal.SIGUSR1) is handler
    assert signal.getsignal(signal.SIGINT) is interrupt
    assert signal.set_wakeup_fd(-1) == -1
    signal.signal(signal.SIGUSR1, previous)
