"""The kinds of device: which sockets they have, and how they relay between them.

A kind adds no state of its own; it is mixed in before a launcher (see `launchers`).
"""

from __future__ import annotations

from typing import Any, ClassVar

import zmq

from zdev._relay import Prefix

from .base import Device, on, planned, random_port_on
from .plan import SocketPlan

__all__ = ["MonitoredQueueKind", "ProxyKind", "ProxySteerableKind"]


class ProxyKind(Device):
    """A device whose third socket, the monitor, gets a copy of every message that is sent on.

    Parameters
    ----------
    in_type, out_type, mon_type : int
        Socket types. With a negative ``out_type`` one socket is both ends.
    name : str, optional
        Names the thread or process, and the device in the log.
    """

    _roles: ClassVar[tuple[str, ...]] = ("in", "out", "mon")

    def __init__(
        self, in_type: int, out_type: int, mon_type: int = zmq.PUB, *, name: str | None = None
    ) -> None:
        Device.__init__(self, in_type=in_type, out_type=out_type, name=name)
        self.mon_type = mon_type

    bind_mon = on("mon", SocketPlan.bind)
    connect_mon = on("mon", SocketPlan.connect)
    unbind_mon = on("mon", SocketPlan.unbind)
    disconnect_mon = on("mon", SocketPlan.disconnect)
    setsockopt_mon = on("mon", SocketPlan.setsockopt)
    bind_mon_to_random_port = random_port_on("mon")

    _mon_binds = planned("mon", "binds")
    _mon_connects = planned("mon", "connects")
    _mon_sockopts = planned("mon", "sockopts")

    def _setup_sockets(self) -> Any:
        return (*Device._setup_sockets(self), *self._open("mon"))


class ProxySteerableKind(ProxyKind):
    """A proxy with a control socket, which takes PAUSE, RESUME, TERMINATE and STATISTICS.

    Parameters
    ----------
    in_type, out_type, mon_type : int
        Socket types. With a negative ``out_type`` one socket is both ends.
    ctrl_type : int, optional
        The control socket's type; PAIR by default.
    name : str, optional
        Names the thread or process, and the device in the log.
    """

    _roles: ClassVar[tuple[str, ...]] = ("in", "out", "mon", "ctrl")

    def __init__(
        self,
        in_type: int,
        out_type: int,
        mon_type: int = zmq.PUB,
        ctrl_type: int | None = None,
        *,
        name: str | None = None,
    ) -> None:
        ProxyKind.__init__(self, in_type, out_type, mon_type, name=name)
        self.ctrl_type = zmq.PAIR if ctrl_type is None else ctrl_type

    bind_ctrl = on("ctrl", SocketPlan.bind)
    connect_ctrl = on("ctrl", SocketPlan.connect)
    unbind_ctrl = on("ctrl", SocketPlan.unbind)
    disconnect_ctrl = on("ctrl", SocketPlan.disconnect)
    setsockopt_ctrl = on("ctrl", SocketPlan.setsockopt)
    bind_ctrl_to_random_port = random_port_on("ctrl")

    _ctrl_binds = planned("ctrl", "binds")
    _ctrl_connects = planned("ctrl", "connects")
    _ctrl_sockopts = planned("ctrl", "sockopts")

    def _setup_sockets(self) -> Any:
        return (*super()._setup_sockets(), *self._open("ctrl"))


class MonitoredQueueKind(ProxyKind):
    """A proxy that shows its monitor ``[prefix, *frames]``, and swaps the ids of two ROUTERs.

    Parameters
    ----------
    in_type, out_type, mon_type : int
        Socket types. With a negative ``out_type`` one socket is both ends.
    in_prefix, out_prefix : bytes, buffer, str or None
        The prefix of what came in at either side; None for no prefix frame.
    name : str, optional
        Names the thread or process, and the device in the log.
    """

    _in_prefix: Any = b""
    _out_prefix: Any = b""

    def __init__(
        self,
        in_type: int,
        out_type: int,
        mon_type: int = zmq.PUB,
        in_prefix: Prefix = b"in",
        out_prefix: Prefix = b"out",
        *,
        name: str | None = None,
    ) -> None:
        ProxyKind.__init__(self, in_type, out_type, mon_type, name=name)
        self._in_prefix = _lasting(in_prefix)
        self._out_prefix = _lasting(out_prefix)

    def _relay_options(self) -> dict[str, Any]:
        return {"in_prefix": self._in_prefix, "out_prefix": self._out_prefix}


def _lasting(prefix: Prefix) -> Any:
    """Return a prefix as it is now; not every buffer can go into another process."""
    if prefix is None or isinstance(prefix, (bytes, str)):
        return prefix
    try:
        return memoryview(prefix).tobytes()
    except TypeError:
        return prefix  # the relay says what is wrong with it
