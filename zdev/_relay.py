"""The relay: two or three sockets, two directions, one control state."""

from __future__ import annotations

import functools
import os
import sys
from typing import Any, Callable

import zmq

from zdev import _engines, _sockets
from zdev._arguments import (
    DEFAULT_BURST,
    WARN_AFTER,
    CapturePolicy,
    Overflow,
    Prefix,
    check_burst,
    check_flag,
    check_no_copies,
    check_overflows,
    check_policy,
    check_prefix,
    check_watching,
)
from zdev._aside import aside
from zdev._asked import Asked
from zdev._calls import Calls
from zdev._connections import OnConnection, Watch
from zdev._contract import FINISHED, STEPPED, Settings, raise_for
from zdev._notices import Notices
from zdev._signals import DeferredSignals
from zdev._stops import Stops
from zdev._tasks import unwatched
from zdev._times import LONG_WAIT, SHORT_PATIENCE, SIGNAL_LOOK, milliseconds
from zdev._voice import Voice
from zdev._wakeup import Wakeup

__all__ = ["DEFAULT_BURST", "WARN_AFTER", "CapturePolicy", "Overflow", "Prefix", "Relay"]

LATE_HANDLERS = sys.implementation.name == "pypy"


class Relay(Asked):
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
    overflow : {"park", "drop"}
        What becomes of a message that its destination refuses, which is full or has no peer:
        "park" (the default) keeps it and reads no more from its source until there is room;
        "drop" drops it whole and at once, counts it as ``overflowed``, and reads on. The log has
        a warning when that begins, and another, with the number, when it has ended.
    in_overflow, out_overflow : {"park", "drop"}, optional
        The same for messages from the frontend, which the backend refuses, and for messages from
        the backend, which the frontend refuses. By default (None) as `overflow` says.
    burst : int
        Messages that one direction may relay before it is the other's turn, up to 10000.
    swap : bool, optional
        Send ``[from, to, ...]`` on as ``[to, from, ...]``, so that the peers of two ROUTER sockets
        can address each other. By default (None), when both ends are ROUTER.
    only_first_subscribe : bool
        Whether the relay's XSUB sockets have ZMQ_ONLY_FIRST_SUBSCRIBE, which libzmq does not tell.
        A message for an XSUB in which a frame subscribes to more than 2048 bytes is dropped; with
        this, only if its first frame subscribes.
    warn_after : float or None
        Seconds that a direction may wait for its destination or for the capture until the logger
        ``zdev`` warns of it, once, and says what can be done; there is a line more when it flows
        again. None: never.
    watch_connections : bool
        Whether to count the connections of each socket, for `connections`, from now on until a run
        or a step ends it, and in each later run. It costs a thread and two sockets for each socket,
        which has a monitor meanwhile (zmq_socket_monitor(3)) and can have no other; if the relay is
        never run, until it is closed or its ``disable_monitor`` is called.
    on_connection : callable, optional
        With that, called with the role of a socket ("frontend", "backend", "capture" or "control"),
        a ``zmq.Event`` and an address, as each comes, in another thread; what it raises is logged.

    Raises
    ------
    TypeError
        For what is no socket, prefix, burst or callable.
    ValueError
        For socket types that cannot go together, or cannot serve in their role; for unknown
        policies; for what is said of the copies where there is no capture, or `on_connection` where
        nothing is watched.
    RuntimeError
        For a socket to watch that has a monitor already, as far as that can be known: by pyzmq's
        ``get_monitor_socket`` or by zdev, not by ``monitor``, whose events would end then.
    zmq.ZMQError
        ENOTSOCK, for a closed socket.

    Notes
    -----
    `stop`, `pause`, `resume`, `statistics`, `connections` and `call` may be called from any thread
    and from signal handlers. `run` and `step` belong to one thread at a time.
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
        overflow: Overflow = "park",
        in_overflow: Overflow | None = None,
        out_overflow: Overflow | None = None,
        burst: int = DEFAULT_BURST,
        swap: bool | None = None,
        warn_after: float | None = WARN_AFTER,
        only_first_subscribe: bool = False,
        watch_connections: bool = False,
        on_connection: OnConnection = None,
    ) -> None:
        front, back, side, steer = self._roles
        ends = _sockets.join(self._roles, frontend, backend, capture, control)
        only_first = check_flag(only_first_subscribe, "only_first_subscribe")
        if swap is None:
            swap = ends[front].type == ends[back].type == zmq.ROUTER
        swap = check_flag(swap, "swap", "a bool or None")
        capture_drop = check_policy(capture_policy, "capture_policy", "block")
        drops = check_overflows(overflow, in_overflow, out_overflow)
        prefixes = check_prefix(in_prefix, "in_prefix"), check_prefix(out_prefix, "out_prefix")
        burst = check_burst(burst)
        watches = check_watching(watch_connections, on_connection)
        if capture is None:
            given = {"in_prefix": in_prefix, "out_prefix": out_prefix}
            given["capture_policy"] = capture_policy if capture_drop else None
            check_no_copies(given, side)
        self._voice = Voice(self._roles, ends)
        self._notices = Notices(self._voice, ends, drops, warn_after)
        engine = _engines.current()
        # After all that may raise: it holds descriptors, and no signal may come before it is known.
        with DeferredSignals():
            self._wakeup = Wakeup()
        settings = Settings(
            frontend=ends[front],
            backend=ends[back],
            capture=ends.get(side),
            control=ends.get(steer),
            in_prefix=prefixes[0],
            out_prefix=prefixes[1],
            swap=swap,
            in_drop=drops[0],
            out_drop=drops[1],
            capture_drop=capture_drop,
            burst=burst,
            wakeup_fd=self._wakeup.waited_fd,
            long_wait=milliseconds(LONG_WAIT),
        )
        self._ends = ends
        self._claimed = _sockets.ordered(ends)
        self._loop = engine.loop(settings)
        self._loop.only_first = only_first
        self._calls = Calls(self._wakeup)
        self._pid = os.getpid()
        self._stops = Stops(ends[front], ends[back])
        self._watch: Watch | None = None
        if watches:
            self._watch = Watch(self._voice, on_connection)
            try:
                with DeferredSignals():
                    self._watch.begin(self._ends)
            except BaseException:
                self._watch.stop()
                self._watch.join(SHORT_PATIENCE)
                self._retire()
                raise

    def __repr__(self) -> str:
        state = ["running", *self._notices.waits] if self._calls.is_running else ["idle"]
        return f"<{type(self).__name__} of {self._voice.kinds}, {', '.join(state)}>"

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
        is_over = False
        left: list[None] = []  # not empty once something was thrown into the task that waits

        def body() -> None:
            nonlocal is_over
            self._within(functools.partial(self._run, left), waits=True)
            is_over = True

        def leave() -> None:
            left.append(None)
            self._wakeup.wake()

        try:
            # A copy, made in one go: until this thread has the loop, others may let sockets join.
            ends = tuple(self._ends.values())
            with unwatched(end.socket for end in ends):
                self._wanting(lambda: aside(body, leave, self._voice.name))
        except BaseException:
            if is_over:  # as in `_within`
                self._stops.add(None)
            raise

    def step(self) -> int | None:
        """Relay what is there, a burst per direction at most, without blocking.

        For users with an event loop of their own, which `fileno` tells when to call it. Without
        that, call it when the ``ZMQ_FD`` of a socket is readable, and again until it returns 0;
        also once it is made, after `resume`, `stop` and a `call` that uses a socket, which such a
        loop cannot see, and when the time of a drain is up. While a message is parked that a ROUTER
        with ROUTER_MANDATORY or an XPUB with XPUB_NODROP refused, call it every now and then too:
        whether these have room, their descriptors do not always tell.

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
        # An idle step costs little this way: the loop is not taken, nor signals deferred.
        may_be_idle = self._watch is None or self._watch.is_on
        if self._descriptor is not None and self._descriptor.is_due():
            may_be_idle = False
        moved: int | None
        try:
            # Where no visit can be made, bool() says no.
            if may_be_idle and not self._stops and self._calls.visit(self._is_stuck, bool):
                moved = 0
            else:
                moved = self._within(self._step, waits=False)
            if moved is None:
                self._want_step()  # for what it leaves
        except BaseException:  # a handler's: what it has interrupted may have taken a sign
            self._want_step()
            raise
        return moved

    def _within(self, body: Callable[[DeferredSignals], int | None], *, waits: bool) -> int | None:
        """Have the loop and the sockets for this thread while something runs.

        It returns None if it was stopped. Should something else end it after that, such as a signal
        handler that raises, the next run is stopped instead.
        """
        self._check_process()
        stopped = False
        try:
            with DeferredSignals(self._wakeup, waits) as signals:
                self._calls.enter(signals)
                try:
                    _sockets.claim(self._claimed, self)
                    moved = self._watched(body, signals)
                    stopped = moved is None
                finally:
                    try:
                        self._calls.leave(signals, self._release)
                    finally:
                        if self._watch is not None:  # not before: who is told may ask something
                            self._watch.join(SHORT_PATIENCE)
        except BaseException:
            if stopped:
                self._stops.add(None)
            raise
        return moved

    def _watched(
        self, body: Callable[[DeferredSignals], int | None], signals: DeferredSignals
    ) -> int | None:
        """Have the connections watched while something runs, and no more when it stops or fails."""
        if self._watch is None:
            return body(signals)
        moved: int | None = None
        try:
            self._watch.begin(self._ends)
            moved = body(signals)
        finally:
            if moved is None:
                self._watch.stop()
        return moved

    def _run(self, left: list[None], signals: DeferredSignals) -> None:
        self._stops.last = None
        longest = -1 if signals.owns_wakeup else milliseconds(SIGNAL_LOOK)
        code: int | None = None
        try:
            while True:
                # PyPy may run a handler long after its signal, whose wake-up is gone then.
                if self._attend(signals) and LATE_HANDLERS:
                    longest = milliseconds(SIGNAL_LOOK)
                if left:
                    raise RuntimeError("who waits for this run is interrupted")  # with that
                if self._obey_stop():
                    return
                paused = self._loop.paused
                if code is not None:
                    self._notices.look(self._loop.statistics, paused=paused)
                bound = self._stops.wait(self._notices.bound(longest, paused=paused))
                code = self._loop.run(bound)
                if code == FINISHED:
                    return
                raise_for(code)
                self._stops.look(self._loop, is_dry=code == STEPPED)
        finally:
            self._notices.end(self._loop.statistics)

    def _step(self, signals: DeferredSignals) -> int | None:
        self._attend(signals)
        if self._obey_stop():
            return None
        code = self._loop.run(0)
        if code == FINISHED:
            return None
        raise_for(code)
        self._stops.look(self._loop, is_dry=code == STEPPED, waits=False)
        if self._obey_stop():
            return None
        self._notices.look(self._loop.statistics, paused=self._loop.paused, is_dry=code == STEPPED)
        moved = max(code - STEPPED, 0)
        if self._descriptor is not None:
            self._descriptor.rest(moved)
        return moved

    def _is_stuck(self) -> bool:
        """Tell whether nothing can move: the answer of most steps, without the rest of their work.

        Handlers may raise in here.
        """
        self._check_usable()
        # Nothing is returned from within: a handler that raises between the answer and the
        # ``finally`` would leave the sockets claimed.
        is_released = False
        try:
            try:
                _sockets.claim(self._claimed, self)
                may_move = self._loop.look() != 0
            finally:
                self._release()
                is_released = True
        finally:  # a handler may have raised just before that
            if not is_released:
                self._release()
        return not may_move and not self._stops  # nor was it stopped meanwhile

    def _attend(self, signals: DeferredSignals) -> bool:
        """Do what the relay was woken for; tell whether a signal came."""
        signalled = bool(self._wakeup.drain())
        signals.deliver()
        self._calls.obey(signals)
        self._check_usable()  # handlers and calls may have closed a socket, or forked
        return signalled

    def _check_usable(self) -> None:
        """Raise if the process or the sockets are not what they were."""
        self._check_process()
        for role, end in self._ends.items():
            if end.socket.closed:
                _sockets.check_open(end.socket, role)

    def _release(self) -> None:
        _sockets.release(self._ends, self)

    def _join(self, role: str, socket: zmq.Socket[Any]) -> None:
        """Take in a capture or control socket that was LATER. On the relay's own thread."""
        is_capture = role == self._roles[2]
        kinds = _sockets.CAPTURES if is_capture else _sockets.CONTROLS
        end = _sockets.join_later(role, socket, kinds, self._ends)
        _sockets.claim({role: end}, self)
        self._ends[role] = end
        self._claimed = _sockets.ordered(self._ends)
        self._loop.join(end if is_capture else None, None if is_capture else end)

    def _use_capture(self, used: bool) -> None:
        """Give the capture socket copies, or do without it. On the relay's own thread."""
        self._loop.copies(used)

    def _retire(self) -> None:
        """Close the relay's own descriptors; it cannot run any more.

        Else they are closed with the last reference, which an error's traceback may hold, and not
        before the garbage collector comes where references are not counted.
        """
        self._wakeup.close()
        if self._descriptor is not None:
            self._descriptor.close()

    def _obey_stop(self) -> bool:
        """Tell whether to stop now, and log what a drain has left."""
        is_over = self._stops.obey(self._loop)
        if is_over and self._stops.last is not None and self._voice.tells_drains:
            self._stops.last.warn(self._voice.log, self._voice.name)
        return is_over
