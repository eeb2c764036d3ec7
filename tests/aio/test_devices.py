"""Devices under an event loop: their start, what they are asked, their end, and misuse."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from typing import Any

import pytest
import zmq
import zmq.asyncio

import zdev
from zdev import aio

from ..support import DEADLINE, Network
from .conftest import IN_PROCESS, Devices, fails, taken
from .libraries import NAMES, Library, Scoped, library_of

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

TYPES = {
    "Device": (zmq.QUEUE, zmq.PULL, zmq.PUSH),
    "Proxy": (zmq.PULL, zmq.PUSH),
    "ProxySteerable": (zmq.PULL, zmq.PUSH),
    "MonitoredQueue": (zmq.PULL, zmq.PUSH),
}


def peers(net: Network, device: Any) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
    source, sink = net.socket(zmq.PUSH), net.socket(zmq.PULL)
    source.connect(device.endpoints["in"][0])
    sink.connect(device.endpoints["out"][0])
    return source, sink


# What it does


# Processes take time, and have nothing to do with the event loop.
WAYS = [(name, False) for name in NAMES] + [("asyncio", True), ("trio", True)]


@pytest.mark.parametrize(("name", "in_process"), WAYS)
@pytest.mark.parametrize("kind", TYPES)
def test_every_kind_relays(
    engine: str, name: str, devices: Devices, net: Network, kind: str, in_process: bool
) -> None:
    library = library_of(name)
    device = devices(kind, *TYPES[kind], in_process=in_process, name="depot")

    async def main() -> None:
        assert not device.done
        assert device.endpoints == {}
        async with device as entered:
            assert entered is device
            source, sink = peers(net, device)
            source.send(b"x")
            assert sink.recv() == b"x"
            counts = await device.statistics()
            assert counts.frontend_to_backend.messages_sent == 1
            assert (await device.call(os.getpid) != os.getpid()) is in_process
            assert not device.done
        assert device.done
        assert device.exception is None
        assert device.last_stop == zdev.StopReport(False, 0, 0, None)
        assert device.name == "depot"
        assert "depot PULL to PUSH, ended" in repr(device)

    library.run(main)


@IN_PROCESS
def test_it_is_wired_while_it_runs(devices: Devices, net: Network, in_process: bool) -> None:
    device = devices("ProxySteerable", in_process=in_process, watch_connections=True)

    async def main() -> None:
        async with device:
            for role in ("in", "out", "mon", "ctrl"):
                live = device.live
                port = await getattr(live, f"bind_{role}_to_random_port")("tcp://127.0.0.1")
                address = f"tcp://127.0.0.1:{port}"
                assert address in device.endpoints[role]
                await getattr(live, f"unbind_{role}")(address)
                assert address not in device.endpoints[role]
                await getattr(live, f"bind_{role}")(address)
                await getattr(live, f"setsockopt_{role}")("linger", 0)
                other = await asyncio.get_running_loop().run_in_executor(None, net.bound, zmq.PAIR)
                other.bind("tcp://127.0.0.1:*")
                await getattr(live, f"connect_{role}")(other.last_endpoint.decode())
                await getattr(live, f"disconnect_{role}")(other.last_endpoint.decode())
            port = other.last_endpoint.decode().rpartition(":")[2]
            await live.connect_mon(f"tcp://localhost:{port}", resolve="all", every=0.1)
            await live.disconnect_mon(f"tcp://localhost:{port}")
            with pytest.raises(zdev.BindError):
                await live.bind_out(device.endpoints["in"][0])
            with pytest.raises(zmq.ZMQError, match="unbind_in"):
                await live.unbind_in("tcp://127.0.0.1:1")
            peers(net, device)
            while not (await device.connections())["in"].peers:
                await asyncio.sleep(0.001)

    library_of("asyncio").run(main)


@IN_PROCESS
def test_who_is_let_in(devices: Devices, net: Network, in_process: bool) -> None:
    device = devices(in_process=in_process, watch_connections=True)
    device.plain_server_in({"alice": "hers"})

    async def main() -> None:
        async with device:
            await device.live.allow_in({"bob": "his"})
            for name, word in ((b"alice", b"hers"), (b"bob", b"his")):
                source = net.socket(zmq.PUSH, plain_username=name, plain_password=word)
                source.connect(device.endpoints["in"][0])
            while (await device.connections())["in"].peers < 1:
                await asyncio.sleep(0.001)
            while (await device.connections())["in"].failed != {"refused": 1}:
                await asyncio.sleep(0.001)
            with pytest.raises(RuntimeError, match="is bound or connected"):
                await device.live.plain_server_out({})

    library_of("asyncio").run(main)


def test_paused_and_resumed(library: Library, devices: Devices, net: Network) -> None:
    device = devices()

    async def main() -> None:
        async with device:
            source, sink = peers(net, device)
            await device.pause()
            source.send(b"x")
            assert not sink.poll(50)
            await device.resume()
            assert sink.recv() == b"x"

    library.run(main)


@IN_PROCESS
def test_a_call_runs_in_the_devices_own_thread(devices: Devices, in_process: bool) -> None:
    device = devices(in_process=in_process)

    async def main() -> None:
        async with device:
            names = await device.call(threading.current_thread) if not in_process else None
            if names is not None:
                assert names.name == device.name
            with pytest.raises(ZeroDivisionError):
                await device.call(fails)
            with pytest.raises(SystemExit):
                await device.call(sys.exit)
            with pytest.raises(TypeError, match="callable"):
                await device.call(5)
            with pytest.raises(ValueError, match="timeout"):
                await device.call(fails, -1)
            assert await device.call(os.getppid, timeout=DEADLINE)

    library_of("asyncio").run(main)


def test_what_cannot_go_to_a_process_is_an_error_of_the_call(devices: Devices) -> None:
    device = devices(in_process=True)

    async def main() -> None:
        async with device:
            with pytest.raises(TypeError, match=r"has to pickle.*use one of a module"):
                await device.call(lambda: None)
            with pytest.raises(TypeError, match="returned cannot come"):
                await device.call(threading.Lock)  # which is made there, but cannot come back
            assert await device.call(os.getpid) == device._plain.launcher.pid

    library_of("asyncio").run(main)


def test_statistics_every_so_often(library: Library, devices: Devices, net: Network) -> None:
    device = devices()
    seen = []

    async def watch() -> None:
        async for counts in device.statistics_every(0.02):
            seen.append(counts.frontend_to_backend.messages_sent)

    async def main() -> None:
        async with device:
            watching = library.spawn(watch)
            await library.until(lambda: len(seen) >= 3)
            source, sink = peers(net, device)
            source.send(b"x")
            assert sink.recv() == b"x"
            slowly = library.spawn(lambda: device.statistics_every(1000.0).__anext__())
            assert (await slowly.get()).frontend_to_backend.messages_sent == 1
            await device.stop()
            await watching.get()  # it ends with the device, by the last counts
        assert seen[-1] == 1

    library.run(main)


def test_who_is_late_gets_no_statistics_in_a_hurry(devices: Devices) -> None:
    async def main() -> None:
        async with devices() as device:
            every = device.statistics_every(0.05)
            await every.__anext__()
            await asyncio.sleep(0.3)
            began = time.monotonic()
            for _ in range(3):  # one that is due, two that have to be waited for
                await every.__anext__()
            assert time.monotonic() - began > 0.08
            await device.stop()
            last = [counts async for counts in every]
            assert len(last) == 1
            assert [counts async for counts in every] == []

    library_of("asyncio").run(main)


def test_a_context_of_zmq_asyncio(devices: Devices) -> None:
    """By inproc, the program's own sockets reach a device in a thread."""

    async def main() -> None:
        with zmq.asyncio.Context() as context:
            device = aio.Proxy(zmq.ROUTER, zmq.DEALER)
            device.context_factory = lambda: context
            device.bind_in("inproc://in")
            device.bind_out("inproc://out")
            client, worker = context.socket(zmq.REQ), context.socket(zmq.REP)
            async with device:
                with client, worker:
                    client.connect("inproc://in")
                    worker.connect("inproc://out")
                    for number in range(10):
                        await client.send(b"%d" % number)
                        await worker.send(await worker.recv())
                        assert await client.recv() == b"%d" % number

    library_of("asyncio").run(main)


def test_leaving_drains(engine: str, library: Library, devices: Devices, net: Network) -> None:
    device = devices(drain=DEADLINE)

    async def main() -> None:
        async with device:
            source, sink = peers(net, device)
            for number in range(100):
                source.send(b"%d" % number)
        assert device.last_stop.drained
        assert [sink.recv() for _ in range(100)] == [b"%d" % number for number in range(100)]

    library.run(main)


def test_it_can_be_started_again(library: Library, devices: Devices, net: Network) -> None:
    device = devices()

    async def main() -> None:
        for _ in range(3):
            async with device:
                source, sink = peers(net, device)
                source.send(b"x")
                assert sink.recv() == b"x"
        device.connect_in("tcp://127.0.0.1:1")  # wired by plain methods again
        device.disconnect_in("tcp://127.0.0.1:1")
        device.setsockopt_in("sndhwm", 5)

    library.run(main)


# Served by a task


@pytest.mark.parametrize("name", ["trio", "anyio on asyncio", "anyio on trio"])
def test_a_group_starts_it(name: str, devices: Devices, net: Network) -> None:
    library = library_of(name)
    assert isinstance(library, Scoped)
    device = devices()

    async def main() -> None:
        async with library.group() as group:
            endpoints = await group.start(device.serve)
            assert endpoints == device.endpoints != {}
            source, sink = peers(net, device)
            source.send(b"x")
            assert sink.recv() == b"x"
            group.cancel_scope.cancel()
        assert device.done

    library.run(main)


@pytest.mark.parametrize("name", ["trio", "anyio on asyncio", "anyio on trio"])
def test_a_group_raises_what_prevents_the_start(name: str, devices: Devices) -> None:
    library = library_of(name)
    assert isinstance(library, Scoped)
    device = taken(devices)

    async def main() -> None:
        async with library.group() as group:
            with pytest.raises(zdev.BindError):
                await group.start(device.serve)

    library.run(main)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.TaskGroup is of Python 3.11")
def test_a_task_group_of_asyncio(devices: Devices) -> None:
    async def main() -> None:
        device, other = devices(), taken(devices)

        async def both() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(device.serve())
                while not device.endpoints:
                    await asyncio.sleep(0.001)
                group.create_task(other.serve())

        with pytest.RaisesGroup(zdev.BindError):
            await both()
        assert device.done

    library_of("asyncio").run(main)
