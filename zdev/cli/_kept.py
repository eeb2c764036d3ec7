"""A device of ``zdev run``, through all its lives: where it is bound, and what it has relayed."""

from __future__ import annotations

import copy
import dataclasses
import os
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from zdev._connections import Connections
from zdev._contract import NOTHING, Statistics
from zdev.cli._brokers import check_path, valued
from zdev.cli._changes import Step
from zdev.cli._file import Entry
from zdev.cli._passwords import load_passwords
from zdev.cli._spec import Endpoint, Spec

__all__ = ["FIRST_DELAY", "WAYS", "Account", "Kept"]

FIRST_DELAY = 0.25
"""Seconds before a device that has died is started again, the first time."""

WAYS = ("frontend_to_backend", "backend_to_frontend", "capture")


class Account:
    """What a device has relayed in all its lives.

    The counts only grow, also where it was started again; but ``parked`` is of now.

    Attributes
    ----------
    life : int
        Which life it is; an answer that comes after the end of one is not counted to the next.
    """

    def __init__(self) -> None:
        self.life = 0
        self._lock = threading.Lock()
        self._before: dict[str, Counter[str]] = {way: Counter() for way in WAYS}
        self._now = NOTHING
        self._came_before: dict[str, Counter[tuple[str, ...]]] = {}
        self._came: dict[str, Counter[tuple[str, ...]]] = {}

    def take(self, statistics: Statistics, life: int) -> None:
        """Know what it has relayed in this life, so far; an answer that comes late is left out."""
        with self._lock:
            if life == self.life and _moved(statistics) >= _moved(self._now):
                self._now = statistics

    def take_connections(self, connections: Mapping[str, Connections], life: int) -> None:
        """Know who has come and gone in this life, so far."""
        with self._lock:
            if life == self.life:
                for role, of in connections.items():  # the larger ones, of answers that overtake
                    self._came[role] = self._came.get(role, Counter()) | _came(of)

    def end(self) -> None:
        """Know that this life is over."""
        with self._lock:
            self.life += 1
            last, self._now = self._now, NOTHING
            for way, counts in self._before.items():
                counts.update(getattr(last, way)._asdict())
                counts["parked"] = 0
            for role, came in self._came.items():
                self._came_before.setdefault(role, Counter()).update(came)
            self._came = {}

    def counts(self) -> dict[str, dict[str, float]]:
        """Return the counts of each direction and of the monitor."""
        with self._lock:
            found: dict[str, dict[str, float]] = {}
            for way, before in self._before.items():
                now = getattr(self._now, way)
                found[way] = {name: before[name] + n for name, n in now._asdict().items()}
                found[way]["parked_seconds"] = round(now.parked_seconds, 3)
            return found

    def came(self) -> dict[str, dict[str, Any]]:
        """Return how many connections there were, of each socket of which that is known."""
        with self._lock:
            found: dict[str, dict[str, Any]] = {}
            for role in {**self._came_before, **self._came}:
                counts = Counter(self._came_before.get(role)) + Counter(self._came.get(role))
                found[role] = {name: counts[name,] for name in CAME}
                found[role]["failed"] = {of[1]: n for of, n in counts.items() if of[0] == "failed"}
            return found


CAME = ("accepted", "connected", "disconnected", "retries")


def _moved(statistics: Statistics) -> int:
    """Return a number that never goes down."""
    return sum(sum(counts) - counts.parked for counts in statistics)


def _came(of: Connections) -> Counter[tuple[str, ...]]:
    """Return the counts of a socket's connections."""
    counts: Counter[tuple[str, ...]] = Counter({(name,): getattr(of, name) for name in CAME})
    for cause, n in of.failed.items():
        counts["failed", cause] = n
    return counts


def _answered() -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result({})
    return future


@dataclass
class Kept:
    """A device that is kept running."""

    entry: Entry
    device: Any = None
    """None between two of its lives."""
    began: float = 0.0
    """Of time.monotonic."""
    restarts: int = 0
    delay: float = FIRST_DELAY
    again_at: float | None = None
    """When to start it again, of time.monotonic."""
    starting: Future[Any] | None = None
    """What it comes from, while it is started again."""
    has_ended: bool = False
    """For good."""
    account: Account = field(default_factory=Account)
    asked: tuple[Any, Future[Any]] = field(default_factory=lambda: (None, _answered()))
    """Which device was asked last for its status, and what comes of that."""
    pins: dict[tuple[str, str], str] = field(default_factory=dict)
    """Where it is really bound, by role and wanted address: also in its next life."""

    @property
    def name(self) -> str:
        return self.entry.spec.name

    def pin(self) -> None:
        """Note where it is bound; a wildcard will be the same port when it starts again.

        What was bound before stays where it was: a file that is read again may have another order.
        """
        real = self.device.endpoints
        before, self.pins = self.pins, {}
        for role, wanted in self.entry.spec.wired():
            left, new = list(real.get(role, ())), []
            for place in wanted.endpoints:
                if place.verb != "bind":
                    continue
                was = before.get((role, place.address))
                if was is None or (real and was not in left):
                    new.append(place.address)
                else:
                    self.pins[role, place.address] = was
                    left = [address for address in left if address != was]
            self.pins.update(((role, a), b) for a, b in zip(new, left))

    def linger(self) -> float:
        """Return the seconds that its sockets may take for what they still have to send."""
        given = [of.options.get("linger", 0) for _, of in self.entry.spec.wired()]
        return max(0.0, *(int(valued("linger", value)[1]) / 1000 for value in given))

    def addresses(self) -> set[str]:
        """Return where it is bound, as that was asked for and as it is."""
        return {address for role, asked in self.pins for address in (asked, self.pins[role, asked])}

    def wire(self, step: Step) -> None:
        """Do something to its live socket."""
        verb = "allow" if step.verb == "passwords" else step.verb
        method = getattr(self.device, f"{verb}_{step.role}")
        if step.verb == "allow":
            method(step.what)
        elif step.verb == "passwords":
            method(load_passwords(step.what))
        elif step.verb == "setsockopt":
            method(*valued(*step.what))
        elif step.verb == "connect":
            method(step.what.address, **step.what.options)
        elif step.verb == "disconnect":
            method(step.what.address)
        else:  # to bind there again undoes an unbind
            address = self.pins.get((step.role, step.what.address), step.what.address)
            if step.verb == "bind":
                check_path(Endpoint(step.verb, address))
            method(address)

    def pinned(self) -> Spec:
        """Return what it is to be, with the addresses that it had."""
        spec = copy.deepcopy(self.entry.spec)
        for role, wanted in spec.sockets.items():
            wanted.endpoints = [
                dataclasses.replace(place, address=self._pinned(role, place.address))
                for place in wanted.endpoints
            ]
        return spec

    def _pinned(self, role: str, address: str) -> str:
        pin = self.pins.get((role, address), address)
        # Of the path that ipc://* becomes, libzmq removes the folder, unless its process is killed.
        if address == "ipc://*" and not os.path.isdir(os.path.dirname(pin[len("ipc://") :])):
            return address
        return pin
