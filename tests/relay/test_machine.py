"""A relay under everything that can be done to it, in any order, against the model.

Two state machines drive a real relay: one takes it step by step in this thread, and the model
follows each step exactly; the other lets it run in the background, and waits for what must come.
"""

from __future__ import annotations

import struct
import threading
from typing import Any

import hypothesis.strategies as st
import zmq
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import zdev
from zdev.testing import Inbox, prefixes
from zdev.testing.harness import as_bytes
from zdev.testing.model import Device, Direction, Fate, Type
from zdev.testing.strategies import content, sizes

from ..fuzzing import bursts, examples
from ..support import DEADLINE, Background, Network, wait_until

Frames = list[bytes]

PEER, STRANGER = b"peer", b"stranger"

SIDES = st.sampled_from(["frontend", "backend"])
TARGETS = st.sampled_from([PEER, PEER, PEER, STRANGER, b""])
MESSAGES = st.lists(sizes(), min_size=1, max_size=8)
OTHER = {"frontend": "backend", "backend": "frontend"}

# The control sockets, and their peers.
CONTROLS = {
    Type.PAIR: Type.PAIR,
    Type.PULL: Type.PUSH,
    Type.REP: Type.DEALER,
    Type.ROUTER: Type.DEALER,
    Type.DEALER: Type.DEALER,
}
COMMANDS = st.sampled_from(
    [
        [b"STATISTICS"],
        [b"PAUSE"],
        [b"RESUME"],
        [b"TERMINATE"],
        [b"STATISTICS", b"and", b"more"],
        [b"", b"STATISTICS"],
        [b"nonsense"],
        [b""],
    ]
)


class Stage(RuleBasedStateMachine):
    """A relay with a peer at each end, one at its capture and one at its control socket."""

    policies: list[str | None] = [None, "block", "drop"]
    overflows: list[Any] = ["park", "drop"]

    def __init__(self) -> None:
        super().__init__()
        self.net = Network()

    @initialize(
        kind=st.sampled_from([Type.PAIR, Type.DEALER, Type.ROUTER]),
        hwm=st.sampled_from([1, 2, 3, 0]),
        burst=bursts(),
        policy=st.data(),
        overflow=st.data(),
        control=st.sampled_from(sorted(CONTROLS)),
        in_prefix=prefixes(),
        out_prefix=prefixes(),
    )
    def build(
        self,
        kind: Type,
        hwm: int,
        burst: int,
        policy: Any,
        overflow: Any,
        control: Type,
        in_prefix: bytes | str | None,
        out_prefix: bytes | str | None,
    ) -> None:
        self.kind, self.hwm, self.burst, self.control = kind, hwm, burst, control
        self.policy = policy.draw(st.sampled_from(self.policies), label="policy")
        overflow = overflow.draw(st.sampled_from(self.overflows), label="overflow")
        peer = Type.DEALER if kind == Type.ROUTER else kind
        kinds = {"frontend": (kind, peer), "backend": (kind, peer)}
        kinds["control"] = (control, CONTROLS[control])
        settings: dict[str, Any] = {}
        if self.policy:
            kinds["capture"] = (Type.PUSH, Type.PULL)
            settings.update(in_prefix=in_prefix, out_prefix=out_prefix, capture_policy=self.policy)
        ends: dict[str, Any] = {}
        self.peers: dict[str, Any] = {}
        for role, (own, other) in kinds.items():
            limit = 0 if role == "control" else hwm
            ends[role] = self.net.bound(own, hwm=limit)
            if role != "control" and own == Type.ROUTER:
                ends[role].router_mandatory = 1  # without it, it drops for a full peer
            self.peers[role] = self.net.socket(other, hwm=limit)
            if other == Type.DEALER:
                self.peers[role].routing_id = PEER
            self.peers[role].connect(ends[role].last_endpoint.decode())
            ends[role].getsockopt(zmq.EVENTS)  # now it has heard of its peer
        self.control_end = ends["control"]
        self.relay = zdev.Relay(**ends, burst=burst, overflow=overflow, **settings)
        self.device = Device(kind, kind, swap=kind == Type.ROUTER)
        self.ways = {"frontend": self.device.there, "backend": self.device.back}
        self.prefixes = {"frontend": as_bytes(in_prefix), "backend": as_bytes(out_prefix)}
        self.number = 0
        self.unread: dict[str, list[Frames]] = {"frontend": [], "backend": []}
        """What each peer has yet to receive."""
        self.copies = Inbox("the capture", gaps=True)
        """The capture messages of what each side sent; each side's are in order."""

    def teardown(self) -> None:
        self.net.close()

    def offer(self, side: str, sizes: list[int], to: bytes) -> None:
        """Let a peer send a message, if its queue has room."""
        frames = content(self.number, sizes)
        if self.kind == Type.ROUTER:
            frames = [to, *frames]
        try:
            self.peers[side].send_multipart(frames, zmq.DONTWAIT)
        except zmq.Again:
            assert self.hwm > 0
            return
        self.number += 1
        fate = None
        if self.kind == Type.ROUTER:
            frames = [PEER, *frames]
            fate = Fate.UNROUTABLE if to == STRANGER else None
        self.ways[side].arrive(frames, fate)

    def accept(self, side: str) -> None:
        """What came from that side was sent on."""
        way = self.ways[side]
        way.accept()
        frames = way.sent[-1]
        if self.policy:
            prefix = self.prefixes[side]
            self.copies.expect(side, frames if prefix is None else [prefix, *frames])
        if self.kind == Type.ROUTER:
            frames = frames[1:]
        self.unread[OTHER[side]].append(frames)

    def receive_copies(self) -> None:
        """Receive what the capture has."""
        while self.policy and self.peers["capture"].poll(0):
            self.copies.receive(self.peers["capture"].recv_multipart())

    def sent_on(self) -> int:
        """Count what the capture was to get."""
        return sum(map(len, self.copies.expected.values()))

    def tell(self, command: Frames) -> None:
        """Send a command."""
        envelope = [b""] if self.control == Type.REP else []
        self.peers["control"].send_multipart(envelope + command, zmq.DONTWAIT)

    def answer_to(self, command: Frames) -> Frames | None:
        """Let the model obey a command, and return what the sender gets for it."""
        envelope = [PEER] if self.control == Type.ROUTER else []
        answer = self.device.command(self.control, envelope + command)
        if answer is None:
            return None
        if self.control == Type.REP:
            return [b"", *answer]
        return answer[len(envelope) :]


class SteppedRelay(Stage):
    """After each step, the model is told how many messages were taken, and checks the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.commands: list[Frames] = []
        self.answers: list[Frames] = []
        self.stopping = False

    @rule(side=SIDES, messages=MESSAGES, to=TARGETS)
    def send(self, side: str, messages: list[list[int]], to: bytes) -> None:
        for message in messages:
            self.offer(side, message, to)

    @rule(side=SIDES, limit=st.integers(1, 4))
    def receive(self, side: str, limit: int) -> None:
        """A peer receives what was sent on, and nothing else."""
        for frames in self.unread[side][:limit]:
            assert self.peers[side].recv_multipart(zmq.DONTWAIT) == frames
        self.unread[side] = self.unread[side][limit:]
        if not self.unread[side]:
            assert not self.peers[side].poll(0)

    @rule()
    def watch(self) -> None:
        self.receive_copies()
        assert len(self.copies.received) == self.relay.statistics().capture.sent

    @rule(times=st.integers(1, 3))
    def step(self, times: int) -> None:
        for _ in range(times):
            self.advance()

    def advance(self) -> int | None:
        """Do a step, and let the model follow."""
        stopping, paused = self.stopping, self.device.paused
        before = self.relay.statistics()
        moved = self.relay.step()
        after = self.relay.statistics()
        for side, way, counted in zip(self.ways, self.ways.values(), after):
            self.follow(side, way, counted, 0 if stopping or paused else self.burst)
        if paused and not stopping:
            assert after == before
        assert sum(after.capture) == self.sent_on()
        assert not (self.policy == "block" and after.capture.dropped)
        assert not (self.policy == "drop" and after.capture.parked)
        if stopping:
            self.stopping = False
            assert moved is None
            return moved
        served = bool(self.commands)
        self.obey()
        if self.device.terminated:
            self.device.terminated = False
            assert moved is None
        else:
            assert moved is not None
            assert bool(moved) == (after != before or served), (moved, before, after)
        if moved == 0 and not self.device.paused:
            self.check_stuck(after)
        return moved

    def follow(self, side: str, way: Direction, counted: Any, limit: int) -> None:
        """Let the model take as many messages as the relay did."""
        taken = counted.messages_received - way.messages_received
        assert 0 <= taken <= min(limit, len(way.source))
        overflowed = counted.overflowed - way.overflowed
        if way.parked and (taken or not counted.parked):
            self.accept(side)
        for left in range(taken, 0, -1):
            way.take()
            if way.parked and way.messages_sent == counted.messages_sent and overflowed:
                assert self.unread[OTHER[side]], "it was refused, so there is a queue"
                way.lose(Fate.OVERFLOWED)
            elif way.parked and (left > 1 or not counted.parked):
                self.accept(side)
        assert counted == way.statistics()

    def obey(self) -> None:
        """Let the model serve the control socket as far as the relay did."""
        while self.commands and not self.device.terminated:
            answer = self.answer_to(self.commands.pop(0))
            if answer is not None:
                self.answers.append(answer)

    def check_stuck(self, statistics: zdev.Statistics) -> None:
        """Nothing moved: there must be a reason."""
        copies = statistics.capture.parked
        for side, way in self.ways.items():
            assert not way.source or way.parked or copies
            assert not way.parked or self.unread[OTHER[side]], "it was refused, so there is a queue"
        assert not copies or len(self.copies.received) < statistics.capture.sent

    @rule()
    def drain(self) -> None:
        """Peers that go on receiving get everything."""
        if self.device.paused:
            self.resume()
        while self.advance() != 0 or any(self.unread.values()) or self.left():
            for side in OTHER:
                self.receive(side, len(self.unread[side]))
            self.receive_copies()
            if self.device.paused:
                self.resume()
        self.watch()
        assert not any(self.relay.statistics().capture[1:]) or self.policy == "drop"

    def left(self) -> bool:
        return any(way.source or way.parked for way in self.ways.values())

    @precondition(lambda self: len(self.commands) < 10)
    @rule(command=COMMANDS)
    def command(self, command: Frames) -> None:
        self.tell(command)
        self.commands.append(command)

    @rule()
    def hear(self) -> None:
        """The control socket's peer gets its answers, and no others."""
        if self.control == Type.PULL:
            return
        peer = self.peers["control"]
        for answer in self.answers:
            assert peer.recv_multipart(zmq.DONTWAIT) == answer
        assert not peer.poll(0)
        self.answers = []

    @rule(action=st.sampled_from(["pause", "resume", "stop", "call"]))
    def act(self, action: str) -> None:
        getattr(self, action)()

    def pause(self) -> None:
        self.relay.pause()
        self.device.paused = True

    def resume(self) -> None:
        self.relay.resume()
        self.device.paused = False

    def stop(self) -> None:
        self.relay.stop()
        self.stopping = True

    def call(self) -> None:
        assert self.relay.call(threading.get_ident) == threading.get_ident()

    @invariant()
    def told_the_truth(self) -> None:
        if hasattr(self, "relay"):
            assert self.relay.paused == self.device.paused
            assert self.relay.statistics()[:2] == self.device.statistics()[:2]


def test_stepped(engine: str) -> None:
    run_state_machine_as_test(SteppedRelay, settings=examples(20))


class RunningRelay(Stage):
    """The relay runs in the background, off and on; what must come is waited for."""

    policies = [None, "drop"]  # a full capture that blocks would make it wait for ever
    overflows = ["park"]  # else what comes depends on when

    def __init__(self) -> None:
        super().__init__()
        self.background: Background | None = None

    def teardown(self) -> None:
        if self.background:
            self.relay.stop()
            self.background.join()
        super().teardown()

    def flowing(self) -> bool:
        return self.background is not None and not self.device.paused

    def flow(self) -> None:
        """Let everything move in the model. What the relay has moved by now, it does not say."""
        for side, way in self.ways.items():
            while way.source:
                way.take()
                if way.parked:
                    self.accept(side)

    @rule()
    def start(self) -> None:
        if self.background is None:
            self.background = Background(self.relay.run)
            thread = self.background.thread.ident
            # Until it runs, calls run in this one.
            wait_until(lambda: self.relay.call(threading.get_ident) == thread)

    @precondition(lambda self: self.background)
    @rule()
    def stop(self) -> None:
        self.relay.stop()
        self.ended()

    def ended(self) -> None:
        assert self.background
        self.background.join()
        self.background = None

    @rule(side=SIDES, messages=MESSAGES, to=TARGETS)
    def send(self, side: str, messages: list[list[int]], to: bytes) -> None:
        for message in messages:
            self.offer(side, message, to)
        self.flow()

    @rule(side=SIDES)
    def receive(self, side: str) -> None:
        """The next message comes, sooner or later if the relay runs, and none but that."""
        peer = self.peers[side]
        if self.unread[side]:
            if self.flowing() or peer.poll(0):
                assert peer.recv_multipart() == self.unread[side].pop(0)
        else:
            assert not peer.poll(0)

    @rule()
    def watch(self) -> None:
        self.receive_copies()

    @rule(sizes=sizes())
    def pause(self, sizes: list[int]) -> None:
        """Once `pause` has returned, nothing moves."""
        self.relay.pause()
        self.device.paused = True
        before = self.relay.statistics()
        for side in OTHER:
            self.offer(side, sizes, PEER)
        self.flow()
        assert self.relay.paused
        assert self.relay.statistics() == before

    @rule()
    def resume(self) -> None:
        self.relay.resume()
        self.device.paused = False

    @rule()
    def call(self) -> None:
        """A call runs on the relay's own thread."""
        runner = self.background.thread if self.background else threading.current_thread()
        assert self.relay.call(threading.get_ident, DEADLINE) == runner.ident

    @rule()
    def count(self) -> None:
        """At any time, each message is in one place."""
        statistics = self.relay.statistics()
        for way, counted in zip(self.ways.values(), statistics):
            gone = counted.dropped + counted.unroutable + counted.overflowed
            assert counted.messages_received == counted.messages_sent + gone + counted.parked
            assert counted.messages_received <= way.messages_received
        assert sum(statistics.capture) <= self.sent_on()

    @precondition(lambda self: self.background)
    @rule(command=COMMANDS)
    def command(self, command: Frames) -> None:
        """A command is obeyed at once, whatever the traffic waits for."""
        before = self.relay.statistics()
        self.tell(command)
        answer = self.answer_to(command)
        if answer is not None:
            heard = self.peers["control"].recv_multipart()
            assert [*map(len, heard)] == [*map(len, answer)]
            if len(heard) >= 8:
                self.check_counts(before, heard[-8:])
            else:
                assert heard == answer
        if self.device.terminated:
            self.device.terminated = False
            self.ended()
        # Also what changes nothing and has no answer: heard later, it would undo a pause().
        if self.background:
            wait_until(lambda: not self.relay.call(lambda: self.control_end.poll(0)))
        assert self.relay.paused == self.device.paused

    def check_counts(self, before: zdev.Statistics, heard: Frames) -> None:
        """The eight counts are of a moment between two snapshots."""
        after = self.relay.statistics()
        counts = struct.unpack("=8Q", b"".join(heard))
        for low, count, high in zip(eight(before), counts, eight(after)):
            assert low <= count <= high

    @precondition(flowing)
    @rule()
    def quiesce(self) -> None:
        """Peers that go on receiving get everything."""
        for side in OTHER:
            while self.unread[side]:
                self.receive(side)
            assert not self.peers[side].poll(0)
        traffic = self.device.statistics()[:2]
        wait_until(lambda: self.relay.statistics()[:2] == traffic)
        assert sum(self.relay.statistics().capture) == self.sent_on()
        self.receive_copies()
        assert len(self.copies.received) == self.relay.statistics().capture.sent


def eight(statistics: zdev.Statistics) -> list[int]:
    """Return what STATISTICS answers."""
    there, back, _ = statistics
    return [
        *(there.frames_received, there.bytes_received, back.frames_sent, back.bytes_sent),
        *(back.frames_received, back.bytes_received, there.frames_sent, there.bytes_sent),
    ]


def test_running(engine: str) -> None:
    run_state_machine_as_test(RunningRelay, settings=examples(12))
