"""The demo's requests: lines of real text, and the answers that are due to them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

__all__ = [
    "Message",
    "UnfitFileError",
    "answer",
    "library",
    "named",
    "place",
    "read",
    "readable",
    "readable_message",
]

LONGEST = 1 << 16  # bytes; a longer line is sent in pieces

Message = list[bytes]


class UnfitFileError(Exception):
    """A file that cannot be sent; the message says which, and why."""


def library() -> list[Path]:
    """Return real text that every Python has: the sources of its library."""
    sources = Path(os.__file__).parent.glob("*.py")
    files = sorted(path for path in sources if path.stat().st_size)
    if not files:
        raise UnfitFileError("this Python comes without its sources; name a text file")
    return files


def read(paths: Iterable[Path], limit: int) -> list[Message]:
    """Make requests ``[file, line number, text]`` of the first lines of some files.

    At least one line of each file is read, so that none is bad unnoticed.
    """
    requests: list[Message] = []
    for path in dict.fromkeys(paths):  # a file named twice is sent once: each request is unique
        name = os.fsencode(path)
        try:
            taken = list(lines(path, max(1, limit - len(requests))))
        except OSError as error:
            raise UnfitFileError(f"{path} cannot be read: {error.strerror}") from error
        if not taken:
            raise UnfitFileError(f"{path} is empty: there is nothing to send")
        requests += [[name, b"%d" % number, line] for number, line in enumerate(taken, 1)]
    return requests[:limit]


def lines(path: Path, limit: int) -> Iterator[bytes]:
    """Yield the first lines of a text file, without their ends."""
    with path.open("rb") as file:
        for number in range(1, limit + 1):
            line = file.readline(LONGEST)
            if b"\0" in line:
                raise UnfitFileError(f"{path} is not a text: a NUL byte is in line {number}")
            if not line:
                return
            yield line.rstrip(b"\r\n")


def answer(request: Message) -> Message:
    """Answer a request, so that the answer proves what was asked."""
    file, number, text = request
    digest = hashlib.sha256(b"\0".join(request)).hexdigest()
    return [file, number, b"%d words" % len(text.split()), digest.encode()]


def named(requests: Sequence[Message]) -> str:
    """Name the files of some requests."""
    first, *others = dict.fromkeys(file for file, _, _ in requests)
    return readable(first) + (f" and {len(others)} more" if others else "")


def place(message: Message) -> str:
    """Return where the line of a request or of its answer stands."""
    return readable(b":".join(message[:2]))


def readable(frame: bytes) -> str:
    """Return a frame as a person reads it."""
    return frame.decode(errors="backslashreplace")


def readable_message(message: Message | None) -> str:
    """Return a message as a person reads it."""
    if message is None:
        return "nothing"
    return " | ".join(readable(frame) or "(empty)" for frame in message)
