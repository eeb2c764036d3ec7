"""One direction of a relay: what becomes of a message. The Python twin of csrc/direction.c.

This is the specification. A message is received whole, and held; it is delivered to the
destination, or goes nowhere and is counted; its copy goes to the capture socket. What a socket
refuses stays parked here, and is tried again at the next turn; in a direction that drops, it
overflows instead. Functions return 0 or more for success and a negated errno for what ends the
relay.
"""

from __future__ import annotations

import zmq

from zdev._contract import DirectionStatistics, timed

from .binding import Binding, Message
from .frames import (
    DONE,
    EFSM,
    LOST,
    NONE,
    POLLOUT,
    REFUSED,
    REP,
    UNROUTABLE,
    XPUB,
    Frames,
    Socket,
    count_subscription,
    frame_send,
    peer_error,
    socket_events,
)

__all__ = ["COPY", "HELD", "ROUTER", "STREAM", "TAKING", "XSUB", "Capture", "Direction"]

ROUTER, XSUB, STREAM = int(zmq.ROUTER), int(zmq.XSUB), int(zmq.STREAM)

# Bytes of the longest topic that an XSUB is given. libzmq's recursion takes 81 bytes of stack for
# each where it was built for pyzmq 27, and over 130 for pyzmq 25.1 (measured, x86-64): 4,000 bytes
# overflow a stack of 512 KiB there, which is what macOS gives a thread of libzmq's. 2,048 take half
# of it.
MAX_SUBSCRIPTION = 2048

# Where the message of a direction is.
TAKING = 0
"""Frames are being received (perhaps none yet)."""
HELD = 1
"""It is whole, and for the destination."""
COPY = 2
"""It was delivered, and its copy is for the capture socket."""


class Capture:
    """The capture socket that the directions share, and what it was given."""

    __slots__ = ("dead", "drop", "dropped", "given", "sent", "socket")

    def __init__(self, *, drop: bool) -> None:
        self.socket = self.given = NONE  # the one in use, and the one that is there
        self.drop = drop  # copies that it does not take, and the socket when it fails
        self.dead = False
        self.sent = self.dropped = 0


def subscribes(data: bytes) -> bool:
    """Tell whether a frame makes or cancels a subscription.

    It does by its first byte, or as a command of ZMTP, which libzmq lets through.
    """
    return data.startswith((b"\0", b"\1", b"\6CANCEL", b"\11SUBSCRIBE"))


class Direction:
    """One way through the device; the two ways differ in data alone.

    Parameters
    ----------
    binding
        How libzmq is reached.
    source, destination
        Without a destination (NONE), the direction is a sink: what it takes is counted dropped.
    capture
        Who gets copies; its socket may be NONE.
    prefix
        What each copy begins with.
    swap
        Whether the first two frames of each message change places.
    drop
        Whether what the destination refuses is dropped, instead of parked.
    long_wait
        Milliseconds; see ``Settings``.
    """

    __slots__ = (
        "binding",
        "bytes_held",
        "bytes_lost",
        "bytes_sent",
        "capture",
        "copied",
        "copy",
        "destination",
        "doubtful",
        "drop",
        "dropped",
        "frames_held",
        "frames_lost",
        "frames_sent",
        "held",
        "long_wait",
        "messages_sent",
        "moved",
        "news",
        "only_first",
        "overflowed",
        "prefix",
        "shut",
        "source",
        "stage",
        "unroutable",
        "waits_long",
        "waits_since",
    )

    def __init__(
        self,
        binding: Binding,
        source: Socket,
        destination: Socket,
        capture: Capture,
        prefix: Message | None = None,
        *,
        swap: bool = False,
        drop: bool = False,
        long_wait: int = 0,
    ) -> None:
        self.binding = binding
        self.source = source
        self.destination = destination
        self.capture = capture
        self.prefix = prefix
        self.drop = drop
        self.only_first = False  # ZMQ_ONLY_FIRST_SUBSCRIBE is set
        self.stage = TAKING
        self.held = Frames(binding, swap=swap)
        self.copy = Frames(binding)
        self.copied = False  # `copy` was made of what is held
        self.doubtful = False
        self.shut = False  # its source is left unread
        self.long_wait = long_wait
        self.waits_long = False  # for so long that it was told
        self.waits_since = 0  # by the clock; 0: it does not wait
        self.news = False  # the caller is wanted, to be told
        self.moved = 0  # messages, in this turn
        self.messages_sent = self.frames_sent = self.bytes_sent = 0
        self.dropped = self.unroutable = self.overflowed = 0
        self.frames_lost = self.bytes_lost = 0  # of all three
        self.frames_held = self.bytes_held = 0

    def statistics(self) -> DirectionStatistics:
        """Return the counters: what was received is what was sent, was lost, or is held."""
        parked = int(self.stage == HELD)
        lost = self.dropped + self.unroutable + self.overflowed
        counts = DirectionStatistics(
            messages_received=self.messages_sent + lost + parked,
            frames_received=self.frames_sent + self.frames_lost + parked * self.frames_held,
            bytes_received=self.bytes_sent + self.bytes_lost + parked * self.bytes_held,
            messages_sent=self.messages_sent,
            frames_sent=self.frames_sent,
            bytes_sent=self.bytes_sent,
            dropped=self.dropped,
            unroutable=self.unroutable,
            overflowed=self.overflowed,
            parked=parked,
        )
        return timed(counts, self.waited() / 1000)

    def waited(self) -> int:
        """Return for how many milliseconds it has waited; 0 if it does not."""
        return self.binding.clock() - self.waits_since if self.waits_since else 0

    def prepare(self) -> None:
        """Be ready for messages, now that the capture socket is in use or no more."""

    # A turn

    def turn(self, burst: int) -> int:
        """Relay a burst at most, and first what is parked; return how many messages moved."""
        self.moved = 0
        result = 1
        if self.stage != TAKING:
            stage = self.stage
            result = self.retry()
            self.moved = int(self.stage != stage)
        while result > 0 and self.moved < burst and not (self.source.settled or self.shut):
            result = self.step(burst - self.moved)
        return result if result < 0 else self.moved

    def step(self, most: int) -> int:  # noqa: ARG002 - that of turn.py relays so many
        """Relay a message; 1 when the direction is free for the next one, 0 when it waits."""
        result = self.held.receive(self.source)
        if result <= 0:
            return result
        if self.source.type == XPUB:
            count_subscription(self.source, self.held, only_first=self.only_first)
        self.enter(self.held.count, self.held.bytes)
        return self.deliver()

    def enter(self, frames: int, size: int) -> None:
        """Enter a message as received, and as held."""
        self.moved += 1
        self.frames_held = frames
        self.bytes_held = size
        self.stage = HELD

    def deliver(self) -> int:
        """Take what is held a step further; 1 when the direction is free, 0 when it waits."""
        if self.stage == COPY:
            return self.copy_send()
        if self.destination is NONE:
            self.dropped += 1
            return self.discard()
        if not self.routable():
            self.unroutable += 1
            return self.discard()
        if self.harmful():
            self.dropped += 1
            return self.discard()
        if self.capture.socket is not NONE and not self.copied:
            self.copy_make()
        return self.conclude(self.held.send(self.destination))

    def routable(self) -> bool:
        """Tell whether a destination of this type can route what is held.

        A ROUTER needs an address, which is never empty, and something to send there. To a STREAM a
        message is an address and one frame, and anything else would shift the meaning of all that
        follow.
        """
        kind, count = self.destination.type, self.held.count
        if kind == ROUTER:
            return count >= 2 and self.binding.size(self.held.slots[0]) > 0
        if kind == STREAM:
            return count == 2 and self.binding.size(self.held.slots[0]) > 0
        return count >= 2 or not self.held.swap

    def harmful(self) -> bool:
        """Tell whether what is held would harm a destination of this type.

        An XSUB keeps subscriptions in a tree with a level for each byte, which libzmq descends by
        recursion: it overflows the stack for one that is long enough, which any subscriber behind
        an XPUB can send. With ZMQ_ONLY_FIRST_SUBSCRIBE, frames behind a first one that subscribes
        to nothing are data.
        """
        binding, held = self.binding, self.held
        if self.destination.type != XSUB or held.bytes <= 1 + MAX_SUBSCRIPTION:
            return False
        if self.only_first and not subscribes(binding.data(held.slots[0])):
            return False
        return any(
            binding.size(frame) > 1 + MAX_SUBSCRIPTION and subscribes(binding.data(frame))
            for frame in held.slots[: held.count]
        )

    def conclude(self, result: int) -> int:
        """Act on what became of the held message when it was sent; return as `deliver` does."""
        if result == REFUSED and self.drop:
            result = self.send_again()
            if result == REFUSED:
                self.overflowed += 1
                self.news = True
                return self.discard()
        if result == REFUSED:
            return 0
        if result == UNROUTABLE:
            self.unroutable += 1
            return self.discard()
        if result == LOST:
            self.dropped += 1
            return self.discard()
        if result < 0:
            if self.held.count == 0:  # some of its frames were sent
                self.dropped += 1
                self.discard()
            return result
        self.messages_sent += 1
        self.frames_sent += self.frames_held
        self.bytes_sent += self.bytes_held
        if self.capture.socket is NONE:
            self.stage = TAKING
            return 1
        self.stage = COPY
        return self.copy_send()

    def send_again(self) -> int:
        """Try once more to send what was refused and waits for nobody; return as `send` does.

        First all commands of the socket are processed. A send leaves them for a millisecond (it is
        throttled), and with them the room that its peer has made; without this, a peer that keeps
        pace loses messages all the same.
        """
        events = socket_events(self.binding, self.destination)
        return events if events < 0 else self.held.send(self.destination)

    def discard(self) -> int:
        """Let the held message go nowhere, now that it is counted. Return 1 or a negated errno.

        To a REP it was a request, and it takes no other before it has replied: with an empty frame,
        since nobody else will.
        """
        self.frames_lost += self.frames_held
        self.bytes_lost += self.bytes_held
        self.held.empty()
        if self.copied:
            self.copy.empty()
            self.copied = False
        self.stage = TAKING
        source = self.source
        if source.type == REP:
            source.settled = False
            error = frame_send(self.binding, self.held.slots[0], source, 0)
            if error and error != EFSM and not peer_error(error):
                return -error
        return 1

    # The copy

    def copy_make(self) -> None:
        """Copy `[prefix, frames as sent on]`; no copy when memory is short."""
        self.copied = True
        if self.capture.dead:
            return
        originals = self.held.slots[: self.held.count]
        if self.prefix is not None:
            originals = [self.prefix, *originals]
        if not all(self.copy.copy(original) for original in originals):
            self.copy.empty()

    def copy_send(self) -> int:
        """Give the capture socket its copy; return as `copy_conclude` does."""
        result = LOST
        if self.copy.count > 0 and not self.capture.dead:
            result = self.copy.send(self.capture.socket)
        return self.copy_conclude(result)

    def copy_conclude(self, result: int) -> int:
        """Act on what became of the copy; 1 when the direction is free, 0 when it waits."""
        capture = self.capture
        if result < 0 and capture.drop:
            capture.dead = True
        elif result < 0 or (result == REFUSED and not capture.drop):
            return result
        if result == DONE:
            capture.sent += 1
        else:
            capture.dropped += 1
            self.copy.empty()
        self.copied = False
        self.stage = TAKING
        return 1

    # What is parked

    def awaits(self) -> Socket:
        """Return the socket that a parked direction waits for; NONE if it is not parked."""
        if self.stage == HELD:
            return self.destination
        return self.capture.socket if self.stage == COPY else NONE

    def retry(self) -> int:
        """Try what is parked again; 1 when the direction is free, else 0.

        A send that fails may leave commands unprocessed, and the room that a peer has made unseen,
        so the socket's events are asked for first. ROUTER_MANDATORY shows no POLLOUT while no peer
        has room, though the very one that the message is for may be gone: only a send tells.

        POLLOUT may mean nothing. XPUB and PUB always show it; a ROUTER shows it when any peer has
        room. Were it trusted, the loop would try again without end, and take a whole CPU. So where
        it was shown, and the socket refuses all the same, the direction is `doubtful`: it waits for
        the socket's descriptor, and for DOUBT_TIMEOUT (loop.py) at most. The case "full xpub" of
        tests/loops/schedules.py shows it.
        """
        stage = self.stage
        awaited = self.awaits()
        events = socket_events(self.binding, awaited)
        if events < 0:
            return events
        shown = bool(events & POLLOUT)
        result = 0
        if shown or awaited.type == ROUTER:
            result = self.deliver()
            self.doubtful = shown and result == 0 and self.stage == stage
        if result == 1:
            self.source.settled = False
        self.note_wait(waits=result == 0 and self.stage == stage)
        return result

    def note_wait(self, *, waits: bool) -> None:
        """Take note of whether it still waits, and since when.

        The caller is wanted when that has been long, and when it is over after all.
        """
        if not waits:
            self.news = self.news or self.waits_long
            self.waits_long = False
            self.waits_since = 0
        elif self.long_wait:
            if self.waits_since == 0:
                self.waits_since = self.binding.clock()
            elif not self.waits_long and self.waited() >= self.long_wait:
                self.news = self.waits_long = True
