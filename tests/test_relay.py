"""Relay: run, step, stop, pause, resume, statistics and call, from wherever they are called."""

from __future__ import annotations

import contextlib
import functools
import gc
import math
import os
import platform
import select
import signal
import threading
import typing
import weakref
from collections.abc import Iterator
from typing import Any, Callable

import pytest
import zmq

import zdev

from .support import DEADLINE, Background, Network, descriptors, fill, running, wait_until

NOTHING = (0,) * 9


class Streamer:
    """PULL to PUSH, with a peer for each: the smallest device."""

    def __init__(self, net: Network, burst: int = 64, **options: Any) -> None:
        self.net = net
        self.frontend, self.backend = net.bound(zmq.PULL), net.bound(zmq.PUSH, **options)
        self.source, self.sink = net.peer(self.frontend, zmq.PUSH), net.socket(zmq.PULL, **options)
        self.connect_sink()
        self.relay = zdev.Relay(self.frontend, self.backend, burst=burst)

    def connect_sink(self) -> None:
        self.sink.connect(self.backend.getsockopt_string(zmq.LAST_ENDPOINT))

    def disconnect_sink(self) -> None:
        """Leave the device without a destination."""
        self.sink.disconnect(self.backend.getsockopt_string(zmq.LAST_ENDPOINT))
        wait_until(lambda: not self.backend.poll(0, zmq.POLLOUT))

    def check_it_relays(self) -> None:
        self.source.send(b"check")
        assert self.sink.recv() == b"check"

    @property
    def there(self) -> zdev.DirectionStatistics:
        return self.relay.statistics().frontend_to_backend


@pytest.fixture
def streamer(net: Network) -> Streamer:
    return Streamer(net)


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
    assert streamer.there == (1, 1, 5, 0, 0, 0, 0, 0, 1)
    streamer.connect_sink()
    with running(streamer.relay):
        assert streamer.sink.recv() == b"first"
        assert streamer.sink.recv() == b"second"
    assert streamer.there == (2, 2, 11, 2, 2, 11, 0, 0, 0)


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
    assert streamer.there == (1, 1, 1, 1, 1, 1, 0, 0, 0)


def test_many_stops_count_once(engine: str, streamer: Streamer) -> None:
    for _ in range(2000):  # more than the wake-up's buffer holds
        streamer.relay.stop()
    assert Background(streamer.relay.run).join() is None
    with running(streamer.relay):
        streamer.check_it_relays()


@pytest.mark.parametrize("drain", [DEADLINE, 1e308, math.inf])
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
    assert streamer.there == (*(200,) * 6, 0, 0, 0)


@pytest.mark.parametrize("drain", [0, -1, 1e-9, -math.inf])
def test_a_drain_without_time_is_none(engine: str, streamer: Streamer, drain: float) -> None:
    streamer.source.send(b"x")
    streamer.disconnect_sink()
    assert streamer.relay.step() == 1
    streamer.relay.stop(drain)
    assert Background(streamer.relay.run).join() is None
    assert streamer.there == (1, 1, 1, 0, 0, 0, 0, 0, 1)


@pytest.mark.parametrize("drain", ["1", b"1", [], math.nan])
def test_a_drain_is_a_number(engine: str, streamer: Streamer, drain: Any) -> None:
    error = ValueError if drain is math.nan else TypeError
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
    assert streamer.there == (1, 1, 1, 0, 0, 0, 0, 0, 1)


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
    assert moved() == ((1, 4, 11, 1, 4, 11, 0, 0, 0), NOTHING, (1, 0, 0))
    dealer, *request = worker.recv_multipart()
    worker.send_multipart([dealer, *request])
    assert moved() == ((1, 4, 11, 1, 4, 11, 0, 0, 0), (1, 4, 11, 1, 4, 11, 0, 0, 0), (2, 0, 0))
    # a peer that is unknown, an address that is empty, one with nothing behind it
    for message in ([b"nobody", b"x"], [b"", b"x"], [b"client"]):
        worker.send_multipart([dealer, *message])
    there, back, side = moved()
    assert there == (1, 4, 11, 1, 4, 11, 0, 0, 0)
    assert back == (4, 9, 11 + 7 + 1 + 6, 1, 4, 11, 0, 3, 0)
    # two copies fill the capture: the third is dropped, whole; the unroutable were not copied
    assert side == (2, 0, 0)
    client.send(b"")
    there, _, side = moved()
    assert there == (2, 6, 17, 2, 6, 17, 0, 0, 0)
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
    assert relay.statistics() == (NOTHING, (1, 1, 4, 0, 0, 0, 1, 0, 0), (0, 0, 0))
    for _ in range(2):
        source.send_multipart([b"abcd", b"e"])
        while relay.step():
            pass
        # sent, but its copy waits, and so does the second message
        assert relay.statistics() == (
            (1, 2, 5, 1, 2, 5, 0, 0, 0),
            (1, 1, 4, 0, 0, 0, 1, 0, 0),
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


# call


def test_call_runs_on_the_thread_of_the_relay(engine: str, streamer: Streamer) -> None:
    with running(streamer.relay) as background:
        streamer.check_it_relays()
        assert streamer.relay.call(threading.get_ident) == background.thread.ident
    assert streamer.relay.call(threading.get_ident) == threading.get_ident()


def test_call_binds_and_connects_a_live_device(engine: str, net: Network) -> None:
    frontend, backend = net.socket(zmq.PULL), net.socket(zmq.PUSH)
    sink, late = net.bound(zmq.PULL), net.bound(zmq.PULL)
    relay = zdev.Relay(frontend, backend)
    with running(relay):
        port = relay.call(lambda: frontend.bind_to_random_port("tcp://127.0.0.1"))
        source = net.socket(zmq.PUSH)
        source.connect(f"tcp://127.0.0.1:{port}")
        source.send(b"parked until there is a sink")
        wait_until(lambda: relay.statistics().frontend_to_backend.parked)
        first = sink.getsockopt_string(zmq.LAST_ENDPOINT)
        relay.call(lambda: backend.connect(first))
        assert sink.recv() == b"parked until there is a sink"
        relay.call(lambda: backend.disconnect(first))
        relay.call(lambda: backend.connect(late.getsockopt_string(zmq.LAST_ENDPOINT)))
        source.send(b"elsewhere")
        assert late.recv() == b"elsewhere"


def test_call_subscribes_a_live_device(engine: str, net: Network) -> None:
    frontend, backend = net.bound(zmq.SUB), net.bound(zmq.PUSH)
    publisher, sink = net.peer(frontend, zmq.XPUB), net.peer(backend, zmq.PULL)
    relay = zdev.Relay(frontend, backend)
    with running(relay):
        for topic in (b"a", b"b"):
            relay.call(functools.partial(frontend.subscribe, topic))
            assert publisher.recv() == b"\x01" + topic
            publisher.send(topic)
            assert sink.recv() == topic
        assert relay.call(lambda: frontend.getsockopt(zmq.TYPE)) == zmq.SUB


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize(
    "error",
    [ValueError("x"), TimeoutError("mine"), SystemExit(3), KeyboardInterrupt(), zmq.Again()],
)
def test_call_raises_what_the_function_raises(
    engine: str, streamer: Streamer, error: BaseException, live: bool
) -> None:
    def fail() -> None:
        raise error

    with running(streamer.relay) if live else contextlib.nullcontext():
        for timeout in (None, DEADLINE):
            with pytest.raises(type(error)) as raised:
                streamer.relay.call(fail, timeout)
            assert raised.value is error
    with running(streamer.relay):
        streamer.check_it_relays()


@pytest.mark.parametrize("live", [True, False])
def test_call_of_what_cannot_be_called(engine: str, streamer: Streamer, live: bool) -> None:
    with running(streamer.relay) if live else contextlib.nullcontext():
        with pytest.raises(TypeError, match="not callable"):
            streamer.relay.call(5)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="argument"):
            streamer.relay.call(lambda missing: missing)  # type: ignore[arg-type, misc]
    with running(streamer.relay):
        streamer.check_it_relays()


@pytest.mark.parametrize("live", [True, False])
def test_calls_within_a_call(engine: str, streamer: Streamer, live: bool) -> None:
    relay = streamer.relay

    def within() -> list[Any]:
        relay.pause()
        told = [relay.paused, relay.call(lambda: relay.call(lambda: 5)), relay.statistics()]
        relay.resume()
        for start in (relay.run, relay.step):
            with pytest.raises(RuntimeError, match="running already"):
                start()
        return told

    with running(relay) if live else contextlib.nullcontext():
        assert relay.call(within) == [True, 5, (NOTHING, NOTHING, (0, 0, 0))]
    with running(relay):
        streamer.check_it_relays()


def test_a_call_that_takes_long(engine: str, streamer: Streamer) -> None:
    begun, over = threading.Event(), threading.Event()
    ran = []

    def long() -> str:
        begun.set()
        assert over.wait(DEADLINE)
        return "done"

    with running(streamer.relay):
        first = Background(streamer.relay.call, long)
        assert begun.wait(DEADLINE)
        with pytest.raises(TimeoutError, match=r"did not get to the call in 0.01 s; a call before"):
            streamer.relay.call(lambda: ran.append("late"), timeout=0.01)
        over.set()
        assert first.join() == "done"
        streamer.check_it_relays()
        assert streamer.relay.call(lambda: "after", timeout=DEADLINE) == "after"
    assert ran == [], "a call ran although it had timed out"


def test_a_call_that_has_begun_at_its_timeout(engine: str, streamer: Streamer) -> None:
    over = threading.Event()
    with running(streamer.relay):
        streamer.check_it_relays()  # an idle relay would run it here
        with pytest.raises(TimeoutError, match="did not get to the call"):
            streamer.relay.call(lambda: over.wait(DEADLINE), timeout=0.01)
        over.set()
        streamer.check_it_relays()


def test_an_idle_relay_is_not_run_in_the_middle_of_a_call(engine: str, streamer: Streamer) -> None:
    begun, over = threading.Event(), threading.Event()
    ends = []

    def long() -> None:
        begun.set()
        assert over.wait(DEADLINE)
        ends.append("call")

    first = Background(streamer.relay.call, long)
    assert begun.wait(DEADLINE)
    background = Background(streamer.relay.run)
    second = Background(streamer.relay.call, lambda: ends.append("second"))
    streamer.source.send(b"x")
    assert not streamer.sink.poll(50)
    over.set()
    first.join()
    second.join()
    assert streamer.sink.recv() == b"x"
    assert ends == ["call", "second"]
    streamer.relay.stop()
    background.join()


def test_a_call_that_closes_a_socket_ends_the_run(engine: str, streamer: Streamer) -> None:
    background = Background(streamer.relay.run)
    streamer.check_it_relays()
    streamer.relay.call(streamer.frontend.close)
    with pytest.raises(zmq.ZMQError, match="frontend is closed") as raised:
        background.join()
    assert raised.value.errno == zmq.ENOTSOCK
    assert streamer.there.messages_sent == 1


def test_no_call_is_forgotten_when_the_run_ends(engine: str, streamer: Streamer) -> None:
    over = threading.Event()

    def call_on() -> int:
        calls = 0
        while not over.wait(0.0005):
            assert streamer.relay.call(lambda: 5, DEADLINE) == 5
            assert len(streamer.relay.statistics()) == 3
            calls += 1
        return calls

    callers = [Background(call_on) for _ in range(3)]
    for _ in range(30):
        with running(streamer.relay):
            streamer.check_it_relays()
    over.set()
    assert all(caller.join() > 0 for caller in callers)


# Whose the sockets are


def test_a_relay_runs_once_at_a_time(engine: str, streamer: Streamer) -> None:
    with running(streamer.relay):
        streamer.check_it_relays()
        for start in (streamer.relay.run, streamer.relay.step):
            with pytest.raises(RuntimeError, match="running already; stop it first"):
                start()
        streamer.check_it_relays()
    assert streamer.relay.step() == 0


@pytest.mark.parametrize("role", ["frontend", "backend", "capture", "control"])
def test_a_socket_has_one_relay_at_a_time(engine: str, net: Network, role: str) -> None:
    roles = ("frontend", "backend", "capture", "control")
    shared: dict[str, Any] = {each: net.bound(zmq.PAIR) for each in roles}
    own: dict[str, Any] = {each: net.bound(zmq.PAIR) for each in roles}
    left, right = net.peer(shared["frontend"], zmq.PAIR), net.peer(shared["backend"], zmq.PAIR)
    monitor = net.peer(shared["capture"], zmq.PAIR)
    first = zdev.Relay(**shared)
    second = zdev.Relay(**{**own, role: zmq.Socket.shadow(shared[role].underlying)})
    with running(first):
        left.send(b"x")
        assert right.recv() == monitor.recv() == b"x"
        for start in (second.run, second.step):
            with pytest.raises(RuntimeError, match=f"{role} is in use by another running relay"):
                start()
        assert zdev.Relay(**own).step() == 0, "a relay that could not start keeps no socket"
        left.send(b"y")
        assert right.recv() == monitor.recv() == b"y"
    assert second.step() == 0


def test_whoever_is_told_that_a_socket_is_in_use_can_have_it_later(
    engine: str, streamer: Streamer
) -> None:
    other = zdev.Relay(streamer.frontend, streamer.backend)
    refused = 0
    for relay in [streamer.relay, other] * 10:
        with running(relay):
            streamer.check_it_relays()
            with contextlib.suppress(RuntimeError):
                (other if relay is streamer.relay else streamer.relay).step()
                refused -= 1
            refused += 1
    assert refused == 20


def test_the_sockets_are_free_when_run_has_ended(engine: str, streamer: Streamer) -> None:
    with running(streamer.relay):
        streamer.check_it_relays()
    streamer.source.send(b"mine")
    assert streamer.frontend.recv() == b"mine"
    streamer.backend.send(b"from me")
    assert streamer.sink.recv() == b"from me"
    with running(zdev.Relay(streamer.frontend, streamer.backend)):
        streamer.check_it_relays()
    assert streamer.there.messages_received == 1


def test_relays_in_line(engine: str, net: Network) -> None:
    """Ten at once, each in its thread, none in another's way."""
    fronts = [net.bound(zmq.PULL) for _ in range(10)]
    backs = [net.peer(front, zmq.PUSH) for front in fronts[1:]] + [net.bound(zmq.PUSH)]
    source, sink = net.peer(fronts[0], zmq.PUSH), net.peer(backs[-1], zmq.PULL)
    with contextlib.ExitStack() as stack:
        for front, back in zip(fronts, backs):
            stack.enter_context(running(zdev.Relay(front, back)))
        messages = [[b"%d" % i, b""] for i in range(100)]
        for message in messages:
            source.send_multipart(message)
        assert [sink.recv_multipart() for _ in messages] == messages


# step


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


# Signals


def test_a_signal_handler_may_use_the_relay_it_interrupts(engine: str, streamer: Streamer) -> None:
    told: list[Any] = []

    def handle(number: int, frame: Any) -> None:
        told.append(streamer.relay.statistics())
        streamer.relay.pause()
        told.append(streamer.relay.paused)
        streamer.relay.resume()
        told.append(streamer.relay.call(threading.get_ident))
        streamer.relay.stop()

    def interrupt() -> None:
        streamer.check_it_relays()
        os.kill(os.getpid(), signal.SIGUSR1)

    previous = signal.signal(signal.SIGUSR1, handle)
    try:
        interrupting = Background(interrupt)
        streamer.relay.run()
        interrupting.join()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert told[0].frontend_to_backend.messages_sent == 1
    assert told[1:] == [True, threading.get_ident()]


@pytest.mark.parametrize("live", [True, False])
def test_a_signal_handler_may_use_a_relay_of_another_thread(
    engine: str, streamer: Streamer, live: bool
) -> None:
    told: list[Any] = []

    def handle(number: int, frame: Any) -> None:
        told.append(streamer.relay.statistics())
        streamer.relay.call(lambda: told.append("called"), DEADLINE)

    previous = signal.signal(signal.SIGUSR1, handle)
    try:
        with running(streamer.relay) if live else contextlib.nullcontext():
            for _ in range(20):
                # the handler may come in the middle of a call
                signal.raise_signal(signal.SIGUSR1)
                streamer.relay.call(lambda: signal.raise_signal(signal.SIGUSR1))
                streamer.relay.statistics()
            wait_until(lambda: len(told) == 80)
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert told.count("called") == 40


# Garbage


def test_a_forgotten_relay_leaves_no_descriptor(engine: str, streamer: Streamer) -> None:
    streamer.disconnect_sink()
    streamer.source.send(b"x")
    streamer.relay.step()
    before = descriptors()
    for _ in range(5):
        relay = zdev.Relay(streamer.frontend, streamer.backend, in_prefix=b"x" * 1000)
        streamer.source.send(b"x")
        relay.step()
        assert relay.statistics().frontend_to_backend.parked == 1
        del relay
    assert descriptors() == before


@pytest.mark.parametrize("captured", [True, False])
@pytest.mark.usefixtures("zero_copy")
def test_a_forgotten_relay_closes_its_messages(engine: str, net: Network, captured: bool) -> None:
    """A zero-copy message tells when libzmq and everybody else is done with it."""
    frontend, backend = net.bound(zmq.PULL), net.bound(zmq.PUSH)
    source = net.peer(frontend, zmq.PUSH, copy_threshold=0)
    capture = net.socket(zmq.PUSH) if captured else None
    sink = net.peer(backend, zmq.PULL) if captured else None
    relay = zdev.Relay(frontend, backend, capture)
    tracker = source.send(b"x" * 100_000, copy=False, track=True)
    assert relay.step() == 1
    if sink:
        assert sink.recv() == b"x" * 100_000
        assert relay.statistics().capture.parked == 1
    gc.collect()
    assert not tracker.done
    del relay
    gc.collect()
    tracker.wait(DEADLINE)
    assert tracker.done


def test_no_descriptors_left(engine: str, streamer: Streamer) -> None:
    resource = pytest.importorskip("resource", reason="limits on descriptors are a POSIX matter")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open(os.devnull, os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            zdev.Relay(streamer.frontend, streamer.backend)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    gc.collect()
    with running(streamer.relay):
        streamer.check_it_relays()


@pytest.mark.skipif(
    platform.python_implementation() == "PyPy", reason="PyPy does not count references"
)
def test_a_relay_is_gone_with_its_last_reference(engine: str, net: Network) -> None:
    """It holds descriptors, which must not wait for the garbage collector."""

    def fail() -> None:
        raise ZeroDivisionError

    relay = zdev.Relay(net.bound(zmq.PULL), net.bound(zmq.PUSH))
    gone = weakref.ref(relay)
    gc.disable()
    try:
        assert relay.step() == 0
        with running(relay), pytest.raises(ZeroDivisionError):
            relay.call(fail)
        relay.stop()
        relay.run()
        relay._ends["backend"].socket.close()
        with pytest.raises(zmq.ZMQError):
            relay.run()
        del relay
        assert gone() is None
    finally:
        gc.enable()


def test_a_relay_says_what_it_is(engine: str, net: Network) -> None:
    relay = zdev.Relay(net.bound(zmq.ROUTER), net.bound(zmq.DEALER))
    assert repr(relay) == "<Relay of ROUTER and DEALER, idle>"
    with running(relay):
        wait_until(lambda: repr(relay) == "<Relay of ROUTER and DEALER, running>")
