"""What ``zdev run`` tells of its devices: to top, to metrics, to whoever asks."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import Future, wait
from typing import Any

from zdev.cli._kept import Kept
from zdev.cli._workers import in_thread

__all__ = ["statuses"]

PATIENCE = 1.0
"""Seconds for devices to answer; one that is halted, as by a debugger, is not waited for."""


def statuses(kept: Iterable[Kept]) -> list[dict[str, Any]]:
    """Return what there is to know of devices, of each in its own thread, and within `PATIENCE`."""
    asked = []
    for one in kept:
        device, question = one.asked
        if device is not one.device or question.done():  # else it has still to answer the last one
            device = one.device
            question = in_thread(lambda one=one: _ask(one))  # type: ignore[misc]
            one.asked = device, question
        asked.append((one, question))
    wait([question for _, question in asked], PATIENCE)
    return [_status(one, question) for one, question in asked]


def _ask(one: Kept) -> dict[str, Any]:
    """Ask a device that runs."""
    life = one.account.life  # before the device, which is gone before its life is over
    device = one.device
    if device is None:
        return {}
    one.account.take(device.statistics(), life)
    connections = device.connections()
    one.account.take_connections(connections, life)
    found = {role: of._asdict() for role, of in connections.items()}
    return {"endpoints": device.endpoints, "connections": found}


def _status(one: Kept, future: Future[Any]) -> dict[str, Any]:
    """Put together what is known of a device."""
    answer: dict[str, Any] = {}
    state = "ended" if one.has_ended else "waits" if one.again_at is not None else "starts"
    if one.device is not None:
        state = "does not answer"
        if future.done() and future.exception() is None:
            state, answer = "relays", future.result()
    spec = one.entry.spec
    return {
        "name": spec.name,
        "kind": spec.kind,
        "types": {role: spec.type_of(role).upper() for role, _ in spec.wired()},
        "state": state,
        "restarts": one.restarts,
        "seconds": round(time.monotonic() - one.began, 3) if one.device is not None else 0.0,
        "endpoints": answer.get("endpoints", {}),
        "connected": {
            role: [str(place) for place in wanted.endpoints if place.verb == "connect"]
            for role, wanted in spec.wired()
        },
        "connections": answer.get("connections", {}),
        "came": one.account.came(),
        "counts": one.account.counts(),
    }
