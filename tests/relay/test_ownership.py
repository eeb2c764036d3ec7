"""Whose the sockets are, and that a forgotten relay leaves nothing."""

from __future__ import annotations

import contextlib
import gc
import os
import platform
import weakref
from typing import Any

import pytest
import zmq

import zdev

from ..support import DEADLINE, Network, descriptors, running
from .streamer import Streamer

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


# Garbage


def test_a_forgotten_relay_leaves_no_descriptor(engine: str, streamer: Streamer) -> None:
    streamer.disconnect_sink()
    streamer.source.send(b"x")
    streamer.relay.step()
    before = descriptors()
    for _ in range(5):
        relay = zdev.Relay(streamer.frontend, streamer.backend)
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
