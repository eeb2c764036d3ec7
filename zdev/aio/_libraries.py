"""Which library runs a task, asyncio or trio, and how a thread wakes the task.

A task waits for a bell, which any thread may ring. That is all that is asked of a library, but for
a shield: to wait in spite of a cancellation. trio is never imported here, nor is anyio: who runs
under them has done so.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from contextlib import AbstractContextManager
from typing import Any, Protocol

__all__ = ["Bell", "heard_in_spite", "let_others_run", "make_bell"]

LONGEST = 3600.0
"""Seconds for which a timer is set at once; uvloop's cannot be set for ever."""


class Bell(Protocol):
    """What one task waits for, in the event loop in which it was made."""

    def ring(self) -> None:
        """Wake the task; from any thread. If its event loop is gone, do nothing."""

    async def heard(self, timeout: float | None = None) -> bool:
        """Wait for it, at most so many seconds; tell whether it has rung."""

    def shield(self) -> AbstractContextManager[object]:
        """Keep off, within, the cancellations that a library repeats until they are obeyed."""


class _AsyncioBell:
    """For asyncio, and what takes its place, such as uvloop.

    Neither asyncio.Event nor asyncio.wait_for would do: the one belongs to an event loop by ways
    that differ with Python's version, the other may lose a cancellation before Python 3.12.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._has_rung = False
        self._waiter: asyncio.Future[None] | None = None

    def ring(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._ring)

    def _ring(self) -> None:
        self._has_rung = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def heard(self, timeout: float | None = None) -> bool:
        if not self._has_rung:
            self._waiter = self._loop.create_future()
            timer = None
            if timeout is not None:
                timer = self._loop.call_later(min(timeout, LONGEST), self._wake)
            try:
                await self._waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
        return self._has_rung

    def shield(self) -> AbstractContextManager[object]:
        # A scope of anyio's that is cancelled cancels its tasks again in every turn of the event
        # loop, which would keep a processor busy as long as we wait:
        # `test_a_shielded_stop_uses_no_cpu`.
        anyio = sys.modules.get("anyio")
        return contextlib.nullcontext() if anyio is None else anyio.CancelScope(shield=True)


class _TrioBell:
    """For trio."""

    def __init__(self, trio: Any) -> None:
        self._trio = trio
        self._token = trio.lowlevel.current_trio_token()
        self._event = trio.Event()

    def ring(self) -> None:
        with contextlib.suppress(RuntimeError):  # trio.run has returned: nobody waits any more
            self._token.run_sync_soon(self._event.set)

    async def heard(self, timeout: float | None = None) -> bool:
        if timeout is None:
            await self._event.wait()
        else:
            with self._trio.move_on_after(min(timeout, LONGEST)):
                await self._event.wait()
        return bool(self._event.is_set())

    def shield(self) -> AbstractContextManager[object]:
        shield: AbstractContextManager[object] = self._trio.CancelScope(shield=True)
        return shield


def _trio_here() -> Any:
    """Return trio if it runs this very task, which may be within an event loop of asyncio's."""
    trio = sys.modules.get("trio")
    if trio is not None:
        try:
            trio.lowlevel.current_task()
        except (AttributeError, RuntimeError):  # it is just being imported; it runs no task here
            trio = None
    return trio


def make_bell() -> Bell:
    """Make a bell for the task that runs.

    Raises
    ------
    RuntimeError
        If no library that is known here runs one.
    """
    trio = _trio_here()
    if trio is not None:
        return _TrioBell(trio)
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    if task is None:
        raise RuntimeError(
            "zdev.aio is for tasks of asyncio or trio, and this is none: await it in one, such as "
            "by asyncio.run(main()); where there is no event loop, use zdev.ThreadProxy or its kin"
        )
    return _AsyncioBell()


async def heard_in_spite(bell: Bell, timeout: float | None = None) -> bool:
    """Wait for a bell whatever is cancelled meanwhile; that is raised, but after the wait.

    Of several cancellations the last is raised. A shield of anyio's keeps off its own, so that the
    last is another's if there is any, and no scope of anyio's takes it for the one that it awaits.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    raised: BaseException | None = None
    has_rung = is_over = False
    with bell.shield():
        while not (has_rung or is_over):
            left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            try:
                has_rung = await bell.heard(left)
                is_over = left is not None and left <= LONGEST
            except GeneratorExit:  # the coroutine is closed, and may wait no more
                raise
            except BaseException as error:  # Ctrl-C among them, in trio's main task
                raised = error
    if raised is not None:
        try:
            raise raised
        finally:
            raised = None  # lest the traceback and it keep each other alive
    return has_rung


async def let_others_run() -> None:
    """Let the event loop do what it was to do soon."""
    if _trio_here() is None:
        for _ in range(3):  # a timer of no time needs one turn to become due, and one to be called
            await asyncio.sleep(0)
