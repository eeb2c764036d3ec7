"""ZeroMQ devices at C speed: drop-in for those of pyzmq, and beyond them."""

from typing import TYPE_CHECKING

from zdev import _engines
from zdev._connections import Connections
from zdev._contract import CaptureStatistics, DirectionStatistics, Statistics
from zdev._devices import (
    BindError,
    Device,
    MonitoredQueue,
    ProcessDevice,
    ProcessMonitoredQueue,
    ProcessProxy,
    ProcessProxySteerable,
    Proxy,
    ProxySteerable,
    ThreadDevice,
    ThreadMonitoredQueue,
    ThreadProxy,
    ThreadProxySteerable,
)
from zdev._engines import EngineUnavailableError
from zdev._functions import device, monitored_queue, proxy, proxy_steerable
from zdev._install import install, uninstall
from zdev._relay import Relay
from zdev._stops import StopReport

__all__ = [
    "BindError",
    "CaptureStatistics",
    "Connections",
    "Device",
    "DirectionStatistics",
    "EngineUnavailableError",
    "MonitoredQueue",
    "ProcessDevice",
    "ProcessMonitoredQueue",
    "ProcessProxy",
    "ProcessProxySteerable",
    "Proxy",
    "ProxySteerable",
    "Relay",
    "Statistics",
    "StopReport",
    "ThreadDevice",
    "ThreadMonitoredQueue",
    "ThreadProxy",
    "ThreadProxySteerable",
    "device",
    "engine",
    "install",
    "monitored_queue",
    "proxy",
    "proxy_steerable",
    "uninstall",
]

__version__ = "0.1.0"

engine: str
"""The name of the engine in use: "cffi", "ctypes", "cffi-abi" or "pyzmq".

To ask chooses it, as the first relay does. If it cannot be had, there is no such attribute, and
the AttributeError says why, as the ``EngineUnavailableError`` does that a relay raises then.
"""

if not TYPE_CHECKING:  # for type checkers, no other name is there

    def __getattr__(name: str) -> str:
        if name == "engine":
            try:
                return _engines.current().name
            except EngineUnavailableError as error:  # hasattr() and help() take no other error
                raise AttributeError(f"zdev.engine: {error}") from None
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), "engine"]


_engines.warn_if_missing()
