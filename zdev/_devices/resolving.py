"""Names of hosts: a socket is connected to all addresses that one has, as they come and go.

libzmq looks a name up by itself, but takes the first address only; and the I/O thread that asks
waits for the answer, with all its other connections. So a thread for each name asks here, again and
again. A socket has one thread, the device's own, which is told what is new and what is gone.
"""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import threading
from typing import Any, Callable

from zdev import _tasks
from zdev._connections import Speaker
from zdev._threads import Thread, allocate_lock
from zdev._times import check_seconds

from .addresses import check_address, transport_of

__all__ = ["EVERY", "LEAST", "Name", "Tell", "checked_resolve", "looked_up"]

EVERY = 10.0
"""Seconds from one look to the next, where nothing else is said."""

LEAST = 0.1

# Before a semicolon is a source address: see zmq_tcp(7).
PLACE = re.compile(r"(tcp://(?:[^\s;]+;)?)(\[[^\s\[\]]+\]|[^\s\[\]/*?#@;]+):([0-9]+)")
"""What comes before a name, the name and the port."""

Tell = Callable[["Name", "list[str]"], bool]
"""Is told of a name and its addresses, and returns when the socket has them; or raises.

Whether there is such a socket is what it returns."""

# gevent's, which another thread could not use, would be there under its patch.
getaddrinfo: Callable[..., Any] = _tasks.original("socket", "getaddrinfo")


def checked_resolve(
    method: str, addr: Any, resolve: Any = "first", every: Any = None
) -> dict[str, Any]:
    """Return how an address is to be looked up, as `SocketPlan.connect` wants it, or raise."""
    if not isinstance(resolve, str):
        raise TypeError(f"{method}: resolve must be 'first' or 'all', not {type(resolve).__name__}")
    if resolve not in ("first", "all"):
        raise ValueError(f"{method}: resolve must be 'first' or 'all', not {resolve!r}")
    if resolve == "first":
        if every is not None:
            raise ValueError(f"{method}: every is for resolve='all'; say that too")
        return {}
    check_address(method, addr, (str,))
    if transport_of(addr) != "tcp":
        raise ValueError(f"{method}: resolve='all' is for tcp, and {addr!r} has no names of hosts")
    if PLACE.fullmatch(addr) is None:
        raise ValueError(f"{method}: resolve='all' is for tcp://name:port, not {addr!r}")
    every = EVERY if every is None else check_seconds(every, f"{method}: every", "seconds")
    if every < LEAST:
        raise ValueError(f"{method}: every must be at least {LEAST} seconds, not {every:g}")
    return {"resolve": "all", "every": every}


def looked_up(addr: str, family: int) -> list[str]:
    """Return the addresses that a name in an address of tcp has now.

    Raises
    ------
    OSError, UnicodeError
        If there are none, or nobody can say; no DNS can have some names.
    """
    place = PLACE.fullmatch(addr)
    if place is None:
        raise ValueError(f"{addr!r} is not tcp://name:port")
    start, host, port = place.groups()
    found = getaddrinfo(host.strip("[]"), int(port), family, socket.SOCK_STREAM)
    hosts = {_host(*info[4]) for info in found}
    return sorted(
        f"{start}[{one}]:{port}" if ":" in one else f"{start}{one}:{port}" for one in hosts
    )


def _host(host: str, _port: int, _flow: int = 0, scope: int = 0) -> str:
    """Return an address; with its interface, where it is one of that link only."""
    return f"{host}%{scope}" if scope else host


class Name:
    """An address with a name that one socket is connected to, and the thread that looks it up.

    Parameters
    ----------
    role, addr : str
        Of which socket, and what to look up.
    every : float
        Seconds from one look to the next.
    has_ipv6 : bool
        Whether the socket can use addresses of IPv6, too.
    """

    def __init__(self, role: str, addr: str, every: float, *, has_ipv6: bool) -> None:
        self.addresses: list[str] = []
        """What the socket is connected to for this name: of the device's own thread."""
        self.role = role
        self.addr = addr
        self._every = every
        self._has_ipv6 = has_ipv6
        self._known: list[str] | None = None
        self._fails = False
        self._is_over = False
        self._bell = allocate_lock()  # what waits for it is woken by its release
        self._bell.acquire()
        self._thread: Thread | None = None

    def begin(self, tell: Tell, speaker: Speaker) -> None:
        """Look it up, now and from now on, in a thread; unless it does so already."""
        if self._thread is None:
            self._thread = Thread(
                target=self._look,
                args=(tell, speaker),
                name=f"{speaker.name}, {self.addr}",
                daemon=True,  # it may wait for an answer for half a minute
            )
            self._thread.start()

    def change(self, every: float | None = None, *, has_ipv6: bool | None = None) -> None:
        """Look it up at other times from now on, or for other addresses; and once now."""
        self._every = self._every if every is None else every
        self._has_ipv6 = self._has_ipv6 if has_ipv6 is None else has_ipv6
        self._ring()

    def end(self) -> None:
        """Look it up no more."""
        self._is_over = True
        self._ring()

    def join(self, seconds: float) -> None:
        """Wait for the end of the thread, but not for an answer that may never come."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _ring(self) -> None:
        with contextlib.suppress(RuntimeError):  # it was rung, and nobody has heard it yet
            self._bell.release()

    def _look(self, tell: Tell, speaker: Speaker) -> None:
        while not self._is_over:
            self._look_once(tell, speaker)
            self._bell.acquire(timeout=min(self._every, threading.TIMEOUT_MAX))

    def _look_once(self, tell: Tell, speaker: Speaker) -> None:
        """Look it up; what goes wrong changes nothing, and is told when it begins."""
        where = f"{speaker.name}: {self.role}: {self.addr}"
        try:
            found = looked_up(self.addr, socket.AF_UNSPEC if self._has_ipv6 else socket.AF_INET)
            if found != self._known and not self._is_over:
                if not tell(self, found):
                    self._is_over = True
                    return
                self._known = found
                speaker.log(logging.INFO, "%s is %s", where, ", ".join(found))
        except Exception as error:
            if not (self._fails or self._is_over):
                words = "%s could not be looked up: %s; it stays connected to %s"
                now = ", ".join(self._known or ()) or "nothing"
                speaker.log(logging.WARNING, words, where, error, now)
            self._fails = True
        else:
            if self._fails:
                speaker.log(logging.WARNING, "%s can be looked up again", where)
            self._fails = False
