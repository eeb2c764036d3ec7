"""The descriptor of a relay: when it is readable, and when the next step is due."""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections.abc import Iterator
from typing import Callable

import pytest
import zmq

import zdev
from zdev import _descriptor

from ..support import DEADLINE, Background, Network, descriptors, fill, wait_until
from .drivers import WithSelectors, needs_set, publishers, readable, settle, subscribed
from .streamer import Streamer
from .test_fork import in_child

pytestmark = needs_set

# Rest


def quiet(relay: zdev.Relay, seconds: float = 0.4) -> int:
    """Drive a relay for a while; return how often it wanted a step, and see that it takes no CPU."""
    steps, end, cpu = 0, time.monotonic() + seconds, time.thread_time()
    while readable(relay, max(end - time.monotonic(), 0)):
        relay.step()
        steps += 1
    assert time.thread_time() - cpu < seconds / 4
    return steps


def test_an_idle_relay_wants_no_step(engine: str, streamer: Streamer) -> None:
    relay = streamer.relay
    assert relay.deadline() == 0
    assert readable(relay, 0)
    assert settle(relay) <= 3
    assert relay.deadline() is None
    assert quiet(relay) == 0
    for _ in range(3):
        streamer.source.send(b"x")
        assert readable(relay)
        assert settle(relay) <= 3
        assert streamer.sink.recv() == b"x"
    assert quiet(relay) == 0


def test_a_paused_relay_wants_no_step_before_it_resumes(engine: str, streamer: Streamer) -> None:
    relay = streamer.relay
    settle(relay)
    relay.pause()
    streamer.source.send(b"x")
    assert quiet(relay) <= 2
    Background(relay.resume).join()
    assert readable(relay, 0)
    assert relay.step() == 1
    assert streamer.sink.recv() == b"x"


def test_what_is_parked_wants_few_steps(engine: str, net: Network) -> None:
    """One to see that it waits for long; and as many as there are times to warn."""
    streamer = Streamer(net, sndhwm=1, rcvhwm=1)
    relay = streamer.relay
    settle(relay)
    fill(streamer.source)
    while readable(relay, 0):
        relay.step()
    assert 0 < (relay.deadline() or 0) <= 0.1
    assert quiet(relay) <= 3
    assert "in waits" not in repr(relay)  # it does not run
    left = relay.deadline()
    assert left is not None
    assert 3 < left < 5  # the warning
    there = streamer.there
    assert there.parked == 1
    while streamer.sink.poll(0):
        streamer.sink.recv()
    assert readable(relay, 1.0)


def test_what_a_full_xpub_refuses_is_tried_again_now_and_then(engine: str, net: Network) -> None:
    relay, source, sink = publishers(net, "inproc")
    sink.subscribe(b"")
    settle(relay)
    assert subscribed(relay)
    for _ in range(50):
        source.send(b"x")
    settle(relay)
    assert relay.statistics().frontend_to_backend.parked == 1
    assert 0 < (relay.deadline() or 0) <= 0.05
    assert 4 <= quiet(relay) <= 12  # each 50 ms
    assert relay.statistics().frontend_to_backend.parked == 1


def test_a_step_leaves_no_more_than_it_tells(engine: str, net: Network) -> None:
    """While there is more than a burst, the descriptor stays readable."""
    streamer = Streamer(net, burst=2)
    settle(streamer.relay)
    for _ in range(7):
        streamer.source.send(b"x")
    moved = []
    while readable(streamer.relay, 0):
        moved.append(streamer.relay.step())
    assert moved == [2, 2, 2, 1]
    assert streamer.relay.deadline() is None


# What others ask


def test_a_stop_wants_a_step(engine: str, streamer: Streamer) -> None:
    relay = streamer.relay
    settle(relay)
    Background(relay.stop).join()
    assert readable(relay, 0)
    assert relay.deadline() == 0
    assert relay.step() is None
    streamer.source.send(b"x")
    settle(relay)
    assert streamer.sink.recv() == b"x"


def test_a_stop_does_not_hide_what_it_leaves(engine: str, net: Network) -> None:
    """The sign of that is gone, by the step before."""
    streamer = Streamer(net, burst=2)
    settle(streamer.relay)
    for _ in range(5):
        streamer.source.send(b"x")
    assert readable(streamer.relay)
    assert streamer.relay.step() == 2
    streamer.relay.stop()
    assert streamer.relay.step() is None
    settle(streamer.relay)
    assert streamer.there.messages_sent == 5


def test_a_drain_ends_in_time(engine: str, net: Network) -> None:
    streamer = Streamer(net, sndhwm=1, rcvhwm=1)
    relay = streamer.relay
    fill(streamer.source)
    settle(relay)
    began = time.monotonic()
    relay.stop(drain=0.5)
    driven = WithSelectors(relay).run()
    assert driven.over
    assert time.monotonic() - began > 0.4
    assert relay.last_stop is not None
    assert relay.last_stop.parked == 1
    assert driven.steps < 60


def test_a_drain_that_has_nothing_to_do_ends_at_once(engine: str, streamer: Streamer) -> None:
    settle(streamer.relay)
    streamer.source.send(b"x")
    streamer.relay.stop(drain=DEADLINE)
    assert WithSelectors(streamer.relay).run().steps <= 3
    assert streamer.sink.recv() == b"x"


def test_a_call_that_uses_a_socket_wants_a_step(engine: str, streamer: Streamer) -> None:
    """It takes the sign of the message that has come."""
    relay = streamer.relay
    settle(relay)
    streamer.source.send(b"x")
    assert Background(relay.call, lambda: streamer.frontend.poll(0)).join()
    assert settle(relay) > 0
    assert streamer.sink.recv() == b"x"
    for ask in (relay.statistics, lambda: relay.paused, lambda: relay.only_first_subscribe):
        Background(ask).join()
        assert not readable(relay, 0)


def test_a_call_in_the_middle_of_a_step_is_answered_once(engine: str, streamer: Streamer) -> None:
    """The wake-up that came with it does not make the next steps spin."""
    relay = streamer.relay
    settle(relay)
    begun, asked = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        assert asked.wait(DEADLINE)

    calling = Background(relay.call, wait)
    assert begun.wait(DEADLINE)
    other = Background(relay.pause)
    wait_until(lambda: relay._calls._requests)
    asked.set()
    calling.join()
    other.join()
    assert settle(relay) <= 3


def test_a_run_leaves_a_step_wanted(engine: str, streamer: Streamer) -> None:
    relay = streamer.relay
    settle(relay)
    run = Background(relay.run)
    streamer.check_it_relays()
    relay.stop()
    run.join()
    streamer.source.send(b"x")
    assert settle(relay) > 0
    assert streamer.sink.recv() == b"x"


def test_the_end_of_an_overflow_is_told_in_time(
    engine: str, net: Network, caplog: pytest.LogCaptureFixture
) -> None:
    frontend, backend = net.bound(zmq.PULL), net.bound(zmq.PUSH)
    source = net.peer(frontend, zmq.PUSH)
    relay = zdev.Relay(frontend, backend, overflow="drop")
    source.send(b"x")
    settle(relay)
    assert "drops messages" in caplog.text
    assert 0 < (relay.deadline() or 0) <= 1
    assert readable(relay, 3.0)
    settle(relay)
    assert "drops no more messages" in caplog.text
    assert relay.deadline() is None


def test_a_capture_that_has_failed_is_watched_no_more(engine: str, net: Network) -> None:
    """Its descriptor stays readable, for nobody processes its commands."""
    other = Network()
    frontend, backend = net.bound(zmq.PULL), net.bound(zmq.PUSH)
    capture = other.bound(zmq.PUSH, "tcp")
    relay = zdev.Relay(frontend, backend, capture, capture_policy="drop")
    watched = relay.descriptors()
    fd = int(capture.getsockopt(zmq.FD))
    assert fd in watched
    settle(relay)
    term = Background(other.context.term)
    try:
        assert readable(relay)
        settle(relay)
        assert fd not in relay.descriptors()
        assert quiet(relay) == 0
    finally:
        capture.close()
        term.join()


def test_the_end_of_the_context_is_raised(engine: str, net: Network, streamer: Streamer) -> None:
    drive = Background(WithSelectors(streamer.relay).run)
    streamer.check_it_relays()
    assert isinstance(net.terminate(drive), zmq.ContextTerminated)


# The descriptor


def test_it_is_always_the_same(engine: str, streamer: Streamer) -> None:
    relay = streamer.relay
    fd = relay.fileno()
    settle(relay)
    relay.stop()
    assert relay.step() is None
    assert relay.fileno() == fd
    assert fd not in relay.descriptors()
    assert not os.get_inheritable(fd)


def test_it_is_closed_with_the_relay(engine: str, net: Network) -> None:
    frontend, backend = net.bound(zmq.PULL), net.bound(zmq.PUSH)
    before = descriptors()
    relay = zdev.Relay(frontend, backend)
    relay.fileno()
    assert descriptors() > before + 2
    del relay
    assert descriptors() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_it_stays_in_its_process(engine: str, streamer: Streamer) -> None:
    """What a child does with its copy does not disturb the parent."""
    relay = streamer.relay
    settle(relay)

    def use() -> None:
        for each in (relay.fileno, relay.descriptors, relay.deadline, relay.step):
            with pytest.raises(RuntimeError, match=r"another process; .* make both anew"):
                each()
        relay._retire()

    assert in_child(use) == 0
    assert not readable(relay, 0)
    streamer.source.send(b"x")
    assert readable(relay)
    settle(relay)
    assert streamer.sink.recv() == b"x"


def test_without_epoll_and_kqueue_it_names_what_there_is(
    engine: str, streamer: Streamer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("epoll", "kqueue"):
        monkeypatch.delattr(select, name, raising=False)
    with pytest.raises(NotImplementedError, match=r"Relay\.descriptors\(\)"):
        streamer.relay.fileno()
    assert len(streamer.relay.descriptors()) == 3


def test_an_alarm_goes_off_once_it_is_due() -> None:
    alarms = _descriptor.descriptor_set([])
    try:
        assert not select.select([alarms], [], [], 0)[0]
        for seconds in (0.0, 0.03):
            began = time.monotonic()
            alarms.alarm(seconds)
            assert select.select([alarms], [], [], DEADLINE)[0]
            assert time.monotonic() - began >= seconds
            assert select.select([alarms], [], [], 0)[0]
        alarms.alarm(DEADLINE)
        assert not select.select([alarms], [], [], 0)[0]
        alarms.alarm(0.0)
        assert select.select([alarms], [], [], DEADLINE)[0]
        alarms.alarm(_descriptor.NEVER)
        assert not select.select([alarms], [], [], 0.01)[0]
    finally:
        alarms.close()


@pytest.mark.alone
@pytest.mark.skipif(sys.implementation.name == "pypy", reason="it is of CPython and the C loop")
def test_an_idle_step_costs_little(streamer: Streamer) -> None:
    """Less than half of one that takes the loop."""
    relay = streamer.relay
    settle(relay)
    assert cost(relay.step) < cost(lambda: relay._within(relay._step, waits=False)) / 2


def cost(function: Callable[[], object]) -> float:
    """Return the CPU time of a call, by the quickest of some tries."""

    def tries() -> Iterator[float]:
        for _ in range(20):
            began = time.thread_time()
            for _ in range(200):
                function()
            yield time.thread_time() - began

    return min(tries())
