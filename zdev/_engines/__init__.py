"""The engines, and the choice among them.

An engine makes relay loops. The first of `NAMES` that can be had is chosen once, when the first is
wanted; ``ZDEV_ENGINE=name`` forces one.
"""

from __future__ import annotations

import os
import platform
import warnings

from zdev import _libzmq
from zdev._contract import Engine
from zdev._threads import RLock

__all__ = [
    "NAMES",
    "VARIABLE",
    "EngineUnavailableError",
    "choose",
    "current",
    "load",
    "warn_if_missing",
]

# Best first. ctypes comes behind cffi's ABI mode on PyPy, where its calls are slow.
if platform.python_implementation() == "PyPy":
    NAMES = ("cffi", "cffi-abi", "ctypes", "pyzmq")
else:
    NAMES = ("cffi", "ctypes", "cffi-abi", "pyzmq")

VARIABLE = "ZDEV_ENGINE"


class EngineUnavailableError(ImportError):
    """An engine cannot be had here; the message says why and what to do."""


_loaded: dict[str, Engine] = {}

_chosen: Engine | None = None  # tests choose another

# An engine is imported when it is chosen. A process that another thread forks in the middle of that
# would inherit the lock of a module whose import nobody ends, and wait for it for ever. So forks
# wait for the choice: test_a_fork_waits_until_the_engine_is_chosen. Reentrant, since an import may
# start a process, too.
_choosing = RLock()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_choosing.acquire,
        after_in_parent=_choosing.release,
        after_in_child=_choosing.release,
    )


def current() -> Engine:
    """Return the engine that new relays use; the first call chooses it.

    Raises
    ------
    EngineUnavailableError
        If there is none: ``ZDEV_ENGINE`` names one that cannot be had here.
    """
    global _chosen  # noqa: PLW0603 - it is the process's, as libzmq is
    if _chosen is None:
        with _choosing:
            if _chosen is None:
                _chosen = choose(os.environ.get(VARIABLE))
    return _chosen


def load(name: str) -> Engine:
    """Return the engine of that name, always the same one.

    Raises
    ------
    EngineUnavailableError
        If it cannot be had here.
    """
    if name not in _loaded:
        with _choosing:
            _loaded.setdefault(name, _load(name))
    return _loaded[name]


def _load(name: str) -> Engine:
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
        if name == "cffi-abi":
            from .via_cffi import CffiEngine

            return CffiEngine(addresses)
        raise EngineUnavailableError(f"there is no engine {name!r}")
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


def warn_if_missing() -> None:
    """Warn where the forced engine cannot be had: at the import, so that it is seen early."""
    forced = os.environ.get(VARIABLE)
    if forced:
        try:
            choose(forced)
        except EngineUnavailableError as error:
            # On behalf of whoever imports zdev.
            warnings.warn(str(error), RuntimeWarning, stacklevel=3)
