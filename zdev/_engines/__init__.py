"""The engines, and the choice among them.

An engine makes relay loops. The first of `NAMES` that can be had is chosen once, at import;
``ZDEV_ENGINE=name`` forces one.
"""

from __future__ import annotations

import functools
import os
import platform

from zdev import _libzmq
from zdev._contract import Engine

__all__ = ["NAMES", "VARIABLE", "EngineUnavailableError", "choose", "current", "load"]

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
            ) from error
    for name in NAMES[:-1]:
        try:
            return load(name)
        except EngineUnavailableError:
            continue  # `python -m zdev info` says why
    return load(NAMES[-1])


current = choose(os.environ.get(VARIABLE))
"""The engine that new relays use."""
