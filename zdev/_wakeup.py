"""The descriptor that takes a relay out of its wait, and the signals that use it."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import threading
from collections import deque
from types import FrameType
from typing import Any, Callable

__all__ = ["DeferredSignals", "Wakeup"]

Handler = Callable[[int, "FrameType | None"], Any]


class Wakeup:
    """A pair of connected sockets: what is written to one wakes whoever waits on the other.

    Sockets, since Windows can neither select on a pipe nor let signals write to one.
    """

    def __init__(self) -> None:
        self._pair: tuple[socket.socket, ...] = ()  # for __del__, should there be no descriptors
        self._waited, self._written = self._pair = socket.socketpair()
        self._waited.setblocking(False)
        self._written.setblocking(False)

    @property
    def waited_fd(self) -> int:
        """The descriptor to wait on."""
        return self._waited.fileno()

    @property
    def written_fd(self) -> int:
        """The descriptor for ``signal.set_wakeup_fd``."""
        return self._written.fileno()

    def wake(self) -> None:
        """Wake whoever waits; from any thread, any number of times."""
        # When the buffer is full, the waiter has reason enough to wake.
        with contextlib.suppress(OSError):
            self._written.send(b"\0")

    def drain(self) -> None:
        """Take back every `wake` so far."""
        with contextlib.suppress(BlockingIOError):
            while len(self._waited.recv(4096)) == 4096:
                pass

    def __del__(self) -> None:
        for end in self._pair:
            end.close()


class DeferredSignals:
    """Lets signals wake a relay, and their Python handlers run where the relay says.

    A handler that raises (Ctrl-C) between any two bytecodes could lose a message that the Python
    loop has in hand, or leave the relay half entered. In the main thread, the only one where Python
    runs handlers, each is therefore replaced by one that notes the signal, until the relay is at a
    safe place; the wake-up descriptor brings it there at once. In other threads there is nothing
    to do.

    Use it as a context. At its end everything is put back, and what is still noted runs.
    """

    def __init__(self, wakeup: Wakeup) -> None:
        self._wakeup = wakeup
        self._active = False
        self._pending: deque[tuple[Handler, int]] = deque()
        self._replaced: dict[int, tuple[Handler, Handler]] = {}
        self._set_wakeup_fd = False
        self.owns_wakeup = True
        """Whether a signal wakes the relay at once; otherwise it must look now and then."""

    def __enter__(self) -> DeferredSignals:
        if threading.current_thread() is threading.main_thread():
            try:
                self._active = True
                self._replace()
                # An event loop that has a wake-up descriptor of its own keeps it.
                fd = self._wakeup.written_fd
                previous = signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
                self._set_wakeup_fd = self.owns_wakeup = previous == -1
                if previous != -1:
                    signal.set_wakeup_fd(previous)
            except BaseException:
                self._end()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._active:
            self._end()

    def deliver(self) -> None:
        """Run the handlers of the signals that came; what one raises goes to the caller."""
        while self._pending:
            handler, number = self._pending.popleft()
            try:
                # The frame that the signal met may be gone by now.
                handler(number, sys._getframe())
            finally:
                if self._active:
                    self._replace()  # it may have installed another one

    def _replace(self) -> None:
        """Let every handler wait."""
        for each in signal.valid_signals():
            handler = signal.getsignal(each)
            if callable(handler) and handler is not self._replaced.get(each, (None,))[0]:
                self._defer(each, handler)

    def _defer(self, number: int, handler: Handler) -> None:
        def note(number: int, frame: FrameType | None) -> None:
            if self._active:
                self._pending.append((handler, number))
                self._wakeup.wake()
            else:  # somebody kept it
                handler(number, frame)

        self._replaced[number] = (note, handler)
        signal.signal(number, note)

    def _end(self) -> None:
        """Put everything back. A handler that is back may raise: then go on all the same."""
        try:
            if self._set_wakeup_fd:
                signal.set_wakeup_fd(-1)
                self._set_wakeup_fd = False
            # Ctrl-C last: of all handlers it is the likeliest to raise.
            for number in sorted(self._replaced, key=lambda number: number == signal.SIGINT):
                note, handler = self._replaced[number]
                if signal.getsignal(number) is note:
                    signal.signal(number, handler)
                del self._replaced[number]
            self._active = False
            self.deliver()
        finally:
            if self._replaced or self._pending:
                self._end()
