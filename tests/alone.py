"""Lets a test that weighs time or memory run while no other does, whoever runs the others.

pytest-xdist spreads the tests over workers, which are processes. Each holds a lock while it runs a
test: shared, or, for tests marked ``alone``, exclusive.

It takes two locks. With one, a test that is to be alone would wait for ever, since the others
come and go and always some of them hold it. So everyone first passes a gate that lets in one at a
time; who is to be alone stands in it until all those inside have left, and the rest queue behind.
Everyone takes the two in the same order, gives the gate back as soon as it is inside, and holds
nothing between two tests, so that nobody waits for one that waits for it.

They are locks of fcntl(2), which belong to the process: a worker that crashes or is killed gives
them back, and a child that a test forks does not hold them, however long it lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

# Bytes of the file, each of which is a lock.
GATE, INSIDE = 0, 1


class Turns:
    """The turns of one worker; the file at `path` is what it shares with the others."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDWR)

    @contextlib.contextmanager
    def one(self, *, alone: bool) -> Iterator[None]:
        """Wait for a turn, and have it for the block."""
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, GATE)
        fcntl.lockf(self._file, fcntl.LOCK_EX if alone else fcntl.LOCK_SH, 1, INSIDE)
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, GATE)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, INSIDE)
