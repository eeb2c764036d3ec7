"""What a receiver is to get, and the report when it gets something else."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple, NoReturn

from zdev.testing.strategies import show

__all__ = ["DeviceError", "Inbox"]

Frames = list[bytes]


class DeviceError(AssertionError):
    """A device did what it must not; the message says what, and what the model says."""


def fail(message: str, cause: BaseException | None = None) -> NoReturn:
    """Raise, always from here: Hypothesis takes failures of different places for different ones."""
    __tracebackhide__ = True
    raise DeviceError(message) from cause


class Expected(NamedTuple):
    """A message that a receiver is to get."""

    frames: Frames
    optional: bool
    """Whether it may as well not come."""


class Inbox:
    """What one receiver is to get: each sender's messages in order, mixed with those of others.

    Parameters
    ----------
    name : str
        The receiver, for reports.
    gaps : bool
        Whether any message may be missing.
    """

    def __init__(self, name: str, *, gaps: bool = False) -> None:
        self.name = name
        self.gaps = gaps
        self.received: list[Frames] = []
        self.expected: dict[str, list[Expected]] = {}
        """By sender."""
        # How many of each sender's messages have come. Messages that are the same leave it open
        # whose has come, so there may be several answers.
        self._reached: set[tuple[int, ...]] = {()}

    def expect(self, sender: str, frames: Iterable[bytes], *, optional: bool = False) -> None:
        """Say what is to come, behind all that was said of the same sender."""
        if sender not in self.expected:
            self.expected[sender] = []
            self._reached = {(*places, 0) for places in self._reached}
        self.expected[sender].append(Expected([*frames], optional or self.gaps))

    def receive(self, message: Iterable[bytes]) -> None:
        """Take a message that came; raise `DeviceError` if it cannot be the next of any sender."""
        __tracebackhide__ = True
        frames = [*message]
        reached = set()
        for places in self._reached:
            for index, part in enumerate(self.expected.values()):
                for place in _next(part, places[index]):
                    if part[place].frames == frames:
                        reached.add((*places[:index], place + 1, *places[index + 1 :]))
                        break
        if not reached:
            fail(self._difference(frames))
        self.received.append(frames)
        self._reached = reached

    def has_all(self, sender: str | None = None) -> bool:
        """Tell whether nothing more must come, from one sender or from any."""
        names = [*self.expected]
        return any(
            all(
                message.optional
                for name, place in zip(names, places)
                if sender in (None, name)
                for message in self.expected[name][place:]
            )
            for places in self._reached
        )

    def missing(self) -> str:
        """Return the next message of each sender that must come, a line each."""
        return "\n".join(
            f"  {self.name} from {sender}: [{', '.join(map(show, frames))}]"
            for sender, frames in self._required()
        )

    def _required(self) -> list[tuple[str, Frames]]:
        """Return what must come next, by one of the answers to how much has come."""
        return [
            (sender, part[place].frames)
            for (sender, part), start in zip(self.expected.items(), max(self._reached))
            for place in _next(part, start)
            if not part[place].optional
        ]

    def _difference(self, frames: Frames) -> str:
        """Say, frame by frame, what a message is and what it should be."""
        candidates = self._required() or [("anyone", [])]
        common = [_in_common(frames, wanted) for _, wanted in candidates]
        place = max(common)
        sender, wanted = candidates[common.index(place)]
        title = f"expected from {sender}" if wanted else "nothing expected"
        rows = [["", "received", title]]
        for number, pair in enumerate(itertools.zip_longest(frames, wanted)):
            mark = "! " if number == place else "  "
            rows.append([f"{mark}frame {number}", *("-" if f is None else show(f) for f in pair)])
        width = [max(len(row[column]) for row in rows) for column in range(2)]
        table = "\n".join(f"{a:{width[0]}}  {b:{width[1]}}  {c}".rstrip() for a, b, c in rows)
        hint = self._hint(frames)
        return f"{self.name} received a wrong message, first at frame {place}:\n{table}{hint}"

    def _hint(self, frames: Frames) -> str:
        if frames in self.received:
            return "\nThe same has come before."
        for sender, part in self.expected.items():
            if frames in [message.frames for message in part]:
                return f"\nIt is a later one of {sender}: one before it was lost or overtaken."
        return ""


def _next(part: list[Expected], place: int) -> Iterator[int]:
    """Yield the places of what may come next: up to the first that must."""
    for later in range(place, len(part)):
        yield later
        if not part[later].optional:
            return


def _in_common(frames: Frames, others: Frames) -> int:
    """Count the frames before the first difference."""
    pairs = zip(frames, others)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
