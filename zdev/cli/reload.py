"""``zdev reload``: have a ``zdev run`` read its file again."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from zdev.cli._control import ControlError, ask
from zdev.cli._ends import DONE, FAILED, LATE, printing, refuse, say
from zdev.cli._output import json_line
from zdev.cli._values import readable, seconds

if TYPE_CHECKING:
    from zdev.cli._ends import Commands

__all__ = ["add_to", "reload"]

WHO = "zdev reload"

DESCRIPTION = """\
Have the zdev run of a file read it again, and print what was changed. If the file is wrong, or a
change cannot be made, all stays as it was.
"""

ENDING = """\
exit status: 0 done, 1 the file is wrong or a change failed, 2 there is no such run, 3 time ran out

example:
  zdev reload zdev.toml
"""

ANSWER = 60.0  # seconds for a reload, with the drains of devices that are replaced


LONGEST = 1e9  # seconds; much more than a socket's timeout can be


def add_to(commands: Commands) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "reload", help="have a zdev run read its file again", description=DESCRIPTION, epilog=ENDING
    )
    parser.add_argument("file", metavar="FILE", help="the file that zdev run was given")
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=ANSWER,
        metavar="SECONDS",
        help="how long to wait (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=reload)


@printing
def reload(arguments: argparse.Namespace) -> int:
    """Run ``zdev reload``."""
    try:
        answer = ask(arguments.file, {"verb": "reload"}, min(arguments.timeout, LONGEST))
    except TimeoutError as error:
        say(WHO, f"error: {error}")
        return LATE
    except ControlError as error:
        return refuse(WHO, error)
    changes, errors = (list(map(str, answer.get(of, ()))) for of in ("changes", "errors"))
    if arguments.json:
        print(json_line("reload", changes=changes, errors=errors))
    else:
        for words in changes:
            print(_plain(words))
        for words in errors:
            print(_plain(words), file=sys.stderr)
        if not (changes or errors):
            say(WHO, "nothing has changed")
    if errors:
        say(WHO, "error: not reloaded; all is as it was")
        return FAILED
    return DONE


def _plain(words: str) -> str:
    """Return what a terminal does not obey: the run may be that of a service's user."""
    return "\n".join(readable(line.encode(errors="replace")) for line in words.split("\n"))
