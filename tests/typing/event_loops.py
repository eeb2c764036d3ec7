"""Uses of `zdev.aio` that type-check, and, with an ignore, those that must not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import zmq
import zmq.asyncio

import zdev
from zdev import aio

if TYPE_CHECKING:
    from typing_extensions import assert_type


def constructors() -> None:
    aio.Device(zmq.QUEUE, zmq.PULL, zmq.PUSH, name="queue", in_process=True)
    aio.Proxy("XSUB", "xpub", mon_type="PUSH", drain=1.5, burst=8)
    aio.ProxySteerable(zmq.PULL, zmq.PUSH, zmq.PUB, None, drain=None)
    aio.MonitoredQueue(zmq.PULL, zmq.PUSH, zmq.PUB, "in", b"out", capture_policy="drop")
    aio.Proxy(zmq.PULL)  # type: ignore[call-arg]
    aio.Proxy(zmq.PULL, zmq.PUSH, zmq.PUB, True)  # type: ignore[call-arg]
    aio.Proxy(zmq.PULL, zmq.PUSH, in_process="yes")  # type: ignore[arg-type]
    aio.Proxy(zmq.PULL, zmq.PUSH, drain="1")  # type: ignore[arg-type]
    aio.Proxy(zmq.PULL, zmq.PUSH, bursts=5)  # type: ignore[call-arg]


def wiring(device: aio.ProxySteerable) -> None:
    device.context_factory = zmq.asyncio.Context
    device.bind_in("tcp://*:*")
    device.connect_out(addr="tcp://127.0.0.1:1")
    device.unbind_mon("tcp://*:*")
    device.disconnect_ctrl("tcp://127.0.0.1:1")
    device.setsockopt_in(zmq.ROUTING_ID, "id")
    device.setsockopt_ctrl("sndhwm", 5)
    assert_type(device.bind_ctrl_to_random_port("tcp://*", min_port=1, max_port=2), int)
    assert_type(device.endpoints, "dict[str, list[str]]")
    device.bind_in(5555)  # type: ignore[arg-type]
    device.curve_server_in("broker.key_secret")
    device.connect_in("tcp://a:1", "tcp://b:1")  # type: ignore[arg-type,call-arg]
    device.connect_in("tcp://a:1", resolve="all", every=0.5)
    device.connect_in("tcp://a:1", resolve="every")  # type: ignore[arg-type]
    device.setsockopt_in(zmq.LINGER)  # type: ignore[call-arg]
    device.endpoints = {}  # type: ignore[misc]


async def live_wiring(device: aio.ProxySteerable) -> None:
    live = device.live
    await live.bind_in("tcp://*:*")
    await live.connect_out(addr="tcp://127.0.0.1:1")
    await live.unbind_mon("tcp://*:*")
    await live.disconnect_ctrl("tcp://127.0.0.1:1")
    await live.setsockopt_in(zmq.ROUTING_ID, "id")
    await live.setsockopt_ctrl(opt="sndhwm", value=5)
    assert_type(await live.bind_in_to_random_port("tcp://*"), int)
    assert_type(await live.bind_ctrl_to_random_port("tcp://*", max_tries=1), int)
    await live.bind_in(5555)  # type: ignore[arg-type]
    await live.allow_in(["key"])
    await live.allow_in(5)  # type: ignore[arg-type]
    await live.bind_out()  # type: ignore[call-arg]
    await live.setsockopt_mon(zmq.LINGER)  # type: ignore[call-arg]
    port: int = live.bind_in_to_random_port("tcp://*")  # type: ignore[assignment]
    live.bind_in("tcp://*:*")  # type: ignore[unused-coroutine]
    print(port)


async def no_such_role(device: aio.Device, proxy: aio.Proxy) -> None:
    device.bind_mon("tcp://*:*")  # type: ignore[attr-defined]
    await device.live.bind_mon("tcp://*:*")  # type: ignore[attr-defined]
    await proxy.live.bind_mon("tcp://*:*")
    await proxy.live.bind_ctrl("tcp://*:*")  # type: ignore[attr-defined]


async def life(device: aio.MonitoredQueue) -> None:
    async with device as running:
        assert_type(running, aio.MonitoredQueue)
        await device.pause()
        await device.resume()
        assert_type(await device.statistics(), zdev.Statistics)
        assert_type(await device.connections(), "dict[str, zdev.Connections]")
        assert_type(await device.call(lambda: b"x", timeout=1.5), bytes)
        async for counts in device.statistics_every(1.0):
            assert_type(counts, zdev.Statistics)
        await device.wait()
        assert_type(await device.stop(drain=1.5, timeout=2), "zdev.StopReport | None")
        await device.call(5)  # type: ignore[arg-type]
        await device.stop("1")  # type: ignore[arg-type]
        number: int = await device.call(lambda: "x")  # type: ignore[arg-type, return-value]
        print(number)
    await device.serve()
    await device.serve(task_status=5)  # type: ignore[arg-type]
    with device:  # type: ignore[attr-defined]
        pass
    assert_type(device.done, bool)
    assert_type(device.name, str)
    assert_type(device.exception, "BaseException | None")
    assert_type(device.last_stop, "zdev.StopReport | None")


async def functions(plain: zmq.Socket[bytes], asynchronous: zmq.asyncio.Socket) -> None:
    assert_type(await aio.proxy(plain, asynchronous), int)
    assert_type(await aio.proxy(plain, plain, plain, capture_policy="drop", burst=1), int)
    assert_type(await aio.device("queue", plain, plain, overflow="drop"), int)
    assert_type(await aio.proxy_steerable(plain, plain, control=plain), int)
    assert_type(await aio.monitored_queue(plain, plain, plain, b"in", "out"), int)
    await aio.proxy(plain)  # type: ignore[call-arg]
    await aio.proxy(plain, None)  # type: ignore[arg-type]
    await aio.monitored_queue(plain, plain, None)  # type: ignore[arg-type]
    aio.proxy(plain, plain)  # type: ignore[unused-coroutine]
