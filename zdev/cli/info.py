"""``zdev info``: versions, the libzmq in use, the engine in use, and why not another."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from typing import TYPE_CHECKING

import zmq

import zdev
from zdev import _engines, _libzmq
from zdev.cli._ends import printing, refuse

if TYPE_CHECKING:
    from zdev.cli._ends import Commands

__all__ = ["add_to", "info"]


def add_to(commands: Commands) -> None:
    """Add the command's parser."""
    text = "show versions, the libzmq file and the engine in use, and why not another"
    parser = commands.add_parser("info", help=text, description=text.capitalize() + ".")
    parser.set_defaults(command=info)


@printing
def info(_: argparse.Namespace) -> int:
    """Run ``zdev info``, also where there is no engine to be had."""
    forced = os.environ.get(_engines.VARIABLE)
    problem: _engines.EngineUnavailableError | None = None
    try:
        engine = _engines.current().name
        how = f", forced by {_engines.VARIABLE}" if forced else ""
    except _engines.EngineUnavailableError as error:
        engine, how, problem = "none", f": {_engines.VARIABLE}={forced} cannot be had", error
    try:
        file = os.path.realpath(_libzmq.find().path)
    except _libzmq.LibzmqUnreachableError as error:
        file = f"cannot be called directly: {error}"
    lines = [
        ("zdev", zdev.__version__),
        ("Python", f"{python()}, {sys.executable}"),
        ("pyzmq", zmq.pyzmq_version()),
        ("libzmq", zmq.zmq_version()),
        ("file", file),
        ("engine", engine + how),
    ]
    for name, value in lines:
        print(f"{name:9} {value}")
    print("\nThe other engines, best first:")
    for name in _engines.NAMES:
        if name != engine:
            print(f"{name:9} {why_not(name, engine, forced)}")
    if problem is not None:
        sys.stdout.flush()
        return refuse("zdev", problem)
    return 0


def why_not(name: str, engine: str, forced: str | None) -> str:
    """Say why an engine is not the one in use."""
    try:
        _engines.load(name)
    except _engines.EngineUnavailableError as error:
        return f"not available: {error}"
    if forced:
        return f"available, but {_engines.VARIABLE}={forced} forces another"
    return f"available, but {engine} comes before it; {_engines.VARIABLE}={name} forces it"


def python() -> str:
    """Return the name and version of the interpreter, and of the language where they differ."""
    name, language = platform.python_implementation(), platform.python_version()
    if name == "CPython":
        return f"{name} {language}"
    return f"{name} {'.'.join(map(str, sys.implementation.version[:3]))}, Python {language}"
