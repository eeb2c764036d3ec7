"""What is said to a control socket, as zmq_proxy_steerable(3) has it, and what it answers.

It may be zdev's, or that of any proxy that keeps to the same protocol. Nothing of it tells which.
"""

from __future__ import annotations

import itertools
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple

import zmq

from zdev.cli._client import Client

__all__ = [
    "AUTO",
    "COMMANDS",
    "COUNTS",
    "TYPES",
    "NotAllowedError",
    "NotAnsweredError",
    "Outcome",
    "WrongAnswerError",
    "steer",
]

COMMANDS = ("pause", "resume", "terminate", "statistics")

COUNTS = (
    "frontend_frames_received",
    "frontend_bytes_received",
    "frontend_frames_sent",
    "frontend_bytes_sent",
    "backend_frames_received",
    "backend_bytes_received",
    "backend_frames_sent",
    "backend_bytes_sent",
)
"""What STATISTICS tells, in this order."""

TYPES = {
    "REQ": "REP or ROUTER",
    "DEALER": "DEALER",
    "PAIR": "PAIR",
    "XSUB": "XPUB",
    "PUSH": "PULL",
    "PUB": "SUB or XSUB",
}
"""Which type of socket is for which control sockets."""

AUTO = ("REQ", "DEALER", "PAIR", "XSUB")
"""Those that are tried: they can tell by an answer that a proxy is there. A PUSH or a PUB cannot,
and who mistypes an address would send TERMINATE to a worker, as data."""

LARGEST = 4096  # bytes of a frame; those of an answer have 8 at most
SHUT_OUT = {
    "credentials": "wants CURVE or PLAIN, which this command has not; give it a control socket "
    "without, on ipc or 127.0.0.1",
    "refused": "does not let this command in",
}
"""What no other try would change."""

AGAIN = 0.1  # seconds, after which types are tried again that all were refused
PARTING = 0.5  # seconds in which one that was told to end answers or leaves, if it does either
STATISTICS = b"STATISTICS"


class NotAnsweredError(Exception):
    """Time ran out; the message says what is known of the other end."""


class WrongAnswerError(Exception):
    """What answered is no proxy."""


class NotAllowedError(Exception):
    """The other end lets in others, or wants credentials that this command has not."""


class Outcome(NamedTuple):
    """What became of a command."""

    type: str
    """The type of socket with which the other end was reached."""
    answered: bool
    """Whether the command itself was answered."""
    statistics: dict[str, int] | None
    """What STATISTICS told, if that was the command."""


def steer(address: str, command: str, kind: str | None, timeout: float) -> Outcome:
    """Say a command to a control socket.

    Parameters
    ----------
    address : str
        Where it is.
    command : str
        One of `COMMANDS`.
    kind : str or None
        The type of socket to use, of `TYPES`; None tries those in `AUTO`.
    timeout : float
        Seconds for all of it.

    Raises
    ------
    NotAnsweredError
        If time ran out.
    WrongAnswerError
        If what is there is no control socket.
    NotAllowedError
        If it wants other credentials.
    zmq.ZMQError
        If that is no address.
    """
    deadline = time.monotonic() + timeout
    kinds = [kind] if kind else [*AUTO]
    failures: set[str] = set()
    connected = False
    for name in itertools.cycle(kinds):
        number = zmq.XPUB if name == "PUB" else zmq.SocketType[name]  # that sees subscriptions
        with Client(number, address, maxmsgsize=LARGEST) as client:
            if client.wait_for_peer(deadline):
                return _say(client, name, command.upper().encode(), deadline)
            known = client.connections
            connected |= known.connected > 0
            failures |= known.failed.keys()
            for cause in failures & SHUT_OUT.keys():
                raise NotAllowedError(f"the other end {SHUT_OUT[cause]}")
            if name == kinds[-1]:
                client.wait(min(AGAIN, deadline - time.monotonic()))
        if time.monotonic() >= deadline:
            break
    raise NotAnsweredError(_why_nobody(connected, failures, kind))


def _why_nobody(connected: bool, failures: set[str], kind: str | None) -> str:
    """Say what may be wrong where no connection came about."""
    nothing = "nothing was sent"
    if not connected:
        return f"{nothing}: nothing listens there, or something is in between"
    if "protocol" in failures:
        return f"{nothing}: what listens there does not speak ZeroMQ's protocol"
    if not failures:
        return f"{nothing}: what listens there took the connection and says nothing"
    if kind:
        words = f"a {kind} reaches {TYPES[kind]} only; leave --type out to have others tried"
    else:
        reached = ", ".join(TYPES[name] for name in AUTO)
        words = f"it is none of {reached}; for a PULL say --type PUSH, for a SUB or XSUB --type PUB"
    return (
        f"{nothing}: the other end breaks off every connection. If it is a control socket, {words}"
    )


def _say(client: Client, name: str, command: bytes, deadline: float) -> Outcome:
    """Say a command to somebody who is there."""
    said = command.decode()
    if name in ("PUSH", "PUB"):
        if name == "PUB":
            _await_subscription(client, command, deadline)
        _send(client, command, deadline)
        client.close(_left(deadline) / 1000)
    elif name == "REQ":
        for answer in _ask(client, command, deadline):
            if command == STATISTICS:
                counts = _counts(answer)
                if counts is not None:
                    return Outcome(name, True, counts)
            elif answer == [b""]:
                return Outcome(name, True, None)
            raise WrongAnswerError(f"what is there answered {said} as no proxy does")
        lost = ", but the connection was lost then" if client.connections.disconnected else ""
        raise NotAnsweredError(
            f"{said} was sent{lost}; it may be obeyed all the same. If this is a proxy's control "
            "socket, the proxy is stuck; libzmq's own hears no ROUTER"
        )
    else:
        # These answer STATISTICS alone. Without an answer, the command would be said to nobody: a
        # PAIR that has another peer takes the connection all the same.
        if name == "XSUB":
            client.socket.send(b"\x01")
        counts = _ask_counts(client, deadline)
        if counts is None:
            unsaid = "" if command == STATISTICS else f", so {said} was not sent"
            raise NotAnsweredError(
                f"STATISTICS was sent and not answered{unsaid}. If this is a proxy's control "
                "socket, the proxy is stuck, or the socket has another peer; a monitor answers "
                "nothing"
            )
        if command == STATISTICS:
            return Outcome(name, True, counts)
        _send(client, command, deadline)
        _stay(client, command, deadline)
    return Outcome(name, False, None)


def _send(client: Client, command: bytes, deadline: float) -> None:
    """Send, at the latest in what time is left."""
    client.socket.sndtimeo = _left(deadline)
    try:
        client.socket.send(command)
    except zmq.Again as error:
        raise NotAnsweredError(f"{command.decode()} was not sent: nobody is there now") from error


def _ask(client: Client, command: bytes, deadline: float) -> Iterator[list[bytes]]:
    """Send, and yield what comes until time runs out."""
    _send(client, command, deadline)
    while time.monotonic() < deadline:
        if client.wait(deadline - time.monotonic()).get(client.socket):
            yield client.socket.recv_multipart(zmq.DONTWAIT)


def _ask_counts(client: Client, deadline: float) -> dict[str, int] | None:
    """Ask for the counts, and pass over all else that comes; None if time runs out."""
    found = map(_counts, _ask(client, STATISTICS, deadline))
    return next((counts for counts in found if counts is not None), None)


def _stay(client: Client, command: bytes, deadline: float) -> None:
    """Stay until a command was read.

    libzmq 4.3.5's own proxies answer every command, whatever type their control socket has, and
    hang for ever in that if nobody is there to take it.
    """
    if command != b"TERMINATE":
        if _ask_counts(client, deadline) is None:
            words = "was sent; but STATISTICS behind it was not answered, though it was before it"
            raise NotAnsweredError(f"{command.decode()} {words}")
        return
    parting = min(deadline, time.monotonic() + PARTING)
    while time.monotonic() < parting and not client.connections.disconnected:
        if client.wait(parting - time.monotonic()).get(client.socket):
            break
    client.close(_left(deadline) / 1000)


def _await_subscription(client: Client, command: bytes, deadline: float) -> None:
    """Wait until somebody has subscribed to the command; a PUB says it to nobody before."""
    while time.monotonic() < deadline:
        if client.wait(deadline - time.monotonic()).get(client.socket):
            told = client.socket.recv(zmq.DONTWAIT)
            if told[:1] == b"\x01" and command.startswith(told[1:]):
                return
    raise NotAnsweredError(f"{command.decode()} was not sent: nobody there has subscribed to it")


def _counts(answer: list[bytes]) -> dict[str, int] | None:
    """Read an answer to STATISTICS; None if it is none."""
    if len(answer) != len(COUNTS) or any(len(frame) != 8 for frame in answer):
        return None
    # In the byte order of the machine, as libzmq has it: that of the other end is not told.
    return {name: struct.unpack("=Q", frame)[0] for name, frame in zip(COUNTS, answer)}


def _left(deadline: float) -> int:
    """Return how many milliseconds are left, at least one."""
    return max(int((deadline - time.monotonic()) * 1000), 1)
