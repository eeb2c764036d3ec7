"""Sockets in memory, which do what libzmq's do, the awkward parts above all.

A peer never touches a socket: it posts a command, which takes effect when the socket processes it.
ZMQ_FD is readable while commands wait, and whatever processes them takes that away: a receive that
finds nothing, a look at ZMQ_EVENTS, and now and then a send (libzmq throttles it; here `throttled`
says whether sends do it never or always). A message that comes before its reader has found the pipe
empty posts no command at all.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Callable

import zmq

from zdev._contract import End
from zdev.testing.model import CANNOT_RECEIVE, CANNOT_SEND, Type

EAGAIN, EINTR, ENOMEM, EHOSTUNREACH = errno.EAGAIN, errno.EINTR, errno.ENOMEM, errno.EHOSTUNREACH
EFSM, ETERM, ENOTSOCK = int(zmq.EFSM), int(zmq.ETERM), errno.ENOTSOCK

POLLIN, POLLOUT = 1, 2

# Types that lose a message rather than refuse it, and types whose first frame is an address.
LOSSY = {Type.ROUTER, Type.REP, Type.PUB, Type.XPUB, Type.XSUB}
ADDRESSED = {Type.ROUTER, Type.STREAM}
# Types that receive and send by turns.
TURNS = {Type.REP, Type.REQ}


def errno_name(number: int) -> str:
    """Return the name of an error number."""
    names = {EFSM: "EFSM", ETERM: "ETERM", **errno.errorcode}
    return names.get(number, str(number))


class Failure(Exception):
    """A call fails with this error number."""

    def __init__(self, number: int) -> None:
        super().__init__(errno_name(number))
        self.number = number


class Violation(Exception):
    """The loop did what it must never do."""


class World:
    """What the sockets of one schedule share."""

    def __init__(self, throttled: bool) -> None:
        self.throttled = throttled
        self.sockets: dict[int, Socket] = {}
        self.script: deque[Callable[[], None]] = deque()
        """What happens while the loop blocks."""
        self.terminated = False
        """Whether the context was terminated: every call on a socket gives ETERM."""
        self.sending_more = False
        """Whether the frame being sent has SNDMORE."""


class Incoming:
    """A message on its way into the device."""

    def __init__(self, frames: Iterable[bytes]) -> None:
        self.left = deque(frames)


class Socket:
    """A socket of the device. Peers use `deliver` and `make_room`, and see what `arrived`.

    Parameters
    ----------
    room
        How many messages it takes until its peers are full; None for no limit.
    peers
        For a ROUTER or STREAM, the routing ids that exist; None for every one.
    mandatory
        ZMQ_ROUTER_MANDATORY, or for XPUB and PUB ZMQ_XPUB_NODROP.
    """

    def __init__(
        self,
        world: World,
        kind: Type,
        name: str,
        *,
        room: int | None = None,
        peers: set[bytes] | None = None,
        mandatory: bool = False,
    ) -> None:
        number = len(world.sockets) + 1
        self.handle = number * 0x1000
        self.fd = 1000 + number
        self.kind = kind
        self.name = name
        self.arrived: list[list[bytes]] = []
        self.closed = False
        self.told = False  # that the context was terminated
        self._world = world
        self._room = room
        self._peers = peers
        self._mandatory = mandatory or kind == Type.STREAM
        self._commands: deque[Callable[[], None]] = deque()
        self._inbox: deque[Incoming] = deque()
        self._awake = True  # has not found the inbox empty since the last command
        self._late = False  # what is in the inbox is still on its way
        self._full = False  # whatever the room
        self._reading = False  # in the middle of a message
        self._partial: list[bytes] = []  # the beginning of a message
        self._dropping = False  # swallowing the rest of a message whose peer is gone
        self._answering = False  # REP: a request was received; REQ: one was sent

    @property
    def end(self) -> End:
        """What a loop is told of it."""
        return End(None, self.handle, int(self.kind), self.fd)  # type: ignore[arg-type]

    # What peers do

    def deliver(self, frames: Iterable[bytes]) -> None:
        """Let a peer send a message."""
        self._inbox.append(Incoming(frames))
        if not self._awake:
            self._commands.append(self._wake)

    def make_room(self, messages: int = 1) -> None:
        """Let a peer receive messages."""

        def add() -> None:
            assert self._room is not None
            self._room += messages

        self._commands.append(add)

    # What is true of it, whether or not it has processed its commands

    @property
    def signalled(self) -> bool:
        """Whether its ZMQ_FD is readable."""
        return bool(self._commands) or (self._world.terminated and not self.told)

    @property
    def left(self) -> int:
        """How many messages are not or not wholly received."""
        return len(self._inbox)

    def readable(self) -> bool:
        """Tell whether a receive would succeed."""
        return bool(self._inbox) and not self._late and self._may_receive()

    def writable(self) -> bool:
        """Tell whether a message would be accepted."""
        refuses = self._room == 0 and (self._mandatory or self.kind not in LOSSY)
        return not (self._full or refuses) and self._may_send()

    @property
    def mid_message(self) -> bool:
        """Whether a message has begun to be sent and has not ended."""
        return bool(self._partial)

    def _may_receive(self) -> bool:
        return self._answering == (self.kind == Type.REQ) or self.kind not in TURNS

    def _may_send(self) -> bool:
        return self._answering == (self.kind == Type.REP) or self.kind not in TURNS

    # What libzmq does

    def _wake(self) -> None:
        self._awake = True

    def _process_commands(self) -> None:
        while self._commands:
            self._commands.popleft()()

    def _has_message(self) -> bool:
        if not self._may_receive():
            return False
        if not self.readable():
            self._awake = False
        return self._awake

    def receive(self) -> tuple[bytes, Incoming]:
        """zmq_msg_recv(3)."""
        if self.kind in CANNOT_RECEIVE:
            raise Violation(f"receive on {self.name}, whose type cannot")
        if not self._may_receive():
            raise Failure(EFSM)
        if not self._has_message():
            self._process_commands()
            if not self._has_message():
                raise Failure(EAGAIN)
        incoming = self._inbox[0]
        frame = incoming.left.popleft()
        self._reading = bool(incoming.left)
        if not self._reading:
            self._inbox.popleft()
            if self.kind in TURNS:
                self._answering = self.kind == Type.REP
        return frame, incoming

    def send(self, frame: bytes, more: bool) -> None:
        """zmq_msg_send(3)."""
        if self.kind in CANNOT_SEND:
            raise Violation(f"send on {self.name}, whose type cannot")
        if not self._world.throttled:
            self._process_commands()
        if self._dropping:
            self._dropping = more
            return
        if not self._partial:
            self._begin(frame)
            if not more and self.kind in ADDRESSED:
                return  # an address and nothing to send there
        self._partial.append(frame)
        if not more or (self.kind == Type.STREAM and len(self._partial) == 2):
            message, self._partial = self._partial, []
            if self._room != 0:
                self.arrived.append(message)
                if self._room is not None:
                    self._room -= 1
            if self.kind in TURNS:
                self._answering = self.kind == Type.REQ

    def _knows(self, peer: bytes) -> bool:
        return self._peers is None or peer in self._peers

    def _begin(self, frame: bytes) -> None:
        """Refuse a message, by its first frame."""
        if not self._may_send():
            raise Failure(EFSM)
        if self._mandatory and not self._knows(frame):
            raise Failure(EHOSTUNREACH)
        if not self.writable():
            raise Failure(EAGAIN)

    def events(self) -> int:
        """ZMQ_EVENTS of zmq_getsockopt(3)."""
        self._process_commands()
        events = 0
        if self.kind not in CANNOT_RECEIVE and self._has_message():
            events |= POLLIN
        # PUB and XPUB always show it, whatever XPUB_NODROP says
        shown = self.kind in (Type.PUB, Type.XPUB)
        if shown or (self.kind not in CANNOT_SEND and self.writable()):
            events |= POLLOUT
        return events

    # Errors

    def errors(self, call: str, frame: bytes = b"") -> Iterator[int]:
        """Say which errors this call could give instead of what it will give."""
        yield from (EINTR, ETERM, ENOTSOCK)
        turns = self.kind in TURNS
        if call == "recv" and self.readable():
            yield EAGAIN
            if turns and not self._reading:
                yield EFSM
        if call == "send" and self._partial:
            # The peer vanishes. (A REQ that loses a request so is stuck for good, in libzmq.)
            if self.kind in (Type.PUSH, Type.DEALER, Type.PAIR):
                yield EAGAIN
        elif call == "send" and not self._dropping and self.writable():
            if self._mandatory or self.kind not in LOSSY:
                yield EAGAIN
            if self._mandatory and self.kind in ADDRESSED and self._knows(frame):
                yield EHOSTUNREACH
            if self.kind == Type.REQ:
                yield EFSM

    def suffer(self, call: str, number: int) -> None:
        """Be in the state in which libzmq gives this error."""
        if number == ETERM:
            self._world.terminated = self.told = True
        elif number == ENOTSOCK:
            self.closed = True
        elif number == EAGAIN and call == "recv":
            # The message is on its way, and comes when the loop blocks.
            self._process_commands()
            self._late, self._awake = True, False
            self._world.script.appendleft(self._come)
        elif number == EAGAIN and self._partial:
            # The peer vanished: libzmq takes back what it had of the message. A PAIR may have the
            # next peer already; the others swallow what is left.
            self._dropping = self._world.sending_more and self.kind != Type.PAIR
            self._partial = []
        elif number == EAGAIN and call == "send":
            # The peer is full, until the loop blocks.
            self._full = True
            self._world.script.appendleft(lambda: self._commands.append(self._unfill))

    def _come(self) -> None:
        self._late = False
        self._commands.append(self._wake)

    def _unfill(self) -> None:
        self._full = False
