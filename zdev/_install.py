"""Puts zdev's names in the place of pyzmq's, for the whole process, and takes them out again."""

from __future__ import annotations

import threading
from types import ModuleType
from typing import Any

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
    name: getattr(module, name)
    for module in (_functions, _devices)
    for name in module.__all__
    if hasattr(zmq.devices, name) or hasattr(zmq, name)
}

_lock = threading.Lock()
_replaced: list[tuple[ModuleType, str, Any]] = []


def install() -> None:
    """Make ``zmq.proxy``, ``zmq.devices.ThreadProxy`` and all their kin zdev's.

    Code that looks them up in ``zmq``, ``zmq.devices`` or its submodules from then on gets zdev's;
    code that has imported one before keeps what it has. Calling it again changes nothing. From any
    thread.
    """
    with _lock:
        if _replaced:
            return
        for module in MODULES:
            for name, ours in NAMES.items():
                if name in vars(module):
                    _replaced.append((module, name, getattr(module, name)))
                    setattr(module, name, ours)


def uninstall() -> None:
    """Undo `install`. From any thread."""
    with _lock:
        while _replaced:
            module, name, theirs = _replaced.pop()
            setattr(module, name, theirs)
