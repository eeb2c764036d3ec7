"""What is to be done to running devices when their configuration has changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from zdev.cli._file import Entry
from zdev.cli._spec import DEFAULTS, Endpoint, Spec

__all__ = ["Plan", "Rewiring", "Step", "planned", "room"]

UNDOES = {"bind": "unbind", "connect": "disconnect"}


@dataclass(frozen=True)
class Step:
    """Something that is done to the live socket of a device, and what undoes it."""

    role: str
    verb: str
    what: Any
    """A place, the name of an option and its value, or the path of a list."""
    undo: Step | None = None

    def __str__(self) -> str:
        if self.verb == "setsockopt":
            return f"set {self.role}.{self.what[0]} = {self.what[1]}"
        return f"{self.verb} {self.role} {self.what}"

    @classmethod
    def to(cls, role: str, place: Endpoint) -> Step:
        """Return the step that binds or connects."""
        return cls(role, place.verb, place, cls(role, UNDOES[place.verb], place))

    @classmethod
    def back(cls, role: str, place: Endpoint) -> Step:
        """Return the step that unbinds or disconnects."""
        return cls(role, UNDOES[place.verb], place, cls(role, place.verb, place))

    @classmethod
    def option(cls, role: str, name: str, value: Any, were: Mapping[str, Any]) -> Step:
        """Return the step that sets an option, which had another value if it is known."""
        undo = cls(role, "setsockopt", (name, were[name])) if name in were else None
        return cls(role, "setsockopt", (name, value), undo)


@dataclass
class Rewiring:
    """What is done to a device that goes on: what is new, and then what is to go."""

    added: list[Step] = field(default_factory=list)
    removed: list[Step] = field(default_factory=list)


@dataclass
class Plan:
    """What is done to all of them."""

    stopped: list[str] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    rewired: dict[str, Rewiring] = field(default_factory=dict)
    noted: list[str] = field(default_factory=list)
    """Those of which only changes what is done at their end."""
    lists: dict[str, list[Step]] = field(default_factory=dict)
    """Who is let in, of those that go on: what is in a folder may have changed."""
    wanted: dict[str, set[str]] = field(default_factory=dict)
    """Whose sockets are to be bound, by `room`; who has that now must leave it first."""

    def want(self, name: str, addresses: Iterable[str]) -> None:
        """Note where a device is to be bound."""
        for address in addresses:
            self.wanted.setdefault(room(address), set()).add(name)

    def is_wanted(self, addresses: Iterable[str], but_by: str = "") -> bool:
        """Tell whether something is to be bound there; something of another device."""
        return any(self.wanted.get(room(address), set()) - {but_by} for address in addresses)


def room(address: str) -> str:
    """Return what two sockets cannot have: of tcp the port, since an interface may be any."""
    transport, _, place = address.partition("://")
    return f"tcp:{place.rpartition(':')[2]}" if transport == "tcp" else address


def planned(old: Mapping[str, Entry], new: Mapping[str, Entry]) -> Plan:
    """Return what is to be done, and nothing to what is the same."""
    plan = Plan(stopped=[name for name in old if name not in new])
    for name, entry in new.items():
        before = old.get(name)
        if before is None:
            plan.started.append(name)
            plan.want(name, _binds(entry.spec))
        elif before != entry:
            rewiring = _rewiring(before, entry)
            if rewiring is None:
                plan.replaced.append(name)
                plan.want(name, _binds(entry.spec))
            elif rewiring.added or rewiring.removed:
                plan.rewired[name] = rewiring
                binds = (step.what for step in rewiring.added if step.verb == "bind")
                plan.want(name, (place.address for place in binds))
            else:
                plan.noted.append(name)
        lists = [
            Step(role, verb, path)
            for role, wanted in entry.spec.wired()
            for verb, path in (("allow", wanted.allow), ("passwords", wanted.plain_server))
            if path is not None
        ]
        if lists and before is not None and name not in plan.replaced:
            plan.lists[name] = lists
    return plan


def _binds(spec: Spec) -> Iterator[str]:
    for _, wanted in spec.wired():
        for place in wanted.endpoints:
            if place.verb == "bind" and not place.is_wildcard():
                yield place.address


def _rewiring(old: Entry, new: Entry) -> Rewiring | None:
    """Return what is done to the live device; None if it has to be another."""
    if _frame(old) != _frame(new):
        return None
    rewiring = Rewiring()
    for role in new.spec.sockets:
        before, after = old.spec.sockets[role], new.spec.sockets[role]
        removed, added = _moves(role, before.endpoints, after.endpoints)
        rewiring.removed += removed
        if not after.endpoints:
            continue
        were = old.spec.options_of(role) if before.endpoints else DEFAULTS
        for name, value in new.spec.options_of(role).items():
            if name not in were or were[name] != value:
                rewiring.added.append(Step.option(role, name, value, were))
        if before.endpoints and before.options.keys() - after.options.keys() - DEFAULTS.keys():
            return None  # libzmq does not tell what they were at first
        rewiring.added += added
    return rewiring


def _moves(
    role: str, before: Iterable[Endpoint], after: Iterable[Endpoint]
) -> tuple[list[Step], list[Step]]:
    """Return how a socket leaves places, and how it comes to others."""
    there = {(place.verb, place.address): place for place in before}
    removed: list[Step] = []
    added: list[Step] = []
    for place in after:
        was = there.pop((place.verb, place.address), None)
        if was is None:
            added.append(Step.to(role, place))
        elif was.every != place.every:
            if was.every is None or place.every is None:  # one address was all, or is now
                added += [Step.back(role, was), Step.to(role, place)]
            else:  # to connect again is to look it up at other times
                again = Step(role, "connect", place, Step(role, "connect", was))
                added.append(again)
    removed += (Step.back(role, place) for place in there.values())
    return removed, added


def _frame(entry: Entry) -> Entry:
    """Return what cannot be changed in a live device."""
    spec = entry.spec
    sockets = {
        role: dataclasses.replace(
            wanted,
            type=spec.type_of(role).upper(),
            endpoints=[],
            options={},
            allow=wanted.allow and "some",
        )
        for role, wanted in spec.sockets.items()
    }
    return dataclasses.replace(
        entry, drain=0.0, spec=dataclasses.replace(spec, sockets=sockets, insecure=False)
    )
