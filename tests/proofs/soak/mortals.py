"""Peers in processes of their own, which are killed in the midst of a message."""

from __future__ import annotations

import array
import contextlib
import fcntl
import random
import socket
import subprocess
import sys
import termios
import time

from .messages import make, tally

__all__ = ["Mortal", "raw_sender", "zmq_peer"]

# Seconds for what takes no time.
SOON = 10.0

# ZMTP 3.0, from rfc.zeromq.org/spec/23
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
MORE, LONG, COMMAND = 1, 2, 4


class Mortal:
    """A process, to be killed."""

    def __init__(self, name: str, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.process = process

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(SOON)
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.close()
        tally("kills")


def _frame(data: bytes, flags: int) -> bytes:
    if len(data) < 256:
        return bytes([flags, len(data)]) + data
    return bytes([flags | LONG]) + len(data).to_bytes(8, "big") + data


def _take(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise ConnectionError("the device hung up on a handshake")
        data += more
    return data


def _connected(endpoint: str) -> socket.socket:
    transport, _, place = endpoint.partition("://")
    family = socket.AF_INET if transport == "tcp" else socket.AF_UNIX
    connection = socket.socket(family, socket.SOCK_STREAM)
    connection.settimeout(SOON)
    host, _, port = place.rpartition(":")
    try:
        connection.connect((host, int(port)) if transport == "tcp" else place)
    except OSError:
        connection.close()
        raise
    return connection


def raw_sender(
    rng: random.Random, endpoint: str, kind: str, sender: int, envelope: list[bytes]
) -> Mortal:
    """Start a peer that sends some messages, and one that it will not come to the end of.

    It speaks ZMTP itself, so that what it has sent stops where we like; libzmq hands nothing of a
    message to the network before it is whole. Once hands are shaken, `cat` has the connection: to
    start that takes no time.
    """
    connection = _connected(endpoint)
    with connection:
        ready = b"\x05READY\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind.encode()
        connection.sendall(GREETING)
        _take(connection, len(GREETING))
        connection.sendall(_frame(ready, COMMAND))
        _take(connection, _take(connection, 2)[1])
        connection.settimeout(None)
        process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=connection.fileno())
    data = b""
    for number in range(rng.randrange(4)):
        frames = [*envelope, *make(rng, sender, number)]
        for place, frame in enumerate(frames):
            data += _frame(frame, MORE if place < len(frames) - 1 else 0)
    data = data[:0] if len(data) > 40_000 else data
    for _ in range(rng.randrange(1, 20)):
        data += _frame(b"of a message that has no end", MORE)
    data += rng.choice([b"", b"\x01", bytes([MORE, 200]) + b"half a frame"])
    assert process.stdin is not None
    process.stdin.write(data)  # less than a pipe holds
    process.stdin.flush()
    if rng.random() < 0.7:  # let it get through
        left = array.array("i", [1])
        deadline = time.monotonic() + 0.5  # or not, while the device reads nothing
        while left[0] and time.monotonic() < deadline:
            fcntl.ioctl(process.stdin, termios.FIONREAD, left)
            time.sleep(0.001)
    return Mortal(f"raw {kind}", process)


ZMQ_PEER = """
import os, random, sys, time, zmq
from tests.proofs.soak.messages import make
kind, endpoint, sender, parent = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
context = zmq.Context()
peer = context.socket(getattr(zmq, kind))
peer.linger, peer.sndhwm, peer.rcvhwm = 0, 10, 2
peer.sndtimeo = peer.rcvtimeo = 500
peer.connect(endpoint)
rng = random.Random(sender)
number = 0
while os.getppid() == parent:
    try:
        if kind in ("PUSH", "PUB"):
            peer.send_multipart(make(rng, sender, number))
            number += 1
            if number % 20 == 0:
                time.sleep(0.01)
        else:
            peer.recv_multipart()
    except zmq.Again:
        pass
os._exit(0)
"""


def zmq_peer(endpoint: str, kind: str, sender: int, parent: int) -> Mortal:
    """Start a peer that sends, or receives, until it is killed: wherever it is then."""
    process = subprocess.Popen(
        [sys.executable, "-c", ZMQ_PEER, kind, endpoint, str(sender), str(parent)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    return Mortal(f"zmq {kind}", process)
