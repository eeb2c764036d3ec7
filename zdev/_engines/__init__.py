"""The engines, and the choice among them.

An engine makes relay loops. The first of `NAMES` that can be had is chosen once, at import;
``ZDEV_ENGINE=name`` forces one.
"""

from __future__ import annotations

import functools
import os
import platform
import sys
from pathlib import PurePath

from zdev import _libzmq
from zdev._contract import Engine, Loop, Settings

__all__ = ["NAMES", "VARIABLE", "EngineUnavailableError", "choose", "current", "load", "problem"]

# Best first. ctypes comes behind cffi's ABI mode on PyPy, where its calls are slow.
if platform.python_implementation() == "PyPy":
    NAMES = ("cffi", "cffi-abi", "ctypes", "pyzmq")
else:
    NAMES = ("cffi", "ctypes", "cffi-abi", "pyzmq")

VARIABLE = "ZDEV_ENGINE"


class EngineUnavailableError(ImportError):
    """An engine cannot be had here; the message says why and what to do."""


@functools.cache
def load(name: str) -> Engine:
    """Return the engine of that name.

    Raises
    ------
    EngineUnavailableError
        If it cannot be had here.
    """
    if name not in NAMES:
        raise EngineUnavailableError(f"there is no engine {name!r}")
    try:
        if name == "pyzmq":
            from .via_pyzmq import PyzmqEngine

            return PyzmqEngine()
        addresses = _libzmq.find().addresses
        if name == "cffi":
            from .compiled import CompiledEngine

            return CompiledEngine(addresses)
        if name == "ctypes":
            from .via_ctypes import CtypesEngine

            return CtypesEngine(addresses)
        from .via_cffi import CffiEngine

        return CffiEngine(addresses)
    except ImportError as error:
        raise EngineUnavailableError(_reason(error)) from error


def _reason(error: ImportError) -> str:
    """Say why an engine is missing and what would bring it."""
    if error.name == "zdev._engines._c":
        return (
            "the compiled extension is missing; reinstall zmq-devices with a C compiler at hand "
            "and without ZDEV_BUILD=off"
        )
    if error.name in ("cffi", "_cffi_backend"):
        return "the package cffi is missing; run pip install cffi"
    return f"{error}"


def choose(forced: str | None) -> Engine:
    """Return the engine of that name, or the first that can be had.

    Raises
    ------
    EngineUnavailableError
        If the forced one cannot be had here.
    """
    if forced:
        try:
            return load(forced)
        except EngineUnavailableError as error:
            raise EngineUnavailableError(
                f"{VARIABLE}={forced} cannot be had: {error}. The engines are {', '.join(NAMES)}; "
                f"without {VARIABLE}, zdev takes the first that works."
            ) from None
    for name in NAMES[:-1]:
        try:
            return load(name)
        except EngineUnavailableError:
            continue  # `python -m zdev info` says why
    return load(NAMES[-1])


class _NoEngine:
    """Stands for an engine that cannot be had: whoever wants to relay is told."""

    name = "none"

    def loop(self, settings: Settings) -> Loop:  # noqa: ARG002 - as the contract has it
        raise EngineUnavailableError(str(problem))


def _for_command_line() -> bool:
    """Tell whether zdev is imported by ``python -m zdev`` or ``zdev``.

    ``sys.argv[0]`` is "-m" as long as Python looks for the module. It may look for another, whose
    package imports zdev; that one is told a little later, by its first relay.
    """
    return any(PurePath(name).stem in ("-m", "zdev") for name in sys.argv[:1])


current: Engine
"""The engine that new relays use."""

problem: EngineUnavailableError | None = None
"""Why there is none, where the command line is to say so."""

try:
    current = choose(os.environ.get(VARIABLE))
except EngineUnavailableError as error:
    if not _for_command_line():
        raise
    current, problem = _NoEngine(), error
