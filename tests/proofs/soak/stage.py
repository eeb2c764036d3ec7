"""One device and its peers: what they do at random, and what must hold meanwhile."""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import random
import struct
import time
from dataclasses import dataclass
from typing import Any, Callable

import zmq

from zdev._contract import Statistics

from ...support import DEADLINE, Background, available_engines
from .hosts import HOSTS, DeviceHost, Host, Plan
from .messages import HEADER, Ledger, Violation, make, tally
from .mortals import Mortal, raw_sender, zmq_peer

__all__ = ["FLOWS", "Stage"]

# libzmq 4.3.5 aborts the process (session_base.cpp, clean_pipes) when a tcp or ipc connection breaks
# in the midst of a multipart message while the pipe behind it is being terminated by its own side:
# the session then asks for the rest of the message, and the pipe has none any more. No device can
# help that. So the two sides of a connection never give it up at the same time here: when the one
# has, the other lets so many seconds pass, in which its session comes to know.
CALM = 0.3

# An XSUB or a ROUTER that is asked for its ZMQ_EVENTS fetches the first frame of the next message.
# If its own side then gives up the pipe from which that came, the rest is gone: libzmq 4.3.5 aborts
# (fq.cpp, !_more), or takes the next message for the rest. So these are not disconnected or unbound.
FETCHES_AHEAD = (zmq.XSUB, zmq.ROUTER)

MAX_IN_FLIGHT = 50
HOLDING = ("tcp", "ipc")


@dataclass(frozen=True)
class Flow:
    """How messages go."""

    front: int  # the frontend's type
    back: int
    sender: int  # the types of those who connect to it
    receiver: int
    envelopes: tuple[int, int]  # frames before the header, as sent on, per direction
    echoes: bool = False


FLOWS = {
    "PULL-PUSH": Flow(zmq.PULL, zmq.PUSH, zmq.PUSH, zmq.PULL, (0, 0)),
    "ROUTER-DEALER": Flow(zmq.ROUTER, zmq.DEALER, zmq.DEALER, zmq.DEALER, (1, 2), echoes=True),
    "ROUTER-ROUTER": Flow(zmq.ROUTER, zmq.ROUTER, zmq.DEALER, zmq.DEALER, (2, 2), echoes=True),
    "XSUB-XPUB": Flow(zmq.XSUB, zmq.XPUB, zmq.PUB, zmq.SUB, (0, 0)),
}

_idents = itertools.count(1)


class Peer:
    """A peer in this process; its name is its routing id where it needs one."""

    def __init__(self, socket: zmq.Socket[bytes], role: str, endpoint: str) -> None:
        self.ident = next(_idents)
        self.name = b"%04d" % self.ident
        self.socket = socket
        self.role = role
        self.endpoint = endpoint
        self.is_bound = False  # the device connects to it
        self.sent = 0
        self.answered = 0
        self.stalls_until = 0.0

    @property
    def stalls(self) -> bool:
        return self.stalls_until > time.monotonic()


class Stage:
    """Plays one device for some seconds. The choice of what happens is the seed's alone."""

    def __init__(self, seed: str, host: str, flow: str, directory: str) -> None:
        self.rng = rng = random.Random(seed)
        self.flow = FLOWS[flow]
        self.seconds = rng.uniform(0.5, 2.5)
        # A PUB drops what is too much for a subscriber, and a ROUTER what is for a peer that has not
        # come yet; nothing tells.
        self.is_lossless = flow in ("PULL-PUSH", "ROUTER-DEALER") and rng.random() < 0.5
        kinds = {"in": self.flow.front, "out": self.flow.back}
        monitor = rng.choice([None, zmq.PUSH, zmq.PUB])
        steered = rng.choice([None, None, zmq.REP, zmq.PAIR])
        if monitor is None and steered is not None and "device" in host:
            monitor = zmq.PUB  # such a device has all four
        if flow == "ROUTER-ROUTER" and "device" in host:
            steered, monitor = None, monitor or zmq.PUB  # only a monitored queue swaps
        if monitor is not None:
            kinds["mon"] = monitor
        if steered is not None:
            kinds["ctrl"] = steered
        transports = HOLDING if "process" in host else ("inproc", *HOLDING)
        self.plan = Plan(
            kinds=kinds,
            transport=rng.choice(transports),
            engine=rng.choice(["cffi", *available_engines()]),  # the one that most will use
            hwm=1000 if self.is_lossless and self.flow.echoes else rng.choice([1, 5, 50, 300]),
            capture_policy=rng.choice(["block", "drop"]),
            start_method="spawn" if rng.random() < 0.1 else "fork",
            mandatory=rng.random() < 0.3,
        )
        self.title = f"{flow}, {host}"
        self._host_name = host
        self._directory = directory
        self._log: collections.deque[str] = collections.deque(maxlen=80)
        self._began = time.monotonic()
        self.context = zmq.Context()
        self.endpoints: dict[str, list[str]] = {role: [] for role in kinds}
        self.peers: list[Peer] = []
        self.mortals: list[tuple[Mortal, float]] = []
        self.requests, self.replies = Ledger("requests"), Ledger("replies")
        self.copies = Ledger("capture, in"), Ledger("capture, out")
        self.reader: Peer | None = None
        self.pilot: Peer | None = None
        self.is_paused = False
        self.paused_at: Statistics | None = None
        self.last: Statistics | None = None
        self.peers_broke = self.device_broke = 0.0
        self.deaths = 0  # peers that went
        self.copies_read = 0
        self._arrived: collections.Counter[int] = collections.Counter()  # by sender
        self._names = 0

    def __str__(self) -> str:
        plan = self.plan
        kinds = {role: zmq.SocketType(kind).name for role, kind in plan.kinds.items()}
        lines = [
            f"{self.title}, engine {plan.engine}, {plan.transport}, HWM {plan.hwm}, sockets {kinds},",
            f"capture {plan.capture_policy}, prefixes {plan.prefixes}, {plan.start_method},"
            f" mandatory {plan.mandatory}, loss {'im' if self.is_lossless else ''}possible;",
            f"statistics last seen: {self.last}",
            "the last that was done, by seconds since the beginning:",
            *self._log,
        ]
        return "\n  ".join(lines)

    def note(self, what: str) -> None:
        self._log.append(f"{time.monotonic() - self._began:7.3f} {what}")

    # From its beginning to its end

    def play(self) -> None:
        """Play it. Raise `Violation`, or what a device raised."""
        self.host: Host = HOSTS[self._host_name](self.plan, self.context)
        tally("devices")
        try:
            for role in self.plan.kinds:
                self._bind(role)
            self._start()
            until = time.monotonic() + self.seconds
            while time.monotonic() < until:
                self._act()
            self._finish()
        finally:
            self._clear()

    def _bind(self, role: str) -> None:
        bound = self.host.edit(role, "bind", self._wildcard())
        if self.host.keeps_counts:
            self.endpoints[role].append(bound)
        else:
            self._learn_endpoints()

    def _learn_endpoints(self) -> None:
        if isinstance(self.host, DeviceHost):
            self.endpoints = self.host.device.endpoints

    def _wildcard(self) -> str:
        self._names += 1
        name = f"inproc://{id(self)}-{self._names}"
        path = f"ipc://{self._directory}/{id(self)}-{self._names}"
        return {"inproc": name, "ipc": path, "tcp": "tcp://127.0.0.1:*"}[self.plan.transport]

    def _start(self) -> None:
        self.note("start")
        self.host.start()
        if not self.host.keeps_counts:
            self._learn_endpoints()
            self.last = None
            self.is_paused = False
        self.paused_at = None
        if self.reader is None and "mon" in self.plan.kinds:
            kind = zmq.PULL if self.plan.kinds["mon"] == zmq.PUSH else zmq.SUB
            self.reader = self._connect("mon", kind)
        if self.pilot is None and "ctrl" in self.plan.kinds:
            kind = zmq.REQ if self.plan.kinds["ctrl"] == zmq.REP else zmq.PAIR
            self.pilot = self._connect("ctrl", kind)
        while not (self._side("in") and self._side("out")):
            self._arrive("in")
            self._arrive("out")

    def _side(self, role: str) -> list[Peer]:
        return [peer for peer in self.peers if peer.role == role]

    def _finish(self) -> None:
        """Let everything come to its end, and take stock."""
        self._resume()
        for peer in [*self.peers, *filter(None, [self.reader])]:
            peer.stalls_until = 0.0
        for mortal, _ in self.mortals:
            mortal.kill()
            self.peers_broke = time.monotonic()
        self.mortals = []
        self.note("pump")
        if self.is_lossless:
            self._pump(lambda: not self._outstanding(), "everything that was sent")
        else:
            quiet = time.monotonic() + 0.1
            for _ in range(10_000):
                if self._receive_all():
                    quiet = time.monotonic() + 0.1
                elif time.monotonic() > quiet:
                    break
        if self.is_lossless and self.plan.kinds.get("mon") == zmq.PUSH:
            self._pump(lambda: self._audit().capture.sent == self.copies_read, "all copies")
        drain = self.rng.choice([None, 0.5])
        self.note(f"the last stop, drain {drain}")
        self._calm(self.peers_broke)
        self.host.stop(drain)
        self._audit()

    def _outstanding(self) -> str:
        """Tell what has not come yet."""
        senders = self._side("in")
        missing = {
            peer.ident: peer.sent
            - (peer.answered if self.flow.echoes else self._arrived[peer.ident])
            for peer in senders
        }
        return ", ".join(f"{n} of sender {who}" for who, n in missing.items() if n)

    def _pump(self, is_done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + DEADLINE
        while not is_done():
            if time.monotonic() > deadline:
                tally("deadlines missed")
                missing, before = self._outstanding(), self.host.statistics()
                # To ask has woken the device. Had it overslept something, that comes now.
                time.sleep(0.5)
                came = self._receive_all()
                raise Violation(
                    f"{what} has not come in {DEADLINE} s; missing: {missing};\n{before}\n"
                    f"then {came} came: {self._outstanding()};\n{self.host.statistics()}"
                )
            if not self._receive_all():
                time.sleep(0.001)

    def _clear(self) -> None:
        """Close everything, also when something has gone wrong."""
        with contextlib.suppress(Exception):
            self.host.stop()
        self.host.close()
        self.device_broke = time.monotonic()
        for mortal, _ in self.mortals:
            mortal.kill()
        self._calm(self.device_broke)
        for peer in [*self.peers, *filter(None, [self.reader, self.pilot])]:
            peer.socket.close()
        Background(self.context.term).join(DEADLINE)

    def _calm(self, broke: float) -> None:
        """Wait until both sides know of what broke; see CALM."""
        if self.plan.transport in HOLDING:
            time.sleep(max(broke + CALM - time.monotonic(), 0))

    # What happens

    def _act(self) -> None:
        """Do something."""
        rng = self.rng
        actions: list[tuple[Callable[[], Any], float]] = [
            (self._send_some, 40),
            (self._receive_some, 40),
            (self._receive_all, 10),
            (self._audit, 6),
            (self._stall, 3),
            (lambda: self._arrive(rng.choice(["in", "out"])), 2),
            (self._leave, 2),
            (self._endanger, 2),
            (self._kill, 3),
            (self._pause, 2),
            (self._resume, 3),
            (self._edit, 2),
            (self._restart, 1),
            (self._steer, 4 if self.pilot else 0),
        ]
        (action,) = rng.choices([a for a, _ in actions], [w for _, w in actions])
        if not action():
            time.sleep(0.0005)

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        socket = self.context.socket(kind)
        socket.linger = 0
        socket.hwm = max(self.plan.hwm, MAX_IN_FLIGHT)
        socket.rcvtimeo = socket.sndtimeo = int(DEADLINE * 1000)
        if kind == zmq.SUB:
            socket.subscribe(b"")
        return socket

    def _connect(self, role: str, kind: int) -> Peer:
        peer = Peer(self._socket(kind), role, self.rng.choice(self.endpoints[role]))
        if kind == zmq.DEALER:
            peer.socket.routing_id = peer.name
        peer.socket.connect(peer.endpoint)
        return peer

    def _arrive(self, role: str) -> None:
        if len(self._side(role)) < 4:
            peer = self._connect(role, self.flow.sender if role == "in" else self.flow.receiver)
            self.peers.append(peer)
            self._enter(peer)
            self.note(f"peer {peer.ident} arrives: {role}")
            tally("peers")

    def _enter(self, peer: Peer) -> None:
        for ledger in (self.requests, self.replies, *self.copies):
            ledger.sent(peer.ident, 0)

    def _leave(self, peer: Peer | None = None) -> None:
        """Have one go who may; with its messages."""
        if self.is_lossless:
            return
        if peer is None:
            peers = self._side(self.rng.choice(["in", "out"]))
            if len(peers) < 2:
                return
            peer = self.rng.choice(peers)
        role = peer.role
        self.note(f"peer {peer.ident} leaves")
        if peer.is_bound and self.plan.kinds[role] not in FETCHES_AHEAD:
            self._calm(self.peers_broke)
            self.host.edit(role, "disconnect", peer.endpoint)
            self.device_broke = time.monotonic()
        self._calm(self.device_broke)
        peer.socket.close()
        self.peers.remove(peer)
        self.deaths += 1
        self.peers_broke = time.monotonic()

    def _stall(self) -> None:
        peers = [*self._side("out"), *filter(None, [self.reader])]
        self.rng.choice(peers).stalls_until = time.monotonic() + self.rng.uniform(0.01, 0.5)
        tally("stalls")

    def _endanger(self) -> None:
        """Start a peer that is to be killed."""
        if self.plan.transport not in HOLDING or len(self.mortals) > 2:
            return
        kind = zmq.SocketType(self.flow.sender).name
        ident = next(_idents)
        for ledger in (self.requests, self.replies, *self.copies):
            ledger.sent(ident, -1)
        lives = self.rng.uniform(0.0, 0.3)
        if self.rng.random() < 0.15 and not self.flow.echoes:
            lives += 0.5  # it takes a while to begin
            if self.is_lossless or self.rng.random() < 0.5:
                mortal = zmq_peer(self.endpoints["in"][0], kind, ident, os.getpid())
            else:
                kind = zmq.SocketType(self.flow.receiver).name
                mortal = zmq_peer(self.endpoints["out"][0], kind, ident, os.getpid())
        else:
            envelope = [peer.name for peer in self._side("out")[:1]]
            if self.flow.front != zmq.ROUTER or self.flow.back != zmq.ROUTER:
                envelope = []
            mortal = raw_sender(self.rng, self.endpoints["in"][0], kind, ident, envelope)
        self.deaths += 1
        self.note(f"{mortal.name} {ident} lives for {lives:.3f} s")
        self.mortals.append((mortal, time.monotonic() + lives))

    def _kill(self) -> None:
        for doomed in list(self.mortals):
            mortal, when = doomed
            if time.monotonic() > when:
                self.note(f"kill {mortal.name}")
                mortal.kill()
                self.mortals.remove(doomed)
                self.peers_broke = time.monotonic()

    def _pause(self) -> None:
        self.note("pause")
        self.host.pause()
        self.is_paused = True
        self.paused_at = self.host.statistics()
        tally("pauses")

    def _resume(self) -> None:
        if self.is_paused:
            self.note("resume")
            self.paused_at = None
            self.host.resume()
            self.is_paused = False

    def _edit(self) -> None:
        """Change the wiring while it runs."""
        rng = self.rng
        role = rng.choice(["in", "out"])
        what = rng.choice(["bind", "connect", "unbind"])
        keeps = self.is_lossless or self.plan.kinds[role] in FETCHES_AHEAD
        if what == "bind" and len(self.endpoints[role]) < 4:
            self.note(f"bind {role}")
            self._bind(role)
        elif what == "connect" and len(self._side(role)) < 4:
            kind = self.flow.sender if role == "in" else self.flow.receiver
            peer = Peer(self._socket(kind), role, "")
            if kind == zmq.DEALER:
                peer.socket.routing_id = peer.name
            peer.socket.bind(self._wildcard())
            peer.endpoint = peer.socket.getsockopt_string(zmq.LAST_ENDPOINT)
            peer.is_bound = True
            self.note(f"connect {role} to peer {peer.ident}")
            self.host.edit(role, "connect", peer.endpoint)
            self.peers.append(peer)
            self._enter(peer)
        elif what == "unbind" and len(self.endpoints[role]) > 1 and not keeps:
            endpoint = self.endpoints[role][-1]
            self.note(f"unbind {role} {endpoint}")
            self._calm(self.peers_broke)
            self.host.edit(role, "unbind", endpoint)
            self.device_broke = time.monotonic()
            if self.host.keeps_counts:
                self.endpoints[role].remove(endpoint)
            self._learn_endpoints()
            for peer in [p for p in self.peers if p.endpoint == endpoint]:
                self._leave(peer)
            if not self._side(role):
                self._arrive(role)
        else:
            return
        tally("edits")

    def _restart(self) -> None:
        """Stop and start; a device gets new sockets, so its peers go too."""
        drain = self.rng.choice([None, None, 0.05])
        if self.host.keeps_counts:
            self.note(f"stop, drain {drain}, and start")
            self.host.stop(drain)
            self._audit(ended=drain is not None)
            if drain is not None:
                self.is_paused = False
            self._start()
        elif not self.is_lossless and self.rng.random() < 0.5:
            self._restart_device(lambda: self.host.stop(drain))
        else:
            return
        tally("restarts")

    def _restart_device(self, stop: Callable[[], None]) -> None:
        self.note("stop, and start anew")
        self._calm(self.peers_broke)
        for peer in [p for p in self.peers if p.is_bound]:
            if self.plan.kinds[peer.role] not in FETCHES_AHEAD:
                self.host.edit(peer.role, "disconnect", peer.endpoint)
        stop()
        self._audit(ended=True)
        self.device_broke = time.monotonic()
        self._calm(self.device_broke)
        for peer in [*self.peers, *filter(None, [self.reader, self.pilot])]:
            peer.socket.close()
        self.peers, self.reader, self.pilot, self.copies_read = [], None, None, 0
        for mortal, _ in self.mortals:
            mortal.kill()
        self.mortals = []
        self._start()

    # Control, by its socket

    def _steer(self) -> None:
        assert self.pilot is not None
        command = self.rng.choice(
            [b"STATISTICS", b"STATISTICS", b"PAUSE", b"RESUME", b"what?", b""]
        )
        if self.rng.random() < 0.1 and (self.host.keeps_counts or not self.is_lossless):
            command = b"TERMINATE"
        self.note(f"command {command!r}")
        tally("commands")
        before = self.host.statistics()
        if command == b"RESUME":
            self.paused_at, self.is_paused = None, False
        if command == b"PAUSE":
            self.is_paused = True
        if command == b"TERMINATE":
            if not self.host.keeps_counts:
                self._restart_device(self._terminate)
                return
            self._terminate()
            self._audit(ended=True)
            self._start()
            return
        answer = self._ask(command)
        if not answer:
            self._ask(b"STATISTICS")  # the answer to this one tells that it has been obeyed
        if command == b"STATISTICS":
            after = self.host.statistics()
            counts = [struct.unpack("=Q", frame)[0] for frame in answer]
            low, high = _as_told(before), _as_told(after)
            if not all(a <= b <= c for a, b, c in zip(low, counts, high)):
                raise Violation(f"STATISTICS said {counts}, between {low} and {high}")

    def _ask(self, command: bytes) -> list[bytes]:
        assert self.pilot is not None
        socket = self.pilot.socket
        socket.send(command)
        if socket.type == zmq.REQ or command == b"STATISTICS":
            try:
                return socket.recv_multipart()
            except zmq.Again:
                tally("deadlines missed")
                raise Violation(f"{command!r} was not answered in {DEADLINE} s") from None
        return []

    def _terminate(self) -> None:
        self._ask(b"TERMINATE")
        self.host.await_end()

    # Traffic

    def _send_some(self) -> int:
        peer = self.rng.choice(self._side("in"))
        done = 0
        for _ in range(self.rng.randrange(1, 40)):
            if self.flow.echoes and peer.sent - peer.answered >= MAX_IN_FLIGHT and self.is_lossless:
                break
            frames = make(self.rng, peer.ident, peer.sent)
            if self.flow.back == zmq.ROUTER:
                frames.insert(0, self.rng.choice(self._side("out")).name)
            if not self._send(peer, frames):
                break
            peer.sent += 1
            done += 1
            for ledger in (self.requests, self.replies, *self.copies):
                ledger.sent(peer.ident, peer.sent)
        tally("messages", done)
        return done

    def _send(self, peer: Peer, frames: list[bytes]) -> bool:
        """Send a message; False if the first frame was not taken."""
        for place, frame in enumerate(frames):
            flags = zmq.SNDMORE if place < len(frames) - 1 else 0
            try:
                peer.socket.send(frame, flags | zmq.DONTWAIT)
            except zmq.Again:
                if place == 0:
                    return False
                # The device has gone; libzmq drops the rest, once it has seen the end.
        return True

    def _receive_some(self) -> int:
        peers = [*self.peers, *filter(None, [self.reader])]
        return self._receive(self.rng.choice(peers), self.rng.randrange(1, 60))

    def _receive_all(self) -> int:
        peers = [*self.peers, *filter(None, [self.reader])]
        return sum(self._receive(peer, 1000) for peer in peers)

    def _receive(self, peer: Peer, most: int) -> int:
        """Let a peer receive, and check what it gets."""
        if peer.stalls or peer.socket.type in (zmq.PUSH, zmq.PUB):
            return 0
        done = 0
        with contextlib.suppress(zmq.Again):
            while done < most:
                frames = peer.socket.recv_multipart(zmq.DONTWAIT)
                done += 1
                if peer is self.reader:
                    self._take_copy(frames)
                elif peer.role == "out":
                    self._take_request(peer, frames)
                else:
                    self._take_reply(peer, frames)
        return done

    def _take_request(self, peer: Peer, frames: list[bytes]) -> None:
        if not self.flow.echoes:
            sender, _ = self.requests.take(peer.ident, frames, once=self.flow.back != zmq.XPUB)
            self._arrived[sender] += 1
            return
        client, *frames = frames
        self.requests.take(peer.ident, frames)
        tag = [] if self.flow.back == zmq.ROUTER else [peer.name]
        # A reply that is not taken is lost; where none may be, all are taken: few are in flight.
        if not self._send(peer, [client, *tag, *frames]) and self.is_lossless:
            raise Violation(f"worker {peer.ident} cannot send, with {MAX_IN_FLIGHT} in flight")

    def _take_reply(self, peer: Peer, frames: list[bytes]) -> None:
        worker, *frames = frames
        sender, _ = self.replies.take((peer.ident, worker), frames)
        if sender != peer.ident:
            raise Violation(f"client {peer.ident} got what was for {sender}")
        peer.answered += 1

    def _take_copy(self, frames: list[bytes]) -> None:
        self.copies_read += 1
        way = None
        if self.plan.prefixes[0] is not None:
            if frames[0] not in self.plan.prefixes:
                raise Violation(f"a copy begins with {frames[0]!r}, no prefix")
            way = self.plan.prefixes.index(frames[0])
            frames = frames[1:]
        if self.flow.back == zmq.XPUB and len(frames) == 1 and len(frames[0]) < HEADER.size:
            return  # a subscription
        envelope = next((p for p, frame in enumerate(frames) if len(frame) == HEADER.size), -1)
        if way is not None and envelope != self.flow.envelopes[way]:
            raise Violation(
                f"a copy of direction {way} has {envelope} frames in front of its header:"
                f" {[len(frame) for frame in frames[:20]]}"
            )
        if way is not None and envelope >= 0:
            tag = frames[envelope - 1] if envelope and way else b""
            self.copies[way].take(("copies", tag), frames[envelope:], once=False)

    # What must hold

    def _audit(self, ended: bool = False) -> Statistics:
        """Check what the device counts."""
        now = self.host.statistics()
        there, back, capture = now
        for way in (there, back):
            lost = way.dropped + way.unroutable + way.overflowed
            rest = way.messages_sent + lost + way.parked
            if way.messages_received != rest or way.parked not in (0, 1):
                raise Violation(
                    f"{way.messages_received} received, but {rest} accounted for: {now}"
                )
            if way.dropped > self.deaths:  # each may have been in the midst of a message
                raise Violation(f"{way.dropped} dropped, when {self.deaths} peers died: {now}")
            if way.frames_sent > way.frames_received or way.bytes_sent > way.bytes_received:
                raise Violation(f"more sent than received: {now}")
        copies = (
            sum(capture) if "mon" in self.plan.kinds else there.messages_sent + back.messages_sent
        )
        if copies != there.messages_sent + back.messages_sent:
            raise Violation(f"{copies} copies of {there.messages_sent + back.messages_sent}: {now}")
        if self.last is not None:
            old: Any
            for old, new in zip(self.last, now):
                for field, before, after in zip(old._fields, old, new):
                    if after < before and field != "parked":
                        raise Violation(f"{field} went from {before} to {after}")
        if self.paused_at is not None and not ended:
            taken = [way.messages_received for way in now[:2]]
            if taken != [way.messages_received for way in self.paused_at[:2]]:
                raise Violation(f"received in a pause: {self.paused_at}, then {now}")
        self.last = now
        tally("audits")
        return now


def _as_told(stats: Statistics) -> list[int]:
    """Return the counts in STATISTICS's order."""
    there, back, _ = stats
    return [
        *(there.frames_received, there.bytes_received, back.frames_sent, back.bytes_sent),
        *(back.frames_received, back.bytes_received, there.frames_sent, there.bytes_sent),
    ]
