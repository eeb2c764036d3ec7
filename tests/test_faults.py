"""The faults that other devices have: framing, full and vanishing peers, spinning, sizes."""

from __future__ import annotations

import contextlib
import socket as tcp
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable

import pytest
import zmq

import zdev

from .support import DEADLINE, Background, Network, fill, running, wait_until

# Part of a processor that a device may use while nothing moves.
IDLE_CPU = 0.02


def accounted(way: zdev.DirectionStatistics) -> bool:
    """Tell whether every message is somewhere."""
    return way.messages_received == (way.messages_sent + way.dropped + way.unroutable + way.parked)


def drain(socket: zmq.Socket[bytes]) -> list[list[bytes]]:
    """Return what is in a socket, over inproc."""
    messages = []
    while socket.poll(0):
        messages.append(socket.recv_multipart())
    return messages


@contextlib.contextmanager
def endless(step: Callable[[], object]) -> Iterator[None]:
    """Do something again and again in a thread; zmq.Again ends a step early."""
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            with contextlib.suppress(zmq.Again):
                step()

    thread = Background(run)
    try:
        yield
    finally:
        stop.set()
        thread.join()


# Framing between ROUTERs


class Exchange:
    """A ROUTER-ROUTER queue with a monitor."""

    def __init__(self, net: Network, transport: str = "inproc", **options: Any) -> None:
        self.net = net
        self.frontend = net.bound(zmq.ROUTER, transport, **options)
        self.backend = net.bound(zmq.ROUTER, transport, **options)
        self.capture = net.bound(zmq.PUSH)
        self.watcher = net.peer(self.capture, zmq.PULL)
        self.relay = zdev.Relay(
            self.frontend, self.backend, self.capture, in_prefix="in", out_prefix="out"
        )

    def client(self, name: bytes, kind: int = zmq.DEALER) -> zmq.Socket[bytes]:
        return self.net.peer(self.frontend, kind, routing_id=name)

    def worker(self, name: bytes, kind: int = zmq.DEALER) -> zmq.Socket[bytes]:
        worker = self.net.peer(self.backend, kind, routing_id=name)
        worker.send_multipart([b"nobody", b"hello"])  # so that the backend knows it
        return worker


@pytest.mark.parametrize("transport", ["inproc", "tcp"])
def test_short_messages_between_routers_borrow_nothing(
    engine: str, net: Network, transport: str
) -> None:
    exchange = Exchange(net, transport)
    worker = exchange.worker(b"worker")
    good, bad = exchange.client(b"good"), exchange.client(b"bad")
    asking = [exchange.client(b"req%d" % number, zmq.REQ) for number in range(20)]
    with running(exchange.relay):
        wait_until(lambda: exchange.relay.statistics().backend_to_frontend.messages_sent == 1)
        assert exchange.watcher.recv_multipart() == [b"out", b"nobody", b"worker", b"hello"]
        expected = []
        for number in range(20):
            # Of these only the first can go anywhere: it says to whom, and nothing else.
            for message in ([b"worker"], [b""], [b"", b""], [b"", b"worker", b"body"]):
                bad.send_multipart(message)
            asking[number].send(b"worker")  # a delimiter stands where the address should
            good.send_multipart([b"worker", b"%d" % number, b"", b"end"])
            expected.append([b"good", b"%d" % number, b"", b"end"])
        received = [worker.recv_multipart() for _ in range(40)]
        assert [message for message in received if message[0] == b"good"] == expected
        assert [message for message in received if message[0] != b"good"] == [[b"bad"]] * 20
        # Each client sends in order, so the last one that goes nowhere may be still to come.
        wait_until(lambda: exchange.relay.statistics()[0].messages_received == 120)
        there = exchange.relay.statistics().frontend_to_backend
        assert (there.messages_sent, there.unroutable, there.dropped) == (40, 80, 0)
        copies = [exchange.watcher.recv_multipart() for _ in range(40)]
        assert copies == [[b"in", b"worker", *message] for message in received]

        # And the way back.
        for message in ([b"good"], [b""], [b"good", b"an", b"answer"], [b"", b"x"]):
            worker.send_multipart(message)
        assert good.recv_multipart() == [b"worker"]
        assert good.recv_multipart() == [b"worker", b"an", b"answer"]
        wait_until(lambda: exchange.relay.statistics()[1].messages_received == 5)
        assert exchange.relay.statistics().backend_to_frontend.unroutable == 2


def test_monitored_queue_survives_what_breaks_others(engine: str, net: Network) -> None:
    """The case from pyzmq's bug: a client of one frame, then a client of three."""
    exchange = Exchange(net)
    worker = exchange.worker(b"worker")
    one, three = exchange.client(b"one"), exchange.client(b"three")
    one.send(b"worker")
    three.send_multipart([b"worker", b"a", b"b"])
    device = Background(
        zdev.monitored_queue, exchange.frontend, exchange.backend, exchange.capture, "in", "out"
    )
    received = [worker.recv_multipart() for _ in range(2)]
    assert sorted(received) == [[b"one"], [b"three", b"a", b"b"]]
    assert isinstance(net.terminate(device), zmq.ContextTerminated)


def test_what_has_no_address_is_unroutable(engine: str, net: Network) -> None:
    """A DEALER's messages to a ROUTER that does not swap: the first frame is the address."""
    frontend, backend = net.bound(zmq.DEALER), net.bound(zmq.ROUTER)
    source = net.peer(frontend, zmq.DEALER)
    sink = net.peer(backend, zmq.DEALER, routing_id=b"sink")
    sink.send(b"hello")
    relay = zdev.Relay(frontend, backend)
    with running(relay):
        assert source.recv_multipart() == [b"sink", b"hello"]
        for message in ([b""], [b"sink"], [b"", b"sink", b"x"], [b"sink", b"y"]):
            source.send_multipart(message)
        assert sink.recv_multipart() == [b"y"]
        there = relay.statistics().frontend_to_backend
        assert (there.messages_received, there.messages_sent, there.unroutable) == (4, 1, 3)


def test_mandatory_counts_unknown_peers_and_goes_on(engine: str, net: Network) -> None:
    exchange = Exchange(net, router_mandatory=1)
    worker = exchange.worker(b"worker")
    client = exchange.client(b"client")
    with running(exchange.relay):
        for number in range(50):
            client.send_multipart([b"stranger", b"%d" % number, b"x"])
            client.send_multipart([b"worker", b"%d" % number, b"y"])
            assert worker.recv_multipart() == [b"client", b"%d" % number, b"y"]
        there, back, _ = exchange.relay.statistics()
        assert (there.messages_sent, there.unroutable) == (50, 50)
        assert (back.messages_sent, back.unroutable) == (0, 1)
        wait_until(lambda: exchange.relay.statistics().capture.sent == 50)
        copies = [exchange.watcher.recv_multipart() for _ in range(50)]
        assert copies == [[b"in", b"worker", b"client", b"%d" % n, b"y"] for n in range(50)]


def test_mandatory_waits_for_a_full_peer(engine: str, net: Network) -> None:
    exchange = Exchange(net, router_mandatory=1, sndhwm=2)
    worker = exchange.worker(b"worker")
    worker.close(0)
    exchange.backend.sndhwm = 2
    worker = net.peer(exchange.backend, zmq.DEALER, routing_id=b"full", rcvhwm=2)
    worker.send_multipart([b"client", b"hello"])
    client = exchange.client(b"client")
    with running(exchange.relay):
        client.send_multipart([b"stranger", b"x"])
        for number in range(50):
            client.send_multipart([b"full", b"%d" % number])
        wait_until(lambda: exchange.relay.statistics().frontend_to_backend.parked)
        # The other way goes on.
        for number in range(50):
            worker.send_multipart([b"client", b"%d" % number])
        seen = [client.recv_multipart() for _ in range(50)]
        if seen[0] == [b"full", b"hello"]:
            seen = [*seen[1:], client.recv_multipart()]
        assert seen == [[b"full", b"%d" % number] for number in range(50)]
        seen = [worker.recv_multipart() for _ in range(50)]
        assert seen == [[b"client", b"%d" % number] for number in range(50)]
        there = exchange.relay.statistics().frontend_to_backend
        assert (there.messages_sent, there.unroutable, there.dropped) == (50, 1, 0)


def test_mandatory_gives_up_a_full_peer_that_leaves(engine: str, net: Network) -> None:
    exchange = Exchange(net, router_mandatory=1, sndhwm=1)
    full = net.peer(exchange.backend, zmq.DEALER, routing_id=b"full", rcvhwm=1)
    full.send_multipart([b"nobody", b"hello"])
    client = exchange.client(b"client")
    with running(exchange.relay):
        wait_until(lambda: exchange.relay.statistics().backend_to_frontend.unroutable == 1)
        for number in range(50):
            client.send_multipart([b"full", b"%d" % number])
        wait_until(lambda: exchange.relay.statistics().frontend_to_backend.parked)
        full.close(0)
        wait_until(lambda: exchange.relay.statistics().frontend_to_backend.messages_received == 50)
        wait_until(lambda: not exchange.relay.statistics().frontend_to_backend.parked)
        there = exchange.relay.statistics().frontend_to_backend
        assert accounted(there)
        assert there.unroutable > 0
        worker = exchange.worker(b"worker")
        wait_until(lambda: exchange.relay.statistics().backend_to_frontend.unroutable == 2)
        client.send_multipart([b"worker", b"still here"])
        assert worker.recv_multipart() == [b"client", b"still here"]


FRAMES = 200


class Feed:
    """Sends numbered messages of many frames, one each time that it is called."""

    def __init__(self, source: zmq.Socket[bytes], *address: bytes) -> None:
        self._source = source
        self._address = address
        self._numbers = 0
        source.sndtimeo = 20

    def __call__(self) -> None:
        self._source.send_multipart([*self._address, *[b"%d" % self._numbers] * FRAMES])
        self._numbers += 1


def _number(message: list[bytes]) -> int:
    """Check that a message is whole, and return its number."""
    assert message == message[:1] * FRAMES
    return int(message[0])


# Monitors

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


def _ask(operator: zmq.Socket[bytes], command: bytes) -> list[bytes]:
    operator.send(command)
    return operator.recv_multipart()


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
        assert len(_ask(sockets["operator"], b"STATISTICS")) == 8
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
            assert _ask(operator, command) == [b""]
        assert len(_ask(operator, b"STATISTICS")) == 8
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
        _number(worker.recv_multipart())

    with running(relay), endless(feed), endless(consume):
        for _ in range(8):
            watcher = net.peer(sockets["capture"], MONITORS[kind], rcvhwm=3)
            if kind == "PAIR" and not watcher.poll(100):
                watcher.close(0)  # it came before the last one had gone, and was refused
                continue
            for _ in range(10):
                prefix, *message = watcher.recv_multipart()
                assert prefix == b"in"
                numbers.append(_number(message))
            watcher.close(0)
    assert numbers == sorted(set(numbers))
    there, _, capture = relay.statistics()
    assert accounted(there)
    assert there.messages_sent == capture.sent + capture.dropped + capture.parked
    assert there.dropped == 0


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


def test_a_peer_that_stops_reading_leaves_the_other_way_its_rate(engine: str, net: Network) -> None:
    relay, sockets = _two_way(net)
    client, worker, operator = (sockets[name] for name in ("client", "worker", "operator"))
    count = 2000

    def seconds() -> float:
        """Measure how long the way back takes for what lies ready."""
        assert _ask(operator, b"PAUSE") == [b""]
        for number in range(count):
            worker.send(b"%d" % number)
        began = time.perf_counter()
        assert _ask(operator, b"RESUME") == [b""]
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
        assert len(_ask(operator, b"STATISTICS")) == 8


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


# REQ and REP out of turn


def test_answers_that_nobody_asked_for(engine: str, net: Network) -> None:
    """None may become the reply to another question."""
    frontend, backend = net.bound(zmq.REP), net.bound(zmq.DEALER)
    relay = zdev.Relay(frontend, backend)
    clients = [net.peer(frontend, zmq.REQ) for _ in range(2)]
    worker = net.peer(backend, zmq.DEALER)
    with running(relay):
        for number in range(1, 9):
            worker.send_multipart([b"early", b"%d" % number])
            wait_until(lambda n=number: relay.statistics()[1].messages_received == 3 * n - 2)
            client = clients[number % 2]
            client.send(b"%d" % number)
            assert worker.recv() == b"%d" % number
            worker.send(b"reply %d" % number)
            worker.send(b"another reply")
            assert client.recv() == b"reply %d" % number
            wait_until(lambda n=number: relay.statistics()[1].messages_received == 3 * n)
    there, back, _ = relay.statistics()
    assert (there.messages_sent, back.messages_sent, back.unroutable) == (8, 8, 16)
    assert back.parked == back.dropped == 0


def test_an_answer_older_than_the_question(engine: str, net: Network) -> None:
    """It was there before the relay, or came in a pause."""
    frontend, backend = net.bound(zmq.REP), net.bound(zmq.DEALER)
    relay = zdev.Relay(frontend, backend)
    client, worker = net.peer(frontend, zmq.REQ), net.peer(backend, zmq.DEALER)
    relay.pause()
    with running(relay):
        for number in range(1, 9):
            for _ in range(3):
                worker.send(b"stale")
            client.send(b"question")
            wait_until(lambda: relay.call(lambda: frontend.poll(0)))
            wait_until(lambda: relay.call(lambda: backend.poll(0)))
            relay.resume()
            assert worker.recv() == b"question"
            worker.send(b"reply")
            assert client.recv() == b"reply"
            relay.pause()
            assert relay.statistics()[1][:8] == (
                4 * number,
                4 * number,
                20 * number,
                number,
                number,
                5 * number,
                0,
                3 * number,
            )


@pytest.mark.parametrize("captured", [False, True])
def test_a_request_that_can_go_nowhere_is_replied_to(
    engine: str, net: Network, captured: bool
) -> None:
    """A REP that waits for a reply that nobody sends would serve no other client."""
    frontend, backend = net.bound(zmq.REP), net.bound(zmq.ROUTER, router_mandatory=1)
    capture = net.bound(zmq.PUSH) if captured else None
    relay = zdev.Relay(frontend, backend, capture)
    clients = [net.peer(frontend, zmq.REQ) for _ in range(2)]
    worker = net.peer(backend, zmq.DEALER, routing_id=b"worker")
    if capture is not None:
        net.peer(capture, zmq.PULL)
    with running(relay):
        for client in clients:
            for nowhere in ([b"nobody", b"question"], [b""], [b"worker"], [b"", b"question"]):
                client.send_multipart(nowhere)
                assert client.recv_multipart() == [b""]
            client.send_multipart([b"worker", b"question"])
            assert worker.recv() == b"question"
            worker.send(b"reply")
            assert client.recv_multipart() == [b"worker", b"reply"]
    there, back, _ = relay.statistics()
    assert (there.messages_sent, there.unroutable) == (2, 8)
    assert (back.messages_sent, back.unroutable) == (2, 0)


def test_clients_that_leave_before_their_answer(engine: str, net: Network) -> None:
    frontend, backend = net.bound(zmq.REP), net.bound(zmq.REQ)
    relay = zdev.Relay(frontend, backend)
    worker = net.peer(backend, zmq.REP)
    with running(relay):
        for number in range(20):
            hasty = net.peer(frontend, zmq.REQ)
            hasty.send(b"hasty")
            assert worker.recv() == b"hasty"
            hasty.close(0)
            worker.send(b"too late")
            client = net.peer(frontend, zmq.REQ)
            client.send_multipart([b"%d" % number, b"", b"?"])
            worker.send_multipart([*worker.recv_multipart(), b"!"])
            assert client.recv_multipart() == [b"%d" % number, b"", b"?", b"!"]
            client.close(0)
    assert all(accounted(way) for way in relay.statistics()[:2])


def test_a_request_without_answer_keeps_control(engine: str, net: Network) -> None:
    """A REQ that waits for ever holds its direction, and nothing else."""
    frontend, backend, control = net.bound(zmq.REP), net.bound(zmq.REQ), net.bound(zmq.REP)
    relay = zdev.Relay(frontend, backend, control=control)
    worker, client = net.peer(backend, zmq.REP), net.peer(frontend, zmq.REQ)
    operator = net.peer(control, zmq.REQ)
    device = Background(relay.run)
    client.send(b"question")
    assert worker.recv() == b"question"
    worker.close(0)
    net.peer(frontend, zmq.REQ).send(b"another")
    assert len(_ask(operator, b"STATISTICS")) == 8
    assert _ask(operator, b"TERMINATE") == [b""]
    device.join()
    assert relay.statistics().frontend_to_backend.messages_sent == 1


# Sizes

SHAPES = {
    "empty frame": [b""],
    "empty frames": [b""] * 7,
    "10,000 frames": [b"%d" % number for number in range(10_000)],
    "64 frames of 1 MiB": [bytes([number]) * 2**20 for number in range(64)],
}


@pytest.mark.parametrize(
    ("transport", "swapped", "captured"),
    [("inproc", False, False), ("inproc", True, True), ("tcp", False, True), ("tcp", True, False)],
    ids=["inproc", "inproc-swapped-captured", "tcp-captured", "tcp-swapped"],
)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.usefixtures("zero_copy")
def test_extreme_sizes(
    engine: str, net: Network, shape: str, swapped: bool, captured: bool, transport: str
) -> None:
    message = SHAPES[shape]
    size = sum(map(len, message))
    kind = zmq.ROUTER if swapped else zmq.DEALER
    frontend, backend = net.bound(kind, transport), net.bound(kind, transport)
    client = net.peer(frontend, zmq.DEALER, routing_id=b"client")
    worker = net.peer(backend, zmq.DEALER, routing_id=b"worker")
    capture = watcher = None
    if captured:
        capture = net.bound(zmq.PUSH, transport)
        watcher = net.peer(capture, zmq.PULL)
    relay = zdev.Relay(frontend, backend, capture, in_prefix=b"in", out_prefix=b"out")
    with running(relay):
        there = back = seen = message
        copies = [[b"in", *message], [b"out", *message]]
        if swapped:
            # The device is to know the worker; it may not know the client yet.
            worker.send_multipart([b"nobody", b"hello"])
            wait_until(lambda: relay.statistics().backend_to_frontend.messages_received)
            if watcher is not None:
                watcher.recv_multipart()
            there, back, seen = [b"worker", *message], [b"client", *message], [b"client", *message]
            copies = [[b"in", b"worker", b"client", *message]]
            copies.append([b"out", b"client", b"worker", *message])
        client.send_multipart(there, copy=False)
        assert worker.recv_multipart() == seen
        client.send(b"worker" if swapped else b"next")
        assert worker.recv_multipart() == ([b"client"] if swapped else [b"next"])
        worker.send_multipart(back, copy=False)
        assert client.recv_multipart()[1 if swapped else 0 :] == message
        statistics = relay.statistics().frontend_to_backend
        assert statistics.frames_sent == len(message) + (4 if swapped else 1)
        assert statistics.bytes_sent == size + (24 if swapped else 4)
        if watcher is not None:
            assert watcher.recv_multipart() == copies[0]
            watcher.recv_multipart()
            assert watcher.recv_multipart() == copies[1]


# Peers that vanish in the middle of a message

DESTINATIONS = {"PUSH": zmq.PULL, "DEALER": zmq.DEALER, "PAIR": zmq.PAIR, "ROUTER": zmq.DEALER}


def _outlet(net: Network, kind: str, transport: str) -> tuple[zdev.Relay, zmq.Socket[bytes], Feed]:
    """Make a relay to a backend of that kind, and what feeds it."""
    frontend = net.bound(zmq.PULL, rcvhwm=10)
    options = {"router_handover": 1} if kind == "ROUTER" else {}
    backend = net.bound(getattr(zmq, kind), transport, sndhwm=2, **options)
    source = net.peer(frontend, zmq.PUSH, sndhwm=10)
    feed = Feed(source, b"sink") if kind == "ROUTER" else Feed(source)
    return zdev.Relay(frontend, backend), backend, feed


@pytest.mark.parametrize("transport", ["inproc", "tcp"])
@pytest.mark.parametrize("kind", DESTINATIONS)
def test_a_peer_that_vanishes_takes_at_most_its_own_messages(
    engine: str, net: Network, kind: str, transport: str
) -> None:
    """The next one sees whole messages only, newer ones, in order."""
    relay, backend, feed = _outlet(net, kind, transport)
    numbers: list[int] = []
    vanished = 0
    with running(relay):
        with endless(feed):
            while vanished < 12:
                sink = net.peer(backend, DESTINATIONS[kind], rcvhwm=2, routing_id=b"sink")
                if kind == "PAIR" and not sink.poll(100):
                    sink.close(0)  # it came before the last one had gone, and was refused
                    continue
                for _ in range(1 + vanished % 4):
                    numbers.append(_number(sink.recv_multipart()))
                sink.close(0)
                vanished += 1
        # Whoever is left gets the rest.
        sink = net.peer(backend, DESTINATIONS[kind], routing_id=b"sink")
        while sink.poll(100):
            numbers.append(_number(sink.recv_multipart()))
    there = relay.statistics().frontend_to_backend
    assert accounted(there)
    assert there.frames_sent == there.messages_sent * (FRAMES + (kind == "ROUTER"))
    assert there.messages_sent >= len(numbers)
    assert numbers == sorted(set(numbers))


VICTIM = """
import sys, zmq
socket = zmq.Context().socket(zmq.PULL)
socket.rcvhwm = 2
socket.connect(sys.argv[1])
for _ in range(3):
    socket.recv_multipart()
print("alive", flush=True)
while True:
    socket.recv_multipart()
"""


def test_a_peer_that_is_killed(engine: str, net: Network) -> None:
    relay, backend, feed = _outlet(net, "PUSH", "tcp")
    numbers: list[int] = []
    command = [sys.executable, "-c", VICTIM, backend.getsockopt_string(zmq.LAST_ENDPOINT)]
    with running(relay), endless(feed):
        for _ in range(2):
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as victim:
                assert victim.stdout is not None
                assert victim.stdout.readline() == "alive\n"
                victim.kill()
            sink = net.peer(backend, zmq.PULL, rcvhwm=2)
            for _ in range(20):
                numbers.append(_number(sink.recv_multipart()))
            sink.close(0)
    assert accounted(relay.statistics().frontend_to_backend)
    assert numbers == sorted(set(numbers))


def test_clients_that_come_and_go(engine: str, net: Network) -> None:
    """A broker whose clients leave at any moment serves the one that stays."""
    frontend, backend = net.bound(zmq.ROUTER, "tcp"), net.bound(zmq.DEALER, "tcp")
    relay = zdev.Relay(frontend, backend)
    worker, loyal = net.peer(backend, zmq.REP), net.peer(frontend, zmq.REQ)
    with running(relay):
        for number in range(30):
            hasty = net.peer(frontend, zmq.DEALER)
            for _ in range(number % 3):
                hasty.send_multipart([b"", b"hasty"] * 50)
            hasty.close(0)
            loyal.send_multipart([b"loyal", b"%d" % number])
            request: list[bytes] = []
            while request[:1] != [b"loyal"]:
                request = worker.recv_multipart()
                worker.send_multipart(request)
            assert loyal.recv_multipart() == [b"loyal", b"%d" % number]
    assert all(accounted(way) for way in relay.statistics()[:2])


# What a remote peer may send


def test_strangers_on_the_wire(engine: str, net: Network) -> None:
    """Whoever speaks no ZMTP, an old one, or stops in its middle, disturbs nobody."""
    frontend, backend = net.bound(zmq.ROUTER, "tcp"), net.bound(zmq.DEALER)
    relay = zdev.Relay(frontend, backend)
    client, worker = net.peer(frontend, zmq.REQ), net.peer(backend, zmq.REP)
    port = int(frontend.getsockopt_string(zmq.LAST_ENDPOINT).rsplit(":", 1)[1])
    old = b"\1\0\6\0hello"  # a message of ZMTP 1.0, from nobody
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(48)
    with running(relay):
        for noise in (b"", b"GET / HTTP/1.1\r\n\r\n", old, greeting, greeting[:10], bytes(100)):
            with tcp.create_connection(("127.0.0.1", port), timeout=DEADLINE) as stranger:
                stranger.sendall(noise)
                client.send(noise)
                assert worker.recv() == noise
                worker.send(noise)
                assert client.recv() == noise
    there = relay.statistics().frontend_to_backend
    assert accounted(there)
    assert there.messages_sent >= 6


def test_probes_are_messages_like_others(engine: str, net: Network) -> None:
    """ZMQ_PROBE_ROUTER sends an empty message at each connect."""
    exchange = Exchange(net)
    worker = exchange.worker(b"worker", zmq.DEALER)
    with running(exchange.relay):
        for number in range(10):
            client = net.peer(
                exchange.frontend, zmq.DEALER, routing_id=b"%d" % number, probe_router=1
            )
            client.send_multipart([b"worker", b"hello"])
            assert worker.recv_multipart() == [b"%d" % number, b"hello"]
    there = exchange.relay.statistics().frontend_to_backend
    assert (there.messages_received, there.messages_sent, there.unroutable) == (20, 10, 10)


def test_a_stream_takes_an_address_and_one_frame(engine: str, net: Network) -> None:
    """Anything else would shift the meaning of all that follows, for everybody."""
    frontend, backend = net.bound(zmq.STREAM, "tcp"), net.bound(zmq.DEALER)
    relay = zdev.Relay(frontend, backend)
    worker = net.peer(backend, zmq.DEALER)
    port = int(frontend.getsockopt_string(zmq.LAST_ENDPOINT).rsplit(":", 1)[1])
    with running(relay), tcp.create_connection(("127.0.0.1", port), timeout=DEADLINE) as peer:
        address, nothing = worker.recv_multipart()
        assert nothing == b""
        peer.sendall(b"question")
        assert worker.recv_multipart() == [address, b"question"]
        for message in (
            [b""],
            [address],
            [b"", b"x"],
            [address, b"x", b"y"],
            [address] * 100,
            [b"stranger", b"x"],
        ):
            worker.send_multipart(message)
        worker.send_multipart([address, b"answer"])
        assert peer.recv(100) == b"answer"
        back = relay.statistics().backend_to_frontend
        assert (back.messages_sent, back.unroutable) == (1, 6)


def test_subscribers_that_send_nonsense(engine: str, net: Network) -> None:
    """What is no subscription goes upstream as a message; the news go on."""
    frontend, backend = net.bound(zmq.XSUB), net.bound(zmq.XPUB)
    relay = zdev.Relay(frontend, backend)
    publisher, odd = net.peer(frontend, zmq.XPUB), net.peer(backend, zmq.XSUB)
    with running(relay):
        odd.send(b"\1news")
        assert publisher.recv_multipart() == [b"\1news"]
        odd.send_multipart([b"\2odd", b"", b"more"])
        assert publisher.recv_multipart() == [b"\2odd", b"", b"more"]
        for _ in range(3):
            odd.send(b"\0never subscribed to")
        for number in range(20):
            publisher.send_multipart([b"news", b"%d" % number, b""])
            assert odd.recv_multipart() == [b"news", b"%d" % number, b""]
    assert all(accounted(way) for way in relay.statistics()[:2])


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
        assert len(_ask(operator, b"STATISTICS")) == 8
        assert _ask(operator, b"PAUSE") == [b""]
        assert relay.paused
        relay.resume()
