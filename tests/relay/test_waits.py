"""A relay that waits says so, by the names that its user gave the sockets."""

from __future__ import annotations

import logging
import re

import pytest
import zmq

import zdev

from ..support import Background, Network, running, wait_until

SOON = 0.2


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_a_relay(engine: str, net: Network, caplog: pytest.LogCaptureFixture) -> None:
    frontend, backend = net.bound(zmq.PULL), net.bound(zmq.PUSH)
    relay = zdev.Relay(frontend, backend, warn_after=SOON)
    net.peer(frontend, zmq.PUSH).send(b"x")
    waits = "<Relay of PULL and PUSH, running, frontend waits for backend>"
    with running(relay):
        wait_until(lambda: repr(relay) == waits)
        wait_until(lambda: warnings(caplog))
    assert repr(relay) == "<Relay of PULL and PUSH, idle>"
    with running(relay):  # it is told once, not once a run
        wait_until(lambda: repr(relay) == waits)
        assert net.peer(backend, zmq.PULL).recv() == b"x"
        wait_until(lambda: repr(relay) == "<Relay of PULL and PUSH, running>")
    warning, again = warnings(caplog)
    name = "the relay of PULL and PUSH: frontend"
    taken = rf"{name} has waited for [\d.]+ s for backend \(PUSH\), which has taken no message"
    assert re.match(taken, warning)
    assert again.startswith(f"{name} flows again after ")


def test_a_pause_is_no_wait(engine: str, net: Network, caplog: pytest.LogCaptureFixture) -> None:
    frontend, backend = net.bound(zmq.PULL), net.bound(zmq.PUSH)
    relay = zdev.Relay(frontend, backend, warn_after=SOON)
    net.peer(frontend, zmq.PUSH).send(b"x")
    wait_until(lambda: relay.step() is not None and relay.statistics()[0].parked_seconds)
    relay.pause()
    with running(relay):
        wait_until(lambda: relay.statistics()[0].parked_seconds > 2 * SOON)
        assert not warnings(caplog)
        relay.resume()
        wait_until(lambda: warnings(caplog))


@pytest.mark.parametrize("long", [float("inf"), 1e9])
def test_a_time_that_never_comes(engine: str, net: Network, long: float) -> None:
    """Also one of more milliseconds than libzmq can count."""
    frontend, backend = net.bound(zmq.PULL), net.bound(zmq.PUSH)
    relay = zdev.Relay(frontend, backend, warn_after=long)
    net.peer(frontend, zmq.PUSH).send(b"x")
    with running(relay):
        wait_until(lambda: "waits for backend" in repr(relay))
        assert net.peer(backend, zmq.PULL).recv() == b"x"


def test_steps(engine: str, net: Network, caplog: pytest.LogCaptureFixture) -> None:
    frontend, backend = net.bound(zmq.PULL), net.bound(zmq.PUSH)
    relay = zdev.Relay(frontend, backend, warn_after=SOON)
    net.peer(frontend, zmq.PUSH).send(b"x")
    wait_until(lambda: relay.step() is not None and warnings(caplog))
    sink = net.peer(backend, zmq.PULL)
    wait_until(lambda: relay.step() is not None and len(warnings(caplog)) == 2)
    assert sink.recv() == b"x"


@pytest.mark.parametrize("function", ["proxy", "device", "proxy_steerable", "monitored_queue"])
def test_a_function(
    engine: str, net: Network, caplog: pytest.LogCaptureFixture, function: str
) -> None:
    frontend, backend = net.bound(zmq.PULL), net.bound(zmq.PUSH)
    first = (zmq.QUEUE,) if function == "device" else ()
    last = (net.bound(zmq.PUB),) if function == "monitored_queue" else ()
    net.peer(frontend, zmq.PUSH).send(b"x")
    run = getattr(zdev, function)
    device = Background(run, *first, frontend, backend, *last, warn_after=SOON)
    wait_until(lambda: warnings(caplog))
    net.terminate(device)
    one, other = "in_socket", "out_socket"
    if function != "monitored_queue":
        one, other = "frontend", "backend"
    start = rf"{function}: {one} has waited for [\d.]+ s for {other} \(PUSH\)"
    assert re.match(start, warnings(caplog)[0])


@pytest.mark.parametrize("wrong", ["5", object(), float("nan")])
def test_wrong_times(net: Network, wrong: object) -> None:
    sockets = net.bound(zmq.PULL), net.bound(zmq.PUSH)
    with pytest.raises((TypeError, ValueError), match="warn_after must be a number of seconds"):
        zdev.Relay(*sockets, warn_after=wrong)  # type: ignore[arg-type]
