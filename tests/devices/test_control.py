"""Questions and commands at any moment: before the start, while it ends, after the end, all at once."""

from __future__ import annotations

import contextlib
import os
import threading
from typing import Any, Callable

import pytest
import zmq

import zdev

from ..support import DEADLINE, Background, Network, wait_until
from .background import Devices
from .faulty import FORK, Failing, Trouble, bad_option, trouble
from .streams import ANY, STATES, Stream, stream_for

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


def test_with(engine: str, net: Network, devices: Devices) -> None:
    stream = Stream(net, devices, "MonitoredQueue")
    with stream.device as device:
        assert device is stream.device
        stream.source().send(b"x")
        assert stream.sink().poll(0) in (0, zmq.POLLIN)
    stream.has_ended()
    with pytest.raises(Trouble), stream.device:
        trouble()
    stream.has_ended()
    failing = Failing(Trouble("inside"))
    device = devices.of(failing, "Device", zmq.STREAMER, zmq.PULL, zmq.PUSH)
    failing.fail.set()
    with pytest.raises(Trouble, match="inside"), device:
        wait_until(lambda: device.done)


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_control_before_the_start(devices: Devices, verb: str) -> None:
    device = devices("Proxy", zmq.PULL, zmq.PUSH)
    with pytest.raises(RuntimeError, match="was not started"):
        getattr(device, verb)()


def test_control_while_it_ends(engine: str, net: Network, devices: Devices) -> None:
    entered, gate = FORK.Event(), FORK.Event()

    def tarrying(base: Any) -> Any:
        class Device(base):  # type: ignore[misc]
            def _close_sockets(self) -> None:
                entered.set()
                gate.wait(DEADLINE)
                super()._close_sockets()

        return Device

    device = devices.of(tarrying, "Proxy", zmq.PULL, zmq.PUSH, name="depot")
    device.bind_in(ANY)
    device.start()
    source = net.socket(zmq.PUSH)
    source.connect(device.endpoints["in"][0])
    source.send(b"x")
    wait_until(lambda: device.statistics().frontend_to_backend.messages_received)
    stop = Background(device.stop)
    assert entered.wait(DEADLINE)
    counts = device.statistics()
    assert counts.frontend_to_backend.messages_received == 1
    for verb in (device.pause, device.resume):
        with pytest.raises(RuntimeError, match=r"^depot is ending"):
            verb()
    gate.set()
    stop.join()
    assert device.statistics() == counts
    for verb in (device.pause, device.resume):
        with pytest.raises(RuntimeError, match=r"^depot has ended; start it again"):
            verb()


def test_control_after_the_end(engine: str, net: Network, devices: Devices) -> None:
    stream = Stream(net, devices)
    with stream.device:
        pass
    with pytest.raises(RuntimeError):
        stream.device.pause()
    stream.device.bind_out("ipc://*")  # for the next start
    with stream.device:
        assert stream.device.endpoints["out"][-1].startswith("ipc://")


NOTHING = zdev.Statistics(
    zdev.DirectionStatistics(), zdev.DirectionStatistics(), zdev.CaptureStatistics()
)


def test_statistics_before_anything_is_relayed(devices: Devices) -> None:
    """A collector asks whatever devices there are: those not started, and those that failed to."""
    device = devices("Proxy", zmq.PULL, zmq.PUSH)
    assert device.statistics() == NOTHING
    bad_option(device)
    with pytest.raises(zmq.ZMQError):
        device.start()
    assert device.statistics() == NOTHING


def test_statistics_of_a_process_that_died_before_it_relayed(engine: str) -> None:
    device = zdev.ProcessProxy(zmq.PULL, zmq.PUSH)
    device._launch_class = FORK.Process
    device.context_factory = lambda: os._exit(3)  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match="exit code 3"):
        device.start()
    assert device.statistics() == NOTHING


def test_statistics_at_any_moment(engine: str, devices: Devices) -> None:
    """They are told also while a device ends and is started again."""
    device = devices("Proxy", zmq.PULL, zmq.PUSH)
    device.start()
    enough = threading.Event()
    asked = 0

    def ask() -> None:
        nonlocal asked
        while not enough.is_set():
            device.statistics()
            asked += 1

    user = Background(ask)
    try:
        for _ in range(10):
            before = asked
            wait_until(lambda seen=before: asked > seen or not user.alive)  # type: ignore[misc]
            device.stop()
            device.start()
    finally:
        enough.set()
        user.join()


@pytest.mark.parametrize("state", STATES)
def test_all_at_once(engine: str, net: Network, devices: Devices, state: Any) -> None:
    """One joins, one looks, one pauses and resumes, one stops: nobody hangs."""
    stream = stream_for(state, net, devices)

    def until_it_ends(verb: Callable[[], Any]) -> None:
        with contextlib.suppress(RuntimeError):
            while not stream.device.done:
                verb()

    def toggle() -> None:
        stream.device.pause()
        stream.device.resume()

    with state(stream):
        users = [
            Background(stream.device.join),
            Background(until_it_ends, stream.device.statistics),
            Background(until_it_ends, toggle),
            Background(until_it_ends, lambda: stream.device.endpoints),
        ]
        for _ in range(20):
            stream.device.statistics()
        stream.device.stop(timeout=DEADLINE)
        for user in users:
            user.join()
        stream.has_ended()
