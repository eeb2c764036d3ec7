"""An event that signal handlers may use."""

from __future__ import annotations

import threading
import time
from typing import Any

__all__ = ["Latch"]

FOREVER = threading.TIMEOUT_MAX

# Seconds between looks for signals. One that comes when the main thread is just about to wait does
# not wake it, and only there do handlers run.
LOOK = 0.25


class Latch:
    """Lets threads wait until something has happened, once and for all.

    Unlike those of ``threading.Event``, its methods may be called from a signal handler that comes
    while its own thread is inside one of them: nothing is shared but a set, whose operations are
    atomic.
    """

    def __init__(self) -> None:
        self._set = False
        self._waiters: set[Any] = set()

    def is_set(self) -> bool:
        """Tell whether it has happened."""
        return self._set

    def set(self) -> None:
        """Say that it has happened, and wake whoever waits."""
        self._set = True
        while True:
            try:
                self._waiters.pop().release()
            except KeyError:
                return

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for it, at most so many seconds; tell whether it has happened."""
        deadline = None if timeout is None else time.monotonic() + timeout
        in_main = threading.current_thread() is threading.main_thread()
        waiter = threading.Lock()
        waiter.acquire()
        self._waiters.add(waiter)
        try:
            while not self._set:
                left = FOREVER if deadline is None else deadline - time.monotonic()
                if left <= 0 or waiter.acquire(timeout=min(left, LOOK if in_main else FOREVER)):
                    break
        finally:
            self._waiters.discard(waiter)
        return self._set
