"""The interpreter's exit with devices that run."""

from __future__ import annotations

import time

import pytest

from ..support import PROMPT, python, wait_until
from .test_processes import lives

DEVICES = """
import multiprocessing, os, sys, threading, warnings
import zmq, zdev

warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)

def make(launcher, daemon, **options):
    device = getattr(zdev, launcher + "MonitoredQueue")(zmq.PULL, zmq.PUSH)
    for role in ("in", "out", "mon"):
        getattr(device, "bind_" + role)("tcp://127.0.0.1:*")
    device.daemon = daemon
    for name, value in options.items():
        setattr(device, name, value)
    device.start()
    return device

kept = []

def connect(device, role, kind):
    kept.append(zmq.Context.instance().socket(kind))
    kept[-1].connect(device.endpoints[role][0])
    return kept[-1]

def park(device):
    source = connect(device, "in", zmq.PUSH)
    for _ in range(100):
        source.send(bytes(1000))
    while not device.statistics().frontend_to_backend.parked:
        pass

def flow(device):
    source, sink = connect(device, "in", zmq.PUSH), connect(device, "out", zmq.PULL)
    def send():
        while True:
            source.send(b"x")
    def receive():
        while True:
            sink.recv()
    for function in (send, receive):
        threading.Thread(target=function, daemon=True).start()
    while device.statistics().frontend_to_backend.messages_sent < 100:
        pass

def in_every_state(launcher, daemon, **options):
    devices = [make(launcher, daemon, **options) for _ in range(4)]
    park(devices[1])
    devices[2].pause()
    connect(devices[2], "in", zmq.PUSH).send(b"x")
    flow(devices[3])
    return devices

def say(devices):
    print(*[d.launcher.pid for d in devices if "Process" in type(d).__name__], flush=True)
"""

WAYS = {
    "": (0, ""),
    "sys.exit(3)": (3, ""),
    "raise LookupError('lost')": (1, "LookupError: lost"),
}


def run(script: str, code: int = 0, error: str = "") -> float:
    """Run a script; return how long its exit took."""
    done = python(f"{DEVICES}\n{script}")
    ended = time.time()
    assert done.returncode == code, done.stderr
    if error:
        last = done.stderr.splitlines()[-1]
        assert last == error
        assert done.stderr.count("Traceback") == 1
    else:
        assert done.stderr == ""
    pids, began = done.stdout.splitlines()
    wait_until(lambda: not any(lives(int(pid)) for pid in pids.split()))
    return ended - float(began)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("daemon", [True, False])
@pytest.mark.parametrize("launcher", ["Thread", "Process"])
def test_exit(launcher: str, daemon: bool, way: str) -> None:
    """No hang, no crash, no stray output, no orphan; and the program's own exit code."""
    code, error = WAYS[way]
    script = f"""
import time
devices = in_every_state({launcher!r}, {daemon})
say(devices)
print(time.time(), flush=True)
{way}
"""
    assert run(script, code, error) < PROMPT


@pytest.mark.parametrize("daemon", [True, False])
def test_contexts_of_their_own(daemon: bool) -> None:
    """With unsent messages too, for which their termination would wait."""
    script = f"""
import time
devices = in_every_state("Thread", {daemon}, context_factory=zmq.Context)
say(devices)
print(time.time(), flush=True)
"""
    assert run(script) < PROMPT


def test_devices_serve_the_threads_that_the_exit_waits_for() -> None:
    """Whether they are daemons or not."""
    script = """
import time
devices = [make(launcher, daemon) for launcher in ("Thread", "Process") for daemon in (True, False)]
say(devices)
gone = threading.Event()

# To join the main thread would be a race with Python's own look at whether that has ended.
threading._register_atexit(gone.set)

def work():
    gone.wait()
    for device in devices:
        source, sink = connect(device, "in", zmq.PUSH), connect(device, "out", zmq.PULL)
        for number in range(100):
            source.send(b"%d" % number)
            assert sink.recv() == b"%d" % number
        source.close()
        sink.close()
    print(time.time(), flush=True)

threading.Thread(target=work).start()
"""
    assert run(script) < PROMPT


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("daemon", [True, False])
def test_exit_of_a_process_of_multiprocessing(daemon: bool, method: str, tmp_path: object) -> None:
    """It does not run the exit handlers of the interpreter."""
    script = f"""
import time
sys.path.insert(0, {str(tmp_path)!r})
with open({str(tmp_path)!r} + "/inner.py", "w") as module:
    module.write('''
import os, sys, warnings
import zmq, zdev

def inner(daemon):
    warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)
    devices = [zdev.ThreadProxy(zmq.PULL, zmq.PUSH), zdev.ProcessProxy(zmq.PULL, zmq.PUSH)]
    for device in devices:
        device.daemon = daemon
        device.start()
    print(devices[1].launcher.pid, flush=True)
    sys.exit(5)
''')
import inner
process = multiprocessing.get_context({method!r}).Process(target=inner.inner, args=({daemon},))
process.start()
print_time = time.time
process.join()
print(time.time(), flush=True)
sys.exit(process.exitcode)
"""
    assert run(script, 5) < PROMPT


@pytest.mark.parametrize("launcher", ["Thread", "Process"])
def test_os_exit(launcher: str) -> None:
    script = f"""
import time
devices = in_every_state({launcher!r}, True)
say(devices)
print(time.time(), flush=True)
os._exit(4)
"""
    assert run(script, 4) < PROMPT


@pytest.mark.parametrize("launcher", ["Thread", "Process"])
def test_errors_are_shown_once(launcher: str) -> None:
    """By the last resort of `logging`, if they are not raised by start()."""
    script = f"""
import time
class Failing(zdev.{launcher}Device):
    def run_device(self):
        self._setup_sockets()
        fail.wait()
        raise LookupError("lost")

fail = multiprocessing.get_context("fork").Event()
device = Failing(zmq.STREAMER, zmq.PULL, zmq.PUSH, name="mill")
say([])
device.start()
fail.set()
try:
    device.join()
except LookupError:
    print(time.time())
device = zdev.{launcher}Device(zmq.STREAMER, zmq.PULL, zmq.PUSH)
device.in_type = zmq.PUSH
try:
    device.start()
except ValueError:
    pass
"""
    done = python(f"{DEVICES}\n{script}")
    assert done.stderr == "mill failed: LookupError: lost\n"
    assert done.returncode == 0
