"""The GIL: while a relay runs in C, other Python threads run too; while it waits, always.

All is told by ratios of what a thread that counts gets done, best of several windows, since other
programs may have the processors meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import zmq

import zdev

from ..support import Background, Network, running, wait_until

pytestmark = pytest.mark.alone

WINDOW = 0.05
WINDOWS = 20


class Counter:
    """A Python thread that counts as fast as it can."""

    def __init__(self) -> None:
        self.count = 0
        self._end = False
        self._thread = Background(self._run)

    def _run(self) -> None:
        while not self._end:
            self.count += 1

    def window(self) -> int:
        """Return how far it gets in a while."""
        before = self.count
        time.sleep(WINDOW)
        return self.count - before

    def end(self) -> None:
        self._end = True
        self._thread.join()


@pytest.fixture
def counter() -> Iterator[Counter]:
    counter = Counter()
    wait_until(lambda: counter.count > 100_000)  # PyPy has compiled it
    yield counter
    counter.end()


def _share(counter: Counter, relay: zdev.Relay, enough: float) -> float:
    """Return which part of its own rate the counter has beside a relay, at best."""
    best = 0.0
    for _ in range(WINDOWS):
        alone = counter.window()
        with running(relay) as background:
            thread = background.thread.ident
            wait_until(lambda thread=thread: relay.call(threading.get_ident) == thread)
            beside = counter.window()
        best = max(best, beside / max(alone, 1))
        if best >= enough:
            break
    return best


def _line(net: Network) -> tuple[zdev.Relay, zmq.Socket[bytes], zmq.Socket[bytes]]:
    frontend, backend = net.bound(zmq.PULL), net.bound(zmq.PUSH, sndhwm=1)
    source = net.peer(frontend, zmq.PUSH)
    sink = net.peer(backend, zmq.PULL, rcvhwm=1)
    return zdev.Relay(frontend, backend), source, sink


def _ring(net: Network) -> zdev.Relay:
    """Make a relay that is busy for ever: each end is the other's peer."""
    frontend = net.bound(zmq.DEALER)
    backend = net.peer(frontend, zmq.DEALER)
    for number in range(100):
        frontend.send_multipart([b"%d" % number, b"there"])
        backend.send_multipart([b"%d" % number, b"back"])
    return zdev.Relay(frontend, backend)


def test_an_idle_relay_leaves_others_their_full_rate(
    engine: str, net: Network, counter: Counter
) -> None:
    relay, _source, _sink = _line(net)
    assert _share(counter, relay, 0.8) >= 0.8


def test_a_parked_relay_leaves_others_their_full_rate(
    engine: str, net: Network, counter: Counter
) -> None:
    relay, source, _sink = _line(net)
    for number in range(10):
        source.send(b"%d" % number)
    assert _share(counter, relay, 0.8) >= 0.8
    assert relay.statistics().frontend_to_backend.parked


def test_a_paused_relay_leaves_others_their_full_rate(
    engine: str, net: Network, counter: Counter
) -> None:
    relay = _ring(net)
    relay.pause()
    assert _share(counter, relay, 0.8) >= 0.8


def test_a_busy_relay_runs_beside_python(engine: str, net: Network, counter: Counter) -> None:
    relay = _ring(net)
    # In C, less than all, since the two may share a processor; with the GIL kept it would be
    # nothing. Python's loops take turns with other threads, and PyPy is slow to.
    enough = 0.3 if engine == "cffi" else 0.001
    assert _share(counter, relay, enough) >= enough
    with running(relay):
        wait_until(lambda: relay.statistics().frontend_to_backend.messages_sent > 100)
