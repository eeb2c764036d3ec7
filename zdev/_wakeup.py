"""The descriptor that takes a relay out of its wait."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import sys
from typing import Any

from zdev._limits import says_limits
from zdev._threads import in_main_thread, socketpair

__all__ = ["Wakeup"]

# Bytes to take at once.
DRAINED = 4096
ONE = (1).to_bytes(8, sys.byteorder)

# eventfd(2), where there is one: Python has it since 3.10 only, and not on PyPy.
EVENTFD: Any = None
if sys.platform != "win32":
    EVENTFD = getattr(ctypes.CDLL(None, use_errno=True), "eventfd", None)


class Wakeup:
    """Wakes whoever waits on its descriptor.

    That is an eventfd. Where there is none, or in the main thread, to whose relays signals write,
    it is one of a pair of connected sockets, which takes a descriptor more: a signal writes one
    byte, and an eventfd refuses that. Nor would a pipe do: Windows can neither select on one nor
    let signals write to one.
    """

    _event: io.FileIO | None = None
    _pair: tuple[Any, ...] = ()  # for __del__, should there be no descriptors

    def __init__(self) -> None:
        self.is_rung = False
        """Whether somebody was woken, unless `drain` has taken that back."""
        with says_limits():
            if EVENTFD is None or in_main_thread():
                self._waited, self._written = self._pair = socketpair()
                self._waited.setblocking(False)
                self._written.setblocking(False)
                return
            fd = EVENTFD(0, os.O_CLOEXEC | os.O_NONBLOCK)
            if fd < 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
        # Not the bare number: once it is closed, another thread that wakes the relay would write to
        # whatever file has that number next.
        self._event = io.FileIO(fd, "r+")

    @property
    def waited_fd(self) -> int:
        """The descriptor to wait on."""
        return int((self._event or self._waited).fileno())

    @property
    def written_fd(self) -> int | None:
        """The descriptor for ``signal.set_wakeup_fd``; None if signals cannot write to it."""
        return int(self._written.fileno()) if self._event is None else None

    def wake(self) -> None:
        """Wake whoever waits; from any thread, any number of times."""
        self.is_rung = True
        # When the buffer is full, the waiter has reason enough to wake. It may be closed by now.
        with contextlib.suppress(OSError, ValueError):
            if self._event is None:
                self._written.send(b"\0")
            else:
                self._event.write(ONE)
        self.is_rung = True  # again: a drain that came in between has not taken it back

    def drain(self) -> bytes:
        """Take back every `wake` so far; return the numbers of the signals among them."""
        self.is_rung = False  # first: who rings from now on rings again
        if self._event is not None:
            self._event.read(len(ONE))
            return b""
        signals = b""
        size = DRAINED
        with contextlib.suppress(BlockingIOError):
            while size == DRAINED:
                data = self._waited.recv(DRAINED)
                size = len(data)
                signals += data.replace(b"\0", b"")
        return signals

    def close(self) -> None:
        """Close the descriptors."""
        if self._event is not None:
            self._event.close()
        for end in self._pair:
            end.close()

    def __del__(self) -> None:
        self.close()
