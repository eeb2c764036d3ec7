"""What is compared: every engine of zdev, and what else moves messages between two sockets."""

from __future__ import annotations

import os
import platform
from typing import Any

import zmq
from zmq.devices import monitoredqueue

import zdev
from zdev import _engines

from .workloads import PACED, Bench, Workload

__all__ = ["ENGINES", "MQ", "NONE", "PROXY", "PYTHON", "available", "environment", "fit", "run"]

ENGINES = tuple(f"zdev {name}" for name in ("cffi", "cffi-abi", "ctypes", "pyzmq"))
PROXY = "zmq.proxy"
MQ = "pyzmq monitored_queue"
PYTHON = "pyzmq Python relay"  # what its monitored_queue is on PyPy
NONE = "no device"


def _engine_of(system: str) -> str | None:
    return system.partition(" ")[2] if system in ENGINES else None


def available() -> list[str]:
    """Return the systems that this interpreter has, best engine first."""
    systems = []
    for system in ENGINES:
        try:
            _engines.load(str(_engine_of(system)))
        except _engines.EngineUnavailableError:
            continue
        systems.append(system)
    compiled = platform.python_implementation() == "CPython"
    return [*systems, PROXY, *([MQ] if compiled else []), PYTHON, NONE]


def fit(workload: Workload) -> list[str]:
    """Return those of them that do the same work: a monitor's copies have a prefix, or not."""
    unfit: set[str] = set()
    if workload.monitor:
        unfit = {PROXY} if workload.prefixed else {MQ, PYTHON}
    if workload.shape in PACED:
        unfit.add(NONE)
    return [system for system in available() if system not in unfit]


def environment(system: str) -> dict[str, str]:
    """Return the environment of a process in which that system is to run."""
    engine = _engine_of(system)
    return {**os.environ, **({_engines.VARIABLE: engine} if engine else {})}


def run(system: str, bench: Bench) -> None:
    """Be that device, in this thread, for good.

    pyzmq's relays cannot do without a monitor: a PUB that nobody listens to is the least they take.
    """
    frontend, backend, monitor = bench.frontend, bench.backend, bench.monitor
    if system in ENGINES:
        if zdev.engine != _engine_of(system):
            raise RuntimeError(f"{system} wanted, but the engine is {zdev.engine}")
        if monitor is None or not bench.workload.prefixed:
            zdev.proxy(frontend, backend, monitor)
        else:
            zdev.monitored_queue(frontend, backend, monitor)
    elif system == PROXY:
        zmq.proxy(frontend, backend, monitor)
    else:
        if monitor is None:
            monitor = frontend.context.socket(zmq.PUB)
            monitor.bind("inproc://nobody")
        relay: Any = (
            monitoredqueue.monitored_queue if system == MQ else monitoredqueue._monitored_queue
        )
        relay(frontend, backend, monitor)
