"""The functions for gevent, by the names of `zmq.green`: the task that calls one waits in it.

So do tasks that call zdev's own functions, relays and devices, wherever gevent runs tasks; nothing
has to be patched for that. These see to it that it does.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Callable

import zmq

from zdev import _functions, _tasks
from zdev._names import Named

if TYPE_CHECKING:
    from typing_extensions import ParamSpec

    P = ParamSpec("P")

__all__ = ["device", "monitored_queue", "proxy", "proxy_steerable"]


def _green(function: Callable[P, int]) -> Callable[P, int]:
    """Make the function for gevent of one that blocks."""

    @functools.wraps(function)
    def relay(*args: P.args, **kwargs: P.kwargs) -> int:
        _tasks.ensure_hub()
        return function(*args, **kwargs)

    relay.__doc__ = f"""Relay as `zdev.{function.__name__}` does, while other tasks go on.

    The parameters, the result and the errors are those of `zdev.{function.__name__}`. The sockets
    may be plain ones or those of `zmq.green`.

    Notes
    -----
    It relays in a real thread, and only that may use the sockets until it has ended. ``kill()``,
    a ``gevent.Timeout`` and whatever else is raised in the waiting task end it first: then the
    sockets can be used again. A message that is parked in it at that moment, at most one for each
    direction, is lost, and a warning of the logger ``zdev`` tells.
    """
    return relay


proxy = _green(_functions.proxy)
proxy_steerable = _green(_functions.proxy_steerable)
monitored_queue = _green(_functions.monitored_queue)
_device = _green(_functions.device)


def device(
    device_type: Named, isocket: zmq.Socket[Any], osocket: zmq.Socket[Any] | int, **settings: Any
) -> int:
    """Relay between two sockets; drop-in for ``zmq.green.device``.

    Parameters
    ----------
    device_type : zmq.DeviceType, int or str
        ``zmq.QUEUE``, ``zmq.FORWARDER`` or ``zmq.STREAMER``, or such a name; it changes nothing.
    isocket : zmq.Socket
        The frontend.
    osocket : zmq.Socket or int
        The backend; -1 for the same socket.
    **settings : Any
        The keywords of `zdev.device`.

    Raises
    ------
    zmq.ZMQError, TypeError, ValueError, RuntimeError
        As for `zdev.device`.

    Notes
    -----
    As for `proxy`.
    """
    if isinstance(osocket, int) and osocket == -1:
        osocket = isocket
    return _device(device_type, isocket, osocket, **settings)  # type: ignore[arg-type]
