"""The CFFI binding, in ABI mode, which needs no compiler: the Python loop on PyPy.

PyPy's JIT compiles a CFFI call to a plain one, while its ctypes is slow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cffi

from zdev._contract import End, Settings

from .binding import system_clock, system_poll
from .loop import PythonLoop

__all__ = ["CffiEngine"]

EVENTS = 15  # ZMQ_EVENTS

ffi = cffi.FFI()

# CFFI looks types up by name under a lock, which another thread may hold at a fork.
INT, SIZE, POINTER = map(ffi.typeof, ("int *", "size_t *", "void *"))
MESSAGE = ffi.typeof("uint64_t[8]")  # a zmq_msg_t: 64 bytes, aligned like a pointer


class CffiEngine:
    """Makes Python loops over CFFI, and is their binding.

    Parameters
    ----------
    addresses
        The functions' addresses by field of ``zdev_libzmq`` (csrc/zdev.h).
    """

    name = "cffi-abi"

    def __init__(self, addresses: Mapping[str, int]) -> None:
        def bind(field: str, signature: str) -> Any:
            return ffi.cast(signature, addresses[field])

        self.errno = bind("get_errno", "int (*) (void)")
        self.recv = bind("msg_recv", "int (*) (void *, void *, int)")
        self.send = bind("msg_send", "int (*) (void *, void *, int)")
        self.more = bind("msg_more", "int (*) (const void *)")
        self.copy = bind("msg_copy", "int (*) (void *, void *)")
        self.poll = system_poll
        self.clock = system_clock
        self._init = bind("msg_init", "int (*) (void *)")
        self._init_size = bind("msg_init_size", "int (*) (void *, size_t)")
        self._close = bind("msg_close", "int (*) (void *)")
        self._data = bind("msg_data", "void *(*) (void *)")
        self.size = bind("msg_size", "size_t (*) (const void *)")
        self._getsockopt = bind("getsockopt", "int (*) (void *, int, void *, size_t *)")

    def loop(self, settings: Settings) -> PythonLoop:
        """Make the loop of a relay."""
        return PythonLoop(self, settings)

    def socket(self, end: End) -> Any:
        """Return the socket's handle."""
        return ffi.cast(POINTER, end.handle)

    def message(self) -> Any:
        """Make an empty message."""
        message = ffi.new(MESSAGE)
        self._init(message)
        return ffi.gc(message, self._close)

    def empty(self, message: Any) -> None:
        """Release what the message holds."""
        self._close(message)
        self._init(message)

    def fill(self, message: Any, data: bytes) -> int:
        """Put the data into an empty message."""
        self._close(message)
        if self._init_size(message, len(data)) < 0:
            self._init(message)
            return -1
        ffi.memmove(self._data(message), data, len(data))
        return 0

    def data(self, message: Any) -> bytes:
        """Return what the message holds."""
        return bytes(ffi.buffer(self._data(message), self.size(message)))

    def events(self, socket: Any) -> int:
        """Return ZMQ_EVENTS, or -1."""
        events, size = ffi.new(INT), ffi.new(SIZE, ffi.sizeof(INT.item))
        return events[0] if self._getsockopt(socket, EVENTS, events, size) == 0 else -1
