"""Fuzz your own broker: traffic, a model of what a device does with it, and a harness.

`DeviceHarness` runs a device and compares what comes out of it with `model`; the strategies draw
traffic for it. With pytest, the fixtures ``zdev_harness`` and ``zdev_context`` are there without an
import.

It needs Hypothesis: ``pip install 'zmq-devices[testing]'``.
"""

try:
    import hypothesis as _hypothesis  # noqa: F401
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(
        "zdev.testing needs Hypothesis, which is not installed with zdev: "
        "pip install 'zmq-devices[testing]'",
        name=_error.name,
    ) from _error

from zdev.testing import model
from zdev.testing.harness import DeviceHarness
from zdev.testing.inbox import DeviceError, Inbox
from zdev.testing.leaks import TrackedContext, no_leaks
from zdev.testing.strategies import (
    Send,
    Traffic,
    identities,
    messages,
    prefixes,
    socket_pairs,
    traffic,
)

__all__ = [
    "DeviceError",
    "DeviceHarness",
    "Inbox",
    "Send",
    "TrackedContext",
    "Traffic",
    "identities",
    "messages",
    "model",
    "no_leaks",
    "prefixes",
    "socket_pairs",
    "traffic",
]
