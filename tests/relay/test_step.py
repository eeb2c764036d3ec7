"""Steps: a relay in an event loop of its user's."""

from __future__ import annotations

import select
from typing import Any

import pytest
import zmq

import zdev

from ..support import DEADLINE, Background, Network, fill
from .streamer import Streamer


def test_step_relays_a_burst_of_each_direction(engine: str, net: Network) -> None:
    frontend, backend = net.bound(zmq.PAIR), net.bound(zmq.PAIR)
    left, right = net.peer(frontend, zmq.PAIR), net.peer(backend, zmq.PAIR)
    relay = zdev.Relay(frontend, backend, burst=4)
    assert relay.step() == 0
    for i in range(10):
        left.send(b"%d" % i)
    for i in range(5):
        right.send(b"%d" % i)
    assert [relay.step() for _ in range(5)] == [8, 5, 2, 0, 0]
    assert [right.recv(zmq.DONTWAIT) for _ in range(10)] == [b"%d" % i for i in range(10)]
    assert [left.recv(zmq.DONTWAIT) for _ in range(5)] == [b"%d" % i for i in range(5)]


def test_step_tells_when_it_is_over(engine: str, net: Network, streamer: Streamer) -> None:
    control = net.bound(zmq.PAIR)
    commander = net.peer(control, zmq.PAIR)
    relay = zdev.Relay(streamer.frontend, streamer.backend, control=control)
    streamer.source.send(b"x")
    relay.stop()
    assert relay.step() is None
    assert relay.step() == 1
    commander.send(b"PAUSE")
    assert relay.step() == 1
    streamer.source.send(b"y")
    assert relay.step() == 0
    commander.send(b"RESUME")
    assert relay.step() == 1
    assert relay.step() == 1
    commander.send(b"TERMINATE")
    assert relay.step() is None
    assert relay.step() == 0
    assert [streamer.sink.recv(zmq.DONTWAIT) for _ in range(2)] == [b"x", b"y"]


@pytest.mark.parametrize("paused", [True, False])
def test_step_tells_when_a_drain_is_over(engine: str, net: Network, paused: bool) -> None:
    streamer = Streamer(net, burst=2)
    for _ in range(5):
        streamer.source.send(b"x")
    if paused:
        streamer.relay.pause()
    streamer.relay.stop(drain=DEADLINE)
    steps = [streamer.relay.step() for _ in range(4)]
    assert steps == [2, 2, 1, None]
    assert streamer.relay.step() == 0
    assert streamer.there.messages_sent == 5


def driven(relay: zdev.Relay, sockets: list[zmq.Socket[bytes]]) -> int:
    """Step a relay from an event loop, as `step` says, until it is over; return the waits."""
    poller = select.poll()
    for socket in sockets:
        poller.register(int(socket.getsockopt(zmq.FD)), select.POLLIN)
    waits = 0
    while True:
        moved = relay.step()
        if moved is None:
            return waits
        if moved == 0:
            assert poller.poll(int(DEADLINE * 1000)), "nothing can be read, yet it is not over"
            waits += 1


@pytest.mark.parametrize("burst", [1, 64])
@pytest.mark.parametrize("transport", ["inproc", "tcp"])
def test_step_in_an_event_loop_never_stalls(
    engine: str, net: Network, transport: str, burst: int
) -> None:
    """Small HWMs park messages all the time, in both directions and for the capture."""
    count = 300
    small: dict[str, Any] = {"sndhwm": 2, "rcvhwm": 2}
    kinds = (zmq.ROUTER, zmq.DEALER, zmq.PUSH, zmq.PAIR)
    sockets = [net.bound(kind, transport, **small) for kind in kinds]
    frontend, backend, capture, control = sockets
    frontend.setsockopt(zmq.ROUTER_MANDATORY, 1)  # a full client is waited for
    client = net.peer(frontend, zmq.DEALER, **small)
    worker = net.peer(backend, zmq.REP)
    monitor = net.peer(capture, zmq.PULL, **small)
    commander = net.peer(control, zmq.PAIR)
    relay = zdev.Relay(frontend, backend, capture, control=control, burst=burst)
    loop = Background(driven, relay, sockets)

    def work() -> None:
        for _ in range(count):
            worker.send(worker.recv())

    def watch() -> list[bytes]:
        return [monitor.recv_multipart()[-1] for _ in range(2 * count)]

    working, watching = Background(work), Background(watch)
    sent = received = 0
    while received < count:  # one thread for the client's socket
        interests = zmq.POLLIN | (zmq.POLLOUT if sent < count else 0)
        events = client.poll(int(DEADLINE * 1000), interests)
        assert events, "neither can be sent nor received"
        if events & zmq.POLLIN:
            assert client.recv_multipart() == [b"", b"%d" % received]
            received += 1
        elif sent < count:
            client.send_multipart([b"", b"%d" % sent])
            sent += 1
    working.join()
    numbers = [b"%d" % i for i in range(count) for _ in range(2)]
    assert sorted(watching.join()) == sorted(numbers)
    commander.send(b"TERMINATE")
    assert loop.join() > 0
    there, back, side = relay.statistics()
    assert (there.messages_sent, back.messages_sent, side.sent) == (count, count, 2 * count)


def test_step_returns_0_only_when_nothing_can_move(engine: str, net: Network) -> None:
    """All in one thread over inproc, where whatever was sent is there."""
    small: dict[str, Any] = {"sndhwm": 3, "rcvhwm": 3}
    frontend, backend = net.bound(zmq.PAIR, **small), net.bound(zmq.PAIR, **small)
    left, right = net.peer(frontend, zmq.PAIR, **small), net.peer(backend, zmq.PAIR, **small)
    poller = select.poll()
    for socket in (frontend, backend):
        poller.register(int(socket.getsockopt(zmq.FD)), select.POLLIN)
    relay = zdev.Relay(frontend, backend, burst=2)

    def settle() -> None:
        while relay.step():
            pass

    for _ in range(20):
        taken = fill(left)
        settle()
        taken += fill(left)
        settle()
        there = relay.statistics().frontend_to_backend
        assert there.parked == 1
        # the way back is free meanwhile
        right.send(b"back")
        assert poller.poll(int(DEADLINE * 1000))
        settle()
        assert left.recv(zmq.DONTWAIT) == b"back"
        for number in range(taken):
            assert right.recv(zmq.DONTWAIT) == b"full", number
            if poller.poll(0):
                settle()
        assert relay.statistics().frontend_to_backend.parked == 0
        with pytest.raises(zmq.Again):
            right.recv(zmq.DONTWAIT)
