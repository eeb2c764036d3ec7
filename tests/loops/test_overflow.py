"""Overflow: what becomes of messages that a full or absent destination refuses, under "drop"."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import zmq

import zdev
from zdev._contract import WOKEN
from zdev.testing.model import Type

from ..support import Network, fill, running, wait_until
from .peers import accounted
from .scripted import ScriptedLibzmq

# Two messages fit between a socket with this and a peer that takes one.
SMALL = {"sndhwm": 1}


def relay_of(
    net: Network, kind: int, peer: int, **options: Any
) -> tuple[Any, Any, Any, zdev.Relay]:
    """Make a relay between two sockets of a type, each with a small peer."""
    frontend, backend = net.bound(kind, **SMALL), net.bound(kind, **SMALL)
    clients = [net.peer(end, peer, rcvhwm=1) for end in (frontend, backend)]
    return *clients, backend, zdev.Relay(frontend, backend, **options)


def moved(relay: zdev.Relay) -> zdev.Statistics:
    """Let everything move that can."""
    while relay.step():
        pass
    return relay.statistics()


def received(peer: zmq.Socket[bytes]) -> list[list[bytes]]:
    """Return what has come to a peer, over inproc."""
    messages = []
    while peer.poll(0):
        messages.append(peer.recv_multipart())
    return messages


MESSAGES = [
    [b"%d.%d" % (number, frame) for frame in range(1 + number % 20)] for number in range(60)
]


@pytest.mark.parametrize("burst", [1, 7, 64])
def test_what_is_refused_is_dropped_whole_and_counted(
    engine: str, net: Network, burst: int
) -> None:
    one, other, _, relay = relay_of(net, zmq.PAIR, zmq.PAIR, overflow="drop", burst=burst)
    for peer in (one, other):
        for message in MESSAGES[:10]:
            peer.send_multipart(message)
            moved(relay)
    there, back, _ = relay.statistics()
    for way in (there, back):
        assert accounted(way)
        assert (way.messages_received, way.messages_sent, way.overflowed) == (10, 2, 8)
        assert (way.dropped, way.unroutable, way.parked) == (0, 0, 0)
        assert way.frames_received == sum(map(len, MESSAGES[:10]))
        assert way.bytes_received == sum(len(b"".join(message)) for message in MESSAGES[:10])
    for peer in (one, other):
        assert received(peer) == MESSAGES[:2]


@pytest.mark.parametrize("overflows", [("park", None, "drop"), ("drop", "park", None)])
def test_each_direction_has_its_own(engine: str, net: Network, overflows: Any) -> None:
    overflow, there, back = overflows
    one, other, _, relay = relay_of(
        net, zmq.DEALER, zmq.DEALER, overflow=overflow, in_overflow=there, out_overflow=back
    )
    for number in range(5):
        for peer in (one, other):
            if peer.poll(0, zmq.POLLOUT):
                peer.send(b"%d" % number)
        moved(relay)
    assert relay.statistics().frontend_to_backend[-2:] == (0, 1)
    assert relay.statistics().backend_to_frontend[-2:] == (3, 0)
    assert received(one) == [[b"0"], [b"1"]]


def test_a_peer_that_keeps_pace_misses_nothing(engine: str, net: Network) -> None:
    """Its room is seen at once, though libzmq's sends look for it once in a millisecond only."""
    source, sink, _, relay = relay_of(net, zmq.PAIR, zmq.PAIR, overflow="drop")
    for number in range(100):
        source.send(b"%d" % number)
        moved(relay)
        if number > 0:
            assert sink.recv() == b"%d" % (number - 1)
    assert relay.statistics().frontend_to_backend.overflowed == 0


def test_nobody_is_waited_for(engine: str, net: Network) -> None:
    """Without a peer, the source is read on, and who comes gets what comes from then on."""
    frontend, backend = net.bound(zmq.PULL), net.bound(zmq.PUSH)
    source = net.peer(frontend, zmq.PUSH)
    relay = zdev.Relay(frontend, backend, overflow="drop")

    def count() -> int:
        return relay.statistics().frontend_to_backend.overflowed

    with running(relay):
        for message in MESSAGES:
            source.send_multipart(message)
        wait_until(lambda: count() == len(MESSAGES))
        sink = relay.call(lambda: net.peer(backend, zmq.PULL))
        for message in MESSAGES:
            source.send_multipart(message)
        assert [sink.recv_multipart() for _ in MESSAGES] == MESSAGES
        assert count() == len(MESSAGES)


def test_the_capture_has_its_own_policy(engine: str, net: Network) -> None:
    """It gets what was sent on and nothing else, and a direction waits for it all the same."""
    frontend, backend = net.bound(zmq.PULL), net.bound(zmq.PUSH, **SMALL)
    capture = net.bound(zmq.PUSH, **SMALL)
    source, sink = net.peer(frontend, zmq.PUSH), net.peer(backend, zmq.PULL, rcvhwm=1)
    watcher = net.peer(capture, zmq.PULL, rcvhwm=1)
    relay = zdev.Relay(frontend, backend, capture, in_prefix=b"in", overflow="drop")
    for message in MESSAGES[:4]:
        source.send_multipart(message)
    there, _, copies = moved(relay)
    assert (there.messages_sent, there.overflowed, copies) == (2, 2, (2, 0, 0))
    assert received(sink) == MESSAGES[:2]
    for message in MESSAGES[4:6]:
        source.send_multipart(message)
    there, _, copies = moved(relay)
    assert (there.messages_sent, there.overflowed, copies) == (3, 2, (2, 0, 1))
    copied = received(watcher)
    moved(relay)
    copied += received(watcher)
    assert copied == [[b"in", *message] for message in (*MESSAGES[:2], *MESSAGES[4:6])]


def test_a_request_for_which_there_is_no_room_is_replied_to(engine: str, net: Network) -> None:
    frontend, backend = net.bound(zmq.REP), net.bound(zmq.DEALER)
    client = net.peer(frontend, zmq.REQ)
    relay = zdev.Relay(frontend, backend, overflow="drop")
    with running(relay):
        client.send(b"request")
        assert client.recv_multipart() == [b""]
    assert relay.statistics().frontend_to_backend.overflowed == 1


@pytest.mark.parametrize("kind", ["ROUTER", "XPUB"])
def test_where_a_socket_drops_only_because_it_was_told_to_refuse(
    engine: str, net: Network, kind: str
) -> None:
    """ROUTER_MANDATORY and XPUB_NODROP make libzmq refuse, and so the loss is counted."""
    frontend, backend = net.bound(zmq.PULL), net.bound(getattr(zmq, kind), **SMALL)
    address = [b"peer"] if kind == "ROUTER" else []
    if kind == "ROUTER":
        backend.router_mandatory = 1
        sink = net.peer(backend, zmq.DEALER, rcvhwm=1, routing_id=b"peer")
    else:
        backend.setsockopt(zmq.XPUB_NODROP, 1)
        sink = net.peer(backend, zmq.SUB, rcvhwm=1)
        sink.subscribe(b"")
    source = net.peer(frontend, zmq.PUSH)
    backend.getsockopt(zmq.EVENTS)  # now it has heard of its peer
    relay = zdev.Relay(frontend, backend, overflow="drop")
    for message in MESSAGES[:9]:
        source.send_multipart([*address, *message])
    there = moved(relay).frontend_to_backend
    assert accounted(there)
    assert there.overflowed + there.messages_sent == 9
    assert there.overflowed > 0
    assert received(sink) == MESSAGES[: there.messages_sent]


# What a loop says of it


def test_a_run_that_nothing_bounds_ends_where_it_begins(scripted_engine: str) -> None:
    libzmq = ScriptedLibzmq()
    frontend = libzmq.socket(Type.PULL, "frontend")
    backend = libzmq.socket(Type.PUSH, "backend", room=1)
    loop = libzmq.loop(scripted_engine, frontend, backend, overflow="drop")
    libzmq.script.append(lambda: frontend.deliver([b"1"]))
    libzmq.script.append(lambda: frontend.deliver([b"2"]))
    libzmq.script.append(lambda: frontend.deliver([b"3"]))
    for overflowed in (1, 2):
        assert loop.run(-1) == WOKEN
        assert not libzmq.over
        assert loop.statistics().frontend_to_backend.overflowed == overflowed
    assert loop.run(-1) == WOKEN
    assert libzmq.over
    libzmq.check()


def test_a_run_that_is_bounded_goes_on(scripted_engine: str) -> None:
    libzmq = ScriptedLibzmq()
    frontend = libzmq.socket(Type.PULL, "frontend")
    backend = libzmq.socket(Type.PUSH, "backend", room=0)
    loop = libzmq.loop(scripted_engine, frontend, backend, overflow="drop")
    frontend.deliver([b"1"])
    libzmq.script.append(lambda: frontend.deliver([b"2"]))
    assert loop.run(1000) == WOKEN
    assert loop.statistics().frontend_to_backend.overflowed == 1
    assert not libzmq.script, "it has not waited"
    libzmq.check()


# What the log says of it


def test_the_log_tells_when_it_begins_and_when_it_has_ended(
    engine: str, net: Network, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zdev._overflow.OVERFLOW_QUIET", 0.05)
    frontend, backend = net.bound(zmq.PULL), net.bound(zmq.PUSH)
    source = net.peer(frontend, zmq.PUSH)
    relay = zdev.Relay(frontend, backend, overflow="drop")

    def said() -> list[str]:
        assert all(record.levelno == logging.WARNING for record in caplog.records)
        return [record.getMessage() for record in caplog.records]

    with running(relay):
        for lines in (2, 4):
            for _ in range(10):
                source.send(b"x")
            wait_until(lambda lines=lines: len(said()) == lines)
    begun, ended = said()[:2]
    assert begun.startswith("the relay of PULL and PUSH drops messages: its backend (PUSH) is full")
    assert "drops no more messages for its backend (PUSH)" in ended
    dropped = [int(line.rpartition(" ")[2]) for line in said()[1::2]]
    assert sum(dropped) == relay.statistics().frontend_to_backend.overflowed == 20


def test_an_end_is_the_end_of_it(
    engine: str, net: Network, caplog: pytest.LogCaptureFixture
) -> None:
    source, _, _, relay = relay_of(net, zmq.PAIR, zmq.PAIR, in_overflow="drop")
    with running(relay):
        fill(source)
        wait_until(lambda: caplog.records)
    _, ended = (record.getMessage() for record in caplog.records)
    assert ended.endswith(f"dropped {relay.statistics().frontend_to_backend.overflowed}")


def test_a_step_tells_too(engine: str, net: Network, caplog: pytest.LogCaptureFixture) -> None:
    one, other, _, relay = relay_of(net, zmq.PAIR, zmq.PAIR, out_overflow="drop")
    for _ in range(5):
        other.send(b"x")
        moved(relay)
    one.send(b"y")  # that nothing was dropped just now does not mean that it has ended
    moved(relay)
    assert len(caplog.records) == 1
    assert "its frontend (PAIR) is full" in caplog.text
