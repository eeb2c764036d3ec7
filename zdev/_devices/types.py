"""The socket types of a device: taken by number or name, and looked at before there is a socket."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from zdev._names import socket_type
from zdev._sockets import STABLE, check_type

from .methods import Wired

__all__ = ["take_type"]


def take_type(device: Wired, name: str, given: Any, kinds: Set[int] = STABLE) -> None:
    """Give a device the type of one of its sockets, which must be one of these kinds.

    A subclass that does not leave the sockets to zdev may have types of its own. Whether the two
    ends go together is not looked at before the start: programs written for pyzmq may make devices
    that could not relay, and only hold ports by them, as pyzmq's own tests do.

    Parameters
    ----------
    device : Wired
        Gets an attribute of that name.
    name : str
        What errors call it: "in_type" and its kin.
    given : int or str
        The type. Where one socket is both ends, the "out_type" is negative.
    kinds : set of int
        Those that can serve there.
    """
    is_plain = device._is_plain()
    try:
        kind = socket_type(given, name)
    except (TypeError, ValueError):
        if is_plain:
            raise
        kind = given
    setattr(device, name, kind)
    if is_plain and not (name == "out_type" and kind < 0):
        check_type(name, kind, kinds)
