"""What a device tells of itself: in the log, in its repr, by its name."""

from __future__ import annotations

import logging
import pickle
from typing import Any

import pytest
import zmq

import zdev

from ..support import Network, wait_until
from .background import Devices
from .faulty import Failing, Trouble, bad_option
from .streams import Stream

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


def test_log(engine: str, net: Network, devices: Devices, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "zdev")
    stream = Stream(net, devices, name="depot")
    with stream.device:
        assert stream.device.launcher.name == "depot"
        address = stream.device.endpoints["in"][0]
        assert [(r.name, r.levelno) for r in caplog.records] == [("zdev", logging.INFO)]
        assert "depot relays" in caplog.text
        assert address in caplog.text
    assert "depot has ended" in caplog.text
    assert all(record.levelno == logging.INFO for record in caplog.records)


def test_a_role_without_an_address(
    engine: str, net: Network, devices: Devices, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told of once, a monitor without one gets no copies, and no list of its is empty."""
    caplog.set_level(logging.DEBUG, "zdev")
    stream = Stream(net, devices, "Proxy", name="depot")
    with stream.device as device:
        (told,) = [r.getMessage() for r in caplog.records]
        assert told.endswith("; neither bound nor connected: mon")
        assert "[]" not in told
        source, sink = stream.source(), stream.sink()
        source.send(b"one")
        assert sink.recv() == b"one"
        monitor = net.socket(zmq.PULL)
        assert device.statistics().capture == zdev.CaptureStatistics()

        # It has one now.
        port = device.bind_mon_to_random_port("tcp://127.0.0.1")
        monitor.connect(f"tcp://127.0.0.1:{port}")
        source.send(b"two")
        assert sink.recv() == b"two"
        assert monitor.recv_multipart()[-1] == b"two"
        wait_until(lambda: device.statistics().capture.sent == 1)


def test_log_of_errors(
    engine: str, net: Network, devices: Devices, caplog: pytest.LogCaptureFixture
) -> None:
    """What start raises is not shown besides; what happens later is, before anybody joins."""
    caplog.set_level(logging.DEBUG, "zdev")
    stream = Stream(net, devices, name="depot")
    bad_option(stream.device)
    with pytest.raises(zmq.ZMQError):
        stream.device.start()
    assert "depot failed: ZMQError: Invalid argument" in caplog.text
    assert all(record.levelno < logging.WARNING for record in caplog.records)
    caplog.clear()
    failing = Failing(Trouble("inside"))
    device = devices.of(failing, "Device", zmq.STREAMER, zmq.PULL, zmq.PUSH, name="mill")
    device.start()
    failing.fail.set()
    wait_until(lambda: device.done)
    # A warning may be there besides: on a busy machine, an end that took long looks like lost messages.
    errors = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
    assert errors == ["mill failed: Trouble: inside"]


def test_repr(devices: Devices) -> None:
    kind = f"{devices.launcher}Proxy"
    device = devices("Proxy", zmq.PULL, zmq.PUSH, name="depot")
    assert repr(device) == f"<{kind} depot PULL to PUSH, idle>"
    with device:
        assert repr(device) == f"<{kind} depot PULL to PUSH, running>"
    assert repr(device) == f"<{kind} depot PULL to PUSH, ended>"
    assert repr(devices("Proxy", zmq.ROUTER, -1, name="x")) == f"<{kind} x ROUTER to itself, idle>"
    device.in_type, device.out_type = 999, "y"
    assert repr(device) == f"<{kind} depot 999 to y, ended>"
    blank = type(device).__new__(type(device))
    assert repr(blank) == f"<{kind} None None to None, idle>"


def test_names(devices: Devices) -> None:
    """They count, whatever the class; and a copy keeps its name, as a spawned process does."""
    first, second, third = (
        devices(kind, zmq.PULL, zmq.PUSH) for kind in ("Proxy", "MonitoredQueue", "Proxy")
    )
    prefix, _, number = first.name.rpartition("-")
    assert prefix == f"{devices.launcher}Proxy"
    assert second.name == f"{devices.launcher}MonitoredQueue-{int(number) + 1}"
    assert third.name == f"{prefix}-{int(number) + 2}"
    assert pickle.loads(pickle.dumps(first)).name == first.name
    with first:
        assert first.launcher.name == first.name


def test_log_of_an_overflow(
    engine: str, net: Network, devices: Devices, caplog: pytest.LogCaptureFixture
) -> None:
    """It names the device, and the sockets as the device does."""

    def dropping(base: Any) -> Any:
        return type("Dropping", (base,), {"_relay_options": lambda self: {"overflow": "drop"}})

    device = devices.of(dropping, "Device", zmq.STREAMER, zmq.PULL, zmq.PUSH, name="depot")
    port = device.bind_in_to_random_port("tcp://127.0.0.1")
    with device:
        source = net.socket(zmq.PUSH)
        source.connect(f"tcp://127.0.0.1:{port}")
        for _ in range(10):
            source.send(b"x")
        wait_until(lambda: device.statistics().frontend_to_backend.overflowed == 10)
    begun, ended = (r.getMessage() for r in caplog.records if r.levelno == logging.WARNING)
    assert begun.startswith("depot drops messages: its out (PUSH) is full or has no peer")
    assert ended == "depot drops no more messages for its out (PUSH): it has dropped 10"
