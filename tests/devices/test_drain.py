"""A drain: what is queued is delivered, within the time that is given; what is cut off is told."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest
import zmq

from ..support import DEADLINE, Background, Network, wait_until
from .background import Devices
from .faulty import Hesitant
from .streams import Stream, flooded, full, monitor_blocked, parked, stream_for

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

PATIENT = 1.0
"""Seconds of quiet: a drain knows what has reached its sockets, which may pause on a busy machine."""


@pytest.mark.parametrize("transport", ["inproc", "tcp"])
def test_drain_delivers_all_that_is_queued(
    engine: str, net: Network, devices: Devices, transport: str
) -> None:
    """Also with sockets that are not to linger, and if the receiver comes late."""
    stream = Stream(net, devices)
    stream.device.setsockopt_out(zmq.LINGER, 0)
    if transport == "inproc" and devices.in_this_process:
        stream.device._in_binds[:] = ["inproc://in"]
        stream.device._out_binds[:] = ["inproc://out"]
    stream.device.start()
    stream.device.pause()
    source = stream.source(sndhwm=0)
    for number in range(5000):
        source.send(b"%d" % number)
    sink = stream.sink()
    stop = Background(stream.device.stop, drain=DEADLINE, quiet=PATIENT)
    assert [int(sink.recv()) for _ in range(5000)] == list(range(5000))
    stop.join()
    stream.has_ended()
    assert stream.there.messages_sent == 5000


def test_a_drain_gives_peers_its_time(engine: str, net: Network, devices: Devices) -> None:
    """What its sockets have taken reaches them, though they are late and it is not to linger."""
    stream = Stream(net, devices)
    stream.device.setsockopt_out(zmq.LINGER, 0)
    stream.device.start()
    stream.device.pause()
    source, sink = stream.source(), stream.sink(rcvhwm=1, rcvbuf=4096)
    for _ in range(500):
        source.send(bytes(20_000))
    stop = Background(stream.device.stop, drain=DEADLINE, quiet=PATIENT)
    wait_until(lambda: stream.there.messages_sent == 500)
    if devices.in_this_process:  # the child lives until all is sent
        stop.join()
    for _ in range(500):
        assert sink.recv() == bytes(20_000)
    stop.join()
    stream.has_ended()


@pytest.mark.parametrize("state", [parked, full, monitor_blocked, flooded])
def test_drain_is_bounded(engine: str, net: Network, devices: Devices, state: Any) -> None:
    stream = stream_for(state, net, devices)
    with state(stream):
        began = time.monotonic()
        stream.device.stop(drain=0.3, timeout=DEADLINE)
        # A flood may pause for so long that it looks like its end.
        assert state is flooded or time.monotonic() - began >= 0.3
        stream.has_ended()


def test_a_drain_does_not_put_off_a_stop(engine: str, devices: Devices) -> None:
    """Not even one that is asked for when the device does not yet relay."""
    hesitant = Hesitant()
    device = devices.of(hesitant, "Proxy", zmq.PULL, zmq.PUSH)
    with pytest.raises(TypeError, match="drain must be a number of seconds"):
        device.stop(drain="1")
    start = Background(device.start)
    assert hesitant.entered.wait(DEADLINE)
    with pytest.raises(TypeError, match="drain must be a number of seconds"):
        device.stop(drain="1")
    device._run.stop(None)
    stop = Background(device.stop, drain=1000)
    hesitant.gate.set()
    start.join()
    stop.join()
    assert device.done


def test_drain_of_nothing_is_short(engine: str, net: Network, devices: Devices) -> None:
    stream = Stream(net, devices)
    stream.device.start()
    stream.device.stop(drain=1000, timeout=DEADLINE)
    stream.has_ended()


@pytest.mark.parametrize("drain", [float("inf"), 1e30, 1e7])
def test_a_drain_without_end(engine: str, net: Network, devices: Devices, drain: float) -> None:
    stream = Stream(net, devices)
    stream.device.setsockopt_out(zmq.LINGER, 0)
    stream.device.start()
    source, sink = stream.source(), stream.sink()
    source.send(b"x")
    stream.device.stop(drain=drain, timeout=DEADLINE, quiet=PATIENT)
    assert sink.recv() == b"x"
    assert stream.device.exception is None
    assert stream.device.statistics().frontend_to_backend.messages_sent == 1
    stream.has_ended()


# What a stop leaves in the sockets


def test_what_is_sent_arrives_after_stop(engine: str, net: Network, devices: Devices) -> None:
    """A socket's default is to linger."""
    stream = Stream(net, devices)
    stream.device.start()
    sink, source = stream.sink(rcvhwm=1), stream.source()
    for _ in range(500):
        source.send(bytes(1000))
    wait_until(lambda: stream.there.messages_sent == 500)
    stream.device.stop()
    for _ in range(500):
        assert sink.recv() == bytes(1000)


def slow_peer(net: Network, device: Any, reads: bool) -> None:
    """Have the device send more than the network holds to a peer that reads it, or does not."""
    device.setsockopt_out(zmq.SNDBUF, 4096)
    device.bind_in("tcp://127.0.0.1:*")
    device.bind_out("tcp://127.0.0.1:*")
    device.start()
    source = net.socket(zmq.PUSH)
    sink = net.socket(zmq.PULL, rcvhwm=1, rcvbuf=4096)
    source.connect(device.endpoints["in"][0])
    sink.connect(device.endpoints["out"][0])
    for _ in range(50):
        source.send(bytes(100_000))
    wait_until(lambda: device.statistics().frontend_to_backend.messages_sent == 50)
    if reads:
        for _ in range(50):
            sink.recv()


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("linger", [None, 600])
def test_it_is_told_when_what_was_sent_is_cut_off(
    engine: str, net: Network, caplog: pytest.LogCaptureFixture, reads: bool, linger: int | None
) -> None:
    processes = Devices("Process")
    device = processes("Proxy", zmq.PULL, zmq.PUSH, name="depot")
    if linger is not None:
        device.setsockopt_out(zmq.LINGER, linger)
    with contextlib.closing(processes):
        slow_peer(net, device, reads)
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    if reads:
        assert not told
    else:
        (message,) = told
        assert message.startswith("depot may have lost messages")
        assert "drain" in message
        assert "ZMQ_LINGER" in message


def test_a_context_that_lives_on_cuts_nothing_off(
    engine: str, net: Network, threads: Devices, caplog: pytest.LogCaptureFixture
) -> None:
    device = threads("Proxy", zmq.PULL, zmq.PUSH)
    device.context_factory = lambda: net.context
    slow_peer(net, device, False)
    device.stop()
    assert not caplog.records
    # The peer, which has read nothing yet, is net's last socket.
    for _ in range(50):
        net._sockets[-1].recv()
