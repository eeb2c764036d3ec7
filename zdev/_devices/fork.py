"""What a forked child inherits of its parent's devices, and lets go."""

from __future__ import annotations

import _socket
import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Iterable
from typing import Any

import zmq

from zdev._threads import close

__all__ = ["inherited_contexts", "let_go"]


def _free_imports() -> None:
    """Have nobody wait for an import in which another thread was when the parent forked.

    That thread is not here to end it. PyPy locks a module for every import, also of one that has
    been imported, and pickle imports the module of each class that it meets: so some thread of
    ours, that listens to a device, is often at it. `test_a_fork_while_another_thread_imports` is.
    There is no public way to do this.
    """
    bootstrap: Any = getattr(importlib, "_bootstrap")  # noqa: B009 - type checkers do not know it
    bootstrap._module_locks.clear()
    bootstrap._blocking_on.clear()


if sys.implementation.name == "pypy" and hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_free_imports)


def inherited_contexts() -> list[zmq.Context[Any]]:
    """Return the contexts of the parent, of which the child has a copy that works no more.

    pyzmq does not tell which process has made a context.
    """
    return [thing for thing in gc.get_objects() if issubclass(type(thing), zmq.Context)]


def let_go(addresses: Iterable[str], held: set[int], kept: set[int]) -> None:
    """Let go of what the parent's devices listen on and have accepted, lest it outlives them.

    A forked child has the sockets of its parent. When a device of the parent ends, its port would
    stay taken until the child ends too, and the device could not start again:
    `test_a_port_of_the_parent_is_free_when_the_parent_leaves_it`. Its peers would not see that they
    are cut off, and lose what they send: `test_accepted_connections_end_with_their_device`. Other
    sockets of the parent, among them its own of ZeroMQ, stay open in the child, as in any fork.

    Parameters
    ----------
    addresses : iterable of str
        Where the parent's devices are bound.
    held : set of int
        Descriptors of the ports that they hold.
    kept : set of int
        Descriptors that the child needs.

    Notes
    -----
    A null device takes their places: descriptors do not change their meaning under their owners.
    """
    names = set(map(_name, addresses))
    with contextlib.suppress(OSError):
        default, null = _socket.getdefaulttimeout(), os.open(os.devnull, os.O_RDWR)
        try:
            for fd in {int(name) for name in os.listdir("/dev/fd")} - kept:
                with contextlib.suppress(OSError):
                    name = _is_at(fd)
                    if name is not None and (fd in held or name in names):
                        os.dup2(null, fd)
        finally:
            _socket.setdefaulttimeout(default)
            close(null)


def _name(address: str) -> int | str | None:
    """Return the port or path of an address, as `_is_at` does."""
    transport, _, place = address.partition("://")
    if transport == "tcp":
        return int(place.rpartition(":")[2])
    return place if transport == "ipc" else None


def _is_at(fd: int) -> int | str | None:
    """Return the port or path of a socket that listens or was accepted there, if it is one."""
    # To look at a socket must not change it, since the parent has it too. A new object makes it
    # block or not as the default is; on PyPy always, on CPython if there is a timeout.
    # `test_a_forked_device_leaves_what_it_inherits_as_it_is` looks at them afterwards.
    _socket.setdefaulttimeout(None if os.get_blocking(fd) else 0.0)
    looked_at = _socket.socket(fileno=fd)
    try:
        if looked_at.getsockopt(_socket.SOL_SOCKET, _socket.SO_TYPE) != _socket.SOCK_STREAM:
            return None
        name = looked_at.getsockname()
    finally:
        looked_at.detach()
    return int(name[1]) if isinstance(name, tuple) else os.fsdecode(name).replace("\0", "@", 1)
