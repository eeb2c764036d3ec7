"""A socket of a command's own, which knows what becomes of its connections."""

from __future__ import annotations

import math
import struct
import time
from types import TracebackType
from typing import Any

import zmq

from zdev._connections import Connections, Count
from zdev._devices.addresses import check_endpoint, transport_of
from zdev._times import MAIN_THREAD_LOOK

__all__ = ["Client"]


class Client:
    """A socket that is connected or bound to one address, for a command of one thread.

    A connect succeeds whatever is there, or nothing. What is known of the other end comes as events
    of libzmq's socket monitor, which `wait` takes in.

    Parameters
    ----------
    kind : int
        The socket's type.
    address : str
        Where the other end is.
    bind : bool
        Whether the other end connects.
    options : dict
        Socket options by their names in lower case, set before.

    Raises
    ------
    zmq.ZMQError
        If that is no address, or cannot be bound.
    """

    def __init__(self, kind: int, address: str, *, bind: bool = False, **options: int) -> None:
        check_endpoint("ADDR", address, connects=not bind)
        if transport_of(address) == "inproc":
            words = "is within another process, which nothing reaches from here; use ipc or tcp"
            raise zmq.ZMQError(zmq.EPROTONOSUPPORT, f"ADDR: {address!r} {words}")
        self._count = Count(kind)
        self.heard = 0
        """How many events were taken in: `connections` is what it was while this is."""
        self._context: zmq.Context[Any] = zmq.Context()
        try:
            self.socket = self._context.socket(kind)
            self.socket.linger = 0
            # A connection whose other end is gone without a word would be waited on for ever.
            self.socket.tcp_keepalive = 1
            self.socket.tcp_keepalive_idle = 30
            self.socket.tcp_keepalive_intvl = 10
            self.socket.tcp_keepalive_cnt = 3
            self.socket.ipv6 = "[" in address  # else a name that has both is looked for there only
            for name, value in options.items():
                setattr(self.socket, name, value)
            self._monitor = self.socket.get_monitor_socket()
            self.poller = zmq.Poller()
            self.poller.register(self._monitor, zmq.POLLIN)
            self.poller.register(self.socket, zmq.POLLIN)
            (self.socket.bind if bind else self.socket.connect)(address)
            self.address = self.socket.getsockopt_string(zmq.LAST_ENDPOINT) if bind else address
        except BaseException:
            self._context.destroy(linger=0)
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self, linger: float = 0.0) -> None:
        """Close it; first send what is still to be sent, for so many seconds at most."""
        self._context.destroy(linger=int(linger * 1000))

    @property
    def connections(self) -> Connections:
        """What is known of the other end."""
        return self._count.now()

    def wait(self, seconds: float) -> dict[Any, int]:
        """Wait until anything is to be had, for so long at most, and take in what is told.

        It may return earlier: a signal that came just before the wait would find nobody to wake,
        and Ctrl-C would end the command no sooner than something comes.

        Returns
        -------
        dict
            What is ready, by the socket or the descriptor that was registered.
        """
        milliseconds = math.ceil(min(max(seconds, 0.0), MAIN_THREAD_LOOK) * 1000)
        ready = dict(self.poller.poll(milliseconds))
        if ready.pop(self._monitor, 0):
            self.hear()
        return ready

    def receive(self) -> list[bytes] | None:
        """Return the next message, or None where there is none.

        It looks first, since Ctrl-C may be lost that comes while pyzmq raises `zmq.Again`: some of
        its wheels note the error's place by a piece of Python, and drop what a signal's handler
        raises there.
        """
        if int(self.socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            return self.socket.recv_multipart(zmq.DONTWAIT)
        return None

    def wait_for_peer(self, deadline: float) -> bool:
        """Wait until somebody is there, or has been and failed; return whether somebody is."""
        while not (self.connections.peers or self.connections.failed):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self.wait(left)
        return bool(self.connections.peers)

    def hear(self) -> None:
        """Take in what is told of the connections."""
        while self._monitor.poll(0):
            event, address = self._monitor.recv_multipart()
            self.heard += 1
            number, value = struct.unpack("=Hi", event[:6])
            self._count.hear(zmq.Event(number), value, address.decode(errors="replace"))
