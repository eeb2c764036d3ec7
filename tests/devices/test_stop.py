"""A stop: whatever the device is doing, while it starts too, and also if it does not obey."""

from __future__ import annotations

import os
import signal
from typing import Any, Callable

import pytest
import zmq

from ..support import DEADLINE, Background, Network, wait_until
from .background import Devices
from .census import Census
from .faulty import Hesitant, Trouble
from .streams import STATES, Stream, stream_for

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


def at_once(device: Any) -> None:
    device.stop(timeout=DEADLINE)


def concurrently(device: Any) -> None:
    users = [Background(device.stop), Background(device.stop, timeout=DEADLINE)]
    users += [Background(device.join), Background(device.stop, drain=0)]
    for user in users:
        user.join()


def by_signal(device: Any) -> None:
    """Stop in a handler, while this thread joins."""
    previous = signal.signal(signal.SIGUSR1, lambda *_: device.stop(timeout=DEADLINE))
    try:
        user = Background(os.kill, os.getpid(), signal.SIGUSR1)
        device.join()
        user.join()
    finally:
        signal.signal(signal.SIGUSR1, previous)


@pytest.mark.parametrize("way", [at_once, concurrently, by_signal])
@pytest.mark.parametrize("state", STATES)
def test_stop_in_every_state(
    engine: str, net: Network, devices: Devices, state: Any, way: Callable[[Any], None]
) -> None:
    stream = stream_for(state, net, devices)
    with state(stream):
        way(stream.device)
        stream.has_ended()
        stream.device.stop()
    there = stream.there
    assert there.messages_received == there.messages_sent + there.parked


def test_stop_on_the_devices_own_thread(engine: str, net: Network, threads: Devices) -> None:
    stream = Stream(net, threads)
    stream.device.start()
    stream.device._run.relay.call(stream.device.stop)
    stream.device.join()
    stream.has_ended()


def test_stop_during_start(engine: str, devices: Devices) -> None:
    hesitant = Hesitant()
    device = devices.of(hesitant, "Proxy", zmq.PULL, zmq.PUSH)
    start = Background(device.start)
    assert hesitant.entered.wait(DEADLINE)
    stop = Background(device.stop)
    hesitant.gate.set()
    stop.join()
    start.join()
    assert device.done
    assert device.exception is None
    device.join()


def test_a_start_that_is_interrupted_leaves_nothing(
    engine: str, net: Network, devices: Devices
) -> None:
    """As Ctrl-C does."""
    hesitant = Hesitant()
    device = devices.of(hesitant, "Proxy", zmq.PULL, zmq.PUSH)
    if devices.in_this_process:
        device.context_factory = lambda: net.context
    census = Census(net)

    def interrupt(*_: object) -> None:
        hesitant.gate.set()
        raise Trouble("interrupted")

    def when_it_starts() -> None:
        assert hesitant.entered.wait(DEADLINE)
        # Not in the midst of a fork, or before a thread begins, of which Python would keep traces.
        wait_until(lambda: devices.in_this_process or device._run._link)
        os.kill(os.getpid(), signal.SIGUSR1)

    previous = signal.signal(signal.SIGUSR1, interrupt)
    try:
        user = Background(when_it_starts)
        with pytest.raises(Trouble, match="interrupted") as raised:
            device.start()
        user.join()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert device.done
    # If not even the thread or process has come up, the start has failed by it.
    assert device.exception in (None, raised.value)
    census.nothing_new()


def test_stop_times_out(engine: str, devices: Devices) -> None:
    hesitant = Hesitant()
    device = devices.of(hesitant, "Proxy", zmq.PULL, zmq.PUSH)
    start = Background(device.start)
    assert hesitant.entered.wait(DEADLINE)
    with pytest.raises(TimeoutError, match="not ended"):
        device.stop(timeout=0.05)
    if devices.in_this_process:
        assert not device.done
        hesitant.gate.set()
        start.join()
        device.join()
    else:  # it is killed
        with pytest.raises(RuntimeError, match="exit code -9"):
            start.join()
    assert device.done
