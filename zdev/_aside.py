"""What blocks for long, where it must not block the other tasks of a program: see `_tasks`."""

from __future__ import annotations

import contextlib
from typing import Callable, Generic, TypeVar

from zdev import _tasks
from zdev._signals import DeferredSignals
from zdev._threads import Thread, Waiter, waiter

__all__ = ["aside"]

T = TypeVar("T")


def aside(function: Callable[[], T], stop: Callable[[], object], name: str) -> T:
    """Call a function that blocks: here or, from a task, in a thread of its own.

    Parameters
    ----------
    stop : callable
        Has the function return soon. Called when something is thrown into the task that waits for
        it, as by ``kill``, ``Timeout`` or Ctrl-C; that is raised when the thread has ended.
    name : str
        Names the thread.
    """
    if _tasks.current_hub() is None:
        return function()
    work = _Work(function, name)
    # What a signal handler raises should end the function, as it does where it blocks in the main
    # thread. If the hub ran the handler, it would only print what that raises, but for Ctrl-C's,
    # which it throws into the main task.
    handlers = _tasks.in_main_task()
    with DeferredSignals(work) if handlers else contextlib.nullcontext() as signals:
        try:
            try:
                work.begin()
                work.wait(signals)
            finally:
                work.end(stop)
        finally:  # a handler may have raised just before that
            work.end(stop)
    return work.outcome()


class _Work(Generic[T]):
    """A function in a thread of its own."""

    _result: T

    def __init__(self, function: Callable[[], T], name: str) -> None:
        self._function = function
        self._error: BaseException | None = None
        self._is_over = False
        self._waiting: Waiter | None = None
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def _run(self) -> None:
        try:
            self._result = self._function()
        except BaseException as error:
            self._error = error
        finally:
            self._is_over = True
            self.wake()

    def begin(self) -> None:
        """Start the thread."""
        with DeferredSignals():
            self._thread.start()

    def wake(self) -> None:
        """Have who waits look again: it is over, or there is a handler to run."""
        waiting = self._waiting
        if waiting is not None:
            waiting.release()

    def wait(self, signals: DeferredSignals | None = None) -> None:
        """Wait until it is over, and let handlers run that wait for this."""
        while True:
            self._waiting = waiting = waiter()
            # Looked at now: who wakes says why first, then looks for who waits.
            if signals is not None:
                signals.deliver()
            if self._is_over:
                break
            waiting.acquire()

    def end(self, stop: Callable[[], object]) -> None:
        """Have it end, and wait for that whatever is thrown into this task; then raise it."""
        if self._is_over or self._thread.ident is None:
            return
        raised: BaseException | None = None
        with DeferredSignals():
            stop()
            while not self._is_over:
                try:
                    self.wait()
                except BaseException as error:
                    raised = error
        if raised is not None:
            try:
                raise raised
            finally:
                raised = None  # lest the traceback and it keep each other alive

    def outcome(self) -> T:
        """Return or raise what the function did."""
        self._thread.join()  # it is at its end
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # lest the traceback and it keep each other alive
        return self._result
