"""Socket types, options and types of devices, which may be given by their names, as text."""

from __future__ import annotations

import difflib
import enum
from typing import Any, Union, cast

import zmq

__all__ = ["Named", "device_type", "option", "socket_type"]

Named = Union[int, str]
"""A constant of ``zmq``, or its name in capital or small letters."""


def socket_type(given: Any, name: str) -> int:
    """Return a socket type that is given as ``zmq.ROUTER``, ``"ROUTER"`` or ``"router"``.

    Parameters
    ----------
    given : int or str
        Any number is taken for one.
    name : str
        What errors call it.

    Raises
    ------
    TypeError
        If it is neither a number nor a name.
    ValueError
        If no socket type has that name.
    """
    if isinstance(given, zmq.Socket):
        raise TypeError(
            f'{name} must be a socket type such as zmq.ROUTER or "ROUTER", not a socket; '
            "a device makes its sockets itself"
        )
    return _number(given, name, "socket type", zmq.SocketType, "ROUTER")


def option(given: Any, name: str) -> int:
    """Return a socket option that is given by number or name; see `socket_type`."""
    return _number(given, name, "socket option", zmq.SocketOption, "ROUTING_ID")


def device_type(given: Any, name: str) -> int:
    """Return a type of device that is given by number or name; see `socket_type`.

    Raises
    ------
    ValueError
        Also for a number that is none.
    """
    kinds = zmq.DeviceType
    number = _number(given, name, "device type", kinds, "QUEUE")
    if number not in set(kinds):
        known = ", ".join(f"zmq.{kind.name}" for kind in kinds)
        raise ValueError(f"{name} must be one of {known}, not {number}")
    return number


def _number(given: Any, name: str, what: str, kinds: type[enum.IntEnum], example: str) -> int:
    if isinstance(given, str):
        members = kinds.__members__
        if given.upper() not in members:
            close = difflib.get_close_matches(given.upper(), members, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"one is {example!r}"
            raise ValueError(f"{name}: there is no {what} {given!r}; {hint}")
        return members[given.upper()]
    if not hasattr(given, "__index__"):
        raise TypeError(
            f'{name} must be a {what} such as zmq.{example} or "{example}", '
            f"not {type(given).__name__}"
        )
    return cast("int", given)
