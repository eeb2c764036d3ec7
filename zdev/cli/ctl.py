"""``zdev ctl``: pause, resume or end a proxy, or have its counts, through its control socket."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import zmq

from zdev.cli._ends import DONE, LATE, fail, printing, refuse, say
from zdev.cli._output import json_line
from zdev.cli._steering import (
    COMMANDS,
    TYPES,
    NotAllowedError,
    NotAnsweredError,
    WrongAnswerError,
    steer,
)
from zdev.cli._values import seconds

if TYPE_CHECKING:
    from zdev.cli._ends import Commands

__all__ = ["add_to", "ctl"]

WHO = "zdev ctl"

DESCRIPTION = """\
Say PAUSE, RESUME, TERMINATE or STATISTICS to the control socket of a steerable proxy: one of
zdev's, or of any program that runs zmq_proxy_steerable(3).

A REP answers each of them, and so does a ROUTER of zdev's. A DEALER, a PAIR and an XPUB answer
STATISTICS only: they are asked that first, and then the command is sent, but whether it is obeyed
is not told. A PULL, a SUB and an XSUB answer nothing; they have to be meant, by --type.

statistics prints eight counts, of frames and of bytes. They are the proxy's since its start.
"""

EPILOG = """\
libzmq 4.3.5, which pyzmq's wheels carry, has PAUSE and RESUME swapped in its own
zmq_proxy_steerable: of a proxy that is zmq.proxy_steerable's, "zdev ctl ADDR pause" makes it go on,
and "zdev ctl ADDR resume" pauses it. Its counts then tell whether it relays. zdev's own do as they
are told, with every libzmq; the protocol does not tell whose proxy it is.

exit status: 0 done; 1 what is there answered as no proxy does; 2 a wrong argument, or it wants
other credentials; 3 time ran out: nobody is there, or did not answer.

examples:
  zdev ctl tcp://127.0.0.1:5562 statistics
  zdev ctl ipc:///run/depot/control pause --timeout 1
  zdev ctl tcp://127.0.0.1:5562 terminate --type PUSH    its control socket is a PULL
  zdev ctl tcp://127.0.0.1:5562 statistics --json        a line of JSON, of the schema ctl/1:
      address, command, type (the socket's), answered, statistics (eight counts, or null)
"""


def add_to(commands: Commands) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "ctl",
        help="pause, resume or end a steerable proxy, or have its counts",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument("address", metavar="ADDR", help="of the control socket")
    parser.add_argument("word", metavar="COMMAND", choices=COMMANDS, help=", ".join(COMMANDS))
    reached = "; ".join(f"{name} for {theirs}" for name, theirs in TYPES.items())
    parser.add_argument(
        "--type",
        choices=["auto", *TYPES],
        default="auto",
        help=f"the socket to use: {reached}; auto, the default, tries the first four in turn",
    )
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=5.0,
        metavar="SECONDS",
        help="for all of it (default: %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    parser.set_defaults(command=ctl)


@printing
def ctl(arguments: argparse.Namespace) -> int:
    """Run ``zdev ctl``."""
    address, word, timeout = arguments.address, arguments.word, arguments.timeout
    kind = None if arguments.type == "auto" else arguments.type
    if word == "statistics" and kind in ("PUSH", "PUB"):
        return refuse(WHO, f"a {kind} gets no answer, and statistics are one")
    try:
        outcome = steer(address, word, kind, timeout)
    except (NotAllowedError, zmq.ZMQError) as error:
        return refuse(WHO, error)
    except WrongAnswerError as error:
        return fail(WHO, error)
    except NotAnsweredError as error:
        say(WHO, f"error: no answer from {address} in {timeout:g} s; {error}")
        return LATE
    if arguments.json:
        fields = {"address": address, "command": word, **outcome._asdict()}
        print(json_line("ctl", **fields))
    elif outcome.statistics is not None:
        width = max(map(len, outcome.statistics))
        for name, count in outcome.statistics.items():
            print(f"{name:{width}} {count}")
    if not outcome.answered:
        theirs = TYPES[outcome.type]
        say(
            WHO, f"{word} was sent; whether it is obeyed, a control socket ({theirs}) does not tell"
        )
    elif outcome.statistics is None:
        say(WHO, f"{word} was answered")
    return DONE
