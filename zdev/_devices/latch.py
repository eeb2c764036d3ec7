"""An event that signal handlers may use."""

from __future__ import annotations

import threading
from typing import Any

__all__ = ["Latch"]


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
        waiter = threading.Lock()
        waiter.acquire()
        self._waiters.add(waiter)
        try:
            if not self._set:
                limit = -1.0 if timeout is None else min(max(timeout, 0), threading.TIMEOUT_MAX)
                waiter.acquire(timeout=limit)
        finally:
            self._waiters.discard(waiter)
        return self._set
