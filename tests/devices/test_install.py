"""zdev.install() and zdev.uninstall(): zdev's names in the place of pyzmq's."""

from __future__ import annotations

import importlib
import multiprocessing
import multiprocessing.spawn
import pickle
import pydoc
import sys
import threading
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import zmq
import zmq.devices
from zmq.devices import (
    basedevice,
    monitoredqueue,
    monitoredqueuedevice,
    proxydevice,
    proxysteerabledevice,
)

import zdev
from zdev._devices import kinds, launchers

from ..support import DEADLINE, Network, python

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

FUNCTIONS = ["proxy", "device", "proxy_steerable", "monitored_queue"]
CLASSES = [name for name in zmq.devices.__all__ if name not in ("monitored_queue", "device")]
BASES = {
    "BackgroundDevice": launchers.BackgroundDevice,
    "ProxyBase": kinds.ProxyKind,
    "ProxySteerableBase": kinds.ProxySteerableKind,
    "MonitoredQueueBase": kinds.MonitoredQueueKind,
}
MODULES = [
    zmq,
    zmq.devices,
    basedevice,
    monitoredqueue,
    monitoredqueuedevice,
    proxydevice,
    proxysteerabledevice,
]


def names() -> dict[tuple[ModuleType, str], Any]:
    """Return what all modules have."""
    spawn = multiprocessing.spawn
    return {
        (module, name): value
        for module in (*MODULES, spawn)
        for name, value in vars(module).items()
        if not name.startswith("__")
    }


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    zdev.uninstall()


@pytest.fixture
def installed() -> None:
    zdev.install()


# Derived from pyzmq's classes before there was any zdev


class TheirThread(zmq.devices.ThreadDevice):
    pass


class TheirThreadProxy(zmq.devices.ThreadProxy):
    pass


class TheirThreadQueue(zmq.devices.ThreadMonitoredQueue):
    def _setup_sockets(self) -> Any:
        return super()._setup_sockets()


class TheirProcessQueue(zmq.devices.ProcessMonitoredQueue):
    pass


class TheirSpawned(TheirProcessQueue):
    _launch_class = multiprocessing.get_context("spawn").Process


# The names


@pytest.mark.usefixtures("installed")
def test_the_names_of_zmq() -> None:
    assert zmq.proxy is zdev.proxy
    assert zmq.device is zdev.device  # type: ignore[comparison-overlap]
    assert zmq.proxy_steerable is zdev.proxy_steerable


@pytest.mark.usefixtures("installed")
def test_the_names_of_zmq_devices() -> None:
    assert zmq.devices.monitored_queue is zdev.monitored_queue
    # pyzmq 25 has no proxy there
    assert getattr(zmq.devices, "proxy", zdev.proxy) is zdev.proxy
    for name in CLASSES:
        assert getattr(zmq.devices, name) is getattr(zdev, name)
    assert "Relay" not in vars(zmq.devices)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("module", MODULES[2:], ids=lambda module: module.__name__)
def test_the_names_of_its_submodules(module: ModuleType) -> None:
    for name in module.__all__:
        assert getattr(module, name) is getattr(zdev, name)
    for name, base in BASES.items():
        # pyzmq's own classes call the methods of their base by this name
        if hasattr(module, name) and (module, name) != (monitoredqueuedevice, "ProxyBase"):
            assert getattr(module, name) is base


@pytest.mark.usefixtures("installed")
def test_nothing_else_is_touched() -> None:
    ours = {zdev.Device, *BASES.values(), *(getattr(zdev, name) for name in CLASSES + FUNCTIONS)}
    now = names()
    zdev.uninstall()
    changed = {key for key, value in names().items() if value is not now[key]}
    spawn = (multiprocessing.spawn, "get_preparation_data")
    assert spawn in changed
    assert {now[key] for key in changed - {spawn}} == ours
    zdev.install()


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", [*CLASSES, "monitored_queue"])
def test_looked_up_by_a_string(name: str) -> None:
    path = f"zmq.devices.{name}"
    assert pydoc.locate(path) is getattr(zdev, name)
    # as traitlets' import_item does
    package, _, item = path.rpartition(".")
    assert vars(__import__(package, fromlist=[item]))[item] is getattr(zdev, name)
    assert getattr(importlib.import_module("zmq.devices"), name) is getattr(zdev, name)


@pytest.mark.usefixtures("installed")
def test_imported_afterwards() -> None:
    got: dict[str, Any] = {}
    exec("from zmq.devices import *", got)
    exec("from zmq import proxy, device, proxy_steerable", got)
    exec("from zmq.devices.basedevice import ThreadDevice as T", got)
    for name in (*CLASSES, *FUNCTIONS):
        assert got[name] is getattr(zdev, name)
    assert got["T"] is zdev.ThreadDevice


# In and out


def test_uninstall_restores_all() -> None:
    before = names()
    for _ in range(2):
        zdev.install()
        assert names() != before
        zdev.uninstall()
        assert names() == before
        assert all(value is before[key] for key, value in names().items())


def test_again_changes_nothing() -> None:
    before = names()
    zdev.uninstall()
    assert names() == before
    zdev.install()
    once = names()
    zdev.install()
    assert names() == once
    zdev.uninstall()
    assert names() == before
    zdev.uninstall()
    assert names() == before


def test_from_many_threads() -> None:
    before = names()
    for change in (zdev.install, zdev.uninstall):
        threads = [threading.Thread(target=change) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        assert (names() == before) is (change is zdev.uninstall)


def test_an_import_installs_nothing() -> None:
    done = python(
        "import zmq, zmq.devices as d; before = zmq.proxy, d.Device\n"
        "import zdev; assert (zmq.proxy, d.Device) == before"
    )
    assert (done.returncode, done.stderr) == (0, "")


# What was derived from pyzmq's classes before


def relays(device: Any, net: Network) -> None:
    """Check that a device relays, and ends with its context."""
    source, sink = net.bound(zmq.PUSH, "tcp"), net.bound(zmq.PULL, "tcp")
    monitor = net.bound(zmq.PULL, "tcp")
    device.connect_in(source.last_endpoint.decode())
    device.connect_out(sink.last_endpoint.decode())
    if hasattr(device, "connect_mon"):
        device.connect_mon(monitor.last_endpoint.decode())
    device.start()
    source.send(b"x")
    assert sink.recv() == b"x"
    if hasattr(device, "connect_mon"):
        prefix = [b"in"] if hasattr(device, "_in_prefix") else []
        assert monitor.recv_multipart() == [*prefix, b"x"]
    if isinstance(device.launcher, threading.Thread):
        for socket in (source, sink, monitor):
            socket.close()
        net.context.term()
    else:
        device.launcher.terminate()
    device.join(DEADLINE)
    assert device.done or not device.launcher.is_alive()


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("theirs", [TheirThread, TheirThreadProxy, TheirThreadQueue])
def test_derived_before_and_run_after(net: Network, theirs: Any) -> None:
    first = (zmq.QUEUE,) if theirs is TheirThread else ()
    more = () if theirs is TheirThread else (zmq.PUSH,)
    device = theirs(*first, zmq.PULL, zmq.PUSH, *more)
    assert not isinstance(device, zdev.Device)
    device.context_factory = lambda: net.context
    relays(device, net)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("theirs", [TheirProcessQueue, TheirSpawned])
def test_derived_before_and_run_after_in_a_process(net: Network, theirs: Any) -> None:
    device = theirs(zmq.PULL, zmq.PUSH, zmq.PUSH)
    relays(device, net)


def test_derived_after_and_run_before(engine: str, net: Network) -> None:
    zdev.install()

    class Mine(zmq.devices.ThreadMonitoredQueue):
        pass

    class MineToo(monitoredqueuedevice.MonitoredQueueBase, proxydevice.ThreadProxy):
        """Put together as pyzmq's own classes are."""

    class MineAsWell(basedevice.BackgroundDevice):
        _launch_class = threading.Thread

    zdev.uninstall()
    for kind in (Mine, MineToo):
        device: Any = kind(zmq.PULL, zmq.PUSH, in_prefix="in")
        assert isinstance(device, zdev.Device)
        with device:
            device.bind_mon("tcp://127.0.0.1:*")
            assert device.endpoints["mon"]
    assert issubclass(MineAsWell, zdev.Device)


# Pickles, and processes


@pytest.mark.parametrize("name", CLASSES)
def test_pickles_are_the_same_with_and_without(name: str) -> None:
    device = getattr(zdev, name)(in_type=zmq.PULL, out_type=zmq.PUSH, name="pickled")
    device.bind_in("tcp://127.0.0.1:*")
    without = pickle.dumps(device)
    zdev.install()
    within = pickle.dumps(device)
    assert pickle.loads(without).name == "pickled"
    zdev.uninstall()
    for pickled in (without, within):
        copy = pickle.loads(pickled)
        assert type(copy) is type(device)
        assert copy._in_binds == ["tcp://127.0.0.1:*"]
        assert (copy.done, copy.exception, copy.endpoints) == (False, None, {})


class Ours(zdev.ProcessMonitoredQueue):
    _launch_class = multiprocessing.get_context("spawn").Process


@pytest.mark.usefixtures("installed")
def test_a_spawned_process_is_installed_too() -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=report, args=(theirs,))
    process.start()
    assert ours.poll(DEADLINE)
    assert ours.recv() == ("zdev._functions", "zdev._devices", sys.executable)
    process.join(DEADLINE)
    process.close()
    for end in (ours, theirs):
        end.close()
    with Ours(zmq.PULL, zmq.PUSH) as device:
        device.bind_in("tcp://127.0.0.1:*")
        assert device.endpoints["in"]


def report(connection: Any) -> None:
    """Tell from another process whose names are there."""
    connection.send((zmq.proxy.__module__, zmq.devices.ThreadProxy.__module__, sys.executable))
