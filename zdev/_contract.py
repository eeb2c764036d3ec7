"""What a relay loop is given, what it must offer, and what it counts.

Everything here is shared by the C loop (csrc/zdev.h says the same in C) and the Python loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import zmq

__all__ = [
    "FINISHED",
    "NOTHING",
    "STEPPED",
    "WOKEN",
    "CaptureStatistics",
    "DirectionStatistics",
    "End",
    "Engine",
    "Loop",
    "Settings",
    "Statistics",
    "raise_for",
    "timed",
]

# What Loop.run returns. An error is its negated errno.
FINISHED = 0
WOKEN = 1
STEPPED = 2


class _DirectionCounts(NamedTuple):
    messages_received: int = 0
    """Whole messages taken from the source."""
    frames_received: int = 0
    """Frames of those messages."""
    bytes_received: int = 0
    """Bytes in those frames, ZMTP's own overhead not counted."""
    messages_sent: int = 0
    """Messages that the destination accepted whole."""
    frames_sent: int = 0
    """Frames of those messages."""
    bytes_sent: int = 0
    """Bytes in those frames."""
    dropped: int = 0
    """Messages that could not be sent: the destination's type cannot send, its peer vanished
    between two frames, or memory was short."""
    unroutable: int = 0
    """Messages without a usable address: for a ROUTER, an empty routing id or nothing behind it,
    or an unknown peer under ZMQ_ROUTER_MANDATORY; for a REP, replies that nobody asked for."""
    overflowed: int = 0
    """Messages that the destination did not take, full or without a peer, in a direction whose
    overflow is "drop"."""
    parked: int = 0
    """1 while a message waits in the relay for its destination, else 0."""


class _CaptureCounts(NamedTuple):
    sent: int = 0
    """Copies that it accepted."""
    dropped: int = 0
    """Copies that it did not: it was full under ``capture_policy="drop"``, or it failed."""
    parked: int = 0
    """Copies that wait in the relay for it: at most one for each direction."""


class _Timed:
    @property
    def parked_seconds(self) -> float:
        """Seconds for which what is parked has waited by now; 0.0 while nothing is.

        It is no element of the tuple, for it goes on while nothing moves, and programs compare the
        counts.
        """
        return float(vars(self).get("parked_seconds", 0.0))


class DirectionStatistics(_DirectionCounts, _Timed):
    """What one direction of a relay has done so far.

    ``messages_received == messages_sent + dropped + unroutable + overflowed + parked``, always. Its
    ``parked_seconds`` are those of a message that waits for the destination or, while ``parked`` is
    0, of a copy that waits for the capture.
    """


class CaptureStatistics(_CaptureCounts, _Timed):
    """What the capture (monitor) socket was given so far, in messages."""


T = TypeVar("T", bound=_Timed)


def timed(counts: T, parked_seconds: float) -> T:
    """Return what was counted, with the time for which what is parked has waited."""
    vars(counts)["parked_seconds"] = parked_seconds
    return counts


class _Counters(NamedTuple):
    frontend_to_backend: DirectionStatistics
    backend_to_frontend: DirectionStatistics
    capture: CaptureStatistics


class Statistics(_Counters):
    """A consistent snapshot of a relay's counters: of both directions and of the capture."""

    # No element of the tuple, which programs unpack into these three.
    unanswered: int = 0
    """Requests that went one way while nothing came back for them yet, by the counters: messages
    sent that way less those that came the other way. 0 unless both ends are REQ, REP, DEALER or
    ROUTER."""


@dataclass(frozen=True)
class End:
    """A socket that a relay borrows."""

    socket: zmq.Socket[Any]
    handle: int
    type: int
    fd: int


@dataclass(frozen=True)
class Settings:
    """What a loop is made of; the zdev_settings of csrc/zdev.h."""

    frontend: End
    backend: End
    capture: End | None
    control: End | None
    in_prefix: bytes | None
    out_prefix: bytes | None
    swap: bool
    in_drop: bool
    out_drop: bool
    capture_drop: bool
    burst: int
    wakeup_fd: int
    long_wait: int = 0
    """Milliseconds that a message may be parked until `Loop.run` returns, for its caller to be
    told; and once more when it goes on. With 0, nobody is told, and no clock is read."""


class Loop(Protocol):
    """The loop of one relay. It belongs to one thread at a time, like its sockets."""

    paused: bool
    only_first: bool
    """Whether the XSUBs have ZMQ_ONLY_FIRST_SUBSCRIBE, which libzmq does not tell: a message whose
    first frame subscribes to nothing subscribes to nothing at all then."""

    def run(self, timeout: int) -> int:
        """Relay until finished, woken or failed, and return which.

        ``timeout`` is in milliseconds: -1 waits for ever, or until a message has overflowed; 0
        relays at most a burst per direction and returns STEPPED plus how much moved; any other
        bounds the time until the return. Calling again goes on where it left off.
        """

    def look(self) -> int:
        """Return 0 if nothing can move until a descriptor is readable, 1 if something may.

        1, too, when the capture socket is found to have failed. Or the negated errno. It takes and
        sends no message, so that an exception which interrupts it (a signal handler's) does no
        harm.
        """

    def patience(self) -> int:
        """Return after how many milliseconds `run` has to be called again, besides all signs.

        That is for what is parked; -1: for nothing.
        """

    @property
    def capture_failed(self) -> bool:
        """Whether the capture socket has failed, which does not matter, and is left alone."""

    def flush(self) -> int:
        """Try once more to send what is parked; return 0 or the negated errno."""

    def join(self, capture: End | None, control: End | None) -> None:
        """Take in a capture or a control socket after the start, as if it had been there."""

    def copies(self, wanted: bool) -> None:
        """Give the capture socket copies, as from the start, or do without it.

        To do without it changes nothing while a message is parked.
        """

    def shut(self, *, there: bool, back: bool) -> None:
        """Leave unread what comes to the frontend (there), to the backend (back), or read it again.

        What a direction holds is sent on all the same.
        """

    def subscriptions(self, end: End) -> int:
        """Return how many subscriptions an XPUB's peers hold, by what it has told this loop.

        Those that were made less those that were cancelled, but at least 0; for sockets of other
        types, 0.
        """

    def statistics(self) -> Statistics:
        """Return the counters."""


class Engine(Protocol):
    """Makes loops."""

    name: str

    def loop(self, settings: Settings) -> Loop:
        """Make the loop of a relay."""


def raise_for(code: int) -> None:
    """Raise what a negative result code stands for: ``zmq.ContextTerminated`` for ETERM."""
    if code >= 0:
        return
    if -code == zmq.ETERM:
        raise zmq.ContextTerminated
    raise zmq.ZMQError(-code)


NOTHING = Statistics(DirectionStatistics(), DirectionStatistics(), CaptureStatistics())
"""The statistics of what has relayed nothing."""
