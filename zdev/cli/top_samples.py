"""What ``zdev top`` is told of devices, again and again, and how fast it changes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Callable

from zdev.cli._control import ControlError, ask, only_run
from zdev.cli._steering import steer

__all__ = ["HEADS", "Row", "Sample", "cells", "samples", "source_of"]

PATIENCE = 5.0  # seconds for an answer


@dataclass
class Row:
    """A device, as it is at one moment; None stands for what is not known."""

    name: str
    kind: str | None = None
    state: str = "relays"
    counts: dict[str, float | None] = field(default_factory=dict)
    """That only grow: messages, bytes and frames each way, and what became of the others."""
    parked: int | None = None
    parked_seconds: float | None = None
    peers: int | None = None
    subscriptions: int | None = None
    restarts: int | None = None
    endpoints: list[str] = field(default_factory=list)
    rates: dict[str, float | None] = field(default_factory=dict)
    """How fast the counts grow, a second; None in the first sample."""


@dataclass
class Sample:
    """All devices at one moment."""

    at: float
    """Of time.time."""
    rows: list[Row]
    problem: str | None = None
    """What was wrong with the last reload."""


def source_of(address: str | None) -> tuple[str, Callable[[], Sample]]:
    """Return what is looked at, and what looks at it.

    Parameters
    ----------
    address : str or None
        The address of a control socket, or the file of a ``zdev run``; None for the only run of
        this user.

    Raises
    ------
    ControlError
        If there is no such run, or None is given and there are several.
    """
    if address is not None and "://" in address:
        return address, lambda: _of_proxy(address)
    file = address if address is not None else only_run()
    return file, lambda: _of_run(file)


def samples(look: Callable[[], Sample], interval: float) -> Iterator[Sample]:
    """Look again and again, and know how fast the counts grow."""
    before: dict[str, Row] = {}
    then = 0.0
    due = time.monotonic()
    while True:
        sample, now = look(), time.monotonic()
        for row in sample.rows:
            old = before.get(row.name)
            for name, count in row.counts.items():
                last = None if old is None else old.counts.get(name)
                known = count is not None and last is not None and now > then
                row.rates[name] = (count - last) / (now - then) if known else None  # type: ignore[operator]
        before, then = {row.name: row for row in sample.rows}, now
        yield sample
        due = max(due + interval, time.monotonic())
        time.sleep(max(due - time.monotonic(), 0))


WAYS = {"in": "frontend_to_backend", "out": "backend_to_frontend"}


def _of_run(file: str) -> Sample:
    """Ask a ``zdev run``."""
    answer = ask(file, {"verb": "status"}, PATIENCE)
    try:
        rows = [_row(device) for device in answer["devices"]]
    except (AttributeError, KeyError, TypeError) as error:
        words = f"the run of {file} tells something else than this zdev knows: it is of another"
        raise ControlError(f"{words} version; start it again with this one") from error
    return Sample(time.time(), rows, answer.get("problem"))


def _row(device: dict[str, Any]) -> Row:
    ways = {way: device["counts"][name] for way, name in WAYS.items()}
    capture, there = device["counts"]["capture"], device["connections"]
    counts: dict[str, float | None] = {}
    for way, of in ways.items():
        for what in ("messages", "bytes"):
            counts[f"{way}_{what}"] = of[f"{what}_sent"]
    counts["mon_messages"] = capture["sent"]
    for what in ("dropped", "overflowed", "unroutable"):
        counts[what] = sum(of[what] for of in ways.values())
    counts["mon_dropped"] = capture["dropped"]
    waits = [of for of in (*ways.values(), capture) if of["parked"] or of["parked_seconds"]]
    held = [of["subscriptions"] for of in there.values() if of["subscriptions"] is not None]
    return Row(
        device["name"],
        device["kind"],
        device["state"],
        counts,
        sum(of["parked"] for of in waits),
        max((of["parked_seconds"] for of in waits), default=0.0),
        sum(of["peers"] for of in there.values()) if there else None,
        sum(held) if held else None,
        device["restarts"],
        [address for bound in device["endpoints"].values() for address in bound],
    )


def _of_proxy(address: str) -> Sample:
    """Ask a control socket, which knows frames and bytes only."""
    counts = steer(address, "statistics", None, PATIENCE).statistics or {}
    ways = {"in": "backend", "out": "frontend"}  # where what comes in there is sent
    known: dict[str, float | None] = {
        f"{way}_{what}": counts[f"{end}_{what}_sent"]
        for way, end in ways.items()
        for what in ("frames", "bytes")
    }
    return Sample(time.time(), [Row(address, state="answers", counts=known)])


HEADS = (
    *("in/s", "out/s", "mon/s", "in B/s", "out B/s"),
    *("drop", "overfl", "unrout", "parked", "peers", "subs", "starts"),
)


def cells(row: Row) -> list[str]:
    """Return what is shown of a device under these heads."""
    rates = [
        _short(row.rates.get(f"{way}_messages", row.rates.get(f"{way}_frames")))
        for way in ("in", "out", "mon")
    ]
    rates += [_short(row.rates.get(f"{way}_bytes")) for way in ("in", "out")]
    lost = [_short(row.counts.get(name)) for name in ("dropped", "overflowed", "unroutable")]
    parked = "-"
    if row.parked is not None:
        parked = f"{row.parked_seconds:.0f}s" if row.parked_seconds else str(row.parked)
    others = [_short(count) for count in (row.peers, row.subscriptions, row.restarts)]
    return [*rates, *lost, parked, *others]


def _short(number: float | None) -> str:
    """Return a number in few characters: 1234567 as 1.23M."""
    if number is None:
        return "-"
    for unit in ("", "k", "M", "G", "T"):
        if abs(number) < 999.5 or unit == "T":
            break
        number /= 1000
    return f"{number:.0f}" if unit == "" else f"{number:.3g}{unit}"
