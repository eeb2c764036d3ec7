"""Subclasses: what they may replace, and what works for them all the same."""

from __future__ import annotations

import errno
import itertools
import multiprocessing
import threading
from pathlib import Path
from typing import Any

import pytest
import zmq
import zmq.devices

import zdev
from zdev._devices import run

from ..support import DEADLINE, Background, Network, wait_until
from .background import Devices
from .classes import counts

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


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
    monkeypatch.setattr(run, "PATIENCE", 0.01)
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


class TwiceRun:
    """Relays again when a relay has ended."""

    def run_device(self) -> None:
        sockets = self._setup_sockets()  # type: ignore[attr-defined]
        for _ in range(2):
            zdev.proxy(*sockets)


def test_a_subclass_that_relays_again(engine: str, net: Network, threads: Devices) -> None:
    """Each relay is the device's while it runs, and a stop is for all that come."""
    device = threads.of(lambda base: of((TwiceRun,), base), "Proxy", zmq.PULL, zmq.PUSH)
    device.bind_in("tcp://127.0.0.1:*")
    device.start()
    first = device._run.relay
    first.stop()
    wait_until(lambda: device._run.relay is not first)
    source = net.socket(zmq.PUSH)
    source.connect(device.endpoints["in"][0])
    source.send(b"x")
    wait_until(lambda: device.statistics().frontend_to_backend.messages_received)
    device.stop(timeout=DEADLINE)
    assert device.done
    device.start()
    device.stop(timeout=DEADLINE)
    assert device.done
