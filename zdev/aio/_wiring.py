"""The methods that wire a device of `zdev.aio`, made of those of the plain devices.

Each is there twice: before the start it is called on the device itself, and blocks nobody; while
that runs, it is awaited on ``device.live``. Both have the types of the plain one.
"""

from __future__ import annotations

import functools
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Callable, Protocol, TypeVar, cast

from zdev._devices.device import Device as Plain
from zdev._devices.kinds import ProxyKind, ProxySteerableKind
from zdev._devices.methods import SetsOption
from zdev._names import Named

from ._life import Life

if TYPE_CHECKING:
    from typing_extensions import Concatenate, ParamSpec

    P = ParamSpec("P")

__all__ = ["LiveDevice", "LiveProxy", "LiveProxySteerable", "planned", "planned_option"]

R = TypeVar("R")


def _summary(method: Callable[..., Any]) -> str:
    return (method.__doc__ or "").strip().partition("\n")[0]


def planned(method: Callable[Concatenate[Any, P], R]) -> Callable[Concatenate[Life, P], R]:
    """Make the method that wires a device before it starts."""
    name = method.__name__

    @functools.wraps(method)
    def plan(self: Life, *args: P.args, **kwargs: P.kwargs) -> R:
        done: R = self._plan(name, args, kwargs)
        return done

    plan.__doc__ = f"""{_summary(method)}

        As `zdev.Device.{name}`, before the start. While the device runs, this raises RuntimeError:
        then ``await device.live.{name}(...)``.
        """
    return cast("Callable[Concatenate[Life, P], R]", plan)


def planned_option(method: SetsOption) -> SetsOption:
    """Make the method that plans an option."""
    return cast("SetsOption", planned(cast("Callable[..., None]", method)))


class AwaitsOption(Protocol):
    """What sets an option, and is awaited. `SetsOption` says why it is no plain method."""

    async def __call__(self, opt: Named, value: Any) -> None: ...


def live(
    method: Callable[Concatenate[Any, P], R],
) -> Callable[Concatenate[LiveDevice, P], Coroutine[Any, Any, R]]:
    """Make the method that wires a device while it runs."""
    name = method.__name__

    @functools.wraps(method)
    async def wire(self: LiveDevice, *args: P.args, **kwargs: P.kwargs) -> R:
        done: R = await self._device._wire(name, args, kwargs)
        return done

    wire.__doc__ = f"""{_summary(method)}

        As `zdev.Device.{name}` of a device that runs; its errors are raised here.

        Raises
        ------
        RuntimeError
            If the device does not run.
        """
    return cast("Callable[Concatenate[LiveDevice, P], Coroutine[Any, Any, R]]", wire)


def live_option(method: SetsOption) -> AwaitsOption:
    """Make the method that sets an option while a device runs."""
    return cast("AwaitsOption", live(cast("Callable[..., None]", method)))


class LiveDevice:
    """The sockets ``in`` and ``out`` of a device that runs; what is done to them is awaited.

    It is done in the device's own thread or process, and nothing waits for it but the task that
    does. A cancellation is raised when it is done.
    """

    def __init__(self, device: Life) -> None:
        self._device = device

    bind_in = live(Plain.bind_in)
    connect_in = live(Plain.connect_in)
    unbind_in = live(Plain.unbind_in)
    disconnect_in = live(Plain.disconnect_in)
    setsockopt_in: AwaitsOption = live_option(Plain.setsockopt_in)
    bind_in_to_random_port = live(Plain.bind_in_to_random_port)
    curve_server_in = live(Plain.curve_server_in)
    curve_client_in = live(Plain.curve_client_in)
    plain_server_in = live(Plain.plain_server_in)
    plain_client_in = live(Plain.plain_client_in)
    allow_in = live(Plain.allow_in)

    bind_out = live(Plain.bind_out)
    connect_out = live(Plain.connect_out)
    unbind_out = live(Plain.unbind_out)
    disconnect_out = live(Plain.disconnect_out)
    setsockopt_out: AwaitsOption = live_option(Plain.setsockopt_out)
    bind_out_to_random_port = live(Plain.bind_out_to_random_port)
    curve_server_out = live(Plain.curve_server_out)
    curve_client_out = live(Plain.curve_client_out)
    plain_server_out = live(Plain.plain_server_out)
    plain_client_out = live(Plain.plain_client_out)
    allow_out = live(Plain.allow_out)


class LiveProxy(LiveDevice):
    """The sockets ``in``, ``out`` and ``mon`` of a device that runs: see `LiveDevice`."""

    bind_mon = live(ProxyKind.bind_mon)
    connect_mon = live(ProxyKind.connect_mon)
    unbind_mon = live(ProxyKind.unbind_mon)
    disconnect_mon = live(ProxyKind.disconnect_mon)
    setsockopt_mon: AwaitsOption = live_option(ProxyKind.setsockopt_mon)
    bind_mon_to_random_port = live(ProxyKind.bind_mon_to_random_port)
    curve_server_mon = live(ProxyKind.curve_server_mon)
    curve_client_mon = live(ProxyKind.curve_client_mon)
    plain_server_mon = live(ProxyKind.plain_server_mon)
    plain_client_mon = live(ProxyKind.plain_client_mon)
    allow_mon = live(ProxyKind.allow_mon)


class LiveProxySteerable(LiveProxy):
    """The sockets ``in``, ``out``, ``mon`` and ``ctrl`` of a device: see `LiveDevice`."""

    bind_ctrl = live(ProxySteerableKind.bind_ctrl)
    connect_ctrl = live(ProxySteerableKind.connect_ctrl)
    unbind_ctrl = live(ProxySteerableKind.unbind_ctrl)
    disconnect_ctrl = live(ProxySteerableKind.disconnect_ctrl)
    setsockopt_ctrl: AwaitsOption = live_option(ProxySteerableKind.setsockopt_ctrl)
    bind_ctrl_to_random_port = live(ProxySteerableKind.bind_ctrl_to_random_port)
    curve_server_ctrl = live(ProxySteerableKind.curve_server_ctrl)
    curve_client_ctrl = live(ProxySteerableKind.curve_client_ctrl)
    plain_server_ctrl = live(ProxySteerableKind.plain_server_ctrl)
    plain_client_ctrl = live(ProxySteerableKind.plain_client_ctrl)
    allow_ctrl = live(ProxySteerableKind.allow_ctrl)
