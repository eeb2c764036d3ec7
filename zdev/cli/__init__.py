"""The command line: ``zdev`` or ``python -m zdev``. Each command is a module of this package."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import zdev
from zdev.cli import check, ctl, demo, devices, info, keygen, reload, run, tap, top
from zdev.cli import exec as execute
from zdev.cli._ends import Command, open_streams, printing
from zdev.cli._parser import CommandParser

__all__ = ["main"]

EPILOG = """\
examples:
  zdev queue --in bind:tcp://127.0.0.1:5559 --out bind:tcp://127.0.0.1:5560
                               pass requests to workers, and replies back
  zdev run zdev.toml           run the devices of a file, and keep them running
  zdev check zdev.toml         what is wrong with that file, and where
  zdev info                    which libzmq and which engine are in use, and why
  zdev demo                    relay lines of Python's own library, watch it, prove it
  zdev demo -n 500 README.md   the same with a text of yours
  zdev exec program.py --port 5555   run a program that uses pyzmq's devices on zdev's
  zdev exec -m package 5555          the same with a module
  zdev top zdev.toml           what those devices do, live
  zdev ctl tcp://127.0.0.1:5562 statistics   what a steerable proxy has relayed
  zdev tap tcp://127.0.0.1:5561      what passes a device, as it passes
  zdev keygen broker                 make keys for CURVE: broker.key, broker.key_secret
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; by default those that Python was started with.

    Returns
    -------
    int
        0 when all is well, 1 when something fails while it runs, such as the demo's proof, 2 for
        bad arguments, a bad file, an address or an engine that cannot be had, 3 when time ran out,
        130 when Ctrl-C, or a second signal, ended it at once.
        Whatever a program run by ``exec`` raises or exits with is passed on.

    Raises
    ------
    SystemExit
        With 2 for arguments that argparse refuses, with 0 after ``--help`` and ``--version``.
    """
    open_streams()
    ours, programs = execute.divide(sys.argv[1:] if argv is None else argv)
    arguments = parser().parse_args(ours)
    arguments.rest = programs
    command: Command = arguments.command
    return command(arguments)


def parser() -> argparse.ArgumentParser:
    """Make the parser: that of ``zdev``, and in it one of each command."""
    root = CommandParser(prog="zdev", description="ZeroMQ devices for Python.", epilog=EPILOG)
    root.add_argument("--version", action="version", version=f"zdev {zdev.__version__}")

    @printing
    def usage(_: argparse.Namespace) -> int:
        root.print_help()
        return 0

    root.set_defaults(command=usage)
    commands = root.add_subparsers(title="commands", metavar="COMMAND", parser_class=CommandParser)
    for module in (devices, run, reload, check, top, ctl, tap, keygen, demo, execute, info):
        module.add_to(commands)
    return root
