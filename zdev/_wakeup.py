"""The descriptor that takes a relay out of its wait, and the signals that use it."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import contextlib
import os
import signal
import socket
import sys
import threading
from collections import deque
from types import FrameType
from typing import Any, Callable, TypeVar

__all__ = ["DeferredSignals", "Wakeup"]

# A step looks at every signal's handler. signal's own functions make an enum of each answer, and
# take most of a step's time; what they wrap does not.
getsignal: Callable[[int], Any] = getattr(_signal, "getsignal", signal.getsignal)
SIGNALS = tuple(int(number) for number in signal.valid_signals())

# Bytes to take at once.
DRAINED = 4096

T = TypeVar("T")
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

    def drain(self) -> bytes:
        """Take back every `wake` so far; return the numbers of the signals among them."""
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
        for end in self._pair:
            end.close()

    def __del__(self) -> None:
        self.close()


class Note:
    """Stands in for a handler: notes the signal, or passes it on where that does no harm."""

    def __init__(self, signals: DeferredSignals, handler: Handler) -> None:
        self.signals = signals
        self.handler = handler

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Take a signal."""
        if self.signals.active and not self.signals.is_outside(frame):
            self.signals.note(self.handler, number)
            return
        try:
            self.handler(number, frame)
        except BaseException as error:
            self.signals.note_error(error)
            raise


def in_its_frame(function: Callable[[], T]) -> T:
    return function()


class DeferredSignals:
    """Lets signals wake a relay, and their Python handlers run where the relay says.

    A handler that raises (Ctrl-C) between any two bytecodes could lose a message that the Python
    loop has in hand, or leave the relay half entered. In the main thread, the only one where Python
    runs handlers, each is therefore replaced by one that notes the signal, until the relay is at a
    safe place; the wake-up descriptor brings it there at once. In other threads there is nothing
    to do.

    Use it as a context. At its end everything is put back, and what is still noted runs.

    Parameters
    ----------
    wakeup : Wakeup
        What the relay waits on.
    waits : bool
        Whether it will wait at all.
    """

    def __init__(self, wakeup: Wakeup, waits: bool) -> None:
        self._wakeup = wakeup
        self._waits = waits
        self._pending: deque[tuple[Handler, int]] = deque()
        self._replaced: dict[int, Note] = {}
        self._set_wakeup_fd = False
        self._caller: FrameType | None = None  # ours, that calls what is not
        self.active = False
        """Whether signals are noted."""
        self.owns_wakeup = True
        """Whether a signal wakes the relay at once; otherwise it must look now and then."""
        self._calling = False
        self._raised: BaseException | None = None  # by a handler, in `call`
        self.interrupted = False
        """Whether it was a signal handler that ended the last `call`."""

    def __enter__(self) -> DeferredSignals:
        if threading.current_thread() is threading.main_thread():
            try:
                _active.append(self)
                self._replace()
                self.active = True
                if self._waits:
                    self._take_wakeup_fd()
            except BaseException:  # of a handler that did not wait yet
                self._restore()
                raise
        return self

    def _take_wakeup_fd(self) -> None:
        """Have signals written to the wake-up; an event loop that has its own keeps that."""
        fd = self._wakeup.written_fd
        previous = signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
        self._set_wakeup_fd = self.owns_wakeup = previous == -1
        if previous != -1:
            signal.set_wakeup_fd(previous)
            # A signal that came just then is the event loop's.
            with contextlib.suppress(OSError):
                os.write(previous, self._wakeup.drain())
            self._wakeup.wake()

    def __exit__(self, *_: object) -> None:
        if self.active:
            self._end()

    def note(self, handler: Handler, number: int) -> None:
        """Let a handler run later."""
        self._pending.append((handler, number))
        self._wakeup.wake()

    def note_error(self, error: BaseException) -> None:
        """Know what a handler raised that did not wait."""
        if self._calling:
            self._raised = error

    def deliver(self) -> None:
        """Run the handlers of the signals that came; what one raises goes to the caller."""
        self._caller = sys._getframe()
        while self._pending:
            handler, number = self._pending.popleft()
            try:
                handler(number, self._caller)  # the frame that the signal met may be gone
            finally:
                if self.active:
                    self._replace()  # it may have installed another one
        self._caller = None

    def call(self, function: Callable[[], T]) -> T:
        """Run a function that is not ours; signals may interrupt it."""
        self.interrupted, self._calling, self._caller = False, True, sys._getframe()
        try:
            return in_its_frame(function)  # which it has none of if it is written in C
        except BaseException as error:
            self.interrupted = error is self._raised
            raise
        finally:
            self._calling, self._caller, self._raised = False, None, None
            if self.active:
                self._replace()  # it may have installed a handler

    def is_outside(self, frame: FrameType | None) -> bool:
        """Tell whether a signal met what is not ours: it may interrupt that as anywhere else.

        The frames know. A flag could be left behind wrong by a signal between two bytecodes.
        """
        while frame is not None:
            caller = frame.f_back
            if caller is not None and caller is self._caller:
                return frame.f_code not in OURS
            frame = caller
        return False

    def _replace(self) -> None:
        """Let every handler wait."""
        for number in SIGNALS:
            handler = getsignal(number)
            if not callable(handler) or handler is self._replaced.get(number):
                continue
            if isinstance(handler, Note) and not handler.signals.active:
                handler = handler.handler  # see _restore
            self._replaced[number] = note = Note(self, handler)
            replaced = signal.signal(number, note)
            if callable(replaced) and not isinstance(replaced, Note):
                note.handler = replaced  # by a handler, just now

    def _end(self) -> None:
        """Run what is noted, and put everything back, whatever is raised."""
        try:
            self._deliver_all()
        finally:
            self._restore()

    def abandon(self) -> None:
        """In a forked child, which has the handlers but not the run that delivers to them."""
        self._pending.clear()
        self.active = False
        # PyPy does not yet know that this is the main thread now; the notes pass signals on.
        with contextlib.suppress(ValueError):
            if self._set_wakeup_fd:
                signal.set_wakeup_fd(-1)  # its other end is the parent's too
            self._put_back()

    def _deliver_all(self) -> None:
        """Run every handler, also if one raises."""
        try:
            self.deliver()
        finally:
            if self._pending:
                self._deliver_all()

    def _restore(self) -> None:
        """Put everything back.

        Handlers may raise here. Should they do it again and again, a note may stay; it passes its
        signals on, and goes away at the end of the next run.
        """
        try:
            if self._set_wakeup_fd:
                signal.set_wakeup_fd(-1)
                self._set_wakeup_fd = False
            self.active = False
            if self in _active:
                _active.remove(self)
            self._put_back()
            self.deliver()
        finally:
            if self.active or self in _active or self._replaced or self._pending:
                self._restore()

    def _put_back(self) -> None:
        """Put the handlers back."""
        # Ctrl-C last: of all handlers it is the likeliest to raise.
        for number in sorted(self._replaced, key=lambda number: number == signal.SIGINT):
            note = self._replaced[number]
            if getsignal(number) is note:
                replaced = signal.signal(number, note.handler)
                if replaced is not note:
                    signal.signal(number, replaced)  # by a handler, just now
            del self._replaced[number]


# Whose handlers are replaced now: there is one main thread, but runs may be nested.
_active: list[DeferredSignals] = []


def _after_fork() -> None:
    while _active:
        _active.pop().abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

# What `DeferredSignals.deliver` runs, or a signal runs in it, and is no handler.
OURS = (DeferredSignals._replace.__code__, Note.__call__.__code__)
