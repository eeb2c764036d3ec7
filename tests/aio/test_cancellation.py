"""A task may be cancelled, or closed, wherever it waits: its device ends, and soon."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import sys
import threading
import time
from typing import Any, Callable

import pytest
import zmq

from zdev import _times, aio

from ..support import DEADLINE, PROMPT
from .conftest import Devices
from .libraries import Library, library_of, stepped

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


async def life(device: aio.Proxy) -> None:
    """Live through all that is awaited of a device."""
    async with device:
        await device.live.bind_mon("tcp://127.0.0.1:*")
        await device.pause()
        await device.resume()
        assert await device.call(int) == 0
        await device.statistics()
        async for counts in device.statistics_every(0.001):
            if counts.frontend_to_backend.messages_sent == 0:
                break
        await device.stop()
        await device.wait()


def each_step(
    library: Library, make: Callable[[], Any], act: Callable[[Any, int, int], Any]
) -> int:
    """Live with a new device for each step at which something may be done; return their number.

    ``act`` is called with the task, the step, and that at which it is to do something.
    """
    for at in itertools.count():
        device = make()
        reached = -1

        async def main(at: int = at, device: Any = device) -> Any:
            def step(number: int) -> Any:
                nonlocal reached
                reached = number
                return act(handle, number, at)

            async def task() -> None:
                await stepped(life(device), step)
                await library.sleep(0)  # what came while it was shielded comes here

            handle = library.spawn(task)
            return await handle.over()

        handle = library.run(main)
        assert not device._plain._is_running
        if reached < at:
            assert handle.error is None
            assert not handle.was_cancelled
            return at
        assert handle.was_cancelled or isinstance(handle.error, Interrupt)
    raise AssertionError


class Interrupt(Exception):
    """As Ctrl-C is raised within a task; no event loop minds it."""


def cancel(handle: Any, number: int, at: int) -> None:
    if number == at:
        handle.cancel()


def cancel_on_and_on(handle: Any, number: int, at: int) -> None:
    if number >= at:
        handle.cancel()


def interrupt(_: Any, number: int, at: int) -> Any:
    return Interrupt() if number == at else None


@pytest.mark.parametrize("act", [cancel, cancel_on_and_on])
def test_cancelled_at_every_await(library: Library, devices: Devices, act: Any) -> None:
    assert each_step(library, devices, act) >= 10


@pytest.mark.parametrize("name", ["asyncio", "uvloop"])
def test_interrupted_at_every_await(name: str, devices: Devices) -> None:
    assert each_step(library_of(name), devices, interrupt) >= 10


def test_ctrl_c_at_every_await(devices: Devices) -> None:
    """trio raises it where its first task waits, shielded or not."""
    trio = pytest.importorskip("trio", reason="trio is not installed")
    for at in itertools.count():
        device = devices()

        @trio.lowlevel.enable_ki_protection  # type: ignore[untyped-decorator]
        def step(number: int, at: int = at) -> None:
            if number == at:
                signal.raise_signal(signal.SIGINT)

        async def main(device: Any = device, step: Any = step) -> None:
            await stepped(life(device), step)

        try:
            trio.run(main)
        except KeyboardInterrupt:
            assert not device._plain._is_running
        else:
            break
    assert at >= 10


@pytest.mark.parametrize("name", ["asyncio", "trio"])
def test_a_process_cancelled_at_every_await(name: str, devices: Devices) -> None:
    assert each_step(library_of(name), lambda: devices(in_process=True), cancel) >= 10


def test_closed_at_every_await(devices: Devices) -> None:
    """As when an event loop is closed, and the garbage collector comes to its tasks."""
    for at in itertools.count():
        device = devices()
        is_over = False

        async def main(at: int = at, device: Any = device) -> bool:
            closed = False

            def step(number: int) -> Any:
                nonlocal closed
                closed = closed or number == at
                return GeneratorExit() if number == at else None

            inner: Any = stepped(life(device), step)
            with contextlib.suppress(GeneratorExit):
                await inner
            return closed

        is_over = not library_of("asyncio").run(main)
        deadline = time.monotonic() + DEADLINE
        while device._plain._is_running:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        if is_over:
            break
    assert at >= 10


# In the start


class Gate:
    """A context that is to be had when the gate is opened."""

    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()

    def __call__(self) -> zmq.Context[Any]:
        self.reached.set()
        assert self.open.wait(DEADLINE)
        return zmq.Context.instance()


def test_cancelled_while_it_starts(library: Library, devices: Devices) -> None:
    """The cancellation is raised when the start has come to its end, and the device to its own."""
    device, gate = devices(), Gate()
    device.context_factory = gate

    async def main() -> None:
        serving = library.spawn(device.serve)
        await library.until(gate.reached.is_set)
        serving.cancel()
        await library.sleep(0.02)
        assert device._plain._is_running
        gate.open.set()
        assert (await serving.over()).was_cancelled
        assert not device._plain._is_running

    library.run(main)


def test_a_start_that_hangs_is_left_alone(
    library: Library, devices: Devices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancellation does not wait for it for ever; it stops what it starts by itself."""
    monkeypatch.setattr(_times, "LEAVE_PATIENCE", 0.1)
    device, gate = devices(), Gate()
    device.context_factory = gate

    async def main() -> None:
        serving = library.spawn(device.serve)
        await library.until(gate.reached.is_set)
        serving.cancel()
        assert (await serving.over()).was_cancelled

    library.run(main)
    monkeypatch.undo()
    gate.open.set()
    deadline = time.monotonic() + DEADLINE
    while device._plain._is_running:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_start_that_has_not_come_to_its_run_is_left_alone(
    library: Library, devices: Devices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing can be stopped yet: the start's own thread does that, when it has started it."""
    monkeypatch.setattr(_times, "LEAVE_PATIENCE", 0.1)
    device, gate = devices(), threading.Event()
    start = device._plain.start
    stop, stopped = device._plain.stop, threading.Event()

    def late() -> None:
        assert gate.wait(DEADLINE)
        start()

    def stop_and_tell(*args: Any, **options: Any) -> Any:
        stop(*args, **options)
        stopped.set()

    device._plain.start, device._plain.stop = late, stop_and_tell

    async def main() -> None:
        serving = library.spawn(device.serve)
        await library.until(lambda: device._is_starting)
        serving.cancel()
        assert (await serving.over()).was_cancelled

    library.run(main)
    monkeypatch.undo()
    assert not stopped.is_set()
    gate.set()
    assert stopped.wait(DEADLINE)


def test_stopped_by_another_task_while_it_starts(library: Library, devices: Devices) -> None:
    device, gate = devices(), Gate()
    device.context_factory = gate

    async def main() -> None:
        serving = library.spawn(device.serve)
        await library.until(gate.reached.is_set)
        stopping = library.spawn(device.stop)
        await library.sleep(0.02)
        gate.open.set()
        await stopping.get()
        assert device.done
        await serving.get()  # it has been stopped, which is no error

    library.run(main)


# In the end


class Status:
    """Knows when a device is served."""

    endpoints: Any = None

    def started(self, value: Any = None) -> None:
        self.endpoints = value


async def served(library: Library, device: Any) -> Any:
    """Let a task serve a device; return it when that relays."""
    status = Status()
    serving = library.spawn(lambda: device.serve(task_status=status))
    await library.until(lambda: status.endpoints)
    return serving


@contextlib.contextmanager
def unanswered(device: Any) -> Any:
    """Let a request be under way that nobody answers: a drain takes all its time."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as client:
        client.linger = 0
        with context.socket(zmq.DEALER) as worker:
            worker.linger = 0
            client.connect(device.endpoints["in"][0])
            worker.connect(device.endpoints["out"][0])
            client.send(b"request")
            assert worker.poll(DEADLINE * 1000)
            yield


def test_a_cancellation_cuts_a_drain_short(library: Library, devices: Devices) -> None:
    device = devices("Proxy", zmq.DEALER, zmq.DEALER)

    async def main() -> None:
        async with device:
            with unanswered(device):
                stopping = library.spawn(lambda: device.stop(drain=1000))
                await library.sleep(0.05)
                assert not device.done
                stopping.cancel()
                assert (await stopping.over()).was_cancelled
                assert device.done
        assert device.last_stop.unanswered == 1

    library.run(main)


def test_leaving_drains_in_spite_of_a_cancellation(library: Library, devices: Devices) -> None:
    device = devices("Proxy", zmq.DEALER, zmq.DEALER, drain=0.3)

    async def main() -> None:
        serving = await served(library, device)
        with unanswered(device):
            began = time.monotonic(), time.thread_time()
            serving.cancel()
            await library.sleep(0.05)
            serving.cancel()
            assert (await serving.over()).was_cancelled
            took, used = time.monotonic() - began[0], time.thread_time() - began[1]
        assert took >= 0.3
        assert used < took / 3  # see `test_a_shielded_stop_uses_no_cpu`

    library.run(main)


def test_a_shielded_stop_uses_no_cpu(devices: Devices) -> None:
    """A scope of anyio's cancels again in each turn of asyncio's event loop, unless shielded from."""
    library = library_of("anyio on asyncio")
    device = devices("Proxy", zmq.DEALER, zmq.DEALER, drain=0.5)

    async def main() -> int:
        serving = await served(library, device)
        with unanswered(device):
            turns = 0

            def count() -> None:
                nonlocal turns
                turns += 1

            loop: Any = asyncio.get_running_loop()
            select, loop._selector.select = (
                loop._selector.select,
                lambda timeout: (count(), select(timeout))[1],
            )
            serving.cancel()
            await serving.over()
            loop._selector.select = select
        return turns

    assert library.run(main) < 50


class HoldsUp:
    """What is called in a device's own thread, and keeps it from its end until the gate is opened."""

    def __init__(self) -> None:
        self.reached, self.gate = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        assert self.gate.wait(DEADLINE)


def test_an_end_that_takes_too_long_is_an_error(
    library: Library, devices: Devices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_times, "LEAVE_PATIENCE", 0.1)
    device, hold_up = devices(), HoldsUp()

    async def held_up() -> None:
        async with device:
            library.spawn(lambda: device.call(hold_up))
            await library.until(hold_up.reached.is_set)

    async def main() -> None:
        with pytest.raises(TimeoutError, match=r"has not ended in 0\.1 s"):
            await held_up()
        hold_up.gate.set()

    try:
        library.run(main)
    finally:
        hold_up.gate.set()
    device._plain.stop(timeout=DEADLINE)


def test_also_where_it_is_cancelled(
    library: Library, devices: Devices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it has not ended is told, and not only that its task was cancelled."""
    monkeypatch.setattr(_times, "LEAVE_PATIENCE", 0.2)
    device, hold_up = devices(), HoldsUp()

    async def main() -> None:
        serving = await served(library, device)
        asking = library.spawn(lambda: device.call(hold_up))
        await library.until(hold_up.reached.is_set)
        serving.cancel()
        await library.sleep(0.05)
        serving.cancel()
        await serving.over()
        hold_up.gate.set()
        await asking.over()
        assert "has not ended in 0.2 s" in str(serving.error)

    try:
        library.run(main)
    finally:
        hold_up.gate.set()
    device._plain.stop(timeout=DEADLINE)


# asyncio's account of cancellations


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout is of Python 3.11")
def test_a_timeout_of_asyncio_is_one(devices: Devices) -> None:
    async def main() -> None:
        device, task = devices(), asyncio.current_task()
        assert task is not None
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02), device:
                await device.wait()
        assert task.cancelling() == 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await device.serve()
        assert task.cancelling() == 0

    library_of("asyncio").run(main)


def test_wait_for_of_asyncio(devices: Devices) -> None:
    async def main() -> None:
        device = devices()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(device.serve(), 0.05)
        assert device.done

    library_of("asyncio").run(main)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="before, anyio takes the one for the other")
def test_what_cancels_the_task_is_not_taken_for_what_cancels_a_scope(devices: Devices) -> None:
    """A task of anyio's is cancelled by its scope and then, as its device ends, by another one."""
    anyio = pytest.importorskip("anyio", reason="anyio is not installed")
    library = library_of("asyncio")
    device = devices("Proxy", zmq.DEALER, zmq.DEALER, drain=0.3)
    scopes = []
    status = Status()

    async def serve() -> None:
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            await device.serve(task_status=status)
        await asyncio.sleep(DEADLINE)  # it goes on, unless it is cancelled itself

    async def main() -> None:
        serving = library.spawn(serve)
        await library.until(lambda: status.endpoints)
        with unanswered(device):
            scopes[0].cancel()
            await asyncio.sleep(0.05)
            serving.cancel()
            await serving.over()
        assert serving.was_cancelled

    began = time.monotonic()
    library.run(main)
    assert time.monotonic() - began < PROMPT
