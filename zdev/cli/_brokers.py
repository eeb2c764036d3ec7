"""The devices of the command: made as they are wanted, or refused with what is wrong."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator, Mapping
from typing import Any, Callable

import zmq

from zdev._devices.kinds import ProxySteerableKind
from zdev._devices.launchers import ThreadDevice
from zdev._devices.options import checked_option, takes_int
from zdev._devices.security import SECRETS
from zdev._names import socket_type
from zdev._sockets import check_pair
from zdev.cli._passwords import load_password, load_passwords
from zdev.cli._spec import KINDS, ROLES, Endpoint, Spec, SpecError, Value, Wanted

__all__ = ["Broker", "ThreadBroker", "check_path", "check_paths", "make", "wrong_path"]

WORDS = {"true": 1, "yes": 1, "on": 1, "false": 0, "no": 0, "off": 0}


class Broker(ProxySteerableKind):
    """A device with all sockets, of any kind. Those that nobody wires are not made."""

    context_factory = zmq.Context
    watch_connections = True

    def __init__(self, spec: Spec) -> None:
        kinds = [spec.type_of(role) for role in ROLES]
        super().__init__(*kinds, name=spec.name, **spec.settings)
        self._prefixes: dict[str, Any] = {"swap": False}
        if spec.kind == "monitored-queue":
            self._prefixes = {f"{s}_prefix": spec.prefixes.get(s, s) for s in ("in", "out")}

    def _relay_options(self) -> dict[str, Any]:
        return self._prefixes


class ThreadBroker(Broker, ThreadDevice):
    """Such a device in a thread."""


def make(spec: Spec, cls: Callable[[Spec], Broker] = ThreadBroker) -> Any:
    """Make a device, which is not started yet.

    Raises
    ------
    SpecError
        With what is wrong, as far as that can be said without starting it.
    """
    _check_kind(spec)
    for role in ("in", "out"):
        if not spec.sockets[role].endpoints:
            raise SpecError(role, f"{ROLES[role]} is neither bound nor connected; say where")
    for key in spec.prefixes:
        if spec.kind != "monitored-queue":
            raise SpecError(f"{key}-prefix", f"only a monitored-queue has it, not a {spec.kind}")
    with _naming(spec):
        device = cls(spec)
    with zmq.Context() as context:
        for role, wanted in spec.sockets.items():
            for number, value in _checked(context, role, spec):
                if wanted.endpoints:  # else there will be no such socket
                    getattr(device, f"setsockopt_{role}")(number, value)
    for role, wanted in spec.wired():
        _secure(device, role, wanted)
        for place in wanted.endpoints:
            _check_place(spec, role, place)
            wire = getattr(device, f"{place.verb}_{role}")
            try:
                wire(place.address, **place.options)
            except ValueError as error:
                words = str(error).removeprefix(f"{place.verb}_{role}: ")
                raise SpecError(role, words, str(place)) from None
    return device


def _check_kind(spec: Spec) -> None:
    if spec.kind not in KINDS:
        raise SpecError("kind", f"there is no {spec.kind!r}; kinds are {', '.join(KINDS)}")
    for role in ("in", "out"):
        if spec.sockets[role].type is None and role not in KINDS[spec.kind]:
            words = f"a {spec.kind} has no types of its own; say one, such as ROUTER"
            raise SpecError(f"{role}-type", words)


@contextlib.contextmanager
def _naming(spec: Spec) -> Iterator[None]:
    """Raise what the constructor says of a type or setting as an error of its key."""
    try:
        yield
        ends = [socket_type(spec.type_of(role), role) for role in ("in", "out")]
        check_pair(("in-type", "out-type"), *ends, is_one=False)
    except (TypeError, ValueError) as error:
        words = str(error)
        types = [f"{role}_type" for role in ROLES]
        keys = [key for key in (*types, *spec.settings, "name") if words.startswith(key)]
        key = max(keys, key=len, default="in_type")
        rest = words[len(key) :].lstrip(":").strip() if keys else words
        raise SpecError(key.replace("_", "-"), rest) from None


def _secure(device: Broker, role: str, wanted: Wanted) -> None:
    """Give a socket its keys or passwords, and the list of who may come."""
    if len(wanted.proofs) > 1:
        words = f"{role} has {' and '.join(wanted.proofs)}, of which a socket can have one"
        raise SpecError(wanted.proofs[-1], words)
    loads: dict[str, Callable[[Any], tuple[Any, ...]]] = {
        "curve_server": lambda path: (path,),
        "curve_client": lambda paths: paths,
        "plain_server": lambda path: (load_passwords(path),),
        "plain_client": load_password,
        "allow": lambda path: (path,),
    }
    for verb, load in loads.items():
        given = getattr(wanted, verb)
        if given is None:
            continue
        path = given if isinstance(given, str) else given[0]
        key = verb.replace("_", "-")
        try:
            getattr(device, f"{verb}_{role}")(*load(given))
        except OSError as error:
            words = f"{error.filename or path}: {error.strerror or error}"
            raise SpecError(key, words, path) from None
        except (TypeError, ValueError, RuntimeError) as error:
            words = str(error).removeprefix(f"{verb}_{role}: ")
            raise SpecError(key, words, path) from None
    if wanted.allow is not None and wanted.curve_server is None:
        raise SpecError("allow", f"{role} is no server of CURVE, so it cannot tell who comes")


def _check_place(spec: Spec, role: str, place: Endpoint) -> None:
    """Check that somebody can be there, and that not everybody can."""
    if place.transport == "inproc":
        words = f"nobody is at {place.address}: inproc is of one process; use ipc"
        raise SpecError(role, words, place.address)
    if not (spec.insecure or place.is_local() or spec.sockets[role].is_secured):
        raise SpecError(
            role,
            f"{place.verb}:{place.address} is beyond this machine, and nothing says who may be "
            "there: use CURVE (curve-server, curve-client), 127.0.0.1 or ipc; if all who come may "
            "use it, say so by --insecure (in a file: insecure = true in the device's table)",
            place.address,
        )


def check_paths(spec: Spec) -> None:
    """Check that nobody has the paths for ipc: libzmq would remove whatever is there.

    Raises
    ------
    zmq.ZMQError
        If somebody has one.
    """
    for _, wanted in spec.wired():
        for place in wanted.endpoints:
            check_path(place)


def check_path(place: Endpoint) -> None:
    """Check that of one."""
    words = wrong_path(place.address) if (place.verb, place.transport) == ("bind", "ipc") else None
    if words:
        raise zmq.ZMQError(errno.EADDRINUSE, f"{place.address}: {words}")


def wrong_path(address: str) -> str | None:
    """Say who or what is where a socket is to be bound; what somebody has left does not matter."""
    path = address.partition("://")[2]
    if path == "*":
        return None
    if not path.startswith("@"):
        try:
            if not stat.S_ISSOCK(os.stat(path).st_mode):
                return "there is something else by that name"
        except OSError:
            return None
    # To bind there for a try would take it away from who has it.
    with socket.socket(socket.AF_UNIX) as probe:
        there = "\0" + path[1:] if path.startswith("@") else path
        return "somebody listens there" if probe.connect_ex(there) == 0 else None


def _checked(context: zmq.Context[Any], role: str, spec: Spec) -> Iterator[tuple[int, int | bytes]]:
    """Return the options of a socket as it takes them, tried on one of its type."""
    kind = socket_type(spec.type_of(role), role)
    options: Mapping[str, Value] = spec.options_of(role)
    with zmq.Socket(context, kind) as probe:
        for name, given in options.items():
            try:
                number, value = valued(name, given)
                probe.setsockopt(number, value)
            except (TypeError, ValueError, zmq.ZMQError) as error:
                words = (
                    str(getattr(error, "strerror", None) or error)
                    .removeprefix("set: ")
                    .removeprefix("opt: ")
                )
                if isinstance(error, zmq.ZMQError):
                    words = f"a {spec.type_of(role)} does not take {name} = {given!r}: {words}"
                raise SpecError("set", words, f"{role}.{name}") from None
            yield number, value


def valued(name: str, value: Any) -> tuple[int, int | bytes]:
    """Return the number of an option, and its value as a socket takes it.

    Raises
    ------
    TypeError, ValueError, zmq.ZMQError
        If there is no such option, or it does not take that.
    """
    number = int(getattr(zmq.SocketOption, name.upper(), -1))
    if number in SECRETS:
        # Whoever lists processes would read it.
        raise ValueError(f"{name} is a secret, which has no place here; keep it in a file")
    if number == zmq.USE_FD:  # libzmq aborts where that is no descriptor of a socket that listens
        raise ValueError(f"{name} is a descriptor, of which a broker is given none")
    if isinstance(value, bool):
        value = int(value)
    if number != -1 and isinstance(value, str) and takes_int(number):
        try:
            value = WORDS[value.lower()] if value.lower() in WORDS else int(value, 0)
        except ValueError:
            raise ValueError(f"{name} is a number, not {value!r}") from None
    number, value = checked_option("set", name, value)
    return number, value.encode() if isinstance(value, str) else value
