"""What is done to the live sockets of a run: options, binds, connects, and their undoing."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
from typing import Any, cast

import zmq

from zdev._connections import Speaker, Watch
from zdev._limits import says_limits
from zdev._sockets import CANNOT_SEND, CAPTURES, CONTROLS, LATER
from zdev._threads import RLock
from zdev._times import SHORT_PATIENCE, milliseconds
from zdev._zap import Allowed, Gate, enter

from .addresses import text_of, transport_of
from .connects import Connects, attach
from .options import setting
from .plan import Plans
from .ports import HeldPorts, hold_random_port, last_endpoint
from .release import await_unbound
from .security import CHECKS, options_of

__all__ = ["BindError", "Wiring", "bind_lock"]

CAN_WAIT = {"mon": CAPTURES, "ctrl": CONTROLS}
"""The sockets without which a relay can begin, and their types."""

bind_lock = RLock()
"""Held from a bind until its address is noted, and while a device's process is launched, which may
be a fork: so that it knows of each listening socket that it inherits from a device."""


def _after_fork() -> None:
    global bind_lock  # noqa: PLW0603 - its owner is not here
    bind_lock = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class BindError(zmq.ZMQError, zmq.ZMQBindError):
    """A socket of a device could not be bound; ``errno`` says why."""


class Wiring:
    """The sockets of a run by their roles, and what they are bound to."""

    def __init__(self, speaker: Speaker, watch: Watch | None = None) -> None:
        self._speaker = speaker
        self.watch = watch
        """Counts the connections, if somebody wants to know."""
        self.sockets: dict[str, zmq.Socket[Any]] = {}
        self.made: list[zmq.Socket[Any]] = []
        """Those that the device made, and closes."""
        self.bound: dict[str, list[tuple[str, str]]] = {}
        """By role: each address as it was asked for, and as it really is."""
        self.is_plain = False
        """Whether nobody but zdev makes these sockets, binds them and connects them."""
        self.later: dict[str, int] = {}
        """The types of those that are still to be made, by role."""
        self.transports: set[str] = set()
        """Those that have been used."""
        self.only_first: dict[zmq.Socket[Any], bool] = {}
        """Whether a socket has ZMQ_ONLY_FIRST_SUBSCRIBE, which libzmq does not tell."""
        self._lingers: list[tuple[zmq.Socket[Any], int]] = []
        self._gates: dict[zmq.Socket[Any], Gate] = {}
        """Of the sockets at which a list says who is let in."""
        self.connects = Connects(self.sockets, self.bound, speaker, watch)
        """What they are connected to."""

    def open(
        self, context: zmq.Context[Any], kinds: Mapping[str, int], plans: Plans, held: HeldPorts
    ) -> list[zmq.Socket[Any]]:
        """Make the sockets of these roles what is planned; options first, since binds use them.

        LATER stands for one that need not be there yet: each costs a descriptor.
        """
        opened: list[zmq.Socket[Any]] = []
        if self.is_plain and self.watch is None:
            unwired = [role for role in CAN_WAIT if role in kinds and not plans[role]]
            # One of a type that cannot serve is refused now.
            self.later.update((r, kinds[r]) for r in unwired if kinds[r] in CAN_WAIT[r])
        for role, kind in kinds.items():
            if role in self.later:
                self.bound.setdefault(role, [])
                opened.append(LATER)
                continue
            if role == "out" and kind < 0:
                target = opened[0]
            else:
                target = _socket(context, role, kind)
                self.made.append(target)
            self.sockets[role] = target
            opened.append(target)
            self._watch(role, target)
        for role in kinds:
            for opt, value in plans[role].sockopts:
                self._set_option(self.sockets[role], opt, value)
        for role in kinds:
            self._allow(role, plans[role].allowed)
        for role in kinds:
            self.bound.setdefault(role, [])
            for addr in plans[role].binds:
                self._bind(role, addr, held.get(addr))
                held.pop(addr, None)
        for role in kinds:
            for addr in plans[role].connects:
                self._connect(role, addr, plans[role].names.get(addr))
        return opened

    def open_later(self, role: str, context: zmq.Context[Any]) -> zmq.Socket[Any]:
        """Make one that need not have been there, now that somebody wires it."""
        target = self.sockets[role] = _socket(context, role, self.later[role])
        del self.later[role]
        self.made.append(target)
        self._hold_linger(target)
        return target

    def know(self, role: str, target: zmq.Socket[Any]) -> None:
        """Take in a socket that a subclass has made."""
        self.sockets.setdefault(role, target)
        self._watch(role, target)
        address = last_endpoint(target)
        self.bound.setdefault(role, [(address, address)] if address else [])

    def _watch(self, role: str, target: zmq.Socket[Any]) -> None:
        if self.watch is not None:
            self.watch.add(role, target)

    def unattached(self) -> list[str]:
        """Return the roles that nobody has bound or connected; on the device's own thread."""
        live = {role: target for role, target in self.sockets.items() if not target.closed}
        named = self.connects.with_names()
        idle = (r for r, s in live.items() if not (s in named or last_endpoint(s)))
        return [*idle, *self.later]

    def is_local(self) -> bool:
        """Tell whether nothing that the sockets have is in the hands of libzmq's I/O threads."""
        return self.is_plain and self.transports <= {"inproc"}

    def snapshot(self) -> dict[str, list[tuple[str, str]]]:
        """Return a copy of `bound`, to be had from any thread."""
        # In one step: the device's own thread may be adding to it.
        return {role: pairs.copy() for role, pairs in self.bound.copy().items()}

    def endpoints(self) -> dict[str, list[str]]:
        """Return where each socket is really bound."""
        return {role: [real for _, real in pairs] for role, pairs in self.snapshot().items()}

    # While the device runs, on its own thread

    def apply(
        self,
        role: str,
        verb: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        most: float | None,
    ) -> Any:
        """Do to a live socket what one of `SocketPlan`'s verbs says.

        What waits to be sent to a peer that is left gets ``most`` seconds where the socket's own
        ZMQ_LINGER is infinite; with None, for ever.
        """
        if role not in self.sockets:
            raise RuntimeError(f"there is no {role} socket that zdev knows of")
        target = self.sockets[role]
        if verb == "setsockopt":
            self._set_option(target, *args, **kwargs)
            if zmq.LINGER in (args[:1] or kwargs.values()):
                self._lingers = [pair for pair in self._lingers if pair[0] is not target]
                self._hold_linger(target)
            return None
        if verb in CHECKS:
            options, allowed = options_of(verb, *args)
            for opt, value in options:
                set_option(target, opt, value)
            self._allow(role, allowed)
            return None
        if verb == "bind_to_random_port":
            # Not the socket's own method, which goes beyond the range that is its default.
            with contextlib.closing(hold_random_port(*args, **kwargs)) as held:
                port = held.getsockname()[1]
                self._bind(role, f"{args[0]}:{port}", held)
            return port
        addr = args[0] if args else kwargs["addr"]
        if verb == "bind":
            self._bind(role, addr)
        elif verb == "connect":
            self._connect(role, addr, kwargs.get("every"))
        else:
            with self._leaving(target, most):
                if verb == "unbind":
                    self._unbind(role, addr)
                elif verb == "disconnect":
                    self.connects.remove(role, addr)
                else:
                    self.connects.follow(*args)
        return None

    def _connect(self, role: str, addr: str, every: float | None) -> None:
        self.transports.add(transport_of(addr))
        self.connects.add(role, addr, every)

    def _set_option(self, target: zmq.Socket[Any], opt: int, value: Any) -> None:
        set_option(target, opt, value)
        if opt == zmq.ONLY_FIRST_SUBSCRIBE:
            self.only_first[target] = bool(value)
        elif opt == zmq.IPV6:
            self.connects.use_ipv6(target)

    def _allow(self, role: str, allowed: Allowed | None) -> None:
        """Let in at a socket whom a list says, and nobody else from now on."""
        if allowed is None:
            return
        target = self.sockets[role]
        option = zmq.CURVE_SERVER if allowed.mechanism == "CURVE" else zmq.PLAIN_SERVER
        if not target.getsockopt(option):
            what = "curve_server" if allowed.mechanism == "CURVE" else "plain_server"
            raise ValueError(
                f"allow_{role}: the list is one of {allowed.mechanism}, and the {role} socket is "
                f"no server of that; call {what}_{role}, too, or give the list that fits"
            )
        gate = self._gates.get(target)
        if gate is not None:
            gate.allowed = allowed
            return
        # Until there is a gate, nobody is let in by its domain.
        gate = self._gates[target] = enter(target.context, allowed, self._speaker, role)
        set_option(target, zmq.ZAP_DOMAIN, gate.domain)
        set_option(target, zmq.ZAP_ENFORCE_DOMAIN, 1)  # without a handler, libzmq would let all in

    def check_allowed(self, role: str, plans: Plans) -> None:
        """Raise if a list was planned for a socket that somebody has made in his own way."""
        plan = plans.get(role)
        if plan and plan.allowed and self.sockets[role] not in self._gates:
            raise RuntimeError(
                f"allow_{role}: the {role} socket was made elsewhere than in the device's own "
                "_setup_sockets, so its list does not hold; leave it out, and use a ZAP handler"
            )

    def leave_gates(self) -> None:
        """Answer no more who is let in, when the sockets are closed."""
        while self._gates:
            _, gate = self._gates.popitem()
            gate.leave()

    def _bind(self, role: str, addr: str, held: Any = None) -> None:
        self.transports.add(transport_of(addr))
        with bind_lock:
            real = _bind(self.sockets[role], addr, held)
            self.bound.setdefault(role, []).append((addr, real))

    def _unbind(self, role: str, addr: str) -> None:
        bound = self.bound.setdefault(role, [])
        pair = next((pair for pair in bound if addr in pair), (addr, addr))
        attach(self.sockets[role], "unbind", pair[1])
        if transport_of(pair[1]) != "inproc":
            await_unbound(self.sockets[role].context, SHORT_PATIENCE)
        if pair in bound:
            bound.remove(pair)

    # ZMQ_LINGER

    @contextlib.contextmanager
    def _leaving(self, target: zmq.Socket[Any], most: float | None) -> Iterator[None]:
        """Give what is unsent to a peer that is left the linger that the end of the run gives."""
        self.restore_lingers()
        set_linger(target, 0.0, most)
        try:
            yield
        finally:
            for waiting, _ in self._lingers:
                waiting.setsockopt(zmq.LINGER, 0)

    @contextlib.contextmanager
    def lingering(self) -> Iterator[None]:
        """Keep unsent messages from holding up the termination of the context.

        With ZMQ_LINGER's default, zmq_ctx_term(3) waits for them for ever, and once it has begun
        the option cannot be set any more. So it is 0 while the device runs; a device that ends
        otherwise gives its sockets back their own before it closes them.
        `test_termination_of_the_context_ends_the_device` has messages left.
        """
        for target in self._open_ones():
            self._hold_linger(target)
        try:
            yield
        except zmq.ContextTerminated:
            # Not every socket may have learnt of it yet; those could still be set to wait.
            self._lingers = []
            raise
        finally:
            self.restore_lingers()

    def _hold_linger(self, target: zmq.Socket[Any]) -> None:
        if target.getsockopt(zmq.LINGER) == -1:
            target.setsockopt(zmq.LINGER, 0)
            self._lingers.append((target, -1))

    def restore_lingers(self) -> None:
        """Give the sockets back their own."""
        for target, linger in self._lingers:
            try:
                target.setsockopt(zmq.LINGER, linger)
            except zmq.ZMQError as error:
                if error.errno not in (zmq.ETERM, zmq.ENOTSOCK):
                    raise

    # The end

    def set_lingers(self, least: float, most: float | None) -> None:
        """Give what the sockets still have to send at least and at most so many seconds."""
        with contextlib.suppress(zmq.ZMQError):  # the context is terminated: nothing lingers
            for target in self._open_ones():
                set_linger(target, least, most)

    def lingers(self) -> list[float]:
        """Return how many seconds each socket's messages get; less is somebody's choice."""
        with contextlib.suppress(zmq.ZMQError):
            senders = [s for s in self._open_ones() if s.type not in CANNOT_SEND]
            lingers = [cast("int", s.getsockopt(zmq.LINGER)) / 1000 for s in senders]
            return [linger for linger in lingers if linger >= SHORT_PATIENCE]
        return []

    def close(self) -> None:
        """Close the sockets that the device made."""
        while self.made:
            target = self.made.pop()
            if target and not target.closed:
                target.close()

    def _open_ones(self) -> list[zmq.Socket[Any]]:
        """Return those that are open; a subclass may have added anything."""
        return [target for target in self.made if target and not target.closed]


def _socket(context: zmq.Context[Any], role: str, kind: int) -> zmq.Socket[Any]:
    wrong = f"{role}_type {kind!r} is no socket type that libzmq knows"
    if not 0 <= kind < 1 << 31:  # on PyPy, pyzmq would make half a socket of it
        raise zmq.ZMQError(zmq.EINVAL, wrong)
    try:
        with says_limits(context):
            made: zmq.Socket[Any] = context.socket(kind)
    except zmq.ZMQError as error:
        if error.errno != zmq.EINVAL:
            raise
        raise zmq.ZMQError(error.errno, wrong) from error
    return made


def set_option(target: zmq.Socket[Any], opt: int, value: Any) -> None:
    """Set one option; pyzmq's documentation sets them to ``str``, which pyzmq does not take."""
    try:
        target.setsockopt(opt, value.encode() if isinstance(value, str) else value)
    except zmq.ContextTerminated:
        raise
    except zmq.ZMQError as error:
        raise zmq.ZMQError(error.errno, f"{error.strerror} {setting(opt, value)}") from error
    except TypeError as error:
        raise TypeError(f"{error} {setting(opt, value)}") from error


def set_linger(target: zmq.Socket[Any], least: float, most: float | None) -> None:
    """Give unsent messages at least so many seconds; where they have for ever, no more than most.

    What is set at all is set at the last moment, when the socket is about to be closed.
    """
    linger = cast("int", target.getsockopt(zmq.LINGER))
    if linger < 0:
        if most is not None:
            target.setsockopt(zmq.LINGER, milliseconds(max(least, most)))
    elif linger < milliseconds(least):
        target.setsockopt(zmq.LINGER, milliseconds(least))


def _bind(target: zmq.Socket[Any], addr: str, held: Any) -> str:
    """Bind a socket, and return where it is really bound.

    A port that is held goes over to libzmq by ZMQ_USE_FD of zmq_setsockopt(3).
    """
    if held is not None:
        target.setsockopt(zmq.USE_FD, held.fileno())
    try:
        with says_limits():
            _insist(target, addr)
    except zmq.ZMQError as error:
        if error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES):
            raise BindError(error.errno, f"{error.strerror}; choose another address") from error
        if error.errno == errno.ENODEV and "[" in text_of(addr) and not target.getsockopt(zmq.IPV6):
            words = f"{error.strerror}; to use IPv6, set ZMQ_IPV6 of the socket to 1"
            raise BindError(error.errno, words) from error
        raise
    finally:
        if held is not None:
            target.setsockopt(zmq.USE_FD, -1)
    if held is not None:
        held.detach()  # libzmq's from here on
    return last_endpoint(target)


def _insist(target: zmq.Socket[Any], addr: str) -> None:
    """Bind a socket, or raise why it cannot be.

    A bind that fails is told to the socket's monitor, and what libzmq does for that may leave
    EAGAIN, which zmq_bind(3) does not know, in the place of the reason. Another try has the reason.
    """
    for is_last in (False, False, True):
        try:
            target.bind(addr)
        except zmq.Again:
            if is_last:
                raise
        else:
            return
