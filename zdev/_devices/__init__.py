"""Devices that make their own sockets; drop-in for ``zmq.devices``, class for class.

Each class is a kind and a launcher put together. Its homonym of pyzmq comes last among its bases,
so that ``isinstance`` checks against that go on working.
"""

from __future__ import annotations

import zmq.devices

from .device import Device
from .explained import explained
from .kinds import MonitoredQueueKind, ProxyKind, ProxySteerableKind
from .launchers import ThreadDevice
from .process import ProcessDevice
from .wiring import BindError

__all__ = [
    "BindError",
    "Device",
    "MonitoredQueue",
    "ProcessDevice",
    "ProcessMonitoredQueue",
    "ProcessProxy",
    "ProcessProxySteerable",
    "Proxy",
    "ProxySteerable",
    "ThreadDevice",
    "ThreadMonitoredQueue",
    "ThreadProxy",
    "ThreadProxySteerable",
]


@explained
class Proxy(ProxyKind, Device, zmq.devices.Proxy):
    __doc__ = ProxyKind.__doc__


@explained
class ThreadProxy(ProxyKind, ThreadDevice, zmq.devices.ThreadProxy):
    """A `Proxy` that runs in a thread of its own."""


@explained
class ProcessProxy(ProxyKind, ProcessDevice, zmq.devices.ProcessProxy):
    """A `Proxy` that runs in a process of its own."""


@explained
class ProxySteerable(ProxySteerableKind, Proxy, zmq.devices.ProxySteerable):
    __doc__ = ProxySteerableKind.__doc__


@explained
class ThreadProxySteerable(ProxySteerableKind, ThreadProxy, zmq.devices.ThreadProxySteerable):
    """A `ProxySteerable` that runs in a thread of its own."""


@explained
class ProcessProxySteerable(ProxySteerableKind, ProcessProxy, zmq.devices.ProcessProxySteerable):
    """A `ProxySteerable` that runs in a process of its own."""


@explained
class MonitoredQueue(MonitoredQueueKind, Proxy, zmq.devices.MonitoredQueue):
    __doc__ = MonitoredQueueKind.__doc__


@explained
class ThreadMonitoredQueue(MonitoredQueueKind, ThreadProxy, zmq.devices.ThreadMonitoredQueue):
    """A `MonitoredQueue` that runs in a thread of its own."""


@explained
class ProcessMonitoredQueue(MonitoredQueueKind, ProcessProxy, zmq.devices.ProcessMonitoredQueue):
    """A `MonitoredQueue` that runs in a process of its own."""
