"""The kinds of device for an event loop, each in a thread or in a process."""

from __future__ import annotations

from typing import TYPE_CHECKING

import zmq

from zdev import _devices as plain
from zdev._arguments import Prefix, check_flag
from zdev._devices.kinds import ProxyKind, ProxySteerableKind
from zdev._devices.launchers import BackgroundDevice
from zdev._devices.methods import SetsOption
from zdev._devices.settings import RelaySettings
from zdev._names import Named

from ._life import Life
from ._wiring import LiveDevice, LiveProxy, LiveProxySteerable, planned, planned_option

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Device", "MonitoredQueue", "Proxy", "ProxySteerable"]


class Device(Life):
    """A ZeroMQ device for asyncio, trio and anyio, which makes its own sockets.

    It runs in a thread, or a process, of its own, and never holds up the event loop, which is woken
    by its start and its end, not by its messages. ``async with device:`` goes on when it relays, or
    raises what prevented that, and leaves by a stop; `serve` does the same for a task of its own.

    Parameters
    ----------
    device_type : int
        ``zmq.QUEUE``, ``zmq.FORWARDER`` or ``zmq.STREAMER``; it changes nothing.
    in_type, out_type : int or str
        Socket types, such as ``zmq.ROUTER`` or ``"ROUTER"``. With a negative ``out_type`` one
        socket is both ends.
    in_process : bool
        Whether it runs in a process of its own; by default, in a thread.
    drain : float, optional
        For at most so many seconds, where it is left or its `serve` is cancelled, it first relays
        what it and its sockets hold: see `zdev.Device.stop`. By default, it ends at once.
    name : str, optional
        Names the thread or process, and the device in the log.
    **settings
        As for `zdev.Device`.

    Raises
    ------
    TypeError, ValueError
        For what is no socket type, name or setting, and for a type that cannot serve in its role.

    Notes
    -----
    Where it is left, it is stopped whatever is cancelled meanwhile, and a cancellation goes on when
    it has ended; if that takes ten seconds more than the drain, TimeoutError is raised instead, and
    its process is killed. What is cancelled while it starts is raised when it has been stopped.

    It belongs to no event loop: tasks of several, in several threads, may use it. It can be started
    again when it has ended. It installs no signal handlers. A device that is not stopped when its
    event loop is closed goes on, as any device in the background does.
    """

    def __init__(
        self,
        device_type: int = zmq.QUEUE,
        in_type: Named | None = None,
        out_type: Named | None = None,
        *,
        in_process: bool = False,
        drain: float | None = None,
        name: str | None = None,
        **settings: Unpack[RelaySettings],
    ) -> None:
        cls = plain.ProcessDevice if check_flag(in_process, "in_process") else plain.ThreadDevice
        super().__init__(cls(device_type, in_type, out_type, name=name, **settings), drain)

    @property
    def live(self) -> LiveDevice:
        """Its sockets while it runs: ``await device.live.bind_in(...)`` and kin.

        Raises
        ------
        RuntimeError
            If it does not run.
        """
        self._relaying("live")
        return LiveDevice(self)

    bind_in = planned(plain.Device.bind_in)
    connect_in = planned(plain.Device.connect_in)
    unbind_in = planned(plain.Device.unbind_in)
    disconnect_in = planned(plain.Device.disconnect_in)
    setsockopt_in: SetsOption = planned_option(plain.Device.setsockopt_in)
    bind_in_to_random_port = planned(plain.Device.bind_in_to_random_port)
    curve_server_in = planned(plain.Device.curve_server_in)
    curve_client_in = planned(plain.Device.curve_client_in)
    plain_server_in = planned(plain.Device.plain_server_in)
    plain_client_in = planned(plain.Device.plain_client_in)
    allow_in = planned(plain.Device.allow_in)

    bind_out = planned(plain.Device.bind_out)
    connect_out = planned(plain.Device.connect_out)
    unbind_out = planned(plain.Device.unbind_out)
    disconnect_out = planned(plain.Device.disconnect_out)
    setsockopt_out: SetsOption = planned_option(plain.Device.setsockopt_out)
    bind_out_to_random_port = planned(plain.Device.bind_out_to_random_port)
    curve_server_out = planned(plain.Device.curve_server_out)
    curve_client_out = planned(plain.Device.curve_client_out)
    plain_server_out = planned(plain.Device.plain_server_out)
    plain_client_out = planned(plain.Device.plain_client_out)
    allow_out = planned(plain.Device.allow_out)


class Proxy(Device):
    """A `Device` whose third socket, the monitor, gets a copy of every message that is sent on.

    Parameters
    ----------
    in_type, out_type, mon_type : int or str
        Socket types, such as ``zmq.ROUTER`` or ``"ROUTER"``. With a negative ``out_type`` one
        socket is both ends.
    in_process, drain, name, **settings
        As for `Device`.
    """

    def __init__(
        self,
        in_type: Named,
        out_type: Named,
        mon_type: Named = zmq.PUB,
        *,
        in_process: bool = False,
        drain: float | None = None,
        name: str | None = None,
        **settings: Unpack[RelaySettings],
    ) -> None:
        cls = plain.ProcessProxy if check_flag(in_process, "in_process") else plain.ThreadProxy
        Life.__init__(self, cls(in_type, out_type, mon_type, name=name, **settings), drain)

    @property
    def live(self) -> LiveProxy:
        """Its sockets while it runs: see `Device.live`."""
        self._relaying("live")
        return LiveProxy(self)

    bind_mon = planned(ProxyKind.bind_mon)
    connect_mon = planned(ProxyKind.connect_mon)
    unbind_mon = planned(ProxyKind.unbind_mon)
    disconnect_mon = planned(ProxyKind.disconnect_mon)
    setsockopt_mon: SetsOption = planned_option(ProxyKind.setsockopt_mon)
    bind_mon_to_random_port = planned(ProxyKind.bind_mon_to_random_port)
    curve_server_mon = planned(ProxyKind.curve_server_mon)
    curve_client_mon = planned(ProxyKind.curve_client_mon)
    plain_server_mon = planned(ProxyKind.plain_server_mon)
    plain_client_mon = planned(ProxyKind.plain_client_mon)
    allow_mon = planned(ProxyKind.allow_mon)


class ProxySteerable(Proxy):
    """A `Proxy` with a control socket, which takes PAUSE, RESUME, TERMINATE and STATISTICS.

    Parameters
    ----------
    in_type, out_type, mon_type : int or str
        Socket types, such as ``zmq.ROUTER`` or ``"ROUTER"``. With a negative ``out_type`` one
        socket is both ends.
    ctrl_type : int or str, optional
        The control socket's type; PAIR by default.
    in_process, drain, name, **settings
        As for `Device`.
    """

    def __init__(
        self,
        in_type: Named,
        out_type: Named,
        mon_type: Named = zmq.PUB,
        ctrl_type: Named | None = None,
        *,
        in_process: bool = False,
        drain: float | None = None,
        name: str | None = None,
        **settings: Unpack[RelaySettings],
    ) -> None:
        cls: type[plain.ThreadProxySteerable] | type[plain.ProcessProxySteerable]
        cls = plain.ThreadProxySteerable
        if check_flag(in_process, "in_process"):
            cls = plain.ProcessProxySteerable
        device: BackgroundDevice = cls(
            in_type, out_type, mon_type, ctrl_type, name=name, **settings
        )
        Life.__init__(self, device, drain)

    @property
    def live(self) -> LiveProxySteerable:
        """Its sockets while it runs: see `Device.live`."""
        self._relaying("live")
        return LiveProxySteerable(self)

    bind_ctrl = planned(ProxySteerableKind.bind_ctrl)
    connect_ctrl = planned(ProxySteerableKind.connect_ctrl)
    unbind_ctrl = planned(ProxySteerableKind.unbind_ctrl)
    disconnect_ctrl = planned(ProxySteerableKind.disconnect_ctrl)
    setsockopt_ctrl: SetsOption = planned_option(ProxySteerableKind.setsockopt_ctrl)
    bind_ctrl_to_random_port = planned(ProxySteerableKind.bind_ctrl_to_random_port)
    curve_server_ctrl = planned(ProxySteerableKind.curve_server_ctrl)
    curve_client_ctrl = planned(ProxySteerableKind.curve_client_ctrl)
    plain_server_ctrl = planned(ProxySteerableKind.plain_server_ctrl)
    plain_client_ctrl = planned(ProxySteerableKind.plain_client_ctrl)
    allow_ctrl = planned(ProxySteerableKind.allow_ctrl)


class MonitoredQueue(Proxy):
    """A `Proxy` that shows its monitor ``[prefix, *frames]``, and swaps the ids of two ROUTERs.

    Parameters
    ----------
    in_type, out_type, mon_type : int or str
        Socket types, such as ``zmq.ROUTER`` or ``"ROUTER"``. With a negative ``out_type`` one
        socket is both ends.
    in_prefix, out_prefix : bytes, buffer, str or None
        The prefix of what came in at either side; None for no prefix frame.
    in_process, drain, name, **settings
        As for `Device`.
    """

    def __init__(
        self,
        in_type: Named,
        out_type: Named,
        mon_type: Named = zmq.PUB,
        in_prefix: Prefix = b"in",
        out_prefix: Prefix = b"out",
        *,
        in_process: bool = False,
        drain: float | None = None,
        name: str | None = None,
        **settings: Unpack[RelaySettings],
    ) -> None:
        cls: type[plain.ThreadMonitoredQueue] | type[plain.ProcessMonitoredQueue]
        cls = plain.ThreadMonitoredQueue
        if check_flag(in_process, "in_process"):
            cls = plain.ProcessMonitoredQueue
        device: BackgroundDevice = cls(
            in_type, out_type, mon_type, in_prefix, out_prefix, name=name, **settings
        )
        Life.__init__(self, device, drain)
