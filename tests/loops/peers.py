"""What peers of a relay do, and what they have got."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, Callable

import zmq

import zdev

from ..support import Background, Network


def accounted(way: zdev.DirectionStatistics) -> bool:
    """Tell whether every message is somewhere."""
    lost = way.dropped + way.unroutable + way.overflowed
    return way.messages_received == way.messages_sent + lost + way.parked


@contextlib.contextmanager
def endless(step: Callable[[], object]) -> Iterator[None]:
    """Do something again and again in a thread; zmq.Again ends a step early."""
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            with contextlib.suppress(zmq.Again):
                step()

    thread = Background(run)
    try:
        yield
    finally:
        stop.set()
        thread.join()


class Exchange:
    """A ROUTER-ROUTER queue with a monitor."""

    def __init__(self, net: Network, transport: str = "inproc", **options: Any) -> None:
        self.net = net
        self.frontend = net.bound(zmq.ROUTER, transport, **options)
        self.backend = net.bound(zmq.ROUTER, transport, **options)
        self.capture = net.bound(zmq.PUSH)
        self.watcher = net.peer(self.capture, zmq.PULL)
        self.relay = zdev.Relay(
            self.frontend, self.backend, self.capture, in_prefix="in", out_prefix="out"
        )

    def client(self, name: bytes, kind: int = zmq.DEALER) -> zmq.Socket[bytes]:
        return self.net.peer(self.frontend, kind, routing_id=name)

    def worker(self, name: bytes, kind: int = zmq.DEALER) -> zmq.Socket[bytes]:
        worker = self.net.peer(self.backend, kind, routing_id=name)
        worker.send_multipart([b"nobody", b"hello"])  # so that the backend knows it
        return worker


FRAMES = 200


class Feed:
    """Sends numbered messages of many frames, one each time that it is called."""

    def __init__(self, source: zmq.Socket[bytes], *address: bytes) -> None:
        self._source = source
        self._address = address
        self._numbers = 0
        source.sndtimeo = 20

    def __call__(self) -> None:
        self._source.send_multipart([*self._address, *[b"%d" % self._numbers] * FRAMES])
        self._numbers += 1


def number_of(message: list[bytes]) -> int:
    """Check that a message is whole, and return its number."""
    assert message == message[:1] * FRAMES
    return int(message[0])


def ask(operator: zmq.Socket[bytes], command: bytes) -> list[bytes]:
    operator.send(command)
    return operator.recv_multipart()
