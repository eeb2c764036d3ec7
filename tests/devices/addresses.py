"""Addresses, who listens at them, and a device of four roles."""

from __future__ import annotations

import errno
import socket as tcp
from typing import Any

import zmq

from .background import Devices

ROLES = ["in", "out", "mon", "ctrl"]

LOCAL = "tcp://127.0.0.1"


def listens(address: str) -> bool:
    """Tell whether somebody listens there."""
    transport, _, place = address.partition("://")
    with tcp.socket(tcp.AF_UNIX if transport == "ipc" else tcp.AF_INET) as probe:
        if transport == "ipc":
            error = probe.connect_ex(place)
        else:
            host, _, port = place.rpartition(":")
            error = probe.connect_ex((host, int(port)))
    assert error in (0, errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOENT)
    return error == 0


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def steerable(devices: Devices) -> Any:
    return devices("ProxySteerable", zmq.PULL, zmq.PUSH, zmq.PUSH, zmq.REP)
