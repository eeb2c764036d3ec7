"""What peers may do to a relay: strange sizes, strange bytes, and to vanish."""

from __future__ import annotations

import socket as tcp
import subprocess
import sys
from typing import Any

import pytest
import zmq

import zdev

from ..support import DEADLINE, Network, running, wait_until
from .peers import FRAMES, Exchange, Feed, accounted, endless, number_of

# Sizes


SHAPES = {
    "empty frame": [b""],
    "empty frames": [b""] * 7,
    "10,000 frames": [b"%d" % number for number in range(10_000)],
    "64 frames of 1 MiB": [bytes([number]) * 2**20 for number in range(64)],
}


@pytest.mark.parametrize(
    ("transport", "swapped", "captured"),
    [("inproc", False, False), ("inproc", True, True), ("tcp", False, True), ("tcp", True, False)],
    ids=["inproc", "inproc-swapped-captured", "tcp-captured", "tcp-swapped"],
)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.usefixtures("zero_copy")
def test_extreme_sizes(
    engine: str, net: Network, shape: str, swapped: bool, captured: bool, transport: str
) -> None:
    message = SHAPES[shape]
    size = sum(map(len, message))
    kind = zmq.ROUTER if swapped else zmq.DEALER
    frontend, backend = net.bound(kind, transport), net.bound(kind, transport)
    client = net.peer(frontend, zmq.DEALER, routing_id=b"client")
    worker = net.peer(backend, zmq.DEALER, routing_id=b"worker")
    settings: dict[str, Any] = {}
    watcher = None
    if captured:
        capture = net.bound(zmq.PUSH, transport)
        watcher = net.peer(capture, zmq.PULL)
        settings = {"capture": capture, "in_prefix": b"in", "out_prefix": b"out"}
    relay = zdev.Relay(frontend, backend, **settings)
    with running(relay):
        there = back = seen = message
        copies = [[b"in", *message], [b"out", *message]]
        if swapped:
            # The device is to know the worker; it may not know the client yet.
            worker.send_multipart([b"nobody", b"hello"])
            wait_until(lambda: relay.statistics().backend_to_frontend.messages_received)
            if watcher is not None:
                watcher.recv_multipart()
            there, back, seen = [b"worker", *message], [b"client", *message], [b"client", *message]
            copies = [[b"in", b"worker", b"client", *message]]
            copies.append([b"out", b"client", b"worker", *message])
        client.send_multipart(there, copy=False)
        assert worker.recv_multipart() == seen
        client.send(b"worker" if swapped else b"next")
        assert worker.recv_multipart() == ([b"client"] if swapped else [b"next"])
        worker.send_multipart(back, copy=False)
        assert client.recv_multipart()[1 if swapped else 0 :] == message
        statistics = relay.statistics().frontend_to_backend
        assert statistics.frames_sent == len(message) + (4 if swapped else 1)
        assert statistics.bytes_sent == size + (24 if swapped else 4)
        if watcher is not None:
            assert watcher.recv_multipart() == copies[0]
            watcher.recv_multipart()
            assert watcher.recv_multipart() == copies[1]


# Peers that vanish in the middle of a message


DESTINATIONS = {"PUSH": zmq.PULL, "DEALER": zmq.DEALER, "PAIR": zmq.PAIR, "ROUTER": zmq.DEALER}


def _outlet(net: Network, kind: str, transport: str) -> tuple[zdev.Relay, zmq.Socket[bytes], Feed]:
    """Make a relay to a backend of that kind, and what feeds it."""
    frontend = net.bound(zmq.PULL, rcvhwm=10)
    options = {"router_handover": 1} if kind == "ROUTER" else {}
    backend = net.bound(getattr(zmq, kind), transport, sndhwm=2, **options)
    source = net.peer(frontend, zmq.PUSH, sndhwm=10)
    feed = Feed(source, b"sink") if kind == "ROUTER" else Feed(source)
    return zdev.Relay(frontend, backend), backend, feed


@pytest.mark.parametrize("transport", ["inproc", "tcp"])
@pytest.mark.parametrize("kind", DESTINATIONS)
def test_a_peer_that_vanishes_takes_at_most_its_own_messages(
    engine: str, net: Network, kind: str, transport: str
) -> None:
    """The next one sees whole messages only, newer ones, in order."""
    relay, backend, feed = _outlet(net, kind, transport)
    numbers: list[int] = []
    vanished = 0
    with running(relay):
        with endless(feed):
            while vanished < 12:
                sink = net.peer(backend, DESTINATIONS[kind], rcvhwm=2, routing_id=b"sink")
                if kind == "PAIR" and not sink.poll(100):
                    sink.close(0)  # it came before the last one had gone, and was refused
                    continue
                for _ in range(1 + vanished % 4):
                    numbers.append(number_of(sink.recv_multipart()))
                sink.close(0)
                vanished += 1
        # Whoever is left gets the rest.
        sink = net.peer(backend, DESTINATIONS[kind], routing_id=b"sink")
        while sink.poll(100):
            numbers.append(number_of(sink.recv_multipart()))
    there = relay.statistics().frontend_to_backend
    assert accounted(there)
    assert there.frames_sent == there.messages_sent * (FRAMES + (kind == "ROUTER"))
    assert there.messages_sent >= len(numbers)
    assert numbers == sorted(set(numbers))


VICTIM = """
import sys, zmq
socket = zmq.Context().socket(zmq.PULL)
socket.rcvhwm = 2
socket.connect(sys.argv[1])
for _ in range(3):
    socket.recv_multipart()
print("alive", flush=True)
while True:
    socket.recv_multipart()
"""


def test_a_peer_that_is_killed(engine: str, net: Network) -> None:
    relay, backend, feed = _outlet(net, "PUSH", "tcp")
    numbers: list[int] = []
    command = [sys.executable, "-c", VICTIM, backend.getsockopt_string(zmq.LAST_ENDPOINT)]
    with running(relay), endless(feed):
        for _ in range(2):
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as victim:
                assert victim.stdout is not None
                assert victim.stdout.readline() == "alive\n"
                victim.kill()
            sink = net.peer(backend, zmq.PULL, rcvhwm=2)
            for _ in range(20):
                numbers.append(number_of(sink.recv_multipart()))
            sink.close(0)
    assert accounted(relay.statistics().frontend_to_backend)
    assert numbers == sorted(set(numbers))


def test_clients_that_come_and_go(engine: str, net: Network) -> None:
    """A broker whose clients leave at any moment serves the one that stays."""
    frontend, backend = net.bound(zmq.ROUTER, "tcp"), net.bound(zmq.DEALER, "tcp")
    relay = zdev.Relay(frontend, backend)
    worker, loyal = net.peer(backend, zmq.REP), net.peer(frontend, zmq.REQ)
    with running(relay):
        for number in range(30):
            hasty = net.peer(frontend, zmq.DEALER)
            for _ in range(number % 3):
                hasty.send_multipart([b"", b"hasty"] * 50)
            hasty.close(0)
            loyal.send_multipart([b"loyal", b"%d" % number])
            request: list[bytes] = []
            while request[:1] != [b"loyal"]:
                request = worker.recv_multipart()
                worker.send_multipart(request)
            assert loyal.recv_multipart() == [b"loyal", b"%d" % number]
    assert all(accounted(way) for way in relay.statistics()[:2])


# What a remote peer may send


def test_strangers_on_the_wire(engine: str, net: Network) -> None:
    """Whoever speaks no ZMTP, an old one, or stops in its middle, disturbs nobody."""
    frontend, backend = net.bound(zmq.ROUTER, "tcp"), net.bound(zmq.DEALER)
    relay = zdev.Relay(frontend, backend)
    client, worker = net.peer(frontend, zmq.REQ), net.peer(backend, zmq.REP)
    port = int(frontend.getsockopt_string(zmq.LAST_ENDPOINT).rsplit(":", 1)[1])
    old = b"\1\0\6\0hello"  # a message of ZMTP 1.0, from nobody
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)
    with running(relay):
        for noise in (b"", b"GET / HTTP/1.1\r\n\r\n", old, greeting, greeting[:10], bytes(100)):
            with tcp.create_connection(("127.0.0.1", port), timeout=DEADLINE) as stranger:
                stranger.sendall(noise)
                client.send(noise)
                assert worker.recv() == noise
                worker.send(noise)
                assert client.recv() == noise
    there = relay.statistics().frontend_to_backend
    assert accounted(there)
    assert there.messages_sent >= 6


def test_probes_are_messages_like_others(engine: str, net: Network) -> None:
    """ZMQ_PROBE_ROUTER sends an empty message at each connect."""
    exchange = Exchange(net)
    worker = exchange.worker(b"worker", zmq.DEALER)
    with running(exchange.relay):
        for number in range(10):
            client = net.peer(
                exchange.frontend, zmq.DEALER, routing_id=b"%d" % number, probe_router=1
            )
            client.send_multipart([b"worker", b"hello"])
            assert worker.recv_multipart() == [b"%d" % number, b"hello"]
    there = exchange.relay.statistics().frontend_to_backend
    assert (there.messages_received, there.messages_sent, there.unroutable) == (20, 10, 10)


def test_a_stream_takes_an_address_and_one_frame(engine: str, net: Network) -> None:
    """Anything else would shift the meaning of all that follows, for everybody."""
    frontend, backend = net.bound(zmq.STREAM, "tcp"), net.bound(zmq.DEALER)
    relay = zdev.Relay(frontend, backend)
    worker = net.peer(backend, zmq.DEALER)
    port = int(frontend.getsockopt_string(zmq.LAST_ENDPOINT).rsplit(":", 1)[1])
    with running(relay), tcp.create_connection(("127.0.0.1", port), timeout=DEADLINE) as peer:
        address, nothing = worker.recv_multipart()
        assert nothing == b""
        peer.sendall(b"question")
        assert worker.recv_multipart() == [address, b"question"]
        for message in (
            [b""],
            [address],
            [b"", b"x"],
            [address, b"x", b"y"],
            [address] * 100,
            [b"stranger", b"x"],
        ):
            worker.send_multipart(message)
        worker.send_multipart([address, b"answer"])
        assert peer.recv(100) == b"answer"
        back = relay.statistics().backend_to_frontend
        assert (back.messages_sent, back.unroutable) == (1, 6)


def test_subscribers_that_send_nonsense(engine: str, net: Network) -> None:
    """What is no subscription goes upstream as a message; the news go on."""
    frontend, backend = net.bound(zmq.XSUB), net.bound(zmq.XPUB)
    relay = zdev.Relay(frontend, backend)
    publisher, odd = net.peer(frontend, zmq.XPUB), net.peer(backend, zmq.XSUB)
    with running(relay):
        odd.send(b"\1news")
        assert publisher.recv_multipart() == [b"\1news"]
        odd.send_multipart([b"\2odd", b"", b"more"])
        assert publisher.recv_multipart() == [b"\2odd", b"", b"more"]
        for _ in range(3):
            odd.send(b"\0never subscribed to")
        for number in range(20):
            publisher.send_multipart([b"news", b"%d" % number, b""])
            assert odd.recv_multipart() == [b"news", b"%d" % number, b""]
    assert all(accounted(way) for way in relay.statistics()[:2])
