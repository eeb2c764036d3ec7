"""A relay between a PUSH and a PULL."""

from __future__ import annotations

from typing import Any

import zmq

import zdev

from ..support import Network, wait_until

NOTHING = (0,) * 10  # the counts of a direction at the start


class Streamer:
    """PULL to PUSH, with a peer for each: the smallest device."""

    def __init__(self, net: Network, burst: int = 64, **options: Any) -> None:
        self.net = net
        self.frontend, self.backend = net.bound(zmq.PULL), net.bound(zmq.PUSH, **options)
        self.source, self.sink = net.peer(self.frontend, zmq.PUSH), net.socket(zmq.PULL, **options)
        self.connect_sink()
        self.relay = zdev.Relay(self.frontend, self.backend, burst=burst)

    def connect_sink(self) -> None:
        self.sink.connect(self.backend.getsockopt_string(zmq.LAST_ENDPOINT))

    def disconnect_sink(self) -> None:
        """Leave the device without a destination."""
        self.sink.disconnect(self.backend.getsockopt_string(zmq.LAST_ENDPOINT))
        wait_until(lambda: not self.backend.poll(0, zmq.POLLOUT))

    def check_it_relays(self) -> None:
        self.source.send(b"check")
        assert self.sink.recv() == b"check"

    @property
    def there(self) -> zdev.DirectionStatistics:
        return self.relay.statistics().frontend_to_backend
