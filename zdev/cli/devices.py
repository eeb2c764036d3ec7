"""``zdev queue`` and its kin: one device, until a signal drains it."""

from __future__ import annotations

import argparse
import contextlib
import signal
import textwrap
import time
from typing import TYPE_CHECKING, Any

import zmq

import zdev
from zdev import _engines
from zdev._arguments import DEFAULT_BURST
from zdev._seed import seed
from zdev.cli._brokers import ThreadBroker, check_paths, make
from zdev.cli._ends import DONE, INTERRUPTED, LATE, fail, printing, refuse, say, tell
from zdev.cli._file import Entry
from zdev.cli._kept import WAYS, Kept
from zdev.cli._meter import Meter, MeterError, add_metrics_to
from zdev.cli._output import json_line
from zdev.cli._spec import (
    DEFAULTS,
    DRAIN,
    KINDS,
    OTHER_TYPES,
    ROLES,
    Spec,
    SpecError,
    endpoint,
    option,
)
from zdev.cli._status import statuses
from zdev.cli._telling import logging_to_stderr, sockets_of, told
from zdev.cli._values import duration

if TYPE_CHECKING:
    from typing_extensions import Self

    from zdev.cli._ends import Commands

__all__ = ["add_to", "relay"]

HELP = {
    "queue": "pass requests to workers and replies back: ROUTER to DEALER",
    "forwarder": "pass what is published on to subscribers: XSUB to XPUB",
    "streamer": "pass tasks on to workers: PULL to PUSH",
    "proxy": "pass messages between two sockets of types that you say",
    "monitored-queue": "a queue that shows a third socket all that passes, and from which side",
}

EXAMPLES = {
    "queue": "--in bind:tcp://127.0.0.1:5559 --out bind:tcp://127.0.0.1:5560",
    "forwarder": "--in bind:tcp://127.0.0.1:5561 --out bind:ipc:///run/news",
    "streamer": "--in bind:tcp://127.0.0.1:5557 --out bind:tcp://127.0.0.1:5558 --overflow drop",
    "proxy": "--in-type PULL --in bind:ipc:///run/all --out-type PUB --out bind:ipc:///run/news",
    "monitored-queue": "--in bind:tcp://127.0.0.1:5559 --out bind:tcp://127.0.0.1:5560 \\\n"
    "      --mon bind:tcp://127.0.0.1:5562",
}

SECURITY = [
    ("curve-server", "ROLE=FILE", "with this secret key: only who knows its public key gets in"),
    ("curve-client", "ROLE=FILE,SERVER", "FILE: its secret key; SERVER: the server's public key"),
    ("allow", "ROLE=FOLDER", "of a CURVE server: let in only who has one of the keys in it"),
    ("plain-server", "ROLE=FILE", "let in only who has one of its passwords, lines NAME:PASSWORD"),
    ("plain-client", "ROLE=FILE", "tell servers its name and password, which nothing encrypts"),
]

ENDING = """\
SIGINT (Ctrl-C) and SIGTERM let the device relay what it and its sockets hold, for --drain seconds
at most, and end it; a second one ends it at once. Options that no --set changes:
  {defaults}
A heartbeat may end a connection on which one message takes longer than heartbeat_timeout (in
milliseconds); a message of more than maxmsgsize bytes ends its peer's connection.

exit status: 0 ended and drained, 1 failed while it ran, 2 wrong arguments or an address that is
not to be had, 3 the drain's time ran out, 130 ended at once

example:
  zdev {kind} {example}
"""


def add_to(commands: Commands) -> None:
    """Add a parser for each kind of device."""
    for kind, words in HELP.items():
        _add(commands, kind, words)


def _add(commands: Commands, kind: str, words: str) -> None:
    defaults = ", ".join(f"{name}={value}" for name, value in DEFAULTS.items())
    defaults = textwrap.fill(defaults, 98, subsequent_indent="  ")
    parser = commands.add_parser(
        kind,
        help=words,
        description=f"{words[0].upper()}{words[1:]}.",
        epilog=ENDING.format(kind=kind, example=EXAMPLES[kind], defaults=defaults),
    )
    parser.set_defaults(command=relay, kind=kind)
    sockets = parser.add_argument_group(
        "sockets",
        "ENDPOINT is bind:ADDRESS or connect:ADDRESS, such as bind:tcp://127.0.0.1:5559. With\n"
        "connect:tcp://NAME:PORT?resolve=all&every=10s, the socket is connected to all addresses\n"
        "that the name has, and the name is looked up again every 10 seconds.",
    )
    for role, what in ROLES.items():
        sockets.add_argument(
            f"--{role}",
            action="append",
            default=[],
            type=reader(endpoint),
            metavar="ENDPOINT",
            help=f"where {what} is bound or connected; may be repeated",
        )
    for role in ROLES:
        usual = KINDS[kind].get(role) or OTHER_TYPES.get(role)
        sockets.add_argument(
            f"--{role}-type",
            metavar="TYPE",
            help=f"the type of that socket (default: {usual or 'none, it must be said'})",
        )
    sockets.add_argument(
        "--set",
        action="append",
        default=[],
        type=reader(option),
        metavar="ROLE.OPTION=VALUE",
        help="set an option of a socket by its name in pyzmq, such as in.rcvhwm=10000; may be "
        "repeated",
    )
    for key, metavar, what in SECURITY:
        sockets.add_argument(
            f"--{key}", action="append", default=[], type=placed, metavar=metavar, help=what
        )
    sockets.add_argument(
        "--insecure",
        action="store_true",
        help="allow endpoints beyond this machine, where whoever reaches them may use the device, "
        "and --metrics there",
    )
    if kind == "monitored-queue":
        for role in ("in", "out"):
            sockets.add_argument(
                f"--{role}-prefix",
                metavar="TEXT",
                default=role,
                help="the first frame of what the monitor is shown from there (default: "
                "%(default)s)",
            )
    flow = parser.add_argument_group("flow")
    flow.add_argument(
        "--overflow",
        choices=["park", "drop"],
        help="what to do with a message when its destination is full or has no peer: keep it and "
        "read no more meanwhile, or drop and count it (default: park)",
    )
    for name, ways in (("in", "from in to out"), ("out", "from out to in")):
        flow.add_argument(
            f"--{name}-overflow", choices=["park", "drop"], help=f"the same, for messages {ways}"
        )
    flow.add_argument(
        "--capture-policy",
        choices=["block", "drop"],
        help="what happens while the monitor has no room: all waits, or the copy is dropped "
        "(default: block)",
    )
    flow.add_argument(
        "--burst",
        type=int,
        metavar="N",
        help=f"messages that one direction may pass before the other's turn (default: "
        f"{DEFAULT_BURST})",
    )
    flow.add_argument(
        "--io-threads", type=int, metavar="N", help="threads for the network (default: 1)"
    )
    life = parser.add_argument_group("life")
    life.add_argument("--name", help="what the log calls the device (default: its kind)")
    life.add_argument(
        "--drain",
        type=duration,
        default=DRAIN,
        metavar="SECONDS",
        help="how long to go on relaying what is left when it is to end (default: %(default)s)",
    )
    life.add_argument("--json", action="store_true", help="print JSON, an object a line")
    add_metrics_to(life)


def placed(text: str) -> tuple[str, list[str]]:
    """Read ``in=PATH``, or ``in=PATH,PATH``: return the role and the paths."""
    role, equals, paths = text.partition("=")
    if not equals or role not in ROLES or not paths:
        known = ", ".join(ROLES)
        words = f"{text!r} names no socket; write ROLE=PATH, where ROLE is one of {known}"
        raise argparse.ArgumentTypeError(words)
    return role, paths.split(",")


def reader(read: Any) -> Any:
    """Have argparse show what a reader says of a word that it refuses."""

    def reading(text: str) -> Any:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return reading


def spec_of(arguments: argparse.Namespace) -> Spec:
    """Return what the device is to be."""
    given = vars(arguments)
    spec = Spec(arguments.kind, arguments.name or arguments.kind, insecure=arguments.insecure)
    for role, wanted in spec.sockets.items():
        wanted.type = given[f"{role}_type"]
        wanted.endpoints = given[role]
    for role, name, value in arguments.set:
        spec.sockets[role].options[name] = value
    for role, paths in arguments.curve_server:
        spec.sockets[role].curve_server = ",".join(paths)
    for role, paths in arguments.curve_client:
        if len(paths) != 2:
            words = "needs two: its own secret certificate and the server's public one"
            raise SpecError("curve-client", words, ",".join(paths))
        spec.sockets[role].curve_client = (paths[0], paths[1])
    for name in ("allow", "plain_server", "plain_client"):
        for role, paths in given[name]:
            setattr(spec.sockets[role], name, ",".join(paths))
    if arguments.kind == "monitored-queue":
        spec.prefixes = {role: given[f"{role}_prefix"] for role in ("in", "out")}
    names = ("overflow", "in_overflow", "out_overflow", "capture_policy", "burst", "io_threads")
    spec.settings = {name: given[name] for name in names if given[name] is not None}
    return spec


@printing
def relay(arguments: argparse.Namespace) -> int:
    """Run ``zdev queue`` or its kin."""
    who = f"zdev {arguments.kind}"
    try:
        _engines.current()
        seed()
        spec = spec_of(arguments)
        device = make(spec)
    except zdev.EngineUnavailableError as error:
        return refuse("zdev", error)
    except SpecError as error:
        option = f"{error.key} {error.item}" if error.key == "set" else error.key
        return refuse(who, f"argument --{option}: {error}")
    kept = Kept(Entry(spec, arguments.drain, in_thread=True))
    with logging_to_stderr(who), Signals(device, arguments.drain) as signals:

        def ask() -> dict[str, Any]:
            devices = statuses([kept])
            return {"problem": None, "ending": signals.has_come, "devices": devices}

        with contextlib.closing(Meter(ask, spec.name, lambda words: say(who, words))) as meter:
            status = _measured(meter, device, kept, arguments, signals)
    if status != DONE:
        return status
    tell_end(device, who, as_json=arguments.json)
    return signals.status()


def _measured(
    meter: Meter,
    device: ThreadBroker,
    kept: Kept,
    arguments: argparse.Namespace,
    signals: Signals,
) -> int:
    """Run a device to its end, where it may be measured, and return the exit status."""
    try:
        with meter.moving(arguments.metrics, insecure=arguments.insecure):
            pass
    except MeterError as error:
        return refuse(f"zdev {arguments.kind}", error)
    return _relay(device, kept, arguments, signals)


def _relay(
    device: ThreadBroker, kept: Kept, arguments: argparse.Namespace, signals: Signals
) -> int:
    """Run a device to its end, and return the exit status; DONE, if no error ended it."""
    spec, who = kept.entry.spec, f"zdev {arguments.kind}"
    try:
        check_paths(spec)
        device.start()
    except (zmq.ZMQError, OSError, RuntimeError, ValueError) as error:
        return refuse(who, error)
    kept.device, kept.began = device, time.monotonic()
    for line in told(spec, sockets_of(device, spec), as_json=arguments.json):
        tell(line)
    signals.heed_early_ones()
    say(who, f"relays; Ctrl-C ends it{drains(arguments.drain)}")
    try:
        device.join()
    except Exception as error:  # whatever has ended it
        return fail(who, error)
    return DONE


def drains(drain: float) -> str:
    """Say how long it may go on."""
    return f" within {drain:g} s" if drain else " at once"


def tell_end(device: ThreadBroker, who: str, *, as_json: bool) -> None:
    """Tell what it has relayed."""
    counts = device.statistics()
    if as_json:
        fields = {way: getattr(counts, way)._asdict() for way in WAYS}
        left = device.last_stop
        fields["left"] = None if left is None else left._asdict()
        tell(json_line("device", event="ended", name=device.name, **fields))
    there, back, _ = counts
    words = [f"{there.messages_sent:,} messages from in to out, {back.messages_sent:,} back"]
    for name in ("dropped", "unroutable", "overflowed", "parked"):
        number = getattr(there, name) + getattr(back, name)
        words += [f"{number:,} {name}"] if number else []
    say(who, f"ended; {', '.join(words)}")


class Signals:
    """Drains a device at the first SIGINT or SIGTERM, and ends it at the second."""

    def __init__(self, device: ThreadBroker, drain: float) -> None:
        self._device = device
        self._drain = drain
        self._count = 0
        self._kept: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as a shell's background job has it
                self._kept[number] = signal.signal(number, self._heed)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._kept.items():
            signal.signal(number, handler)

    def _heed(self, _number: int, _frame: Any) -> None:
        self._count += 1
        self._end()

    def heed_early_ones(self) -> None:
        """End a device that has started, if a signal came before there was anything to end."""
        if self._count:
            self._end()

    def _end(self) -> None:
        drain = self._drain if self._count == 1 else 0
        with contextlib.suppress(TimeoutError):  # it is asked to, and waited for elsewhere
            self._device.stop(drain or None, timeout=0)

    @property
    def has_come(self) -> bool:
        """Whether one has come."""
        return self._count > 0

    def status(self) -> int:
        """Return the exit status for how it ended."""
        left = self._device.last_stop
        if self._count > 1:
            return INTERRUPTED
        if self._count == 1 and self._drain and left is not None and not left.drained:
            return LATE
        return DONE
