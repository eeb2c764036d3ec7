"""The life of a device for an event loop: entered or served, asked, stopped, and waited for.

A device of `zdev.aio` has a plain one, in a thread or a process. What may block of it is done in a
thread of ours; its end is watched for, which wakes the event loop once. Nothing here belongs to an
event loop, so that several may use one device.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, Callable, Protocol, TypeVar

from zdev import _times
from zdev._arguments import check_function
from zdev._connections import Connections
from zdev._contract import Statistics
from zdev._devices.launchers import BackgroundDevice
from zdev._devices.process import ProcessDevice
from zdev._devices.progress import Progress
from zdev._devices.stages import Stage, Stages
from zdev._stops import StopReport
from zdev._threads import allocate_lock
from zdev._times import DRAIN_QUIET, check_seconds, check_timeout

from ._threads import in_thread
from ._watching import StatisticsEvery, wait_for_end

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["Life", "TaskStatus"]

T = TypeVar("T")


class TaskStatus(Protocol):
    """Who is told that a task has started: trio's or anyio's, as their ``start`` gives it."""

    def started(self, value: Any = ...) -> None:
        """Be told, with what ``start`` is to return."""


class _Nobody:
    """Who is told where nobody wants to be."""

    def started(self, value: Any = None) -> None:
        """Be told."""


_NOBODY = _Nobody()


class _Start:
    """The start of a plain device, in a thread; it may be called off."""

    def __init__(self, plain: BackgroundDevice) -> None:
        self._plain = plain
        self.has_begun = self.is_called_off = False
        self.over = Stages()

    def run(self) -> None:
        """Start the device; if that is called off meanwhile, stop it again."""
        self.has_begun = True
        try:
            self._plain.start()
            if self.is_called_off:
                self._plain.stop(timeout=_times.LEAVE_PATIENCE)
        finally:
            self.over.reach(Stage.ENDED)

    def call_off(self) -> None:
        """Have the device end, or never begin; does not wait. Nobody else can have started it."""
        self.is_called_off = True
        ask_to_stop(self._plain)


def ask_to_stop(plain: BackgroundDevice, drain: float | None = None) -> None:
    """Have a plain device end, if it runs; does not wait."""
    run = plain._running_run
    if run is not None:
        run.stop(drain)


class Life:
    """What every device of `zdev.aio` is: started, asked and stopped without blocking.

    Parameters
    ----------
    plain : BackgroundDevice
        What runs in the background.
    drain : float or None
        How long a stop drains where the device is left.
    """

    def __init__(self, plain: BackgroundDevice, drain: float | None) -> None:
        self._plain = plain
        self._drain = None if drain is None else check_seconds(drain, "drain")
        self._held = allocate_lock()  # by who has entered it, or serves it
        self._start: _Start | None = None

    def __repr__(self) -> str:
        """Tell what the plain device does."""
        return f"<aio.{type(self).__name__} of {self._plain!r}>"

    # What is known of it at any moment

    @property
    def name(self) -> str:
        """As given, or made up; names the thread or process, and the device in the log."""
        return self._plain.name

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self._plain.done

    @property
    def exception(self) -> BaseException | None:
        """What ended it, if it was an error."""
        return self._plain.exception

    @property
    def endpoints(self) -> dict[str, list[str]]:
        """Where each socket is really bound, by role: wildcards and port 0 resolved."""
        return self._plain.endpoints

    @property
    def last_stop(self) -> StopReport | None:
        """What it left when it ended."""
        return self._plain.last_stop

    @property
    def context_factory(self) -> Callable[[], Any]:
        """Makes the context, or says which one to use; set it before the start."""
        return self._plain.context_factory

    @context_factory.setter
    def context_factory(self, factory: Callable[[], Any]) -> None:
        self._plain.context_factory = factory

    # Its start and its end

    async def __aenter__(self) -> Self:
        """Start it, and go on when it relays; or raise what prevented that."""
        self._hold()
        try:
            await self._begin()
        except BaseException:
            self._held.release()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop it, whatever is cancelled meanwhile; if all else went well, raise what ended it."""
        try:
            if isinstance(error, GeneratorExit):  # the coroutine is closed, and may wait no more
                ask_to_stop(self._plain, self._drain)
            else:
                await self._end(self._drain)
        finally:
            self._held.release()
        if kind is None and self.exception is not None:
            raise self.exception

    def _hold(self) -> None:
        if not self._held.acquire(blocking=False):
            raise RuntimeError(
                f"{self.name} is entered or served already; leave it first, or make another one"
            )

    async def _begin(self) -> None:
        start = self._start = _Start(self._plain)
        try:
            await in_thread(start.run, f"start of {self.name}", interrupt=start.call_off)
        except GeneratorExit:
            raise
        except BaseException:
            if not start.has_begun:  # there could be no thread
                start.over.reach(Stage.ENDED)
            # It may have been called off at the moment when the start had succeeded.
            if start.is_called_off and start.over.now == Stage.ENDED and self._plain._is_running:
                await self._end(None)
            raise

    async def _end(self, drain: float | None) -> None:
        """Stop it; a cancellation waits for that, which takes not much longer than the drain."""
        timeout = (drain or 0.0) + _times.LEAVE_PATIENCE
        await self._do(
            "stop",
            lambda: self._plain.stop(drain, timeout),
            interrupt=lambda: ask_to_stop(self._plain),
            shielded=True,
        )

    async def serve(self, *, task_status: TaskStatus = _NOBODY) -> None:
        """Run it until this task is cancelled, the device is stopped, or it fails.

        For ``await nursery.start(device.serve)`` of trio and ``await task_group.start(...)`` of
        anyio, which return the endpoints when the device relays; for asyncio's TaskGroup it is a
        coroutine as any: ``task_group.create_task(device.serve())``.

        Parameters
        ----------
        task_status
            Its ``started(endpoints)`` is called once the device relays; trio and anyio give it.

        Raises
        ------
        zmq.ZMQError, ValueError, TypeError
            What prevented the start; `zdev.BindError` if an address was not to be had.
        RuntimeError
            If it is entered or served already.
        TimeoutError
            If it does not end, within ten seconds after its drain; its process is killed.
        BaseException
            The error that ended the device.
        """
        async with self:
            task_status.started(self.endpoints)
            await self.wait()

    async def wait(self) -> None:
        """Wait until the device has ended, and raise what ended it. To cancel this stops nothing.

        Raises
        ------
        RuntimeError
            If it was never started.
        BaseException
            The error that ended the device.
        """
        run = self._plain._run
        if run is None:
            raise RuntimeError(f"{self.name} was not started; {ENTER}")
        await wait_for_end(run)
        if run.exception is not None:
            raise run.exception

    async def stop(
        self,
        drain: float | None = None,
        timeout: float | None = None,
        *,
        quiet: float | None = DRAIN_QUIET,
    ) -> StopReport | None:
        """End the device, whatever it is doing, and wait for its end.

        To stop a device that does not run does nothing. A cancellation cuts a drain short, and is
        raised when the device has ended.

        Parameters
        ----------
        drain, timeout, quiet : float, optional
            Seconds, as for `zdev.Device.stop`: for which it relays what is there, for which the end
            is waited for, and for which nothing must have come.

        Returns
        -------
        StopReport or None
            What the device left; None if it has not come to relay, or its process was killed.

        Raises
        ------
        TimeoutError
            If it has not ended by then; its process is killed.
        TypeError, ValueError
            If one of them is no number of seconds, or negative.
        """
        start = self._start
        until = check_timeout(timeout)

        def stop() -> StopReport | None:
            if start is not None and start.over.now < Stage.ENDED:
                start.call_off()
                start.over.wait(Stage.ENDED, until)
            return self._plain.stop(drain, timeout, quiet=quiet)

        return await self._do("stop", stop, interrupt=lambda: ask_to_stop(self._plain))

    # While it runs

    async def pause(self) -> None:
        """Relay nothing until `resume`; control goes on. When this returns, it is so.

        Raises
        ------
        RuntimeError
            If the device does not run.
        """
        self._relaying("pause()")
        await self._do("pause", self._plain.pause)

    async def resume(self) -> None:
        """End a pause.

        Raises
        ------
        RuntimeError
            If the device does not run.
        """
        self._relaying("resume()")
        await self._do("resume", self._plain.resume)

    async def call(self, function: Callable[[], T], timeout: float | None = None) -> T:
        """Run a function where the device relays, between two messages, and return its result.

        Parameters
        ----------
        function : callable
            Called without arguments, in the device's own thread; what it raises is raised here.
            The function for a device in a process, and what it returns, have to pickle.
        timeout : float, optional
            Seconds to wait for it.

        Raises
        ------
        TimeoutError
            If it has not been run by then; it will not be, unless it has begun.
        TypeError, ValueError
            For what cannot be called, or does not pickle, and for a timeout that is no number of
            seconds, or negative.
        RuntimeError
            If the device does not run.
        """
        check_function(function)
        until = check_timeout(timeout)
        run = self._relaying("call()")
        if isinstance(self._plain, ProcessDevice):
            _check_goes(function)
        result: T = await self._do("call", lambda: run.ask("call", function, until))
        return result

    async def statistics(self) -> Statistics:
        """Return what the device has relayed in this run, or in the last; zeros before the first.

        Raises
        ------
        RuntimeError
            If its process was killed while it relayed.
        """
        return await self._do("statistics", self._plain.statistics)

    async def connections(self) -> dict[str, Connections]:
        """Return who is there, by role; for that, give ``watch_connections=True``.

        Raises
        ------
        RuntimeError
            If the device does not run, or does not watch its connections.
        """
        self._relaying("connections()")
        return await self._do("connections", self._plain.connections)

    def statistics_every(self, seconds: float) -> StatisticsEvery:
        """Return the statistics now, then every so many seconds, and a last time at the end.

        Whoever takes longer than that misses some, and gets none late.

        Parameters
        ----------
        seconds : float
            More than 0.

        Returns
        -------
        asynchronous iterator of Statistics
            For ``async for``; it ends with the device, and raises what ended that, if it was an
            error. It may be left at any time.

        Raises
        ------
        RuntimeError
            If the device does not run.
        TypeError, ValueError
            If that is no number of seconds, or not more than 0.
        """
        every = check_seconds(seconds, "seconds", "a number of seconds")
        if not every:
            raise ValueError("seconds must be more than 0; for the moment's, await statistics()")
        return StatisticsEvery(self.statistics, self._relaying("statistics_every()"), every)

    # How it is asked

    async def _do(self, what: str, function: Callable[[], T], **options: Any) -> T:
        """Have something done to the plain device, in a thread."""
        return await in_thread(function, f"{what} of {self.name}", **options)

    @property
    def _is_starting(self) -> bool:
        return self._start is not None and self._start.over.now < Stage.ENDED

    def _relaying(self, what: str) -> Progress:
        """Return the run, or raise that there is none to be asked."""
        run = self._plain._running_run
        if run is None or self._is_starting:
            state = "was not started"
            if self._is_starting:
                state = "is being started"
            elif self.done:
                state = "has ended"
            raise RuntimeError(f"{self.name} {state}; {what} is for a device that runs: {ENTER}")
        return run

    def _plan(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Wire the plain device before it starts."""
        if self._is_starting or self._plain._is_running:
            raise RuntimeError(
                f"{self.name} runs, and {method}() would block its event loop: "
                f"await device.live.{method}(...) instead"
            )
        return getattr(self._plain, method)(*args, **kwargs)

    async def _wire(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Wire the plain device while it runs."""
        self._relaying(f"live.{method}()")
        return await self._do(method, lambda: getattr(self._plain, method)(*args, **kwargs))


ENTER = "enter it by 'async with', or let a task serve() it"


def _check_goes(function: Callable[..., Any]) -> None:
    """Raise if a function cannot go into another process."""
    try:
        pickle.dumps(function)
    except Exception as error:
        raise TypeError(
            f"function has to pickle for a device in a process: {error}; use one of a module, or "
            "functools.partial of one"
        ) from None
