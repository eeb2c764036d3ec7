"""Signals that wake a relay at once, and whose Python handlers wait until it is at a safe place.

Python runs signal handlers in the main thread, between any two bytecodes, and they may raise, as
that of Ctrl-C does. A relay that runs there could be interrupted anywhere. The Python loops could
lose the message that they have in hand, or send half of it; and with any loop a relay could be left
half entered, so that it says for ever that it is running.

What does not help:

- To catch what is raised and put things right. There is always one more gap between two bytecodes,
  such as that between the end of a ``try`` and the beginning of its ``finally``.
- To replace the handler of Ctrl-C once and for all by one that looks at a flag. Others raise as
  well, and a program expects to find its handlers where it has installed them.
- To block signals with ``signal.pthread_sigmask``. That is for one thread: the system then gives
  the signal to another, and Python runs the handler in the main thread all the same.

So while the main thread is in a relay, every handler is replaced by one that only notes the signal.
The relay runs the noted handlers where it may end: between two messages, and at its own end. Each
signal is also written to the relay's wake-up descriptor, so that it gets there at once. Where an
event loop, such as asyncio's, has them written elsewhere, the relay looks now and then.

What must not be left half done otherwise, such as the launch of a process, has handlers wait in the
same way, for its own end.

Handlers that the relay runs, and functions that it runs for other threads, are not its own code and
may take long: signals that come in the middle of them are passed on, as if there were no relay.

In tests/relay, test_signals_lose_nothing (test_signals.py) shows that no message is lost, doubled
or split, test_ctrl_c_is_prompt_and_the_relay_goes_on (test_ctrl_c.py) that nobody waits,
test_a_storm_of_all_kinds (test_raising_handlers.py) that everything is put back, and
test_a_handler_that_blocks_can_be_interrupted (test_signals.py) that Ctrl-C reaches a handler.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import contextlib
import os
import signal
import sys
from collections import deque
from types import FrameType
from typing import Any, Callable, Protocol, TypeVar

from zdev._tasks import hub_handler, set_hub_handler
from zdev._threads import in_main_thread
from zdev._wakeup import Wakeup

__all__ = ["DeferredSignals"]

# These look at every signal's handler, and exchange some. signal's own functions make enums of what
# they are given and answer, and take most of the time; what they wrap does not.
get_handler: Callable[[int], Any] = getattr(_signal, "getsignal", signal.getsignal)
set_handler: Callable[[int, Any], Any] = getattr(_signal, "signal", signal.signal)
SIGNALS = tuple(int(number) for number in signal.valid_signals())

# How often the end is tried, should a handler raise in the middle each time. There are fewer
# signals than that, so each may raise once.
TRIES = 100

T = TypeVar("T")
Handler = Callable[[int, "FrameType | None"], Any]


class Wakes(Protocol):
    """Wakes who is to deliver."""

    def wake(self) -> None: ...


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

    In threads other than the main one it does nothing: Python runs no handlers there.

    Use it as a context. At its end everything is put back, and what is still noted runs.

    Parameters
    ----------
    wakeup : Wakeup, optional
        What the relay waits on, or something else with a ``wake`` that has its user deliver; None
        where there is no relay, but something else that signals must not interrupt.
    waits : bool
        Whether the relay will wait at all.
    """

    def __init__(self, wakeup: Wakes | None = None, waits: bool = False) -> None:
        self._wakeup = wakeup
        self._waits = waits
        self._pending: deque[tuple[Handler, int]] = deque()
        self._noted: set[int] = set()  # the numbers in it
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
        if in_main_thread():
            try:
                _active.append(self)
                self._replace()
                self.active = True
                if self._waits and isinstance(self._wakeup, Wakeup):
                    self._take_wakeup_fd(self._wakeup)
            except BaseException:  # of a handler that did not wait yet
                self._end(TRIES)
                raise
        return self

    def _take_wakeup_fd(self, wakeup: Wakeup) -> None:
        """Have signals written to the wake-up; an event loop that has its own keeps that."""
        written = wakeup.written_fd
        if written is None:  # it was made in another thread
            self.owns_wakeup = False
            return
        previous = signal.set_wakeup_fd(written, warn_on_full_buffer=False)
        self._set_wakeup_fd = self.owns_wakeup = previous == -1
        if previous != -1:
            signal.set_wakeup_fd(previous)
            # A signal that came just then is the event loop's.
            with contextlib.suppress(OSError):
                os.write(previous, wakeup.drain())
            wakeup.wake()

    def __exit__(self, *_: object) -> None:
        if self.active:
            self._end(TRIES)

    # Noting and running

    def note(self, handler: Handler, number: int) -> None:
        """Let a handler run later: once, as the system has it, however often its signal comes."""
        if number not in self._noted:
            self._noted.add(number)
            self._pending.append((handler, number))
        if self._wakeup is not None:
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
            self._noted.discard(number)
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
            return in_its_frame(function)  # a function written in C has no frame of its own
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

    # Replacing and restoring

    def _replace(self) -> None:
        """Let every handler wait."""
        for number in SIGNALS:
            handler = get_handler(number)
            if not callable(handler) or handler is self._replaced.get(number):
                continue
            if hub_handler(number) is not None:  # an event loop has it, and cannot be interrupted
                continue
            if isinstance(handler, Note) and not handler.signals.active:
                handler = handler.handler  # the note of an earlier run has stayed; see `_end`
            self._replaced[number] = note = Note(self, handler)
            replaced = set_handler(number, note)
            if callable(replaced) and not isinstance(replaced, Note):
                note.handler = replaced  # by a handler, just now

    def _end(self, tries: int) -> None:
        """Run what is noted, and put everything back, though handlers raise.

        What one raises does not keep the others from their turn: the rest is done while that is on
        its way, so that each error has those before it as its context. The caller gets the last.

        As long as all handlers wait, only those raise that are run here. From the first that is
        back in its place, they may raise anywhere in here. A handler that does so just between two
        tries, or in each of them, ends this: then notes may stay in the place of other handlers.
        They are not active any more, but pass their signals on, and the next run takes them away.
        """
        try:
            self.deliver()
            if self._set_wakeup_fd:
                signal.set_wakeup_fd(-1)
                self._set_wakeup_fd = False
            self.active = False
            if self in _active:
                _active.remove(self)
            self._put_back()
            self.deliver()  # what was noted just before
        finally:
            is_over = not (self.active or self in _active or self._replaced or self._pending)
            if tries > 1 and not is_over:
                self._end(tries - 1)

    def _put_back(self) -> None:
        """Put the handlers back."""
        # Ctrl-C last: of all handlers it is the likeliest to raise.
        for number in sorted(self._replaced, key=lambda number: number == signal.SIGINT):
            note = self._replaced[number]
            if get_handler(number) is note:
                theirs = hub_handler(number)  # meanwhile, an event loop has taken it
                replaced = set_handler(number, note.handler)
                if theirs is not None:
                    set_hub_handler(number, theirs)
                if replaced is not note:
                    set_handler(number, replaced)  # by a handler, just now
            for other in _active:  # of a task that came later, and whose note goes on to ours
                later = other._replaced.get(number)
                if later is not None and later.handler is note:
                    later.handler = note.handler
            del self._replaced[number]

    def abandon(self) -> None:
        """In a forked child, which has the handlers but not the run that delivers to them."""
        self._pending.clear()
        self._noted.clear()
        self.active = False
        # PyPy does not yet know that this is the main thread now; the notes pass signals on.
        with contextlib.suppress(ValueError):
            if self._set_wakeup_fd:
                signal.set_wakeup_fd(-1)  # its other end is the parent's too
            self._put_back()


# Whose handlers are replaced now: there is one main thread, but runs may be nested.
_active: list[DeferredSignals] = []


def _after_fork() -> None:
    while _active:
        _active.pop().abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

# Code of our own that stands below `deliver` on the stack: a signal that meets it has not met a
# handler, and has to wait.
OURS = (DeferredSignals._replace.__code__, Note.__call__.__code__)
