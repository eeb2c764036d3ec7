"""What a device's constructor passes on to its relay: every class, every start, every copy."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import zmq

import zdev

from ..support import Network, wait_until
from .background import Devices
from .classes import SETTINGS, arguments
from .streams import ANY, Stream

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


class Told(Exception):
    pass


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return what relays are told, each instead of being made."""
    told: list[dict[str, Any]] = []

    def tell(*sockets: Any, **options: Any) -> None:
        told.append({name: value for name, value in options.items() if name in SETTINGS})
        raise Told

    monkeypatch.setattr("zdev._devices.device.Relay", tell)
    return told


def test_each_class_passes_on_all(name: str, told: list[dict[str, Any]]) -> None:
    """At each start, and a copy as well."""
    cls = getattr(zdev, name)
    settings = {**SETTINGS, "capture_policy": "drop" if "mon" in cls._roles else "block"}
    device = cls(*arguments(name), **settings)
    for each in (device, device, copy.deepcopy(device), pickle.loads(pickle.dumps(device))):
        each.context_factory = zmq.Context
        with pytest.raises(Told):
            zdev.Device.start(each)  # in this thread, whatever the class
    assert told == [settings] * 4
    with pytest.raises(Told):
        zdev.Device.start(cls(*arguments(name)))
    assert told[-1] == {}


def test_settings_have_effect(engine: str, net: Network, devices: Devices) -> None:
    """In processes too: traffic goes past a monitor that nobody reads."""
    stream = Stream(net, devices, "MonitoredQueue", capture_policy="drop")
    stream.device.bind_mon(ANY)
    for _ in range(2):
        with stream.device:
            source, sink = stream.source(), stream.sink()
            source.send(b"x")
            assert sink.recv() == b"x"
            wait_until(lambda: stream.device.statistics().capture.dropped == 1)
            sink.close()
            source.close()


def test_overflow(engine: str, net: Network, devices: Devices) -> None:
    """It goes by what comes in where: here nobody is there to take what comes in at "in"."""
    stream = Stream(net, devices, "Proxy", in_overflow="drop")
    with stream.device:
        stream.source().send(b"x")
        wait_until(lambda: stream.there.overflowed == 1)


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ({"burst": 0}, ValueError, "burst must be from 1"),
        ({"burst": "x"}, TypeError, "burst must be an int"),
        ({"capture_policy": "lossless"}, ValueError, "capture_policy must be"),
        ({"overflow": "block"}, ValueError, 'overflow must be "park" or "drop"'),
        ({"in_overflow": "x"}, ValueError, "in_overflow must be"),
        ({"out_overflow": 5}, ValueError, "out_overflow must be"),
        ({"warn_after": "x"}, TypeError, "warn_after must be a number of seconds"),
        ({"warn_afterwards": 5}, TypeError, "unexpected keyword argument 'warn_afterwards'"),
    ],
)
def test_what_is_wrong_is_said_at_once(name: str, wrong: Any, error: Any, said: str) -> None:
    with pytest.raises(error, match=said):
        getattr(zdev, name)(*arguments(name), **wrong)


def test_a_policy_for_copies_wants_a_monitor() -> None:
    with pytest.raises(ValueError, match="capture_policy is of the copies that a monitor gets"):
        zdev.ThreadDevice(zmq.QUEUE, zmq.PULL, zmq.PUSH, capture_policy="drop")
