"""What a device of the command is to be: the same from options and from a file."""

from __future__ import annotations

import argparse
import ipaddress
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Union

import zmq

from zdev._devices.addresses import check_endpoint
from zdev._devices.resolving import checked_resolve
from zdev.cli._values import seconds

__all__ = [
    "DEFAULTS",
    "DRAIN",
    "KINDS",
    "OTHER_TYPES",
    "ROLES",
    "Endpoint",
    "Spec",
    "SpecError",
    "Value",
    "Wanted",
    "endpoint",
    "http_place",
    "option",
]

ROLES = {
    "in": "the frontend",
    "out": "the backend",
    "mon": "the monitor (it gets a copy of every message)",
    "ctrl": "the control socket (for zdev ctl)",
}

KINDS: dict[str, dict[str, str]] = {
    "queue": {"in": "ROUTER", "out": "DEALER"},
    "forwarder": {"in": "XSUB", "out": "XPUB"},
    "streamer": {"in": "PULL", "out": "PUSH"},
    "proxy": {},
    "monitored-queue": {"in": "ROUTER", "out": "DEALER"},
}
"""The kinds of device, and the types of their ends; those of a proxy must be said."""

# A ROUTER answers any number of operators, and waits for none who has gone without his answer.
OTHER_TYPES = {"mon": "PUB", "ctrl": "ROUTER"}

DEFAULTS: dict[str, int] = {
    "maxmsgsize": 64 << 20,
    "heartbeat_ivl": 10_000,
    "heartbeat_timeout": 30_000,
    "tcp_keepalive": 1,
    "tcp_keepalive_idle": 60,
    "tcp_keepalive_intvl": 15,
    "tcp_keepalive_cnt": 4,
}
"""Options that a broker should have, and libzmq's sockets have not, by pyzmq's names."""

# Else messages are dealt to hosts that are down, too, and lost when these leave the name.
OF_NAMES: dict[str, int] = {"immediate": 1}
"""Those that a socket should have besides, which is connected to all addresses of a name."""

DRAIN = 5.0
"""Seconds that a device may take to end, where nothing else is said."""

Value = Union[int, str, bytes]


class SpecError(Exception):
    """What is wrong with what a device is to be.

    Attributes
    ----------
    key : str
        What it is wrong with: an option of the command, a key of the file.
    item : str or None
        What of its value.
    """

    def __init__(self, key: str, words: object, item: str | None = None) -> None:
        super().__init__(str(words))
        self.key = key
        self.item = item


@dataclass(frozen=True)
class Endpoint:
    """Where a socket is to be bound or connected."""

    verb: str
    address: str
    every: float | None = None
    """Seconds after which its name is looked up again, and all its addresses connected to."""

    def __str__(self) -> str:
        """Return it as it is written, without the verb."""
        return self.address + ("" if self.every is None else f"?resolve=all&every={self.every:g}s")

    @property
    def options(self) -> dict[str, Any]:
        """What the method of a device takes besides the address."""
        return {} if self.every is None else {"resolve": "all", "every": self.every}

    @property
    def transport(self) -> str:
        """The transport of the address."""
        return self.address.partition("://")[0]

    def is_wildcard(self) -> bool:
        """Tell whether it becomes another address each time it is bound."""
        return self.address.endswith((":*", ":0")) or self.address == "ipc://*"

    def is_local(self) -> bool:
        """Tell whether it surely is on this machine."""
        if self.transport in ("ipc", "inproc"):
            return True
        if self.transport not in ("tcp", "ws", "wss"):
            return False
        # A source address may come first: tcp://SOURCE;HOST:PORT.
        place = self.address.partition("://")[2].rpartition(";")[2].partition("/")[0]
        host = place.rpartition(":")[0].strip("[]")
        if host == "localhost" or (host, self.verb) == ("lo", "bind"):  # to connect, lo is a name
            return True
        try:
            address = ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            return False  # a name, another interface or a wildcard
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback


@dataclass
class Wanted:
    """What a socket is to be."""

    type: str | None = None
    endpoints: list[Endpoint] = field(default_factory=list)
    options: dict[str, Value] = field(default_factory=dict)
    """By their names in small letters."""
    curve_server: str | None = None
    """The path of its secret certificate, if it is a server of CURVE."""
    curve_client: tuple[str, str] | None = None
    """Those of its secret certificate and of the server's public one, if it is a client."""
    allow: str | None = None
    """The directory with the certificates of those who may come."""
    plain_server: str | None = None
    """The file with the passwords of those who may come, if it is a server of PLAIN."""
    plain_client: str | None = None
    """That with its own name and password, if it is a client."""

    @property
    def proofs(self) -> list[str]:
        """By what those at both ends are to prove who they are; a socket can have one."""
        names = ("curve_server", "curve_client", "plain_server", "plain_client")
        return [name.replace("_", "-") for name in names if getattr(self, name) is not None]

    @property
    def is_secured(self) -> bool:
        """Whether nobody can be there without a key, or read what comes and goes."""
        return self.curve_server is not None or self.curve_client is not None


@dataclass
class Spec:
    """What a device is to be.

    Attributes
    ----------
    settings : dict
        The keywords that a device takes besides: ``burst``, ``overflow`` and their kin.
    prefixes : dict
        Of a monitored queue, by role.
    """

    kind: str
    name: str
    sockets: dict[str, Wanted] = field(default_factory=lambda: {role: Wanted() for role in ROLES})
    prefixes: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    insecure: bool = False

    def type_of(self, role: str) -> str:
        """Return the name of the type of a socket, as it was given or as its kind has it."""
        given = self.sockets[role].type
        return given or KINDS[self.kind].get(role) or OTHER_TYPES[role]

    def options_of(self, role: str) -> dict[str, Value]:
        """Return the options of a socket: those given, and the defaults of the others."""
        wanted = self.sockets[role]
        has_names = any(place.every is not None for place in wanted.endpoints)
        return {**DEFAULTS, **(OF_NAMES if has_names else {}), **wanted.options}

    def wired(self) -> Iterator[tuple[str, Wanted]]:
        """Return the sockets that are to be bound or connected."""
        return ((role, wanted) for role, wanted in self.sockets.items() if wanted.endpoints)


def endpoint(text: str) -> Endpoint:
    """Read ``bind:tcp://127.0.0.1:5559`` or ``connect:tcp://name:5559?resolve=all&every=10s``.

    Raises
    ------
    ValueError
        If that is none.
    """
    verb, colon, address = text.partition(":")
    if verb not in ("bind", "connect") or not colon:
        known = f"bind:{text}" if "://" in text else "bind:tcp://127.0.0.1:5559"
        raise ValueError(f"{text!r} does not say what to do there; write {known} or connect:...")
    query = None
    if address.startswith("tcp:"):  # the path of ipc may have a question mark
        address, mark, rest = address.partition("?")
        query = rest if mark else None
    try:
        check_endpoint(verb, address, connects=verb == "connect")
    except zmq.ZMQError as error:
        raise ValueError(error.strerror) from None
    return Endpoint(verb, address, None if query is None else _every(verb, address, query))


def _every(verb: str, address: str, query: str) -> float | None:
    """Read ``resolve=all&every=10s``: return the seconds; None for the first address only."""
    if verb != "connect":
        raise ValueError(f"{address}, and then {'?' + query!r}: that is for connect; leave it out")
    try:
        given: dict[str, Any] = _words(query)
        if "every" in given:
            given["every"] = seconds(given["every"].removesuffix("s"))
        every: float | None = checked_resolve("connect", address, **given).get("every")
    except (TypeError, ValueError, argparse.ArgumentTypeError) as error:
        words = "there is no such word"  # which is a TypeError
        if not isinstance(error, TypeError):
            words = str(error).removeprefix("connect: ").replace("'all'; say", "all; say")
        hint = "write ?resolve=all&every=10s"
        raise ValueError(f"{address}, and then {'?' + query!r}: {words}; {hint}") from None
    return every


def _words(query: str) -> dict[str, str]:
    """Read ``resolve=all&every=10s`` as what it is: words with values, each of them once."""
    pairs = urllib.parse.parse_qsl(query, keep_blank_values=True, strict_parsing=True)
    words = dict(pairs)
    if not words:  # which some versions of the parser refuse themselves
        raise ValueError("there is no word")
    if len(words) < len(pairs):
        raise ValueError("each word must be there once")
    return words


def http_place(text: str, *, insecure: bool) -> tuple[str, int]:
    """Read ``127.0.0.1:9464`` or ``[::1]:9464``: return host and port.

    Raises
    ------
    ValueError
        If it is none, or beyond this machine without ``insecure``.
    """
    host, colon, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    is_port = port.isascii() and port.isdigit() and int(port) < 1 << 16
    if not (host and colon and is_port) or (":" in host and not text.startswith("[")):
        raise ValueError(f"must be HOST:PORT, such as 127.0.0.1:9464, not {text!r}")
    if not (insecure or Endpoint("bind", f"tcp://{text}").is_local()):
        raise ValueError(
            f"{text} is beyond this machine, where whoever reaches it may read of all devices: use "
            "127.0.0.1; if all may, say so by --insecure (in a file: insecure = true, above the "
            "devices)"
        )
    return host, int(port)


def option(text: str) -> tuple[str, str, str]:
    """Read ``in.rcvhwm=10000``: return role, name and value.

    Raises
    ------
    ValueError
        If it has not that form.
    """
    place, equals, value = text.partition("=")
    role, dot, name = place.partition(".")
    if not equals or not dot or not name or role not in ROLES:
        known = ", ".join(ROLES)
        raise ValueError(
            f"{text!r} sets no option; write ROLE.NAME=VALUE, such as in.rcvhwm=10000, "
            f"where ROLE is one of {known}"
        )
    return role, name.lower(), value
