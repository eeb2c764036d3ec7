"""Devices for asyncio, trio and anyio: started, stopped and asked by await, cancelled as any task.

The names are those of zdev's devices and functions. Import it by itself: ``from zdev import aio``.
Neither trio nor anyio is needed, nor imported.
"""

from ._devices import Device, MonitoredQueue, Proxy, ProxySteerable
from ._functions import device, monitored_queue, proxy, proxy_steerable

__all__ = [
    "Device",
    "MonitoredQueue",
    "Proxy",
    "ProxySteerable",
    "device",
    "monitored_queue",
    "proxy",
    "proxy_steerable",
]
