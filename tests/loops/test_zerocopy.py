"""Messages that pyzmq sent without copying, and wants back from whoever holds them last."""

from __future__ import annotations

import gc
import os
import subprocess
import sys

import pytest
import zmq

import zdev

from ..support import Network, running, wait_until

# More than fit into the queue of the thread of pyzmq that takes them back. It needs the GIL to do
# so, and whoever gives one back waits for room: holding the GIL there stops the process.
SCRIPT = """
import os, sys
import zmq, zdev

context = zmq.Context()
frontend, backend = context.socket(zmq.PULL), context.socket(zmq.PUB)
source = context.socket(zmq.PUSH)
for socket in (frontend, source):
    socket.set_hwm(0)
frontend.bind("inproc://in")
source.connect("inproc://in")
for _ in range(6000):
    source.send(zmq.Frame(b"x" * 100, copy=False), copy=False)
# As one message, all are received before the first is given back.
source.send_multipart([zmq.Frame(b"x" * 100, copy=False) for _ in range(6000)], copy=False)
relay = zdev.Relay(frontend, backend)
while relay.step():
    pass
assert relay.statistics().frontend_to_backend.messages_sent == 6001
context.destroy(linger=0)
if sys.implementation.name == "pypy":
    os._exit(0)  # at its exit, pyzmq waits for that thread, in 1 of 200 runs for ever
"""


def test_zero_copy_messages_are_given_back(engine: str) -> None:
    environment = {**os.environ, "ZDEV_ENGINE": engine}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("frames", [1, 2, 40])
def test_a_copy_that_is_dropped_is_given_back(
    engine: str, zero_copy: None, net: Network, frames: int
) -> None:
    """At once: not when the next message comes, or when the relay is gone."""
    frontend, backend = net.bound(zmq.PULL), net.bound(zmq.PUSH)
    source, sink = net.peer(frontend, zmq.PUSH), net.peer(backend, zmq.PULL)
    relay = zdev.Relay(frontend, backend, net.socket(zmq.PUSH), capture_policy="drop")
    message = [bytes(100_000)] * frames
    with running(relay):
        tracker = source.send_multipart(message, copy=False, track=True)
        assert sink.recv_multipart() == message
        assert wait_until(lambda: relay.statistics().capture.dropped) == 1
        wait_until(lambda: gc.collect() or tracker.done)


@pytest.mark.parametrize("frames", [1, 2, 40])
def test_a_message_that_goes_nowhere_is_given_back(
    engine: str, zero_copy: None, net: Network, frames: int
) -> None:
    frontend, backend = net.bound(zmq.PULL), net.bound(zmq.ROUTER, router_mandatory=1)
    source = net.peer(frontend, zmq.PUSH)
    relay = zdev.Relay(frontend, backend)
    with running(relay):
        tracker = source.send_multipart([bytes(100_000)] * frames, copy=False, track=True)
        assert wait_until(lambda: relay.statistics().frontend_to_backend.unroutable) == 1
        wait_until(lambda: gc.collect() or tracker.done)
