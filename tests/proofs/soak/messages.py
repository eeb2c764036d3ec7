"""Messages that tell whether they came whole, once and in order."""

from __future__ import annotations

import random
import struct
import threading
import zlib
from collections.abc import Sequence

__all__ = ["HEADER", "Ledger", "Tally", "Violation", "checksum", "make", "tally", "unpack"]

# Sender, number, count of body frames, checksum of the body.
HEADER = struct.Struct("!IIHI")

# Around libzmq's limits for small messages and short sizes, mostly; rarely more than it sends at once.
SIZES = (0, 1, 29, 30, 33, 255, 256, 1000, 9000, 60_000)
COUNTS = (0, 1, 1, 2, 3, 5, 15, 16, 40)


class Violation(Exception):
    """What a device must never do, or never leave undone."""


def make(rng: random.Random, sender: int, number: int) -> list[bytes]:
    """Make a message of that sender: a header, and frames that cannot be others'."""
    count = rng.choice(COUNTS)
    largest = len(SIZES) if count < 5 else len(SIZES) - 2
    body = []
    for place in range(count):
        size = SIZES[rng.randrange(largest)]
        body.append((HEADER.pack(sender, number, place, size) * (size // 14 + 1))[:size])
    return [HEADER.pack(sender, number, count, checksum(body)), *body]


def checksum(body: Sequence[bytes]) -> int:
    """Return what a header says of the frames behind it."""
    total = 0
    for frame in body:
        total = zlib.crc32(frame, zlib.crc32(b"%d" % len(frame), total))
    return total


def unpack(where: str, frames: Sequence[bytes]) -> tuple[int, int]:
    """Check that a message is whole; return its sender and number."""
    shape = [len(frame) for frame in frames[:20]]
    if not frames or len(frames[0]) != HEADER.size:
        raise Violation(f"{where} frames of {shape} bytes, which begin with no header")
    sender, number, count, total = HEADER.unpack(frames[0])
    what = f"{where} message {number} of sender {sender}"
    if len(frames) != count + 1:
        raise Violation(f"{what} with {len(frames) - 1} frames instead of {count}: {shape}")
    if total != checksum(frames[1:]):
        raise Violation(f"{what} with a wrong checksum: {shape}")
    return sender, number


class Ledger:
    """What was sent, and what has come at one kind of receiver."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.taken = 0
        self._sent: dict[int, int] = {}  # by sender: how many; -1, if only itself knew
        self._last: dict[tuple[object, int], int] = {}
        self._seen: set[tuple[int, int]] = set()

    def sent(self, sender: int, count: int) -> None:
        """Note how many messages a sender has sent so far."""
        self._sent[sender] = count

    def take(self, receiver: object, frames: Sequence[bytes], once: bool = True) -> tuple[int, int]:
        """Check a message that came; return its sender and number.

        With `once`, only one receiver may have it.
        """
        where = f"{self.name}: {receiver} got"
        sender, number = unpack(where, frames)
        what = f"{where} message {number} of sender {sender}"
        if sender not in self._sent:
            raise Violation(f"{what}, who is none")
        if number >= self._sent[sender] >= 0:
            raise Violation(f"{what}, who has sent {self._sent[sender]}")
        last = self._last.get((receiver, sender), -1)
        if number <= last:
            raise Violation(f"{what} behind {last}")
        self._last[receiver, sender] = number
        if once:
            if (sender, number) in self._seen:
                raise Violation(f"{what}, which another had got before")
            self._seen.add((sender, number))
        self.taken += 1
        return sender, number


class Tally:
    """Counts of the whole run, by name; from any thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may count in the midst of counting
        self._counts: dict[str, int] = {}

    def __call__(self, name: str, more: int = 1) -> None:
        with self._lock:
            self._counts[name] = self._counts.get(name, 0) + more

    def __str__(self) -> str:
        with self._lock:
            return ", ".join(f"{count} {name}" for name, count in sorted(self._counts.items()))


tally = Tally()
