"""Other Python threads go on while a relay runs."""

from __future__ import annotations

import time

import pytest
import zmq

import zdev

from .support import Background, Network, running, wait_until

# Seconds for which progress is counted.
SPAN = 0.1


def progress() -> int:
    """Count what this thread gets done in a while."""
    count = 0
    end = time.perf_counter() + SPAN
    while time.perf_counter() < end:
        count += 1
    return count


def keeps_pace(relay: zdev.Relay) -> bool:
    """Tell whether this thread keeps its pace while the relay runs; a busy machine gets retries."""
    for _ in range(8):
        alone = progress()
        with running(relay):
            relay.statistics()  # it is answered by the running relay
            if progress() > 0.6 * alone:
                return True
    return False


def test_an_idle_relay_costs_nothing(engine: str, net: Network) -> None:
    assert keeps_pace(zdev.Relay(net.bound(zmq.PULL), net.bound(zmq.PUSH)))


def test_a_parked_relay_costs_nothing(engine: str, net: Network) -> None:
    frontend = net.bound(zmq.PULL)
    net.peer(frontend, zmq.PUSH).send(b"nobody takes it")
    relay = zdev.Relay(frontend, net.bound(zmq.PUSH))
    assert keeps_pace(relay)
    assert relay.statistics().frontend_to_backend.parked == 1


@pytest.mark.skipif(zdev.engine != "cffi", reason="only the C loop drops the GIL as a whole")
def test_a_flooded_c_loop_holds_up_nobody(net: Network) -> None:
    # ROUTER with itself, fed by itself: the C loop never rests, and no Python thread feeds it.
    echo = net.bound(zmq.DEALER)
    peer = net.peer(echo, zmq.DEALER)
    for number in range(100):
        peer.send(b"%d" % number)
    there, back = zdev.Relay(echo, echo), zdev.Relay(peer, peer)
    ring = Background(back.run)
    with running(there):
        wait_until(lambda: there.statistics().frontend_to_backend.messages_sent > 10_000)
        before = there.statistics().frontend_to_backend.messages_sent
        counted = progress()
        after = there.statistics().frontend_to_backend.messages_sent
    back.stop()
    ring.join()
    # On two cores that the two loops fill, this thread gets a third of the time at worst; if a
    # loop kept the GIL, it would get nothing between two of its wake-ups.
    assert after - before > 1000
    assert counted > progress() / 20
