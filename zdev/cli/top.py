"""``zdev top``: what devices do, as they do it."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Callable

import zmq

from zdev.cli._control import ControlError
from zdev.cli._ends import DONE, LATE, fail, printing, refuse, say
from zdev.cli._output import json_line
from zdev.cli._steering import NotAllowedError, NotAnsweredError, WrongAnswerError
from zdev.cli._values import readable, seconds, whole
from zdev.cli.top_samples import HEADS, Row, Sample, cells, samples, source_of

if TYPE_CHECKING:
    from zdev.cli._ends import Commands

__all__ = ["add_to", "top"]

WHO = "zdev top"

DESCRIPTION = """\
Show what devices do: messages and bytes a second each way, what was dropped, overflowed or could
not be routed, what waits (is parked) and for how long, peers, subscriptions, restarts and
endpoints. Of a zdev run, by its file; or of one proxy, by the address of its control socket, which
knows frames and bytes only.
"""

EPILOG = """\
On a terminal, with rich (pip install 'zmq-devices[cli]'), it is a table; elsewhere, or with
--plain, a line for each device. A "-" stands for what is not known.

exit status: 0 ended by --count or Ctrl-C, 1 what is looked at ended, 2 there is none, 3 it does not
answer

examples:
  zdev top                               the only zdev run of yours
  zdev top zdev.toml --sort rate         that of this file, the busiest first
  zdev top tcp://127.0.0.1:5562 --plain --interval 5
  zdev top --json --count 2              two samples, each a line of JSON
"""

LOST = ("dropped", "overflowed", "unroutable")


def _rate(row: Row) -> float:
    return sum(rate or 0.0 for name, rate in row.rates.items() if "bytes" not in name)


SORTS: dict[str, Callable[[Row], Any]] = {
    "name": lambda row: row.name,
    "rate": lambda row: -_rate(row),
    "parked": lambda row: -(row.parked_seconds or 0),
    "dropped": lambda row: -sum(row.counts.get(name) or 0 for name in LOST),
}


def add_to(commands: Commands) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "top", help="show what devices do, live", description=DESCRIPTION, epilog=EPILOG
    )
    parser.add_argument(
        "address",
        nargs="?",
        metavar="ADDR",
        help="the file of a zdev run, or the address of a control socket (default: the only run)",
    )
    parser.add_argument(
        "--interval",
        type=seconds,
        default=1.0,
        metavar="SECONDS",
        help="between two looks (default: %(default)g)",
    )
    parser.add_argument("--count", type=whole, metavar="N", help="end after so many looks")
    parser.add_argument(
        "--sort", choices=SORTS, default="name", help="what comes first (default: %(default)s)"
    )
    parser.add_argument("--plain", action="store_true", help="lines, not a table")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each look")
    parser.set_defaults(command=top)


@printing
def top(arguments: argparse.Namespace) -> int:
    """Run ``zdev top``."""
    has_looked = False
    try:
        what, look = source_of(arguments.address)
        looks: Iterable[Sample] = samples(look, arguments.interval)
        with _display(arguments, what) as show:
            for sample in itertools.islice(looks, arguments.count):
                sample.rows.sort(key=SORTS[arguments.sort])
                show(sample)
                has_looked = True
    except KeyboardInterrupt:  # the usual end
        status = DONE
    except (NotAnsweredError, TimeoutError) as error:
        say(WHO, f"error: {error}")
        status = LATE
    except WrongAnswerError as error:
        status = fail(WHO, error)
    except (ControlError, NotAllowedError, zmq.ZMQError) as error:
        status = (fail if has_looked else refuse)(WHO, error)
    else:
        status = DONE
    return status


@contextlib.contextmanager
def _display(arguments: argparse.Namespace, what: str) -> Iterator[Callable[[Sample], object]]:
    """Return what shows a sample."""
    if arguments.json:
        yield _show_json
    elif arguments.plain or not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        yield Lines().show
    else:
        try:
            from zdev.cli.top_table import table
        except ImportError:
            say(WHO, "the table needs rich: pip install 'zmq-devices[cli]'; without it, lines")
            yield Lines().show
        else:
            with table(what) as show:
                yield show


def _show_json(sample: Sample) -> None:
    rows = [dataclasses.asdict(row) for row in sample.rows]
    print(json_line("top", time=sample.at, problem=sample.problem, devices=rows), flush=True)


class Lines:
    """A line for each device at each look, with heads every now and then."""

    HEADS_EVERY = 20

    def __init__(self) -> None:
        self._since = self.HEADS_EVERY

    def show(self, sample: Sample) -> None:
        """Print them."""
        wide = max([*(len(readable(row.name.encode())) for row in sample.rows), 6])
        if self._since >= self.HEADS_EVERY:
            self._since = 0
            print("time     device".ljust(wide + 9), *(f"{head:>7}" for head in HEADS), "state")
        now = time.strftime("%H:%M:%S", time.localtime(sample.at))
        for row in sample.rows:
            self._since += 1
            name = readable(row.name.encode())
            print(now, name.ljust(wide), *(f"{cell:>7}" for cell in cells(row)), row.state)
        if sample.problem is not None:
            say(WHO, readable(sample.problem.encode()))
        sys.stdout.flush()
