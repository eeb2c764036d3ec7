"""Ports: chosen, and held for libzmq until it has them."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket
import weakref
from multiprocessing import reduction
from typing import Any, cast

import zmq

from zdev._threads import socket_class

__all__ = ["HeldPorts", "held_descriptors", "hold_random_port", "last_endpoint"]

# Socket.bind_to_random_port's own, in pyzmq.
MIN_PORT, MAX_PORT, MAX_TRIES = 49152, 65536, 100


class HeldPort(socket_class):
    """A listening socket that `multiprocessing` hands over as what it is, whatever is patched."""

    __slots__ = ()

    if os.name == "posix":

        def __reduce_ex__(self, _protocol: Any) -> tuple[Any, ...]:
            kind = (int(self.family), int(self.type), self.proto)
            return _handed_over, (reduction.DupFd(self.fileno()), *kind)


def _handed_over(duplicate: Any, family: int, kind: int, proto: int) -> HeldPort:
    return HeldPort(family, kind, proto, fileno=duplicate.detach())


_all_held: weakref.WeakSet[socket.socket] = weakref.WeakSet()


class HeldPorts(dict[str, socket.socket]):
    """Listening sockets by their addresses, for libzmq to take over (ZMQ_USE_FD).

    Between the choice of a free port and the bind to it, anybody could take the port if it was not
    held. `test_nobody_else_gets_the_port` tries.
    """

    def hold(self, addr: str, *args: int, **kwargs: int) -> int:
        """Hold a random port of an interface; takes what `hold_random_port` does."""
        held = hold_random_port(addr, *args, **kwargs)
        _all_held.add(held)
        port = int(held.getsockname()[1])
        self[f"{addr}:{port}"] = held
        return port

    def release(self, *addresses: str) -> None:
        """Let these ports go, or all."""
        for addr in addresses or tuple(self):
            with contextlib.suppress(KeyError):
                self.pop(addr).close()

    def __del__(self) -> None:
        self.release()


def held_descriptors() -> set[int]:
    """Return the descriptors of all ports that are held in this process."""
    return {held.fileno() for held in _all_held}


def hold_random_port(
    addr: str, min_port: int = MIN_PORT, max_port: int = MAX_PORT, max_tries: int = MAX_TRIES
) -> socket.socket:
    """Return a socket that listens on a free port, chosen at random, as libzmq itself would.

    Parameters
    ----------
    addr : str
        An interface without a port, such as ``tcp://127.0.0.1``.
    min_port, max_port : int
        The range to choose from, ``max_port`` excluded.
    max_tries : int
        How many ports to try.

    Raises
    ------
    zmq.ZMQBindError
        If none was free.
    zmq.ZMQError
        If there is no such interface, or it has no ports.
    ValueError
        If there are no ports in that range, or nothing is to be tried.
    """
    if "://" not in addr:
        raise zmq.ZMQError(
            errno.EINVAL, f"the address {addr!r} has no transport; it must be such as 'tcp://*'"
        )
    if not addr.startswith("tcp://"):
        raise zmq.ZMQError(
            errno.EPROTONOSUPPORT,
            f"only tcp has ports: addr must be such as 'tcp://127.0.0.1', not {addr!r}",
        )
    if not 0 <= min_port < max_port <= MAX_PORT:
        raise ValueError(
            f"cannot bind to a random port from min_port={min_port} up to max_port={max_port}, "
            f"excluded: the range must have one and lie between 0 and {MAX_PORT}"
        )
    if max_tries < 1:
        raise ValueError(f"max_tries must be at least 1, not {max_tries}")
    # libzmq knows what an interface is: a name, a number, or *.
    with zmq.Context() as context, context.socket(zmq.PUSH) as probe:
        probe.linger = 0
        probe.ipv6 = "[" in addr
        try:
            probe.bind(f"{addr}:*")
        except zmq.ZMQError as error:
            interface, _, port = addr.rpartition(":")
            if "://" not in interface or not (port.isdigit() or port in ("", "*")):
                raise
            # Not refused before, since there are interfaces that are called eth0:1.
            words = f"the address {addr!r} has a port, which is to be chosen: leave it out, as in"
            raise zmq.ZMQError(error.errno, f"{words} {interface!r}") from error
        endpoint = last_endpoint(probe)
    host = endpoint.partition("://")[2].rpartition(":")[0].strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for _ in range(max_tries):
        listener = HeldPort(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, random.randrange(min_port, max_port)))  # noqa: S311 - no secret
            listener.listen(100)  # ZMQ_BACKLOG's default
        except OSError as error:
            listener.close()
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
        else:
            listener.setblocking(False)
            return listener
    raise zmq.ZMQBindError(
        f"no free port at {addr} from {min_port} to {max_port - 1} in {max_tries} tries"
    )


def last_endpoint(target: zmq.Socket[Any]) -> str:
    """Return where the socket was bound last, as it really is."""
    return cast("bytes", target.getsockopt(zmq.LAST_ENDPOINT)).decode().rstrip("\0")
