"""``zdev check``: what is wrong, or unwise, with a configuration file, and where."""

from __future__ import annotations

import argparse
import errno
import os
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import zmq

from zdev.cli._brokers import wrong_path
from zdev.cli._changes import room
from zdev.cli._control import ControlError, ask
from zdev.cli._ends import DONE, REFUSED, printing, refuse
from zdev.cli._file import Entry, Places, Problem, general_of, read, read_text
from zdev.cli._meter import MeterError, need_metrics, opened
from zdev.cli._spec import Endpoint, Spec
from zdev.cli._telling import show_problems

if TYPE_CHECKING:
    from zdev.cli._ends import Commands

__all__ = ["add_to", "check"]

PATIENCE = 3.0
"""Seconds for a run of the file to tell where it is bound."""

DESCRIPTION = """\
Say what is wrong with a file for zdev run, with line and column, before it is used; and what is
unwise. Addresses that are taken, names that do not resolve and folders that are not there are
wrong, too, unless --no-environment says not to look. Addresses at which a zdev run of that same
file is bound do not count as taken.
"""


def add_to(commands: Commands) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "check",
        help="say what is wrong with a file for zdev run, and where",
        description=DESCRIPTION,
        epilog="exit status: 0 nothing is wrong, 2 something is\n\n"
        "example:\n  zdev check --deny-warnings zdev.toml",
    )
    parser.add_argument("file", metavar="FILE", help="the file; - is standard input")
    parser.add_argument(
        "--no-environment", action="store_true", help="do not look at this machine and its network"
    )
    parser.add_argument("--deny-warnings", action="store_true", help="treat warnings as errors")
    parser.add_argument("--json", action="store_true", help="print JSON, an object a line")
    parser.set_defaults(command=check)


@printing
def check(arguments: argparse.Namespace) -> int:
    """Run ``zdev check``."""
    try:
        text = read_text(arguments.file)
    except (OSError, UnicodeDecodeError) as error:
        words = getattr(error, "strerror", None) or error
        return refuse("zdev check", f"{arguments.file}: {words}")
    entries, problems = read(text, arguments.file)
    places = Places(text)
    held = set() if arguments.no_environment else _held(arguments.file)
    if not problems and not arguments.no_environment:
        problems += unmeasured(text, places)
    for name, entry in entries.items():
        if not arguments.no_environment:
            problems += missing(name, entry, places, held)
        problems += unwise(name, entry.spec, places)
    problems.sort(key=lambda problem: (problem.line, problem.column))
    show_problems(problems, arguments.file, as_json=arguments.json)
    is_wrong = any(problem.is_error or arguments.deny_warnings for problem in problems)
    if not is_wrong and not arguments.json:
        print(
            f"{arguments.file}: {len(entries)} device{'s' if len(entries) > 1 else ''}, all right"
        )
    return REFUSED if is_wrong else DONE


# What this machine has not


def _held(file: str) -> set[str]:
    """Return what a run of this file has, which a reload would let go, or leave where it is."""
    try:
        devices = ask(file, {"verb": "status"}, PATIENCE)["devices"]
        return {room(a) for each in devices for bound in each["endpoints"].values() for a in bound}
    except (ControlError, TimeoutError, AttributeError, KeyError, TypeError):
        return set()  # there is none, or it is of another version


def unmeasured(text: str, places: Places) -> Iterator[Problem]:
    """Tell of the address of the metrics, if it cannot be had."""
    general = general_of(text)
    if general.metrics is not None:
        try:
            opened(general.metrics, insecure=general.insecure).end()
            need_metrics()
        except MeterError as error:
            yield places.problem(str(error), None, "metrics")


def missing(name: str, entry: Entry, places: Places, held: set[str]) -> Iterator[Problem]:
    """Tell of addresses that cannot be had, and names that do not resolve."""
    for role, wanted in entry.spec.wired():
        has_ipv6 = _is_on(entry.spec.options_of(role).get("ipv6", 0))
        for place in wanted.endpoints:
            words = None
            if place.verb == "bind" and room(place.address) in held:
                continue
            if place.transport == "ipc":
                words = _wrong_path(place)
            elif place.transport == "tcp" and ":" in _host(place) and not has_ipv6:
                words = f"to use IPv6, set {role}.ipv6 = 1"
            elif place.transport == "tcp":
                words = _wrong_tcp(place, has_ipv6=has_ipv6)
            if words:
                yield places.problem(f"{place.address}: {words}", name, role, place.address)


def _wrong_path(place: Endpoint) -> str | None:
    path = place.address.partition("://")[2]
    if path.startswith("@") or path == "*":
        return wrong_path(place.address) if place.verb == "bind" else None
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        return f"there is no folder {folder}"
    if place.verb == "connect":
        return None
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"nothing can be made in the folder {folder}"
    return wrong_path(place.address)


def _host(place: Endpoint) -> str:
    return place.address.partition("://")[2].rpartition(";")[2].rpartition(":")[0].strip("[]")


def _is_on(value: Any) -> bool:
    return str(value).lower() not in ("0", "false", "no", "off")


def _wrong_tcp(place: Endpoint, *, has_ipv6: bool) -> str | None:
    port = place.address.rpartition(":")[2]
    if place.verb == "connect":
        family = socket.AF_UNSPEC if has_ipv6 else socket.AF_INET  # what libzmq looks up
        try:
            socket.getaddrinfo(_host(place), port, family)
        except (OSError, UnicodeError) as error:  # some names cannot be in the DNS
            words = getattr(error, "strerror", None) or "there can be no such name"
            return f"the name does not resolve: {words}"
        return None
    if port == "*":
        return None
    words = None
    with zmq.Context() as context, zmq.Socket(context, zmq.PULL) as probe:
        probe.setsockopt(zmq.LINGER, 0)
        probe.setsockopt(zmq.IPV6, has_ipv6)
        try:
            probe.bind(place.address)
        except zmq.ZMQError as error:
            words = "it is taken" if error.errno == errno.EADDRINUSE else error.strerror
    return words


# What is unwise


def unwise(name: str, spec: Spec, places: Places) -> Iterator[Problem]:
    """Warn of what works, and may be regretted."""

    def warning(words: str, key: str, item: str | None = None) -> Problem:
        at = places.problem(words, name, key, item)
        return Problem(at.line, at.column, words, name, key, is_error=False)

    for role, wanted in spec.wired():
        for place in wanted.endpoints:
            if not place.is_local() and not wanted.is_secured:
                words = f"{place.address} is open to whoever reaches it"
                yield warning(words, role, place.address)
        options: dict[str, Any] = spec.options_of(role)
        for option in ("sndhwm", "rcvhwm", "hwm"):
            if str(options.get(option)) == "0":
                words = f"{role}.{option} = 0: memory alone limits what waits there"
                yield warning(words, "set", f"{role}.{option}")
        if str(options["maxmsgsize"]) == "-1":
            words = f"{role}.maxmsgsize = -1: one message may take all memory"
            yield warning(words, "set", f"{role}.maxmsgsize")
        for option in ("xpub_verbose", "xpub_verboser"):
            if _is_on(options.get(option, 0)):
                words = f"{role}.{option}: every subscription of every peer goes up to all senders"
                yield warning(words, "set", f"{role}.{option}")
    waits = spec.settings.get("capture_policy", "block") == "block"
    if spec.sockets["mon"].endpoints and spec.type_of("mon").upper() != "PUB" and waits:
        kind = spec.type_of("mon").upper()
        if kind in ("PUSH", "PAIR", "DEALER"):
            words = f"a {kind} as the monitor holds all traffic up while nobody reads it"
            yield warning(f'{words}; capture-policy = "drop" does not', "mon")
