"""Which sockets may be joined, in which role, and who uses which of them now."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence, Set
from typing import Any, Callable

import zmq

from zdev._contract import End

__all__ = [
    "CANNOT_RECEIVE",
    "CANNOT_SEND",
    "CAPTURES",
    "CONTROLS",
    "LATER",
    "STABLE",
    "check_open",
    "check_pair",
    "check_type",
    "claim",
    "join",
    "join_later",
    "name_of",
    "ordered",
    "release",
    "unwatch",
    "watch",
]

CANNOT_SEND = {zmq.SUB, zmq.PULL}
CANNOT_RECEIVE = {zmq.PUB, zmq.PUSH}
STABLE = {
    zmq.PAIR, zmq.PUB, zmq.SUB, zmq.REQ, zmq.REP, zmq.DEALER,
    zmq.ROUTER, zmq.PULL, zmq.PUSH, zmq.XPUB, zmq.XSUB, zmq.STREAM,
}  # fmt: skip
CAPTURES = {zmq.PUB, zmq.XPUB, zmq.PUSH, zmq.PAIR, zmq.DEALER, zmq.ROUTER}
CONTROLS = {
    zmq.PAIR, zmq.REP, zmq.ROUTER, zmq.DEALER, zmq.PULL, zmq.SUB, zmq.XSUB, zmq.XPUB
}  # fmt: skip

LATER: Any = object()
"""Stands for a capture or a control socket that comes when the relay runs already."""

# Which may be joined


def join(
    roles: Sequence[str], frontend: Any, backend: Any, capture: Any, control: Any
) -> dict[str, End]:
    """Check that messages can go between two sockets, beside a capture and a control socket.

    Parameters
    ----------
    roles
        What errors call the four of them.
    frontend, backend, capture, control
        The sockets; the last two may be None, or LATER.

    Returns
    -------
    dict
        The sockets that are there, by role, in this order.
    """
    front, back, side, steer = roles
    ends = {front: _end(frontend, front), back: _end(backend, back)}
    one, other = ends.values()
    is_one = one.handle == other.handle
    check_pair((front, back), one.type, other.type, is_one=is_one)
    for role, socket, kinds in ((side, capture, CAPTURES), (steer, control, CONTROLS)):
        if socket is not None and socket is not LATER:
            ends[role] = join_later(role, socket, kinds, ends)
    return ends


def join_later(role: str, socket: Any, kinds: Set[int], ends: Mapping[str, End]) -> End:
    """Check that a socket can serve beside those that are joined already."""
    end = _end(socket, role)
    check_type(role, end.type, kinds)
    for other_role, taken in ends.items():
        if end.handle == taken.handle:
            raise ValueError(f"{role} is also the {other_role}; give it a socket of its own")
    return end


def check_type(role: str, kind: int, kinds: Set[int] = STABLE) -> None:
    """Raise if a socket of that type cannot serve in a role, which takes those of some kinds."""
    if kind in kinds:
        return
    if kind in STABLE:
        problem = f"{role} is a {name_of(kind)} socket, which cannot serve as one; use"
    elif kind in set(zmq.SocketType):
        problem = f"{role} is of socket type {kind}, which libzmq offers as a draft only; "
        problem += "a device takes"
    else:
        problem = f"{role} {kind} is no socket type; a device takes"
    raise ValueError(f"{problem} {_names(kinds)}")


def check_pair(roles: tuple[str, str], one: int, other: int, *, is_one: bool) -> None:
    """Raise if messages can go neither way between sockets of two types, or of one's as both."""
    if is_one:
        if one in CANNOT_SEND | CANNOT_RECEIVE | {zmq.REQ}:
            raise ValueError(
                f"a {name_of(one)} socket cannot be both {roles[0]} and {roles[1]}: "
                "it does not receive and then send; REP, ROUTER, DEALER or PAIR can"
            )
        return
    kinds = f"{roles[0]} and {roles[1]} are {name_of(one)} and {name_of(other)}"
    there = one not in CANNOT_RECEIVE and other not in CANNOT_SEND
    back = other not in CANNOT_RECEIVE and one not in CANNOT_SEND
    if not there and not back:
        raise ValueError(
            f"{kinds}: no message can go from one to the other; "
            "one must receive and the other send, as PULL and PUSH or XSUB and XPUB do"
        )
    types = {one, other}
    if types in ({zmq.REQ}, {zmq.REP}):
        raise ValueError(f"{kinds}: each waits for the other to send first; REP goes with REQ")
    if types & {zmq.REQ, zmq.REP} and types & CANNOT_RECEIVE:
        raise ValueError(
            f"{kinds}: REQ and REP must send between two receives, and nothing comes back for "
            "them to send; use DEALER or ROUTER"
        )
    if zmq.REP in types and types & CANNOT_SEND:
        raise ValueError(
            f"{kinds}: REP sends nothing but replies, and its requests can go nowhere; "
            "use DEALER or ROUTER"
        )


def name_of(kind: int) -> str:
    """Return the name of a socket type."""
    return zmq.SocketType(kind).name


def _names(kinds: Set[int]) -> str:
    return ", ".join(sorted(map(name_of, kinds)))


def _end(socket: Any, role: str) -> End:
    """Check one socket; what is wrong with it is said in the terms of its role."""
    if not isinstance(socket, zmq.Socket):
        raise TypeError(
            f"{role} must be a zmq.Socket, not {type(socket).__name__}; "
            "make one with zmq.Context().socket(...)"
        )
    check_open(socket, role)
    kind = int(socket.getsockopt(zmq.TYPE))
    check_type(role, kind)
    return End(socket, int(socket.underlying), kind, int(socket.getsockopt(zmq.FD)))


def check_open(socket: zmq.Socket[Any], role: str) -> None:
    """Raise ENOTSOCK if a socket is closed."""
    if socket.closed:
        raise zmq.ZMQError(
            zmq.ENOTSOCK, f"{role} is closed; a device needs its sockets open until it has ended"
        )


# Who uses which

# By the socket's handle. No lock guards these two, but their own operations, which are atomic: a
# lock that another thread holds at a fork would stay locked in the child.
_users: dict[int, object] = {}
_watchers: set[Callable[[Any, Mapping[str, End]], None]] = set()


def ordered(ends: Mapping[str, End]) -> dict[str, End]:
    """Return the sockets in the order in which everybody claims them."""
    return dict(sorted(ends.items(), key=lambda item: item[1].handle))


def claim(ends: Mapping[str, End], user: object) -> None:
    """Enter the sockets as in use, and tell whoever watches that; or say which is in use already.

    What the same user has claimed before, it may claim again. A claim that fails keeps nothing. The
    sockets are in the order of `ordered`, lest two users that share some refuse each other.
    """
    for role, end in ends.items():
        if _users.setdefault(end.handle, user) is not user:
            release(ends, user)
            raise RuntimeError(
                f"{role} is in use by another running relay; "
                "a ZeroMQ socket belongs to one thread at a time"
            )
    if _watchers:
        for tell in _watchers.copy():
            tell(user, ends)


def release(ends: Mapping[str, End], user: object) -> None:
    """Enter the sockets as free, but for those that are another's. Doing it twice does no harm."""
    for end in ends.values():
        if _users.get(end.handle) is user:
            _users.pop(end.handle, None)


def watch(tell: Callable[[Any, Mapping[str, End]], None]) -> None:
    """Be told who comes to use which sockets, on the thread that does so."""
    _watchers.add(tell)


def unwatch(tell: Callable[[Any, Mapping[str, End]], None]) -> None:
    """Be told no more."""
    _watchers.discard(tell)


if hasattr(os, "register_at_fork"):
    # Those who watched are the parent's.
    os.register_at_fork(after_in_child=_watchers.clear)
