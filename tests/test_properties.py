"""Properties of traffic through real sockets, on every engine, against the model.

Whatever peers send, in whatever order, and however little the sockets' queues hold: each message
arrives once, whole, at the right peer and in its sender's order; the capture got what was sent on;
and the counters say what was sent.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, NamedTuple

import hypothesis.strategies as st
import pytest
import zmq
from hypothesis import given

import zdev

from zdev.testing.model import Device, Direction, Fate, Type, ordered
from .strategies import bursts, content, examples, hwms, prefixes, sizes
from .support import Network, running, wait_until

Frames = list[bytes]

STRANGER = b"stranger"  # a routing id that no peer has

# Seconds after which traffic counts as stalled: few, since hypothesis tries a failure many times.
STALLED = 5.0


@dataclass(frozen=True)
class Wiring:
    """What a device joins, and who talks through it."""

    frontend: Type
    backend: Type
    client: Type
    """The frontend's peers."""
    worker: Type
    """The backend's peers."""
    clients: int = 1
    """How many there may be: one, where the device would have to choose among them."""
    workers: int = 1
    upstream: bool = False
    """Whether the workers send, too."""
    lossy: bool = False
    """Whether a full queue loses messages, so that there must be no limit."""

    @property
    def single(self) -> bool:
        """Whether one socket is both ends."""
        return self.workers == 0


P, D, R = Type.PAIR, Type.DEALER, Type.ROUTER
WIRINGS = {
    "PULL-PUSH": Wiring(Type.PULL, Type.PUSH, Type.PUSH, Type.PULL, clients=3),
    "PAIR-PAIR": Wiring(P, P, P, P, upstream=True),
    "DEALER-DEALER": Wiring(D, D, D, D, upstream=True),
    "ROUTER-DEALER": Wiring(R, D, D, D, clients=3, upstream=True),
    "ROUTER-ROUTER": Wiring(R, R, D, D, clients=3, workers=2, upstream=True),
    "ROUTER": Wiring(R, R, D, D, clients=3, workers=0),
    "SUB-PUB": Wiring(Type.SUB, Type.PUB, Type.XPUB, Type.SUB, clients=2, lossy=True),
    "XSUB-XPUB": Wiring(Type.XSUB, Type.XPUB, Type.XPUB, Type.SUB, clients=2, lossy=True),
    "PULL-XPUB": Wiring(Type.PULL, Type.XPUB, Type.PUSH, Type.XSUB, clients=3, lossy=True),
}


class Send(NamedTuple):
    """A message: which peer sends it, to which peer (where that can be said), and its frames."""

    sender: int
    to: int
    sizes: list[int]


class Peer:
    """A socket that talks to the device."""

    def __init__(self, socket: zmq.Socket[bytes], side: str, name: bytes) -> None:
        self.socket = socket
        self.side = side
        self.name = name
        self.lossy = False
        """Whether it may get less than expected."""
        self.received: list[Frames] = []
        self.expected: dict[bytes, list[Frames]] = {}
        """What it is to receive, by sender."""

    def expect(self, sender: Peer, frames: Frames) -> None:
        self.expected.setdefault(sender.name, []).append(frames)

    @property
    def missing(self) -> int:
        """How many messages it has yet to receive; 0 if that cannot be said."""
        expected = sum(map(len, self.expected.values()))
        return 0 if self.lossy else expected - len(self.received)


class Scene:
    """A device among its peers, and the model of it."""

    def __init__(
        self,
        net: Network,
        wiring: Wiring,
        clients: int,
        workers: int,
        hwm: list[int],
        capture: bool,
        **settings: Any,
    ) -> None:
        self.net = net
        self.wiring = wiring
        self.hwm = iter([0] * len(hwm) if wiring.lossy else hwm)
        frontend = self.end(wiring.frontend)
        backend = frontend if wiring.single else self.end(wiring.backend)
        monitor = self.end(Type.PUSH) if capture else None
        self.peers = [
            *(self.peer(frontend, wiring.client, "frontend", b"c%d" % n) for n in range(clients)),
            *(self.peer(backend, wiring.worker, "backend", b"w%d" % n) for n in range(workers)),
        ]
        self.monitors = [self.peer(monitor, Type.PULL, "capture", b"")] if monitor else []
        for peer in self.monitors:
            peer.lossy = settings["capture_policy"] == "drop"
        for socket in (frontend, backend):
            socket.getsockopt(zmq.EVENTS)  # now it has heard of its peers
        self.relay = zdev.Relay(frontend, backend, monitor, **settings)
        self.device = Device(
            wiring.frontend,
            wiring.backend,
            capture=capture,
            in_prefix=as_bytes(settings["in_prefix"]),
            out_prefix=as_bytes(settings["out_prefix"]),
            swap=wiring.frontend == wiring.backend == Type.ROUTER,
            single=wiring.single,
        )

    def end(self, kind: Type) -> Any:
        """Make a socket of the device."""
        socket = self.net.bound(kind, hwm=next(self.hwm))
        if kind == Type.ROUTER:
            socket.router_mandatory = 1  # without it, it drops what a peer has no room for
        if kind == Type.SUB:
            socket.subscribe(b"")
        return socket

    def peer(self, of: Any, kind: Type, side: str, name: bytes) -> Peer:
        """Make a peer of one of them."""
        socket = self.net.socket(kind, hwm=next(self.hwm))
        if kind == Type.DEALER:
            socket.routing_id = name
        if kind == Type.SUB:
            socket.subscribe(b"")
        socket.connect(of.last_endpoint.decode())
        if kind == Type.XSUB:
            socket.send(b"\x01")
        return Peer(socket, side, name)

    def subscriptions(self) -> None:
        """Wait until publishers know of the subscription, and count it where it passes through."""
        for peer in self.peers:
            if peer.socket.type == zmq.XPUB:
                assert peer.socket.recv() == b"\x01"
        if self.wiring.backend == Type.XPUB:
            self.relay_one(self.device.out_in, self.peers[-1], [b"\x01"])

    def relay_one(
        self, way: Direction, sender: Peer, frames: Frames, fate: Fate | None = None
    ) -> bool:
        """Tell the model and the monitors of a message, and say whether it is sent on."""
        sent = way.messages_sent
        way.arrive(frames, fate)
        way.flow()
        if way.messages_sent == sent:
            return False
        for monitor in self.monitors:
            monitor.expect(sender, way.captured[-1])
        return True

    def plan(self, number: int, send: Send) -> tuple[Peer, Frames]:
        """Say who sends what, and tell the model and the receiver."""
        senders = [p for p in self.peers if p.side == "frontend" or self.wiring.upstream]
        sender = senders[send.sender % len(senders)]
        forth = sender.side == "frontend"
        way = self.device.in_out if forth else self.device.out_in
        source = self.wiring.frontend if forth else self.wiring.backend
        others = [p for p in self.peers if p.side != sender.side or self.wiring.single]

        frames = content(number, send.sizes)
        if way.destination == Type.ROUTER:
            names = [*(p.name for p in others), STRANGER, b""]
            frames.insert(0, names[send.to % len(names)])
        frames = frames or [b""]
        arriving = [sender.name, *frames] if source == Type.ROUTER else frames
        leaving = ordered(arriving, way.swap)
        unknown = way.destination == Type.ROUTER and leaving[0] == STRANGER
        if self.relay_one(way, sender, arriving, Fate.UNROUTABLE if unknown else None):
            if way.destination == Type.ROUTER:
                name, *leaving = leaving
                others = [peer for peer in others if peer.name == name]
            (receiver,) = others
            receiver.expect(sender, leaving)
        return sender, frames

    def drive(self, sends: list[Send]) -> None:
        """Send everything, and receive only when nothing can be sent, so that queues fill."""
        waiting = deque([self.plan(number, send) for number, send in enumerate(sends)])
        receivers = [peer for peer in self.peers if peer.expected] + self.monitors
        while waiting or any(peer.missing for peer in receivers):
            poller = zmq.Poller()
            for peer in receivers:
                poller.register(peer.socket, zmq.POLLIN)
            if waiting:
                sender, frames = waiting[0]
                try:
                    sender.socket.send_multipart(frames, zmq.DONTWAIT)
                except zmq.Again:
                    poller.register(sender.socket, zmq.POLLIN | zmq.POLLOUT)
                else:
                    waiting.popleft()
                    continue
            ready = dict(poller.poll(1000 * STALLED))
            assert ready, {peer.name: peer.missing for peer in receivers}
            for peer in receivers:
                if ready.get(peer.socket, 0) & zmq.POLLIN:
                    peer.received.append(peer.socket.recv_multipart())

    def settle(self) -> None:
        """Wait until the relay has taken everything."""
        taken = [way.messages_received for way in (self.device.in_out, self.device.out_in)]
        wait_until(lambda: [way[0] for way in self.relay.statistics()[:2]] == taken, STALLED)

    def check(self) -> None:
        """Compare what came out with the model."""
        for peer in self.peers:
            assert not peer.socket.poll(0)
            assert is_merge(peer.received, list(peer.expected.values()))
        *traffic, capture = self.device.statistics()
        for monitor in self.monitors:
            while monitor.socket.poll(0):
                monitor.received.append(monitor.socket.recv_multipart())
            copies = list(monitor.expected.values())
            assert is_merge(monitor.received, copies, gaps=monitor.lossy)
            if monitor.lossy:
                sent = len(monitor.received)
                capture = (sent, sum(map(len, copies)) - sent, 0)
        assert self.relay.statistics() == (*traffic, capture)


def as_bytes(prefix: bytes | str | None) -> bytes | None:
    return prefix.encode() if isinstance(prefix, str) else prefix


def is_merge(whole: list[Frames], parts: list[list[Frames]], *, gaps: bool = False) -> bool:
    """Tell whether a list is its parts, each in order, mixed; with gaps, perhaps not all of them."""
    reached = {tuple(0 for _ in parts)}
    for element in whole:
        reached = {
            (*places[:i], place + 1, *places[i + 1 :])
            for places in reached
            for i, part in enumerate(parts)
            for place in range(places[i], len(part) if gaps else min(places[i] + 1, len(part)))
            if part[place] == element
        }
    return bool(reached) if gaps else tuple(map(len, parts)) in reached


def test_a_merge_keeps_each_order() -> None:
    a, b, c = [b"a"], [b"b"], [b"c"]
    assert is_merge([a, c, b], [[a, b], [c]])
    assert not is_merge([b, c, a], [[a, b], [c]])
    assert not is_merge([a, b], [[a, b], [c]])
    assert not is_merge([a, b, c, c], [[a, b], [c]])
    assert is_merge([c, b], [[a, b], [c]], gaps=True)
    assert not is_merge([b, a], [[a, b], [c]], gaps=True)


SENDS = st.lists(st.builds(Send, st.integers(0, 4), st.integers(0, 4), sizes(0)), max_size=24)


@pytest.mark.parametrize("name", WIRINGS)
@given(
    sends=SENDS,
    clients=st.integers(1, 3),
    workers=st.integers(1, 2),
    hwm=st.lists(hwms(), min_size=9, max_size=9),
    capture=st.booleans(),
    capture_policy=st.sampled_from(["block", "drop"]),
    in_prefix=prefixes(),
    out_prefix=prefixes(),
    burst=bursts(),
)
@examples(12)
def test_traffic(
    engine: str,
    name: str,
    sends: list[Send],
    clients: int,
    workers: int,
    **settings: Any,
) -> None:
    wiring = WIRINGS[name]
    net = Network()
    scene = Scene(
        net, wiring, min(clients, wiring.clients), min(workers, wiring.workers), **settings
    )
    with running(scene.relay):
        scene.subscriptions()
        scene.drive(sends)
        scene.settle()
    scene.check()
    net.close()
