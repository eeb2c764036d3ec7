"""The context of a device: where it comes from, whose it is, and what its termination does."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import zmq
import zmq.devices

import zdev

from ..support import DEADLINE, Background, Network, wait_until
from .background import Devices
from .faulty import Hesitant
from .streams import STATES, Stream, full, stream_for

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


def test_contexts_are_shared_by_threads_and_not_by_processes() -> None:
    thread, process = zdev.ThreadProxy(zmq.PULL, zmq.PUSH), zdev.ProcessProxy(zmq.PULL, zmq.PUSH)
    assert thread.context_factory() is zmq.Context.instance()
    assert process.context_factory is zmq.Context


@pytest.mark.parametrize("where", ["instance", "class"])
def test_context_factory(engine: str, net: Network, where: str) -> None:
    class Mine(zdev.ThreadProxy):
        pass

    device = Mine(zmq.PULL, zmq.PUSH)
    if where == "class":
        Mine.context_factory = staticmethod(lambda: net.context)
    else:
        device.context_factory = lambda: net.context
    device.bind_in("inproc://in")
    device.bind_out("inproc://out")
    device.bind_mon("inproc://mon")
    source, sink = net.socket(zmq.PUSH), net.socket(zmq.PULL)
    source.connect("inproc://in")
    sink.connect("inproc://out")
    with device:
        assert device._context is net.context
        assert [socket.type for socket in device._sockets] == [zmq.PULL, zmq.PUSH, zmq.PUB]
        source.send(b"x")
        assert sink.recv() == b"x"
    assert not net.context.closed
    assert device.done


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        (lambda: None, "must return a zmq.Context, not NoneType"),
        (lambda: zmq.Context, "must return a zmq.Context, not type"),
        (None, "must be callable, such as zmq.Context or .*, not NoneType"),
    ],
)
def test_what_makes_no_context(devices: Devices, factory: Any, words: str) -> None:
    device = devices("Proxy", zmq.PULL, zmq.PUSH)
    device.context_factory = factory
    with pytest.raises(TypeError, match=f"context_factory {words}"):
        device.start()


def test_a_context_is_no_context_factory(net: Network, devices: Devices) -> None:
    device = devices("Proxy", zmq.PULL, zmq.PUSH)
    device.context_factory = net.context
    with pytest.raises(TypeError, match=r"context_factory must be callable.* lambda: context, not"):
        device.start()


def test_a_context_of_the_parent(engine: str, net: Network) -> None:
    """A fork has it, but it works no more there; one that is made there does."""
    processes = Devices("Process")
    device = processes("Proxy", zmq.PULL, zmq.PUSH)
    device.context_factory = lambda: net.context
    with contextlib.closing(processes):
        with pytest.raises(RuntimeError, match=r"another process; .* survive fork, make one anew"):
            device.start()
        device.context_factory = lambda: zmq.Context()
        device.bind_in("tcp://127.0.0.1:*")
        device.start()
        source = net.socket(zmq.PUSH)
        source.connect(device.endpoints["in"][0])
        source.send(b"x")
        wait_until(lambda: device.statistics().frontend_to_backend.messages_received)


class Contexts(zdev.ProcessDevice):
    """Counts its contexts in its own process."""

    made = 0

    def context_factory(self) -> Any:
        self.made += 1
        self.setsockopt_out(zmq.ROUTING_ID, f"context {self.made}")
        return zmq.Context(io_threads=2)


def test_context_factory_of_a_process_is_called_there(engine: str, net: Network) -> None:
    back = net.bound(zmq.ROUTER, "tcp")
    device = Contexts(zmq.QUEUE, zmq.PULL, zmq.DEALER)
    device.connect_out(back.last_endpoint.decode())
    device.bind_in("tcp://127.0.0.1:*")
    source = net.socket(zmq.PUSH)
    with device:
        source.connect(device.endpoints["in"][0])
        source.send(b"x")
        assert back.recv_multipart() == [b"context 1", b"x"]
    assert device.made == 0


@pytest.mark.parametrize("factory", ["shared", "instance", "own"])
@pytest.mark.parametrize("state", STATES)
def test_termination_of_the_context_ends_the_device(
    engine: str, net: Network, threads: Devices, state: Any, factory: str
) -> None:
    stream = stream_for(state, net, threads)
    if factory == "shared":
        context = zmq.Context()
        stream.device.context_factory = lambda: context
    elif factory == "instance":
        stream.device.context_factory = zmq.Context.instance
    else:
        stream.device.context_factory = zmq.Context
    with state(stream):
        term = Background(stream.device._context.term)
        term.join()
        stream.device.join(DEADLINE)
        stream.has_ended()


def test_a_context_of_its_own_ends_with_the_device(
    engine: str, net: Network, threads: Devices
) -> None:
    stream = Stream(net, threads)
    stream.device.context_factory = zmq.Context
    with full(stream):
        stream.device.stop(timeout=DEADLINE)
        assert stream.device._context.closed
    with stream.device:
        # Of which others have sockets, it goes on.
        other = stream.device._context.socket(zmq.PAIR)
    assert not stream.device._context.closed
    other.close()
    stream.device._context.term()


def test_a_context_that_ends_before_the_start(engine: str, net: Network, threads: Devices) -> None:
    hesitant = Hesitant()
    device = threads.of(hesitant, "Proxy", zmq.PULL, zmq.PUSH)
    context = zmq.Context()
    device.context_factory = lambda: context
    start = Background(device.start)
    assert hesitant.entered.wait(DEADLINE)
    context.term()
    hesitant.gate.set()
    with pytest.raises(zmq.ZMQError):
        start.join()
    assert device.done
