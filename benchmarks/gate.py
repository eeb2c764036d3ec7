"""The figures that repeat from run to run: instructions, system calls, CPU while nothing moves."""

from __future__ import annotations

import collections
import ctypes
import functools
import gc
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

import zmq

import zdev

from . import systems
from .load import Load
from .measure import Device, in_process, start
from .workloads import Bench, Workload

__all__ = ["main"]

FLOOR = "bare recv+more+send"
OURS = "zdev cffi"

# Two numbers of messages: their difference is a multiple of the chunks that libzmq's queues and our
# bursts come in. First, each system relays a few that do not count, until Python has specialized
# what it starts a device with: that would come on top of the smaller number.
FEW, MANY = 512, 4608
WARM_UP = [16] * 5
# As often, of which the median difference counts: now and then the allocator clears up, or Python
# does something in that thread, which has nothing to do with messages.
TIMES = 3

ROUND_TRIPS = 1000
PR_SET_PTRACER = 0x59616D61  # of prctl(2)

QUIET = 0.3  # seconds without any CPU time after which a device has done all there is
STILL = 1.5  # seconds for which one is watched that should do nothing


@dataclass(frozen=True)
class Limit:
    """What zdev may take, as a multiple of what another system takes."""

    factor: float
    system: str


INSTRUCTIONS = {
    Workload("gate", size=8): [Limit(1.04, FLOOR), Limit(1.00, systems.PROXY)],
    Workload("gate", frames=4): [Limit(1.03, FLOOR)],
    Workload("gate", size=8, monitor="PUB"): [Limit(0.50, systems.MQ)],
    Workload("gate", "ROUTER-ROUTER", monitor="PUB"): [Limit(0.72, systems.MQ)],
}
SYSTEM_CALLS = {Workload("gate", "ROUTER-DEALER", shape="ping-pong"): 7.0}
CPU = 1.0  # percent


# What runs in a process of its own, under valgrind or strace.


def settle(device: Device) -> None:
    """Wait until a device has nothing more to do."""
    before = -1
    while before != device.cpu():
        before = device.cpu()
        time.sleep(QUIET)


def relay_queued(workload: Workload, names: list[str]) -> dict[str, list[int]]:
    """Let every system relay few, then many messages that wait for it already, some times.

    Returns valgrind's numbers of their threads, for each system.
    """
    load = Load()
    gc.disable()  # lest it runs in one of these threads
    threads: dict[str, list[int]] = {}
    frames = [b"x" * workload.size] * workload.frames
    if workload.device == "ROUTER-ROUTER":
        frames.insert(0, b"peer")
    benches = []  # none ends before all have been measured
    for name in names:
        threads[name] = []
        for number in (*WARM_UP, *[FEW, MANY] * TIMES):
            bench = Bench(workload, endless=True)
            benches.append(bench)
            for _ in range(number):
                bench.sources[0].send_multipart(frames)
            threads[name].append(len(os.listdir("/proc/self/task")) + 1)
            if name == FLOOR:
                settle(Device(load, functools.partial(load.floor, bench.frontend, bench.backend)))
            else:
                settle(start(load, name, bench))
            for _ in range(number):
                assert len(bench.sinks[0].recv_multipart()) == len(frames)
    return threads


def ping_pong(workload: Workload, system: str) -> dict[str, int]:
    """Let messages go back and forth; return how often the device made which system call.

    strace follows the device's thread alone. If it slowed its peers, too, libzmq would look more
    often into a mailbox that it does not look into twice within a millisecond or so.
    """
    load = Load()
    bench = Bench(workload)
    device = start(load, system, bench)
    bench.ready()
    load.run(bench.jobs(100)[1])
    settle(device)
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, ctypes.c_ulong(-1), 0, 0, 0)  # a child may trace us
    with tempfile.TemporaryDirectory() as directory:
        log = pathlib.Path(directory, "log")
        tool = ["strace", "-qq", "-o", str(log), "-p", str(device.tid)]
        with subprocess.Popen(tool) as strace:
            while not traced(device.tid):
                if strace.poll() is not None:
                    raise RuntimeError("strace cannot attach to a thread of its parent")
                time.sleep(0.01)
            load.run(bench.jobs(ROUND_TRIPS)[1])
            settle(device)
            strace.send_signal(signal.SIGINT)
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return collections.Counter(line.partition("(")[0] for line in lines)


def traced(tid: int) -> bool:
    """Tell whether that thread is being traced."""
    text = pathlib.Path(f"/proc/self/task/{tid}/status").read_text(encoding="utf-8")
    return not re.search(r"^TracerPid:\s*0$", text, re.MULTILINE)


def stand_still(state: str, system: str) -> float:
    """Return the percentage of a CPU that a device takes in a state where it cannot do anything."""
    load = Load()
    bench = Bench(Workload("gate", "ROUTER-DEALER" if state == "without worker" else "PULL-PUSH"))
    if state in ("parked", "without worker"):
        for sink in bench.sinks:
            sink.close()
        while bench.backend.getsockopt(zmq.EVENTS) & zmq.POLLOUT:
            time.sleep(0.01)  # the peer has not gone yet
    if state == "paused":
        relay = zdev.Relay(bench.frontend, bench.backend)
        device = Device(load, relay.run)
        relay.pause()
    else:
        device = start(load, system, bench)
    if state != "idle":
        bench.sources[0].send(b"request")
    while state == "full" and bench.sources[0].poll(500, zmq.POLLOUT):
        bench.sources[0].send(b"request")
    time.sleep(QUIET)
    before, began = device.cpu(), time.monotonic()
    time.sleep(STILL)
    if device.over:
        raise RuntimeError(f"{system} has ended instead of waiting while {state}")
    return (device.cpu() - before) / (time.monotonic() - began) / 1e7


# Those that watch it.


def instructions(workload: Workload) -> dict[str, float]:
    """Return the instructions that each system takes for a message."""
    names = [OURS, systems.MQ] if workload.monitor else [FLOOR, systems.PROXY, OURS]
    with tempfile.TemporaryDirectory() as directory:
        out = pathlib.Path(directory, "out")
        log = pathlib.Path(directory, "log")
        tool = [
            "valgrind", f"--log-file={log}", "--tool=callgrind", "--separate-threads=yes",
            f"--callgrind-out-file={out}",
        ]  # fmt: skip
        try:
            threads = in_process(relay_queued, OURS, workload, names, prefix=tool)
        except subprocess.CalledProcessError:
            print(log.read_text(encoding="utf-8", errors="replace"), file=sys.stderr)
            raise

        def total(thread: int) -> int:
            text = pathlib.Path(f"{out}-{thread:02}").read_text(encoding="utf-8")
            found = re.search(r"^totals: (\d+)", text, re.MULTILINE)
            assert found is not None
            return int(found[1])

        figures = {}
        for name, numbers in threads.items():
            totals = [total(number) for number in numbers[len(WARM_UP) :]]
            differences = [many - few for few, many in zip(totals[::2], totals[1::2])]
            figures[name] = statistics.median(differences) / (MANY - FEW)
        return figures


def system_calls(workload: Workload, system: str) -> float:
    """Return the system calls that a system makes for a message of a ping-pong.

    The getpid(2) that libzmq makes with each look into a mailbox, lest a fork was missed, does not
    count; newer C libraries no longer answer it without a system call.
    """
    calls: dict[str, int] = in_process(ping_pong, system, workload, system)
    return (sum(calls.values()) - calls.get("getpid", 0)) / (2 * ROUND_TRIPS)


class Report:
    """Prints figures beside their limits, and knows which were exceeded."""

    def __init__(self) -> None:
        self.exceeded: list[str] = []

    def line(
        self, what: str, figure: float, limit: float | None = None, least: float = 0.0
    ) -> None:
        """Print a figure, and what becomes of it under its limit.

        One that is not above the least was not measured.
        """
        line = f"  {what:68} {figure:10.2f}"
        if limit is not None:
            within = least < figure and round(figure, 2) <= limit  # as printed
            line += f"  {'within' if within else 'EXCEEDS'} {limit:g}"
            if not within:
                self.exceeded.append(line)
        print(line, flush=True)


def main() -> int:
    """Measure, print, and return 1 if a limit is exceeded, 2 if a tool is missing."""
    if OURS not in systems.available():
        print("the gate needs the compiled extension: python -m zdev info says why it is missing")
        return 2
    missing = [tool for tool in ("valgrind", "strace") if not shutil.which(tool)]
    if missing:
        print(f"the gate needs {' and '.join(missing)}: apt-get install {' '.join(missing)}")
        return 2
    others = [name for name in systems.available() if name not in (*systems.ENGINES, systems.NONE)]
    report = Report()
    print(f"pyzmq {zmq.__version__}, libzmq {zmq.zmq_version()}, Python {sys.version.split()[0]}")

    print("\nInstructions a message (valgrind --tool=callgrind, the device's thread)")
    for workload, limits in INSTRUCTIONS.items():
        figures = instructions(workload)
        for name, figure in figures.items():
            report.line(f"{workload.name}: {name}", figure)
        for limit in limits:
            ratio = figures[OURS] / figures[limit.system]
            report.line(f"{workload.name}: ratio to {limit.system}", ratio, limit.factor)

    print("\nSystem calls a message (strace, the device's thread)")
    for workload, most in SYSTEM_CALLS.items():
        for name in (OURS, *others):
            report.line(
                f"{workload.name}: {name}",
                system_calls(workload, name),
                most if name == OURS else None,
            )

    print("\n% of a CPU while nothing can move")
    engines = [name for name in systems.available() if name in systems.ENGINES]
    for state in ("idle", "parked", "full", "without worker", "paused"):
        for name in engines if state == "paused" else [*engines, *others]:
            figure = in_process(stand_still, name, state, name)
            report.line(f"{state}: {name}", figure, CPU if name in engines else None, -1.0)

    if report.exceeded:
        print("\nLimits exceeded", *report.exceeded, sep="\n")
    return 1 if report.exceeded else 0
