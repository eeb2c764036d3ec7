"""One run of a device, in the process and thread where it relays."""

from __future__ import annotations

import functools
import logging
import math
import time
import weakref
from collections import deque
from collections.abc import Mapping
from typing import Any, Callable

import zmq

from zdev import _sockets
from zdev._connections import Connections, OnConnection, Watch
from zdev._contract import NOTHING, End
from zdev._limits import says_limits
from zdev._relay import Relay
from zdev._stops import StopReport
from zdev._threads import get_ident
from zdev._times import GRACE, PATIENCE, SHORT_PATIENCE, milliseconds

from .progress import OverError, Progress
from .release import await_release
from .resolving import Name
from .stages import Stage
from .wiring import Wiring

__all__ = ["Run"]

ROLES = ("in", "out", "mon", "ctrl")
"""Of the sockets of a relay, in the order in which it takes them."""


class Run(Progress):
    """One run of a device, from its start to its end.

    Parameters
    ----------
    main : callable
        What the device runs until it ends; it may be anything that a subclass puts there.
    close_sockets : callable
        Closes the sockets that the device has made.
    owns_context : bool
        Whether the context is ended with the run.
    is_replaced : bool
        Whether a subclass has a ``run`` or ``run_device`` of its own, which need not come to relay.
    has_process : bool
        Whether the process is there for this run alone, and ends with it.
    watches : bool
        Whether the connections of the sockets are counted, and told of.
    on_connection : callable, optional
        Called with the role, the event and the address.
    *progress, **others : Any
        What `Progress` takes.
    """

    def __init__(
        self,
        *progress: Any,
        main: Callable[[], None],
        close_sockets: Callable[[], None],
        owns_context: bool,
        is_replaced: bool,
        has_process: bool = False,
        io_threads: int | None = None,
        watches: bool = False,
        on_connection: OnConnection = None,
        **others: Any,
    ) -> None:
        super().__init__(*progress, **others)
        self._main = main
        self._close_sockets = close_sockets
        self._owns_context = owns_context
        self._is_replaced = is_replaced
        self._has_process = has_process
        self._io_threads = io_threads
        self.wiring = Wiring(self, Watch(self, on_connection) if watches else None)
        self.context: Any = None
        self.inherited: weakref.WeakSet[zmq.Context[Any]] = weakref.WeakSet()
        """Contexts of the parent, of which a fork has a copy that works no more."""
        self.relay: Relay | None = None
        self._makes_relay = False  # run_device of zdev's own is at work
        self._last_relay: Relay | None = None
        self._subscriptions: dict[str, int] = {}  # held when the relay was left, by role
        self._thread = get_ident()
        self._stops: list[tuple[float | None, float | None]] = []  # asked for: drain and quiet
        self._drain_until: float | None = None  # of time.monotonic
        self._is_terminated = False  # the context is, by others
        self._began_to_close = 0.0  # of time.monotonic
        self._linger_times: list[float] = []  # seconds that each socket's messages get at the end

    # From the start to the relay

    def execute(self) -> None:
        """Run in this thread, from the start to the end, whatever a subclass makes of it.

        `Device.run` enters and ends the run as well, since a program may call that itself, and a
        subclass may go on after it; to do so twice does no harm.
        """
        try:
            self.enter()
            self._main()
        except BaseException as error:
            self.fail(error)
            raise
        finally:
            self.end()

    def perform(self, body: Callable[[], None]) -> None:
        """Run that in this thread, to the end. The end of the context is a clean one."""
        try:
            self.enter()
            body()
        except zmq.ZMQError as error:
            if not self.ends_with_context(error):
                self.fail(error)
                raise
        except BaseException as error:
            self.fail(error)
            raise
        finally:
            self.end()

    def enter(self) -> None:
        """Let this thread be the one of the run."""
        self._thread = get_ident()
        _sockets.watch(self._meet)

    def await_ready(self) -> None:
        """Return when it relays, or has ended.

        What a subclass runs instead of a relay does not say when it has begun. It is ready when it
        has made the sockets, or has not done so within its grace, and gets a moment in which it may
        fail.
        """
        if self._is_replaced and not self.stages.wait(Stage.READY, self.grace):
            self.end_grace()
        if self._makes_relay or not self._is_replaced:
            self.stages.wait(Stage.RELAYING)
        else:
            self.stages.wait(Stage.RELAYING, GRACE)

    @property
    def grace(self) -> float:
        """Seconds in which a subclass may make its sockets, and fail."""
        # With a bind that was asked for, it is about to; whoever starts it may want the endpoint.
        return PATIENCE if any(plan.binds for plan in self.plans.values()) else GRACE

    def end_grace(self) -> None:
        """Take it for ready now, unless it is certain that a relay will come."""
        if self._is_replaced and not self._makes_relay:
            self.reach(Stage.READY)

    def make_context(self, factory: Any) -> zmq.Context[Any]:
        """Return what a context factory makes, or raise what is wrong with it."""
        if not callable(factory):
            raise TypeError(
                "context_factory must be callable, such as zmq.Context or lambda: context, "
                f"not {type(factory).__name__}"
            )
        with says_limits():  # a context has descriptors of its own
            context = factory()
        if not isinstance(context, zmq.Context):
            raise TypeError(
                f"context_factory must return a zmq.Context, not {type(context).__name__}"
            )
        if context in self.inherited:
            raise RuntimeError(
                "context_factory returned a context that was made in another process; "
                "a ZeroMQ context does not survive fork, make one anew"
            )
        if self._io_threads is not None:
            if not isinstance(factory, type):  # that of others would have its threads already
                raise ValueError(
                    f"io_threads={self._io_threads} is for a context of the device's own; "
                    "set context_factory = zmq.Context, too"
                )
            context.set(zmq.IO_THREADS, self._io_threads)
        return context

    def open(self, kinds: dict[str, int], roles: tuple[str, ...]) -> list[zmq.Socket[Any]]:
        """Make the sockets of these kinds what is planned; all of the device's roles make it ready.

        Unless its relay is to follow, which has the last word.
        """
        opened = self.wiring.open(self.context, kinds, self.plans, self.held)
        if not self._makes_relay and all(role in self.wiring.sockets for role in roles):
            self.reach(Stage.READY)
        return opened

    def is_setting_up(self) -> bool:
        """Tell whether a subclass calls this from its set-up, before there is a relay."""
        return self.is_current_thread() and self.relay is None

    def is_current_thread(self) -> bool:
        """Tell whether this thread is the one that the run is in."""
        return self._thread == get_ident()

    def will_relay(self, *, is_plain: bool) -> None:
        """Know that zdev's own `run_device` is at work, and whether all else is zdev's own, too."""
        self._makes_relay = True
        self.wiring.is_plain = is_plain

    def relay_by(self, relay: Relay) -> None:
        """Relay, until stopped or until the context is terminated."""
        with self.wiring.lingering():
            self._adopt(relay)
            try:
                relay.run()
            except zmq.ContextTerminated:
                self._drain_until, self._is_terminated = None, True
                raise

    def _meet(self, relay: Relay, ends: Mapping[str, End]) -> None:
        """Adopt a relay that comes to use sockets of this run, whoever makes it."""
        ours = (*self.wiring.sockets.values(), *self.wiring.made)
        handles = {int(s.underlying) for s in ours if isinstance(s, zmq.Socket)}
        if relay is not self.relay and any(end.handle in handles for end in ends.values()):
            self._adopt(relay)

    def _adopt(self, relay: Relay) -> None:
        for role, name in zip(ROLES, relay._roles):
            if name in relay._ends:
                self.wiring.know(role, relay._ends[name].socket)
                self.wiring.check_allowed(role, self.plans)
        relay._voice.speak_as(self.name, ROLES, self.log, functools.partial(self.note, "waits"))
        self.note("unattached", self.wiring.unattached())
        relay._use_capture("mon" not in self.unattached)
        self._know_subscriptions(relay)
        self.wiring.connects.look_up(self._follow)
        with self._lock:
            self.relay = relay
            relay._voice.tells_drains = False  # the run does
            for drain, quiet in self._stops:
                relay.stop(drain, quiet=quiet)
        if self._makes_relay:  # a subclass may come with another relay when this one has ended
            _sockets.unwatch(self._meet)
        self.reach(Stage.RELAYING)

    def _know_subscriptions(self, relay: Relay) -> None:
        """Let a relay know which frames can subscribe at its XSUBs, if that was ever said."""
        both = (relay._ends[role] for role in relay._roles[:2])
        ends = [end for end in both if end.type == zmq.XSUB]
        said = [self.wiring.only_first.get(end.socket) for end in ends]
        if any(each is not None for each in said):
            relay.only_first_subscribe = all(said)

    # What it may be asked

    def endpoints(self) -> dict[str, list[str]]:
        """Return where each socket is really bound, by role."""
        return self.wiring.endpoints()

    def forget_endpoints(self) -> None:
        """Be bound nowhere, as a run that has failed to start."""
        self.wiring.bound = {}

    def asked_as(self, role: str, addr: Any) -> str:
        """Return the address by which a bind was asked for, which may have been a wildcard."""
        pairs = self.wiring.bound.get(role, ())
        return next((asked for asked, real in pairs if addr in (asked, real)), addr)

    def stop(self, drain: float | None, quiet: float | None = None) -> None:
        """Have it end, now or when it has drained; does not wait."""
        with self._lock:
            until = -math.inf if drain is None else time.monotonic() + drain
            before = math.inf if self._drain_until is None else self._drain_until
            self._drain_until = min(until, before)
            self._stops.append((drain, quiet))  # for a relay that is to come
            if self.relay is not None:
                self.relay.stop(drain, quiet=quiet)

    def ask(self, verb: str, *args: Any) -> Any:
        """Have it do something while it relays: pause, resume, statistics, call or wire."""
        if verb == "connections":
            return self.connections()
        # A subclass that calls one of zdev's functions has made its sockets and is about to.
        self.stages.wait(Stage.RELAYING, PATIENCE)
        with self._lock:
            relay, is_over = self.relay, self.stages.now >= Stage.ENDING
        if relay is None and is_over:
            if verb == "statistics" and self.counts is not None:
                return self.counts
            raise self.over()
        if relay is None:
            raise RuntimeError(
                f"{self.name} has no relay of zdev's to ask: its run_device does not call "
                "zdev.proxy or one of its kin, or super().run_device(); or has not yet"
            )
        try:
            if verb == "wire":
                return relay.call(lambda: self.wire(*args))
            return getattr(relay, verb)(*args)
        except zmq.ZMQError:
            if self.stages.now >= Stage.ENDING:  # it came to closed sockets
                raise self.over() from None
            raise

    def connections(self) -> dict[str, Connections]:
        """Return what is known of the connections of each socket, by role."""
        if self.wiring.watch is None:
            raise RuntimeError(
                f"{self.name} does not watch its connections; set watch_connections to True before "
                "start()"
            )
        relay = self.relay
        held = self._subscriptions if relay is None else self._subscriptions_at(relay)
        return self.wiring.watch.connections(held)

    def _subscriptions_at(self, relay: Relay) -> dict[str, int]:
        roles = dict(zip(relay._roles, ROLES))
        return {roles[role]: held for role, held in relay._subscriptions().items()}

    def wire(self, role: str, verb: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Do something to a live socket; on the run's own thread."""
        most = SHORT_PATIENCE if self._ends_context() else None
        if self.relay is not None and role in self.wiring.later:
            made = self.wiring.open_later(role, self.context)
            self.relay._join(self.relay._roles[ROLES.index(role)], made)
        done = self.wiring.apply(role, verb, args, kwargs, most)
        if self.relay is not None:
            self._know_subscriptions(self.relay)
            if role == "mon":  # somebody may come there now
                self.relay._use_capture("mon" not in self.wiring.unattached())
        return done

    def _follow(self, name: Name, addresses: list[str]) -> bool:
        """Connect a socket to what a name stands for now; tell whether that is still wanted."""
        try:
            self.ask("wire", name.role, "follow", (name, addresses), {})
        except OverError:
            return False
        return True

    def goes_its_own_way(self) -> bool:
        """Tell whether it runs something that a relay's stop cannot end."""
        return Stage.READY <= self.stages.now < Stage.RELAYING and not self._makes_relay

    # The end

    def ends_with_context(self, error: zmq.ZMQError) -> bool:
        """Tell whether an error is the clean end of a run whose context was terminated."""
        self._is_terminated = self._is_terminated or error.errno == zmq.ETERM
        if error.errno not in (zmq.ETERM, zmq.ENOTSOCK):
            return False
        # Somebody may wait for a start that is not to be.
        if self._in_background and self.stages.now < Stage.READY:
            return False
        self.log(logging.INFO, "%s ends with its context", self.name)
        return True

    STEPS = ("_count", "_leave_relay", "_leave_sockets", "_retire_relay", "_release_ports")
    CLOSING = (
        "_end_watch",
        "_set_lingers",
        "_close_sockets",
        "_close_rest",
        "_leave_gates",
        "_end_context",
        "_await_release",
    )
    """The steps in which the sockets are left."""

    def _count(self) -> None:
        if self.relay is None:
            self.counts = None if self._is_replaced else NOTHING
            return
        self.counts = self.relay.statistics()
        self._subscriptions = self._subscriptions_at(self.relay)
        self.last_stop = self.relay.last_stop or StopReport.of(self.counts)
        if any(drain is not None for drain, _ in self._stops):
            self.last_stop.warn(self.log, self.name)

    def _leave_relay(self) -> None:
        """Let nobody ask the relay any more."""
        self._last_relay = self.relay
        _sockets.unwatch(self._meet)
        self._on_stage(Stage.ENDING)
        with self._lock:  # in one, for `ask`
            self.relay = None
            self.stages.reach(Stage.ENDING)

    def _leave_sockets(self) -> None:
        """Close the sockets, and the context if it is the device's own."""
        if self._last_relay is None:
            self._go_through(deque(self.CLOSING))
        else:
            # On the relay, so that nobody else is at the sockets, in a call that came too late.
            self._last_relay.call(lambda: self._go_through(deque(self.CLOSING)))
        self.wiring.connects.join()  # whose threads may have asked the relay just then

    def _end_watch(self) -> None:
        self.wiring.connects.end()
        if self.wiring.watch is not None:
            self.wiring.watch.stop()
            self.wiring.watch.join(SHORT_PATIENCE)

    def _set_lingers(self) -> None:
        self._began_to_close = time.monotonic()
        most = SHORT_PATIENCE if self._ends_context() else None
        self.wiring.set_lingers(self._drain_left(), most)
        self._linger_times = self.wiring.lingers() if self._ends_context() else []

    def _close_rest(self) -> None:
        """Close what a subclass that closes in its own way has left open."""
        self.wiring.close()

    def _leave_gates(self) -> None:
        """End the context's handler of ZAP, if these sockets were the last that had a list."""
        self.wiring.leave_gates()

    def _drain_left(self) -> float:
        """Return the seconds that are left of the drain."""
        return max((self._drain_until or 0.0) - time.monotonic(), 0.0)

    def _ends_context(self) -> bool:
        return self._has_process or (self._owns_context and not self._is_terminated)

    def _end_context(self) -> None:
        """Terminate the context, unless it is over or somebody else has sockets of it."""
        if not self._ends_context() or self.context is None or self.context.closed:
            return
        others = any(not other.closed for other in getattr(self.context, "_sockets", ()))
        if others and not self._has_process:
            return
        self.context.destroy(linger=milliseconds(max(self._drain_left(), SHORT_PATIENCE)))
        took = time.monotonic() - self._began_to_close
        if self._linger_times and took + 0.01 >= min(self._linger_times):
            self.log(
                logging.WARNING,
                "%s may have lost messages: its sockets still had some to send, and were cut "
                "off after %.1f s; use stop(drain=seconds), or set ZMQ_LINGER of the socket",
                self.name,
                took,
            )

    def _await_release(self) -> None:
        """Wait until nothing is left of the sockets, in contexts that go on."""
        if self._has_process or self._is_terminated:
            return  # with the one they go, and the other ends when they are gone
        for context in {self.context, *(s.context for s in self.wiring.sockets.values())}:
            if context is not None and not context.closed:
                await_release(context, SHORT_PATIENCE, is_local=self.wiring.is_local())

    def _retire_relay(self) -> None:
        if self._last_relay is not None and self._makes_relay:
            self._last_relay._retire()
