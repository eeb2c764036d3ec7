"""Peers that come and go, and subscriptions: the memory of a device goes back."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from typing import Any

import pytest
import zmq

from ..support import Network, descriptors, wait_until
from .background import Devices
from .peers import connected
from .streams import Stream
from .test_remains import resident, tasks

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
]


def given_back() -> int:
    """Return what this process has in memory, when it has given back what it can."""
    with contextlib.suppress(AttributeError):  # of other C libraries
        ctypes.CDLL(None).malloc_trim(0)
    return resident()


# With nothing unread in the sockets: until that is read, libzmq keeps what it has of each peer that
# came and went, about 11 kB. SECURITY.md tells of that.


def paused(stream: Stream) -> None:
    stream.device.pause()


def waiting(stream: Stream) -> None:
    stream.source().send(b"x")
    wait_until(lambda: stream.there.parked)


@pytest.mark.parametrize("state", [None, paused, waiting])
def test_peers_that_come_and_go_leave_nothing(
    engine: str, net: Network, threads: Devices, state: Any
) -> None:
    """Whatever the device does meanwhile, libzmq gets to process what they leave."""
    stream = Stream(net, threads)
    with stream.device:
        if state is not None:
            state(stream)
        (address,) = stream.device.endpoints["in"]

        def come_and_go(times: int) -> None:
            for _ in range(times):
                peer = connected(address, b"PUSH")
                peer.shake_hands()
                peer.connection.close()

        come_and_go(300)
        threads_then, files, size = tasks(), descriptors(), given_back()
        come_and_go(1500)
        wait_until(lambda: descriptors() <= files)
        assert tasks() == threads_then
        # Each would cost 11 kB if it was kept.
        assert given_back() - size < 4_000_000


@pytest.mark.skipif(
    sys.implementation.name == "pypy", reason="PyPy's own memory changes by more than they take"
)
def test_subscriptions_that_are_cancelled_leave_nothing(
    engine: str, net: Network, threads: Devices
) -> None:
    count = 20_000
    news = threads("Device", zmq.FORWARDER, zmq.XSUB, zmq.XPUB)
    news.context_factory = lambda: net.context
    news.bind_in("tcp://127.0.0.1:*")
    news.bind_out("tcp://127.0.0.1:*")
    news.setsockopt_in(zmq.SNDHWM, 0)  # where it is full, XSUB drops subscriptions
    news.start()
    paper = net.socket(zmq.XPUB, rcvhwm=0)
    paper.connect(news.endpoints["in"][0])
    reader = net.socket(zmq.XSUB, sndhwm=0)
    reader.connect(news.endpoints["out"][0])

    def pass_up(kind: bytes) -> None:
        for number in range(count):
            reader.send(kind + b"%032d" % number)
        for number in range(count):
            assert paper.recv() == kind + b"%032d" % number

    sizes = []
    for _ in range(4):  # the first makes the allocators' own
        pass_up(b"\1")
        peak = given_back()
        pass_up(b"\0")
        sizes.append(given_back())
    grown, taken = sizes[3] - sizes[1], peak - sizes[3]
    assert grown < taken  # if they were kept, it would be two rounds' worth
