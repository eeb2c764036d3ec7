"""A streamer with peers, and what it may be doing when something happens to it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import zmq

from ..support import Background, Network, fill, wait_until
from .background import Devices
from .census import can_bind, holders

ANY = "tcp://127.0.0.1:*"


class Stream:
    """A streamer, with a monitor if it is a proxy, and its peers."""

    def __init__(
        self, net: Network, devices: Devices, kind: str = "Device", **options: Any
    ) -> None:
        self.net = net
        first = (zmq.STREAMER,) if kind == "Device" else ()
        mon = (zmq.PUSH,) if kind != "Device" else ()
        self.device = devices(kind, *first, zmq.PULL, zmq.PUSH, *mon, **options)
        if devices.in_this_process:
            self.device.context_factory = self.context
        self.device.bind_in(ANY)
        self.device.bind_out(ANY)

    def context(self) -> zmq.Context[Any]:
        return self.net.context

    @property
    def addresses(self) -> list[str]:
        return [address for role in self.device.endpoints.values() for address in role]

    def source(self, **options: Any) -> zmq.Socket[bytes]:
        source = self.net.socket(zmq.PUSH, **options)
        source.connect(self.device.endpoints["in"][0])
        return source

    def sink(self, **options: Any) -> zmq.Socket[bytes]:
        sink = self.net.socket(zmq.PULL, **options)
        sink.connect(self.device.endpoints["out"][0])
        return sink

    @property
    def there(self) -> Any:
        return self.device.statistics().frontend_to_backend

    def has_ended(self) -> None:
        assert self.device.done
        assert self.device.exception is None
        assert not self.device.launcher.is_alive()
        self.device.join()
        for address in self.addresses:
            assert can_bind(self.net, address), holders(address)


@contextlib.contextmanager
def idle(stream: Stream) -> Iterator[None]:
    stream.device.start()
    yield


@contextlib.contextmanager
def paused(stream: Stream) -> Iterator[None]:
    stream.device.start()
    stream.device.pause()
    fill(stream.source())
    yield


@contextlib.contextmanager
def parked(stream: Stream) -> Iterator[None]:
    stream.device.start()
    fill(stream.source())
    wait_until(lambda: stream.there.parked)
    yield


@contextlib.contextmanager
def full(stream: Stream) -> Iterator[None]:
    """Have a peer that does not read, and unsent messages in a socket."""
    stream.device.setsockopt_out(zmq.SNDHWM, 10)
    stream.device.start()
    stream.sink(rcvhwm=1, rcvbuf=4096)
    source = stream.source(sndhwm=0)
    for _ in range(400):  # more than all buffers of tcp hold
        source.send(bytes(100_000))
    wait_until(lambda: stream.there.parked)
    yield


@contextlib.contextmanager
def monitor_blocked(stream: Stream) -> Iterator[None]:
    stream.device.bind_mon(ANY)
    stream.device.start()
    stream.sink()
    fill(stream.source())
    wait_until(lambda: stream.device.statistics().capture.parked)
    yield


@contextlib.contextmanager
def flooded(stream: Stream) -> Iterator[None]:
    stream.device.start()
    enough = threading.Event()
    ends = [stream.source(), stream.sink()]

    def feed() -> None:
        while not enough.is_set():
            ends[0].poll(10, zmq.POLLOUT)
            fill(ends[0])

    def drain() -> None:
        while not enough.is_set():
            while ends[1].poll(10):
                ends[1].recv()

    users = [Background(feed), Background(drain)]
    wait_until(lambda: stream.there.messages_sent > 1000)
    try:
        yield
    finally:
        enough.set()
        for user in users:
            user.join()


STATES = [idle, paused, parked, full, monitor_blocked, flooded]


def stream_for(state: Any, net: Network, devices: Devices) -> Stream:
    return Stream(net, devices, "Proxy" if state is monitor_blocked else "Device")
