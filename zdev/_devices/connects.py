"""What the sockets of a run are connected to: addresses, and names with all that they stand for."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import zmq

from zdev._connections import Speaker, Watch
from zdev._times import GRACE

from .addresses import text_of
from .resolving import Name, Tell

__all__ = ["Connects", "attach"]


class Connects:
    """The connects of a run's sockets; on the run's own thread.

    Several may come to the same address: two names, or a name and somebody who has given it. There
    is one connection for all of them, which lasts as long as one of them does.

    Parameters
    ----------
    sockets : mapping of str to zmq.Socket
        The sockets by their roles; others may come.
    bound : mapping of str to list of tuple
        By role, what they are bound to, as it was asked for and as it is; others may come.
    speaker : Speaker
        Whose they are.
    watch : Watch, optional
        Is to know what they leave.
    """

    def __init__(
        self,
        sockets: Mapping[str, zmq.Socket[Any]],
        bound: Mapping[str, list[tuple[str, str]]],
        speaker: Speaker,
        watch: Watch | None,
    ) -> None:
        self._sockets = sockets
        self._bound = bound
        self._speaker = speaker
        self._watch = watch
        self._given: set[tuple[zmq.Socket[Any], str]] = set()
        self._names: dict[tuple[str, str], Name] = {}  # by role and address
        self._tell: Tell | None = None  # there is from when somebody relays

    def add(self, role: str, addr: str | bytes, every: float | None = None) -> None:
        """Connect a socket to an address; with a time, to all that its name has, now and later."""
        addr, target = text_of(addr), self._sockets[role]
        if every is None:
            if not self._is_of_name(target, addr):
                attach(target, "connect", addr)
            self._given.add((target, addr))
        elif (role, addr) in self._names:
            self._names[role, addr].change(every)
        else:
            has_ipv6 = bool(target.getsockopt(zmq.IPV6))
            name = self._names[role, addr] = Name(role, addr, every, has_ipv6=has_ipv6)
            if self._tell is not None:
                name.begin(self._tell, self._speaker)

    def remove(self, role: str, addr: str | bytes) -> None:
        """Disconnect a socket from an address, or from all that its name has."""
        addr = text_of(addr)
        name = self._names.pop((role, addr), None)
        if name is not None:
            name.end()
            while name.addresses:
                self._leave(role, name.addresses.pop())
            return
        target = self._sockets[role]
        if not self._is_of_name(target, addr):
            self._detach(role, addr)
        self._given.discard((target, addr))

    def follow(self, name: Name, found: list[str]) -> None:
        """Have a socket connected to what a name stands for now, and to no more."""
        role, target = name.role, self._sockets[name.role]
        if self._names.get((role, name.addr)) is not name:
            return  # disconnected from it meanwhile, and perhaps connected again
        for each in found:
            if each not in name.addresses:
                if not self._is_used(target, each):
                    attach(target, "connect", each)
                name.addresses.append(each)
        for each in [each for each in name.addresses if each not in found]:
            name.addresses.remove(each)
            self._leave(role, each)

    def use_ipv6(self, target: zmq.Socket[Any]) -> None:
        """Look up what a socket can use, of which that has changed."""
        for (role, _), name in self._names.items():
            if self._sockets[role] is target:
                name.change(has_ipv6=bool(target.getsockopt(zmq.IPV6)))

    def look_up(self, tell: Tell) -> None:
        """Have the names looked up from now on."""
        self._tell = tell
        for name in self._names.values():
            name.begin(tell, self._speaker)

    def with_names(self) -> set[zmq.Socket[Any]]:
        """Return the sockets that are connected to a name, whatever that stands for."""
        return {self._sockets[role] for role, _ in self._names}

    def end(self) -> None:
        """Look nothing up any more."""
        for name in list(self._names.values()):  # a last call may be at it
            name.end()

    def join(self) -> None:
        """Wait for the ends of the threads, but not for answers that may never come."""
        deadline = time.monotonic() + GRACE
        for name in list(self._names.values()):
            name.join(max(deadline - time.monotonic(), 0))

    def _is_of_name(self, target: zmq.Socket[Any], addr: str) -> bool:
        names = ((self._sockets[role], name) for (role, _), name in self._names.items())
        return any(addr in name.addresses for its, name in names if its is target)

    def _is_connected(self, target: zmq.Socket[Any], addr: str) -> bool:
        return (target, addr) in self._given or self._is_of_name(target, addr)

    def _is_used(self, target: zmq.Socket[Any], addr: str) -> bool:
        """Tell whether a socket is at an address otherwise, so that a name changes nothing there.

        Where it is bound, it would connect to itself; and libzmq, to which an unbind and a
        disconnect are one, would end the bind with the connection.
        """
        pairs = ((role, real) for role, all_of in self._bound.items() for _, real in all_of)
        is_bound = any(addr == real and self._sockets.get(role) is target for role, real in pairs)
        return is_bound or self._is_connected(target, addr)

    def _leave(self, role: str, addr: str) -> None:
        """Leave what a name stands for no more, unless the socket is to be there otherwise."""
        if not self._is_used(self._sockets[role], addr):
            self._detach(role, addr)

    def _detach(self, role: str, addr: str) -> None:
        attach(self._sockets[role], "disconnect", addr)
        if self._watch is not None:
            self._watch.leave(role, addr)


def attach(target: zmq.Socket[Any], verb: str, addr: str) -> None:
    """Connect, disconnect or unbind a socket; pyzmq's error does not always tell which address."""
    try:
        getattr(target, verb)(addr)
    except zmq.ContextTerminated:
        raise
    except zmq.ZMQError as error:
        if repr(addr) in error.strerror:
            raise
        raise zmq.ZMQError(error.errno, f"{error.strerror} (addr={addr!r})") from error
