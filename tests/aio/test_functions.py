"""The functions under an event loop, on sockets of the caller's, which get them back."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import zmq
import zmq.asyncio

from zdev import _sockets, aio

from ..support import DEADLINE, Network, wait_until
from .conftest import is_ours
from .libraries import Library, library_of

NAMES = ["proxy", "device", "proxy_steerable", "monitored_queue"]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    # One that has rung its bell may not be at its very end yet.
    wait_until(lambda: not any(is_ours(thread) for thread in threading.enumerate()))


def arguments(name: str, net: Network, *sockets: Any) -> tuple[Any, ...]:
    if name == "monitored_queue":
        return (*sockets, net.bound(zmq.PUB))
    return (zmq.QUEUE, *sockets) if name == "device" else sockets


async def relaying_on(library: Library, socket: zmq.Socket[Any]) -> None:
    """Wait until a relay has a socket."""
    await library.until(lambda: int(socket.underlying) in _sockets._users)


def exchange(client: zmq.Socket[bytes], worker: zmq.Socket[bytes], count: int = 3) -> None:
    for number in range(count):
        client.send(b"%d" % number)
        worker.send(worker.recv())
        assert client.recv() == b"%d" % number


@pytest.mark.parametrize("name", NAMES)
def test_plain_sockets(engine: str, library: Library, net: Network, name: str) -> None:
    """They are the caller's again when the task has been cancelled, and can be given again."""
    frontend, backend = net.bound(zmq.ROUTER), net.bound(zmq.DEALER)
    client, worker = net.peer(frontend, zmq.REQ), net.peer(backend, zmq.REP)
    given = arguments(name, net, frontend, backend)

    async def main() -> None:
        for _ in range(3):
            relaying = library.spawn(lambda: getattr(aio, name)(*given))
            await relaying_on(library, frontend)
            exchange(client, worker)
            relaying.cancel()
            assert (await relaying.over()).was_cancelled
            client.send(b"x")
            message = frontend.recv_multipart()
            frontend.send_multipart(message)
            assert client.recv() == b"x"

    library.run(main)


@pytest.mark.parametrize("name", ["asyncio", "uvloop", "anyio on asyncio"])
@pytest.mark.parametrize("function", NAMES)
def test_sockets_of_zmq_asyncio(engine: str, net: Network, name: str, function: str) -> None:
    """They can be awaited before, and after the task has been cancelled; again and again."""
    library = library_of(name)

    async def main() -> None:
        frontend: Any = net.bound(zmq.ROUTER, socket_class=zmq.asyncio.Socket)
        backend: Any = net.bound(zmq.DEALER, socket_class=zmq.asyncio.Socket)
        client, worker = net.peer(frontend, zmq.REQ), net.peer(backend, zmq.REP)
        given = arguments(function, net, frontend, backend)
        for _ in range(3):
            client.send(b"x")
            message = (
                await frontend.recv_multipart()
            )  # from here on, the event loop has its eye on it
            await frontend.send_multipart(message)
            assert client.recv() == b"x"
            relaying = library.spawn(lambda: getattr(aio, function)(*given))
            await relaying_on(library, frontend)
            exchange(client, worker)
            relaying.cancel()
            assert (await relaying.over()).was_cancelled
            waiting = library.spawn(lambda: frontend.recv_multipart())
            await library.sleep(0.01)
            client.send(b"y")
            message = await waiting.get()
            await frontend.send_multipart(message)
            assert client.recv() == b"y"

    library.run(main)


class Looks:
    """Counts how often an event loop looks at sockets of zmq.asyncio."""

    def __init__(self, *sockets: Any) -> None:
        self.count = 0
        for socket in sockets:
            socket.__dict__["_handle_events"] = self._counted(socket._handle_events)

    def _counted(self, handle: Any) -> Any:
        def handle_events(*args: Any) -> None:
            self.count += 1
            handle(*args)

        return handle_events


@pytest.mark.parametrize("name", ["asyncio", "uvloop"])
def test_the_event_loop_leaves_its_sockets_to_the_thread(
    engine: str, net: Network, name: str
) -> None:
    library = library_of(name)

    async def main() -> None:
        frontend: Any = net.bound(zmq.PULL, socket_class=zmq.asyncio.Socket)
        backend: Any = net.bound(zmq.PUSH, socket_class=zmq.asyncio.Socket)
        source: Any = net.peer(frontend, zmq.PUSH, socket_class=zmq.asyncio.Socket)
        sink: Any = net.peer(backend, zmq.PULL, socket_class=zmq.asyncio.Socket)
        looks = Looks(frontend, backend)
        waiting = library.spawn(lambda: frontend.recv())
        await library.sleep(0.01)
        await source.send(b"first")
        assert await waiting.get() == b"first"
        assert looks.count > 0
        relaying = library.spawn(lambda: aio.proxy(frontend, backend))
        await relaying_on(library, frontend)
        looks.count = 0
        for number in range(300):
            await source.send(b"%d" % number)
            assert await sink.recv() == b"%d" % number
        assert looks.count == 0
        relaying.cancel()
        await relaying.over()

    library.run(main)


@pytest.mark.parametrize("kind", ["receive", "send"])
def test_a_socket_that_is_awaited_is_refused(net: Network, kind: str) -> None:
    async def main() -> None:
        frontend: Any = net.bound(zmq.DEALER, socket_class=zmq.asyncio.Socket)
        backend = net.bound(zmq.DEALER)
        future = frontend.recv() if kind == "receive" else frontend.send(b"nobody is there")
        with pytest.raises(RuntimeError, match=rf"frontend is in use: a {kind} of it is awaited"):
            await aio.proxy(frontend, backend)
        future.cancel()
        await asyncio.sleep(0)
        relaying = asyncio.ensure_future(aio.proxy(frontend, backend))
        await relaying_on(library_of("asyncio"), backend)
        relaying.cancel()
        await asyncio.wait([relaying])

    library_of("asyncio").run(main)


def test_a_socket_of_another_event_loop_is_refused(net: Network) -> None:
    frontend: Any = net.bound(zmq.PULL, socket_class=zmq.asyncio.Socket)
    backend = net.bound(zmq.PUSH)
    other = asyncio.new_event_loop()

    async def use() -> None:
        await frontend.poll(1)

    async def main() -> None:
        with pytest.raises(RuntimeError, match="frontend is in use by another event loop"):
            await aio.proxy(frontend, backend)

    async def when_closed() -> None:
        relaying = asyncio.ensure_future(aio.proxy(frontend, backend))
        await relaying_on(library_of("asyncio"), frontend)
        relaying.cancel()
        await asyncio.wait([relaying])

    other.run_until_complete(use())
    library_of("asyncio").run(main)
    other.close()
    library_of("asyncio").run(when_closed)


def test_terminate(library: Library, net: Network) -> None:
    control = net.bound(zmq.REP)
    operator = net.peer(control, zmq.REQ)
    given = net.bound(zmq.PULL), net.bound(zmq.PUSH)

    async def main() -> None:
        relaying = library.spawn(lambda: aio.proxy_steerable(*given, None, control))
        await relaying_on(library, control)
        operator.send(b"TERMINATE")
        assert await relaying.get() == 0

    library.run(main)


def test_the_end_of_the_context(library: Library) -> None:
    net = Network()
    given = net.bound(zmq.PULL), net.bound(zmq.PUSH)

    async def main() -> None:
        relaying = library.spawn(lambda: aio.proxy(*given))
        await relaying_on(library, given[0])
        ending = threading.Thread(target=net.context.term)
        ending.start()
        with pytest.raises(zmq.ContextTerminated):
            await relaying.get()
        for socket in given:
            socket.close()
        ending.join()

    library.run(main)


def test_arguments_that_cannot_work(library: Library, net: Network) -> None:
    pull, push = net.bound(zmq.PULL), net.bound(zmq.PUSH)
    wrong: Any = aio

    async def main() -> None:
        with pytest.raises(TypeError, match=r"frontend must be a zmq\.Socket"):
            await wrong.proxy(5, push)
        with pytest.raises(ValueError, match="cannot be both"):
            await wrong.proxy(push, push)
        with pytest.raises(TypeError, match=r"proxy\(\): missing .*'backend'"):
            await wrong.proxy(pull)
        with pytest.raises(TypeError, match=r"device\(\): .*unexpected keyword"):
            await wrong.device(zmq.QUEUE, pull, push, capture=None)
        with pytest.raises(ValueError, match="capture_policy"):
            await wrong.proxy(pull, push, capture_policy="lossless")
        first = library.spawn(lambda: aio.proxy(pull, push))
        await relaying_on(library, pull)
        with pytest.raises(RuntimeError, match="in use by another running relay"):
            await aio.proxy(pull, push)
        first.cancel()
        await first.over()

    library.run(main)


def test_cancelled_at_any_moment(library: Library, net: Network) -> None:
    """Before its thread relays, while it begins to, and after."""
    pull, push = net.bound(zmq.PULL), net.bound(zmq.PUSH)

    async def main() -> None:
        for turns in range(30):
            relaying = library.spawn(lambda: aio.proxy(pull, push))
            for _ in range(turns % 10):
                await library.sleep(0)
            if turns >= 10:
                time.sleep(turns / 30000)
            relaying.cancel()
            assert (await relaying.over()).was_cancelled
            with pytest.raises(zmq.Again):  # the socket is free
                pull.recv(zmq.DONTWAIT)

    library.run(main)


def test_a_hundred_relays(net: Network) -> None:
    library = library_of("asyncio")

    async def main() -> None:
        pairs = [(net.bound(zmq.PULL), net.bound(zmq.PUSH)) for _ in range(100)]
        tasks = [asyncio.ensure_future(aio.proxy(*pair)) for pair in pairs]
        for pull, push in pairs:
            await relaying_on(library, pull)
            source, sink = net.peer(pull, zmq.PUSH), net.peer(push, zmq.PULL)
            source.send(b"x")
            assert sink.recv() == b"x"
        for task in tasks:
            task.cancel()
        assert len((await asyncio.wait(tasks, timeout=DEADLINE))[0]) == 100

    library.run(main)


def test_closed_while_it_relays(net: Network) -> None:
    """As when an event loop is closed: the relay ends all the same."""
    pull, push = net.bound(zmq.PULL), net.bound(zmq.PUSH)

    async def main() -> None:
        relaying: Any = aio.proxy(pull, push)
        relaying.send(None)
        relaying.close()

    library_of("asyncio").run(main)
    deadline = time.monotonic() + DEADLINE
    while any(is_ours(thread) for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.001)
