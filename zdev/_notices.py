"""What a relay tells unasked, while it runs: of messages that overflow, of directions that wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Callable

from zdev._contract import End, Statistics
from zdev._overflow import Overflows
from zdev._voice import Voice
from zdev._waits import Waits

__all__ = ["Notices"]


class Notices:
    """Looks at a relay's counters whenever its loop returns, and tells what is new.

    Parameters
    ----------
    voice : Voice
        The relay's.
    ends : mapping of str to End
        Its sockets, by the names that the voice calls them at first.
    drops : sequence of bool
        Whether what is refused is dropped, there and back.
    warn_after : float or None
        Seconds that a direction may wait until the log has a warning; None: for ever.
    """

    def __init__(
        self,
        voice: Voice,
        ends: Mapping[str, End],
        drops: Sequence[bool],
        warn_after: float | None,
    ) -> None:
        self._waits = Waits(voice, ends, warn_after)
        self._overflows = Overflows(voice, [ends[role].type for role in voice.roles[:2]], drops)

    @property
    def waits(self) -> tuple[str, ...]:
        """Who waits for whom, such as "in waits for mon"."""
        return self._waits.now

    def bound(self, timeout: int, *, paused: bool) -> int:
        """Return a loop's timeout in milliseconds, or less if something is due sooner."""
        timeout = self._overflows.bound(timeout)
        return timeout if paused else self._waits.bound(timeout)

    def look(
        self, statistics: Callable[[], Statistics], *, paused: bool, is_dry: bool = True
    ) -> None:
        """Tell what is new; where the loop has moved something, only what concerns that."""
        self._overflows.look(statistics)
        # In a pause, nobody waits for a peer. Where something moved, nobody waits who did not.
        if not paused and (is_dry or self._waits.now):
            self._waits.look(statistics())

    def end(self, statistics: Callable[[], Statistics]) -> None:
        """Know that the relay runs no more."""
        self._overflows.look(statistics)
        self._overflows.end()
