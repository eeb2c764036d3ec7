"""How a task waits for a function that blocks: it runs in a thread of its own.

Not in those that asyncio and trio keep for that. These are limited in number, so that a hundred
devices would wait for each other; and asyncio.run waits at its end for all of them, for ever if one
hangs. Ours are daemons.
"""

from __future__ import annotations

from typing import Callable, Generic, TypeVar

from zdev import _times
from zdev._threads import Thread

from ._libraries import heard_in_spite, make_bell

__all__ = ["in_thread"]

T = TypeVar("T")


class _Work(Generic[T]):
    """A function in a thread of its own, which rings a bell at its end."""

    _result: T

    def __init__(self, function: Callable[[], T], name: str) -> None:
        self._function = function
        self._error: BaseException | None = None
        self.bell = make_bell()
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def begin(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def has_begun(self) -> bool:
        """Whether there is such a thread: there may be too many already."""
        return self._thread.ident is not None

    def _run(self) -> None:
        try:
            self._result = self._function()
        except BaseException as error:
            self._error = error
        finally:
            self.bell.ring()

    def result(self) -> T:
        """Return what it has returned, or raise what it has raised, once the bell has rung."""
        self._thread.join()  # it is at its end
        if self._error is not None:
            try:
                raise self._error
            finally:
                self._error = None  # lest the traceback and it keep each other alive
        return self._result


def _nothing() -> None:
    """Interrupt nothing."""


async def in_thread(
    function: Callable[[], T],
    name: str,
    *,
    interrupt: Callable[[], object] = _nothing,
    shielded: bool = False,
) -> T:
    """Run a function in a thread of its own, and return its result.

    A cancellation is raised when the function has come to its end, so that it is known what has
    been done; or after `LEAVE_PATIENCE`, when the thread is left alone.

    Parameters
    ----------
    name : str
        Names the thread.
    interrupt : callable
        Called once, if the wait is interrupted, or there can be no thread: it sees to it that the
        function comes to its end soon. It must not block.
    shielded : bool
        Whether a cancellation waits for the function as long as it takes. If both it and the
        function raise, the function's error is raised.
    """
    work = _Work(function, name)
    try:
        work.begin()
        await (heard_in_spite(work.bell) if shielded else work.bell.heard())
    except GeneratorExit:  # the coroutine is closed, and may wait no more
        interrupt()
        raise
    except BaseException:
        interrupt()
        if work.has_begun:
            has_ended = await heard_in_spite(work.bell, _times.LEAVE_PATIENCE)
            if shielded and has_ended:
                work.result()
        raise
    return work.result()
