"""A join: it waits for the end, no longer than it is told, and raises what ended the device."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from typing import Any, Callable

import pytest
import zmq

from zdev._times import PATIENCE

from ..support import DEADLINE, Background, Network, wait_until
from .background import Devices
from .faulty import Failing, Trouble, trouble
from .streams import Stream

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


def test_join_before_start(devices: Devices) -> None:
    device = devices("Proxy", zmq.PULL, zmq.PUSH)
    with pytest.raises(RuntimeError, match="not started"):
        device.join()
    device.stop()
    assert not device.done


def test_join_waits_no_longer_than_told(engine: str, net: Network, devices: Devices) -> None:
    stream = Stream(net, devices)
    stream.device.start()
    stream.device.join(timeout=0.01)
    assert not stream.device.done
    stream.device.stop()
    stream.device.join(timeout=0)


def test_many_wait_for_the_end_at_once(engine: str, devices: Devices) -> None:
    """And each finds that nothing is left; in time, in a signal handler too."""
    device = devices("Proxy", zmq.PULL, zmq.PUSH)
    handled = 0

    def wait_by(verb: Callable[..., None], **options: Any) -> None:
        verb(**options)
        assert device.done
        assert not device._run.worker.is_alive()

    def handle(*_: object) -> None:
        nonlocal handled
        device.stop(timeout=DEADLINE)
        assert device.done
        handled += 1

    def interrupt() -> None:
        """Interrupt the wait of the main thread, which starts no threads meanwhile."""
        for number in range(handled, handled + 3):
            os.kill(os.getpid(), signal.SIGUSR1)
            wait_until(lambda number=number: handled > number)  # type: ignore[misc]

    previous = signal.signal(signal.SIGUSR1, handle)
    try:
        for number in range(20 if devices.in_this_process else 5):
            device.start()
            begin = threading.Event()
            interrupter = Background(lambda begin=begin: begin.wait(DEADLINE) and interrupt())
            waits = [Background(wait_by, device.join, timeout=DEADLINE) for _ in range(3)]
            waits += [Background(wait_by, device.stop, timeout=DEADLINE) for _ in range(number % 4)]
            begin.set()
            try:
                wait_by(device.join)
            finally:
                # Not join(), which a signal that comes just before does not wake.
                wait_until(lambda: not interrupter.alive)  # noqa: B023
            for user in (interrupter, *waits):
                user.join()
    finally:
        signal.signal(signal.SIGUSR1, previous)


@pytest.mark.alone
@pytest.mark.parametrize("verb", ["join", "stop"])
def test_a_wait_for_the_end_is_not_longer_for_another(threads: Devices, verb: str) -> None:
    """Who waits for the thread, once the device has ended, does not make others wait longer."""
    device = threads("Proxy", zmq.PULL, zmq.PUSH)
    lingers, gate = threading.Event(), threading.Event()

    class Lingering(threading.Thread):
        def run(self) -> None:
            super().run()
            lingers.set()
            gate.wait(DEADLINE)

    device._launch_class = Lingering
    device.start()
    first = Background(device.stop)
    assert lingers.wait(DEADLINE)
    began = time.monotonic()
    getattr(device, verb)(timeout=0.01)
    assert time.monotonic() - began < PATIENCE / 2
    assert device.done
    gate.set()
    first.join()


@pytest.mark.parametrize("error", [Trouble("why", 42), zmq.ZMQError(errno.EFAULT), SystemExit(3)])
def test_join_raises_what_ended_the_device(
    engine: str, net: Network, devices: Devices, error: BaseException
) -> None:
    failing = Failing(error)
    device = devices.of(failing, "Device", zmq.STREAMER, zmq.PULL, zmq.PUSH)
    device.start()
    failing.fail.set()
    for _ in range(2):
        with pytest.raises(type(error)) as raised:
            device.join()
        assert raised.value is device.exception
        assert str(raised.value) == str(error)
    assert device.done
    device.stop()  # of an ended device: nothing


def test_join_raises_what_ended_the_run_it_waits_for(threads: Devices) -> None:
    """Though the device runs again, which here it starts by itself."""
    fail = threading.Event()

    def restarting(base: Any) -> Any:
        class Device(base):  # type: ignore[misc]
            def run_device(self) -> None:
                if fail.is_set():
                    return super().run_device()
                self._setup_sockets()
                assert fail.wait(DEADLINE)
                raise trouble()

            def run(self) -> None:
                try:
                    super().run()
                except Trouble:
                    self.start()

        return Device

    device = threads.of(restarting, "Proxy", zmq.PULL, zmq.PUSH)
    device.start()
    join = Background(device.join)
    wait_until(lambda: device._run.stages._waiters)
    fail.set()
    with pytest.raises(Trouble):
        join.join()
    assert device.statistics()
    assert device.exception is None
