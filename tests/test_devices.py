"""The devices as drop-in for those of zmq.devices: names, arguments, attributes, subclasses."""

from __future__ import annotations

import contextlib
import errno
import inspect
import itertools
import multiprocessing
import os
import pickle
import socket as tcp
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
import zmq.devices

import zdev
from zdev._devices import base

from .background import LAUNCHERS, Devices, running_device
from .support import DEADLINE, Background, Network, wait_until

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

KINDS = ["Device", "Proxy", "ProxySteerable", "MonitoredQueue"]
NAMES = [
    prefix + ("Device" if prefix and kind == "Device" else kind)
    for kind in KINDS
    for prefix in ("", "Thread", "Process")
]
ROLES = {
    "Device": ["in", "out"],
    "Proxy": ["in", "out", "mon"],
    "MonitoredQueue": ["in", "out", "mon"],
    "ProxySteerable": ["in", "out", "mon", "ctrl"],
}


@pytest.fixture(params=LAUNCHERS)
def devices(request: pytest.FixtureRequest) -> Iterator[Devices]:
    """Make devices in threads, and in processes."""
    made = Devices(request.param)
    yield made
    made.close()


def kind_of(name: str) -> str:
    return next(kind for kind in reversed(KINDS) if name.endswith(kind))


def arguments(name: str, *more: Any) -> tuple[Any, ...]:
    first = (zmq.QUEUE,) if kind_of(name) == "Device" else ()
    return (*first, zmq.PULL, zmq.PUSH, *more)


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    """Name one class after the other."""
    return str(request.param)


@pytest.fixture
def ours(name: str) -> Any:
    return getattr(zdev, name)


@pytest.fixture
def theirs(name: str) -> Any:
    return getattr(zmq.devices, name)


# The interface


def test_all_names_are_there() -> None:
    assert set(zmq.devices.__all__) <= set(zdev.__all__)
    # pyzmq 25 has device there too
    assert {*NAMES, "monitored_queue"} == set(zmq.devices.__all__) - {"device"}


def test_instances_pass_for_pyzmqs(name: str, ours: Any, theirs: Any) -> None:
    device = ours(*arguments(name))
    assert isinstance(device, theirs)
    assert isinstance(device, zmq.devices.Device)
    assert isinstance(device, zmq.devices.ThreadDevice) is name.startswith("Thread")
    assert isinstance(device, zmq.devices.ProcessDevice) is name.startswith("Process")
    assert issubclass(ours, zdev.Device)


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


def test_constructors_take_the_same_and_a_name(ours: Any, theirs: Any) -> None:
    mine = parameters(ours)
    if ours.__name__.endswith("Steerable"):
        default = inspect.signature(theirs).parameters["ctrl_type"].default
        assert default is None  # which fails in pyzmq's thread
    assert mine == [*parameters(theirs), ("name", inspect.Parameter.KEYWORD_ONLY, None)]


def test_methods_take_the_same(ours: Any, theirs: Any) -> None:
    methods = {
        attribute: method
        for attribute in dir(theirs)
        if not attribute.startswith("__")
        and inspect.isfunction(method := getattr(theirs, attribute))
    }
    assert {"_setup_sockets", "_close_sockets", "_reserve_random_port", "run"} <= methods.keys()
    for attribute, method in methods.items():
        mine = getattr(ours, attribute)
        assert mine is not method, f"{attribute} is pyzmq's"
        assert parameters(mine) == parameters(method), attribute


def test_attributes_are_the_same(name: str, ours: Any, theirs: Any) -> None:
    mine, other = ours(*arguments(name)), theirs(*arguments(name))
    attributes = vars(other)
    assert {"daemon", "done", "_in_binds", "_random_addrs", "_sockets"} <= attributes.keys()
    for attribute, value in attributes.items():
        if attribute == "ctrl_type":
            assert (mine.ctrl_type, value) == (zmq.PAIR, None)
        else:
            assert getattr(mine, attribute) == value, attribute
    for attribute in ("context_factory", "_launch_class", "launcher"):
        assert getattr(mine, attribute, "none") == getattr(other, attribute, "none")


def test_arguments_by_position_and_by_keyword(name: str, ours: Any) -> None:
    names = [parameter for parameter, *_ in parameters(ours)]
    values: dict[str, Any] = {
        "device_type": zmq.STREAMER,
        "in_type": zmq.PULL,
        "out_type": zmq.XPUB,
        "mon_type": zmq.PUSH,
        "ctrl_type": zmq.REP,
        "in_prefix": b"<",
        "out_prefix": b">",
        "name": "a name",
    }
    given = {parameter: values[parameter] for parameter in names}
    positional = [value for parameter, value in given.items() if parameter != "name"]
    for device in (ours(**given), ours(*positional, name="a name")):
        for parameter, value in given.items():
            attribute = f"_{parameter}" if parameter.endswith("_prefix") else parameter
            assert getattr(device, attribute) == value


@pytest.mark.parametrize("missing", ["in_type", "out_type"])
def test_types_are_needed(ours: Any, missing: str) -> None:
    types = {"in_type": zmq.PULL, "out_type": zmq.PUSH}
    del types[missing]
    with pytest.raises(TypeError, match=missing):
        ours(**types)
    with pytest.raises(TypeError, match=missing):
        ours(**types, **{missing: None})
    with pytest.raises(TypeError, match="nonesuch"):
        ours(in_type=zmq.PULL, out_type=zmq.PUSH, nonesuch=1)


def test_what_is_planned_is_in_live_lists(name: str, ours: Any) -> None:
    device = ours(*arguments(name))
    for role in ROLES[kind_of(name)]:
        for verb, field in (("bind", "binds"), ("connect", "connects")):
            planned = getattr(device, f"_{role}_{field}")
            getattr(device, f"{verb}_{role}")("inproc://a")
            getattr(device, f"{verb}_{role}")(addr="inproc://b")
            assert planned == ["inproc://a", "inproc://b"]
            setattr(device, f"_{role}_{field}", ["inproc://c"])
            getattr(device, f"{verb}_{role}")("inproc://d")
            assert getattr(device, f"_{role}_{field}") == ["inproc://c", "inproc://d"]
        planned = getattr(device, f"_{role}_sockopts")
        getattr(device, f"setsockopt_{role}")(zmq.LINGER, 0)
        getattr(device, f"setsockopt_{role}")(opt=zmq.ROUTING_ID, value="id")
        assert planned == [(zmq.LINGER, 0), (zmq.ROUTING_ID, "id")]
        setattr(device, f"_{role}_sockopts", [])
        assert getattr(device, f"_{role}_sockopts") == []
    for role in {"in", "out", "mon", "ctrl"}.difference(ROLES[kind_of(name)]):
        assert not hasattr(device, f"bind_{role}")


def test_methods_are_documented_and_named(name: str, ours: Any) -> None:
    for role in ROLES[kind_of(name)]:
        for method in (
            f"bind_{role}",
            f"connect_{role}",
            f"unbind_{role}",
            f"disconnect_{role}",
            f"setsockopt_{role}",
            f"bind_{role}_to_random_port",
        ):
            function = getattr(ours, method)
            assert function.__name__ == method
            assert f"the {role} socket" in function.__doc__
            assert function.__qualname__.endswith(f".{method}")


# What the lists hold is done


def test_lists_that_were_filled_by_hand(devices: Devices, net: Network) -> None:
    device = devices("Proxy", zmq.PULL, zmq.PUSH, zmq.PUSH)
    outside = net.bound(zmq.PULL, "tcp").last_endpoint.decode()
    device._in_binds.append("tcp://127.0.0.1:*")
    device._out_connects = [outside]
    device._mon_sockopts = [(zmq.SNDHWM, 7)]
    device.start()
    assert len(device.endpoints["in"]) == 1
    assert device._in_binds == ["tcp://127.0.0.1:*"]


# Each class relays

MESSAGES = [[b"one"], [b"", b"two", b""], [b"x" * 100_000, b"three"]]


def counts(device: Any) -> tuple[int, int, int]:
    statistics = device.statistics()
    there = statistics.frontend_to_backend
    return there.messages_received, there.messages_sent, statistics.capture.sent


def test_each_class_relays(engine: str, net: Network, name: str) -> None:
    kind = kind_of(name)
    device = getattr(zdev, name)(*arguments(name, *([zmq.PUSH] if kind != "Device" else [])))
    ports = {
        role: getattr(device, f"bind_{role}_to_random_port")("tcp://127.0.0.1")
        for role in ROLES[kind]
    }
    peers = {
        role: net.socket(peer)
        for role, peer in zip(ROLES[kind], (zmq.PUSH, zmq.PULL, zmq.PULL, zmq.PAIR))
    }
    for role, peer in peers.items():
        peer.connect(f"tcp://127.0.0.1:{ports[role]}")
    with running_device(device):
        for message in MESSAGES:
            peers["in"].send_multipart(message)
        assert [peers["out"].recv_multipart() for _ in MESSAGES] == MESSAGES
        if kind != "Device":
            prefix = [b"in"] if kind == "MonitoredQueue" else []
            copies = [peers["mon"].recv_multipart() for _ in MESSAGES]
            assert copies == [prefix + message for message in MESSAGES]
        if kind == "ProxySteerable":
            peers["ctrl"].send(b"STATISTICS")
            numbers = [struct.unpack("=Q", frame)[0] for frame in peers["ctrl"].recv_multipart()]
            assert numbers[0] == numbers[6] == 6
        assert counts(device) == (3, 3, 0 if kind == "Device" else 3)
        assert not device.done
    assert device.done
    assert device.exception is None
    assert counts(device) == (3, 3, 0 if kind == "Device" else 3)
    if name.startswith("Process"):
        assert device.launcher.exitcode == 0


def test_both_ways(engine: str, devices: Devices, net: Network) -> None:
    device = devices("MonitoredQueue", zmq.ROUTER, zmq.DEALER, zmq.PUSH, None, "öut")
    device.bind_in("tcp://127.0.0.1:*")
    device.bind_out("tcp://127.0.0.1:*")
    device.bind_mon("tcp://127.0.0.1:*")
    device.start()
    client, worker, monitor = (net.socket(kind) for kind in (zmq.REQ, zmq.REP, zmq.PULL))
    client.routing_id = b"me"
    for socket, role in ((client, "in"), (worker, "out"), (monitor, "mon")):
        socket.connect(device.endpoints[role][0])
    client.send(b"question")
    worker.send(worker.recv() + b"?")
    assert client.recv() == b"question?"
    asked, answered = monitor.recv_multipart(), monitor.recv_multipart()
    assert asked == [b"me", b"", b"question"]
    assert answered == ["öut".encode(), *asked[:2], b"question?"]


def test_a_monitored_queue_swaps_the_ids_of_two_routers(
    engine: str, devices: Devices, net: Network
) -> None:
    device = devices("MonitoredQueue", zmq.ROUTER, zmq.ROUTER, zmq.PUB, out_prefix=bytearray(b"o"))
    device.setsockopt_in(zmq.ROUTER_MANDATORY, 1)
    device.setsockopt_out(zmq.ROUTER_MANDATORY, 1)
    device.bind_in("tcp://127.0.0.1:*")
    device.bind_out("tcp://127.0.0.1:*")
    device.start()
    left, right = net.socket(zmq.DEALER, routing_id=b"l"), net.socket(zmq.DEALER, routing_id=b"r")
    left.connect(device.endpoints["in"][0])
    right.connect(device.endpoints["out"][0])
    right.rcvtimeo = 10
    while True:  # until both ends know their peers
        left.send_multipart([b"r", b"hello"])
        with contextlib.suppress(zmq.Again):
            assert right.recv_multipart() == [b"l", b"hello"]
            break
    right.send_multipart([b"l", b"and", b"you"])
    assert left.recv_multipart() == [b"r", b"and", b"you"]


def test_a_proxy_does_not_swap(engine: str, devices: Devices, net: Network) -> None:
    device = devices("Proxy", zmq.ROUTER, zmq.ROUTER)
    device.bind_in("tcp://127.0.0.1:*")
    device.bind_out("tcp://127.0.0.1:*")
    device.start()
    left, right = (net.socket(zmq.DEALER, routing_id=b"same") for _ in range(2))
    left.connect(device.endpoints["in"][0])
    right.connect(device.endpoints["out"][0])
    right.rcvtimeo = 10
    while True:
        left.send_multipart([b"other", b"hello"])
        with contextlib.suppress(zmq.Again):
            assert right.recv_multipart() == [b"other", b"hello"]
            break


@pytest.mark.parametrize("end", ["in", "out"])
def test_one_socket_as_both_ends(engine: str, devices: Devices, net: Network, end: str) -> None:
    device = devices("Device", zmq.QUEUE, zmq.REP, -1)
    client = net.bound(zmq.REQ, "tcp")
    getattr(device, f"connect_{end}")(client.last_endpoint.decode())
    device.start()
    for word in (b"echo", b"again"):
        client.send(word)
        assert client.recv() == word
    if devices.in_this_process:
        assert len(device._sockets) == 1


def test_options_may_be_str(engine: str, devices: Devices, net: Network) -> None:
    front, back = net.bound(zmq.ROUTER, "tcp"), net.bound(zmq.ROUTER, "tcp")
    device = devices("Device", zmq.QUEUE, zmq.ROUTER, zmq.DEALER)
    device.connect_in(front.last_endpoint.decode())
    device.connect_out(back.last_endpoint.decode())
    device.setsockopt_in(zmq.IDENTITY, "ROUTER")
    device.setsockopt_out(zmq.IDENTITY, "DÉALER")
    device.start()
    front.router_mandatory = True

    def send() -> bool:
        with contextlib.suppress(zmq.ZMQError):  # EHOSTUNREACH until the device has connected
            front.send_multipart([b"ROUTER", b"x"])
            return True
        return False

    wait_until(send)
    sender, *rest = back.recv_multipart()
    assert (sender.decode(), rest[1:]) == ("DÉALER", [b"x"])


# Steering


def command(control: zmq.Socket[bytes], text: bytes) -> list[bytes]:
    control.send(text)
    return control.recv_multipart()


def test_a_steerable_proxy_steers_by_default(engine: str, devices: Devices, net: Network) -> None:
    device = devices("ProxySteerable", zmq.PULL, zmq.PUSH)
    control = net.bound(zmq.PAIR, "tcp")
    device.connect_ctrl(control.last_endpoint.decode())
    device.bind_in("tcp://127.0.0.1:*")
    device.bind_out("tcp://127.0.0.1:*")
    device.start()
    source, sink = net.socket(zmq.PUSH), net.socket(zmq.PULL)
    source.connect(device.endpoints["in"][0])
    sink.connect(device.endpoints["out"][0])
    source.send(b"before")
    assert sink.recv() == b"before"
    control.send(b"PAUSE")
    command(control, b"STATISTICS")  # answered behind it
    source.send(b"paused")
    assert sink.poll(50) == 0
    control.send(b"RESUME")
    assert sink.recv() == b"paused"
    numbers = [struct.unpack("=Q", frame)[0] for frame in command(control, b"STATISTICS")]
    assert numbers == [2, 12, 0, 0, 0, 0, 2, 12]
    control.send(b"TERMINATE")
    device.join(DEADLINE)
    assert device.done


def test_a_steerable_proxy_with_another_control(
    engine: str, devices: Devices, net: Network
) -> None:
    device = devices("ProxySteerable", zmq.PULL, zmq.PUSH, ctrl_type=zmq.REP)
    port = device.bind_ctrl_to_random_port("tcp://127.0.0.1")
    device.start()
    control = net.socket(zmq.REQ)
    control.connect(f"tcp://127.0.0.1:{port}")
    assert command(control, b"PAUSE") == [b""]
    assert command(control, b"TERMINATE") == [b""]
    device.join(DEADLINE)
    assert device.done


# Contexts


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


@pytest.mark.parametrize("role", ["in", "out", "mon"])
def test_a_socket_type_that_is_none(devices: Devices, role: str) -> None:
    kinds = {"in_type": zmq.PULL, "out_type": zmq.PUSH, "mon_type": zmq.PUB, f"{role}_type": 999}
    device = devices("Proxy", **kinds)
    with pytest.raises(zmq.ZMQError, match=f"{role}_type 999 is no socket type") as caught:
        device.start()
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("prefix", [bytearray(b"side"), memoryview(b"side"), b"side", "side", None])
def test_prefixes_go_into_another_process(prefix: Any) -> None:
    device = zdev.ProcessMonitoredQueue(zmq.PULL, zmq.PUSH, zmq.PUB, prefix, prefix)
    kept = prefix if isinstance(prefix, (str, type(None))) else b"side"
    assert (device._in_prefix, device._out_prefix) == (kept, kept)
    other = pickle.loads(pickle.dumps(device))
    assert other._relay_options() == {"in_prefix": kept, "out_prefix": kept}


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


def test_a_forked_device_leaves_what_it_inherits_as_it_is() -> None:
    ends = [*tcp.socketpair(), *tcp.socketpair(), tcp.create_server(("127.0.0.1", 0))]
    ends[0].setblocking(False)
    ends[4].setblocking(False)
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    descriptors = [*(end.fileno() for end in ends), reader, writer]
    before = [os.get_blocking(descriptor) for descriptor in descriptors]
    device = zdev.ProcessDevice(zmq.QUEUE, zmq.PULL, zmq.PUSH)
    device._launch_class = multiprocessing.get_context("fork").Process
    with device:
        assert [os.get_blocking(descriptor) for descriptor in descriptors] == before
    assert before == [False, True, True, True, False, False, True]
    for end in ends:
        end.close()
    os.close(reader)
    os.close(writer)


# Subclasses


class OwnSetup:
    """Makes one more socket, as subclasses of pyzmq's classes do."""

    extra_port: Any

    def _setup_sockets(self) -> Any:
        sockets = super()._setup_sockets()  # type: ignore[misc]
        assert self.launcher.is_alive()  # type: ignore[attr-defined]
        assert self.launcher.name == self.name  # type: ignore[attr-defined]
        extra = self._context.socket(zmq.PUSH)  # type: ignore[attr-defined]
        self._sockets.append(extra)  # type: ignore[attr-defined]
        extra.connect(self.extra)  # type: ignore[attr-defined]
        extra.send(b"set up")
        return sockets


class AllOwnSetup:
    """Makes all sockets, without super()."""

    def _setup_sockets(self) -> Any:
        self._context = context = self.context_factory()  # type: ignore[attr-defined]
        sockets = context.socket(self.in_type), context.socket(self.out_type)  # type: ignore[attr-defined]
        self._sockets.extend(sockets)  # type: ignore[attr-defined]
        for socket in sockets:
            socket.bind("tcp://127.0.0.1:*")
        return sockets


class SuperRun:
    def run_device(self) -> None:
        super().run_device()  # type: ignore[misc]


class ZdevRun:
    def run_device(self) -> None:
        zdev.proxy(*self._setup_sockets())  # type: ignore[attr-defined]


class ZmqRun:
    def run_device(self) -> None:
        zmq.proxy(*self._setup_sockets())  # type: ignore[attr-defined]


class LoopRun:
    def run_device(self) -> None:
        ins, outs, *_ = self._setup_sockets()  # type: ignore[attr-defined]
        while (message := ins.recv_multipart()) != [b"end"]:
            outs.send_multipart([b"mine", *message])


class OwnRun:
    """Replaces run() as well, as pyzmq's is."""

    done: bool

    def run(self) -> None:
        try:
            self.run_device()  # type: ignore[attr-defined]
        finally:
            self.done = True
            self._close_sockets()  # type: ignore[attr-defined]


def of(mixins: tuple[type, ...], base: type) -> Any:
    return type("".join(mixin.__name__ for mixin in mixins) + base.__name__, (*mixins, base), {})


RELAYING = [(SuperRun,), (ZdevRun,), (OwnRun,), (OwnRun, ZdevRun)]
SETUPS: list[tuple[type, ...]] = [(), (AllOwnSetup,)]


@pytest.mark.parametrize(
    "mixins",
    [run + setup for run, setup in itertools.product([(), *RELAYING], SETUPS)],
    ids=lambda mixins: "-".join(mixin.__name__ for mixin in mixins) or "none",
)
def test_subclasses_that_relay_with_zdev(
    engine: str, net: Network, devices: Devices, mixins: tuple[type, ...]
) -> None:
    device = devices.of(lambda base: of(mixins, base), "Device", zmq.QUEUE, zmq.PULL, zmq.PUSH)
    if AllOwnSetup not in mixins:
        device.bind_in("tcp://127.0.0.1:*")
        device.bind_out("tcp://127.0.0.1:*")
    device.start()
    source, sink = net.socket(zmq.PUSH), net.socket(zmq.PULL)
    source.connect(device.endpoints["in"][0])
    sink.connect(device.endpoints["out"][0])
    source.send(b"x")
    assert sink.recv() == b"x"
    # it answers, is wired and stops like any other
    assert counts(device) == (1, 1, 0)
    device.bind_in("tcp://127.0.0.1:*")
    source.connect(device.endpoints["in"][1])
    device.pause()
    device.stop(timeout=DEADLINE)
    assert device.done
    assert counts(device) == (1, 1, 0)


@pytest.mark.parametrize("mixins", [(), (ZdevRun,), (OwnRun, ZdevRun), (OwnRun,)])
def test_a_stop_right_after_the_start(
    engine: str, devices: Devices, mixins: tuple[type, ...]
) -> None:
    device = devices.of(lambda base: of(mixins, base), "Device", zmq.QUEUE, zmq.PULL, zmq.PUSH)
    for _ in range(5):
        device.start()
        device.stop(timeout=DEADLINE)
        assert device.done


class Configuring:
    """Configures its sockets where they are made."""

    def _setup_sockets(self: Any) -> Any:
        self.ports = [self.bind_in_to_random_port("tcp://127.0.0.1")]
        self.setsockopt_out(zmq.SNDHWM, 7)
        sockets = super()._setup_sockets()  # type: ignore[misc]
        self.ports.append(self.bind_out_to_random_port("tcp://127.0.0.1"))
        self.bind_out("tcp://127.0.0.1:*")
        with pytest.raises(zmq.ZMQError) as caught:
            self.unbind_in("tcp://127.0.0.1:1")
        assert caught.value.errno == errno.ENOENT
        assert sockets[1].sndhwm == 7
        return sockets


@pytest.mark.parametrize("mixins", [(), (ZdevRun,)], ids=["none", "ZdevRun"])
def test_a_subclass_that_configures_its_sockets(
    engine: str, net: Network, devices: Devices, mixins: tuple[type, ...]
) -> None:
    device = devices.of(lambda base: of((Configuring, *mixins), base), "Proxy", zmq.PULL, zmq.PUSH)
    device.start()
    assert {role: len(bound) for role, bound in device.endpoints.items()} == {
        "in": 1,
        "out": 2,
        "mon": 0,
    }
    source, sink = net.socket(zmq.PUSH), net.socket(zmq.PULL)
    source.connect(device.endpoints["in"][0])
    sink.connect(device.endpoints["out"][1])
    source.send(b"x")
    assert sink.recv() == b"x"
    if devices.in_this_process:
        ins, out = (f"tcp://127.0.0.1:{port}" for port in device.ports)
        assert (device.endpoints["in"], device.endpoints["out"][0]) == ([ins], out)
        assert device._out_binds == [out, "tcp://127.0.0.1:*"]


class Rewiring:
    """Wires its sockets where they are made; some of it before they are, and some after."""

    addresses: list[str]

    def _setup_sockets(self: Any) -> Any:
        self.bind_in(self.addresses[0])
        self.unbind_in(self.addresses[1])
        self.setsockopt_in(zmq.RCVHWM, 5)
        self.connect_out(self.addresses[2])
        sockets = super()._setup_sockets()  # type: ignore[misc]
        self.bind_in(self.addresses[3])
        self.unbind_in(self.addresses[4])
        self.setsockopt_in(zmq.RCVHWM, 6)
        self.bind_out_to_random_port("tcp://127.0.0.1")
        return sockets


def test_a_subclass_that_wires_its_sockets_does_so_in_each_run(
    engine: str, devices: Devices, tmp_path: Path
) -> None:
    device = devices.of(lambda base: of((Rewiring,), base), "Proxy", zmq.PULL, zmq.PUSH)
    addresses = device.addresses = [f"ipc://{tmp_path}/{number}" for number in range(7)]
    device.bind_in(addresses[1])
    device.bind_in(addresses[4])
    device.bind_in(addresses[5])
    for _ in range(3):
        device.start()
        bound = device.endpoints
        assert bound["in"] == [addresses[5], addresses[0], addresses[3]]
        assert len(bound["out"]) == 1
        device.bind_out(addresses[6])  # which is not of the set-up
        device.stop(timeout=DEADLINE)
        assert device._in_binds == [addresses[1], addresses[4], addresses[5]]
        assert device._in_sockopts == device._out_connects == []
        assert device._out_binds == [addresses[6]]
        device.unbind_out(addresses[6])


class Asking:
    """Asks itself for things, from a thread of its own."""

    def run_device(self: Any) -> None:
        def ask() -> None:
            self.pause()
            self.bind_in("tcp://127.0.0.1:*")
            self.resume()
            self.stop()

        threading.Thread(target=ask).start()
        super().run_device()  # type: ignore[misc]


def test_a_subclass_that_asks_itself(engine: str, devices: Devices) -> None:
    device = devices.of(lambda base: of((Asking,), base), "Proxy", zmq.PULL, zmq.PUSH)
    device.start()
    device.join(DEADLINE)
    assert device.done


def test_a_subclass_with_a_socket_of_its_own(engine: str, net: Network, devices: Devices) -> None:
    device = devices.of(lambda base: of((OwnSetup,), base), "Proxy", zmq.PULL, zmq.PUSH)
    extra = net.bound(zmq.PULL, "tcp")
    device.extra = extra.last_endpoint.decode()
    device.start()
    assert extra.recv() == b"set up"
    device.stop()
    assert device._sockets == []


def test_a_subclass_that_runs_pyzmqs_proxy(net: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "PATIENCE", 0.01)
    device = of((ZmqRun,), zdev.ThreadDevice)(zmq.QUEUE, zmq.PULL, zmq.PUSH)
    device.context_factory = lambda: net.context
    device.bind_in("inproc://in")
    device.bind_out("inproc://out")
    device.start()
    source, sink = net.socket(zmq.PUSH), net.socket(zmq.PULL)
    source.connect("inproc://in")
    sink.connect("inproc://out")
    source.send(b"x")
    assert sink.recv() == b"x"
    with pytest.raises(
        RuntimeError, match=r"run_device does not call zdev\.proxy or one of its kin"
    ):
        device.pause()
    with pytest.raises(TimeoutError):
        device.stop(timeout=0.01)
    source.close()
    sink.close()
    net.context.term()
    device.join(DEADLINE)
    assert device.done
    assert device.exception is None


def test_a_subclass_that_relays_itself(engine: str, net: Network, devices: Devices) -> None:
    device = devices.of(lambda base: of((LoopRun,), base), "Proxy", zmq.PULL, zmq.PUSH)
    device.bind_in("tcp://127.0.0.1:*")
    device.bind_out("tcp://127.0.0.1:*")
    device.start()
    source, sink = net.socket(zmq.PUSH), net.socket(zmq.PULL)
    source.connect(device.endpoints["in"][0])
    sink.connect(device.endpoints["out"][0])
    source.send_multipart([b"a", b"b"])
    assert sink.recv_multipart() == [b"mine", b"a", b"b"]
    assert not device.done
    source.send(b"end")
    device.join(DEADLINE)
    assert device.done


class Flagged(zdev.ThreadDevice):
    """Has neither sockets nor a relay."""

    def run(self) -> None:
        self.began.set()
        self.end.wait(DEADLINE)
        if self.fails:
            raise LookupError("as planned")

    began: threading.Event
    end: threading.Event
    fails: bool


@pytest.mark.parametrize("fails", [False, True])
def test_a_subclass_that_runs_what_it_likes(fails: bool) -> None:
    device = Flagged(zmq.QUEUE, zmq.PULL, zmq.PUSH)
    device.began, device.end, device.fails = threading.Event(), threading.Event(), fails
    device.start()
    assert device.began.wait(DEADLINE)
    assert not device.done
    assert device.launcher.is_alive()
    device.end.set()
    if fails:
        with pytest.raises(LookupError, match="as planned"):
            device.join(DEADLINE)
        assert isinstance(device.exception, LookupError)
    else:
        device.join(DEADLINE)
    assert device.done


def test_methods_of_the_instance(engine: str, net: Network) -> None:
    device = zdev.ThreadDevice(zmq.QUEUE, zmq.PULL, zmq.PUSH)
    context = net.context
    calls = []
    setup = device._setup_sockets

    def mine() -> Any:
        calls.append("setup")
        return setup()

    def run_device() -> None:
        calls.append("run_device")
        zdev.proxy(*device._setup_sockets())

    device.context_factory = lambda: context
    device._setup_sockets = mine  # type: ignore[method-assign]
    device.run_device = run_device  # type: ignore[method-assign]
    with device:
        device.pause()
    assert calls == ["run_device", "setup"]
    assert device._setup_sockets is mine


def test_run_may_be_called_in_a_thread_of_ones_own(engine: str, net: Network) -> None:
    device = zdev.Device(zmq.QUEUE, zmq.PULL, zmq.PUSH)
    device.context_factory = lambda: net.context
    device.bind_in("inproc://in")
    device.bind_out("inproc://out")
    background = Background(device.run)
    source, sink = net.socket(zmq.PUSH), net.socket(zmq.PULL)
    source.connect("inproc://in")
    sink.connect("inproc://out")
    source.send(b"x")
    assert sink.recv() == b"x"
    device.stop(timeout=DEADLINE)
    background.join()
    assert device.done


class Launched(threading.Thread):
    """Keeps what it was made with."""

    def __init__(self, target: Any) -> None:
        super().__init__(target=target)


class LaunchedProcess(multiprocessing.get_context("spawn").Process):  # type: ignore[name-defined,misc]
    def __init__(self, target: Any) -> None:
        super().__init__(target=target)


class OwnStart:
    """Launches in its own way, as subclasses of pyzmq's do to name the thread or process."""

    def start(self: Any) -> None:
        self.launcher = self._launch_class(target=self.run, name="mine")
        self.launcher.daemon = self.daemon
        self.launcher.start()


def test_a_subclass_that_starts_in_its_own_way(engine: str, net: Network, devices: Devices) -> None:
    device = devices.of(lambda base: of((OwnStart,), base), "ProxySteerable", zmq.PULL, zmq.PUSH)
    source, sink = net.bound(zmq.PUSH, "tcp"), net.bound(zmq.PULL, "tcp")
    control = net.bound(zmq.PAIR, "tcp")
    for role, peer in (("in", source), ("out", sink), ("ctrl", control)):
        getattr(device, f"connect_{role}")(peer.last_endpoint.decode())
    device.start()
    source.send(b"x")
    assert sink.recv() == b"x"
    assert device.launcher.name == "mine"
    control.send(b"TERMINATE")
    device.join(DEADLINE)
    assert not device.launcher.is_alive()


class OwnBind:
    """Notes what it is bound to."""

    def bind_in(self: Any, addr: str) -> None:
        self.noted = addr
        super().bind_in(addr)  # type: ignore[misc]


def test_a_random_port_is_bound_by_what_a_subclass_has_for_that(devices: Devices) -> None:
    device = devices.of(lambda base: of((OwnBind,), base), "Proxy", zmq.PULL, zmq.PUSH)
    port = device.bind_in_to_random_port("tcp://127.0.0.1")
    assert device._in_binds == [device.noted] == [f"tcp://127.0.0.1:{port}"]


def test_launch_class() -> None:
    class Threaded(zdev.ThreadProxy):
        _launch_class = Launched

    class Forked(zdev.ProcessProxy):
        _launch_class = LaunchedProcess

    devices: list[Any] = [Threaded(zmq.PULL, zmq.PUSH), zdev.ProcessProxy(zmq.PULL, zmq.PUSH)]
    devices[1]._launch_class = LaunchedProcess  # an instance's is as good as a class's
    for device, launcher in zip(devices, (Launched, LaunchedProcess)):
        with device:
            assert type(device.launcher) is launcher
            assert device.launcher.is_alive()
        assert not device.launcher.is_alive()


@pytest.mark.parametrize("launcher", ["Thread", "Process"])
def test_the_launcher_has_name_and_daemon_of_the_device(launcher: str) -> None:
    for daemon in (True, False):
        device = getattr(zdev, f"{launcher}Device")(zmq.QUEUE, zmq.PULL, zmq.PUSH, name="a device")
        assert device.daemon is True
        device.daemon = daemon
        assert device.launcher is None
        with device:
            assert (device.launcher.name, device.launcher.daemon) == ("a device", daemon)
            if launcher == "Thread":
                assert "a device" in [thread.name for thread in threading.enumerate()]


# Spawned processes


class Spawned(OwnSetup, zdev.ProcessMonitoredQueue):
    """To be found by the process that runs it."""

    extra: str
    _launch_class = multiprocessing.get_context("spawn").Process


def test_a_spawned_process_has_all_of_the_device(
    engine: str, net: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZDEV_ENGINE", engine)
    device = Spawned(zmq.PULL, zmq.PUSH, zmq.PUSH, "from", "to", name="spawned")
    extra, monitor = net.bound(zmq.PULL, "tcp"), net.bound(zmq.PULL, "tcp")
    device.extra = extra.last_endpoint.decode()
    port = device.bind_in_to_random_port("tcp://127.0.0.1")
    device.bind_out("tcp://127.0.0.1:*")
    device.connect_mon(monitor.last_endpoint.decode())
    source, sink = net.socket(zmq.PUSH), net.socket(zmq.PULL)
    source.connect(f"tcp://127.0.0.1:{port}")
    with device:
        assert extra.recv() == b"set up"
        sink.connect(device.endpoints["out"][0])
        source.send(b"x")
        assert sink.recv() == b"x"
        assert monitor.recv_multipart() == [b"from", b"x"]
        assert counts(device) == (1, 1, 1)
        assert device.launcher.name == device.name == "spawned"
    assert device.launcher.exitcode == 0
