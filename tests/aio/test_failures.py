"""Devices under an event loop that fail, at their start or later; and misuse."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import Any, Callable

import pytest
import zmq

import zdev
from zdev import _times, aio
from zdev.aio import _threads

from .conftest import IN_PROCESS, Devices, fails
from .libraries import Library, library_of

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


@IN_PROCESS
def test_a_start_that_fails(library: Library, devices: Devices, in_process: bool) -> None:
    device = devices(in_process=in_process)
    holder = devices()

    async def main() -> None:
        async with holder:
            (address,) = holder.endpoints["in"]
            device.bind_in(address)
            for _ in range(2):
                with pytest.raises(zdev.BindError, match="choose another"):
                    async with device:
                        raise AssertionError
                with pytest.raises(zdev.BindError):
                    await device.serve()
                with pytest.raises(zdev.BindError):
                    await device.wait()
            assert device.done
            device.unbind_in(address)
            async with device:
                assert not device.done

    library.run(main)


def test_a_value_that_cannot_work(devices: Devices) -> None:
    device = devices()
    device.context_factory = int

    async def main() -> None:
        with pytest.raises(TypeError, match="context_factory must return"):
            async with device:
                raise AssertionError

    library_of("asyncio").run(main)


def test_one_that_dies_raises_in_whoever_waits(library: Library, devices: Devices) -> None:
    device = devices(in_process=True)

    async def every() -> None:
        async for _ in device.statistics_every(1000.0):
            pass

    async def main() -> None:
        serving = library.spawn(device.serve)
        await library.until(lambda: device.endpoints and not device._is_starting)
        waiting = [library.spawn(each) for each in (device.wait, device.wait, every)]
        await library.until(lambda: len(device._plain._run.stages._waiters) == 4)
        os.kill(device._plain.launcher.pid, signal.SIGKILL)
        for each in (serving, *waiting):
            with pytest.raises(RuntimeError, match="died with exit code -9"):
                await each.get()
        with pytest.raises(RuntimeError, match="died"):
            await device.wait()
        assert isinstance(device.exception, RuntimeError)

    library.run(main)


def test_one_that_dies_within_raises_where_it_is_left(devices: Devices) -> None:
    device = devices(in_process=True)

    async def main() -> None:
        with pytest.raises(RuntimeError, match="died"):
            await killed(lambda: None)
        with pytest.raises(ZeroDivisionError):  # the first error is the one
            await killed(fails)

    async def killed(then: Callable[[], None]) -> None:
        async with device:
            os.kill(device._plain.launcher.pid, signal.SIGKILL)
            while not device.done:
                await asyncio.sleep(0.001)
            then()

    library_of("asyncio").run(main)


def test_the_end_of_the_context_is_a_clean_one(library: Library, devices: Devices) -> None:
    context = zmq.Context()
    device = devices()
    device.context_factory = lambda: context

    async def main() -> None:
        async with device:
            context.term()
            await device.wait()

    library.run(main)


def test_another_stops_it(library: Library, devices: Devices) -> None:
    device = devices()

    async def main() -> None:
        serving = library.spawn(device.serve)
        await library.until(lambda: device.endpoints and not device._is_starting)
        report = await device.stop(drain=5)
        assert report.drained
        await serving.get()
        assert await device.stop() == report  # there is nothing to stop
        async with device:
            pass

    library.run(main)


def test_where_there_can_be_no_more_threads(
    library: Library, devices: Devices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing waits for a thread that is not there; a device that is left ends all the same."""
    device = devices()
    begin = _threads._Work.begin

    def refuse(work: Any) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        monkeypatch.setattr(_threads._Work, "begin", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            await device.serve()
        monkeypatch.setattr(_threads._Work, "begin", begin)
        device.setsockopt_in("linger", 0)  # it is not taken for one that is being started
        await device.__aenter__()
        monkeypatch.setattr(_threads._Work, "begin", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            await device.__aexit__(None, None, None)
        await library.until(lambda: device.done)

    began = time.monotonic()
    library.run(main)
    assert time.monotonic() - began < _times.LEAVE_PATIENCE / 2


def test_a_wait_that_is_cancelled_leaves_nothing(library: Library, devices: Devices) -> None:
    device = devices()

    async def main() -> None:
        async with device:
            every = device.statistics_every(1000.0)
            await every.__anext__()
            waiting = [library.spawn(each) for each in (device.wait, every.__anext__) * 10]
            run = device._plain._run
            await library.until(lambda: len(run.stages._waiters) == 20)
            for each in waiting:
                each.cancel()
                assert (await each.over()).was_cancelled
            assert not run.stages._waiters
            assert not device.done

    library.run(main)


# Misuse


def test_entered_twice(library: Library, devices: Devices) -> None:
    device = devices()

    async def main() -> None:
        async with device:
            with pytest.raises(RuntimeError, match="entered or served already"):
                async with device:
                    raise AssertionError
            with pytest.raises(RuntimeError, match="entered or served already"):
                await device.serve()
            assert not device.done
            await device.statistics()

    library.run(main)


def test_plain_methods_while_it_runs(devices: Devices) -> None:
    device = devices("ProxySteerable")
    names = [name for name in dir(type(device)) if name.startswith(VERBS)]
    assert len(names) == 24

    async def main() -> None:
        async with device:
            for name in names:
                with pytest.raises(RuntimeError, match=rf"await device\.live\.{name}\("):
                    getattr(device, name)("tcp://127.0.0.1:*")
                assert callable(getattr(device.live, name))
        assert not device.endpoints["mon"]

    library_of("asyncio").run(main)


VERBS = ("bind_", "connect_", "unbind_", "disconnect_", "setsockopt_")


def test_what_is_for_a_device_that_runs(library: Library, devices: Devices) -> None:
    device = devices()
    asked = (device.pause, device.resume, device.connections, lambda: device.call(fails))

    async def main() -> None:
        with pytest.raises(RuntimeError, match=r"not started.*async with.*serve"):
            await device.wait()
        for state in ("was not started", "has ended"):
            for ask in asked:
                with pytest.raises(RuntimeError, match=rf"{state}.*async with"):
                    await ask()
            with pytest.raises(RuntimeError, match=f"{state}.*live is for"):
                device.live  # noqa: B018 - it is the point
            with pytest.raises(RuntimeError, match=state):
                device.statistics_every(1.0)
            assert not any((await device.statistics())[0])
            async with device:
                live = device.live
        with pytest.raises(RuntimeError, match="has ended"):
            await live.bind_in("tcp://127.0.0.1:*")
        await device.wait()

    library.run(main)


def test_arguments_that_cannot_work(devices: Devices) -> None:
    wrong: Any = aio.Proxy
    with pytest.raises(TypeError, match="in_process must be"):
        wrong(zmq.PULL, zmq.PUSH, in_process="yes")
    with pytest.raises(TypeError, match="drain must be"):
        wrong(zmq.PULL, zmq.PUSH, drain="1")
    with pytest.raises(ValueError, match="drain must be"):
        wrong(zmq.PULL, zmq.PUSH, drain=-1)
    with pytest.raises(TypeError, match="bursts"):
        wrong(zmq.PULL, zmq.PUSH, bursts=5)
    with pytest.raises(zmq.ZMQError, match="inproc"):
        wrong(zmq.PULL, zmq.PUSH, in_process=True).bind_in("inproc://x")

    async def main() -> None:
        async with devices() as device:
            for seconds in (0, -1, float("nan")):
                with pytest.raises(ValueError, match="seconds must be"):
                    device.statistics_every(seconds)
            with pytest.raises(TypeError, match="seconds must be"):
                device.statistics_every("1")
            with pytest.raises(ValueError, match="drain must be"):
                await device.stop(drain=-1)
            with pytest.raises(ValueError, match="timeout must be"):
                await device.stop(timeout=-1)
            assert not device.done
            every = device.statistics_every(float("inf"))
            await every.__anext__()

    library_of("asyncio").run(main)


def test_where_there_is_no_event_loop(devices: Devices) -> None:
    device = devices()
    for method in (device.serve, device.__aenter__, device.statistics, device.stop):
        running = method()
        with pytest.raises(RuntimeError, match="for tasks of asyncio or trio"):
            running.send(None)
    assert not device._plain._is_running
