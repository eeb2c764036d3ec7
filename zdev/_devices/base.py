"""The device: what all kinds and launchers share, and the only place that keeps state."""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
import logging
import math
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Callable, ClassVar, cast

import zmq
import zmq.devices

from zdev import _relay
from zdev._contract import Statistics
from zdev._relay import CANNOT_SEND, Relay

from .latch import Latch
from .plan import (
    SocketPlan,
    attach,
    bind,
    check_address,
    hold_random_port,
    last_endpoint,
    set_linger,
    set_option,
)
from .release import await_unbound, end_context

if TYPE_CHECKING:
    from typing_extensions import Concatenate, ParamSpec, Self

    P = ParamSpec("P")

__all__ = ["PATIENCE", "Device", "OverError", "on", "random_port_on"]

logger = logging.getLogger("zdev")

_numbers = itertools.count(1)
"""For the names of devices that are given none."""

# Seconds to wait for what should be quick.
PATIENCE = 2.0


def on(
    role: str, verb: Callable[Concatenate[SocketPlan, P], None]
) -> Callable[Concatenate[Device, P], None]:
    """Make the method of a device that does this to its socket of that role."""
    takes_address = "addr" in inspect.signature(verb).parameters

    @functools.wraps(verb)
    def method(self: Device, *args: P.args, **kwargs: P.kwargs) -> None:
        if takes_address and (args or "addr" in kwargs):
            check_address(args[0] if args else kwargs["addr"], method.__name__)
        plan: Callable[[], None] = functools.partial(verb, self._plans[role], *args, **kwargs)
        if verb.__name__ == "unbind":
            plan = functools.partial(self._plan_unbind, role, self._asked_as(role, *args, **kwargs))
        if not self._running:
            plan()
            return
        if not self._sets_up_now():
            self._ask("configure", role, verb.__name__, args, kwargs)
        elif role in self._run.sockets:
            self._apply(role, verb.__name__, args, kwargs)
        # The live socket has the last word; the plan, for the next start, follows.
        with contextlib.suppress(zmq.ZMQError), self._planning(role):
            plan()

    method.__name__ = f"{verb.__name__}_{role}"
    method.__qualname__ = f"Device.{method.__name__}"
    method.__doc__ = (verb.__doc__ or "").replace("the socket", f"the {role} socket")
    return cast("Callable[Concatenate[Device, P], None]", method)


def random_port_on(role: str) -> Callable[..., int]:
    """Make the method of a device that binds its socket of that role to a random port."""

    def method(self: Device, addr: str, *args: int, **kwargs: int) -> int:
        port: int
        check_address(addr, method.__name__, (str,))
        unknown = kwargs.keys() - RANDOM_PORT_OPTIONS
        if unknown:
            raise TypeError(
                f"{method.__name__}() takes {', '.join(RANDOM_PORT_OPTIONS)}, "
                f"not {', '.join(map(repr, sorted(unknown)))}"
            )
        if not self._running or (self._sets_up_now() and role not in self._run.sockets):
            port = self._reserve_random_port(addr, *args, **kwargs)
            getattr(self, f"bind_{role}")(f"{addr}:{port}")  # which a subclass may replace
            return port
        if self._sets_up_now():
            port = self._apply(role, "bind_to_random_port", (addr, *args), kwargs)
        else:
            port = self._ask("configure", role, "bind_to_random_port", (addr, *args), kwargs)
        with self._planning(role):
            self._plans[role].bind(f"{addr}:{port}")
        return port

    method.__name__ = f"bind_{role}_to_random_port"
    method.__qualname__ = f"Device.{method.__name__}"
    method.__doc__ = f"""Bind the {role} socket to a free port, chosen at random.

        The port is the device's from now on, also before the start: nobody else can take it.

        Parameters
        ----------
        addr : str
            An interface without a port, such as ``tcp://127.0.0.1``.
        min_port, max_port : int
            The range to choose from, ``max_port`` excluded.
        max_tries : int
            How many ports to try.

        Returns
        -------
        int
            The port.

        Raises
        ------
        zmq.ZMQBindError
            If none was free.
        zmq.ZMQError
            If there is no such interface, or it has no ports.
        ValueError
            If there are no ports in that range.
        """
    return method


def _type_name(kind: Any) -> str:
    """Name a socket type, or what should be one."""
    with contextlib.suppress(TypeError, ValueError):
        return "itself" if kind < 0 else zmq.SocketType(kind).name
    return str(kind)


RANDOM_PORT_OPTIONS = ("min_port", "max_port", "max_tries")


def planned(role: str, field: str) -> Any:
    """Make the attribute of pyzmq's name for a list of a plan: the list itself."""

    def get(self: Device) -> Any:
        return getattr(self._plans[role], field)

    def put(self: Device, value: Any) -> None:
        setattr(self._plans[role], field, value)

    return property(get, put, doc=f"What is planned for the {role} socket.")


class OverError(RuntimeError):
    """A device could not be asked: its run is over, or about to be."""


class Run:
    """One run of a device, from its start to its end, in the process where it relays."""

    def __init__(self) -> None:
        self.relay: Relay | None = None
        self.sockets: dict[str, zmq.Socket[Any]] = {}
        self.bound: dict[str, list[tuple[str, str]]] = {}
        self.lingers: list[tuple[zmq.Socket[Any], int]] = []
        self.stops: list[float | None] = []  # asked for before there was a relay
        self.drain_until: float | None = None  # of time.monotonic
        self.is_ending = False  # what is counted is final
        self.lost_counts = False
        self.makes_relay = False  # this class's own run_device is at work
        self.has_relay = Latch()  # or ended without one
        self.handles: list[int] = []
        self.thread = threading.get_ident()
        self.worker: threading.Thread | None = None  # to be joined once it has ended
        self.claim = threading.Lock()  # taken once: by the worker as it begins, or to forestall it
        self._joining = threading.RLock()
        self._is_joined = False  # just now, by the holder of the lock
        self.ready = Latch()  # or ended without
        self.settled = Latch()  # a relay has its sockets; or ended without
        self.ended = Latch()
        self.is_awaited = False  # by a start that will raise what goes wrong
        self.exception: BaseException | None = None  # that ended it
        self.planned: list[tuple[list[Any], list[Any], list[Any]]] = []  # a list, before and after
        self.notes_setup = False
        self.setup_of_instance: Any = None
        self.on_ready: Callable[[], None] = lambda: None
        self.on_settled: Callable[[], None] = lambda: None
        self.has_process = False  # all to itself
        self.of_parent: weakref.WeakSet[zmq.Context[Any]] = weakref.WeakSet()
        self.terminated = False  # the context is, by others
        self.log: Callable[..., None] = logger.log

    def endpoints(self) -> dict[str, list[str]]:
        bound = self.bound.copy()  # in one step: the device's own thread may be adding to it
        return {role: [real for _, real in pairs] for role, pairs in bound.items()}

    def join_worker(self, patience: float) -> None:
        """Wait until no thread is left of this run, which is over.

        Before Python 3.13, and on PyPy, a thread can be joined by one other at a time; nor can it
        be by a signal handler in the midst of a join, which leaves it to what it interrupts.
        """
        deadline = time.monotonic() + patience
        worker = self.worker
        if worker is None or worker is threading.current_thread():
            return
        if not self._joining.acquire(timeout=patience):
            return
        interrupted, self._is_joined = self._is_joined, True
        try:
            if not interrupted:
                worker.join(max(deadline - time.monotonic(), 0))
        finally:
            self._is_joined = interrupted
            self._joining.release()


class Device(zmq.devices.Device):
    """A ZeroMQ device that makes its own sockets; drop-in for ``zmq.devices.Device``.

    Not sockets are passed, but their types; the sockets are made where the device runs. This class
    runs in the foreground: `start` relays until the device is stopped. See `ThreadDevice` and
    `ProcessDevice` for those that run in the background.

    Parameters
    ----------
    device_type : int
        ``zmq.QUEUE``, ``zmq.FORWARDER`` or ``zmq.STREAMER``; it changes nothing.
    in_type, out_type : int
        Socket types. With a negative ``out_type`` one socket is both ends.
    name : str, optional
        Names the thread or process, and the device in the log; such as ``ThreadProxy-1`` by
        default.

    Attributes
    ----------
    daemon : bool
        Whether the thread or process is a daemon; True by default.
    context_factory : callable
        Makes the context, or says which one to use; of the class or of the instance.
    done : bool
        Whether the device has ended.
    exception : BaseException or None
        What ended it, if it was an error.

    Notes
    -----
    All methods but `run` and `run_device` may be called from any thread.
    """

    context_factory: Callable[[], zmq.Context[Any]] = zmq.Context.instance

    _roles: ClassVar[tuple[str, ...]] = ("in", "out")
    _in_background: ClassVar[bool] = False

    def __init__(
        self,
        device_type: int = zmq.QUEUE,
        in_type: int | None = None,
        out_type: int | None = None,
        *,
        name: str | None = None,
    ) -> None:
        for role, kind in (("in", in_type), ("out", out_type)):
            if kind is None:
                raise TypeError(f"{role}_type must be given: a socket type such as zmq.ROUTER")
        self.device_type = device_type
        self.in_type = cast("int", in_type)
        self.out_type = cast("int", out_type)
        self.name = name or f"{type(self).__name__}-{next(_numbers)}"
        self.daemon = True
        self._plans = {role: SocketPlan() for role in self._roles}
        self._held: dict[str, socket.socket] = {}
        self._random_addrs: list[str] = []
        self._never_started()

    def _never_started(self) -> None:
        """Be as never started."""
        self._lock = threading.RLock()
        self._running = False
        self._started = False
        self.done = False
        self._run = Run()
        self._sockets: list[zmq.Socket[Any]] = []
        self._context: Any = None
        self._last: Statistics | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what lives in one process only."""
        blank = Device.__new__(type(self))
        blank._never_started()
        return {key: value for key, value in self.__dict__.items() if key not in vars(blank)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._never_started()
        if "_plans" in state:
            self.__dict__.update(state)
            return
        # From a process where this class was derived from pyzmq's before zdev.install().
        Device.__init__(self, in_type=state["in_type"], out_type=state["out_type"])
        for key, value in state.items():
            setattr(self, key, value)

    def __repr__(self) -> str:
        """Tell name, types and state, also where a subclass has not yet come to set them."""
        its = vars(self).get
        one, other = (_type_name(its(name)) for name in ("in_type", "out_type"))
        state = "running" if its("_running") else "ended" if its("_started") else "idle"
        return f"<{type(self).__name__} {its('name')} {one} to {other}, {state}>"

    def __del__(self) -> None:
        for held in self.__dict__.get("_held", {}).values():
            held.close()

    @property
    def exception(self) -> BaseException | None:
        """What ended the device, if it was an error."""
        return self._run.exception

    @exception.setter
    def exception(self, error: BaseException | None) -> None:
        self._run.exception = error

    # Configuration

    bind_in = on("in", SocketPlan.bind)
    connect_in = on("in", SocketPlan.connect)
    unbind_in = on("in", SocketPlan.unbind)
    disconnect_in = on("in", SocketPlan.disconnect)
    setsockopt_in = on("in", SocketPlan.setsockopt)
    bind_in_to_random_port = random_port_on("in")

    bind_out = on("out", SocketPlan.bind)
    connect_out = on("out", SocketPlan.connect)
    unbind_out = on("out", SocketPlan.unbind)
    disconnect_out = on("out", SocketPlan.disconnect)
    setsockopt_out = on("out", SocketPlan.setsockopt)
    bind_out_to_random_port = random_port_on("out")

    _in_binds = planned("in", "binds")
    _in_connects = planned("in", "connects")
    _in_sockopts = planned("in", "sockopts")
    _out_binds = planned("out", "binds")
    _out_connects = planned("out", "connects")
    _out_sockopts = planned("out", "sockopts")

    def _reserve_random_port(self, addr: str, *args: int, **kwargs: int) -> int:
        held = hold_random_port(addr, *args, **kwargs)
        port = int(held.getsockname()[1])
        self._held[f"{addr}:{port}"] = held
        self._random_addrs.append(f"{addr}:{port}")
        return port

    def _asked_as(self, role: str, addr: Any) -> str:
        """Return the address by which a bind was asked for, which may have been a wildcard."""
        pairs = self._run.bound.get(role, ())
        return next((asked for asked, real in pairs if addr in (asked, real)), addr)

    def _plan_unbind(self, role: str, addr: str) -> None:
        self._plans[role].unbind(addr)
        if addr in self._held:
            self._held.pop(addr).close()

    @contextlib.contextmanager
    def _planning(self, role: str) -> Iterator[None]:
        """Note what a running device plans as it sets up: at the next start, it does so again."""
        plan = self._plans[role]
        lists: tuple[list[Any], ...] = (plan.binds, plan.connects, plan.sockopts)
        before = [entries.copy() for entries in lists]
        yield
        if self._sets_up_now():
            self._run.planned += zip(lists, before, [entries.copy() for entries in lists])

    def _plan_as_before(self) -> None:
        """Forget what was planned in this run as it was set up; the last comes first."""
        while self._run.planned:
            entries, before, after = self._run.planned.pop()
            for entry in after[len(before) :]:
                with contextlib.suppress(ValueError):  # not there any more
                    entries.remove(entry)
            for place, entry in enumerate(before):
                if entry not in after and entry not in entries:
                    entries.insert(place, entry)

    @property
    def endpoints(self) -> dict[str, list[str]]:
        """Where each socket is really bound, by role: wildcards and port 0 resolved.

        Keys are ``"in"``, ``"out"``, ``"mon"`` and ``"ctrl"``, as far as the device has them. Empty
        before the start; after the end, what was.
        """
        return self._run.endpoints()

    # The sockets

    def _open(self, *roles: str) -> list[zmq.Socket[Any]]:
        """Make the sockets of these roles what is planned; options first, since binds use them."""
        made: list[zmq.Socket[Any]] = []
        for role in roles:
            kind = getattr(self, f"{role}_type")
            if role == "out" and kind < 0:
                target = made[0]
            else:
                try:
                    target = self._context.socket(kind)
                except zmq.ZMQError as error:
                    if error.errno != zmq.EINVAL:
                        raise
                    wrong = f"{role}_type {kind!r} is no socket type that libzmq knows"
                    raise zmq.ZMQError(error.errno, wrong) from error
                self._sockets.append(target)
            self._run.sockets[role] = target
            made.append(target)
        plans = [(role, target, self._plans[role]) for role, target in zip(roles, made)]
        for _, target, plan in plans:
            for opt, value in plan.sockopts:
                set_option(target, opt, value)
        for role, target, plan in plans:
            bound = self._run.bound.setdefault(role, [])
            for addr in plan.binds:
                bound.append((addr, bind(target, addr, self._held.get(addr))))
                self._held.pop(addr, None)
        for _, target, plan in plans:
            for addr in plan.connects:
                target.connect(addr)
        return made

    def _setup_sockets(self) -> Any:
        self._context = self._make_context()
        return tuple(self._open("in", "out"))

    def _make_context(self) -> zmq.Context[Any]:
        factory: Any = self.context_factory
        if not callable(factory):
            raise TypeError(
                "context_factory must be callable, such as zmq.Context or lambda: context, "
                f"not {type(factory).__name__}"
            )
        context = factory()
        if not isinstance(context, zmq.Context):
            raise TypeError(
                f"context_factory must return a zmq.Context, not {type(context).__name__}"
            )
        if context in self._run.of_parent:
            raise RuntimeError(
                "context_factory returned a context that was made in another process; "
                "a ZeroMQ context does not survive fork, make one anew"
            )
        return context

    def _note_sockets(self, sockets: Any) -> None:
        """Know the sockets by their roles, whoever made them, and the relay that comes to them."""
        run = self._run
        for role, target in zip(self._roles, sockets if isinstance(sockets, tuple) else ()):
            run.sockets.setdefault(role, target)
        for role, target in run.sockets.items():
            address = last_endpoint(target)
            run.bound.setdefault(role, [(address, address)] if address else [])
            run.handles.append(int(target.underlying))
            _relay.expect(run.handles[-1], self._adopt)

    def _adopt(self, relay: Relay) -> None:
        with self._lock:
            self._run.relay = relay
            for drain in self._run.stops:
                relay.stop(drain)
        self._run.has_relay.set()
        if not self._run.settled.is_set():
            self._run.settled.set()
            self._run.on_settled()

    def _sets_up(self) -> bool:
        """Tell whether running leads to `_setup_sockets`, as it does unless a subclass replaces it.

        A subclass may run anything; one that makes no sockets here is ready when it begins.
        """
        for name in ("run", "run_device"):
            code = getattr(inspect.unwrap(getattr(self, name)), "__code__", None)
            names = set(code.co_names) if code is not None else set()
            if "_setup_sockets" in names:
                return True
            if names.isdisjoint(("run", "run_device")):
                return False
        return True

    def _close_sockets(self) -> None:
        """Close the sockets that this device made."""
        for target in self._sockets:
            if target and not target.closed:
                target.close()
        self._sockets = []

    # Running

    def _relay_options(self) -> dict[str, Any]:
        return {"swap": False}

    def run_device(self) -> None:
        """Make the sockets and relay, in a way that subclasses may replace; `start` runs it."""
        self._run.makes_relay = True
        ins, outs, *others = self._setup_sockets()
        capture = others[0] if others else None
        control = others[1] if len(others) > 1 else None
        relay = Relay(ins, outs, capture, control=control, **self._relay_options())
        with self._lingering():
            self._adopt(relay)
            self._say_ready()
            relay.run()

    def _say_ready(self) -> None:
        """Tell whoever starts the device that it relays."""
        run = self._run
        if not run.ready.is_set():
            run.log(logging.INFO, "%s relays, bound to %s", self.name, run.endpoints())
            run.ready.set()
            run.on_ready()

    @contextlib.contextmanager
    def _lingering(self) -> Iterator[None]:
        """Keep unsent messages from holding up the termination of the context.

        With ZMQ_LINGER's default, zmq_ctx_term(3) waits for them for ever, and once it has begun
        the option cannot be set any more. So it is 0 while the device runs; a device that ends
        otherwise gives its sockets back their own before it closes them.
        """
        for target in self._sockets:
            self._hold_linger(target)
        try:
            yield
        except zmq.ContextTerminated:
            # Not every socket may have learnt of it yet; those could still be set to wait.
            self._run.lingers, self._run.drain_until = [], None
            self._run.terminated = True
            raise
        finally:
            self._restore_lingers()

    def _hold_linger(self, target: zmq.Socket[Any]) -> None:
        if target.getsockopt(zmq.LINGER) == -1:
            target.setsockopt(zmq.LINGER, 0)
            self._run.lingers.append((target, -1))

    def _restore_lingers(self) -> None:
        for target, linger in self._run.lingers:
            try:
                target.setsockopt(zmq.LINGER, linger)
            except zmq.ZMQError as error:
                if error.errno not in (zmq.ETERM, zmq.ENOTSOCK):
                    raise

    def _note_setup(self) -> None:
        """Note the sockets of this run as they are made, however a subclass comes to do that."""
        run, setup = self._run, self._setup_sockets

        def noted() -> Any:
            sockets = setup()
            self._note_sockets(sockets)
            if not run.makes_relay:
                # A subclass relays in its own way. What it calls does not say when it has begun.
                self._say_ready()
            return sockets

        run.notes_setup, run.setup_of_instance = True, self.__dict__.get("_setup_sockets")
        self.__dict__["_setup_sockets"] = noted

    def _note_no_setup(self) -> None:
        run = self._run
        if run.notes_setup:
            run.notes_setup = False
            self.__dict__.pop("_setup_sockets", None)
            if run.setup_of_instance is not None:
                self.__dict__["_setup_sockets"] = run.setup_of_instance

    def _launch(self) -> None:
        """Run where the device is to run, and say when it does, whatever a subclass makes of it."""
        run = self._run
        run.thread = threading.get_ident()
        self._note_setup()
        # Once the run has ended, the next one may have begun: this thread has no part in that.
        try:
            if not self._sets_up():
                self._say_ready()
            self.run()
        except BaseException as error:
            if not run.ended.is_set():  # a subclass's own run()
                self._fail(error)
            raise
        finally:
            if not run.ended.is_set():
                self._end()

    def run(self) -> None:
        """Run in this thread until the end. The end of the context is a clean one.

        `start` calls this where the device is to run.
        """
        if not self._running:
            self._begin()
            self._note_setup()
        self._run.thread = threading.get_ident()
        try:
            self.run_device()
        except zmq.ZMQError as error:
            self._run.terminated = self._run.terminated or error.errno == zmq.ETERM
            if error.errno not in (zmq.ETERM, zmq.ENOTSOCK) or self._misses_start():
                self._fail(error)
                raise
            self._run.log(logging.INFO, "%s ends with its context", self.name)
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            self._end()

    def _misses_start(self) -> bool:
        """Tell whether somebody waits for a start that is not to be."""
        return False

    def _fail(self, error: BaseException) -> None:
        """Keep what ended the device. What start() raises need not be shown besides."""
        with self._lock:
            self.exception = error
            seen = self._run.is_awaited or self._misses_start() or not self._in_background
        level = logging.INFO if seen else logging.ERROR
        self._run.log(level, "%s failed: %s: %s", self.name, type(error).__name__, error)

    def _begin(self) -> None:
        """Start a run, or say that there is one."""
        last = self._run
        if last.ended.is_set():
            last.join_worker(PATIENCE)  # a subclass may still be at its end, in its own run()
        with self._lock:
            if self._running:
                raise RuntimeError(f"{self.name} is running already; stop it first")
            self._running = self._started = True
            self._run = Run()
            self._last = None
            self.done = False

    def _end(self) -> None:
        """End a run where it relayed, however it went."""
        run = self._run
        relay = run.relay
        try:
            if relay is not None:
                self._last = relay.statistics()
            with self._lock:
                relay, run.relay, run.is_ending = run.relay, None, True
            run.has_relay.set()
            for handle in run.handles:
                _relay.expect(handle, None)
            if relay is None:
                self._let_go()
            else:
                # So nobody else is at the sockets meanwhile, in a call that came too late.
                relay.call(self._let_go)
                if run.makes_relay:
                    relay.retire()
        finally:
            self._release_held()
            self._finish()

    def _let_go(self) -> None:
        """Close the sockets, and the context if it is the device's own; free their addresses."""
        run = self._run
        left = 0.0 if run.drain_until is None else max(run.drain_until - time.monotonic(), 0.0)
        own = self._owns_context()
        with contextlib.suppress(zmq.ZMQError):  # the context is terminated: nothing lingers
            for target in self._sockets:
                set_linger(target, left, PATIENCE / 4 if own else None)
        lingers = [] if not own or run.terminated else self._lingers()
        began = time.monotonic()
        endpoints = run.endpoints()
        for role, addresses in endpoints.items():
            for address in addresses:
                if address.startswith("inproc:"):  # others are unbound as they are closed
                    with contextlib.suppress(zmq.ZMQError):
                        run.sockets[role].unbind(address)
        self._close_sockets()
        if own:
            end_context(self._context, max(left, PATIENCE / 4), run.has_process)
            took = time.monotonic() - began
            if lingers and took + 0.01 >= min(lingers):
                run.log(
                    logging.WARNING,
                    "%s may have lost messages: its sockets still had some to send, and were cut "
                    "off after %.1f s; use stop(drain=seconds), or set ZMQ_LINGER of the socket",
                    self.name,
                    took,
                )
        if not run.has_process:  # else they go with it, and the parent may hold a port
            await_unbound(itertools.chain(*endpoints.values()), PATIENCE / 4)

    def _lingers(self) -> list[float]:
        """Return how many seconds the messages of each socket get; less is somebody's choice."""
        with contextlib.suppress(zmq.ZMQError):
            senders = [s for s in self._sockets if not s.closed and s.type not in CANNOT_SEND]
            lingers = [cast("int", s.getsockopt(zmq.LINGER)) / 1000 for s in senders]
            return [linger for linger in lingers if linger >= PATIENCE / 4]
        return []

    def _owns_context(self) -> bool:
        """Tell whether nobody else ends the context: a class makes a new one each time."""
        if self._run.has_process:
            return True
        # What a subclass does in a run() of its own, such as to heed ETERM, is not seen.
        seen = type(self).run is Device.run and not self._run.terminated
        return seen and isinstance(self.context_factory, type)

    def _finish(self) -> None:
        """Tell everybody that the run is over. From here on, others may start the next one."""
        run = self._run
        run.log(logging.INFO, "%s has ended", self.name)
        with self._lock:
            self._note_no_setup()
            self._plan_as_before()
            self._no_more_running()
            self.done = True
            self._running = False
        run.ended.set()
        run.ready.set()
        run.settled.set()

    def _no_more_running(self) -> None:
        """Forget what was noted for the time of the run."""

    def _release_held(self) -> None:
        while self._held:
            self._held.popitem()[1].close()

    def start(self) -> None:
        """Run the device, here, until it is stopped or its context is terminated.

        Raises
        ------
        zmq.ZMQError, ValueError, TypeError
            What went wrong; `zdev.BindError` if an address was not to be had.
        RuntimeError
            If it is running already.
        """
        self._begin()
        self._launch()

    def join(self, timeout: float | None = None) -> None:
        """Wait until the device has ended, and raise what ended it.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait; the device may still be running after that: see `done`.

        Raises
        ------
        RuntimeError
            If it was never started.
        BaseException
            The error that ended the device.
        """
        self._check_started()
        run = self._run
        if self._await_end(timeout, run) and run.exception is not None:
            raise run.exception

    def _check_started(self) -> None:
        if not self._started:
            raise RuntimeError(f"{self.name} was not started; call start() first")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.stop()
        if kind is None:
            self.join()

    # Control

    def _sets_up_now(self) -> bool:
        """Tell whether a subclass calls this before its sockets have come to a relay."""
        return self._run.thread == threading.get_ident() and self._run.relay is None

    def _ask(self, verb: str, *args: Any) -> Any:
        """Have the running device do something; from any thread.

        To ask for a stop returns the run that is to stop.
        """
        if verb == "stop":
            return self._perform_stop(*args)
        return self._perform(verb, *args)

    def _perform(self, verb: str, *args: Any) -> Any:
        """Do what `_ask` asks, in the process of the run."""
        if verb == "stop":
            self._perform_stop(*args)
            return None
        run = self._run
        # A subclass that calls one of zdev's functions has made its sockets and is about to.
        run.has_relay.wait(PATIENCE)
        with self._lock:
            relay, is_ending, last = run.relay, run.is_ending, self._last
        if relay is None and is_ending:
            if verb == "statistics" and last is not None:
                return last
            raise self._over(run)
        if relay is None:
            raise RuntimeError(
                f"{self.name} has no relay of zdev's to ask: its run_device does not call "
                "zdev.proxy or one of its kin, or super().run_device(); or has not yet"
            )
        if verb == "configure":
            return relay.call(lambda: self._apply(*args))
        return getattr(relay, verb)()

    def _over(self, run: Run) -> OverError:
        """Make the error for what is asked too late."""
        if run.ended.is_set():
            return OverError(f"{self.name} has ended; start it again first")
        return OverError(f"{self.name} is ending; wait for that, and start it again first")

    def _perform_stop(self, drain: float | None) -> Run:
        with self._lock:
            run = self._run
            until = -math.inf if drain is None else time.monotonic() + drain
            run.drain_until = min(until, math.inf if run.drain_until is None else run.drain_until)
            relay = run.relay
            if relay is None:
                run.stops.append(drain)
            else:
                relay.stop(drain)
        return run

    def _apply(self, role: str, verb: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Do to a live socket what its plan will say too; on the device's own thread."""
        target = self._run.sockets[role]
        bound = self._run.bound.setdefault(role, [])
        if verb == "setsockopt":
            set_option(target, *args, **kwargs)
            if zmq.LINGER in (args[:1] or kwargs.values()):
                self._run.lingers = [pair for pair in self._run.lingers if pair[0] is not target]
                self._hold_linger(target)
            return None
        if verb == "bind_to_random_port":
            # Not the socket's own, which goes beyond the range that is its default.
            with contextlib.closing(hold_random_port(*args, **kwargs)) as held:
                port = held.getsockname()[1]
                addr = f"{args[0]}:{port}"
                bound.append((addr, bind(target, addr, held)))
            return port
        addr = args[0] if args else kwargs["addr"]
        if verb == "bind":
            bound.append((addr, bind(target, addr)))
            return None
        # What waits to be sent there is worth as much linger as at the end, which awaits it.
        self._restore_lingers()
        set_linger(target, 0.0, PATIENCE / 4 if self._owns_context() else None)
        try:
            if verb == "unbind":
                pair = next((pair for pair in bound if addr in pair), (addr, addr))
                attach(target, "unbind", pair[1])
                if pair in bound:
                    bound.remove(pair)
            else:
                attach(target, verb, addr)
        finally:
            for waiting, _ in self._run.lingers:
                waiting.setsockopt(zmq.LINGER, 0)
        return None

    def pause(self) -> None:
        """Relay nothing until `resume`; control goes on. When this returns, it is so.

        Raises
        ------
        RuntimeError
            If the device was not started, is ending or has ended.
        """
        self._check_started()
        self._ask("pause")

    def resume(self) -> None:
        """End a pause.

        Raises
        ------
        RuntimeError
            As for `pause`.
        """
        self._check_started()
        self._ask("resume")

    def statistics(self) -> Statistics:
        """Return what the device has relayed in this run, or did in the last.

        Raises
        ------
        RuntimeError
            If it was never started, or its process was killed.
        """
        self._check_started()
        while True:
            with self._lock:
                run, running, last = self._run, self._running, self._last
            if not running:
                break
            try:
                counts: Statistics = self._ask("statistics")
            except OverError:
                if run.thread == threading.get_ident():
                    raise
                run.ended.wait()  # with it, the final counts come
            else:
                return counts
        if last is None and run.lost_counts:
            raise RuntimeError(f"{self.name} has ended, and its counts died with its process")
        if last is None:
            raise RuntimeError(
                f"{self.name} has no counts: it did not come to relay, or not by a relay of zdev's"
            )
        return last

    def stop(self, drain: float | None = None, timeout: float | None = None) -> None:
        """End the device, whatever it is doing, and wait for its end.

        To stop a device that does not run does nothing.

        Parameters
        ----------
        drain : float, optional
            First, for at most so many seconds, relay what the device and its sockets hold. By
            default, the device ends at once; what is parked is tried once more. What the sockets
            still have to send then gets the socket's ZMQ_LINGER if that is finite, and the rest of
            the drain; at least half a second where it is infinite, as by default. The context of a
            thread device, which others share, lives on and goes on sending.
        timeout : float, optional
            Seconds to wait for the end.

        Raises
        ------
        TimeoutError
            If it has not ended by then.
        TypeError, ValueError
            If the drain is no number.
        """
        if drain is not None:
            drain = _relay.check_seconds(drain, "drain")
        if not self._started:
            return
        run = self._run
        if self._running:
            run = self._ask("stop", drain)  # another thread may have started it meanwhile
        if run.thread == threading.get_ident() and not run.ended.is_set():
            return  # a signal handler, or a call, of the device itself
        if not self._await_end(timeout, run):
            raise TimeoutError(f"{self.name} has not ended in {timeout} s")

    def _await_end(self, timeout: float | None, run: Run) -> bool:
        """Wait for the end of a run; tell whether it came."""
        deadline = None if timeout is None else time.monotonic() + timeout
        if not run.ended.wait(timeout):
            return False
        # The thread may need a lock of `threading` that this one holds: a signal handler may be
        # waiting here, in the midst of the start of another thread. So it is not waited for long.
        left = PATIENCE if deadline is None else max(deadline - time.monotonic(), 0)
        run.join_worker(min(left, PATIENCE))
        return True
