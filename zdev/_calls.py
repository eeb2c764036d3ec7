"""Whose thread has a loop, and what other threads ask of it.

A relay's loop and its sockets belong to one thread at a time. Whoever runs the loop enters and
leaves it. Whoever else wants something of it calls: if a thread has the loop, that thread does it
between two messages; if none has, the caller takes the loop for so long and does it at once.

To take the loop costs more than a short call itself: signals have to be deferred, lest a handler
that raises leaves it taken for ever. So what only looks at the loop or sets a flag of it does not
take it, but makes a visit: a note which says that somebody is there. Whoever takes the loop waits
until the visits of other threads are over, which is an instant. A signal handler may come in the
middle of a visit. If it raises, the note is removed all the same. If it has used the loop, or even
run it, what the visit saw is out of date, and the visit is made again.

A lock would do in place of the notes, but for handlers that wait for another thread, as those do
that stop a thread and join it. If such a handler comes while its own thread holds the lock, and the
other thread wants it, both wait for ever. Visits do not keep each other waiting, nor does a loop
that runs keep them; and whoever takes the loop loses patience with a visit that lasts unduly long.

In tests/relay/test_visits.py, test_handlers_at_any_moment_of_a_short_call shows what handlers may
do, test_a_handler_may_wait_for_a_thread_that_runs_the_relay that none waits for ever, and
test_a_short_call_costs_as_much_in_the_main_thread what visits are for.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, Callable, Generic, TypeVar

from zdev._signals import DeferredSignals
from zdev._threads import RLock, Waiter, allocate_lock, get_ident, sleep, waiter
from zdev._times import OWNER_LOOK, VISIT_LOOK, VISIT_PATIENCE
from zdev._wakeup import Wakeup

__all__ = ["Calls"]

T = TypeVar("T")

# Counted, since time may jump for all threads at once, as when a machine wakes up.
VISIT_LOOKS = int(VISIT_PATIENCE / VISIT_LOOK)


class Request(Generic[T]):
    """A function that another thread is to run, and what came of it.

    A ``concurrent.futures.Future`` would not do. Its methods are Python code that takes a lock: a
    handler that raises in the middle of them leaves the lock taken, and the thread that has the
    loop would wait for it for ever. Here are two plain locks, which are taken in one step.
    test_a_handler_that_raises_in_a_wait_leaves_the_other_thread_alone raises there.
    """

    result: T

    def __init__(self, function: Callable[[], T], interruptible: bool) -> None:
        self.function = function
        self.interruptible = interruptible
        self.error: BaseException | None = None
        self.is_over = False
        self._begun = allocate_lock()  # taken by who runs it, or calls it off
        self._over = waiter()  # taken until it is over

    def begin(self) -> bool:
        """Be the one who runs it, or calls it off; tell whether nobody else is."""
        return bool(self._begun.acquire(blocking=False))

    def end(self) -> None:
        """Wake who waits for it."""
        self.is_over = True
        self._over.release()

    def wait(self, timeout: float | None) -> bool:
        """Wait for it, at most so many seconds; tell whether it is over."""
        longest = threading.TIMEOUT_MAX
        self._over.acquire(timeout=longest if timeout is None else min(max(timeout, 0), longest))
        return self.is_over


class Calls:
    """Who has one loop, and what others ask of it.

    Parameters
    ----------
    wakeup : Wakeup
        What the loop waits on: a call wakes it.
    """

    def __init__(self, wakeup: Wakeup) -> None:
        self._wakeup = wakeup
        # Reentrant, since a signal handler may come while its own thread is inside.
        self._free = RLock()
        self._waiting: set[Waiter] = set()  # for the loop
        self._owner: int | None = None  # the thread that has the loop
        self._uses = 0  # so often has it been run, or called when idle
        self._requests: deque[Request[Any]] = deque()
        self._visits: dict[object, int] = {}  # the threads of those that are under way
        self.is_running = False
        """Whether the loop is entered, not only taken for a call."""

    # Running the loop

    def enter(self, signals: DeferredSignals) -> None:
        """Take the loop for this thread, to run it; wait for the end of a call that has it."""
        me = get_ident()
        while True:
            signals.deliver()
            waiting = waiter()
            with self._free:
                if self._owner is None:
                    self._owner, self.is_running = me, True
                    break
                if self.is_running or self._owner == me:
                    raise RuntimeError("this relay is running already; stop it first")
                self._waiting.add(waiting)
            try:
                waiting.acquire(timeout=OWNER_LOOK)
            finally:
                self._waiting.discard(waiting)
        self._await_visits(me)

    def leave(self, signals: DeferredSignals, last: Callable[[], None] | None = None) -> None:
        """Let others have the loop, once nothing waits for this thread any more.

        ``last`` is called just before that.
        """
        raised: BaseException | None = None
        while self._owner == get_ident():
            try:
                self.obey(signals)
            except BaseException as error:  # a handler has interrupted what runs for another thread
                raised = error
                continue
            # Not for ever: whoever has the lock may wait for a call, in a signal handler.
            if not self._free.acquire(timeout=OWNER_LOOK):
                continue
            try:
                if not self._requests:
                    if last is not None:
                        last()
                    self._owner, self.is_running = None, False
                    while self._waiting:
                        self._waiting.pop().release()
            finally:
                self._free.release()
        if raised is not None:
            try:
                raise raised
            finally:
                raised = None  # lest the traceback and it keep each other alive

    def obey(self, signals: DeferredSignals) -> None:
        """Do what others have called for, on the loop's own thread."""
        while self._requests:
            request = self._requests.popleft()
            if not request.begin():
                continue
            function, interruptible = request.function, request.interruptible
            try:
                request.result = signals.call(function) if interruptible else function()
            except BaseException as error:
                request.error = error
                request.end()
                del function, request  # lest the traceback and they keep each other alive
                if interruptible and signals.interrupted:
                    raise
            else:
                request.end()

    def _await_visits(self, me: int) -> None:
        """Wait until no other thread is at the loop that this one has taken."""
        for _ in range(VISIT_LOOKS):
            if all(thread == me for thread in self._visits.copy().values()):
                break
            sleep(VISIT_LOOK)
        self._uses += 1

    # Asking something of it

    def visit(
        self, function: Callable[[], T], otherwise: Callable[[], T], *, shared: bool = False
    ) -> T:
        """Do something short at a loop that nobody has; else, do ``otherwise``.

        Parameters
        ----------
        function : callable
            It may be interrupted by what a signal handler raises, and be called again.
        otherwise : callable
            Called if somebody has the loop, or another visit is under way.
        shared : bool
            Whether other visits do not matter, nor matters this one to them.
        """
        me = get_ident()
        while self._owner is None:
            visit, uses = object(), self._uses
            # Nothing is returned from within, where Python leaves a gap before the finally.
            try:
                try:
                    self._visits[visit] = me
                    # Looked at again: who takes the loop says so first, then looks for visits.
                    may_look = self._owner is None and (shared or len(self._visits) == 1)
                    if may_look:
                        result = function()
                finally:
                    self._visits.pop(visit, None)
            finally:  # a handler may have raised just before that
                self._visits.pop(visit, None)
            if not may_look:
                break
            if uses == self._uses:
                return result
        return otherwise()

    def call(
        self, function: Callable[[], T], timeout: float | None = None, interruptible: bool = False
    ) -> T:
        """Run a function on the thread that has the loop, between two messages; if none, in this.

        Parameters
        ----------
        function : callable
            What it raises is raised here.
        timeout : float, optional
            Seconds to wait for another thread; then, ``TimeoutError``.
        interruptible : bool
            Whether signal handlers may come in its middle; else they wait for its end.
        """
        me = get_ident()
        if self._owner == me:
            return function()
        request: Request[T] | None = None
        with DeferredSignals(self._wakeup, waits=False) as signals:
            with self._free:
                if self._owner is None:
                    self._owner = me
                else:
                    request = Request(function, interruptible)
                    self._requests.append(request)
            if request is None:
                try:
                    self._await_visits(me)
                    return signals.call(function) if interruptible else function()
                finally:
                    self.leave(signals)
        try:
            self._wakeup.wake()
            if not request.wait(timeout):
                raise TimeoutError(
                    f"the relay's thread did not get to the call in {timeout} s; "
                    "a call before it takes long"
                )
            if request.error is not None:
                raise request.error
            return request.result
        finally:
            request.begin()  # it is called off, unless it has begun
            request = None  # lest the traceback and it keep each other alive
