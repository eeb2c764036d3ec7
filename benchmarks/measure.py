"""One system under one workload, in a process of its own."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import threading
import time
from typing import Any, Callable

from . import systems
from .load import Load
from .workloads import PACED, Bench, Workload

__all__ = ["Device", "in_process", "measure", "start"]

SOME = 256  # messages to begin with
LIMIT = 1200  # seconds after which a process is taken to hang; valgrind is slow on a busy machine


class Device:
    """A device in a thread."""

    def __init__(self, load: Load, function: Callable[[], Any]) -> None:
        self.over = False
        started = threading.Event()

        def body() -> None:
            self.tid = threading.get_native_id()
            self._clock = load.thread_clock()
            started.set()
            function()
            self.over = True
            threading.Event().wait()  # valgrind would give its place to the next thread

        threading.Thread(target=body, daemon=True).start()
        started.wait()

    def cpu(self) -> int:
        """Return the nanoseconds of CPU time that it has taken."""
        return time.clock_gettime_ns(self._clock)


def start(load: Load, system: str, bench: Bench) -> Device:
    """Start a system on the sockets of the bench."""
    return Device(load, lambda: systems.run(system, bench))


def measure(workload: Workload, system: str, seconds: float) -> dict[str, float]:
    """Load a system for about so many seconds, once it has warmed up, and return its figures.

    ``rate``: messages a second that it relays; ``cpu``: nanoseconds of its thread's CPU time for
    one; ``p50``, ``p99``, ``p99.9``: nanoseconds that one took, or its round trip in a ping-pong.
    Where messages are paced, the latter only.
    """
    load = Load()
    direct = system == systems.NONE
    bench = Bench(workload, direct)
    device = None if direct else start(load, system, bench)
    bench.ready()
    number, elapsed = max(SOME, 4 * workload.clients), 0
    while elapsed < seconds * 1e9 / 4:
        if elapsed:
            number = int(number * min(max(seconds * 1e9 / 3 / elapsed, 1.5), 8))
        elapsed, _ = load.run(bench.jobs(number)[1])
    messages, jobs = bench.jobs(int(number * seconds * 1e9 / elapsed) + 1)

    before = device.cpu() if device else 0
    elapsed, noted = load.run(jobs)
    figures = {}
    if workload.shape not in PACED:
        figures["rate"] = messages / elapsed * 1e9
        if device:
            figures["cpu"] = (device.cpu() - before) / messages
    for latency in noted:
        latency.sort()
        for percent in (50, 99, 99.9):
            figures[f"p{percent:g}"] = latency[int(len(latency) * percent / 100)]
    return figures


def in_process(function: Callable[..., Any], system: str, *arguments: Any, prefix: Any = ()) -> Any:
    """Call a function of this package in a new process, in which that system can run."""
    name = f"{function.__module__}:{function.__name__}"
    text = json.dumps(arguments, default=vars)
    repeatable = {"PYTHONHASHSEED": "0", "PYTHONFAULTHANDLER": "1"}
    environment = {**systems.environment(system), **repeatable}
    command = [*prefix, sys.executable, "-m", __name__, name, text]
    done = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, check=True, timeout=LIMIT
    )
    return json.loads(done.stdout)


def _child(name: str, arguments: str) -> None:
    module, _, function = name.partition(":")
    given = [Workload(**item) if isinstance(item, dict) else item for item in json.loads(arguments)]
    result = getattr(importlib.import_module(module), function)(*given)
    print(json.dumps(result), flush=True)
    os._exit(0)  # nothing else ends every device


if __name__ == "__main__":
    _child(*sys.argv[1:])
