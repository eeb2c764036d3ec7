"""The kinds of device: which sockets they have, and how they relay between them.

A kind keeps what its constructor is given, no more; it is mixed in before a launcher
(see `launchers`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import zmq

from zdev._arguments import Prefix, check_prefix
from zdev._names import Named
from zdev._sockets import CAPTURES, CONTROLS

from .device import Device
from .methods import on, option_on, planned, random_port_on
from .plan import SocketPlan
from .settings import RelaySettings
from .types import take_type

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["MonitoredQueueKind", "ProxyKind", "ProxySteerableKind"]


class ProxyKind(Device):
    """A device whose third socket, the monitor, gets a copy of every message that is sent on.

    Parameters
    ----------
    in_type, out_type, mon_type : int or str
        Socket types, such as ``zmq.ROUTER`` or ``"ROUTER"``. With a negative ``out_type`` one
        socket is both ends.
    name : str, optional
        Names the thread or process, and the device in the log.
    """

    mon_type: int

    _roles: ClassVar[tuple[str, ...]] = ("in", "out", "mon")

    def __init__(
        self,
        in_type: Named,
        out_type: Named,
        mon_type: Named = zmq.PUB,
        *,
        name: str | None = None,
        **settings: Unpack[RelaySettings],
    ) -> None:
        Device.__init__(self, in_type=in_type, out_type=out_type, name=name, **settings)
        take_type(self, "mon_type", mon_type, CAPTURES)

    bind_mon = on("mon", SocketPlan.bind)
    connect_mon = on("mon", SocketPlan.connect)
    unbind_mon = on("mon", SocketPlan.unbind)
    disconnect_mon = on("mon", SocketPlan.disconnect)
    setsockopt_mon = option_on("mon")
    bind_mon_to_random_port = random_port_on("mon")
    curve_server_mon = on("mon", SocketPlan.curve_server)
    curve_client_mon = on("mon", SocketPlan.curve_client)
    plain_server_mon = on("mon", SocketPlan.plain_server)
    plain_client_mon = on("mon", SocketPlan.plain_client)
    allow_mon = on("mon", SocketPlan.allow)

    _mon_binds = planned("mon", "binds")
    _mon_connects = planned("mon", "connects")
    _mon_sockopts = planned("mon", "sockopts")

    def _setup_sockets(self) -> Any:
        return (*Device._setup_sockets(self), *self._open("mon"))


class ProxySteerableKind(ProxyKind):
    """A proxy with a control socket, which takes PAUSE, RESUME, TERMINATE and STATISTICS.

    Parameters
    ----------
    in_type, out_type, mon_type : int or str
        Socket types, such as ``zmq.ROUTER`` or ``"ROUTER"``. With a negative ``out_type`` one
        socket is both ends.
    ctrl_type : int or str, optional
        The control socket's type; PAIR by default.
    name : str, optional
        Names the thread or process, and the device in the log.
    """

    ctrl_type: int

    _roles: ClassVar[tuple[str, ...]] = ("in", "out", "mon", "ctrl")

    def __init__(
        self,
        in_type: Named,
        out_type: Named,
        mon_type: Named = zmq.PUB,
        ctrl_type: Named | None = None,
        *,
        name: str | None = None,
        **settings: Unpack[RelaySettings],
    ) -> None:
        ProxyKind.__init__(self, in_type, out_type, mon_type, name=name, **settings)
        take_type(self, "ctrl_type", zmq.PAIR if ctrl_type is None else ctrl_type, CONTROLS)

    bind_ctrl = on("ctrl", SocketPlan.bind)
    connect_ctrl = on("ctrl", SocketPlan.connect)
    unbind_ctrl = on("ctrl", SocketPlan.unbind)
    disconnect_ctrl = on("ctrl", SocketPlan.disconnect)
    setsockopt_ctrl = option_on("ctrl")
    bind_ctrl_to_random_port = random_port_on("ctrl")
    curve_server_ctrl = on("ctrl", SocketPlan.curve_server)
    curve_client_ctrl = on("ctrl", SocketPlan.curve_client)
    plain_server_ctrl = on("ctrl", SocketPlan.plain_server)
    plain_client_ctrl = on("ctrl", SocketPlan.plain_client)
    allow_ctrl = on("ctrl", SocketPlan.allow)

    _ctrl_binds = planned("ctrl", "binds")
    _ctrl_connects = planned("ctrl", "connects")
    _ctrl_sockopts = planned("ctrl", "sockopts")

    def _setup_sockets(self) -> Any:
        return (*super()._setup_sockets(), *self._open("ctrl"))


class MonitoredQueueKind(ProxyKind):
    """A proxy that shows its monitor ``[prefix, *frames]``, and swaps the ids of two ROUTERs.

    Parameters
    ----------
    in_type, out_type, mon_type : int or str
        Socket types, such as ``zmq.ROUTER`` or ``"ROUTER"``. With a negative ``out_type`` one
        socket is both ends.
    in_prefix, out_prefix : bytes, buffer, str or None
        The prefix of what came in at either side; None for no prefix frame.
    name : str, optional
        Names the thread or process, and the device in the log.
    """

    _in_prefix: Any = b""
    _out_prefix: Any = b""

    def __init__(
        self,
        in_type: Named,
        out_type: Named,
        mon_type: Named = zmq.PUB,
        in_prefix: Prefix = b"in",
        out_prefix: Prefix = b"out",
        *,
        name: str | None = None,
        **settings: Unpack[RelaySettings],
    ) -> None:
        ProxyKind.__init__(self, in_type, out_type, mon_type, name=name, **settings)
        self._in_prefix = _lasting(in_prefix, "in_prefix")
        self._out_prefix = _lasting(out_prefix, "out_prefix")

    def _relay_options(self) -> dict[str, Any]:
        return {"in_prefix": self._in_prefix, "out_prefix": self._out_prefix}


def _lasting(prefix: Prefix, name: str) -> Prefix:
    """Check a prefix, and return it as it is now; not every buffer can go into another process."""
    sent = check_prefix(prefix, name)
    return prefix if isinstance(prefix, str) else sent
