"""A call: a function that runs on the relay's own thread, between two messages."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import signal
import threading
from typing import Any

import pytest
import zmq

import zdev

from ..support import DEADLINE, Background, Network, running, wait_until
from .streamer import NOTHING, Streamer


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
        with pytest.raises(TypeError, match="function must be callable"):
            streamer.relay.call(5)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="argument"):
            streamer.relay.call(lambda missing: missing)  # type: ignore[arg-type, misc]
        for value, error in (("x", TypeError), (-1, ValueError), (math.nan, ValueError)):
            with pytest.raises(error, match="timeout must be a number of seconds or None, not"):
                streamer.relay.call(int, timeout=value)  # type: ignore[arg-type]
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
