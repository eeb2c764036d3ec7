"""``zdev exec``: run a program, as it is, with zdev in the place of pyzmq's devices."""

from __future__ import annotations

import argparse
import builtins
import importlib.util
import os
import pkgutil
import sys
import types
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from typing import TYPE_CHECKING, Any, Callable

from zdev import _engines
from zdev._engines import EngineUnavailableError
from zdev._install import install
from zdev.cli._ends import refuse

if TYPE_CHECKING:
    from zdev.cli._ends import Commands

__all__ = ["NoProgramError", "add_to", "divide", "execute", "run_module", "run_script"]


def divide(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """Divide a command line into what is zdev's and what is the program's.

    All behind the program's name is the program's: argparse would take its options for zdev's.
    """
    given = list(given)
    if given[:1] != ["exec"]:
        return given, []
    if given[1:2] == ["--"] and not "".join(given[2:3]).startswith("-"):
        del given[1]
    ours = 3 if given[1:2] == ["-m"] else 2
    return given[:ours], given[ours:]


def add_to(commands: Commands) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "exec",
        help="run a program with zdev's devices in the place of pyzmq's",
        description="Run a Python program, as it is, with zdev in the place of pyzmq's devices: "
        "zmq.proxy, zmq.devices.ThreadProxy and all their kin.",
        usage="zdev exec [-h] (-m MODULE | SCRIPT) [ARGUMENT ...]",
    )
    program = parser.add_mutually_exclusive_group(required=True)
    program.add_argument("-m", metavar="MODULE", dest="module", help="a module, as for python -m")
    program.add_argument("script", metavar="SCRIPT", nargs="?", help="a file, as for python")
    parser.set_defaults(command=execute)


def execute(arguments: argparse.Namespace) -> int:
    """Run ``zdev exec``. What the program raises is left to Python, as without zdev."""
    try:
        _engines.current()
    except EngineUnavailableError as error:
        return refuse("zdev", error)
    try:
        if arguments.module is not None:
            run_module(arguments.module, arguments.rest)
        else:
            run_script(arguments.script, arguments.rest)
    except NoProgramError as error:
        return refuse("zdev exec", error)
    return 0


class NoProgramError(Exception):
    """There is no such program; the message says why."""


def run_script(path: str, arguments: Sequence[str]) -> None:
    """Run a file, or a directory or archive with a ``__main__.py``, as ``python path`` would.

    Parameters
    ----------
    path : str
        Becomes ``sys.argv[0]``.
    arguments : sequence of str
        The rest of ``sys.argv``.

    Raises
    ------
    NoProgramError
        If there is nothing to run.
    BaseException
        What the program raises; a SystemExit has its exit status.
    """
    file = os.path.abspath(path)
    if pkgutil.get_importer(file) is not None:
        spec = PathFinder.find_spec("__main__", [file])
        if spec is None:
            raise NoProgramError(f"there is no __main__ module in {path!r}")
        _enter(file, [path, *arguments], always=True)
        _run_spec(spec)
        return
    loader = SourceFileLoader("__main__", file)
    try:
        source = loader.get_data(file)
    except OSError as error:
        raise NoProgramError(f"cannot open {path!r}: {error.strerror}") from error
    _enter(os.path.dirname(os.path.realpath(path)), [path, *arguments])
    _run(lambda: loader.source_to_code(source, file), __file__=file, __loader__=loader)


def run_module(name: str, arguments: Sequence[str]) -> None:
    """Run a module, or a package's ``__main__``, as ``python -m name`` would.

    Parameters
    ----------
    name : str
        The module; its file becomes ``sys.argv[0]``.
    arguments : sequence of str
        The rest of ``sys.argv``.

    Raises
    ------
    NoProgramError
        If there is nothing to run.
    BaseException
        What the program raises; a SystemExit has its exit status.
    """
    _enter(os.getcwd(), ["-m", *arguments])
    spec = _find(name)
    if spec.submodule_search_locations is not None:
        spec = _find(f"{name}.__main__")
    sys.argv[0] = spec.origin or name
    _run_spec(spec)


def _find(name: str) -> ModuleSpec:
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # a package of the program's has failed to import another
        spec = None
    except ValueError:  # a module without a spec, or no name at all
        spec = None
    if spec is None:
        raise NoProgramError(f"there is no module {name!r}")
    return spec


def _enter(directory: str, argv: list[str], *, always: bool = False) -> None:
    """Put the program's directory where Python has put that of zdev, unless it was not to."""
    safe = getattr(sys.flags, "safe_path", sys.flags.isolated)
    if not safe:
        del sys.path[0]
    if always or not safe:
        sys.path.insert(0, directory)
    sys.argv[:] = argv


def _run_spec(spec: ModuleSpec) -> None:
    _run(
        lambda: _code(spec),
        __spec__=spec,
        __file__=spec.origin,
        __cached__=spec.cached,
        __loader__=spec.loader,
        __package__=spec.parent,
    )


def _code(spec: ModuleSpec) -> Any:
    get_code = getattr(spec.loader, "get_code", lambda _: None)
    code = get_code(spec.name)
    if code is None:
        raise NoProgramError(f"{spec.name!r} is no Python code")
    return code


def _run(compiled: Callable[[], Any], **names: Any) -> None:
    """Run code as the main module. It stays that: its threads and exit handlers may outlive it."""
    install()
    main = types.ModuleType("__main__")
    main.__dict__.update({"__builtins__": builtins, "__cached__": None, **names})
    sys.modules["__main__"] = main
    theirs = sys.excepthook

    def show(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        """Show the program's frames, not ours; it has none if its syntax is wrong."""
        inner = trace
        while inner is not None and inner.tb_frame.f_globals is not main.__dict__:
            inner = inner.tb_next
        if inner is not None or isinstance(error, SyntaxError):
            trace = inner
        theirs(kind, error.with_traceback(trace), trace)

    sys.excepthook = show
    exec(compiled(), main.__dict__)  # noqa: S102 - what it is for
