"""The classes of devices, and what their constructors are given."""

from __future__ import annotations

from typing import Any

import zmq
import zmq.devices

KINDS = ["Device", "Proxy", "ProxySteerable", "MonitoredQueue"]

NAMES = [
    prefix + ("Device" if prefix and kind == "Device" else kind)
    for kind in KINDS
    for prefix in ("", "Thread", "Process")
]


SETTINGS: dict[str, Any] = {
    "capture_policy": "drop",
    "overflow": "drop",
    "in_overflow": "park",
    "out_overflow": "drop",
    "burst": 3,
    "warn_after": None,
}
"""What every class takes for its relay, each as it is not by default."""

ROLES = {
    "Device": ["in", "out"],
    "Proxy": ["in", "out", "mon"],
    "MonitoredQueue": ["in", "out", "mon"],
    "ProxySteerable": ["in", "out", "mon", "ctrl"],
}


def kind_of(name: str) -> str:
    return next(kind for kind in reversed(KINDS) if name.endswith(kind))


def arguments(name: str, *more: Any) -> tuple[Any, ...]:
    first = (zmq.QUEUE,) if kind_of(name) == "Device" else ()
    return (*first, zmq.PULL, zmq.PUSH, *more)


def counts(device: Any) -> tuple[int, int, int]:
    statistics = device.statistics()
    there = statistics.frontend_to_backend
    return there.messages_received, there.messages_sent, statistics.capture.sent
