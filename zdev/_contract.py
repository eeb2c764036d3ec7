"""What a relay loop is given, what it must offer, and what it counts.

Everything here is shared by the C loop (csrc/zdev.h says the same in C) and the Python loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import zmq

__all__ = [
    "FINISHED",
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
]

# What Loop.run returns. An error is its negated errno.
FINISHED = 0
WOKEN = 1
STEPPED = 2


class DirectionStatistics(NamedTuple):
    """What one direction of a relay has done so far.

    ``messages_received == messages_sent + dropped + unroutable + parked``, always.
    """

    messages_received: int
    """Whole messages taken from the source."""
    frames_received: int
    """Frames of those messages."""
    bytes_received: int
    """Bytes in those frames, ZMTP's own overhead not counted."""
    messages_sent: int
    """Messages that the destination accepted whole."""
    frames_sent: int
    """Frames of those messages."""
    bytes_sent: int
    """Bytes in those frames."""
    dropped: int
    """Messages that could not be sent: the destination's type cannot send, its peer vanished
    between two frames, or memory was short."""
    unroutable: int
    """Messages without a usable address: for a ROUTER, an empty routing id or nothing behind it,
    or an unknown peer under ZMQ_ROUTER_MANDATORY; for a REP, replies that nobody asked for."""
    parked: int
    """1 while a message waits in the relay for its destination, else 0."""


class CaptureStatistics(NamedTuple):
    """What the capture (monitor) socket was given so far, in messages."""

    sent: int
    """Copies that it accepted."""
    dropped: int
    """Copies that it did not: it was full under ``capture_policy="drop"``, or it failed."""
    parked: int
    """Copies that wait in the relay for it: at most one for each direction."""


class Statistics(NamedTuple):
    """A consistent, immutable snapshot of a relay's counters."""

    frontend_to_backend: DirectionStatistics
    backend_to_frontend: DirectionStatistics
    capture: CaptureStatistics


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
    capture_drop: bool
    burst: int
    wakeup_fd: int


class Loop(Protocol):
    """The loop of one relay. It belongs to one thread at a time, like its sockets."""

    paused: bool

    def run(self, timeout: int) -> int:
        """Relay until finished, woken or failed, and return which.

        ``timeout`` is in milliseconds: -1 waits for ever; 0 relays at most a burst per direction
        and returns STEPPED plus how much moved; any other bounds the time until the return.
        Calling again goes on where it left off.
        """

    def flush(self) -> int:
        """Try once more to send what is parked; return 0 or the negated errno."""

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
