"""Who speaks for a relay: what it and its sockets are called, and where it writes."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Callable

from zdev import _tasks
from zdev._contract import End
from zdev._sockets import name_of

__all__ = ["Voice", "write"]

logger = logging.getLogger("zdev")


def write(level: int, *words: Any) -> None:
    """Write to the log of zdev, from any thread."""
    # Asked without a lock, unlike isEnabledFor.
    if level >= max(logger.getEffectiveLevel(), logger.manager.disable + 1):
        entry = functools.partial(logger.log, level, *words)
        if not _tasks.leave_to_main(entry):
            entry()


def _to_nobody(_now: tuple[str, ...]) -> None: ...


class Voice:
    """Speaks for a relay, until whoever runs it lends it a name and a log.

    Parameters
    ----------
    roles : sequence of str
        What the frontend, the backend, the capture and the control socket are called.
    ends : mapping of str to End
        The sockets by these names, as far as there are any.
    """

    def __init__(self, roles: Sequence[str], ends: Mapping[str, End]) -> None:
        self.kinds = " and ".join(name_of(ends[role].type) for role in roles[:2])
        """The types of the two ends."""
        self.name = f"the relay of {self.kinds}"
        self.roles = roles
        self.log: Callable[..., None] = write
        self.on_waits: Callable[[tuple[str, ...]], None] = _to_nobody
        """Told who waits for whom, whenever that changes."""
        self.tells_drains = True
        """Whether the relay tells what its drains have left; else whoever runs it does."""

    def speak_as(
        self,
        name: str,
        roles: Sequence[str],
        log: Callable[..., None],
        on_waits: Callable[[tuple[str, ...]], None],
    ) -> None:
        """Call the relay and its sockets so from now on; write, and tell who waits, with these."""
        self.name, self.roles, self.log, self.on_waits = name, roles, log, on_waits
