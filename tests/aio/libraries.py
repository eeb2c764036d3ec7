"""The event loops that the tests run on, with what they need of each under one name."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import types
from collections.abc import AsyncIterator, Generator
from typing import Any, Callable

import pytest

__all__ = ["NAMES", "Asyncio", "Library", "Scoped", "library_of", "stepped"]

NAMES = ["asyncio", "uvloop", "trio", "anyio on asyncio", "anyio on trio"]


class Handle:
    """A task, which can be cancelled, and what has come of it."""

    cancel: Callable[[], Any]

    def __init__(self) -> None:
        self.was_cancelled = False
        self.error: BaseException | None = None
        self.result: Any = None

    async def over(self) -> Handle:
        """Wait for its end."""
        raise NotImplementedError

    async def get(self) -> Any:
        """Return its result, or raise what it has raised."""
        await self.over()
        assert not self.was_cancelled
        if self.error is not None:
            raise self.error
        return self.result


class Library:
    """Runs a test's coroutine, and tasks beside it."""

    name: str

    def run(self, main: Callable[[], Any]) -> Any:
        """Run to its end, with tasks that `spawn` makes."""
        raise NotImplementedError

    def spawn(self, function: Callable[[], Any]) -> Handle:
        """Run a function in a task of its own; its errors are the handle's."""
        raise NotImplementedError

    async def sleep(self, seconds: float) -> None:
        raise NotImplementedError

    async def until(self, condition: Callable[[], Any]) -> None:
        """Look again and again; the suite's own time limit ends it."""
        while not condition():
            await self.sleep(0.001)


# asyncio's own tasks


class AsyncioHandle(Handle):
    def __init__(self, task: asyncio.Task[Any]) -> None:
        super().__init__()
        self.task, self.cancel = task, task.cancel

    async def over(self) -> Handle:
        await asyncio.wait([self.task])
        self.was_cancelled = self.task.cancelled()
        if not self.was_cancelled:
            self.error = self.task.exception()
            self.result = None if self.error else self.task.result()
        return self


class Asyncio(Library):
    """asyncio in its debug mode, or uvloop."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._make_loop = asyncio.new_event_loop
        if name == "uvloop":
            self._make_loop = pytest.importorskip(
                "uvloop", reason="uvloop is not installed; there are no wheels of it for PyPy"
            ).new_event_loop

    def run(self, main: Callable[[], Any]) -> Any:
        """Do what asyncio.run does, on any kind of event loop, and mind what that complains of."""
        loop = self._make_loop()
        loop.set_debug(True)
        loop.slow_callback_duration = 10.0
        complaints: list[Any] = []
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        try:
            asyncio.set_event_loop(loop)
            return loop.run_until_complete(main())
        finally:
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            asyncio.set_event_loop(None)
            loop.close()
            assert complaints == []

    def spawn(self, function: Callable[[], Any]) -> Handle:
        async def task() -> Any:
            return await function()

        return AsyncioHandle(asyncio.get_running_loop().create_task(task()))

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


# Tasks with scopes


class ScopedHandle(Handle):
    def __init__(self, library: Any) -> None:
        super().__init__()
        self.scope = library.CancelScope()
        self.cancel = self.scope.cancel
        self._over = library.Event()

    async def run(self, function: Callable[[], Any]) -> None:
        try:
            with self.scope:
                try:
                    self.result = await function()
                except Exception as error:
                    self.error = error
            self.was_cancelled = self.scope.cancelled_caught
        finally:
            self._over.set()

    async def over(self) -> Handle:
        await self._over.wait()
        return self


class Scoped(Library):
    """trio, or anyio on either."""

    def __init__(self, name: str) -> None:
        self.name = name
        module, _, self._backend = name.partition(" on ")
        for each in filter(None, (module, self._backend)):
            pytest.importorskip(each, reason=f"{each} is not installed")
        self.library: Any = importlib.import_module(module)

    @contextlib.asynccontextmanager
    async def group(self) -> AsyncIterator[Any]:
        """Open trio's nursery, or a task group of anyio's."""
        is_trio = self.name == "trio"
        async with (
            self.library.open_nursery() if is_trio else self.library.create_task_group()
        ) as it:
            yield it

    def run(self, main: Callable[[], Any]) -> Any:
        async def run() -> Any:
            async with self.group() as self._group:
                result = await main()
                self._group.cancel_scope.cancel()
            return result

        options = {"backend": self._backend} if self._backend else {}
        if self._backend == "asyncio":
            options["backend_options"] = {"debug": True}
        return self.library.run(run, **options)

    def spawn(self, function: Callable[[], Any]) -> Handle:
        handle = ScopedHandle(self.library)
        self._group.start_soon(handle.run, function)
        return handle

    async def sleep(self, seconds: float) -> None:
        await self.library.sleep(seconds)


def library_of(name: str) -> Library:
    """Return an event loop by its name, or skip the test where it is not installed."""
    return Asyncio(name) if name in ("asyncio", "uvloop") else Scoped(name)


# A coroutine step by step


@types.coroutine
def stepped(coroutine: Any, act: Callable[[int], Any]) -> Generator[Any, Any, Any]:
    """Await a coroutine, and act each time when it waits: what that returns is thrown there.

    To cancel its task in the act cancels it at this very place.
    """
    inner = coroutine.__await__()
    step = 0
    try:
        waits = inner.send(None)
        while True:
            thrown = act(step)
            step += 1
            try:
                if thrown is not None:
                    raise thrown
                value = yield waits
            except GeneratorExit:
                inner.close()
                raise
            except BaseException as error:
                waits = inner.throw(error)
            else:
                waits = inner.send(value)
    except StopIteration as stop:
        return stop.value
