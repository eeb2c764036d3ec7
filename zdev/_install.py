"""Puts zdev's names in the place of pyzmq's, for the whole process, and takes them out again."""

from __future__ import annotations

import multiprocessing.spawn
import threading
from types import ModuleType
from typing import Any, Callable

import zmq
import zmq.devices
from zmq.devices import (
    basedevice,
    monitoredqueue,
    monitoredqueuedevice,
    proxydevice,
    proxysteerabledevice,
)

from zdev import _devices, _functions
from zdev._devices import kinds, launchers

__all__ = ["install", "uninstall"]

MODULES: tuple[ModuleType, ...] = (
    zmq,
    zmq.devices,
    basedevice,
    monitoredqueue,
    monitoredqueuedevice,
    proxydevice,
    proxysteerabledevice,
)

NAMES: dict[str, Any] = {
    **{
        name: getattr(module, name)
        for module in (_functions, _devices)
        for name in module.__all__
        if hasattr(zmq.devices, name) or hasattr(zmq, name)
    },
    # What pyzmq's classes are built of; those who build their own import it from the submodules.
    "BackgroundDevice": launchers.BackgroundDevice,
    "ProxyBase": kinds.ProxyKind,
    "ProxySteerableBase": kinds.ProxySteerableKind,
    "MonitoredQueueBase": kinds.MonitoredQueueKind,
}

# By these names pyzmq's own classes call their bases' methods. With zdev's in their place, classes
# that were derived from pyzmq's before would break.
KEPT = {(proxydevice, "Device"), (monitoredqueuedevice, "ProxyBase")}

_lock = threading.Lock()
_replaced: list[tuple[ModuleType, str, Any]] = []


class _InstallHere:
    """Install zdev in the process that unpickles this."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return install, ()


def _preparing(theirs: Callable[[str], dict[str, Any]]) -> Callable[[str], dict[str, Any]]:
    """Make spawned processes install zdev before they import the program's modules."""

    def get_preparation_data(name: str) -> dict[str, Any]:
        return {"zdev": _InstallHere(), **theirs(name)}

    return get_preparation_data


def install() -> None:
    """Make ``zmq.proxy``, ``zmq.devices.ThreadProxy`` and all their kin zdev's.

    Code that looks them up in ``zmq``, ``zmq.devices`` or its submodules from then on gets zdev's,
    also in processes that `multiprocessing` starts. Code that has imported or subclassed one before
    keeps what it has. Calling it again changes nothing. From any thread.
    """
    with _lock:
        if _replaced:
            return
        for module in MODULES:
            for name, ours in NAMES.items():
                if name in vars(module) and (module, name) not in KEPT:
                    _replace(module, name, ours)
        spawn = multiprocessing.spawn
        _replace(spawn, "get_preparation_data", _preparing(spawn.get_preparation_data))


def _replace(module: ModuleType, name: str, ours: Any) -> None:
    _replaced.append((module, name, getattr(module, name)))
    setattr(module, name, ours)


def uninstall() -> None:
    """Undo `install`. From any thread."""
    with _lock:
        while _replaced:
            module, name, theirs = _replaced.pop()
            setattr(module, name, theirs)
