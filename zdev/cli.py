"""The command line: ``zdev`` or ``python -m zdev``."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Callable

import zmq

import zdev
from zdev import _demo, _engines, _exec, _libzmq

__all__ = ["main"]

INTERRUPTED = 130  # 128 + SIGINT, as shells have it

EPILOG = """\
examples:
  zdev info                    which libzmq and which engine are in use, and why
  zdev demo                    relay lines of Python's own library, watch it, prove it
  zdev demo -n 500 README.md   the same with a text of yours
  zdev exec program.py --port 5555   run a program that uses pyzmq's devices on zdev's
  zdev exec -m package 5555          the same with a module
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
        0 when all is well, 1 when the demo's proof fails, 2 for bad arguments or when the engine
        that ``ZDEV_ENGINE`` names cannot be had, 130 after Ctrl-C.
        Whatever a program run by ``exec`` raises or exits with is passed on.

    Raises
    ------
    SystemExit
        With 2 for arguments that argparse refuses, with 0 after ``--help`` and ``--version``.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:2] == ["exec", "--"] and not "".join(given[2:3]).startswith("-"):
        del given[1]
    ours = len(given)
    if given[:1] == ["exec"]:  # all behind the program's name is the program's
        ours = 3 if given[1:2] == ["-m"] else 2
    arguments = parser().parse_args(given[:ours])
    arguments.rest = given[ours:]
    command: Callable[[argparse.Namespace], int] = arguments.command
    if command in (demo, execute) and _engines.problem is not None:
        return no_engine()
    if command is execute:
        return command(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may hold what it cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = command(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read the output wants no more of it (zdev demo | head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # it is flushed at exit
        return 1
    return status


def parser() -> argparse.ArgumentParser:
    """Make the parser. A subcommand is a parser whose ``command`` takes the arguments."""
    root = argparse.ArgumentParser(
        prog="zdev",
        description="ZeroMQ devices for Python.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    root.add_argument("--version", action="version", version=f"zdev {zdev.__version__}")
    root.set_defaults(command=lambda _: usage(root))
    commands = root.add_subparsers(title="commands", metavar="COMMAND")

    text = "show versions, the libzmq file and the engine in use, and why not another"
    command = commands.add_parser("info", help=text, description=text.capitalize() + ".")
    command.set_defaults(command=lambda _: info())

    command = commands.add_parser(
        "demo",
        help="relay real text through a monitored queue, live, and prove that all of it arrived",
        description=_demo.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "files",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="text files to send, line by line (default: the sources of Python's library)",
    )
    command.add_argument(
        "-n",
        "--lines",
        type=positive,
        default=_demo.LINES,
        metavar="N",
        help="send N lines at most (default: %(default)s)",
    )
    command.set_defaults(command=demo)

    command = commands.add_parser(
        "exec",
        help="run a program with zdev's devices in the place of pyzmq's",
        description="Run a Python program, as it is, with zdev in the place of pyzmq's devices: "
        "zmq.proxy, zmq.devices.ThreadProxy and all their kin.",
        usage="zdev exec [-h] (-m MODULE | SCRIPT) [ARGUMENT ...]",
    )
    program = command.add_mutually_exclusive_group(required=True)
    program.add_argument("-m", metavar="MODULE", dest="module", help="a module, as for python -m")
    program.add_argument("script", metavar="SCRIPT", nargs="?", help="a file, as for python")
    command.set_defaults(command=execute)
    return root


def usage(parser: argparse.ArgumentParser) -> int:
    """Run ``zdev`` without a command."""
    parser.print_help()
    return 0


def positive(text: str) -> int:
    """Read a number of at least 1."""
    with contextlib.suppress(ValueError):
        if int(text) >= 1:
            return int(text)
    raise argparse.ArgumentTypeError(f"must be a whole number from 1 up, not {text!r}")


def demo(arguments: argparse.Namespace) -> int:
    """Run ``zdev demo``."""
    try:
        requests = _demo.read(arguments.files or _demo.library(), arguments.lines)
    except _demo.UnfitFileError as error:
        print(f"zdev demo: error: {error}", file=sys.stderr)
        return 2
    return 0 if _demo.run(requests, sys.stdout) else 1


def execute(arguments: argparse.Namespace) -> int:
    """Run ``zdev exec``. What the program raises is left to Python, as without zdev."""
    try:
        if arguments.module is not None:
            _exec.run_module(arguments.module, arguments.rest)
        else:
            _exec.run_script(arguments.script, arguments.rest)
    except _exec.NoProgramError as error:
        print(f"zdev exec: error: {error}", file=sys.stderr)
        return 2
    return 0


def no_engine() -> int:
    """Say why nothing can be relayed."""
    print(f"zdev: error: {_engines.problem}", file=sys.stderr)
    return 2


def info() -> int:
    """Run ``zdev info``, also where there is no engine to be had."""
    try:
        file = os.path.realpath(_libzmq.find().path)
    except _libzmq.LibzmqUnreachableError as error:
        file = f"cannot be called directly: {error}"
    forced = os.environ.get(_engines.VARIABLE)
    how = f", forced by {_engines.VARIABLE}" if forced else ""
    if _engines.problem is not None:
        how = f": {_engines.VARIABLE}={forced} cannot be had"
    lines = [
        ("zdev", zdev.__version__),
        ("Python", f"{python()}, {sys.executable}"),
        ("pyzmq", zmq.pyzmq_version()),
        ("libzmq", zmq.zmq_version()),
        ("file", file),
        ("engine", zdev.engine + how),
    ]
    for name, value in lines:
        print(f"{name:9} {value}")
    print("\nThe other engines, best first:")
    for name in _engines.NAMES:
        if name != zdev.engine:
            print(f"{name:9} {why_not(name, forced)}")
    if _engines.problem is not None:
        sys.stdout.flush()
        return no_engine()
    return 0


def why_not(name: str, forced: str | None) -> str:
    """Say why an engine is not the one in use."""
    try:
        _engines.load(name)
    except _engines.EngineUnavailableError as error:
        return f"not available: {error}"
    if forced:
        return f"available, but {_engines.VARIABLE}={forced} forces another"
    return f"available, but {zdev.engine} comes before it; {_engines.VARIABLE}={name} forces it"


def python() -> str:
    """Return the name and version of the interpreter, and of the language where they differ."""
    name, language = platform.python_implementation(), platform.python_version()
    if name == "CPython":
        return f"{name} {language}"
    return f"{name} {'.'.join(map(str, sys.implementation.version[:3]))}, Python {language}"
