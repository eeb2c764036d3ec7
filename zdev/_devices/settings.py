"""How a device relays: what its constructor passes on to its relay, whatever its class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

from zdev._arguments import (
    DEFAULT_BURST,
    CapturePolicy,
    Overflow,
    check_burst,
    check_no_copies,
    check_overflows,
    check_policy,
)
from zdev._connections import OnConnection
from zdev._times import check_seconds

__all__ = ["RelaySettings", "check_settings"]


class RelaySettings(TypedDict, total=False):
    """The keywords that every device takes besides. `explained` shows them in its help.

    Other Parameters
    ----------------
    capture_policy : {"block", "drop"}
        What to do while the monitor is full or has no peer: "block" (the default) lets traffic
        wait, so that the copies are complete; "drop" drops the copy, whole, and counts it.
    overflow : {"park", "drop"}
        What becomes of a message that its destination refuses, which is full or has no peer:
        "park" (the default) keeps it and lets its source wait; "drop" drops it whole, counts it as
        ``overflowed``, and reads on.
    in_overflow, out_overflow : {"park", "drop"}, optional
        The same for what comes in there; by default (None) as `overflow` says.
    burst : int
        Messages that one direction may relay before it is the other's turn, up to 10000; 64 by
        default.
    warn_after : float or None
        Seconds that a direction may wait for its destination or for the monitor until the logger
        ``zdev`` warns of it; 5.0 by default. None: never.
    io_threads : int, optional
        Threads in which libzmq does what belongs to tcp and ipc; 1 by default. Only for a context
        of the device's own, such as a process device has: in a thread, set ``context_factory =
        zmq.Context``, too. See zmq_ctx_set(3). An attribute, too.
    watch_connections : bool
        Whether `connections` is to tell who is there; it costs a thread and two sockets for each
        socket. May be set as an attribute, too.
    on_connection : callable, optional
        Called then with the role of a socket, the `zmq.Event` and the address, where the device
        runs, in one of these threads; what it raises is logged. An attribute, too.
    """

    capture_policy: CapturePolicy
    overflow: Overflow
    in_overflow: Overflow | None
    out_overflow: Overflow | None
    burst: int
    warn_after: float | None
    io_threads: int | None
    watch_connections: bool
    on_connection: OnConnection


def check_settings(cls: type, roles: Sequence[str], settings: RelaySettings) -> dict[str, Any]:
    """Return the settings, or raise what is wrong with one: now, and not when the device starts."""
    for name in settings:
        if name not in RelaySettings.__annotations__:
            raise TypeError(f"{cls.__name__}() got an unexpected keyword argument {name!r}")
    drops_copies = check_policy(settings.get("capture_policy", "block"), "capture_policy", "block")
    if "mon" not in roles:
        check_no_copies({"capture_policy": True if drops_copies else None}, "monitor")
    overflows = (settings.get(name) for name in ("in_overflow", "out_overflow"))
    check_overflows(settings.get("overflow", "park"), *overflows)
    check_burst(settings.get("burst", DEFAULT_BURST))
    if settings.get("warn_after") is not None:
        check_seconds(settings["warn_after"], "warn_after")
    return dict(settings)
