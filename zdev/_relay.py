"""The relay: two or three sockets, two directions, one control state."""

from __future__ import annotations

import math
import operator
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from typing import Any, Callable, Literal, TypeVar, Union

import zmq

from zdev import _engines
from zdev._contract import FINISHED, STEPPED, WOKEN, End, Settings, Statistics, raise_for
from zdev._wakeup import DeferredSignals, Wakeup

__all__ = ["DEFAULT_BURST", "CapturePolicy", "Prefix", "Relay"]

T = TypeVar("T")
Prefix = Union[bytes, bytearray, memoryview, str, None]
CapturePolicy = Literal["block", "drop"]

DEFAULT_BURST = 64
# A burst is not interrupted: more would delay stop() and Ctrl-C noticeably.
MAX_BURST = 10_000

# Milliseconds between looks for signals, where an event loop owns the wake-up descriptor.
SIGNAL_TIMEOUT = 100

CANNOT_SEND = {zmq.SUB, zmq.PULL}
CANNOT_RECEIVE = {zmq.PUB, zmq.PUSH}
STABLE = {
    zmq.PAIR, zmq.PUB, zmq.SUB, zmq.REQ, zmq.REP, zmq.DEALER,
    zmq.ROUTER, zmq.PULL, zmq.PUSH, zmq.XPUB, zmq.XSUB, zmq.STREAM,
}  # fmt: skip
CAPTURES = {zmq.PUB, zmq.XPUB, zmq.PUSH, zmq.PAIR, zmq.DEALER, zmq.ROUTER}
CONTROLS = {
    zmq.PAIR, zmq.REP, zmq.ROUTER, zmq.DEALER, zmq.PULL, zmq.SUB, zmq.XSUB, zmq.XPUB
}  # fmt: skip

# Milliseconds between looks at what is parked, while draining.
DRAIN_TICK = 20

# Seconds without a message after which a drain is over: libzmq's threads may have some in hand that
# no socket shows yet.
DRAIN_QUIET = 0.1

NOW = -math.inf

# Seconds after which a relay that ends looks again for what it was asked meanwhile.
LOOK = 0.05

# Which relay uses which socket right now, by the socket's handle. Its operations are atomic: a
# lock that another thread holds at a fork would stay locked in the child.
_in_use: dict[int, Relay] = {}


# Whom to tell about the relay that comes to use a socket, by the socket's handle.
_awaited: dict[int, Callable[[Relay], None]] = {}


def expect(handle: int, tell: Callable[[Relay], None] | None) -> None:
    """Be told of the relay that begins to use the socket of that handle; with None, no more."""
    if tell is None:
        _awaited.pop(handle, None)
    else:
        _awaited[handle] = tell


def _name(kind: int) -> str:
    return zmq.SocketType(kind).name


def _names(kinds: set[zmq.SocketType]) -> str:
    return ", ".join(sorted(kind.name for kind in kinds))


def _end(socket: Any, role: str) -> End:
    """Check one socket; what is wrong with it is said in the terms of its role."""
    if not isinstance(socket, zmq.Socket):
        raise TypeError(
            f"{role} must be a zmq.Socket, not {type(socket).__name__}; "
            "make one with zmq.Context().socket(...)"
        )
    _check_open(socket, role)
    kind = int(socket.getsockopt(zmq.TYPE))
    if kind not in STABLE:
        raise ValueError(
            f"{role} is of socket type {kind}, which libzmq offers as a draft only; "
            f"a device takes {_names(STABLE)}"
        )
    return End(socket, int(socket.underlying), kind, int(socket.getsockopt(zmq.FD)))


def _check_open(socket: zmq.Socket[Any], role: str) -> None:
    if socket.closed:
        raise zmq.ZMQError(
            zmq.ENOTSOCK, f"{role} is closed; a device needs its sockets open until it has ended"
        )


def _check_pair(ends: dict[str, End]) -> None:
    """Check that messages can go from one to the other, either way."""
    (in_role, one), (out_role, other) = ends.items()
    if one.handle == other.handle:
        if one.type in CANNOT_SEND | CANNOT_RECEIVE | {zmq.REQ}:
            raise ValueError(
                f"a {_name(one.type)} socket cannot be both {in_role} and {out_role}: "
                "it does not receive and then send; REP, ROUTER, DEALER or PAIR can"
            )
        return
    kinds = f"{in_role} and {out_role} are {_name(one.type)} and {_name(other.type)}"
    there = one.type not in CANNOT_RECEIVE and other.type not in CANNOT_SEND
    back = other.type not in CANNOT_RECEIVE and one.type not in CANNOT_SEND
    if not there and not back:
        raise ValueError(
            f"{kinds}: no message can go from one to the other; "
            "one must receive and the other send, as PULL and PUSH or XSUB and XPUB do"
        )
    types = {one.type, other.type}
    if types in ({zmq.REQ}, {zmq.REP}):
        raise ValueError(f"{kinds}: each waits for the other to send first; REP goes with REQ")
    if types & {zmq.REQ, zmq.REP} and types & CANNOT_RECEIVE:
        raise ValueError(
            f"{kinds}: REQ and REP must send between two receives, and nothing comes back for "
            "them to send; use DEALER or ROUTER"
        )
    if zmq.REP in types and types & CANNOT_SEND:
        raise ValueError(
            f"{kinds}: REP sends nothing but replies, and its requests can go nowhere; "
            "use DEALER or ROUTER"
        )


def _check_side(role: str, end: End, kinds: set[zmq.SocketType], others: dict[str, End]) -> None:
    """Check the capture or the control socket."""
    if end.type not in kinds:
        raise ValueError(
            f"{role} is a {_name(end.type)} socket, which cannot serve as one; use {_names(kinds)}"
        )
    for other_role, other in others.items():
        if end.handle == other.handle:
            raise ValueError(f"{role} is also the {other_role}; give it a socket of its own")


def _prefix(prefix: Any, name: str) -> bytes | None:
    if prefix is None or isinstance(prefix, bytes):
        return prefix
    if isinstance(prefix, str):
        return prefix.encode()
    try:
        return memoryview(prefix).tobytes()
    except TypeError:
        raise TypeError(
            f"{name} must be bytes, another buffer, str (sent as UTF-8) or None (no prefix frame), "
            f"not {type(prefix).__name__}"
        ) from None


def _burst(burst: Any) -> int:
    try:
        number = operator.index(burst)
    except TypeError:
        raise TypeError(f"burst must be an int, not {type(burst).__name__}") from None
    if not 1 <= number <= MAX_BURST:
        raise ValueError(f"burst must be from 1 to {MAX_BURST} messages, not {number}")
    return number


def check_seconds(value: Any, name: str) -> float:
    """Return a number of seconds, or raise what is wrong with it."""
    if isinstance(value, str) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a number of seconds or None, not {type(value).__name__}")
    seconds = float(value)
    if math.isnan(seconds):
        raise ValueError(f"{name} must be a number of seconds or None, not {seconds}")
    return seconds


class Relay:
    """Moves whole messages between two sockets, in both directions that their types allow.

    A relay borrows its sockets: it never closes them, and while it runs nobody else may use them.
    No message is split, merged, reordered or silently lost in it; what it could not deliver is
    counted in `statistics`. A request that a REP took and that can go nowhere is replied to with an
    empty frame.

    Parameters
    ----------
    frontend, backend : zmq.Socket
        The two ends; they may be one and the same socket.
    capture : zmq.Socket, optional
        Gets a copy of every message sent on, as ``[prefix, *frames as sent on]``.
    in_prefix, out_prefix : bytes, buffer, str or None
        First frame of the copies of what came from the frontend, from the backend. ``str`` is sent
        as UTF-8; None (the default) means that there is no such frame.
    control : zmq.Socket, optional
        Takes PAUSE, RESUME, TERMINATE and STATISTICS, as zmq_proxy_steerable(3) has them.
    capture_policy : {"block", "drop"}
        What to do while the capture socket is full or has no peer: "block" (the default) lets that
        direction wait, so that the capture is complete; "drop" drops the copy, whole, and counts
        it. With "drop" not even a failing capture socket stops the traffic, unless it is closed
        meanwhile. ``ZMQ_SNDTIMEO`` plays no part: a relay never blocks in a send.
    burst : int
        Messages that one direction may relay before it is the other's turn, up to 10000.
    swap : bool, optional
        Send ``[from, to, ...]`` on as ``[to, from, ...]``, so that the peers of two ROUTER sockets
        can address each other. By default (None), when both ends are ROUTER.

    Raises
    ------
    TypeError
        For what is no socket, prefix or burst.
    ValueError
        For socket types that cannot go together, or cannot serve in their role.
    zmq.ZMQError
        ENOTSOCK, for a closed socket.

    Notes
    -----
    `stop`, `pause`, `resume`, `statistics` and `call` may be called from any thread and from signal
    handlers. `run` and `step` belong to one thread at a time.
    """

    # What errors call the sockets.
    _roles = ("frontend", "backend", "capture", "control")

    def __init__(
        self,
        frontend: zmq.Socket[Any],
        backend: zmq.Socket[Any],
        capture: zmq.Socket[Any] | None = None,
        *,
        in_prefix: Prefix = None,
        out_prefix: Prefix = None,
        control: zmq.Socket[Any] | None = None,
        capture_policy: CapturePolicy = "block",
        burst: int = DEFAULT_BURST,
        swap: bool | None = None,
    ) -> None:
        front, back, side, steer = self._roles
        ends = {front: _end(frontend, front), back: _end(backend, back)}
        _check_pair(ends)
        if swap is None:
            swap = ends[front].type == ends[back].type == zmq.ROUTER
        for role, socket, kinds in ((side, capture, CAPTURES), (steer, control, CONTROLS)):
            if socket is not None:
                end = _end(socket, role)
                _check_side(role, end, kinds, ends)
                ends[role] = end
        if capture_policy not in ("block", "drop"):
            raise ValueError(f'capture_policy must be "block" or "drop", not {capture_policy!r}')

        prefixes = _prefix(in_prefix, "in_prefix"), _prefix(out_prefix, "out_prefix")
        burst = _burst(burst)
        self._wakeup = Wakeup()  # last: until it is collected, it holds descriptors
        settings = Settings(
            frontend=ends[front],
            backend=ends[back],
            capture=ends.get(side),
            control=ends.get(steer),
            in_prefix=prefixes[0],
            out_prefix=prefixes[1],
            swap=bool(swap),
            capture_drop=capture_policy == "drop",
            burst=burst,
            wakeup_fd=self._wakeup.waited_fd,
        )
        self._ends = ends
        self._loop = _engines.current.loop(settings)
        self._pid = os.getpid()
        self._stops: list[float] = []  # when to stop, of time.monotonic; the earliest counts
        self._dry_since = NOW  # likewise: a drain has taken nothing more
        self._taken = -1
        # Who has the loop: the thread that runs it, or that makes an idle relay do something.
        # Reentrant, since a signal handler may come while its own thread is inside.
        self._free = threading.Condition(threading.RLock())
        self._owner: int | None = None
        self._running = False
        self._commands: deque[tuple[Callable[[], Any], Future[Any], bool]] = deque()

    def __repr__(self) -> str:
        one, other, *_ = self._ends.values()
        state = "running" if self._running else "idle"
        return f"<{type(self).__name__} of {_name(one.type)} and {_name(other.type)}, {state}>"

    # Whose it is

    @contextmanager
    def _entered(self, waits: bool) -> Iterator[tuple[DeferredSignals, Callable[..., bool]]]:
        """Be in `run` or `step`: with the signals, and what tells whether to stop now."""
        honoured = False

        def honour(terminated: bool = False) -> bool:
            nonlocal honoured
            count = len(self._stops)
            if terminated:
                honoured = True
            elif count > 0 and self._left() > 0:
                self._loop.paused = False  # a drain ends a pause
            elif count > 0:
                raise_for(self._loop.flush())
                honoured = True
                del self._stops[:count]
            return honoured

        try:
            with DeferredSignals(self._wakeup, waits) as signals, self._ownership(signals):
                yield signals, honour
        except BaseException:
            if honoured:
                self._stops.append(NOW)  # something else has ended this
            raise

    @contextmanager
    def _ownership(self, signals: DeferredSignals) -> Iterator[None]:
        """Have the loop and the sockets for this thread."""
        self._check_process()
        me = threading.get_ident()
        while True:
            signals.deliver()
            with self._free:
                if self._owner is None:
                    self._claim()
                    self._owner, self._running = me, True
                    break
                if self._running or self._owner == me:
                    raise RuntimeError("this relay is running already; stop it first")
                self._free.wait(LOOK)
        try:
            yield
        finally:
            self._let_go(signals)

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise RuntimeError(
                "this relay was made in another process; "
                "a ZeroMQ socket does not survive fork, make both anew"
            )

    def _check_usable(self) -> None:
        """Raise if the process or the sockets are not what they were."""
        self._check_process()
        for role, end in self._ends.items():
            _check_open(end.socket, role)

    def _claim(self) -> None:
        """Enter the sockets as in use, or say which is."""
        # In one order, lest two relays that share sockets refuse each other.
        for role, end in sorted(self._ends.items(), key=lambda item: item[1].handle):
            if _in_use.setdefault(end.handle, self) is not self:
                self._release()
                raise RuntimeError(
                    f"{role} is in use by another running relay; "
                    "a ZeroMQ socket belongs to one thread at a time"
                )
        for tell in {_awaited[end.handle] for end in self._ends.values() if end.handle in _awaited}:
            tell(self)

    def _release(self) -> None:
        for end in self._ends.values():
            if _in_use.get(end.handle) is self:
                del _in_use[end.handle]

    def _let_go(self, signals: DeferredSignals) -> None:
        """Let others have the loop, once nothing waits for this thread any more."""
        try:
            while self._owner == threading.get_ident():
                self._obey(signals)
                # Not for ever: a signal handler may have come to a thread that has the lock, and
                # wait for a call of its own.
                if not self._free.acquire(timeout=LOOK):
                    continue
                try:
                    if not self._commands:
                        self._release()
                        self._owner, self._running = None, False
                        self._free.notify_all()
                        return
                finally:
                    self._free.release()
        except BaseException:  # a handler has interrupted what runs for another thread
            self._let_go(signals)
            raise

    def _obey(self, signals: DeferredSignals) -> None:
        """Run what `call` left for the relay's own thread."""
        while self._commands:
            function, future, interruptible = self._commands.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = signals.call(function) if interruptible else function()
            except BaseException as error:
                future.set_exception(error)
                del function, future  # lest the traceback and they keep each other alive
                if interruptible and signals.interrupted:
                    raise
            else:
                future.set_result(result)

    # Relaying

    def run(self) -> None:
        """Relay until `stop` or TERMINATE, and block meanwhile.

        A message that a full peer refuses is parked in the relay; it stays there when this returns
        or raises, and the next `run` or `step` goes on with it. Called in the main thread, it lets
        signal handlers run between two messages; one that raises ends it.

        Raises
        ------
        zmq.ContextTerminated
            If the context of a socket is terminated.
        zmq.ZMQError
            If a socket fails.
        RuntimeError
            If this relay is running already, or another running relay holds one of its sockets.
        KeyboardInterrupt
            On Ctrl-C, in the main thread.
        """
        with self._entered(waits=True) as (signals, honour):
            timeout = -1 if signals.owns_wakeup else SIGNAL_TIMEOUT
            code = WOKEN
            while True:
                # PyPy may run a handler only a while after its signal, whose wake-up is gone then.
                signalled = self._attend(signals)
                if honour():
                    return
                wait = self._until_stop(SIGNAL_TIMEOUT if signalled else timeout)
                if code == STEPPED and wait == 0:
                    wait = self._quiet_timeout()
                code = self._loop.run(wait)
                if code == FINISHED and honour(terminated=True):
                    return
                raise_for(code)
                self._end_drain(code, DRAIN_QUIET)

    def step(self) -> int | None:
        """Relay what is there, a burst per direction at most, without blocking.

        For users with an event loop of their own: call it when the ``ZMQ_FD`` of a socket is
        readable, and again until it returns 0; also once it is made, and after `resume`, `stop`
        and a `call` that uses a socket, which such a loop cannot see. While a message is parked
        that a ROUTER with ROUTER_MANDATORY or an XPUB with XPUB_NODROP refused, call it every now
        and then too: whether these have room, their descriptors do not always tell.

        Returns
        -------
        int or None
            How much moved: messages taken, parked messages sent, commands served. 0 means that
            nothing can until a socket's ``ZMQ_FD`` is readable (but see above). None after `stop`
            or TERMINATE.

        Raises
        ------
        zmq.ZMQError, RuntimeError, KeyboardInterrupt
            As `run` does.
        """
        with self._entered(waits=False) as (signals, honour):
            self._attend(signals)
            if honour():
                return None
            code = self._loop.run(0)
            raise_for(code)
            self._end_drain(code, 0)
            if honour(terminated=code == FINISHED):
                return None
            return max(code - STEPPED, 0)

    def _attend(self, signals: DeferredSignals) -> bool:
        """Do what the relay was woken for; tell whether a signal came."""
        signalled = bool(self._wakeup.drain())
        signals.deliver()
        self._obey(signals)
        self._check_usable()  # handlers and calls may have closed a socket, or forked
        return signalled

    def _parked(self) -> int:
        """Return how many messages wait in the relay."""
        there, back, capture = self._loop.statistics()
        return there.parked + back.parked + capture.parked

    def _left(self) -> float:
        """Return the seconds until it is time to stop."""
        return min(self._stops) - time.monotonic()

    def _until_stop(self, timeout: int) -> int:
        """Return how many milliseconds the loop may take."""
        if not self._stops:
            return timeout
        left = min(max(self._left() * 1000, 0), DRAIN_TICK)
        # A step tells whether anything is left; what is parked wants a wait.
        return math.ceil(left) if self._parked() else 0

    def _end_drain(self, code: int, quiet: float) -> None:
        """End a drain that has found nothing to do for so many seconds."""
        if not self._stops:
            return
        now = time.monotonic()
        there, back, _ = self._loop.statistics()
        taken = there.messages_received + back.messages_received
        parked = self._parked()
        if taken != self._taken or parked:
            self._taken, self._dry_since = taken, now
        if code == STEPPED and not parked and now >= self._dry_since + quiet:
            self._stops.append(NOW)

    def _quiet_timeout(self) -> int:
        """Return for how many milliseconds a drain that found nothing waits for more."""
        left = self._dry_since + DRAIN_QUIET - time.monotonic()
        if self._stops:
            left = min(left, self._left())
        return math.ceil(max(left * 1000, 1))

    def retire(self) -> None:
        """Close the relay's own descriptors; it cannot run any more.

        Else they are closed with the last reference, which an error's traceback may hold, and not
        before the garbage collector comes where references are not counted.
        """
        self._wakeup.close()

    # Control

    def stop(self, drain: float | None = None) -> None:
        """Make `run` return, now or, if it is not running, when it is next called.

        From any thread, or a signal handler; it does not wait.

        Parameters
        ----------
        drain : float, optional
            Go on for at most so many seconds, until nothing has been left to relay for a moment;
            this ends a pause. It does not unbind: libzmq would cut the peers off, with what they
            have sent. By default, what is parked is tried once more and the rest stays in the
            sockets. Of several stops, the one that ends the relay first counts.

        Raises
        ------
        TypeError, ValueError
            If that is no number.
        """
        self._check_process()
        at = NOW if drain is None else time.monotonic() + check_seconds(drain, "drain")
        self._taken = -1
        self._stops.append(at)
        self._wakeup.wake()

    def pause(self) -> None:
        """Move nothing more until `resume`; control, `stop` and `call` go on.

        From any thread. When it returns, the relay is paused.
        """
        self._call(lambda: setattr(self._loop, "paused", True))

    def resume(self) -> None:
        """End a pause, whoever began it. From any thread."""
        self._call(lambda: setattr(self._loop, "paused", False))

    @property
    def paused(self) -> bool:
        """Whether the relay is paused, by `pause` or by PAUSE."""
        return self._call(lambda: self._loop.paused)

    def statistics(self) -> Statistics:
        """Return a consistent snapshot of what the relay has done since it was made.

        From any thread.
        """
        return self._call(self._loop.statistics)

    def call(self, function: Callable[[], T], timeout: float | None = None) -> T:
        """Run a function on the relay's own thread, between two messages, and return its result.

        That is how to bind, connect or set options of its sockets while it runs. A relay that is
        not running has no thread: then the function runs at once, in this one, and so does what
        others ask for meanwhile. From any thread.

        Parameters
        ----------
        function : callable
            Called without arguments. What it raises is raised here; what a signal handler raises
            that interrupts it in the main thread, there too.
        timeout : float, optional
            Seconds to wait for it.

        Raises
        ------
        TimeoutError
            If it has not been run by then; it will not be, unless it has begun.
        """
        return self._call(function, timeout, interruptible=True)

    def _call(
        self, function: Callable[[], T], timeout: float | None = None, interruptible: bool = False
    ) -> T:
        """Do what `call` does; if it is not interruptible, signal handlers wait for its end."""
        self._check_process()
        me = threading.get_ident()
        if self._owner == me:
            return function()
        future: Future[T] | None = None
        with DeferredSignals(self._wakeup, waits=False) as signals:
            with self._free:
                if self._owner is None:
                    self._owner = me
                else:
                    future = Future()
                    self._commands.append((function, future, interruptible))
            if future is None:
                try:
                    return signals.call(function) if interruptible else function()
                finally:
                    self._let_go(signals)
        try:
            self._wakeup.wake()
            return future.result(timeout)
        except FutureTimeoutError:
            if future.done():  # by now, or the function itself raised it
                return future.result()
            raise TimeoutError(
                f"the relay's thread did not get to the call in {timeout} s; "
                "a call before it takes long"
            ) from None
        finally:
            future.cancel()
            future = None  # lest the traceback and it keep each other alive
