"""What a device does, said without a socket: what tests compare a real device with.

Written from libzmq's manual pages and from what README promises, not from the loops; it imports
neither zmq nor zdev. A `Device` holds the messages that wait at its sources, that it has parked,
that it has sent on and that its capture socket got, and counts them as `zdev.Statistics` does.

How much moves when is the loop's affair, so a test says so: step by step (`take`, `accept`, ...)
where it can see it, or with `flow`, where everything that can move has moved.
"""

from __future__ import annotations

import enum
import struct
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

Frames = Sequence[bytes]


class Type(enum.IntEnum):
    """Socket types, numbered as in libzmq."""

    PAIR = 0
    PUB = 1
    SUB = 2
    REQ = 3
    REP = 4
    DEALER = 5
    ROUTER = 6
    PULL = 7
    PUSH = 8
    XPUB = 9
    XSUB = 10
    STREAM = 11


CANNOT_SEND = {Type.SUB, Type.PULL}
CANNOT_RECEIVE = {Type.PUB, Type.PUSH}

MAX_SUBSCRIPTION = 2048  # bytes of a topic that do not harm an XSUB
SUBSCRIPTIONS = (b"\0", b"\1", b"\6CANCEL", b"\11SUBSCRIBE")


class Fate(enum.Enum):
    """What becomes of a message that a device took; the value is the field that counts it."""

    SENT = "messages_sent"
    DROPPED = "dropped"
    UNROUTABLE = "unroutable"
    OVERFLOWED = "overflowed"


def ordered(frames: Frames, swap: bool) -> list[bytes]:
    """Return the frames as they are sent on: `[from, to, ...]` becomes `[to, from, ...]`."""
    return [frames[1], frames[0], *frames[2:]] if swap else list(frames)


def harmful(frames: Frames, only_first: bool) -> bool:
    """Say whether an XSUB would take one of these frames for a subscription to too long a topic.

    With ZMQ_ONLY_FIRST_SUBSCRIBE, frames behind a first one that subscribes to nothing do not.
    """
    if only_first and not frames[0].startswith(SUBSCRIPTIONS):
        return False
    return any(
        len(frame) > 1 + MAX_SUBSCRIPTION and frame.startswith(SUBSCRIPTIONS) for frame in frames
    )


def fate(frames: Frames, destination: Type, swap: bool, only_first: bool = False) -> Fate:
    """Say what becomes of a message whose destination takes all that its type can."""
    if destination in CANNOT_SEND:
        return Fate.DROPPED
    if swap and len(frames) < 2:
        return Fate.UNROUTABLE  # there is no `to`
    address, *body = ordered(frames, swap)
    if destination == Type.ROUTER and not (address and body):
        return Fate.UNROUTABLE
    if destination == Type.STREAM and not (address and len(body) == 1):
        return Fate.UNROUTABLE
    if destination == Type.XSUB and harmful(ordered(frames, swap), only_first):
        return Fate.DROPPED
    return Fate.SENT


class Peers:
    """Those behind a socket: how many messages they take until they are full; None: no limit."""

    def __init__(self, room: int | None = None) -> None:
        self.room = room

    @property
    def full(self) -> bool:
        """Whether they take no more."""
        return self.room == 0

    def take(self) -> None:
        """Take a message."""
        if self.room is not None:
            self.room -= 1

    def make_room(self, messages: int) -> None:
        """Take so many more."""
        assert self.room is not None
        self.room += messages


class Turns:
    """Whose turn it is at a REP: asked, it must reply before it takes another request."""

    def __init__(self) -> None:
        self.asked = False


class Message(NamedTuple):
    """A message at a source, and what the test makes happen to it."""

    frames: tuple[bytes, ...]
    fate: Fate | None  # instead of what its destination would do
    captured: bool  # whether the capture socket gets its copy


class Direction:
    """One way through the device."""

    def __init__(
        self,
        source: Type,
        destination: Type,
        *,
        prefix: bytes | None = None,
        swap: bool = False,
        drop: bool = False,
        only_first: bool = False,
        capture: Peers | None = None,
        capture_drop: bool = False,
    ) -> None:
        self.possible = source not in CANNOT_RECEIVE
        self.destination = destination
        self.source_turns: Turns | None = None
        self.destination_turns: Turns | None = None
        self.way_back: Direction = self
        self.peers = Peers()
        self.prefix = prefix
        self.swap = swap
        self.drop = drop  # what full peers do not take
        self.only_first = only_first  # ZMQ_ONLY_FIRST_SUBSCRIBE
        self.capture = capture
        self.capture_drop = capture_drop
        self.source: deque[Message] = deque()  # sent to the device, not yet taken
        self.parked: Message | None = None  # taken, not yet accepted by the destination
        self.copy: Message | None = None  # accepted; its copy is not yet with the capture
        self.sent: list[list[bytes]] = []  # as sent on; to a REP also replies of the device's own
        self.captured: list[list[bytes]] = []
        self.copies_dropped = 0
        self.messages_received = self.frames_received = self.bytes_received = 0
        self.messages_sent = self.frames_sent = self.bytes_sent = 0
        self.dropped = self.unroutable = self.overflowed = 0

    def arrive(self, frames: Frames, fate: Fate | None = None, captured: bool = True) -> None:
        """Let a peer send the device a message."""
        self.source.append(Message(tuple(frames), fate, captured))

    def take(self) -> None:
        """Let the device take a message, and park it unless no peer could ever get it."""
        assert self.possible
        assert self.parked is None
        assert self.copy is None
        message = self.source.popleft()
        if self.source_turns:
            assert not self.source_turns.asked
            self.source_turns.asked = True
        self.messages_received += 1
        self.frames_received += len(message.frames)
        self.bytes_received += sum(map(len, message.frames))
        self.parked = message
        sure = message.fate or fate(message.frames, self.destination, self.swap, self.only_first)
        if sure is not Fate.SENT:
            self.lose(sure)

    def lose(self, fate: Fate) -> None:
        """Let what is parked go nowhere."""
        assert self.parked is not None
        self.parked = None
        setattr(self, fate.value, getattr(self, fate.value) + 1)
        if self.source_turns:
            self.source_turns.asked = False
            self.way_back.sent.append([b""])

    def accept(self) -> None:
        """Let the destination accept what is parked, unless nobody asked for it."""
        if self.destination_turns:
            if not self.destination_turns.asked:
                self.lose(Fate.UNROUTABLE)
                return
            self.destination_turns.asked = False
        message, self.parked = self.parked, None
        assert message is not None
        self.peers.take()
        self.sent.append(ordered(message.frames, self.swap))
        self.messages_sent += 1
        self.frames_sent += len(message.frames)
        self.bytes_sent += sum(map(len, message.frames))
        if self.capture:
            self.copy = message

    def copied(self) -> None:
        """Let the capture socket accept the copy, or drop it."""
        message, self.copy = self.copy, None
        assert message is not None
        assert self.capture is not None
        if message.captured and not self.capture.full:
            self.capture.take()
            prefix = [] if self.prefix is None else [self.prefix]
            self.captured.append(prefix + ordered(message.frames, self.swap))
        else:
            self.copies_dropped += 1

    def flow(self) -> None:
        """Let everything move that can."""
        while True:
            if self.copy:
                assert self.capture is not None
                if self.capture.full and not self.capture_drop:
                    return
                self.copied()
            elif self.parked:
                if not self.peers.full:
                    self.accept()
                elif self.drop:
                    self.lose(Fate.OVERFLOWED)
                else:
                    return
            elif self.source and self.possible:
                if self.source_turns and self.source_turns.asked:
                    return
                self.take()
            else:
                return

    def statistics(self) -> tuple[int, ...]:
        """Return what zdev.DirectionStatistics says."""
        return (
            self.messages_received,
            self.frames_received,
            self.bytes_received,
            self.messages_sent,
            self.frames_sent,
            self.bytes_sent,
            self.dropped,
            self.unroutable,
            self.overflowed,
            int(self.parked is not None),
        )


class Device:
    """Two directions and one control state."""

    def __init__(
        self,
        frontend: Type,
        backend: Type,
        *,
        capture: bool = False,
        capture_drop: bool = False,
        in_prefix: bytes | None = None,
        out_prefix: bytes | None = None,
        swap: bool = False,
        in_drop: bool = False,
        out_drop: bool = False,
        only_first: bool = False,
        single: bool = False,  # one socket as both ends
    ) -> None:
        self.capture = Peers() if capture else None
        both: Any = {
            "swap": swap,
            "only_first": only_first,
            "capture": self.capture,
            "capture_drop": capture_drop,
        }
        self.there = Direction(frontend, backend, prefix=in_prefix, drop=in_drop, **both)
        self.back = Direction(backend, frontend, prefix=out_prefix, drop=out_drop, **both)
        self.back.possible &= not single
        for way, back in ((self.there, self.back), (self.back, self.there)):
            way.way_back = way if single else back
        for kind, way in ((frontend, self.there), (backend, self.back)):
            if kind == Type.REP:
                way.source_turns = way.way_back.destination_turns = Turns()
        self.paused = False
        self.terminated = False

    def flow(self) -> None:
        """Let everything move that can, one direction after the other."""
        if not (self.paused or self.terminated):
            self.there.flow()
            self.back.flow()

    def statistics(self) -> tuple[Any, ...]:
        """Return what zdev.Statistics says."""
        ways = (self.there, self.back)
        capture = (
            sum(len(way.captured) for way in ways),
            sum(way.copies_dropped for way in ways),
            sum(way.copy is not None for way in ways),
        )
        return (self.there.statistics(), self.back.statistics(), capture)

    def command(self, control: Type, message: Frames) -> list[bytes] | None:
        """Obey what the control socket received, and return the answer, if there is one.

        As zmq_proxy_steerable(3) says; beyond it: only the first frame counts, behind the envelope
        of ROUTER and DEALER, and whoever is bound to wait for an answer (REP's peer, a REQ behind
        a ROUTER) gets one also for an unknown command.
        """
        frames = list(message)
        envelope = [frames.pop(0)] if control == Type.ROUTER else []
        owed = control == Type.REP
        if control in (Type.ROUTER, Type.DEALER) and len(frames) > 1 and frames[0] == b"":
            envelope.append(frames.pop(0))
            owed = True
        command = frames[0] if frames else None
        if command == b"STATISTICS" and control not in CANNOT_SEND:
            return envelope + self.eight_counts()
        if command == b"PAUSE":
            self.paused = True
        elif command == b"RESUME":
            self.paused = False
        elif command == b"TERMINATE":
            self.terminated = True
        return [*envelope, b""] if owed else None

    def eight_counts(self) -> list[bytes]:
        """Return STATISTICS: received and sent by the frontend, then by the backend."""
        there, back = self.there, self.back
        return [
            struct.pack("=Q", count)
            for count in (
                *(there.frames_received, there.bytes_received),
                *(back.frames_sent, back.bytes_sent),
                *(back.frames_received, back.bytes_received),
                *(there.frames_sent, there.bytes_sent),
            )
        ]
