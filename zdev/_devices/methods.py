"""The methods of devices that wire one of their sockets: `bind_in` and its kin.

They are made here, for each role and verb, and are real functions with the types of the verb, which
type checkers and IDEs see. They come to `Wired._wire` or, for random ports, `_wire_random_port`:
before the start these note what is asked for in the plans; while the device runs, they have it done
to the live socket, too.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import inspect
from multiprocessing.context import get_spawning_popen
from typing import TYPE_CHECKING, Any, Callable, ClassVar, Protocol, cast

import zmq

from zdev._names import Named

from .addresses import check_address, check_endpoint, transport_of
from .options import checked_option
from .plan import Plans, SocketPlan
from .ports import HeldPorts
from .progress import Progress
from .resolving import checked_resolve
from .run import Run
from .security import CHECKS
from .stages import Stage

if TYPE_CHECKING:
    from typing_extensions import Concatenate, ParamSpec

    P = ParamSpec("P")

__all__ = ["SetsOption", "Wired", "on", "option_on", "planned", "random_port_on"]

OURS = __name__.rpartition(".")[0]

ENDS = {"in", "out"}

UNDONE = {"unbind": "bound to", "disconnect": "connected to"}
NOT_THERE = {errno.ENOENT, errno.EINVAL, errno.EPROTONOSUPPORT}


class SetsOption(Protocol):
    """What sets an option. Type checkers would take its type from pyzmq, which has no names."""

    def __call__(self, opt: Named, value: Any) -> None: ...


class Wired:
    """What the methods call: a device with plans, held ports and, while it runs, live sockets."""

    name: str
    out_type: int
    _plans: Plans
    _held: HeldPorts
    _random_addrs: list[str]
    _run: Progress | None
    _has_own_context: ClassVar[bool] = False
    """Whether no socket but its own can be reached by inproc."""

    def _is_plain(self) -> bool:
        """Tell whether zdev's own code makes the sockets and relays, and not a subclass's."""
        ours = (getattr(self, name) for name in ("run", "run_device", "_setup_sockets"))
        return all(str(getattr(each, "__module__", "")).startswith(OURS) for each in ours)

    @property
    def _is_running(self) -> bool:
        run = self._run
        return run is not None and run.stages.now < Stage.ENDED

    @property
    def _here(self) -> Run:
        """The run, which subclasses extend where it relays."""
        if not isinstance(self._run, Run):
            raise RuntimeError(  # noqa: TRY004 - it is no wrong type that somebody has given
                f"{self.name} does not run in this process; call start() first"
            )
        return self._run

    @property
    def _running_run(self) -> Progress | None:
        run = self._run
        return run if self._is_running else None

    @property
    def _plans_now(self) -> Plans:
        """The plans of the run, which are a copy; between runs, those of the next."""
        run = self._running_run
        return self._plans if run is None else run.plans

    @property
    def _held_now(self) -> HeldPorts:
        run = self._running_run
        return self._held if run is None else run.held

    def _unshared(self, state: dict[str, Any]) -> dict[str, Any]:
        """Let a copy have plans of its own.

        Held ports have one owner, but for a process that is being made, which gets them. Any other
        copy has their addresses in its plans, and binds to them if it can.
        """
        state |= {"_plans": self._plans.copy(), "_random_addrs": self._random_addrs.copy()}
        if get_spawning_popen() is None:
            state["_held"] = HeldPorts()
        return state

    def _wire(self, role: str, verb: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Plan something for a socket; while the device runs, do it too."""
        run = self._running_run
        if verb == "connect":
            self._check_resolved(role, args[0] if args else kwargs["addr"], "resolve" in kwargs)
        noted = self._as_planned(role, verb, args, kwargs)
        if run is None:
            self._plans.note(*noted)
        elif not run.is_setting_up():
            self._check_undone(role, verb, *args)
            self._check_secured(role, verb)
            try:
                run.ask("wire", role, verb, args, kwargs)
            except zmq.ZMQError as error:
                if verb in UNDONE and error.errno in NOT_THERE:
                    raise self._not_there(error.errno, role, verb, *args) from error
                raise
            # The live socket has the last word, and the plan follows.
            for plans in (run.plans, self._plans):
                with contextlib.suppress(zmq.ZMQError):
                    plans.note(*noted)
        elif role not in self._here.wiring.sockets:
            run.plans.note(*noted)  # for this run alone: the next one sets itself up again
        else:
            self._check_secured(role, verb)
            self._here.wire(role, verb, args, kwargs)
            with contextlib.suppress(zmq.ZMQError):
                run.plans.note(*noted)

    def _check_secured(self, role: str, verb: str) -> None:
        """Raise if a socket that is in use is to be secured: libzmq would for what follows."""
        roles = {role}
        if role in ENDS and isinstance(self.out_type, int) and self.out_type < 0:
            roles = ENDS  # one socket is both
        plans = [self._plans_now[each] for each in roles]
        if verb not in CHECKS or (verb == "allow" and any(plan.allowed for plan in plans)):
            return
        if any(plan.binds or plan.connects for plan in plans):
            raise RuntimeError(
                f"{verb}_{role}: the {role} socket is bound or connected, where this would not "
                "hold; call it before, or unbind and disconnect all of that first"
            )

    def _check_resolved(self, role: str, addr: Any, is_name: bool) -> None:
        """Raise if what is connected to as a name is there as one address, or the reverse."""
        plan = self._plans_now[role]
        if addr in plan.connects and is_name != (addr in plan.names):
            how = "all that its name has" if addr in plan.names else "one address"
            raise ValueError(
                f"connect_{role}: the {role} socket is connected to {addr!r} already, as {how}; "
                "disconnect it first"
            )

    def _check_undone(self, role: str, verb: str, addr: Any, *_: Any) -> None:
        """Raise if an unbind is of what is connected, or the reverse: to libzmq they are one."""
        if verb not in UNDONE:
            return
        plan = self._plans_now[role]
        is_connected = addr in plan.connects
        is_bound = addr in (*plan.binds, *self._bound(role))
        undoes, is_other = is_bound, is_connected
        if verb == "disconnect":
            undoes, is_other = is_other, undoes
        if is_other and not undoes:
            raise self._not_there(errno.ENOENT, role, verb, addr)

    def _bound(self, role: str) -> list[str]:
        """Return where the socket is really bound."""
        return [] if self._run is None else self._run.endpoints().get(role, [])

    def _not_there(self, number: int, role: str, verb: str, addr: Any) -> zmq.ZMQError:
        """Make the error for what cannot be undone, which libzmq's does not tell: what could be."""
        known = self._bound(role) if verb == "unbind" else self._plans_now[role].connects
        state, shown = UNDONE[verb], ", ".join(map(repr, known)) or "nothing"
        return zmq.ZMQError(
            number,
            f"{verb}_{role}: the {role} socket is not {state} {addr!r}; it is {state} {shown}",
        )

    def _as_planned(
        self, role: str, verb: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[str, str, tuple[Any, ...], dict[str, Any]]:
        """Return what is to be noted; an address is unbound as it was planned, such as a wildcard.

        A port that is held for it is let go.
        """
        if verb != "unbind":
            return role, verb, args, kwargs
        addr = args[0] if args else kwargs["addr"]
        if self._run is not None:
            addr = self._run.asked_as(role, addr)
        if addr in self._plans_now[role].binds:
            self._held_now.release(addr)
        return role, verb, (addr,), {}

    def _wire_random_port(
        self, role: str, addr: str, args: tuple[int, ...], kwargs: dict[str, int]
    ) -> int:
        """Bind a socket to a random port, or hold one for it; return the port."""
        run = self._running_run
        port: int
        request = role, "bind_to_random_port", (addr, *args), kwargs
        if run is None or (run.is_setting_up() and role not in self._here.wiring.sockets):
            port = self._reserve_random_port(addr, *args, **kwargs)
            getattr(self, f"bind_{role}")(f"{addr}:{port}")  # which a subclass may replace
            return port
        if run.is_setting_up():
            port = self._here.wire(*request)
        else:
            port = run.ask("wire", *request)
            self._plans[role].bind(f"{addr}:{port}")
        run.plans[role].bind(f"{addr}:{port}")
        return port

    def _reserve_random_port(self, addr: str, *args: int, **kwargs: int) -> int:
        port = self._held_now.hold(addr, *args, **kwargs)
        self._random_addrs.append(f"{addr}:{port}")
        return port

    def _check_reach(self, method: str, addr: str | bytes) -> None:
        """Raise if nobody could be at the other end."""
        if self._has_own_context and transport_of(addr) == "inproc" and self._is_plain():
            raise zmq.ZMQError(
                errno.EPROTONOSUPPORT,
                f"{method}: inproc is of one context, and a process device has its own: nobody "
                f"can reach {addr!r}; use ipc or tcp, or a thread device",
            )


RANDOM_PORT_OPTIONS = ("min_port", "max_port", "max_tries")


def on(
    role: str, verb: Callable[Concatenate[SocketPlan, P], None]
) -> Callable[Concatenate[Wired, P], None]:
    """Make the method of a device that does this to its socket of that role."""
    signature = inspect.signature(verb)

    @functools.wraps(verb)
    def method(self: Wired, *args: P.args, **kwargs: P.kwargs) -> None:
        name = method.__name__
        try:
            bound = signature.bind(None, *args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{name}(): {error}") from None
        given, others = bound.args[1:], bound.kwargs
        if verb.__name__ == "setsockopt":
            given = checked_option(name, *given)
        elif verb.__name__ in CHECKS:
            given = CHECKS[verb.__name__](name, *given)
        else:
            check_address(name, *given)
        if verb.__name__ in ("bind", "connect"):
            check_endpoint(name, *given, connects=verb.__name__ == "connect")
            self._check_reach(name, *given)
        if others:
            others = checked_resolve(name, *given, **others)
        self._wire(role, verb.__name__, given, others)

    method.__name__ = f"{verb.__name__}_{role}"
    method.__qualname__ = f"Device.{method.__name__}"
    method.__doc__ = (verb.__doc__ or "").replace("the socket", f"the {role} socket")
    return cast("Callable[Concatenate[Wired, P], None]", method)


def option_on(role: str) -> SetsOption:
    """Make the method of a device that sets an option of its socket of that role."""
    method: Any = on(role, SocketPlan.setsockopt)
    return cast("SetsOption", method)


def random_port_on(role: str) -> Callable[..., int]:
    """Make the method of a device that binds its socket of that role to a random port."""

    def method(self: Wired, addr: str, *args: int, **kwargs: int) -> int:
        check_address(method.__name__, addr, (str,))
        unknown = kwargs.keys() - RANDOM_PORT_OPTIONS
        if unknown:
            raise TypeError(
                f"{method.__name__}() takes {', '.join(RANDOM_PORT_OPTIONS)}, "
                f"not {', '.join(map(repr, sorted(unknown)))}"
            )
        for option, value in (*zip(RANDOM_PORT_OPTIONS, args), *kwargs.items()):
            if not isinstance(value, int):
                raise TypeError(
                    f"{method.__name__}: {option} must be an int, not {type(value).__name__}"
                )
        return self._wire_random_port(role, addr, args, kwargs)

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
        TypeError, ValueError
            If there are no ports in that range, or nothing is to be tried.
    """
    return method


def planned(role: str, field: str) -> Any:
    """Make the attribute of pyzmq's name for a list of a plan: the list itself.

    While the device runs it is that of the run, which has a copy; subclasses extend it when they
    set their sockets up.
    """

    def get(self: Wired) -> Any:
        return getattr(self._plans_now[role], field)

    def put(self: Wired, value: Any) -> None:
        setattr(self._plans_now[role], field, value)

    return property(get, put, doc=f"What is planned for the {role} socket.")
