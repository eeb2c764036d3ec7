"""Socket options: what can be said of one where it is given, before a socket is asked."""

from __future__ import annotations

import contextlib
import errno
from typing import Any

import zmq

from zdev import _names
from zdev._secrets import Secret

from .security import SECRETS

__all__ = ["checked_option", "setting", "takes_int"]

READ_ONLY = {
    zmq.TYPE, zmq.EVENTS, zmq.FD, zmq.RCVMORE, zmq.LAST_ENDPOINT, zmq.MECHANISM, zmq.THREAD_SAFE
}  # fmt: skip

BITS = {"int": 32, "int64": 64, "fd": 64}


def checked_option(method: str, opt: Any, value: Any) -> tuple[int, Any]:
    """Return an option's number and the value that it is to be set to, or raise what is wrong.

    Whether the socket will take the value, libzmq says.

    Parameters
    ----------
    method : str
        What errors say has been called.
    opt : int or str
        The option, by number or name. Of numbers that pyzmq does not know, libzmq may.
    value : int, bytes or str
        The value, of the option's type.

    Raises
    ------
    TypeError, ValueError
        For what is no option, and for a value of another type or of more bits than the option's.
    zmq.ZMQError
        EINVAL, for an option that cannot be set.
    """
    number = _names.option(opt, f"{method}: opt")
    if number in READ_ONLY:
        raise zmq.ZMQError(
            errno.EINVAL, f"{method}: an option to read only {setting(number, value)}"
        )
    if number == zmq.HWM:
        raise zmq.ZMQError(
            errno.EINVAL, f"{method}: libzmq has no HWM any more; set SNDHWM and RCVHWM"
        )
    if not 0 <= number < 1 << 31:
        raise ValueError(f"{method}: opt: there is no socket option {number}")
    bits = _bits(number)
    if bits is None:
        if not isinstance(value, (bytes, str)):
            words = f"{method}: the value must be bytes or str {setting(number, value)}"
            raise TypeError(words)
    elif not isinstance(value, int):
        raise TypeError(f"{method}: the value must be an int {setting(number, value)}")
    elif not -(1 << bits - 1) <= value < 1 << bits - 1:
        raise ValueError(f"{method}: the value must fit into {bits} bits {setting(number, value)}")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            words = f"{method}: the value is text that UTF-8 cannot hold {setting(number, value)}"
            raise ValueError(words) from None
    if number in SECRETS:
        value = Secret(value.encode() if isinstance(value, str) else value)
    return number, value


def takes_int(number: int) -> bool:
    """Tell whether an option's value is a number, and not bytes."""
    return _bits(number) is not None


def _bits(number: int) -> int | None:
    """Return how many bits the value of an option has; None if it is bytes."""
    try:
        return BITS.get(zmq.SocketOption(number)._opt_type.name)
    except ValueError:  # pyzmq does not know it, and takes it to be an int
        return BITS["int"]


def setting(opt: int, value: Any) -> str:
    """Say what was to be set, without what may be a secret."""
    name: Any = opt
    with contextlib.suppress(ValueError):
        name = zmq.SocketOption(opt).name
    shown = repr(value) if isinstance(value, int) else type(value).__name__
    if isinstance(value, (bytes, str)):
        shown += f" of length {len(value)}"
    return f"(option {name}, value {shown})"
