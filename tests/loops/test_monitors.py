"""Monitors that take nothing, vanish and return, under both capture policies."""

from __future__ import annotations

from typing import Any

import pytest
import zmq

import zdev

from ..support import Background, Network, running, wait_until
from .peers import Feed, accounted, ask, endless, number_of


def drain(socket: zmq.Socket[bytes]) -> list[list[bytes]]:
    """Return what is in a socket, over inproc."""
    messages = []
    while socket.poll(0):
        messages.append(socket.recv_multipart())
    return messages


MONITORS = {"PUSH": zmq.PULL, "PAIR": zmq.PAIR, "DEALER": zmq.DEALER}


def _monitored(
    net: Network, kind: str, policy: Any, **options: int
) -> tuple[zdev.Relay, dict[str, zmq.Socket[bytes]]]:
    frontend, backend = net.bound(zmq.DEALER), net.bound(zmq.DEALER)
    control = net.bound(zmq.REP)
    capture = net.bound(getattr(zmq, kind), **options)
    relay = zdev.Relay(
        frontend,
        backend,
        capture,
        in_prefix=b"in",
        out_prefix=b"out",
        control=control,
        capture_policy=policy,
    )
    return relay, {
        "capture": capture,
        "client": net.peer(frontend, zmq.DEALER),
        "worker": net.peer(backend, zmq.DEALER),
        "operator": net.peer(control, zmq.REQ),
    }


def _messages(count: int) -> list[list[bytes]]:
    """Return messages of one to twenty frames, each of which tells where it belongs."""
    return [
        [b"%d.%d" % (number, frame) for frame in range(1 + number % 20)] for number in range(count)
    ]


@pytest.mark.parametrize("timeout", [-1, 0, 30], ids=["no timeout", "timeout 0", "timeout 30 ms"])
@pytest.mark.parametrize("peer", ["absent", "full"])
@pytest.mark.parametrize("kind", MONITORS)
def test_a_monitor_that_takes_nothing_under_drop(
    engine: str, net: Network, kind: str, peer: str, timeout: int
) -> None:
    """Traffic never waits; what the monitor did get is whole, and the rest is counted."""
    relay, sockets = _monitored(net, kind, "drop", sndtimeo=timeout, sndhwm=2)
    client, worker = sockets["client"], sockets["worker"]
    watcher = None
    if peer == "full":
        watcher = net.peer(sockets["capture"], MONITORS[kind], rcvhwm=2)
    messages = _messages(60)
    with running(relay):
        for message in messages:
            client.send_multipart(message)
            assert worker.recv_multipart() == message
            worker.send_multipart(message[:1])
            assert client.recv_multipart() == message[:1]
        wait_until(lambda: sum(relay.statistics().capture) == 120)
        there, back, capture = relay.statistics()
        assert (there.messages_sent, back.messages_sent) == (60, 60)
        assert there.dropped == back.dropped == capture.parked == 0
        assert len(ask(sockets["operator"], b"STATISTICS")) == 8
        both = [
            copy for message in messages for copy in ([b"in", *message], [b"out", *message[:1]])
        ]
        if watcher is None:
            assert capture.sent == 0
            watcher = net.peer(sockets["capture"], MONITORS[kind])
            # It gets what comes from now on, from the beginning of a message.
            late = 0
            while not watcher.poll(0):
                late += 1
                client.send_multipart([b"late", b"%d" % late])
                assert worker.recv_multipart() == [b"late", b"%d" % late]
            first = watcher.recv_multipart()
            assert first[:2] == [b"in", b"late"]
            assert int(first[2]) <= late
        else:
            copies = drain(watcher)
            assert len(copies) == capture.sent > 0
            assert capture.dropped > 0
            assert copies == both[: capture.sent]


@pytest.mark.parametrize("timeout", [-1, 0, 30], ids=["no timeout", "timeout 0", "timeout 30 ms"])
@pytest.mark.parametrize("peer", ["absent", "full"])
@pytest.mark.parametrize("kind", MONITORS)
def test_a_monitor_that_takes_nothing_under_block(
    engine: str, net: Network, kind: str, peer: str, timeout: int
) -> None:
    """Traffic waits, control and stop do not; and the monitor misses nothing."""
    relay, sockets = _monitored(net, kind, "block", sndtimeo=timeout, sndhwm=2)
    client, worker, operator = sockets["client"], sockets["worker"], sockets["operator"]
    watcher = None
    if peer == "full":
        watcher = net.peer(sockets["capture"], MONITORS[kind], rcvhwm=2)
    messages = _messages(30)
    for message in messages:
        client.send_multipart(message)
        worker.send_multipart(message)
    with running(relay):
        wait_until(lambda: relay.statistics().capture.parked == 2)
        before = relay.statistics()
        for command in (b"PAUSE", b"RESUME", b"nonsense"):
            assert ask(operator, command) == [b""]
        assert len(ask(operator, b"STATISTICS")) == 8
        assert relay.statistics() == before
        assert before.capture.dropped == 0
    assert relay.statistics() == before  # stop() came through
    # A message waits for its copy only: it has been delivered itself.
    there, back, capture = before
    assert there.parked == back.parked == 0
    assert there.messages_sent + back.messages_sent == capture.sent + 2
    assert there.messages_sent < len(messages)

    if watcher is None:
        assert capture.sent == 0
        watcher = net.peer(sockets["capture"], MONITORS[kind])
    with running(relay):
        copies = [watcher.recv_multipart() for _ in range(60)]
        assert [copy[1:] for copy in copies if copy[0] == b"in"] == messages
        assert [copy[1:] for copy in copies if copy[0] == b"out"] == messages
        assert [worker.recv_multipart() for _ in messages] == messages
        assert [client.recv_multipart() for _ in messages] == messages
        wait_until(lambda: relay.statistics().capture == (60, 0, 0))


@pytest.mark.parametrize("policy", ["block", "drop"])
@pytest.mark.parametrize("kind", MONITORS)
def test_a_monitor_that_vanishes_and_returns(
    engine: str, net: Network, kind: str, policy: str
) -> None:
    """Each one that comes sees whole messages, newer ones, in order."""
    relay, sockets = _monitored(net, kind, policy, sndhwm=3)
    client, worker = sockets["client"], sockets["worker"]
    client.sndtimeo = worker.rcvtimeo = 10
    feed = Feed(client)
    numbers: list[int] = []

    def consume() -> None:
        number_of(worker.recv_multipart())

    with running(relay), endless(feed), endless(consume):
        for _ in range(5):
            watcher = net.peer(sockets["capture"], MONITORS[kind], rcvhwm=3)
            if kind == "PAIR" and not watcher.poll(100):
                watcher.close(0)  # it came before the last one had gone, and was refused
                continue
            for _ in range(10):
                prefix, *message = watcher.recv_multipart()
                assert prefix == b"in"
                numbers.append(number_of(message))
            watcher.close(0)
    assert numbers == sorted(set(numbers))
    there, _, capture = relay.statistics()
    assert accounted(there)
    assert there.messages_sent == capture.sent + capture.dropped + capture.parked
    assert there.dropped == 0


def test_a_capture_that_is_out_of_use(engine: str, net: Network) -> None:
    """It gets no copies, and holds nothing up; what is parked has one, and keeps it in use."""
    frontend, backend, capture = net.bound(zmq.PAIR), net.bound(zmq.PAIR), net.bound(zmq.PUSH)
    client, worker = net.peer(frontend, zmq.PAIR), net.peer(backend, zmq.PAIR)
    relay = zdev.Relay(frontend, backend, capture, in_prefix="in")

    def relay_one(*frames: bytes) -> None:
        client.send_multipart(frames)
        while relay.step():
            pass

    relay._use_capture(False)
    for number in range(9):  # of frames: more than go the short way in Python
        relay_one(*[b"x"] * (number + 1))
        assert worker.recv_multipart() == [b"x"] * (number + 1)
    assert relay.statistics().capture == (0, 0, 0)

    relay._use_capture(True)
    relay_one(b"y", b"z")
    relay._use_capture(False)
    assert relay.statistics().capture == (0, 0, 1)
    watcher = net.peer(capture, zmq.PULL)
    wait_until(lambda: relay.step() == 0 and relay.statistics().capture.sent)
    assert watcher.recv_multipart() == [b"in", b"y", b"z"]
    relay_one(b"last")
    assert watcher.recv_multipart() == [b"in", b"last"]
    assert relay.statistics().capture == (2, 0, 0)


@pytest.mark.parametrize("kind", ["PUSH", "XPUB"])
def test_one_that_is_out_of_use_may_fail(engine: str, net: Network, kind: str) -> None:
    """Where copies may be dropped, it ends no relay; and gets none when it is in use again."""
    frontend, backend = net.bound(zmq.PULL), net.bound(zmq.PUSH)
    source, sink = net.peer(frontend, zmq.PUSH), net.peer(backend, zmq.PULL)
    other = Network()
    capture = other.bound(getattr(zmq, kind))
    relay = zdev.Relay(frontend, backend, capture, capture_policy="drop")
    relay._use_capture(False)
    term = Background(other.context.term)

    def terminated() -> bool:
        try:
            capture.poll(0)
        except zmq.ContextTerminated:
            return True
        return False

    def copies_of_one() -> zdev.CaptureStatistics:
        source.send(b"x")
        while relay.step():
            pass
        assert sink.recv() == b"x"
        return relay.statistics().capture

    wait_until(terminated)
    assert copies_of_one() == (0, 0, 0)
    relay._use_capture(True)
    assert copies_of_one() == (0, 1, 0)
    capture.close()
    term.join()
