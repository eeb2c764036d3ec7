"""Which frames subscribe at an XSUB: ZMQ_ONLY_FIRST_SUBSCRIBE, which libzmq does not tell.

What subscribes to very much is kept from the socket; data of any length is not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import zmq

import zdev

from ..support import Network, running
from .background import Devices

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

ANY = "tcp://127.0.0.1:*"


class Forwarder:
    """An XSUB behind which there are peers that can send upstream whatever they like."""

    def __init__(self, net: Network, devices: Devices) -> None:
        self.device = devices("Device", zmq.FORWARDER, zmq.XSUB, zmq.DEALER)
        self.device.bind_in(ANY)
        self.device.bind_out(ANY)
        self.publisher = net.socket(zmq.XPUB, only_first_subscribe=1)
        self.peer = net.socket(zmq.DEALER)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        with self.device:
            self.publisher.connect(self.device.endpoints["in"][0])
            self.peer.connect(self.device.endpoints["out"][0])
            self.peer.send(b"\1hello")
            assert self.publisher.recv() == b"\1hello"  # from now on, what goes upstream comes
            yield

    def passes(self, message: list[bytes]) -> bool:
        """Tell whether a message goes upstream: it does before the next one, or not at all."""
        self.peer.send_multipart(message)
        self.peer.send(b"end")
        seen = self.publisher.recv_multipart()
        if seen != [b"end"]:
            assert seen == message
            assert self.publisher.recv() == b"end"
        return seen == message


@pytest.fixture
def forwarder(net: Network, devices: Devices) -> Forwarder:
    return Forwarder(net, devices)


DATA, TOPIC = [b"data", bytes(5000)], [b"\1" + bytes(5000)]


@pytest.mark.parametrize(("value", "goes"), [(None, False), (0, False), (1, True)])
def test_a_device_learns_which_frames_subscribe(
    engine: str, forwarder: Forwarder, value: int | None, goes: bool
) -> None:
    if value is not None:
        forwarder.device.setsockopt_in(zmq.ONLY_FIRST_SUBSCRIBE, value)
    with forwarder.running():
        assert forwarder.passes(DATA) == goes


def test_a_device_learns_it_while_it_runs(engine: str, forwarder: Forwarder) -> None:
    with forwarder.running():
        for value in (1, 0):
            forwarder.device.setsockopt_in(zmq.ONLY_FIRST_SUBSCRIBE, value)
            assert forwarder.passes(DATA) == bool(value)


def test_a_first_frame_is_looked_at_all_the_same(engine: str, forwarder: Forwarder) -> None:
    forwarder.device.setsockopt_in(zmq.ONLY_FIRST_SUBSCRIBE, 1)
    with forwarder.running():
        assert not forwarder.passes(TOPIC)
        assert not forwarder.passes([b"\1a", *TOPIC])


def test_a_relay_is_told(engine: str, net: Network) -> None:
    frontend, backend = net.bound(zmq.XSUB, only_first_subscribe=1), net.bound(zmq.DEALER)
    publisher = net.socket(zmq.XPUB, only_first_subscribe=1)
    publisher.connect(frontend.last_endpoint.decode())
    peer = net.peer(backend, zmq.DEALER)
    relay = zdev.Relay(frontend, backend, only_first_subscribe=True)
    with running(relay):
        for value in (True, False):
            relay.only_first_subscribe = value
            assert relay.only_first_subscribe is value
            for message in (DATA, [b"end"]):
                peer.send_multipart(message)
            if value:
                assert publisher.recv_multipart() == DATA
            assert publisher.recv_multipart() == [b"end"]
