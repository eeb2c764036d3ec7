"""A socket, and the frames of one message in and out of it. The Python twin of csrc/frames.c.

Whatever the loop receives or sends goes through here. Results are 0 or more for success and a
negated errno for what ends the relay.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable

import zmq

from .binding import Binding, Handle, Message

__all__ = [
    "DONE",
    "DONTWAIT",
    "EFSM",
    "INT_MAX",
    "LOST",
    "NONE",
    "PAIR",
    "POLLIN",
    "POLLOUT",
    "REFUSED",
    "REP",
    "SNDMORE",
    "UNROUTABLE",
    "XPUB",
    "Frames",
    "Socket",
    "can_receive",
    "can_send",
    "count_subscription",
    "frame_send",
    "insist",
    "peer_error",
    "refusal",
    "socket_events",
    "unsettle",
]

DONTWAIT, SNDMORE = int(zmq.DONTWAIT), int(zmq.SNDMORE)
POLLIN, POLLOUT = int(zmq.POLLIN), int(zmq.POLLOUT)
EAGAIN, EINTR, EHOSTUNREACH, EFSM = errno.EAGAIN, errno.EINTR, errno.EHOSTUNREACH, int(zmq.EFSM)
PAIR, REP, XPUB = int(zmq.PAIR), int(zmq.REP), int(zmq.XPUB)
PUB, SUB, PUSH, PULL = int(zmq.PUB), int(zmq.SUB), int(zmq.PUSH), int(zmq.PULL)

# What zmq_msg_recv(3) returns at most.
INT_MAX = 2**31 - 1
# Slots kept for the next message.
KEPT = 16

# What became of a message that was handed to a socket; a failure is its negated errno.
REFUSED = 0
"""Nothing was sent: not now."""
DONE = 1
UNROUTABLE = 2
"""Nothing was sent: nobody has that address."""
LOST = 3
"""The peer vanished between two frames."""


# Sockets


class Socket:
    """A socket, and whether it is settled.

    ZMQ_FD is no sign of a message. It becomes readable when the socket has commands to process (a
    peer has sent something, or has made room), and whoever processes them takes that away: a
    receive, a look at ZMQ_EVENTS, and now and then a send. So a loop that sends, and then waits for
    the descriptor, may sleep for ever beside a message of which its own send has taken the sign.

    Therefore a socket is `settled` only when its commands were processed, what they brought was
    seen to, and nothing was done with it since: a send unsettles it. The loop blocks only when
    every socket is settled. zmq_poll(3), which looks at ZMQ_EVENTS of every socket each time, needs
    no such account, but two more system calls for each wake-up.

    tests/loops/test_interleaving.py lets peers act just before each call in turn. A loop that keeps
    a socket settled over a send (`EdgeEaten`) does not get through.
    """

    __slots__ = ("fd", "handle", "settled", "subscriptions", "type")

    def __init__(self, handle: Handle, type_: int, fd: int) -> None:
        self.handle = handle
        self.type = type_
        self.fd = fd
        self.settled = False
        self.subscriptions = 0  # made less cancelled, as an XPUB told


NONE = Socket(None, -1, -1)
"""Stands for a socket that a relay does not have."""


def can_send(kind: int) -> bool:
    """Tell whether a socket of this type can send; zmq_socket(3)."""
    return kind not in (SUB, PULL)


def can_receive(kind: int) -> bool:
    """Tell whether a socket of this type can receive."""
    return kind not in (PUB, PUSH)


def socket_events(binding: Binding, socket: Socket) -> int:
    """Process the socket's commands and return its ZMQ_EVENTS.

    It stays unsettled if it can be read, for whoever reads it.
    """
    while True:
        events = binding.events(socket.handle)
        if events >= 0:
            socket.settled = not events & POLLIN
            return events
        error = binding.errno()
        if error != EINTR:
            return -error


def unsettle(sockets: Iterable[Socket]) -> None:
    """Forget what was known of the sockets' descriptors."""
    for socket in sockets:
        socket.settled = False


# Frames


def insist(binding: Binding, frame: Message, to: Socket, flags: int) -> int:
    """Send a frame again whose send has failed, if a signal came in between; 0 or the errno."""
    while True:
        error = binding.errno()
        if error != EINTR:
            return error
        if binding.send(frame, to.handle, flags) >= 0:
            return 0


def frame_send(binding: Binding, frame: Message, to: Socket, flags: int) -> int:
    """Send one frame; 0 or the errno."""
    flags |= DONTWAIT
    if binding.send(frame, to.handle, flags) >= 0:
        return 0
    return insist(binding, frame, to, flags)


def peer_error(error: int) -> bool:
    """Tell whether the error speaks of the peer, not of the socket."""
    return error in (EAGAIN, EHOSTUNREACH)


def refusal(to: Socket, error: int) -> int:
    """Tell what it means that the first frame of a message was not sent.

    Out of turn, a REQ will take it later; a REP never: what nobody asked for must not become the
    reply to the next request.
    """
    if error == EAGAIN or (error == EFSM and to.type != REP):
        return REFUSED
    return UNROUTABLE if error in (EHOSTUNREACH, EFSM) else -error


class Frames:
    """The frames of one message, in slots that are made once and used for one after the other.

    The slots are in the order in which the frames are sent on: with swap, what comes second is in
    the first. A libzmq message must not be moved, so nothing else can be swapped.
    """

    __slots__ = ("binding", "bytes", "count", "slots", "swap")

    def __init__(self, binding: Binding, *, swap: bool = False) -> None:
        self.binding = binding
        self.swap = swap
        self.slots: list[Message] = []
        self.count = 0
        self.bytes = 0

    def slot(self) -> Message:
        """Return the slot of the next frame."""
        place = self.count
        if self.swap and place < 2:
            place = 1 - place
        self.reserve(place + 1)
        return self.slots[place]

    def reserve(self, slots: int) -> None:
        """Have at least so many slots."""
        while len(self.slots) < slots:
            self.slots.append(self.binding.message())

    def reset(self) -> None:
        """Forget the message; its frames were sent or released."""
        del self.slots[KEPT:]
        self.count = 0
        self.bytes = 0

    def empty(self) -> None:
        """Release the frames, and forget the message."""
        used = 2 if self.swap and self.count == 1 else self.count  # a lone one is in the second
        for frame in self.slots[:used]:
            self.binding.empty(frame)
        self.reset()

    def receive(self, source: Socket) -> int:
        """Receive one message, or the rest of it; return as `take` does."""
        return self.take(source, self.binding.recv(self.slot(), source.handle, DONTWAIT))

    def take(self, source: Socket, size: int) -> int:
        """Take in one message, or the rest of it, whose next frame is received already.

        `size` is what that receive returned. Return 1 when the message is whole, 0 when the source
        has nothing (more) now. libzmq delivers a message whole, so that EAGAIN after its first
        frame is not to be expected; should it come, the frames wait here for the rest.
        """
        binding = self.binding
        slot = self.slot()
        while True:
            if size >= 0:
                # zmq_msg_recv(3) gives no more than an int holds
                self.bytes += size if size < INT_MAX else binding.size(slot)
                self.count += 1
                if not binding.more(slot):
                    return 1
                slot = self.slot()
            else:
                error = binding.errno()
                if error != EINTR:
                    break
            size = binding.recv(slot, source.handle, DONTWAIT)
        if error == EAGAIN:
            source.settled = True
        # EFSM: it is not the turn of this REQ or REP
        return 0 if error in (EAGAIN, EFSM) else -error

    def copy(self, original: Message) -> bool:
        """Add a copy of a frame; False when memory is short."""
        slot = self.slot()
        self.count += 1
        return self.binding.copy(slot, original) >= 0

    def send(self, to: Socket) -> int:
        """Send the frames as one message.

        Unless it is REFUSED or fails at the first frame, none is left. The high-water mark counts
        messages, so only the first frame can meet it; after that only a vanishing peer refuses.
        """
        to.settled = False
        last = self.count - 1
        for place in range(self.count):
            flags = SNDMORE if place < last else 0
            error = frame_send(self.binding, self.slots[place], to, flags)
            if error:
                return self.refused(place, to, error)
        self.reset()
        return DONE

    def refused(self, place: int, to: Socket, error: int) -> int:
        """Return what `send` does where the frame in that place was refused."""
        return refusal(to, error) if place == 0 else self.send_lost(place, to, error)

    def send_lost(self, place: int, to: Socket, error: int) -> int:
        """Be done with a message whose peer vanished before the frame in that place was sent.

        What was sent of it cannot be taken back. PUSH, DEALER and the like swallow what comes until
        the end of the message. They must be shown that end: else they would swallow the next
        message instead. A PAIR swallows nothing: the rest would reach its next peer as a message of
        its own, so it is discarded here. (The failed frame is not tried again: it would be a
        message of its own, too.)

        In tests/loops/test_faults.py, peers vanish in the middle of long messages; in
        tests/loops/test_injection.py, every frame fails once.
        """
        binding = self.binding
        failed = 0 if peer_error(error) else error
        last = self.count - 1
        for rest in range(place + 1, self.count):
            if to.type != PAIR and not failed:
                flags = SNDMORE if rest < last else 0
                error = frame_send(binding, self.slots[rest], to, flags)
                if error and not peer_error(error):
                    failed = error
        self.empty()
        return -failed if failed else LOST


def count_subscription(source: Socket, frames: Frames, *, only_first: bool) -> None:
    """Count the subscription that this message of an XPUB makes or cancels, if it does.

    libzmq tells of one in a frame that is the last of a message, even if data of a peer's goes
    before it. With ZMQ_ONLY_FIRST_SUBSCRIBE, all behind data is data. A peer may cancel what nobody
    has subscribed to.
    """
    if only_first and frames.count > 1:
        return
    place = frames.count - 1
    if frames.swap and place < 2:
        place = 1 - place
    mark = frames.binding.data(frames.slots[place])[:1]
    if mark == b"\1":
        source.subscriptions += 1
    elif mark == b"\0" and source.subscriptions > 0:
        source.subscriptions -= 1
