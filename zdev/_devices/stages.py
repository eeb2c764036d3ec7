"""The stages of a run, which only moves on; threads and signal handlers may wait for a stage."""

from __future__ import annotations

import enum
import threading
import time
from typing import Any, Callable

from zdev._threads import in_main_thread, waiter
from zdev._times import MAIN_THREAD_LOOK

__all__ = ["Stage", "Stages"]


class Stage(enum.IntEnum):
    """How far a run is. Whatever fails on the way to the end, the run gets there."""

    BEGUN = 0
    """There is a run; its sockets may not be there yet."""
    READY = 1
    """What a subclass runs has its sockets, or has had its chance to make some. A run that is sure
    to come to a relay of zdev's is never only ready: it goes on to RELAYING at once."""
    RELAYING = 2
    """One of zdev's relays has its sockets."""
    ENDING = 3
    """What it counted is final; it closes what it made."""
    ENDED = 4
    """Nothing is left of it, and another run may begin."""


class Stages:
    """Where a run is, and who waits for it to get further; or anything else that only moves on.

    A `threading.Event` for each stage would not do: a signal handler that waits for one, or sets
    one, while its own thread is inside that event's lock would wait for ever for itself. Here
    nothing is shared but a set and a dict, whose operations are atomic, and each who waits has a
    waiter of its own. `test_many_wait_for_the_end_at_once` waits in handlers.
    """

    def __init__(self, now: int = Stage.BEGUN) -> None:
        # All that were reached: to compare and then set a number could set it back.
        self._reached = {now}
        self._waiters: dict[Any, int] = {}

    @property
    def now(self) -> int:
        """The last stage that was reached."""
        return max(self._reached.copy())

    def reach(self, stage: int) -> None:
        """Be at that stage, and past all before it."""
        self._reached.add(stage)
        for waiting, awaited in list(self._waiters.items()):
            if awaited <= stage and self._waiters.pop(waiting, None) is not None:
                waiting.release()

    def watch(self, stage: int, tell: Callable[[], object]) -> Callable[[], object]:
        """Have something called, once, when that stage is reached; at once, if it has been.

        An event loop waits that way, which no thread has to hold for it.

        Parameters
        ----------
        tell : callable
            Called by whoever comes to the stage, be it a signal handler; or here. It must neither
            wait nor raise.

        Returns
        -------
        callable
            Ends the watch.
        """
        watcher = _Watcher(tell)
        self._waiters[watcher] = stage
        # Looked at again: who comes to the stage says so first, then looks for those who wait.
        if self.now >= stage and self._waiters.pop(watcher, None) is not None:
            tell()
        return lambda: self._waiters.pop(watcher, None)

    def wait(self, stage: int, timeout: float | None = None) -> bool:
        """Wait for that stage, at most so many seconds; tell whether it has been reached."""
        deadline = None if timeout is None else time.monotonic() + timeout
        # Python runs signal handlers in the main thread, and only between two waits. A signal that
        # comes when that thread is just about to wait would find no handler to wake it.
        longest = threading.TIMEOUT_MAX
        if in_main_thread():
            longest = MAIN_THREAD_LOOK
        waiting = waiter()
        self._waiters[waiting] = stage
        try:
            while self.now < stage:
                left = longest if deadline is None else deadline - time.monotonic()
                if left <= 0 or waiting.acquire(timeout=min(left, longest)):
                    break
        finally:
            self._waiters.pop(waiting, None)
        return self.now >= stage


class _Watcher:
    """Waits as a lock does, by what is called to release it."""

    def __init__(self, tell: Callable[[], object]) -> None:
        self.release = tell
