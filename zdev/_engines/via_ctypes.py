"""The ctypes binding: the Python loop on CPython, where the extension is missing."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from typing import Any

from zdev._contract import End, Settings

from .binding import system_clock, system_poll
from .loop import PythonLoop

__all__ = ["CtypesEngine"]

EVENTS = 15  # ZMQ_EVENTS

POLLIN = 1  # of poll(2), on every system


class PollItem(ctypes.Structure):
    """The pollfd of poll(2)."""

    _fields_ = [("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short)]


class Message(ctypes.c_uint64 * 8):  # type: ignore[misc]
    """A zmq_msg_t, 64 bytes aligned like a pointer, that is closed with the last reference."""

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

        # errno is saved behind each call and put back before zmq_errno's, so that nothing comes
        # between a failure and that.
        saving = {"use_errno": True}
        dropping = ctypes.CDLL(None, **saving)
        # To drop the GIL takes as long as the shorter calls; PyDLL, which PyPy lacks, keeps it.
        library = getattr(ctypes, "PyDLL", ctypes.CDLL)
        keeping, keeping_errno = library(None), library(None, **saving)

        def bind(library: Any, field: str, result: Any, *arguments: Any) -> Any:
            prototype: Any = type(library.free)
            function = prototype(addresses[field])
            function.restype, function.argtypes = result, arguments
            return function

        # Any of these may release somebody's last message. When that is one that pyzmq sent without
        # copying, pyzmq waits in there for a thread of its own, which wants the GIL.
        self.recv = bind(dropping, "msg_recv", number, pointer, pointer, number)
        self.send = bind(dropping, "msg_send", number, pointer, pointer, number)
        self._close = bind(dropping, "msg_close", number, pointer)
        self._getsockopt = bind(dropping, "getsockopt", number, pointer, number, pointer, pointer)

        self.clock = system_clock
        self.errno = bind(keeping_errno, "get_errno", number)
        self.more = bind(keeping, "msg_more", number, pointer)
        self.copy = bind(keeping, "msg_copy", number, pointer, pointer)
        self._poll_now = getattr(keeping, "poll", None)
        self._init = bind(keeping, "msg_init", number, pointer)
        self._init_size = bind(keeping, "msg_init_size", number, pointer, size)
        self._data = bind(keeping, "msg_data", pointer)
        self.size = bind(keeping, "msg_size", size, pointer)

        if sys.implementation.name == "cpython":
            # To check the arguments takes as long again as the call. These get Messages, a c_void_p
            # and flags, which CPython passes right without. (PyPy takes what is not in argtypes for
            # variadic arguments, and these go elsewhere on some machines.)
            for function in (self.recv, self.send, self.more, self.copy, self._close, self._init):
                function.argtypes = None

    def poll(self, fds: list[int], timeout: int) -> list[int] | None:
        """poll(2), which drops the GIL only to wait.

        A thread that waits for the GIL asks for it after some time in which nobody dropped it. A
        busy loop that dropped it for an instant at each look would put that off for ever.
        """
        if timeout != 0 or self._poll_now is None:
            return system_poll(fds, timeout)
        items = (PollItem * len(fds))(*(PollItem(fd, POLLIN, 0) for fd in fds))
        if self._poll_now(items, ctypes.c_ulong(len(fds)), 0) < 0:
            return None
        return [item.fd for item in items if item.revents]

    def loop(self, settings: Settings) -> PythonLoop:
        """Make the loop of a relay."""
        return PythonLoop(self, settings)

    def socket(self, end: End) -> ctypes.c_void_p:
        """Return the socket's handle."""
        return ctypes.c_void_p(end.handle)

    def message(self) -> Message:
        """Make an empty message."""
        message = Message()
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

    def events(self, socket: ctypes.c_void_p) -> int:
        """Return ZMQ_EVENTS, or -1."""
        events = ctypes.c_int(0)
        size = ctypes.c_size_t(ctypes.sizeof(events))
        if self._getsockopt(socket, EVENTS, ctypes.byref(events), ctypes.byref(size)) < 0:
            return -1
        return events.value
