"""A relay runs, stops, drains, pauses, and counts."""

from __future__ import annotations

import contextlib
import math
import threading
import typing
from collections.abc import Iterator
from typing import Any, Callable

import pytest
import zmq

import zdev

from ..support import DEADLINE, Background, Network, running, wait_until
from .streamer import NOTHING, Streamer

# run and stop


def flood(source: zmq.Socket[bytes], stop: threading.Event) -> int:
    """Send until told to stop; return how many."""
    sent = 0
    while not stop.is_set():
        with contextlib.suppress(zmq.Again):
            source.send(b"x", zmq.DONTWAIT)
            sent += 1
    return sent


@contextlib.contextmanager
def flooded(streamer: Streamer) -> Iterator[None]:
    """A device under full load."""
    stop = threading.Event()
    sending = Background(flood, streamer.source, stop)
    try:
        wait_until(lambda: streamer.there.messages_received > 2000)
        yield
    finally:
        stop.set()
        sending.join()


@contextlib.contextmanager
def parked(streamer: Streamer) -> Iterator[None]:
    streamer.relay.call(streamer.disconnect_sink)
    streamer.source.send(b"parked")
    wait_until(lambda: streamer.there.parked)
    yield


@contextlib.contextmanager
def paused(streamer: Streamer) -> Iterator[None]:
    streamer.relay.pause()
    yield


@contextlib.contextmanager
def idle(streamer: Streamer) -> Iterator[None]:
    streamer.check_it_relays()
    yield


@pytest.mark.parametrize("state", [idle, parked, paused, flooded])
def test_stop_in_every_state(engine: str, streamer: Streamer, state: Callable[..., Any]) -> None:
    drain = Background(drained, streamer.sink) if state is flooded else None
    background = Background(streamer.relay.run)
    with state(streamer):
        assert background.alive
        streamer.relay.stop()
        assert background.join() is None
    there = streamer.there
    assert there.messages_received == there.messages_sent + there.parked
    if drain:
        streamer.backend.send(b"end")
        drain.join()
    else:
        assert there.parked == (state is parked)


def drained(sink: zmq.Socket[bytes]) -> None:
    """Receive until the end is told."""
    while sink.recv() != b"end":
        pass


def test_stop_before_run_counts_once(engine: str, streamer: Streamer) -> None:
    streamer.relay.stop()
    streamer.relay.stop()
    streamer.source.send(b"not yet")
    assert Background(streamer.relay.run).join() is None
    assert streamer.there == NOTHING
    with running(streamer.relay):
        assert streamer.sink.recv() == b"not yet"
        streamer.check_it_relays()


def test_stop_within_a_call_ends_the_run(engine: str, streamer: Streamer) -> None:
    background = Background(streamer.relay.run)
    streamer.check_it_relays()
    assert streamer.relay.call(streamer.relay.stop) is None
    background.join()


def test_a_parked_message_waits_for_the_next_run(engine: str, streamer: Streamer) -> None:
    streamer.source.send(b"first")
    streamer.source.send(b"second")
    streamer.disconnect_sink()
    with running(streamer.relay):
        wait_until(lambda: streamer.there.parked)
    assert streamer.there == (1, 1, 5, 0, 0, 0, 0, 0, 0, 1)
    streamer.connect_sink()
    with running(streamer.relay):
        assert streamer.sink.recv() == b"first"
        assert streamer.sink.recv() == b"second"
    assert streamer.there == (2, 2, 11, 2, 2, 11, 0, 0, 0, 0)


def test_stop_tries_what_is_parked_once_more(engine: str, streamer: Streamer) -> None:
    streamer.disconnect_sink()
    streamer.source.send(b"x")
    assert streamer.relay.step() == 1
    assert streamer.there.parked == 1
    streamer.relay.pause()  # lest the step would
    streamer.connect_sink()
    wait_until(lambda: streamer.backend.poll(0, zmq.POLLOUT))
    streamer.relay.stop()
    assert streamer.relay.step() is None
    assert streamer.sink.recv() == b"x"
    assert streamer.there == (1, 1, 1, 1, 1, 1, 0, 0, 0, 0)


@pytest.mark.parametrize("function", ["run", "step"])
def test_a_plain_stop_takes_no_statistics(engine: str, streamer: Streamer, function: str) -> None:
    """Nor does what it ends, whenever it comes; a drain does."""
    relay = streamer.relay
    taken: list[str] = []

    class Loop:
        """Stands for the relay's own."""

        stops = True

        def run(self, timeout: int) -> int:
            if self.stops:
                relay.stop()
            return int(loop.run(0))

        def statistics(self) -> zdev.Statistics:
            taken.append("statistics")
            return loop.statistics()

        def __getattr__(self, name: str) -> Any:
            return getattr(loop, name)

    loop, relay._loop = relay._loop, Loop()
    for _ in range(2):
        streamer.source.send(b"x")
        assert getattr(relay, function)() is None  # the loop ran, and stopped it
    relay.stop()
    assert getattr(relay, function)() is None
    assert taken == []
    Loop.stops = False
    relay.stop(drain=DEADLINE)
    assert getattr(relay, function)() is None
    assert taken
    relay._loop = loop


def test_many_stops_count_once(engine: str, streamer: Streamer) -> None:
    for _ in range(2000):  # more than the wake-up's buffer holds
        streamer.relay.stop()
    assert Background(streamer.relay.run).join() is None
    with running(streamer.relay):
        streamer.check_it_relays()


@pytest.mark.parametrize("drain", [DEADLINE, 1e308, 10**400, math.inf])
def test_a_drain_relays_what_is_left(engine: str, streamer: Streamer, drain: float) -> None:
    for _ in range(200):
        streamer.source.send(b"x")
    streamer.disconnect_sink()
    streamer.relay.pause()
    streamer.relay.stop(drain)
    background = Background(streamer.relay.run)
    wait_until(lambda: streamer.there.parked)
    streamer.relay.call(streamer.connect_sink)
    background.join()
    assert streamer.there == (*(200,) * 6, 0, 0, 0, 0)


@pytest.mark.parametrize("drain", [0, -0.0, 1e-9])
def test_a_drain_without_time_is_none(engine: str, streamer: Streamer, drain: float) -> None:
    streamer.source.send(b"x")
    streamer.disconnect_sink()
    assert streamer.relay.step() == 1
    streamer.relay.stop(drain)
    assert Background(streamer.relay.run).join() is None
    assert streamer.there == (1, 1, 1, 0, 0, 0, 0, 0, 0, 1)


@pytest.mark.parametrize("drain", ["1", b"1", [], 1j, math.nan, -1, -1e-9, -math.inf, -(10**400)])
def test_a_drain_is_a_number(engine: str, streamer: Streamer, drain: Any) -> None:
    error = ValueError if isinstance(drain, (int, float)) else TypeError
    with pytest.raises(error, match="drain must be a number of seconds or None, not"):
        streamer.relay.stop(drain)
    with running(streamer.relay):
        streamer.check_it_relays()


def test_a_drain_does_not_put_off_a_stop(engine: str, streamer: Streamer) -> None:
    streamer.source.send(b"x")
    streamer.disconnect_sink()
    assert streamer.relay.step() == 1
    streamer.relay.stop()
    streamer.relay.stop(drain=math.inf)
    assert streamer.relay.step() is None
    assert streamer.relay.step() == 0


def test_a_drain_can_be_cut_short(engine: str, streamer: Streamer) -> None:
    streamer.source.send(b"x")
    streamer.disconnect_sink()
    assert streamer.relay.step() == 1
    for _ in range(50):
        background = Background(streamer.relay.run)
        streamer.relay.stop(drain=math.inf)
        streamer.relay.stop()
        assert background.join() is None
    assert streamer.there == (1, 1, 1, 0, 0, 0, 0, 0, 0, 1)


@pytest.mark.parametrize("role", ["frontend", "backend", "capture", "control"])
def test_the_end_of_any_context_ends_the_run(engine: str, net: Network, role: str) -> None:
    other = Network()
    roles = ("frontend", "backend", "capture", "control")
    sockets: dict[str, Any] = {
        each: (other if each == role else net).bound(zmq.PAIR, "tcp") for each in roles
    }
    left, right = (net.peer(sockets[each], zmq.PAIR) for each in ("frontend", "backend"))
    relay = zdev.Relay(**sockets)
    background = Background(relay.run)
    left.send(b"x")
    assert right.recv() == b"x"
    assert isinstance(other.terminate(background), zmq.ContextTerminated)


def test_a_dropping_capture_may_lose_its_context(
    engine: str, net: Network, streamer: Streamer
) -> None:
    other = Network()
    capture = other.bound(zmq.PUSH)
    monitor = other.peer(capture, zmq.PULL)
    relay = zdev.Relay(streamer.frontend, streamer.backend, capture, capture_policy="drop")
    with running(relay):
        streamer.check_it_relays()
        assert monitor.recv() == b"check"
        term = Background(other.context.term)

        def dropped() -> int:
            streamer.check_it_relays()
            return relay.statistics().capture.dropped

        wait_until(dropped)
        assert dropped() > 1
    for socket in (capture, monitor):
        socket.close()
    term.join()


def test_run_again_and_again(engine: str, streamer: Streamer) -> None:
    for _ in range(20):
        with running(streamer.relay):
            streamer.check_it_relays()
    assert streamer.there.messages_sent == 20


def test_a_failed_run_fails_again(engine: str, net: Network, streamer: Streamer) -> None:
    def run_on() -> None:
        for start in (streamer.relay.run, streamer.relay.step):
            with pytest.raises(zmq.ContextTerminated):
                start()
        streamer.relay.run()

    background = Background(run_on)
    streamer.check_it_relays()
    assert isinstance(net.terminate(background), zmq.ContextTerminated)
    with pytest.raises(zmq.ZMQError, match="frontend is closed"):
        streamer.relay.run()
    # what has nothing to do with sockets still works
    assert streamer.there.messages_sent == 1
    streamer.relay.pause()
    assert streamer.relay.paused


# pause and resume


def test_pause_holds_when_it_returns(engine: str, streamer: Streamer) -> None:
    with running(streamer.relay):
        streamer.check_it_relays()
        for turn in range(5):
            streamer.relay.pause()
            assert streamer.relay.paused
            streamer.source.send(b"%d" % turn)
            before = streamer.relay.statistics()
            for _ in range(3):
                streamer.relay.call(lambda: None)
            assert streamer.relay.statistics() == before
            streamer.relay.resume()
            assert not streamer.relay.paused
            assert streamer.sink.recv() == b"%d" % turn


def test_pause_before_run(engine: str, streamer: Streamer) -> None:
    streamer.relay.pause()
    streamer.source.send(b"x")
    with running(streamer.relay):
        streamer.relay.call(lambda: None)
        assert streamer.there == NOTHING
        streamer.relay.resume()
        assert streamer.sink.recv() == b"x"


def test_pause_outlives_a_run(engine: str, streamer: Streamer) -> None:
    with running(streamer.relay):
        streamer.relay.pause()
        streamer.source.send(b"x")
    assert streamer.relay.paused
    assert streamer.relay.step() == 0
    assert streamer.there == NOTHING
    streamer.relay.resume()
    assert streamer.relay.step() == 1
    assert streamer.sink.recv() == b"x"


def test_resume_ends_the_pause_of_a_command(engine: str, net: Network, streamer: Streamer) -> None:
    control = net.bound(zmq.PAIR)
    commander = net.peer(control, zmq.PAIR)
    relay = zdev.Relay(streamer.frontend, streamer.backend, control=control)
    with running(relay):
        commander.send(b"PAUSE")
        wait_until(lambda: relay.paused)
        streamer.source.send(b"x")
        relay.resume()
        assert streamer.sink.recv() == b"x"
        relay.pause()
        commander.send(b"RESUME")
        wait_until(lambda: not relay.paused)
        streamer.check_it_relays()


# statistics


def test_statistics_count_each_direction(engine: str, net: Network) -> None:
    frontend, backend = net.bound(zmq.ROUTER, router_mandatory=1), net.bound(zmq.DEALER)
    client, worker = net.peer(frontend, zmq.DEALER, routing_id=b"client"), net.socket(zmq.ROUTER)
    worker.connect(backend.getsockopt_string(zmq.LAST_ENDPOINT))
    capture = net.bound(zmq.PUSH, sndhwm=1)
    monitor = net.socket(zmq.PULL, rcvhwm=1)
    monitor.connect(capture.getsockopt_string(zmq.LAST_ENDPOINT))
    relay = zdev.Relay(frontend, backend, capture, in_prefix=b"in", capture_policy="drop")

    def moved() -> zdev.Statistics:
        while relay.step():
            pass
        return relay.statistics()

    assert moved() == (NOTHING, NOTHING, (0, 0, 0))
    client.send_multipart([b"abc", b"", b"de"])
    assert moved() == ((1, 4, 11, 1, 4, 11, 0, 0, 0, 0), NOTHING, (1, 0, 0))
    dealer, *request = worker.recv_multipart()
    worker.send_multipart([dealer, *request])
    assert moved() == (
        (1, 4, 11, 1, 4, 11, 0, 0, 0, 0),
        (1, 4, 11, 1, 4, 11, 0, 0, 0, 0),
        (2, 0, 0),
    )
    # a peer that is unknown, an address that is empty, one with nothing behind it
    for message in ([b"nobody", b"x"], [b"", b"x"], [b"client"]):
        worker.send_multipart([dealer, *message])
    there, back, side = moved()
    assert there == (1, 4, 11, 1, 4, 11, 0, 0, 0, 0)
    assert back == (4, 9, 11 + 7 + 1 + 6, 1, 4, 11, 0, 3, 0, 0)
    # two copies fill the capture: the third is dropped, whole; the unroutable were not copied
    assert side == (2, 0, 0)
    client.send(b"")
    there, _, side = moved()
    assert there == (2, 6, 17, 2, 6, 17, 0, 0, 0, 0)
    assert side == (2, 1, 0)
    assert monitor.recv_multipart() == [b"in", b"client", b"abc", b"", b"de"]
    assert monitor.recv_multipart() == [b"client", b"abc", b"", b"de"]


def test_statistics_count_what_is_parked_and_dropped(engine: str, net: Network) -> None:
    frontend, backend = net.bound(zmq.PULL), net.bound(zmq.XPUB)
    source, subscriber = net.peer(frontend, zmq.PUSH), net.peer(backend, zmq.SUB)
    capture = net.socket(zmq.PUSH)
    relay = zdev.Relay(frontend, backend, capture)
    subscriber.subscribe(b"abc")
    while not relay.step():
        pass
    assert relay.statistics() == (NOTHING, (1, 1, 4, 0, 0, 0, 1, 0, 0, 0), (0, 0, 0))
    for _ in range(2):
        source.send_multipart([b"abcd", b"e"])
        while relay.step():
            pass
        # sent, but its copy waits, and so does the second message
        assert relay.statistics() == (
            (1, 2, 5, 1, 2, 5, 0, 0, 0, 0),
            (1, 1, 4, 0, 0, 0, 1, 0, 0, 0),
            (0, 0, 1),
        )
    assert subscriber.recv_multipart() == [b"abcd", b"e"]


def test_statistics_are_immutable_and_typed(engine: str, streamer: Streamer) -> None:
    with running(streamer.relay):
        before = streamer.relay.statistics()
        streamer.check_it_relays()
        after = streamer.relay.statistics()
    assert before == (NOTHING, NOTHING, (0, 0, 0))
    assert after.frontend_to_backend.messages_sent == 1
    kinds = (zdev.DirectionStatistics, zdev.DirectionStatistics, zdev.CaptureStatistics)
    assert type(after) is zdev.Statistics
    assert tuple(map(type, after)) == kinds
    for part in after:
        assert all(type(count) is int for count in part)
        assert set(typing.get_type_hints(type(part)).values()) == {int}
        for field in part._fields:
            with pytest.raises(AttributeError):
                setattr(part, field, 5)
    with pytest.raises(AttributeError):
        after.capture = before.capture  # type: ignore[misc]
    assert hash(after) != hash(before)


def test_statistics_under_load_are_consistent(engine: str, streamer: Streamer) -> None:
    sink = Background(drained, streamer.sink)
    with running(streamer.relay), flooded(streamer):
        snapshots = [streamer.relay.statistics() for _ in range(50)]
    for before, after in zip(snapshots, snapshots[1:]):
        assert all(a <= b for a, b in zip(before[0][:6], after[0][:6]))
    for there, back, _ in snapshots:
        assert there.messages_received == there.messages_sent + there.parked
        assert there.messages_sent == there.frames_sent == there.bytes_sent
        assert back == NOTHING
    streamer.backend.send(b"end")
    sink.join()


def test_a_relay_says_what_it_is(engine: str, net: Network) -> None:
    relay = zdev.Relay(net.bound(zmq.ROUTER), net.bound(zmq.DEALER))
    assert repr(relay) == "<Relay of ROUTER and DEALER, idle>"
    with running(relay):
        wait_until(lambda: repr(relay) == "<Relay of ROUTER and DEALER, running>")
