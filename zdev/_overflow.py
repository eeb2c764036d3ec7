"""What the log says of messages that overflow: when that begins, and when it has ended."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Callable

from zdev._contract import Statistics
from zdev._sockets import name_of
from zdev._times import OVERFLOW_QUIET, milliseconds
from zdev._voice import Voice

__all__ = ["Overflows"]


class Way:
    """A direction that drops what its destination refuses.

    Parameters
    ----------
    place : int
        Of the direction in the statistics, and of its source among the relay's roles.
    kind : int
        The socket type of its destination.
    """

    def __init__(self, place: int, kind: int) -> None:
        self.place = place
        self.kind = name_of(kind)
        self.count = 0  # messages, when it was last looked at
        self.goes_on = False
        self.before = 0  # messages, when it began
        self.last = 0.0  # of time.monotonic: when it was last seen to go on


class Overflows:
    """Tells the log of the overflow of a relay's directions.

    A full peer that takes a message now and then would begin and end it again and again. So it has
    ended when nothing was dropped for OVERFLOW_QUIET. The loops say when it begins: a run of theirs
    that nothing bounds ends with the first message that is dropped. While it goes on, their runs
    are bounded, and it is looked at after each.

    Parameters
    ----------
    voice : Voice
        The relay's.
    kinds : sequence of int
        The types of the frontend and the backend.
    drops : sequence of bool
        Whether what is refused is dropped, there and back.
    """

    def __init__(self, voice: Voice, kinds: Sequence[int], drops: Sequence[bool]) -> None:
        self._voice = voice
        self._ways = [Way(place, kinds[1 - place]) for place in (0, 1) if drops[place]]

    def bound(self, timeout: int) -> int:
        """Return a loop's timeout in milliseconds, or less if it is to be looked at sooner."""
        if not any(way.goes_on for way in self._ways):
            return timeout
        longest = milliseconds(OVERFLOW_QUIET)
        return longest if timeout < 0 else min(timeout, longest)

    def look(self, statistics: Callable[[], Statistics]) -> None:
        """See whether it has begun, goes on, or has ended."""
        if not self._ways:
            return
        directions, now = statistics()[:2], time.monotonic()
        for way in self._ways:
            count = directions[way.place].overflowed
            if count != way.count:
                if not way.goes_on:
                    self._begin(way)
                way.count, way.last = count, now
            elif way.goes_on and now >= way.last + OVERFLOW_QUIET:
                self._end(way)

    def end(self) -> None:
        """Know that the relay runs no more."""
        for way in self._ways:
            if way.goes_on:
                self._end(way)

    def _begin(self, way: Way) -> None:
        way.goes_on, way.before = True, way.count
        self._voice.log(
            logging.WARNING,
            "%s drops messages: its %s (%s) is full or has no peer, and for what it does not take "
            'overflow="drop" was chosen',
            self._voice.name,
            self._voice.roles[1 - way.place],
            way.kind,
        )

    def _end(self, way: Way) -> None:
        way.goes_on = False
        # A warning like the first, so that who has seen that one sees this one.
        self._voice.log(
            logging.WARNING,
            "%s drops no more messages for its %s (%s): it has dropped %d",
            self._voice.name,
            self._voice.roles[1 - way.place],
            way.kind,
            way.count - way.before,
        )
