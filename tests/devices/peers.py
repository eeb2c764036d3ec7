"""Peers without libzmq, who see at once what becomes of their connections."""

from __future__ import annotations

import errno
import socket as raw
from typing import Any

from ..support import DEADLINE


def frame(flags: int, body: bytes) -> bytes:
    return bytes([flags, len(body)]) + body


def greeting(kind: bytes, command: bytes = b"READY") -> bytes:
    """Return what a peer of that type says first: ZMTP 3.0, without security."""
    start = b"\xff" + bytes(8) + b"\x7f\x03\0" + b"NULL".ljust(20, b"\0") + bytes(32)
    ready = b"\x05" + command + b"\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind
    return start + frame(4, ready)


class Peer:
    """A peer without libzmq, that sees at once whether its connection is closed."""

    def __init__(self, connection: raw.socket, says: bytes) -> None:
        self.connection = connection
        connection.settimeout(DEADLINE)
        connection.sendall(says)

    def shake_hands(self) -> None:
        """Return when the device takes it for a peer."""
        said = b""
        while b"Socket-Type" not in said:
            said += self.connection.recv(4096)

    def send(self, message: bytes) -> None:
        self.connection.sendall(frame(0, message))

    def is_cut_off(self) -> bool:
        """Tell whether it is so now, without waiting for it."""
        self.connection.setblocking(False)
        try:
            while self.connection.recv(4096):
                pass
        except OSError as error:
            return error.errno == errno.ECONNRESET
        return True


def place(address: str) -> tuple[int, Any]:
    transport, _, where = address.partition("://")
    if transport == "ipc":
        return raw.AF_UNIX, where.replace("@", "\0")
    host, _, port = where.rpartition(":")
    return raw.AF_INET, (host, int(port))


def connected(address: str, kind: bytes, says: bytes | None = None) -> Peer:
    """Return a peer of that type, or one that says something else."""
    family, where = place(address)
    connection = raw.socket(family)
    connection.settimeout(DEADLINE)
    connection.connect(where)
    return Peer(connection, greeting(kind) if says is None else says)
