"""The four functions for an event loop: each relays in a thread of its own until it is cancelled.

A socket of `zmq.asyncio` has its event loop look at it whenever its descriptor shows something.
While the thread has the socket, that would be a second one at it, which libzmq forbids: the event
loop is made to leave it alone, as one that was never awaited, and takes it up again with the next
receive or send. pyzmq has no public way for that; `_LoopSocket` says what is used of it.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Callable, Protocol, TypeVar, cast

import zmq

from zdev import _functions, _sockets
from zdev._contract import End
from zdev._relay import Relay
from zdev._threads import get_ident

from ._libraries import let_others_run
from ._threads import in_thread

if TYPE_CHECKING:
    from typing_extensions import ParamSpec

    P = ParamSpec("P")

__all__ = ["device", "monitored_queue", "proxy", "proxy_steerable"]

T = TypeVar("T")


class _Relaying:
    """One of the functions in its thread, whose relay can be stopped."""

    def __init__(self, function: Callable[[], int]) -> None:
        self._function = function
        self._thread = 0
        self._relay: Relay | None = None
        self._is_over = False

    def run(self) -> int:
        """Relay, in this thread."""
        self._thread = get_ident()
        _sockets.watch(self._meet)
        try:
            return self._function()
        finally:
            _sockets.unwatch(self._meet)

    def _meet(self, relay: Relay, _: Mapping[str, End]) -> None:
        """Get to know the relay, when it comes to use its sockets."""
        if get_ident() == self._thread:
            _sockets.unwatch(self._meet)
            self._relay = relay
            if self._is_over:
                relay.stop()

    def stop(self) -> None:
        """Have it return soon; from any thread, also before it relays."""
        self._is_over = True
        if self._relay is not None:
            self._relay.stop()


class _LoopSocket(Protocol):
    """What is used of a socket of `zmq.asyncio`, whose class has had it since pyzmq 15."""

    _current_loop: asyncio.AbstractEventLoop | None
    _recv_futures: Iterable[Any] | None
    _send_futures: Iterable[Any] | None

    def _clear_io_state(self) -> None: ...


def _loop_sockets(arguments: Mapping[str, Any]) -> Iterator[tuple[str, _LoopSocket]]:
    for role, socket in arguments.items():
        if isinstance(socket, zmq.Socket) and hasattr(socket, "_clear_io_state"):
            yield role, cast("_LoopSocket", socket)


def _check_idle(role: str, socket: _LoopSocket) -> None:
    """Raise if an event loop has something to do with a socket, other than to look at it."""
    for what, futures in (("receive", socket._recv_futures), ("send", socket._send_futures)):
        if any(not each.future.done() for each in futures or ()):
            raise RuntimeError(
                f"{role} is in use: a {what} of it is awaited; cancel that first, since a relay "
                "has its sockets for itself"
            )
    loop = socket._current_loop
    if loop is None or loop.is_closed():
        return
    try:
        here: Any = asyncio.get_running_loop()
    except RuntimeError:
        here = None
    if loop is not here:
        raise RuntimeError(
            f"{role} is in use by another event loop; make a socket for this one, or a plain "
            "zmq.Socket"
        )


async def _take_from_loop(function: Callable[..., int], args: Any, kwargs: Any) -> None:
    """Have the event loop leave alone those sockets that are its own."""
    try:
        given = inspect.signature(function).bind(*args, **kwargs).arguments
    except TypeError as error:
        raise TypeError(f"{function.__name__}(): {error}") from None
    sockets = dict(_loop_sockets(given))
    for role, socket in sockets.items():
        _check_idle(role, socket)
    for socket in sockets.values():
        socket._clear_io_state()
        socket._current_loop = None
    if sockets:  # and what it has put off to its next turns, it does before the thread begins
        await let_others_run()


def _awaited(function: Callable[P, int]) -> Callable[P, Coroutine[Any, Any, int]]:
    """Make the function for an event loop of one that blocks."""

    @functools.wraps(function)
    async def relay(*args: P.args, **kwargs: P.kwargs) -> int:
        await _take_from_loop(function, args, kwargs)
        relaying = _Relaying(functools.partial(function, *args, **kwargs))
        return await in_thread(relaying.run, f"zdev-{function.__name__}", interrupt=relaying.stop)

    relay.__doc__ = f"""Relay as `zdev.{function.__name__}` does, in a thread of its own.

    The parameters and the errors are those of `zdev.{function.__name__}`; the sockets may be plain
    ones or those of `zmq.asyncio`, as long as nothing awaits these.

    Returns
    -------
    int
        0 after TERMINATE, where there is a control socket; else it does not return.

    Raises
    ------
    zmq.ContextTerminated
        When the context of a socket is terminated.
    RuntimeError
        If a socket is in use, be it by a receive that a task awaits.
    zmq.ZMQError, TypeError, ValueError
        As `zdev.{function.__name__}`.

    Notes
    -----
    Until it has ended, nobody else may use the sockets. A cancellation stops it, and is raised when
    the thread has ended: then the sockets can be used again. A message that is parked in it at that
    moment, at most one for each direction, is lost, and a warning of the logger ``zdev`` tells.
    """
    return relay


proxy = _awaited(_functions.proxy)
device = _awaited(_functions.device)
proxy_steerable = _awaited(_functions.proxy_steerable)
monitored_queue = _awaited(_functions.monitored_queue)
