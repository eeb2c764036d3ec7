"""Event loops that close, that share a device, that have many; and what an import brings along."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
import zmq

from ..support import DEADLINE, Background, Network, python, wait_until
from .conftest import Devices
from .libraries import Library, library_of

# Its end


def test_one_that_returns_with_a_device_left(devices: Devices) -> None:
    """A task that nobody waits for is cancelled by asyncio.run, which waits for the stop."""
    device = devices()

    async def main() -> None:
        serving = asyncio.ensure_future(device.serve())
        while not device.endpoints:
            await asyncio.sleep(0.001)
        assert not serving.done()

    asyncio.run(main())
    assert device.done


def test_one_that_is_closed_before_the_end_of_a_device(devices: Devices) -> None:
    """The device goes on, as any in the background does; another event loop may go on with it."""
    device, loop = devices(), asyncio.new_event_loop()
    serving: Any = loop.create_task(device.serve())
    while not device.endpoints or device._is_starting:
        loop.run_until_complete(asyncio.sleep(0.001))
    serving._log_destroy_pending = False  # asyncio shows a task that it cannot resume any more
    loop.close()
    assert not device.done
    assert asyncio.run(device.statistics())[0].messages_sent == 0
    asyncio.run(device.stop())  # what is told to the closed event loop is lost, and does no harm
    asyncio.run(device.wait())
    if sys.implementation.name == "pypy":
        return  # where the garbage collector may come to the task never
    del serving
    wait_until(lambda: [gc.collect()] and not device._held.locked())
    asyncio.run(device.__aenter__())
    asyncio.run(device.__aexit__(None, None, None))


@pytest.mark.skipif(importlib.util.find_spec("trio") is None, reason="trio is not installed")
def test_trio_that_returns_before_the_end_of_a_device(devices: Devices) -> None:
    import trio

    device = devices()
    trio.run(device.__aenter__)
    assert not device.done
    asyncio.run(device.stop())
    trio.run(device.wait)


HANGS = """
import asyncio, threading, time, zmq
from zdev import aio

device = aio.Proxy(zmq.PULL, zmq.PUSH)
never, reached = threading.Event(), threading.Event()

def hang():
    reached.set()
    never.wait()

device.context_factory = hang

async def main():
    task = asyncio.ensure_future(device.serve())
    while not reached.is_set():
        await asyncio.sleep(0.001)

import zdev._times
zdev._times.LEAVE_PATIENCE = 0.2
began = time.monotonic()
asyncio.run(main())
assert time.monotonic() - began < 5
print("returned", flush=True)
"""


def test_asyncio_run_returns_though_a_start_hangs() -> None:
    done = python(HANGS)
    assert (done.stdout, done.stderr, done.returncode) == ("returned\n", "", 0)


LIFE = """
import asyncio, sys, zmq
from zdev import aio

async def main():
    asyncio.get_running_loop().slow_callback_duration = 10.0  # else a busy machine is complained of
    device = aio.MonitoredQueue(zmq.PULL, zmq.PUSH, in_process={in_process})
    device.bind_in("tcp://127.0.0.1:*")
    async with device:
        await device.pause()
        await device.resume()
        await device.live.bind_in("tcp://127.0.0.1:*")
        task = asyncio.ensure_future(device.wait())
        async for _ in device.statistics_every(0.01):
            break
        print(len(device.endpoints["in"]))
    await task

if __name__ == "__main__":
    {start}
    asyncio.run(main(), debug=True)
    {then}
"""

TRIO = """import trio

    async def start():
        async with trio.open_nursery() as nursery:
            device = aio.Proxy(zmq.PULL, zmq.PUSH)
            device.bind_in("tcp://127.0.0.1:*")
            print(len((await nursery.start(device.serve))["in"]))
            nursery.cancel_scope.cancel()

    trio.run(start)"""


@pytest.mark.parametrize("in_process", [False, True])
def test_nothing_is_left_to_be_warned_of(in_process: bool) -> None:
    has_trio = importlib.util.find_spec("trio") is not None
    then = TRIO if has_trio else "print(1)"
    # Python warns of forks in programs that have threads.
    start = "import multiprocessing; multiprocessing.set_start_method('forkserver')"
    code = LIFE.format(in_process=in_process, then=then, start=start)
    done = python(code, PYTHONDEVMODE="1")
    assert (done.stdout, done.stderr, done.returncode) == ("2\n1\n", "", 0)


CTRL_C = """
import asyncio, signal, sys, zmq
from zdev import aio

device = aio.Proxy(zmq.PULL, zmq.PUSH)
device.bind_in("tcp://127.0.0.1:*")
handler = signal.getsignal(signal.SIGINT)

class Status:
    def started(self, value):
        print("relays", flush=True)

async def main():
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    await device.serve(task_status=Status())

try:
    {run}
except KeyboardInterrupt:
    print(device.done)
"""


@pytest.mark.parametrize("run", ["asyncio.run(main())", "import trio; trio.run(main)"])
def test_ctrl_c_is_the_event_loops(run: str) -> None:
    if "trio" in run:
        pytest.importorskip("trio", reason="trio is not installed")
    program = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", CTRL_C.format(run=run)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with program:
        assert program.stdout is not None
        assert program.stdout.readline() == "relays\n"
        program.send_signal(signal.SIGINT)
        out, errors = program.communicate(timeout=DEADLINE)
    assert (out, errors, program.returncode) == ("True\n", "", 0)


# Several


def test_two_with_a_device_each(devices: Devices, net: Network) -> None:
    barrier = threading.Barrier(2)

    def live(name: str) -> None:
        device = devices()

        async def main() -> None:
            for _ in range(10):
                barrier.wait(DEADLINE)
                async with device:
                    await device.pause()
                    await device.resume()

        library_of(name).run(main)

    threads = [Background(lambda name=name: live(name)) for name in two_names()]
    for thread in threads:
        thread.join()


def two_names() -> list[str]:
    has_trio = importlib.util.find_spec("trio") is not None
    return ["asyncio", "trio" if has_trio else "asyncio"]


def test_two_with_one_device(devices: Devices) -> None:
    """One serves it, another one asks it things, stops it, and waits for its end."""
    device = devices()
    one, other = two_names()

    async def ask() -> None:
        library = library_of(other)
        await library.until(lambda: device.endpoints and not device._is_starting)
        await device.pause()
        await device.live.bind_in("tcp://127.0.0.1:*")
        with pytest.raises(RuntimeError, match="entered or served already"):
            await device.serve()
        await device.stop()
        await device.wait()

    asking = Background(lambda: library_of(other).run(ask))
    library_of(one).run(device.serve)
    asking.join()
    assert len(device.endpoints["in"]) == 2


def test_trio_as_a_guest_of_asyncio(devices: Devices) -> None:
    """Both are there, and each task has what its own library needs."""
    trio = pytest.importorskip("trio", reason="trio is not installed")
    device, guest = devices(), devices()

    async def live(device: Any) -> Any:
        async with device:
            await device.pause()
            await device.resume()
        return device.last_stop

    async def main() -> None:
        loop = asyncio.get_running_loop()
        over = loop.create_future()
        trio.lowlevel.start_guest_run(
            live,
            guest,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            done_callback=over.set_result,
        )
        for _ in range(10):
            assert await live(device) is not None
        assert (await over).unwrap() is not None

    library_of("asyncio").run(main)


def test_many_tasks_enter_one_device(library: Library, devices: Devices) -> None:
    """One of them does, whichever comes first."""
    device = devices()

    async def main() -> None:
        tasks = [library.spawn(device.serve) for _ in range(10)]
        await library.until(lambda: device.endpoints and not device._is_starting)
        await device.stop()
        outcomes = [(await task.over()).error for task in tasks]
        assert outcomes.count(None) == 1
        assert all("entered or served already" in str(each) for each in outcomes if each)

    library.run(main)


@pytest.mark.parametrize("name", ["asyncio", "trio"])
def test_a_hundred_devices(name: str, devices: Devices) -> None:
    library = library_of(name)

    async def main() -> None:
        began = time.monotonic()
        made = [devices("Device", zmq.QUEUE, zmq.PULL, zmq.PUSH) for _ in range(100)]
        tasks = [library.spawn(device.serve) for device in made]
        await library.until(lambda: all(d.endpoints and not d._is_starting for d in made))
        counts = [library.spawn(device.statistics) for device in made]
        for each in counts:
            await each.get()
        for task in tasks:
            task.cancel()
        for task in tasks:
            await task.over()
        assert time.monotonic() - began < DEADLINE

    library.run(main)


def test_a_hundred_starts_that_hang_do_not_keep_another_waiting(devices: Devices) -> None:
    """asyncio's own threads, of which there are few, would be taken by them."""
    gate = threading.Event()
    library = library_of("asyncio")

    def context() -> zmq.Context[Any]:
        assert gate.wait(DEADLINE)
        return zmq.Context.instance()

    async def main() -> None:
        hanging = [devices() for _ in range(100)]
        for device in hanging:
            device.context_factory = context
        tasks = [library.spawn(device.serve) for device in hanging]
        async with devices() as device:
            assert not device.done
        gate.set()
        for task in tasks:
            task.cancel()
        for task in tasks:
            await task.over()

    library.run(main)


# What it costs


def test_messages_do_not_wake_it(devices: Devices, net: Network) -> None:
    library = library_of("asyncio")
    device = devices()
    calls = 0

    async def main() -> None:
        nonlocal calls
        loop: Any = asyncio.get_running_loop()
        call = loop.call_soon_threadsafe

        def counted(*args: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            return call(*args, **options)

        loop.call_soon_threadsafe = counted
        async with device:
            assert calls == 1  # its start
            waiting = library.spawn(device.wait)
            source, sink = net.socket(zmq.PUSH), net.socket(zmq.PULL)
            source.connect(device.endpoints["in"][0])
            sink.connect(device.endpoints["out"][0])
            for _ in range(100):
                for _ in range(10):
                    source.send(b"x")
                for _ in range(10):
                    sink.recv()
                await asyncio.sleep(0)
            assert calls == 1
        await waiting.get()
        assert calls == 3  # its end for who waits, and that of the stop

    library.run(main)


def test_an_import_brings_nothing_along() -> None:
    looked = "print(sorted({'asyncio', 'trio', 'anyio', 'zdev.aio'} & set(sys.modules)))"
    assert python(f"import sys, zdev; {looked}").stdout == "[]\n"
    loaded = python(f"import sys; from zdev import aio; {looked}").stdout
    assert loaded == "['asyncio', 'zdev.aio']\n"


def test_without_anyio_and_trio() -> None:
    """The suite imports them, as pytest loads anyio's plugin; a program need not have them."""
    code = "import sys; sys.modules['trio'] = sys.modules['anyio'] = None\n"
    code += LIFE.format(in_process=False, then="print(1)", start="")
    done = python(code)
    assert (done.stdout, done.stderr, done.returncode) == ("2\n1\n", "", 0)
