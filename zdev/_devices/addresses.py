"""Addresses: what can be said of one where it is given, before a socket is asked."""

from __future__ import annotations

import errno
import re
import sys
from typing import Any

import zmq

__all__ = ["check_address", "check_endpoint", "text_of", "transport_of"]

TRANSPORTS = (
    *("tcp", "ipc", "inproc", "ws", "wss", "udp"),
    *("pgm", "epgm", "norm", "tipc", "vmci", "hyperv", "vsock"),
)
"""Those of any libzmq; which of them this one has, it says itself."""

_EXAMPLES = "addresses are such as 'tcp://127.0.0.1:5555' or 'ipc:///tmp/socket'"

MAX_PORT = 65535

MAX_PATH = getattr(zmq, "IPC_PATH_MAX_LEN", 0) or (107 if sys.platform == "linux" else 0)
"""Bytes of a path for ipc; pyzmq knows on CPython only. 0: not known."""


def check_address(method: str, addr: Any, kinds: tuple[type, ...] = (str, bytes)) -> None:
    """Raise if that is no address; pyzmq takes bytes too."""
    if not isinstance(addr, kinds):
        raise TypeError(
            f"{method}: the address must be a str such as 'tcp://127.0.0.1:5555', "
            f"not {type(addr).__name__}"
        )


def check_endpoint(method: str, addr: str | bytes, *, connects: bool = False) -> None:
    """Raise if no socket can be bound or connected there, whatever the state of the machine.

    Refused is what libzmq refuses, with its error numbers, and what it takes for something else:
    of port 70000 it leaves 4464, and what is connected to port 0 waits for ever.

    Parameters
    ----------
    method : str
        What errors say has been called.
    addr : str or bytes
        The address.
    connects : bool
        Whether the address is to be connected to, where wildcards mean nothing.

    Raises
    ------
    zmq.ZMQError
        EINVAL, EPROTONOSUPPORT or ENAMETOOLONG.
    ValueError
        For text that is not UTF-8.
    """
    try:
        raw = addr.encode() if isinstance(addr, str) else addr
        text = raw.decode()
    except UnicodeError as error:
        words = f"{method}: the address {addr!r} is not UTF-8"
        raise ValueError(f"{words}, as pyzmq has them; use another") from error
    if b"\0" in raw:  # where C ends the text
        raise _error(errno.EINVAL, method, addr, "has a NUL in it", "leave it out")
    transport, colon, place = text.partition("://")
    if not colon or not transport:
        hint = _EXAMPLES
        if re.search(r":\d+$", text):
            hint = f"did you mean 'tcp://{place or text}'?"
        raise _error(errno.EINVAL, method, addr, "has no transport", hint)
    if transport not in TRANSPORTS:
        hint = f"use {', '.join(TRANSPORTS[:3])}"
        if transport.lower() in TRANSPORTS:
            hint = f"write {transport.lower()}"
        words = f"has the transport {transport!r}, which libzmq does not know"
        raise _error(errno.EPROTONOSUPPORT, method, addr, words, hint)
    if not place:
        raise _error(errno.EINVAL, method, addr, "says nothing behind the transport", _EXAMPLES)
    if transport == "ipc":
        if 0 < MAX_PATH < len(raw) - len("ipc://"):
            words = f"has a path of more than {MAX_PATH} bytes"
            raise _error(errno.ENAMETOOLONG, method, addr, words, "use a shorter one")
    elif transport == "tcp":
        wrong = _wrong_port(place.rpartition(":")[2] if ":" in place else "", connects)
        if wrong:
            raise _error(errno.EINVAL, method, addr, *wrong)


def _wrong_port(port: str, connects: bool) -> tuple[str, str] | None:
    """Say what is wrong with a port, and what to do; libzmq reads a number from its beginning."""
    ports = f"ports are from 1 to {MAX_PORT}"
    if port == "*":
        return ("has no port to connect to", ports) if connects else None
    number = re.match(r"\s*\+?(\d+)(?![\w.:-])", port)
    if number is None:
        hint = ports if connects else f"{ports}, and * is any that is free"
        return ("has no port" if not port else f"has no port, but {port!r}"), hint
    if int(number[1]) > MAX_PORT:
        return f"has the port {number[1]}", ports
    if connects and int(number[1]) == 0:
        return "has no port to connect to, but 0", ports
    return None


def transport_of(addr: str | bytes) -> str:
    """Return the transport of an address."""
    return text_of(addr).partition("://")[0]


def text_of(addr: str | bytes) -> str:
    """Return an address as text."""
    return addr if isinstance(addr, str) else addr.decode(errors="replace")


def _error(number: int, method: str, addr: Any, what: str, hint: str) -> zmq.ZMQError:
    return zmq.ZMQError(number, f"{method}: the address {addr!r} {what}; {hint}")
