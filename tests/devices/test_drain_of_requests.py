"""A drain of a device that passes requests and replies; what a stop reports, of any device."""

from __future__ import annotations

import contextlib
import logging
import math
from typing import Any

import pytest
import zmq

import zdev

from ..support import DEADLINE, Background, Network, wait_until
from .background import Devices, running_device
from .streams import ANY, Stream

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

LONGER = 200
"""Milliseconds, more than the quiet time."""


class Broker:
    """A queue of ROUTER and DEALER, its clients, and a worker that may come late."""

    def __init__(self, net: Network, device: Any, clients: int = 3) -> None:
        self.net, self.device = net, device
        self.device.bind_in(ANY)
        self.device.bind_out(ANY)
        self.clients = [net.socket(zmq.REQ) for _ in range(clients)]
        self.worker = net.socket(zmq.DEALER)
        self.hand: list[list[bytes]] = []

    def ask(self) -> None:
        for client in self.clients:
            client.connect(self.device.endpoints["in"][0])
            client.send(b"request")

    def take(self, count: int) -> None:
        """Let the worker have so many requests in hand."""
        self.worker.connect(self.device.endpoints["out"][0])
        self.hand = [self.worker.recv_multipart() for _ in range(count)]

    def reply(self) -> None:
        for request in self.hand:
            self.worker.send_multipart(request)
        for client in self.clients:
            assert client.recv() == b"request"


def queue(devices: Devices, **options: Any) -> Any:
    return devices("Proxy", zmq.ROUTER, zmq.DEALER, zmq.PUB, **options)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


@pytest.mark.parametrize("kind", ["Device", "Proxy", "ProxySteerable", "MonitoredQueue"])
def test_a_drain_waits_for_the_replies(
    engine: str, net: Network, devices: Devices, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    first = (zmq.QUEUE,) if kind == "Device" else ()
    broker = Broker(net, devices(kind, *first, zmq.ROUTER, zmq.DEALER))
    broker.device.start()
    broker.ask()
    broker.take(3)
    assert broker.device.last_stop is None
    stop = Background(broker.device.stop, drain=DEADLINE)
    assert not broker.worker.poll(LONGER)
    assert broker.device.statistics().unanswered == 3
    broker.reply()
    report = stop.join()
    assert report == broker.device.last_stop == zdev.StopReport(True, 0, 0, False)
    assert not warnings(caplog)


@pytest.mark.parametrize("again", [None, 0.05])
def test_a_drain_that_is_cut_off_tells_what_went_unanswered(
    engine: str,
    net: Network,
    devices: Devices,
    caplog: pytest.LogCaptureFixture,
    again: float | None,
) -> None:
    """By its time or by another stop; both of those who wait are told."""
    broker = Broker(net, queue(devices, name="depot"))
    broker.device.start()
    broker.ask()
    broker.take(3)
    broker.worker.send_multipart(broker.hand.pop())
    wait_until(lambda: broker.device.statistics().unanswered == 2)
    stop = Background(broker.device.stop, drain=DEADLINE)
    assert not broker.worker.poll(LONGER)
    report = broker.device.stop(drain=again)
    assert stop.join() == report == broker.device.last_stop == (False, 2, 0, False)
    assert warnings(caplog) == ["depot was cut off as it drained, and leaves 2 unanswered requests"]
    assert broker.device.statistics().unanswered == 2
    broker.device.join()


def test_a_worker_may_be_given_to_a_device_that_drains(
    engine: str, net: Network, devices: Devices
) -> None:
    """One request is parked and two are in the socket; all go to a worker that is called in."""
    broker = Broker(net, queue(devices))
    broker.device.start()
    broker.ask()
    wait_until(lambda: broker.device.statistics().frontend_to_backend.parked)
    stop = Background(broker.device.stop, drain=DEADLINE)
    assert not broker.clients[0].poll(LONGER)
    helper = net.bound(zmq.DEALER, "tcp")
    broker.device.connect_out(helper.getsockopt_string(zmq.LAST_ENDPOINT))
    for _ in broker.clients:
        helper.send_multipart(helper.recv_multipart())
    for client in broker.clients:
        assert client.recv() == b"request"
    assert stop.join() == (True, 0, 0, False)


def test_peers_of_a_monitored_queue_of_routers_get_their_replies(
    engine: str, net: Network, devices: Devices
) -> None:
    device = devices("MonitoredQueue", zmq.ROUTER, zmq.ROUTER)
    device.bind_in(ANY)
    device.bind_out(ANY)
    device.start()
    one = net.socket(zmq.DEALER, routing_id=b"one")
    other = net.socket(zmq.DEALER, routing_id=b"other")
    one.connect(device.endpoints["in"][0])
    other.connect(device.endpoints["out"][0])
    asked = 0
    while not other.poll(10):  # what is sent to a peer that the socket does not know yet is lost
        one.send_multipart([b"other", b"%d" % asked])
        asked += 1
    lost = int(other.recv_multipart()[1])
    for number in range(lost + 1, asked):
        assert other.recv_multipart() == [b"one", b"%d" % number]
    for number in range(asked - 1):
        other.send_multipart([b"one", b"%d" % number])
    stop = Background(device.stop, drain=DEADLINE)
    assert not other.poll(LONGER)
    other.send_multipart([b"one", b"last"])
    assert stop.join() == (True, 0, 0, False)
    replies = [one.recv_multipart() for _ in range(asked)]
    assert replies == [
        *([b"other", b"%d" % number] for number in range(asked - 1)),
        [b"other", b"last"],
    ]


def test_a_device_of_the_foreground_drains_as_others_do(
    engine: str, net: Network, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Broker(net, zdev.Proxy(zmq.ROUTER, zmq.DEALER, name="desk"))
    with running_device(broker.device):
        wait_until(lambda: broker.device.endpoints.get("out"))  # the last to be bound
        broker.ask()
        broker.take(3)
        assert broker.device.stop(drain=0.05) == (False, 3, 0, False)
        assert broker.device.last_stop == (False, 3, 0, False)
    assert warnings(caplog) == ["desk was cut off as it drained, and leaves 3 unanswered requests"]


def test_a_subclass_that_calls_a_function_drains_too(
    engine: str, net: Network, devices: Devices, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told of once, though the function would tell of what it has parked."""

    def derive(base: Any) -> Any:
        class Own(base):  # type: ignore[misc]
            def run_device(self) -> None:
                zdev.proxy(*self._setup_sockets())

        return Own

    device = devices.of(derive, "Device", zmq.QUEUE, zmq.ROUTER, zmq.DEALER, name="depot")
    broker = Broker(net, device)
    device.start()
    broker.ask()
    wait_until(lambda: device.statistics().frontend_to_backend.parked)
    assert device.stop(drain=0.05) == device.last_stop == (False, 0, 1, True)
    assert warnings(caplog) == [
        "depot was cut off as it drained, and leaves 1 parked message and more in its sources"
    ]


# Any stop


def test_a_drain_of_a_stream_tells_what_it_leaves(
    engine: str, net: Network, devices: Devices, caplog: pytest.LogCaptureFixture
) -> None:
    stream = Stream(net, devices, name="depot")
    stream.device.start()
    source = stream.source()
    for _ in range(50):
        source.send(b"x")
    wait_until(lambda: stream.there.parked)
    assert stream.device.stop(drain=0.2) == stream.device.last_stop == (False, 0, 1, True)
    assert warnings(caplog) == [
        "depot was cut off as it drained, and leaves 1 parked message and more in its sources"
    ]


def test_a_stop_without_a_drain_reports_but_warns_of_nothing(
    engine: str, net: Network, devices: Devices, caplog: pytest.LogCaptureFixture
) -> None:
    stream = Stream(net, devices)
    assert stream.device.stop() is None
    stream.device.start()
    stream.source().send(b"x")
    wait_until(lambda: stream.there.parked)
    report = stream.device.stop()
    assert report == stream.device.last_stop == (False, 0, 1, None)
    assert stream.device.stop() == report
    stream.device.start()
    assert stream.device.last_stop is None
    assert not warnings(caplog)


def test_the_end_of_the_context_cuts_a_drain_off(
    engine: str, net: Network, threads: Devices, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Broker(net, queue(threads, name="depot"))
    context = zmq.Context()
    broker.device.context_factory = lambda: context
    broker.device.start()
    broker.ask()
    broker.take(3)
    stop = Background(broker.device.stop, drain=DEADLINE)
    assert not broker.worker.poll(LONGER)
    context.term()
    assert stop.join() == (False, 3, 0, None)
    assert warnings(caplog) == ["depot was cut off as it drained, and leaves 3 unanswered requests"]


def test_terminate_cuts_a_drain_off(
    engine: str, net: Network, devices: Devices, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Broker(net, devices("ProxySteerable", zmq.ROUTER, zmq.DEALER, name="depot"))
    broker.device.bind_ctrl(ANY)
    broker.device.start()
    operator = net.socket(zmq.PAIR)
    operator.connect(broker.device.endpoints["ctrl"][0])
    broker.ask()
    broker.take(3)
    stop = Background(broker.device.stop, drain=DEADLINE)
    assert not broker.worker.poll(LONGER)
    operator.send(b"TERMINATE")
    assert stop.join() == (False, 3, 0, None)
    assert warnings(caplog) == ["depot was cut off as it drained, and leaves 3 unanswered requests"]


def test_how_long_it_must_be_quiet_can_be_given(
    engine: str, net: Network, devices: Devices
) -> None:
    stream = Stream(net, devices)
    for wrong in ("1", math.nan):
        with pytest.raises((TypeError, ValueError), match="quiet must be a number of seconds"):
            stream.device.stop(drain=1, quiet=wrong)
    stream.device.start()
    source, sink = stream.source(), stream.sink()
    stop = Background(stream.device.stop, drain=DEADLINE, quiet=math.inf)
    assert not sink.poll(LONGER)
    source.send(b"x")
    assert sink.recv() == b"x"
    with contextlib.closing(source):
        assert stream.device.stop(drain=DEADLINE, quiet=0) == (True, 0, 0, False)
    stop.join()
