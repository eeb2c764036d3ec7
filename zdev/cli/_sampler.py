"""Asks for the status of all devices once a second, for whoever wants to know it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any, Callable, NamedTuple

from zdev.cli._kept import WAYS
from zdev.cli._workers import in_thread

__all__ = ["Sample", "Sampler", "StaleError", "Trend"]

INTERVAL = 1.0  # seconds
KEPT = 60  # samples, for the rates of the last minute
STALE = 5.0  # seconds; a device that does not answer is waited for one


class Sample(NamedTuple):
    """What was known of all devices at a time."""

    at: float
    """Of time.monotonic."""
    problem: str | None
    """What was wrong with the file when it was last read."""
    ending: bool
    devices: list[dict[str, Any]]


class Trend(NamedTuple):
    """What a device did in the last minute, in one direction or towards its monitor."""

    messages: list[float | None]
    """How many it sent in each second, the newest last; None where it did not answer."""
    bytes: float | None
    """How many it sent in the last second; None where that is not known."""


class StaleError(Exception):
    """There is no status that is new enough."""


class Sampler:
    """Asks once a second, however many want to know; from `start` to `close`.

    Parameters
    ----------
    ask : callable
        Returns what there is to know: ``problem``, ``ending`` and ``devices``.
    """

    def __init__(self, ask: Callable[[], dict[str, Any]]) -> None:
        self._ask = ask
        self._latest: Sample | None = None
        self._past: deque[Sample] = deque(maxlen=KEPT + 1)
        self._first = threading.Event()
        self._ends = threading.Event()
        self._lock = threading.Lock()
        self._working: Future[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._working = in_thread(self._work)

    def close(self) -> None:
        """End; an answer that is waited for is not."""
        self._ends.set()

    def _work(self) -> None:
        due = time.monotonic()
        while not self._ends.is_set():
            try:
                sample = Sample(time.monotonic(), **self._ask())
            except Exception:  # noqa: S110 - what is known grows old, and `latest` tells that
                pass
            else:
                with self._lock:
                    self._latest = sample
                    self._past.append(sample)
                self._first.set()
            due = max(due + INTERVAL, time.monotonic())
            self._ends.wait(due - time.monotonic())

    def latest(self) -> Sample:
        """Return what is known; never asks.

        Raises
        ------
        StaleError
            If that is old.
        """
        self._first.wait(STALE)
        sample = self._latest
        if sample is None or time.monotonic() - sample.at > STALE:
            age = "" if sample is None else f" for {time.monotonic() - sample.at:.0f} s"
            raise StaleError(f"the status is not known{age}")
        return sample

    def trends(self) -> dict[str, dict[str, Trend]]:
        """Return what each device did in the last minute, by name and by way."""
        with self._lock:
            past = list(self._past)
        names = [device["name"] for device in past[-1].devices] if past else []
        known = [
            (sample.at, {device["name"]: device for device in sample.devices}) for sample in past
        ]
        return {name: {way: _trend(known, name, way) for way in WAYS} for name in names}


def _trend(known: list[tuple[float, dict[str, Any]]], name: str, way: str) -> Trend:
    sent, weighed = ("sent", None) if way == "capture" else ("messages_sent", "bytes_sent")
    volume = list(_rates(known, name, way, weighed))[-1:] if weighed else []
    return Trend(list(_rates(known, name, way, sent)), volume[0] if volume else None)


def _rates(
    known: list[tuple[float, dict[str, Any]]], name: str, way: str, key: str
) -> Iterator[float | None]:
    """Return the rate of a count in each interval."""
    before: tuple[float, float] | None = None
    for number, (at, devices) in enumerate(known):
        device = devices.get(name)
        rate = None
        if device is not None and device["state"] == "relays":
            now = at, float(device["counts"][way][key])
            if before is not None:
                rate = (now[1] - before[1]) / (now[0] - before[0])
            before = now
        if number:
            yield rate
