"""While something waits: the rest goes on, and nobody spins."""

from __future__ import annotations

import sys
import time
from typing import Any, Callable

import pytest
import zmq

import zdev

from ..support import Background, Network, fill, running, wait_until
from .peers import ask

# Part of a processor that a device may use while nothing moves. What is doubtful is tried again 20
# times a second, and each time takes PyPy a millisecond or more of code that it has not compiled
# yet; one that spins takes a whole processor.
IDLE_CPU = 0.1 if sys.implementation.name == "pypy" else 0.02

# One direction is stuck


def _two_way(net: Network) -> tuple[zdev.Relay, dict[str, zmq.Socket[bytes]]]:
    """Make a relay whose way there is narrow, and the way back wide."""
    frontend, backend = net.bound(zmq.DEALER, sndhwm=0), net.bound(zmq.DEALER, sndhwm=1)
    control = net.bound(zmq.REP)
    backend.rcvhwm = 0
    sockets = {
        "client": net.peer(frontend, zmq.DEALER, rcvhwm=0),
        "worker": net.peer(backend, zmq.DEALER, rcvhwm=1, sndhwm=0),
        "operator": net.peer(control, zmq.REQ),
    }
    return zdev.Relay(frontend, backend, control=control), sockets


@pytest.mark.alone
def test_a_peer_that_stops_reading_leaves_the_other_way_its_rate(engine: str, net: Network) -> None:
    relay, sockets = _two_way(net)
    client, worker, operator = (sockets[name] for name in ("client", "worker", "operator"))
    count = 2000

    def seconds() -> float:
        """Measure how long the way back takes for what lies ready."""
        assert ask(operator, b"PAUSE") == [b""]
        for number in range(count):
            worker.send(b"%d" % number)
        began = time.perf_counter()
        assert ask(operator, b"RESUME") == [b""]
        for number in range(count):
            assert client.recv() == b"%d" % number
        return time.perf_counter() - began

    with running(relay):
        free = min(seconds() for _ in range(3))
        fill(client)
        wait_until(lambda: relay.statistics().frontend_to_backend.parked)
        stuck = seconds()
        for _ in range(10):
            if stuck < 3 * free:
                break
            stuck = min(stuck, seconds())
        assert stuck < 3 * free
        there, back, _ = relay.statistics()
        assert there.parked == 1
        assert back.messages_sent == back.messages_received
        assert len(ask(operator, b"STATISTICS")) == 8


# Nobody spins


class Scenes:
    """Relays that have nothing to do, each for another reason, and a thread for each."""

    def __init__(self, net: Network) -> None:
        self.net = net
        self.relays: dict[str, zdev.Relay] = {}
        self._threads: list[Background] = []

    def add(self, name: str, relay: zdev.Relay, there: Callable[[], Any] = lambda: True) -> None:
        self.relays[name] = relay
        self._threads.append(Background(relay.run))
        wait_until(there)

    def end(self) -> None:
        for relay in self.relays.values():
            relay.stop()
        for thread in self._threads:
            thread.join()

    def idle(self) -> None:
        net = self.net
        self.add("idle", zdev.Relay(net.bound(zmq.ROUTER), net.bound(zmq.DEALER)))
        self.add("without any endpoint", zdev.Relay(net.socket(zmq.PULL), net.socket(zmq.PUSH)))

    def paused(self) -> None:
        net = self.net
        frontend, backend = net.bound(zmq.DEALER), net.bound(zmq.DEALER)
        relay = zdev.Relay(frontend, backend, control=net.bound(zmq.REP))
        relay.pause()
        peers = [net.peer(end, zmq.DEALER) for end in (frontend, backend) for _ in range(3)]
        for peer in peers:
            fill(peer)
        self.add("paused under pressure", relay)

    def parked(self) -> None:
        net = self.net
        frontend, backend = net.bound(zmq.DEALER, sndhwm=1), net.bound(zmq.DEALER, sndhwm=1)
        relay = zdev.Relay(frontend, backend, control=net.bound(zmq.REP))
        for end in (frontend, backend):
            fill(net.peer(end, zmq.DEALER, rcvhwm=1))
        self.add(
            "parked both ways",
            relay,
            lambda: sum(way.parked for way in relay.statistics()[:2]) == 2,
        )
        paused = zdev.Relay(net.bound(zmq.PULL), net.bound(zmq.PUSH))
        fill(net.peer(paused._ends["frontend"].socket, zmq.PUSH))
        self.add("parked", paused, lambda: paused.statistics()[0].parked)
        paused.pause()

    def no_worker(self) -> None:
        net = self.net
        frontend = net.bound(zmq.ROUTER)
        relay = zdev.Relay(frontend, net.bound(zmq.DEALER))
        net.peer(frontend, zmq.REQ).send(b"one request")
        self.add("no worker", relay, lambda: relay.statistics()[0].parked)

    def stuck_capture(self) -> None:
        net = self.net
        for kind in (zmq.PUSH, zmq.PAIR):
            frontend, backend = net.bound(zmq.PULL), net.bound(zmq.PUSH)
            relay = zdev.Relay(frontend, backend, net.bound(kind))
            net.peer(backend, zmq.PULL)
            fill(net.peer(frontend, zmq.PUSH))
            self.add(
                f"capture {zmq.SocketType(kind).name} without peer",
                relay,
                lambda relay=relay: relay.statistics().capture.parked,
            )

    def publisher(self) -> None:
        net = self.net
        frontend, backend = net.bound(zmq.PULL), net.bound(zmq.XPUB)
        relay = zdev.Relay(frontend, backend)
        net.peer(backend, zmq.SUB).subscribe(b"")
        net.peer(frontend, zmq.PUSH).send(b"news")
        self.add(
            "PULL to XPUB with a subscriber",
            relay,
            lambda: relay.statistics()[1].dropped and relay.statistics()[0].messages_sent,
        )
        for role in ("destination", "capture"):
            frontend = net.bound(zmq.PULL)
            publisher = net.bound(zmq.XPUB, sndhwm=1, xpub_nodrop=1)
            subscriber = net.peer(publisher, zmq.SUB, rcvhwm=1)
            subscriber.subscribe(b"")
            wait_until(lambda publisher=publisher: publisher.poll(0))
            if role == "destination":
                relay = zdev.Relay(frontend, publisher)
            else:
                backend = net.bound(zmq.PUSH)
                net.peer(backend, zmq.PULL)
                relay = zdev.Relay(frontend, backend, publisher)
            fill(net.peer(frontend, zmq.PUSH))
            self.add(
                f"XPUB_NODROP as {role}, full",
                relay,
                lambda relay=relay: relay.statistics()[0].parked or relay.statistics()[2].parked,
            )

    def mandatory(self) -> None:
        net = self.net
        frontend = net.bound(zmq.PULL)
        backend = net.bound(zmq.ROUTER, sndhwm=1, router_mandatory=1)
        net.peer(backend, zmq.DEALER, rcvhwm=1, routing_id=b"full").send(b"hello")
        relay = zdev.Relay(frontend, backend)
        source = net.peer(frontend, zmq.PUSH)
        self.add("ROUTER_MANDATORY with a full peer", relay, lambda: relay.statistics()[1].dropped)
        for _ in range(50):
            source.send_multipart([b"full", b"x"])
        wait_until(lambda: relay.statistics()[0].parked)

    def out_of_turn(self) -> None:
        net = self.net
        frontend, backend = net.bound(zmq.REP), net.bound(zmq.DEALER)
        relay = zdev.Relay(frontend, backend)
        worker = net.peer(backend, zmq.DEALER)
        for _ in range(5):
            worker.send(b"nobody asked")
        self.add("REP out of turn", relay, lambda: relay.statistics()[1].unroutable)
        frontend, backend = net.bound(zmq.REP), net.bound(zmq.REQ)
        relay = zdev.Relay(frontend, backend)
        net.peer(backend, zmq.REP)
        net.peer(frontend, zmq.REQ).send(b"a question that nobody answers")
        net.peer(frontend, zmq.REQ).send(b"and another")
        self.add("REQ waits", relay, lambda: relay.statistics()[0].messages_sent)

    def one_way_stuck(self) -> None:
        relay, sockets = _two_way(self.net)
        fill(sockets["client"])
        self.add("one way stuck", relay, lambda: relay.statistics()[0].parked)
        for number in range(100):
            sockets["worker"].send(b"%d" % number)
        for _ in range(100):
            sockets["client"].recv()


@pytest.mark.alone
def test_nobody_spins(engine: str, net: Network) -> None:
    scenes = Scenes(net)
    for name, scene in vars(Scenes).items():
        if not name.startswith("_") and name not in ("add", "end"):
            scene(scenes)
    assert len(scenes.relays) >= 15

    def sample(relay: zdev.Relay) -> tuple[float, float]:
        return relay.call(lambda: (time.monotonic(), time.thread_time()))

    # A look costs processor time itself; one that spins does so in every window.
    busy = dict.fromkeys(scenes.relays, 1.0)
    for _ in range(4):
        begin = {name: sample(scenes.relays[name]) for name in busy}
        time.sleep(0.8)
        for name, (wall, processor) in begin.items():
            then, used = sample(scenes.relays[name])
            busy[name] = (used - processor) / (then - wall)
        busy = {name: share for name, share in busy.items() if share >= IDLE_CPU}
        if not busy:
            break
    scenes.end()
    assert not busy


@pytest.mark.parametrize("burst", [1, 2000])
def test_any_burst_leaves_room_for_control(engine: str, net: Network, burst: int) -> None:
    """An endless stream of messages ends no turn by itself."""
    frontend, control = net.bound(zmq.DEALER), net.bound(zmq.REP)
    backend, operator = net.peer(frontend, zmq.DEALER), net.peer(control, zmq.REQ)
    for number in range(50):
        frontend.send(b"%d" % number)
        backend.send(b"%d" % number)
    relay = zdev.Relay(frontend, backend, control=control, burst=burst)
    with running(relay):
        for way in (0, 1):
            wait_until(lambda way=way: relay.statistics()[way].messages_sent > 100)
        assert len(ask(operator, b"STATISTICS")) == 8
        assert ask(operator, b"PAUSE") == [b""]
        assert relay.paused
        relay.resume()
