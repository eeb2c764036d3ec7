"""The pyzmq binding: the Python loop where libzmq's own symbols are out of reach."""

from __future__ import annotations

import threading

import zmq

from zdev._contract import End, Settings

from .binding import system_clock, system_poll
from .loop import PythonLoop

__all__ = ["PyzmqEngine"]

EMPTY = zmq.Frame()


class Message:
    """A slot for a frame."""

    __slots__ = ("frame", "more")

    def __init__(self) -> None:
        self.frame = EMPTY
        self.more = 0


class PyzmqEngine:
    """Makes Python loops over ``zmq.Socket`` and ``zmq.Frame``, and is their binding."""

    name = "pyzmq"

    def __init__(self) -> None:
        self._failure = threading.local()
        self.poll = system_poll
        self.clock = system_clock

    def loop(self, settings: Settings) -> PythonLoop:
        """Make the loop of a relay."""
        return PythonLoop(self, settings)

    def socket(self, end: End) -> zmq.Socket[bytes]:
        """Return a plain socket over the same handle: asyncio's and gevent's behave otherwise."""
        return zmq.Socket.shadow(end.handle)

    def message(self) -> Message:
        """Make an empty message."""
        return Message()

    def errno(self) -> int:
        """Return why the call before failed."""
        return int(self._failure.errno)

    def recv(self, message: Message, socket: zmq.Socket[bytes], flags: int) -> int:
        """Receive a frame."""
        try:
            message.frame = frame = socket.recv(flags, copy=False)
            # Frame.more is always False in pyzmq's CFFI backend
            message.more = int(socket.getsockopt(zmq.RCVMORE))
        except zmq.ZMQError as error:
            self._failure.errno = error.errno
            return -1
        return len(frame)

    def send(self, message: Message, socket: zmq.Socket[bytes], flags: int) -> int:
        """Send a frame."""
        frame = message.frame
        try:
            socket.send(frame, flags, copy=False)
        except zmq.ZMQError as error:
            self._failure.errno = error.errno
            return -1
        message.frame = EMPTY
        return 0

    def more(self, message: Message) -> int:
        """Tell whether more frames follow."""
        return message.more

    def size(self, message: Message) -> int:
        """Return the size of the frame."""
        return len(message.frame)

    def copy(self, to: Message, message: Message) -> int:
        """Share a frame: to send one does not take it away."""
        to.frame = message.frame
        return 0

    def empty(self, message: Message) -> None:
        """Release what the message holds."""
        message.frame = EMPTY

    def fill(self, message: Message, data: bytes) -> int:
        """Put the data into an empty message."""
        # Without a copy, pyzmq would start a thread and a context of its own to free the data.
        message.frame = zmq.Frame(data, copy=True)
        return 0

    def data(self, message: Message) -> bytes:
        """Return what the message holds."""
        return message.frame.bytes

    def events(self, socket: zmq.Socket[bytes]) -> int:
        """Return ZMQ_EVENTS, or -1."""
        try:
            return int(socket.getsockopt(zmq.EVENTS))
        except zmq.ZMQError as error:
            self._failure.errno = error.errno
            return -1
