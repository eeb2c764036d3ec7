"""Copies of devices, and pickles: they have the configuration, and share nothing."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from collections.abc import Iterator
from typing import Any, Callable

import pytest
import zmq

import zdev

from ..support import DEADLINE, Network
from .background import Devices
from .census import can_bind
from .classes import arguments
from .streams import ANY

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

LOCAL = "tcp://127.0.0.1"


def pickled(device: Any) -> Any:
    return pickle.loads(pickle.dumps(device))


@pytest.fixture(params=[pickled, copy.copy, copy.deepcopy])
def duplicate(request: pytest.FixtureRequest) -> Iterator[Callable[[Any], Any]]:
    """Copy a device, in each way; the copies are stopped behind the test."""
    made = []

    def duplicate(device: Any) -> Any:
        made.append(request.param(device))
        if hasattr(device, "_launch_class"):
            made[-1]._launch_class = device._launch_class
        return made[-1]

    yield duplicate
    for each in made:
        each.stop()


@pytest.mark.parametrize("state", ["idle", "running", "ended"])
def test_a_copy_is_as_never_started(
    engine: str, net: Network, devices: Devices, duplicate: Any, state: str
) -> None:
    device = devices("Proxy", zmq.PULL, zmq.PUSH)
    device.bind_in(ANY)
    device.setsockopt_out(zmq.SNDHWM, 7)
    if state != "idle":
        device.start()
    if state == "ended":
        device.stop()
    other = duplicate(device)
    assert repr(other) == repr(device).replace(state, "idle")
    assert (other.done, other.exception, other.endpoints) == (False, None, {})
    assert other._in_binds == [ANY]
    assert other._out_sockopts == [(zmq.SNDHWM, 7)]
    with other:
        # The port of one that has ended may be the next that is chosen.
        assert state == "ended" or other.endpoints["in"] != device.endpoints.get("in")
        assert other.endpoints["in"]


def test_a_copy_shares_nothing(name: str, duplicate: Any) -> None:
    device = getattr(zdev, name)(*arguments(name))
    port = device.bind_in_to_random_port(LOCAL)
    held, plans, chosen = dict(device._held), device._plans, device._random_addrs
    other = duplicate(device)
    other.bind_out(ANY)
    other.connect_in(f"{LOCAL}:1")
    other.setsockopt_in(zmq.LINGER, 0)
    other.bind_in_to_random_port(LOCAL)
    assert (device._in_binds, device._out_binds) == ([f"{LOCAL}:{port}"], [])
    assert (device._in_connects, device._in_sockopts) == ([], [])
    assert device._random_addrs == [f"{LOCAL}:{port}"]
    del other
    assert (device._held, device._plans, device._random_addrs) == (held, plans, chosen)
    assert all(each.fileno() != -1 for each in held.values())


def test_a_copy_has_the_random_port_if_it_can_be_had(
    engine: str, net: Network, devices: Devices, duplicate: Any
) -> None:
    device = devices("Proxy", zmq.PULL, zmq.PUSH)
    port = device.bind_in_to_random_port(LOCAL)
    other = duplicate(device)
    with pytest.raises(zdev.BindError):
        other.start()
    with device, pytest.raises(zdev.BindError):
        other.start()
    assert can_bind(net, f"{LOCAL}:{port}")
    with other:
        assert other.endpoints["in"] == [f"{LOCAL}:{port}"]


def run(device: Any, connection: Any) -> None:
    """Run a device in a process of the program's."""
    with device:
        connection.send(device.endpoints["in"])
        assert connection.poll(DEADLINE)
        connection.recv()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_process_of_the_program_gets_the_port_itself(net: Network, method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    device = zdev.ThreadDevice(zmq.STREAMER, zmq.PULL, zmq.PUSH)
    port = device.bind_in_to_random_port(LOCAL)
    ours, theirs = context.Pipe()
    process = context.Process(target=run, args=(device, theirs))
    process.start()
    del device
    assert ours.poll(DEADLINE)
    assert ours.recv() == [f"{LOCAL}:{port}"]
    ours.send("enough")
    process.join(DEADLINE)
    assert process.exitcode == 0
    process.close()
    ours.close()
    theirs.close()
