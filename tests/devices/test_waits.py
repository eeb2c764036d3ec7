"""A device that waits for somebody says so: in its repr, its statistics, and once in the log."""

from __future__ import annotations

import logging
import re

import pytest
import zmq

from ..support import Network, wait_until
from .background import Devices
from .streams import ANY, Stream

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

SOON = 0.2


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize("late", [False, True], ids=["at_the_start", "late"])
def test_a_monitor_that_is_gone(
    engine: str, net: Network, devices: Devices, caplog: pytest.LogCaptureFixture, late: bool
) -> None:
    stream = Stream(net, devices, "Proxy", name="depot", warn_after=SOON)
    if not late:
        stream.device.bind_mon(ANY)
    with stream.device as device:
        if late:
            device.bind_mon(ANY)
        idle = repr(device)
        source, sink = stream.source(), stream.sink()
        watcher = net.socket(zmq.PULL)
        watcher.connect(device.endpoints["mon"][0])
        source.send(b"seen")
        assert sink.recv() == watcher.recv() == b"seen"
        watcher.close()
        wait_until(lambda: source.send(b"x") or device.statistics().capture.parked)
        wait_until(lambda: repr(device) == idle.replace("running", "running, in waits for mon"))
        wait_until(lambda: warnings(caplog))
        there, _, capture = device.statistics()
        assert there.parked == 0
        assert there.parked_seconds >= capture.parked_seconds >= SOON - 0.01

        watcher = net.socket(zmq.PULL)
        watcher.connect(device.endpoints["mon"][0])
        wait_until(lambda: repr(device) == idle)
        wait_until(lambda: len(warnings(caplog)) == 2)
        there, _, capture = device.statistics()
        assert there.parked_seconds == capture.parked_seconds == 0
    warning, again = warnings(caplog)
    assert re.fullmatch(
        r"depot: in has waited for [\d.]+ s for mon \(PUSH\), which has taken some, but .*; "
        r'let somebody read there, or choose capture_policy="drop"',
        warning,
    )
    assert again.startswith("depot: in flows again after ")


@pytest.mark.parametrize(
    ("attach", "said"),
    [(False, "is neither bound nor connected"), (True, "seems to have had no peer")],
)
def test_a_destination_that_nobody_reads(
    engine: str,
    net: Network,
    devices: Devices,
    caplog: pytest.LogCaptureFixture,
    attach: bool,
    said: str,
) -> None:
    device = devices("Device", zmq.QUEUE, zmq.DEALER, zmq.DEALER, name="depot", warn_after=SOON)
    device.bind_out(ANY)
    if attach:
        device.bind_in(ANY)
    with device:
        worker = net.socket(zmq.DEALER)
        worker.connect(device.endpoints["out"][0])
        worker.send(b"x")
        wait_until(lambda: "running, out waits for in>" in repr(device))
        wait_until(lambda: warnings(caplog))
        back = device.statistics().backend_to_frontend
        assert back.parked == 1
        assert back.parked_seconds >= SOON - 0.01
    assert "ended>" in repr(device)
    (warning,) = warnings(caplog)
    start = r"depot: out has waited for [\d.]+ s for in \(DEALER\), which .*"
    assert re.fullmatch(f'{start}{said}; .* choose overflow="drop"', warning)


def test_never(
    engine: str, net: Network, devices: Devices, caplog: pytest.LogCaptureFixture
) -> None:
    stream = Stream(net, devices, name="depot", warn_after=None)
    with stream.device as device:
        stream.source().send(b"x")
        wait_until(lambda: "in waits for out" in repr(device))
        wait_until(lambda: stream.there.parked_seconds > 2 * SOON)
    assert not warnings(caplog)
