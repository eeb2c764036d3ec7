"""What is to become of one socket of a device: its type, options, binds and connects."""

from __future__ import annotations

import contextlib
import errno
import random
import socket
import weakref
from typing import Any, cast

import zmq

__all__ = [
    "BindError",
    "SocketPlan",
    "attach",
    "bind",
    "check_address",
    "held_ports",
    "hold_random_port",
    "last_endpoint",
    "milliseconds",
    "set_linger",
    "set_option",
]

# Socket.bind_to_random_port's own, in pyzmq.
MIN_PORT, MAX_PORT, MAX_TRIES = 49152, 65536, 100

MAX_INT = 2**31 - 1

held_ports: weakref.WeakSet[socket.socket] = weakref.WeakSet()
"""All that are held for libzmq to take over."""


def check_address(addr: Any, name: str, kinds: tuple[type, ...] = (str, bytes)) -> None:
    """Raise if that is no address; pyzmq takes bytes too."""
    if not isinstance(addr, kinds):
        raise TypeError(
            f"{name}: the address must be a str such as 'tcp://127.0.0.1:5555', "
            f"not {type(addr).__name__}"
        )


class BindError(zmq.ZMQError, zmq.ZMQBindError):
    """A socket of a device could not be bound; ``errno`` says why."""


class SocketPlan:
    """The configuration of one socket, in the order in which it was given."""

    def __init__(self) -> None:
        self.binds: list[str] = []
        self.connects: list[str] = []
        self.sockopts: list[tuple[int, Any]] = []

    def bind(self, addr: str) -> None:
        """Bind the socket to an address, such as ``tcp://127.0.0.1:5555``.

        Before the start, this is noted and done then; while the device runs, it is done at once, on
        the device's own thread, and its error is raised here. See zmq_bind(3).

        Parameters
        ----------
        addr : str
            Where to bind; ``endpoints`` tells what a wildcard such as ``tcp://*:*`` became.
        """
        self.binds.append(addr)

    def connect(self, addr: str) -> None:
        """Connect the socket to an address.

        Before the start, this is noted and done then; while the device runs, it is done at once, on
        the device's own thread, and its error is raised here. See zmq_connect(3).

        Parameters
        ----------
        addr : str
            What to connect to.
        """
        self.connects.append(addr)

    def unbind(self, addr: str) -> None:
        """Undo a bind, before the start or while the device runs. See zmq_unbind(3).

        Parameters
        ----------
        addr : str
            As it was given to bind, or as ``endpoints`` shows it.

        Raises
        ------
        zmq.ZMQError
            ENOENT, if the socket is not bound there.
        """
        self._forget(self.binds, addr)

    def disconnect(self, addr: str) -> None:
        """Undo a connect, before the start or while the device runs. See zmq_disconnect(3).

        Parameters
        ----------
        addr : str
            As it was given to connect.

        Raises
        ------
        zmq.ZMQError
            ENOENT, if the socket is not connected there.
        """
        self._forget(self.connects, addr)

    def setsockopt(self, opt: int, value: Any) -> None:
        """Set an option of the socket. See zmq_setsockopt(3).

        Before the start, this is noted and done then, before any bind or connect; while the device
        runs, it is done at once, on the device's own thread, and its error is raised here.

        Parameters
        ----------
        opt : int
            The option, such as ``zmq.ROUTING_ID``.
        value : int, bytes or str
            ``str`` is set as UTF-8.
        """
        self.sockopts.append((opt, value))

    @staticmethod
    def _forget(addresses: list[str], addr: str) -> None:
        if addr not in addresses:
            known = ", ".join(map(repr, addresses)) or "none"
            raise zmq.ZMQError(errno.ENOENT, f"no such address: {addr!r}; those planned: {known}")
        addresses.remove(addr)


def set_option(target: zmq.Socket[Any], opt: int, value: Any) -> None:
    """Set one option; pyzmq's documentation sets them to ``str``, which pyzmq does not take."""
    try:
        target.setsockopt(opt, value.encode() if isinstance(value, str) else value)
    except zmq.ContextTerminated:
        raise
    except zmq.ZMQError as error:
        raise zmq.ZMQError(error.errno, f"{error.strerror} {_setting(opt, value)}") from error
    except TypeError as error:
        raise TypeError(f"{error} {_setting(opt, value)}") from error


def _setting(opt: Any, value: Any) -> str:
    """Say what was to be set, without what may be a secret."""
    with contextlib.suppress(ValueError):
        opt = zmq.SocketOption(opt).name
    shown = repr(value) if isinstance(value, int) else type(value).__name__
    if isinstance(value, (bytes, str)):
        shown += f" of length {len(value)}"
    return f"(option {opt}, value {shown})"


def milliseconds(seconds: float) -> int:
    """Return seconds as ZMQ_LINGER takes them; what is too much for it is as long as can be."""
    return int(min(seconds * 1000, MAX_INT))


def set_linger(target: zmq.Socket[Any], least: float, most: float | None) -> None:
    """Give unsent messages at least so many seconds; where they have for ever, no more than most.

    What is set at all is set at the last moment, when the socket is about to be closed.
    """
    linger = cast("int", target.getsockopt(zmq.LINGER))
    if linger < 0:
        if most is not None:
            target.setsockopt(zmq.LINGER, milliseconds(max(least, most)))
    elif linger < milliseconds(least):
        target.setsockopt(zmq.LINGER, milliseconds(least))


def last_endpoint(target: zmq.Socket[Any]) -> str:
    """Return where the socket was bound last, as it really is."""
    return cast("bytes", target.getsockopt(zmq.LAST_ENDPOINT)).decode().rstrip("\0")


def bind(target: zmq.Socket[Any], addr: str, held: socket.socket | None = None) -> str:
    """Bind a socket, and return where it is really bound.

    A port that is held goes over to libzmq by ZMQ_USE_FD of zmq_setsockopt(3).
    """
    if held is not None:
        target.setsockopt(zmq.USE_FD, held.fileno())
    try:
        target.bind(addr)
    except zmq.ZMQError as error:
        if error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES):
            raise BindError(error.errno, f"{error.strerror}; choose another address") from error
        raise
    finally:
        if held is not None:
            target.setsockopt(zmq.USE_FD, -1)
    if held is not None:
        held.detach()  # libzmq's from here on
    return last_endpoint(target)


def attach(target: zmq.Socket[Any], verb: str, addr: str) -> None:
    """Connect, disconnect or unbind a socket; pyzmq's error does not always tell which address."""
    try:
        getattr(target, verb)(addr)
    except zmq.ContextTerminated:
        raise
    except zmq.ZMQError as error:
        if repr(addr) in error.strerror:
            raise
        raise zmq.ZMQError(error.errno, f"{error.strerror} (addr={addr!r})") from error


def hold_random_port(
    addr: str, min_port: int = MIN_PORT, max_port: int = MAX_PORT, max_tries: int = MAX_TRIES
) -> socket.socket:
    """Return a socket that listens on a free port, chosen at random, as libzmq itself would.

    libzmq is to take it over later, so that nobody else can have the port meanwhile.

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
        If there are no ports in that range.
    """
    if "://" in addr and not addr.startswith("tcp://"):
        raise zmq.ZMQError(
            errno.EPROTONOSUPPORT,
            f"only tcp has ports: addr must be such as 'tcp://127.0.0.1', not {addr!r}",
        )
    if not 0 <= min_port < max_port <= MAX_PORT:
        raise ValueError(
            f"cannot bind to a random port from min_port={min_port} up to max_port={max_port}, "
            f"excluded: the range must have one and lie between 0 and {MAX_PORT}"
        )
    # libzmq knows what an interface is: a name, a number, or *.
    with zmq.Context() as context, context.socket(zmq.PUSH) as probe:
        probe.linger = 0
        probe.ipv6 = "[" in addr
        probe.bind(f"{addr}:*")
        endpoint = last_endpoint(probe)
    host = endpoint.partition("://")[2].rpartition(":")[0].strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for _ in range(max_tries):
        listener = socket.socket(family, socket.SOCK_STREAM)
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
            held_ports.add(listener)
            return listener
    raise zmq.ZMQBindError(
        f"no free port at {addr} from {min_port} to {max_port - 1} in {max_tries} tries"
    )
