"""The descriptor that takes a relay out of its wait, and the signals that use it."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections import deque
from collections.abc import Iterator
from types import FrameType
from typing import Any, Callable

__all__ = ["DeferredSignals", "Wakeup", "deferred_signals"]

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
    """Python signal handlers that wait for a place between two messages."""

    def __init__(self, owns_wakeup: bool) -> None:
        self.owns_wakeup = owns_wakeup
        """Whether a signal wakes the relay at once; otherwise it must look now and then."""
        self._pending: deque[tuple[Handler, int, FrameType | None]] = deque()

    def deliver(self) -> None:
        """Run the handlers of the signals that came; what one raises goes to the caller."""
        while self._pending:
            handler, number, frame = self._pending.popleft()
            handler(number, frame)


@contextlib.contextmanager
def deferred_signals(wakeup: Wakeup) -> Iterator[DeferredSignals]:
    """Let signals wake the relay, and their Python handlers run where the relay says.

    A handler that raises (Ctrl-C) between any two bytecodes could lose a message that the Python
    loop has in hand. In the main thread, the only one where Python runs handlers, each is
    therefore replaced by one that notes the signal, until the relay is at a safe place; the
    wake-up descriptor brings it there at once. In other threads there is nothing to do.
    """
    signals = DeferredSignals(owns_wakeup=True)
    if threading.current_thread() is not threading.main_thread():
        yield signals
        return

    replaced: dict[int, tuple[Handler, Handler]] = {}

    def defer(number: int, handler: Handler) -> None:
        def note(number: int, frame: FrameType | None) -> None:
            signals._pending.append((handler, number, frame))
            wakeup.wake()

        replaced[number] = (note, handler)
        signal.signal(number, note)

    # An event loop that has a wake-up descriptor of its own keeps it.
    previous = signal.set_wakeup_fd(wakeup.written_fd, warn_on_full_buffer=False)
    signals.owns_wakeup = previous == -1
    if not signals.owns_wakeup:
        signal.set_wakeup_fd(previous)
    try:
        for each in signal.valid_signals():
            handler = signal.getsignal(each)
            if callable(handler):
                defer(each, handler)
        yield signals
    finally:
        for number, (note, original) in replaced.items():
            # A handler may have installed another one meanwhile: that one stays.
            if signal.getsignal(number) is note:
                signal.signal(number, original)
        if signals.owns_wakeup:
            signal.set_wakeup_fd(-1)
        signals.deliver()
