"""Each pair of socket types that a device joins, over each transport."""

from __future__ import annotations

import pytest
import zmq

import zdev

from .support import Network, running

TRANSPORTS = ["inproc", "ipc", "tcp"]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_streamer(engine: str, net: Network, transport: str) -> None:
    frontend, backend = net.bound(zmq.PULL, transport), net.bound(zmq.PUSH, transport)
    source, sink = net.peer(frontend, zmq.PUSH), net.peer(backend, zmq.PULL)
    messages = [[b"%d" % i, b"", b"x" * i] for i in range(300)]
    relay = zdev.Relay(frontend, backend)
    with running(relay):
        for message in messages:
            source.send_multipart(message)
        assert [sink.recv_multipart() for _ in messages] == messages
    there, back, _ = relay.statistics()
    size = sum(len(frame) for message in messages for frame in message)
    assert there == (300, 900, size, 300, 900, size, 0, 0, 0)
    assert back == (0,) * 9
