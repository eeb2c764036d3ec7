"""Who is there: what a relay tells of the connections of the sockets that it was given."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from typing import Any

import pytest
import zmq

import zdev

from ..support import DEADLINE, Background, Network, running, wait_until

ANY = "tcp://127.0.0.1:*"


class Watched:
    """A streamer that watches its connections; its sockets are bound when it does."""

    def __init__(self, net: Network, **options: Any) -> None:
        self.net = net
        self.ends = net.socket(zmq.PULL), net.socket(zmq.PUSH)
        self.threads = set(threading.enumerate())
        self.relay = zdev.Relay(*self.ends, watch_connections=True, **options)
        for end in self.ends:
            end.bind(ANY)
        self.addresses = [end.last_endpoint.decode() for end in self.ends]

    def source(self) -> zmq.Socket[bytes]:
        source = self.net.socket(zmq.PUSH)
        source.connect(self.addresses[0])
        return source

    @property
    def front(self) -> zdev.Connections:
        return self.relay.connections()["frontend"]

    def watches(self) -> bool:
        with contextlib.suppress(RuntimeError):
            return bool(self.relay.connections())
        return False

    def has_given_back(self) -> None:
        """Nobody reads a monitor, nor has a socket one."""
        assert set(threading.enumerate()) <= self.threads
        assert not self.watches()
        for end in self.ends:
            monitor = end.get_monitor_socket()
            end.bind(ANY)
            assert monitor.poll(DEADLINE * 1000)
            end.disable_monitor()
            monitor.close()


@pytest.fixture
def watched(net: Network) -> Watched:
    return Watched(net)


def test_who_comes_and_goes(engine: str, watched: Watched) -> None:
    """Also before it runs."""
    wait_until(lambda: watched.front == (0, 0, 0, 0, {}, 0, [watched.addresses[0]], None))
    watched.source()
    wait_until(lambda: watched.front.peers == 1)
    with running(watched.relay):
        second = watched.source()
        wait_until(lambda: watched.front.peers == 2)
        second.close()
        wait_until(lambda: watched.front.peers == 1)
        assert watched.front == (1, 2, 0, 1, {}, 0, [watched.addresses[0]], None)
        assert list(watched.relay.connections()) == ["frontend", "backend"]
        wait_until(lambda: back(watched).listeners == [watched.addresses[1]])


def back(watched: Watched) -> zdev.Connections:
    return watched.relay.connections()["backend"]


def test_the_sockets_are_given_back_and_watched_again(engine: str, watched: Watched) -> None:
    for _ in range(3):
        with running(watched.relay):
            wait_until(watched.watches)
            last = watched.source()
            wait_until(lambda: watched.front.peers)
            last.close()
            wait_until(lambda: watched.front.disconnected)
        watched.has_given_back()
    with pytest.raises(RuntimeError, match="PULL and PUSH has ended; it watches its connections"):
        watched.relay.connections()


def test_a_relay_in_steps(engine: str, watched: Watched) -> None:
    """It watches between steps; until one ends it."""
    for _ in range(2):
        assert watched.relay.step() == 0
        watched.source()
        wait_until(lambda: watched.front.peers == 1)
        watched.relay.stop()
        assert watched.relay.step() is None
        watched.has_given_back()


def test_a_run_that_fails(engine: str, watched: Watched) -> None:
    """By its context, by a socket, by a handler; what cannot begin ends nobody's watch."""
    with running(watched.relay):
        wait_until(lambda: "running" in repr(watched.relay))
        with pytest.raises(RuntimeError, match="running already"):
            watched.relay.run()
        with pytest.raises(RuntimeError, match="in use by another"):
            zdev.Relay(watched.ends[0], watched.net.socket(zmq.PUSH)).run()
        wait_until(lambda: watched.front.listeners)

    def handle(*_: Any) -> None:
        raise InterruptedError

    def interrupt() -> None:
        wait_until(watched.watches)
        # On the relay's own thread: PyPy may run the handler of another's signal much later.
        with contextlib.suppress(InterruptedError):
            watched.relay.call(lambda: os.kill(os.getpid(), signal.SIGUSR1))

    previous = signal.signal(signal.SIGUSR1, handle)
    try:
        interrupting = Background(interrupt)
        with pytest.raises(InterruptedError):
            watched.relay.run()
        interrupting.join()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    watched.has_given_back()
    background = Background(watched.relay.run)
    wait_until(watched.watches)
    assert isinstance(watched.net.terminate(background), zmq.ContextTerminated)
    assert not watched.watches()
    assert set(threading.enumerate()) <= watched.threads


def test_a_relay_that_never_runs(net: Network) -> None:
    """Its sockets take the monitors along."""
    watched = Watched(net)
    assert set(threading.enumerate()) > watched.threads
    watched.ends[0].close()
    watched.ends[1].disable_monitor()
    wait_until(lambda: set(threading.enumerate()) <= watched.threads)


def test_who_is_told_for_long(engine: str, net: Network) -> None:
    """The next run does not wait for that, nor takes the sockets for watched."""
    go_on = threading.Event()
    watched = Watched(net, on_connection=lambda *_: go_on.wait(DEADLINE))
    try:
        for _ in range(2):
            watched.relay.stop()
            watched.relay.run()
        with running(watched.relay):
            wait_until(watched.watches)
            watched.source()
            wait_until(lambda: watched.front.accepted)
    finally:
        go_on.set()
    wait_until(lambda: set(threading.enumerate()) <= watched.threads)


def test_peers_that_are_cut_off(engine: str, watched: Watched) -> None:
    """An unbind does that, without an event for each."""
    address = watched.addresses[0]
    with running(watched.relay):
        wait_until(watched.watches)
        watched.relay.call(lambda: watched.ends[0].bind(ANY))
        other = watched.ends[0].last_endpoint.decode()
        for each in (address, other):
            watched.net.socket(zmq.PUSH).connect(each)
        wait_until(lambda: watched.front.peers == 2)
        watched.relay.call(lambda: watched.ends[0].unbind(address))
        wait_until(lambda: watched.front.listeners == [other])
        assert watched.front[:5] == (1, 2, 0, 1, {})


def test_a_stream(engine: str, net: Network) -> None:
    """Its peers shake no hands."""
    ends = net.socket(zmq.STREAM), net.socket(zmq.DEALER)
    relay = zdev.Relay(*ends, watch_connections=True)
    port = ends[0].bind_to_random_port("tcp://127.0.0.1")
    with running(relay):
        with socket.create_connection(("127.0.0.1", port)):
            wait_until(lambda: relay.connections()["frontend"].peers == 1)
        wait_until(lambda: not relay.connections()["frontend"].peers)
        assert relay.connections()["frontend"][:5] == (0, 1, 0, 1, {})


def test_one_socket_as_both_ends(engine: str, net: Network) -> None:
    """Even through another object."""
    end = net.socket(zmq.ROUTER)
    relay = zdev.Relay(end, zmq.Socket(end), watch_connections=True)
    end.bind(ANY)
    with running(relay):
        net.peer(end, zmq.DEALER)
        wait_until(lambda: relay.connections()["backend"].peers == 1)
        assert relay.connections()["frontend"] == relay.connections()["backend"]


def test_every_socket_and_the_subscriptions(engine: str, net: Network) -> None:
    """Those of peers over inproc, too."""
    ends = [net.socket(kind) for kind in (zmq.XSUB, zmq.XPUB, zmq.XPUB, zmq.XPUB)]
    relay = zdev.Relay(*ends[:3], control=ends[3], watch_connections=True)
    for end in ends:
        end.bind(f"inproc://{id(end)}")
    roles = ("frontend", "backend", "capture", "control")

    def held() -> tuple[int | None, ...]:
        known = relay.connections()
        return tuple(known[role].subscriptions for role in roles)

    with running(relay):
        assert held() == (None, 0, 0, 0)
        subscribers = [net.peer(end, zmq.SUB) for end in (*ends[1:], ends[1])]
        for number, subscriber in enumerate(subscribers):
            for topic in ("all", str(number)):
                subscriber.subscribe(topic)
        wait_until(lambda: held() == (None, 3, 2, 2))
        subscribers[0].unsubscribe("all")  # which another has, too
        subscribers[0].unsubscribe("0")
        subscribers[1].close()
        wait_until(lambda: held() == (None, 2, 0, 2))


def test_who_is_told_may_ask(engine: str, net: Network, caplog: pytest.LogCaptureFixture) -> None:
    """At any moment, also as the relay ends, which waits for nobody then."""
    told = []

    def hear(role: str, event: zmq.Event, address: str) -> None:
        told.append((role, event, address))
        watched.relay.statistics()
        watched.relay.connections()
        raise LookupError("not heard")

    watched = Watched(net, on_connection=hear)
    for _ in range(5):
        told.clear()
        with running(watched.relay):
            wait_until(watched.watches)  # it has no news of who came before
            for _ in range(20):
                watched.source()
            wait_until(lambda: len(told) > 5)
        wait_until(lambda: set(threading.enumerate()) <= watched.threads)
    assert ("frontend", zmq.EVENT_ACCEPTED, watched.addresses[0]) in told
    assert "the relay of PULL and PUSH: on_connection: LookupError: not heard" in caplog.text


def test_misuse(net: Network) -> None:
    one, other = net.socket(zmq.PULL), net.socket(zmq.PUSH)
    threads = set(threading.enumerate())
    with pytest.raises(ValueError, match="on_connection needs watch_connections=True"):
        zdev.Relay(one, other, on_connection=print)
    with pytest.raises(TypeError, match="on_connection must be callable, or None, not int"):
        zdev.Relay(one, other, watch_connections=True, on_connection=5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="watch_connections must be a bool"):
        zdev.Relay(one, other, watch_connections="yes")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="not watch its connections; make it with watch_conn"):
        zdev.Relay(one, other).connections()
    stranger = zmq.Socket.shadow(other.underlying)
    with pytest.raises(RuntimeError, match=r"backend .* knows no context"):
        zdev.Relay(one, stranger, watch_connections=True)
    assert set(threading.enumerate()) <= threads  # nor is the frontend watched


def test_a_socket_that_has_a_monitor(net: Network) -> None:
    """It keeps it, be it the program's or another relay's."""
    watched = Watched(net)
    other = net.socket(zmq.PUSH)
    monitor = other.get_monitor_socket()
    for ends in ((net.socket(zmq.PULL), other), (watched.ends[0], net.socket(zmq.PUSH))):
        with pytest.raises(RuntimeError, match=r"(front|back)end has a monitor.*disable_monitor"):
            zdev.Relay(*ends, watch_connections=True)
    other.bind(ANY)
    assert monitor.poll(DEADLINE * 1000)
    watched.source()
    wait_until(lambda: watched.front.peers == 1)
    for end in (other, watched.ends[0]):
        end.disable_monitor()
    monitor.close()
    zdev.Relay(watched.ends[0], other, watch_connections=True)
