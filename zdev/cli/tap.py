"""``zdev tap``: what passes a device, as it passes."""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import zmq

from zdev.cli._client import Client
from zdev.cli._ends import DONE, INTERRUPTED, LATE, printing, refuse, say
from zdev.cli._output import json_line
from zdev.cli._values import octets, seconds, whole
from zdev.cli.tap_connection import Connection
from zdev.cli.tap_frames import CUT, FORMATS, FRAMES, line, lossless

if TYPE_CHECKING:
    from zdev.cli._ends import Commands

__all__ = ["add_to", "tap"]

WHO = "zdev tap"

RATE = 50  # messages a second that a terminal bears, and so many at once
ROOM = 10_000  # messages that wait here while a terminal takes its time: ten times libzmq's default
TURN = 1000  # messages, after which it attends to all else
FLUSH = 0.1  # seconds that a line waits at most, where they come without a pause

BOUND = f"at most {RATE} a second are, without --all"

DESCRIPTION = """\
Print the messages that a device's monitor shows, or any other PUB or XPUB, one a line: the time at
which each came, the direction, and its frames.

The direction is the first frame, if that is the in-prefix or the out-prefix of a monitored queue;
else it is "-", and all frames belong to the message. The filters look at what is behind it.
"""

EPILOG = f"""\
Which frame is the first, for --prefix and --not-prefix: of what a forwarder (XSUB to XPUB) relays
it is the topic, of a streamer's messages the data. A queue (ROUTER to DEALER) shows the messages
as it sends them on, so the first is the routing id of the client, both ways: --prefix shows what
one client asked and was answered. For what stands in other frames there is --grep.

PREFIX is text, in which a backslash is written \\\\, and any byte such as \\x00, as --format quoted
shows it. REGEX is one of Python's re, searched in each frame as UTF-8. Long frames are cut to {CUT}
bytes, and long messages to {FRAMES} frames, but not in JSON. What a terminal would obey is shown as
\\x1b and the like.

At most {RATE} messages a second are shown, unless --all is given; how many were not is said on
standard error. A tap only subscribes, so it never holds a device up, unless the monitor is an XPUB
with XPUB_NODROP. A PUB drops what a subscriber has no room for, and nobody counts that: a tap tells
when it was so busy that this may have happened, and for how long a connection was lost. What was
dropped because the network is slow, or since a burst met the monitor's high-water mark, it cannot
know. Its time is when a message came here.

exit status: 0 at the end of --count or --for; 1 when nobody reads its output any more; 2 a wrong
argument, or an address that is not to be had; 3 if nobody has listened there in the time of --for;
130 after Ctrl-C.

examples:
  zdev tap tcp://127.0.0.1:5561
  zdev tap tcp://127.0.0.1:5561 --grep 'order-(17|23)' --count 10
  zdev tap tcp://127.0.0.1:5561 --prefix client-1 --format quoted --delta-time
  zdev tap tcp://127.0.0.1:5560 --no-direction --prefix weather   of a forwarder, one topic alone
  zdev tap tcp://127.0.0.1:5561 --for 60 --all --json > minute.jsonl

JSON, of the schema tap/1: time (UTC), direction ("in", "out" or null) and frames, each of which is
{{"text": ...}} if it is UTF-8, else {{"base64": ...}}; with --delta-time also delta, in seconds.
"""


def add_to(commands: Commands) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "tap",
        help="print what passes a device, as it passes",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    add = parser.add_argument
    add("address", metavar="ADDR", help="of the monitor")
    add("--bind", action="store_true", help="bind ADDR: the monitor connects")
    add("--format", choices=FORMATS, default="text", help="of the frames (default: %(default)s)")
    add("--json", action="store_true", help="print one object a line, with all of each frame")
    add(
        "--delta-time", action="store_true", help="instead of the time, seconds since the last line"
    )
    add("--all", action="store_true", help=f"more than {RATE} messages a second, too")
    add("--count", type=whole, metavar="N", help="end when N messages were shown")
    add("--for", dest="span", type=seconds, metavar="SECONDS", help="end after that time")
    add("--grep", type=pattern, metavar="REGEX", help="show a message if any frame matches")
    more: dict[str, Any] = {"type": octets, "action": "append", "default": [], "metavar": "PREFIX"}
    add("--prefix", **more, help="show a message if its first frame begins so; repeatable")
    add("--not-prefix", **more, help="do not show those whose first frame does; repeatable")
    whence = parser.add_argument_group("direction")
    add = whence.add_argument
    add("--in-prefix", type=octets, default=b"in", metavar="PREFIX", help="default: in")
    add("--out-prefix", type=octets, default=b"out", metavar="PREFIX", help="default: out")
    add(
        "--no-direction",
        action="store_true",
        help="the first frame is the message's, and --prefix is what is subscribed to",
    )
    parser.set_defaults(command=tap)


def pattern(text: str) -> re.Pattern[str]:
    """Read a regular expression."""
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {error}") from error


@printing
def tap(arguments: argparse.Namespace) -> int:
    """Run ``zdev tap``."""
    if arguments.in_prefix == arguments.out_prefix and not arguments.no_direction:
        return refuse(WHO, "--in-prefix and --out-prefix are the same; say --no-direction")
    try:
        client = Client(zmq.SUB, arguments.address, bind=arguments.bind, rcvhwm=ROOM)
    except zmq.ZMQError as error:
        return refuse(WHO, error)
    with client:
        here = Tap(client, arguments)
        try:
            status = here.run()
        except KeyboardInterrupt:
            if sys.stderr.isatty():  # which has shown ^C
                print(file=sys.stderr)
            here.sum_up()
            status = INTERRUPTED
    return status


class Choice:
    """Which messages are wanted, and which way they went."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._sides = {arguments.in_prefix: "in", arguments.out_prefix: "out"}
        if arguments.no_direction:
            self._sides.clear()
        self._wanted = tuple(arguments.prefix)
        self._unwanted = tuple(arguments.not_prefix)
        self._search = arguments.grep.search if arguments.grep else None
        self.takes_all = not (self._wanted or self._unwanted or self._search)

    def divide(self, message: list[bytes]) -> tuple[str | None, list[bytes]]:
        """Return the direction, and the frames behind it."""
        side = self._sides.get(message[0])
        return (None, message) if side is None else (side, message[1:])

    def takes(self, frames: list[bytes]) -> bool:
        """Tell whether a message is wanted, by what is behind its direction."""
        first = frames[0] if frames else b""
        if self._wanted and not first.startswith(self._wanted):
            return False
        if first.startswith(self._unwanted):
            return False
        search = self._search
        if search is None:
            return True
        return any(search(frame.decode(errors="surrogateescape")) for frame in frames)


class Allowance:
    """So many messages a second as a terminal bears; after a rest, as many at once."""

    def __init__(self, now: float) -> None:
        self._left, self._at = float(RATE), now

    def take(self, now: float) -> bool:
        """Tell whether one more may be shown."""
        self._left = min(self._left + (now - self._at) * RATE, RATE)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Tap:
    """Shows what comes, and keeps account of what is not shown."""

    def __init__(self, client: Client, arguments: argparse.Namespace) -> None:
        self._client = client
        self._arguments = arguments
        self._choice = Choice(arguments)
        self._start = self._flushed = time.monotonic()
        self._allowance = Allowance(self._start)
        self._received = self._shown = self._withheld = 0
        self._last: float | None = None  # when a message was shown
        self._told, self._tell_at = 0, self._start + 1  # how many of those withheld, and the next
        self._at_once, self._was_busy = 0, False
        self._connection = Connection(client, bound=arguments.bind)
        self._output = self._watch_output()
        # The prefix that a PUB looks at is that of the first frame, which may be the direction.
        for topic in (arguments.no_direction and arguments.prefix) or [b""]:
            client.socket.subscribe(topic)

    def run(self) -> int:
        """Show what comes, until it was enough."""
        count, span = self._arguments.count, self._arguments.span
        end = self._start + span if span else math.inf
        while True:
            now = time.monotonic()
            if now >= end or self._shown == count:
                break
            self._tell(now)
            self._wait(now, end)
            self._client.hear()  # that it is connected is told before what comes of that
            refusal = self._connection.attend(time.monotonic(), silent=not self._received)
            if refusal:
                return refuse(WHO, refusal)
            self._drain(end)
        self.sum_up()
        return DONE if self._received or self._connection.has_come() else LATE

    def _wait(self, now: float, end: float) -> None:
        """Wait for a message, or for whatever else is to be attended to."""
        until = end
        if self._withheld > self._told:
            until = min(until, self._tell_at)
        if not self._received:
            until = min(until, self._connection.speak_at)
        busy = self._at_once > 0
        if not busy or now >= self._flushed + FLUSH:
            sys.stdout.flush()
            self._flushed = now
        if self._output in self._client.wait(0 if busy else until - now):
            raise BrokenPipeError

    def _watch_output(self) -> int | None:
        """Have a wait end when the reader of the output does, though nothing is to be written."""
        try:
            output = sys.stdout.fileno()
        except (AttributeError, OSError):  # it is none of a process
            return None
        self._client.poller.register(output, zmq.POLLERR)
        return output

    # Messages

    def _drain(self, end: float) -> None:
        """Take what is there."""
        receive, count = self._client.receive, self._arguments.count
        for _ in range(TURN):
            now = time.monotonic()
            if now >= end:
                return
            message = receive()
            if message is None:
                self._at_once = 0
                return
            self._received += 1
            # Fewer without a pause have always had room here, so that nothing was held up.
            self._at_once += 1
            if self._at_once >= ROOM and not self._was_busy:
                self._was_busy = True
                say(WHO, "messages come faster than it can take them; the monitor may drop some")
            self._take(message, now)
            if self._shown == count:
                return

    def _take(self, message: list[bytes], now: float) -> None:
        """Show a message, if it is wanted and the terminal bears it."""
        side, frames = self._choice.divide(message)
        if not (self._choice.takes_all or self._choice.takes(frames)):
            return
        if not (self._arguments.all or self._allowance.take(now)):
            self._withheld += 1
            return
        delta = 0.0 if self._last is None else now - self._last
        self._last = now
        self._shown += 1
        sys.stdout.write(self._shape(side, frames, delta) + "\n")

    def _shape(self, side: str | None, frames: list[bytes], delta: float) -> str:
        given = self._arguments
        now = datetime.now(timezone.utc)
        if not given.json:
            local = now.astimezone().time().isoformat("milliseconds")
            when = f"{delta:12.6f}" if given.delta_time else local
            return f"{when} {side or '-':3} {line(frames, given.format)}"
        fields: dict[str, Any] = {"time": now.isoformat("T", "milliseconds").replace("+00:00", "Z")}
        if given.delta_time:
            fields["delta"] = round(delta, 6)
        fields |= {"direction": side, "frames": [lossless(frame) for frame in frames]}
        return json_line("tap", **fields)

    # What is said of them

    def _tell(self, now: float) -> None:
        """Say how many were not shown, each second."""
        if now < self._tell_at:
            return
        more = self._withheld - self._told
        self._told, self._tell_at = self._withheld, now + 1
        if more:
            say(WHO, f"{more:,} more came and were not shown: {BOUND}")

    def sum_up(self) -> None:
        """Say at the end what came, and what of that was not seen."""
        sys.stdout.flush()
        now = time.monotonic()
        parts = [f"{self._shown:,} shown"]
        others = self._received - self._shown - self._withheld
        if others:
            parts.append(f"{others:,} not asked for")
        if self._withheld:
            parts.append(f"{self._withheld:,} not shown, since {BOUND}")
        say(WHO, f"{self._received:,} messages in {now - self._start:.1f} s: {', '.join(parts)}")
        if self._was_busy:
            say(
                WHO,
                "it was too busy at times: the monitor may have dropped some, which none counts",
            )
        self._connection.sum_up(now, silent=not self._received)
