"""What a service tells systemd of itself: the protocol of sd_notify(3)."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time

__all__ = ["notify", "reloading", "watchdog_interval"]


LONGEST = 86400.0  # seconds; a wait takes no more than some weeks
PATIENCE = 1.0  # seconds, while the manager has no room: devices matter more than what it knows


def notify(*lines: str) -> None:
    """Tell the service manager, if one wants to know; that it does not listen is no error."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path[:1] not in ("/", "@"):
        return
    address = "\0" + path[1:] if path[0] == "@" else path
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE)
        sock.sendto("\n".join(lines).encode(), address)


def reloading() -> None:
    """Tell that a reload begins; READY=1 ends it. systemd compares this time with its own."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def watchdog_interval() -> float | None:
    """Return after how many seconds WATCHDOG=1 is to be told each time; None if nobody waits."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    # Half of the time, as sd_watchdog_enabled(3) says.
    if not re.fullmatch(r"0*[1-9][0-9]*", microseconds):
        return None
    return min(int(microseconds) / 2_000_000, LONGEST)
