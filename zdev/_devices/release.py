"""Gives back what libzmq gives back in its own time: contexts and addresses."""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Iterable
from typing import Any

import zmq

from .plan import milliseconds

__all__ = ["await_unbound", "end_context"]


def end_context(context: zmq.Context[Any] | None, linger: float, with_others: bool) -> None:
    """Terminate a context.

    Parameters
    ----------
    context : zmq.Context
        It may be terminated already, but not just now: then it would be gone under our hands.
    linger : float
        Seconds for what its sockets still have to send.
    with_others : bool
        Do so even if somebody else has sockets of it, which a subclass may have given away.
    """
    if context is None or context.closed:
        return
    sockets = list(getattr(context, "_sockets", ()))
    if not with_others and any(not other.closed for other in sockets):
        return
    context.destroy(linger=milliseconds(linger))


def await_unbound(addresses: Iterable[str], patience: float) -> None:
    """Wait until libzmq has given back the addresses of sockets that are closed.

    zmq_close(3) returns before, and nothing tells when; it is a matter of microseconds.
    """
    deadline = time.monotonic() + patience
    for address in addresses:
        while _in_use(address) and time.monotonic() < deadline:
            time.sleep(0.0005)


def _in_use(address: str) -> bool:
    """Tell whether somebody listens there."""
    transport, _, place = address.partition("://")
    if transport == "tcp":
        host, _, port = place.rpartition(":")
        with contextlib.suppress(OSError):
            found = socket.getaddrinfo(host.strip("[]"), int(port), flags=socket.AI_NUMERICHOST)
            return not _can_bind(found[0][0], found[0][4])
    elif transport == "ipc" and place.startswith("@"):
        return not _can_bind(socket.AF_UNIX, "\0" + place[1:])
    return False  # libzmq binds to the path of an ipc socket whoever listens there


def _can_bind(family: int, address: Any) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True
