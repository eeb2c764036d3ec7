"""Messages that pyzmq sent without copying, and wants back from whoever holds them last."""

from __future__ import annotations

import os
import subprocess
import sys

# More than fit into the queue of the thread of pyzmq that takes them back. It needs the GIL to do
# so, and whoever gives one back waits for room: holding the GIL there stops the process.
SCRIPT = """
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
relay = zdev.Relay(frontend, backend)
while relay.step():
    pass
assert relay.statistics().frontend_to_backend.messages_sent == 6000
context.destroy(linger=0)
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
