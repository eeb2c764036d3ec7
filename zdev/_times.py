"""Every time for which relays and devices wait, in seconds, and what each bounds.

The loops have one more, ``DOUBT_TIMEOUT``, in milliseconds, since it is also that of the C loop.
"""

from __future__ import annotations

import math
from typing import Any

__all__ = [
    "COMPLAINTS",
    "COMPLAINTS_EVERY",
    "DRAIN_LOOK",
    "DRAIN_QUIET",
    "GRACE",
    "LEAVE_PATIENCE",
    "LONG_WAIT",
    "MAIN_THREAD_LOOK",
    "OVERFLOW_QUIET",
    "OWNER_LOOK",
    "PATIENCE",
    "REAPED_LOOK",
    "SHORT_PATIENCE",
    "SIGNAL_LOOK",
    "STOP_AGAIN",
    "VISIT_LOOK",
    "VISIT_PATIENCE",
    "check_seconds",
    "check_timeout",
    "milliseconds",
]

MAX_INT = 2**31 - 1

# Relays

COMPLAINTS, COMPLAINTS_EVERY = 10, 10.0
"""The most lines that the log gets in so many seconds of what peers bring about at one socket."""

DRAIN_LOOK = 0.02
"""After which a relay that drains looks again whether anything is parked, or unanswered."""

DRAIN_QUIET = 0.1
"""Without a message, after which a drain is over: libzmq's threads may have some in hand that no
socket shows yet."""

LONG_WAIT = 0.1
"""After which a relay's repr tells that a direction waits for its destination or the capture."""

OVERFLOW_QUIET = 1.0
"""Without a message that was dropped, after which a direction overflows no more."""

OWNER_LOOK = 0.05
"""After which a thread that is about to take a relay's loop, or to give it back, attends again to
its signals and to what it was asked meanwhile."""

SIGNAL_LOOK = 0.1
"""After which a relay looks for signals that do not wake it: an event loop has their descriptor."""

VISIT_LOOK = 0.0005
"""After which whoever takes a relay's loop looks again whether all visits are over."""

VISIT_PATIENCE = 2.0
"""After which whoever takes a relay's loop goes on in spite of a visit: a signal handler must have
interrupted the visitor, and may be waiting for the very thread that takes the loop."""


# Devices

PATIENCE = 2.0
"""For what should be quick: a thread's or a process's last steps, a stop at the interpreter's exit,
a subclass on its way from its sockets to a relay."""

SHORT_PATIENCE = PATIENCE / 4
"""For messages that libzmq still has to send when a device ends, whose sockets set no ZMQ_LINGER;
for libzmq to let go of what closed sockets had; for an orphan to end by itself."""

GRACE = 0.2
"""In which a subclass that does not relay with zdev may still fail its start; where binds are
planned, it gets `PATIENCE`."""

LEAVE_PATIENCE = PATIENCE * 5
"""For the end of what an asynchronous task leaves or is cancelled in, besides a drain's time: it
waits for that whatever comes, but not for ever."""

MAIN_THREAD_LOOK = 0.25
"""After which the main thread, when it waits for a device, looks for signals that missed it."""

REAPED_LOOK = 0.001
"""After which it is looked again whether the exit code of a process is known, for which somebody
else has waited; for `GRACE` at most."""

STOP_AGAIN = 0.05
"""After which what a subclass runs instead of a relay is interrupted again, until it ends."""


def check_seconds(value: Any, name: str, what: str = "a number of seconds or None") -> float:
    """Return a number of seconds, from 0 on, or raise what is wrong with it."""
    wanted = f"{name} must be {what}, not"
    if isinstance(value, str) or not hasattr(value, "__float__"):
        raise TypeError(f"{wanted} {type(value).__name__}")
    try:
        seconds = float(value)
    except OverflowError:
        seconds = math.inf if value > 0 else -math.inf
    except (TypeError, ValueError) as error:  # of a type whose values are not all numbers
        raise TypeError(f"{wanted} {type(value).__name__}: {error}") from None
    if math.isnan(seconds) or seconds < 0:
        raise ValueError(f"{wanted} {seconds}; 0 is the least")
    return seconds


def check_timeout(value: Any) -> float | None:
    """Return a number of seconds to wait, or None for as long as it takes; or raise."""
    return None if value is None else check_seconds(value, "timeout")


def milliseconds(seconds: float) -> int:
    """Return so many seconds in libzmq's unit, rounded up: none that is short becomes nothing.

    What is too much for libzmq is as long as can be.
    """
    return math.ceil(min(seconds * 1000, MAX_INT))
