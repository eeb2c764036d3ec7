"""What a relay tells of its directions that wait: in its repr, and in the log."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping
from typing import Any

import zmq

from zdev._contract import DirectionStatistics, End, Statistics
from zdev._sockets import name_of
from zdev._times import LONG_WAIT, check_seconds, milliseconds
from zdev._voice import Voice

__all__ = ["Waits"]

CAPTURE = 2  # the place of the capture among a relay's sockets


class Wait:
    """What a direction has been seen to wait for.

    Parameters
    ----------
    place : int
        Of the direction in the statistics, and of its source among the relay's sockets.
    """

    def __init__(self, place: int) -> None:
        self.place = place
        self.awaited: int | None = None  # the place of a socket; None: it does not wait for long
        self.since = 0.0  # of time.monotonic
        self.is_told = False  # to the log


class Waits:
    """Tells of the directions of a relay that wait for a destination or for the capture.

    The loops say when a direction has waited for `LONG_WAIT`, and when it goes on after that. What
    becomes of it in between is looked at here, in runs of theirs that are bounded for as long as a
    warning is due.

    Parameters
    ----------
    voice : Voice
        The relay's.
    ends : mapping of str to End
        Its sockets, by the names that the voice calls them at first.
    warn_after : float or None
        Seconds after which the log has a warning; None: never.
    """

    def __init__(self, voice: Voice, ends: Mapping[str, End], warn_after: float | None) -> None:
        self._voice = voice
        self._roles, self._ends = voice.roles, ends  # the voice may change its names
        self._warn_after = None if warn_after is None else check_seconds(warn_after, "warn_after")
        self._waits = Wait(0), Wait(1)
        self.now: tuple[str, ...] = ()
        """Who waits for whom, such as "in waits for mon"."""

    def bound(self, timeout: int) -> int:
        """Return a loop's timeout in milliseconds, or less if a warning is due sooner."""
        if self._warn_after is None:
            return timeout
        now = time.monotonic()
        for wait in self._waits:
            if wait.awaited is not None and not wait.is_told:
                left = milliseconds(max(wait.since + self._warn_after - now, 0) + 0.001)
                timeout = left if timeout < 0 else min(timeout, left)
        return timeout

    def look(self, statistics: Statistics) -> None:
        """See who waits and for how long; tell what is new. On the relay's own thread."""
        for wait in self._waits:
            direction = _ways(statistics)[wait.place]
            seconds = direction.parked_seconds
            since = time.monotonic() - seconds
            awaited = None
            if seconds >= LONG_WAIT:
                awaited = 1 - wait.place if direction.parked else CAPTURE
            if wait.is_told and (awaited != wait.awaited or since > wait.since + LONG_WAIT):
                self._tell_end(wait)
            wait.awaited, wait.since = awaited, since
            due = self._warn_after is not None and seconds >= self._warn_after
            if awaited is not None and due and not wait.is_told:
                self._warn(wait, awaited, seconds, statistics)
        now = tuple(
            f"{self._voice.roles[wait.place]} waits for {self._voice.roles[wait.awaited]}"
            for wait in self._waits
            if wait.awaited is not None
        )
        if now != self.now:
            self.now = now
            self._voice.on_waits(now)

    def _warn(self, wait: Wait, awaited: int, seconds: float, statistics: Statistics) -> None:
        wait.is_told = True
        end = self._ends[self._roles[awaited]]
        accepted, remedy = statistics.capture.sent, 'capture_policy="drop"'
        if awaited != CAPTURE:
            accepted, remedy = _ways(statistics)[wait.place].messages_sent, 'overflow="drop"'
        self._voice.log(
            logging.WARNING,
            "%s: %s has waited for %.1f s for %s (%s), which %s; let somebody read there, or "
            "choose %s",
            self._voice.name,
            self._voice.roles[wait.place],
            seconds,
            self._voice.roles[awaited],
            name_of(end.type),
            _state_of(end, accepted),
            remedy,
        )

    def _tell_end(self, wait: Wait) -> None:
        wait.is_told = False
        # A warning like the first, so that who has seen that one sees this one.
        self._voice.log(
            logging.WARNING,
            "%s: %s flows again after %.1f s",
            self._voice.name,
            self._voice.roles[wait.place],
            time.monotonic() - wait.since,
        )


def _ways(statistics: Statistics) -> tuple[DirectionStatistics, DirectionStatistics]:
    return statistics.frontend_to_backend, statistics.backend_to_frontend


def _state_of(end: End, accepted: int) -> str:
    """Say what is known of the peers of a socket that takes nothing.

    libzmq does not tell whether there are any. But a peer that comes always has room for a message.
    """
    address: Any = b"?"
    with contextlib.suppress(zmq.ZMQError):
        address = end.socket.getsockopt(zmq.LAST_ENDPOINT)
    if not address.rstrip(b"\0"):
        return "is neither bound nor connected"
    if accepted == 0:
        return "has taken no message yet, so that it seems to have had no peer"
    if end.type == zmq.REQ:
        return "awaits the reply to its last request, or a peer"
    return "has taken some, but its peers are full now, or gone"
