"""The classes of devices and those of pyzmq: the same names, arguments and attributes."""

from __future__ import annotations

import inspect
import multiprocessing
import re
import threading
from typing import Any

import pytest
import zmq
import zmq.devices

import zdev

from ..support import Network
from .background import Devices
from .classes import NAMES, ROLES, SETTINGS, arguments, kind_of

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


@pytest.fixture
def ours(name: str) -> Any:
    return getattr(zdev, name)


@pytest.fixture
def theirs(name: str) -> Any:
    return getattr(zmq.devices, name)


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
    named = ("name", inspect.Parameter.KEYWORD_ONLY, None)
    settings = ("settings", inspect.Parameter.VAR_KEYWORD, inspect.Parameter.empty)
    assert mine == [*parameters(theirs), named, settings]


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
        # Ours may take more, which has to be named: no call for pyzmq's has such.
        wanted, taken = parameters(method), parameters(mine)
        assert taken[: len(wanted)] == wanted, attribute
        for _, kind, default in taken[len(wanted) :]:
            assert kind == inspect.Parameter.KEYWORD_ONLY
            assert default is not inspect.Parameter.empty


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
    *names, _ = [parameter for parameter, *_ in parameters(ours)]
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
            getattr(device, f"{verb}_{role}")("ipc://a")
            getattr(device, f"{verb}_{role}")(addr="ipc://b")
            assert planned == ["ipc://a", "ipc://b"]
            setattr(device, f"_{role}_{field}", ["ipc://c"])
            getattr(device, f"{verb}_{role}")("ipc://d")
            assert getattr(device, f"_{role}_{field}") == ["ipc://c", "ipc://d"]
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
            f"curve_server_{role}",
            f"curve_client_{role}",
            f"plain_server_{role}",
            f"plain_client_{role}",
            f"allow_{role}",
        ):
            function = getattr(ours, method)
            assert function.__name__ == method
            assert f"the {role} socket" in function.__doc__
            assert function.__qualname__.endswith(f".{method}")


def test_its_help_tells_all(name: str, ours: Any) -> None:
    """Parameters, attributes, errors and threads, each once; nobody is sent to another class."""
    doc = inspect.getdoc(ours)
    assert doc is not None
    _, *rest = re.split(r"^([A-Z][\w ]+)\n-+\n", doc, flags=re.MULTILINE)
    parts = dict(zip(rest[::2], rest[1::2]))
    explained = re.findall(r"^([a-z_, ]+) : ", parts["Parameters"], re.MULTILINE)
    assert sorted(", ".join(explained).split(", ")) == sorted(p for p, *_ in parameters(ours)[:-1])
    explained = re.findall(r"^([a-z_, ]+) : ", parts["Other Parameters"], re.MULTILINE)
    assert sorted(", ".join(explained).split(", ")) == sorted(
        [*SETTINGS, "io_threads", "watch_connections", "on_connection"]
    )
    attributes = re.findall(r"^([a-z_]+) : ", parts["Attributes"], re.MULTILINE)
    public = {"name", "daemon", "context_factory", "done", "exception", "endpoints", "last_stop"}
    public |= {"launcher"} if name.startswith(("Thread", "Process")) else set()
    assert sorted(attributes) == sorted(public)
    assert {"TypeError", "ValueError"} <= set(re.findall(r"\w+Error", parts["Raises"]))
    assert "any thread" in parts["Notes"]
    assert ("SIGTERM" in parts["Notes"]) is name.startswith("Process")


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


class Launched(threading.Thread):
    """Keeps what it was made with."""

    def __init__(self, target: Any) -> None:
        super().__init__(target=target)


class LaunchedProcess(multiprocessing.get_context("spawn").Process):  # type: ignore[name-defined,misc]
    def __init__(self, target: Any) -> None:
        super().__init__(target=target)


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
