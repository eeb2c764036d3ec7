"""The ctypes binding: the Python loop on CPython, where the extension is missing."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

from zdev._contract import End, Settings

from .loop import PythonLoop, system_poll

__all__ = ["CtypesEngine"]

EVENTS = 15  # ZMQ_EVENTS

# A zmq_msg_t: 64 bytes, aligned like a pointer.
Buffer = ctypes.c_void_p * 8

POLLIN = 1  # of poll(2), on every system


class PollItem(ctypes.Structure):
    """The pollfd of poll(2)."""

    _fields_ = [("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short)]


class Message(int):
    """The address of a zmq_msg_t, which it owns: ctypes passes an int fastest."""

    buffer: ctypes.Array[ctypes.c_void_p]
    close: Any

    def __del__(self) -> None:
        self.close(self)


class CtypesEngine:
    """Makes Python loops over ctypes, and is their binding.

    Parameters
    ----------
    addresses
        The functions' addresses by field of ``zdev_libzmq`` (csrc/zdev.h).
    """

    name = "ctypes"

    def __init__(self, addresses: Mapping[str, int]) -> None:
        pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int

        # errno is saved behind each call and put back before the next, so that nothing comes
        # between a failure and zmq_errno.
        dropping = ctypes.CDLL(None, use_errno=True)
        # To drop the GIL takes as long as the shorter calls; PyDLL, which PyPy lacks, keeps it.
        keeping = getattr(ctypes, "PyDLL", ctypes.CDLL)(None, use_errno=True)

        def bind(field: str, result: Any, *arguments: Any, library: Any = dropping) -> Any:
            prototype: Any = type(library.free)
            function = prototype(addresses[field])
            function.restype, function.argtypes = result, arguments
            return function

        # Any of these may release somebody's last message. When that is one that pyzmq sent without
        # copying, pyzmq waits in there for a thread of its own, which wants the GIL.
        self.recv = bind("msg_recv", number, pointer, pointer, number)
        self.send = bind("msg_send", number, pointer, pointer, number)
        self._close = bind("msg_close", number, pointer)
        self._getsockopt = bind("getsockopt", number, pointer, number, pointer, pointer)

        self.errno = bind("get_errno", number, library=keeping)
        self.more = bind("msg_more", number, pointer, library=keeping)
        self.copy = bind("msg_copy", number, pointer, pointer, library=keeping)
        self._look = getattr(keeping, "poll", None)
        self._init = bind("msg_init", number, pointer, library=keeping)
        self._init_size = bind("msg_init_size", number, pointer, size, library=keeping)
        self._data = bind("msg_data", pointer, pointer, library=keeping)
        self.size = bind("msg_size", size, pointer, library=keeping)

    def poll(self, fds: list[int], timeout: int) -> list[int] | None:
        """poll(2), which drops the GIL only to wait.

        A thread that waits for the GIL asks for it after some time in which nobody dropped it. A
        busy loop that dropped it for an instant at each look would put that off for ever.
        """
        if timeout != 0 or self._look is None:
            return system_poll(fds, timeout)
        items = (PollItem * len(fds))(*(PollItem(fd, POLLIN, 0) for fd in fds))
        if self._look(items, ctypes.c_ulong(len(fds)), 0) < 0:
            return None
        return [item.fd for item in items if item.revents]

    def loop(self, settings: Settings) -> PythonLoop:
        """Make the loop of a relay."""
        return PythonLoop(self, settings)

    def socket(self, end: End) -> int:
        """Return the socket's handle."""
        return end.handle

    def message(self) -> Message:
        """Make an empty message."""
        buffer = Buffer()
        message = Message(ctypes.addressof(buffer))
        message.buffer = buffer
        self._init(message)
        message.close = self._close
        return message

    def empty(self, message: Message) -> None:
        """Release what the message holds."""
        self._close(message)
        self._init(message)

    def fill(self, message: Message, data: bytes) -> int:
        """Put the data into an empty message."""
        self._close(message)
        if self._init_size(message, len(data)) < 0:
            self._init(message)
            return -1
        ctypes.memmove(self._data(message), data, len(data))
        return 0

    def data(self, message: Message) -> bytes:
        """Return what the message holds."""
        return ctypes.string_at(self._data(message), self.size(message))

    def events(self, socket: int) -> int:
        """Return ZMQ_EVENTS, or -1."""
        events = ctypes.c_int(0)
        size = ctypes.c_size_t(ctypes.sizeof(events))
        if self._getsockopt(socket, EVENTS, ctypes.byref(events), ctypes.byref(size)) < 0:
            return -1
        return events.value
