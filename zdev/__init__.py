"""ZeroMQ devices at C speed: drop-in for those of pyzmq, and beyond them."""

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
from zdev._engines import current as _current
from zdev._functions import device, monitored_queue, proxy, proxy_steerable
from zdev._install import install, uninstall
from zdev._relay import Relay

__all__ = [
    "BindError",
    "CaptureStatistics",
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

engine: str = _current.name
"""The name of the engine in use: "cffi", "ctypes", "cffi-abi" or "pyzmq"."""
