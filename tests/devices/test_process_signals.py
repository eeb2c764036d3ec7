"""Signals and process devices: Ctrl-C at any moment, and what the program does not heed itself."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
import zmq

from ..support import DEADLINE, Network, python
from .background import Devices
from .own_ways import of_pyzmq, own_way
from .streams import Stream

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

METHODS = ["fork", "spawn", "forkserver"]


@pytest.fixture
def devices() -> Iterator[Devices]:
    made = Devices("Process")
    yield made
    made.close()


# Ctrl-C

STORM = """
import gc, logging, multiprocessing, os, random, signal, sys, threading, time, warnings
from pathlib import Path
import zmq, zdev

def descriptors():
    return len(os.listdir("/dev/fd"))

def zombies():
    mine = Path(f"/proc/self/task/{{os.getpid()}}/children").read_text().split()
    stats = [Path(f"/proc/{{each}}/stat").read_text() for each in mine]
    return [stat for stat in stats if stat.rpartition(")")[2].split()[0] == "Z"]

def cycle(device):
    began = time.monotonic()
    device.start()
    device.pause()
    device.statistics()
    device.stop()
    return time.monotonic() - began

def unraisable(told):
    ours = str(getattr(told.object, "__module__", "")).startswith("zdev")
    if ours or told.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(told)

if __name__ == "__main__":
    warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)
    # The standard library's weak references have callbacks, out of which nothing can be raised:
    # there, an interruption is told and forgotten.
    sys.unraisablehook = unraisable
    if {on_terminal}:
        os.setsid()
        signal.signal(signal.SIGALRM, lambda *_: os.killpg(0, signal.SIGINT))
    else:
        signal.signal(signal.SIGALRM, signal.default_int_handler)
    device = zdev.ProcessProxy(zmq.PULL, zmq.PUSH)
    device._launch_class = multiprocessing.get_context({method!r}).Process
    device.bind_in("tcp://127.0.0.1:*")
    cycle(device)  # which begins what is begun once
    takes = cycle(device)
    files, threads = descriptors(), threading.active_count()
    random = random.Random({seed})
    caught, until = 0, time.monotonic() + {seconds}
    while caught < {times} and time.monotonic() < until:
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, takes))
            cycle(device)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            caught += 1
        device.stop()
        assert device.done
    assert caught > 3
    gc.collect()
    assert descriptors() <= files
    assert threading.active_count() <= threads
    assert not zombies()
    assert logging._lock.acquire(timeout=0)
    assert not multiprocessing.active_children()
    print("done")
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for zombies in /proc")
@pytest.mark.parametrize(
    ("method", "times", "on_terminal"),
    [("fork", 60, False), ("fork", 40, True), ("spawn", 6, True), ("forkserver", 8, False)],
)
def test_ctrl_c_at_any_moment(method: str, times: int, on_terminal: bool) -> None:
    """It is raised, and nothing is left; on a terminal, the process of the device gets it too."""
    script = STORM.format(
        method=method, times=times, seconds=DEADLINE, seed=os.getpid(), on_terminal=on_terminal
    )
    done = python(script)
    # On a busy machine, one may be logged that took too long to end and was killed.
    assert "Traceback" not in done.stderr
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


IN_FORK = """
import os, signal, sys, warnings
import zmq, zdev

warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)
os.register_at_fork({where}=lambda: os.kill(os.getpid(), signal.SIGINT))
device = zdev.ProcessProxy(zmq.PULL, zmq.PUSH)
device._launch_class = __import__("multiprocessing").get_context("fork").Process
before = len(os.listdir("/dev/fd"))
try:
    device.start()
    device.join()
except KeyboardInterrupt:
    print("interrupted")
print(device.done, device.launcher.exitcode, len(os.listdir("/dev/fd")) - before)
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("no children")
"""


@pytest.mark.parametrize("where", ["before", "after_in_parent"])
def test_ctrl_c_waits_for_the_end_of_a_fork(where: str) -> None:
    done = python(IN_FORK.format(where=where))
    assert done.stderr == ""
    assert done.stdout == "interrupted\nTrue 0 0\nno children\n"


def test_ctrl_c_meets_the_process_as_it_begins() -> None:
    """As on a terminal, whose processes all get it: the device just ends."""
    done = python(IN_FORK.format(where="after_in_child"))
    assert done.stderr == ""
    assert done.stdout == "True 0 0\nno children\n"


EARLY = """
import multiprocessing, os, signal, sys
import zmq, zdev

if __name__ == "__main__":
    device = zdev.ProcessProxy(zmq.PULL, zmq.PUSH)
    device._launch_class = multiprocessing.get_context("spawn").Process
    for _ in range(2):
        device.start()
        device.join()
        print(device.launcher.exitcode)
else:
    os.kill(os.getpid(), signal.SIGINT)
"""


def test_ctrl_c_meets_a_spawned_process_as_it_begins(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(EARLY)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(tmp_path / "script.py")],
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE,
        check=False,
    )
    assert (done.stderr, done.stdout, done.returncode) == ("", "0\n0\n", 0)


# What the program does not heed


@contextlib.contextmanager
def ignored(*numbers: int) -> Iterator[None]:
    previous = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, previous):
            signal.signal(number, handler)


@contextlib.contextmanager
def blocked(*numbers: int) -> Iterator[None]:
    kept = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == kept | set(numbers)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, kept)


def status(process: int, field: str) -> int:
    """Return a field of what Linux tells of a process, as the number that it is."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    base = 8 if field == "Umask" else 16
    return int(next(line for line in lines if line.startswith(field)).split()[1], base)


ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Linux tells it in /proc")


@ON_LINUX
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("unheeded", "field"), [(ignored, "SigIgn"), (blocked, "SigBlk")])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_the_program_does_not_heed_its_device_does_not(
    net: Network, devices: Devices, method: str, unheeded: Any, field: str, number: int
) -> None:
    stream = Stream(net, devices)
    stream.device._launch_class = getattr(multiprocessing.get_context(method), "Process")  # noqa: B009
    with unheeded(number):
        stream.device.start()
    process = stream.device.launcher.pid
    assert status(process, field) & 1 << number - 1
    os.kill(process, number)
    stream.source().send(b"x")
    assert stream.sink().recv() == b"x"
    other = signal.SIGINT + signal.SIGTERM - number
    assert not status(process, field) & 1 << other - 1
    os.kill(process, other)
    stream.device.join()
    assert stream.device.launcher.exitcode == 0


@pytest.mark.parametrize("unheeded", [ignored, blocked])
def test_a_stop_ends_what_heeds_no_signal(
    engine: str, net: Network, devices: Devices, unheeded: Any
) -> None:
    stream = Stream(net, devices)
    with unheeded(signal.SIGINT, signal.SIGTERM):
        stream.device.start()
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(stream.device.launcher.pid, number)
    stream.source().send(b"x")
    assert stream.sink().recv() == b"x"
    stream.device.stop(timeout=DEADLINE)
    assert stream.device.launcher.exitcode == 0


@pytest.mark.parametrize("derive", [own_way, of_pyzmq])
@pytest.mark.parametrize("unheeded", [ignored, blocked])
def test_a_stop_ends_what_a_subclass_runs_and_heeds_no_signal(
    devices: Devices, derive: Callable[[Any], Any], unheeded: Any
) -> None:
    device = devices.of(derive, "Device", zmq.STREAMER, zmq.PULL, zmq.PUSH)
    with unheeded(signal.SIGINT, signal.SIGTERM):
        device.start()
    device.stop(timeout=DEADLINE)
    assert device.launcher.exitcode == 0


IGNORANT = """
import os, signal, sys, warnings
import zmq, zdev

warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)
device = zdev.ProcessProxy(zmq.PULL, zmq.PUSH)
device._launch_class = __import__("multiprocessing").get_context("fork").Process
device.bind_in("tcp://127.0.0.1:*")
device.bind_out("tcp://127.0.0.1:*")
with device, zmq.Context() as context:
    os.killpg(0, signal.SIGINT)  # as Ctrl-C on a terminal
    with context.socket(zmq.PUSH) as source, context.socket(zmq.PULL) as sink:
        source.linger = 0
        sink.rcvtimeo = 5000
        source.connect(device.endpoints["in"][0])
        sink.connect(device.endpoints["out"][0])
        source.send(b"x")
        print(sink.recv())
print(device.launcher.exitcode)
"""


@pytest.mark.skipif(sys.implementation.name == "pypy", reason="PyPy heeds it all the same")
def test_a_shells_background_job_goes_on_at_ctrl_c() -> None:
    """A shell without job control has those ignore SIGINT."""
    done = subprocess.run(
        ["sh", "-c", 'trap "" INT; exec "$0" -W error -c "$1"', sys.executable, IGNORANT],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        start_new_session=True,
        check=False,
    )
    assert (done.stderr, done.stdout, done.returncode) == ("", "b'x'\n0\n", 0)


@ON_LINUX
def test_the_rest_is_as_the_program_has_set_it(engine: str, net: Network, devices: Devices) -> None:
    """Handlers of other signals, other masks, and what new files are to be."""
    reader, writer = os.pipe()
    previous = signal.signal(signal.SIGUSR1, lambda *_: os.write(writer, b"handled"))
    umask = os.umask(0o27)
    stream = Stream(net, devices)
    try:
        with blocked(signal.SIGUSR2), ignored(signal.SIGHUP):
            stream.device.start()
    finally:
        signal.signal(signal.SIGUSR1, previous)
        os.umask(umask)
    process = stream.device.launcher.pid
    assert status(process, "Umask") == 0o27
    assert status(process, "SigBlk") == 1 << signal.SIGUSR2 - 1
    assert status(process, "SigIgn") & 1 << signal.SIGHUP - 1
    os.kill(process, signal.SIGUSR1)
    assert os.read(reader, 100) == b"handled"
    os.close(reader)
    os.close(writer)
    stream.source().send(b"x")
    assert stream.sink().recv() == b"x"
