"""What an ended device leaves: nothing, however often it ran, and nobody holds it."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import threading
import weakref
from typing import Any, Callable

import pytest
import zmq

import zdev

from ..support import Network, wait_until
from .background import LAUNCHERS, Devices, running_device
from .census import Census, descriptors
from .faulty import FORK, bad_prefix
from .streams import ANY, Stream

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


def resident() -> int:
    """Return the size of what this process has in memory, in bytes."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# Bytes that an interpreter may still come to need as it warms up; PyPy compiles then.
WARMTH = 16_000_000 if sys.implementation.name == "pypy" else 500_000


def tasks() -> int:
    """Count the threads of this process, libzmq's too."""
    return len(os.listdir("/proc/self/task"))


CLASSES = [
    launcher + ("Device" if launcher and kind == "Device" else kind)
    for launcher in ("", *LAUNCHERS)
    for kind in ("Device", "Proxy", "ProxySteerable", "MonitoredQueue")
]


def started_and_stopped(device: Any, times: int) -> None:
    for _ in range(times):
        with running_device(device):
            pass
        assert device.done


def leave_nothing(name: str, context: Callable[[], zmq.Context[Any]], times: int) -> None:
    """Start and stop a device so many times, and expect nothing to be left of that."""
    first = (zmq.STREAMER,) if name.endswith("Device") else ()
    device = getattr(zdev, name)(*first, zmq.PULL, zmq.PUSH)
    if name.startswith("Process"):
        device._launch_class = FORK.Process
    else:
        device.context_factory = context
    for role in device._roles:
        getattr(device, f"bind_{role}")(ANY)
    started_and_stopped(device, max(times // 10, 5))
    threads, files, size = tasks(), descriptors(), resident()
    started_and_stopped(device, times)
    wait_until(lambda: tasks() <= threads)
    wait_until(lambda: descriptors() <= files)
    assert resident() - size < WARMTH + 5_000 * times
    assert not multiprocessing.active_children()


@pytest.mark.alone
@pytest.mark.parametrize("name", CLASSES)
def test_starts_and_stops_of_each_class_leave_nothing(net: Network, name: str) -> None:
    """Processes, whose starts take their time, fewer times than others."""
    Census(net)
    leave_nothing(name, lambda: net.context, 15 if name.startswith("Process") else 200)


@pytest.mark.alone
def test_starts_and_stops_leave_nothing(engine: str, net: Network) -> None:
    """On each engine, with contexts of others and of its own."""
    Census(net)
    leave_nothing("ThreadProxySteerable", lambda: net.context, 100)
    leave_nothing("ThreadProxySteerable", zmq.Context, 50)


def test_a_device_that_runs_outlives_its_last_reference(
    engine: str, net: Network, devices: Devices
) -> None:
    """As a thread does; and when it ends by itself, it leaves nothing."""
    census = Census(net)
    context = zmq.Context()
    stream = Stream(net, Devices(devices.launcher), name="left alone")
    if devices.in_this_process:
        stream.device.context_factory = lambda: context
    stream.device.start()
    source, sink = stream.source(), stream.sink()
    gone = weakref.ref(stream.device)
    process = stream.device.launcher
    del stream
    for number in range(10):
        gc.collect()
        source.send(b"%d" % number)
        assert sink.recv() == b"%d" % number
    source.close()
    sink.close()
    if not devices.in_this_process:
        os.kill(process.pid, signal.SIGTERM)
    context.term()
    del process

    def is_gone() -> bool:
        gc.collect()
        return gone() is None

    wait_until(is_gone)
    wait_until(lambda: set(threading.enumerate()) <= census.threads)
    census.nothing_new()


def test_an_ended_device_is_collected_with_all_it_had(
    engine: str, net: Network, devices: Devices
) -> None:
    stream = Stream(net, devices)
    with stream.device:
        pass
    census = Census(net)
    for spoilt in (False, True):
        stream = Stream(net, Devices(devices.launcher), "MonitoredQueue")
        if spoilt:
            bad_prefix(stream.device)
        with contextlib.suppress(TypeError), stream.device:
            pass
        gone = weakref.ref(stream.device)
        census.nothing_new()
        del stream
        for _ in range(10):  # PyPy takes its time
            gc.collect()
        assert gone() is None
        census.nothing_new()
