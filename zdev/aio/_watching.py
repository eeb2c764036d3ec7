"""What a task waits for in the life of a device: its end, or the next time to look."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from typing import Callable

from zdev._contract import Statistics
from zdev._devices.progress import Progress
from zdev._devices.stages import Stage

from ._libraries import make_bell

__all__ = ["StatisticsEvery", "wait_for_end"]


async def wait_for_end(run: Progress, timeout: float | None = None) -> bool:
    """Wait for the end of a run, at most so many seconds; tell whether it has come."""
    bell = make_bell()
    forget = run.stages.watch(Stage.ENDED, bell.ring)
    try:
        return await bell.heard(timeout)
    finally:
        forget()


class StatisticsEvery:
    """The statistics of a device every so many seconds, for ``async for``.

    No asynchronous generator, since one that is left half way is closed when the garbage collector
    comes to it, or not at all.
    """

    def __init__(
        self, look: Callable[[], Awaitable[Statistics]], run: Progress, seconds: float
    ) -> None:
        self._look, self._run = look, run
        self._seconds = seconds
        self._next = time.monotonic()
        self._is_over = False

    def __aiter__(self) -> StatisticsEvery:
        return self

    async def __anext__(self) -> Statistics:
        if self._is_over:
            raise StopAsyncIteration
        left = self._next - time.monotonic()
        has_ended = await wait_for_end(self._run, max(left, 0.0))
        while not has_ended and (left := self._next - time.monotonic()) > 0:
            has_ended = await wait_for_end(self._run, left)
        self._is_over = has_ended
        if has_ended and self._run.exception is not None:
            raise self._run.exception
        now = time.monotonic()
        self._next += self._seconds
        if self._next <= now:
            self._next = now + self._seconds
        try:
            return await self._look()
        except RuntimeError:  # it has just died, and its counts with it
            if self._run.exception is None:
                raise
            self._is_over = True
        raise self._run.exception
