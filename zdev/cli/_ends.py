"""How a command ends: what it says of an error, of Ctrl-C and of a closed pipe, and its status."""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import os
import sys
from typing import TYPE_CHECKING, Callable

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]
    """Where a command adds its parser."""

__all__ = [
    "DONE",
    "FAILED",
    "INTERRUPTED",
    "LATE",
    "REFUSED",
    "Command",
    "fail",
    "open_streams",
    "printing",
    "refuse",
    "say",
    "tell",
]

DONE = 0
FAILED = 1  # while it ran
REFUSED = 2  # a wrong argument, as argparse has it, a wrong file, an address that is not to be had
LATE = 3  # time ran out
INTERRUPTED = 130  # 128 + SIGINT, as shells have it

Command = Callable[[argparse.Namespace], int]
"""Runs with the parsed arguments, and returns the exit status."""


def say(who: str, words: object) -> None:
    """Say something that is no data: on standard error, whether anybody reads it or not."""
    with contextlib.suppress(OSError):
        print(f"{who}: {words}", file=sys.stderr, flush=True)


def tell(line: str) -> None:
    """Print a line of a broker's data; it goes on where nobody reads that any more."""
    try:
        print(line, flush=True)
    except OSError:
        _discard_output()


def _discard_output() -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())  # what is left of it is written at the exit
    os.close(null)


def open_streams() -> None:
    """Have all three standard streams, where whoever started this has closed some.

    Python has None for those, and prints to standard output what is for standard error. And a
    socket would get that descriptor, into which libraries write what they have to say.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(null, True)
            setattr(sys, name, open(null, mode, encoding="utf-8"))  # noqa: SIM115 - to the end


def refuse(who: str, reason: object) -> int:
    """Say why something cannot be done, and return the exit status."""
    say(who, f"error: {reason}")
    return REFUSED


def fail(who: str, reason: object) -> int:
    """Say what went wrong while it ran, and return the exit status."""
    say(who, f"error: {reason}")
    return FAILED


def printing(command: Command) -> Command:
    """Make a command that prints end quietly, by Ctrl-C and when its reader has read enough.

    Not for a command that runs a program of somebody else's, which ends in its own way.
    """

    @functools.wraps(command)
    def printed(arguments: argparse.Namespace) -> int:
        if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may hold what it cannot show
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            status = command(arguments)
            sys.stdout.flush()
        except KeyboardInterrupt:
            print("\ninterrupted", file=sys.stderr)
            return INTERRUPTED
        except BrokenPipeError:  # whoever read the output wants no more of it (zdev demo | head)
            _discard_output()
            return 1
        return status

    return printed
