"""What a device may leave behind: threads, processes, descriptors, addresses."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import threading
from pathlib import Path
from typing import Any

import zmq

from ..support import Network, wait_until


class Census:
    """What the process has, to see later whether it has come to have more."""

    def __init__(self, net: Network) -> None:
        net.socket(zmq.PAIR)  # with the first socket come libzmq's threads
        self.threads = set(threading.enumerate())
        self.descriptors = descriptors()

    def nothing_new(self) -> None:
        assert set(threading.enumerate()) <= self.threads
        assert not multiprocessing.active_children()
        # libzmq's reaper has the last word of a socket, and nothing tells when it has said it.
        wait_until(lambda: descriptors() <= self.descriptors)


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def holders(address: str) -> str:
    """Tell which TCP sockets of this machine are at a port, as far as the system tells."""
    port, table = address.rpartition(":")[2], Path("/proc/net/tcp")
    if not (port.isdigit() and table.exists()):
        return f"nobody knows who has {address}"
    lines = [line.split()[1:4] for line in table.read_text().splitlines()[1:]]
    there = [line for line in lines if f":{int(port):04X}" in (line[0][8:], line[1][8:])]
    return f"at {address}, which is :{int(port):04X}, are (local, remote, state) {there}"


def can_bind(net: Network, address: str) -> bool:
    """Tell whether an address is free, right now."""
    transport, _, place = address.partition("://")
    if transport == "inproc":
        with net.context.socket(zmq.PULL) as user, contextlib.suppress(zmq.ZMQError):
            user.bind(address)
            user.unbind(address)
            return True
        return False
    family: int = socket.AF_UNIX
    where: Any = place.replace("@", "\0")
    if transport == "tcp":
        host, _, port = place.rpartition(":")
        family, where = socket.AF_INET, (host, int(port))
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(where)
        except OSError:
            return False
        listener.listen()
        return True
