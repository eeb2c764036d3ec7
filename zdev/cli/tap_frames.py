"""How ``zdev tap`` shows the frames of a message."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Sequence
from typing import Callable

from zdev.cli._values import quoted, readable

__all__ = ["CUT", "FORMATS", "FRAMES", "line", "lossless"]

CUT = 200
"""Bytes of a frame that a line shows at most."""

FRAMES = 20
"""Frames of a message that a line shows at most."""


def _cut(frame: bytes) -> bytes:
    """Return the beginning of a frame; not half of a character, if it is UTF-8."""
    if len(frame) <= CUT:
        return frame
    end = CUT
    while end > CUT - 3 and frame[end] & 0xC0 == 0x80:
        end -= 1
    return frame[:end]


def _text(frame: bytes) -> str:
    return readable(frame) or '""'


def _hex(frame: bytes) -> str:
    return frame.hex() or "-"


FORMATS: dict[str, tuple[Callable[[bytes], str] | None, str]] = {
    "text": (_text, " | "),
    "quoted": (quoted, " "),
    "hex": (_hex, " "),
    "sizes": (None, " "),
}
"""How each is shown (None: by its size), and what stands between two."""


def line(frames: Sequence[bytes], form: str) -> str:
    """Return the frames of a message in one line, of which a terminal obeys nothing.

    What is cut off is marked by the length of the frame, or the number of frames left out.
    """
    show, between = FORMATS[form]
    shown = []
    for frame in frames[:FRAMES]:
        if show is None:
            shown.append(str(len(frame)))
            continue
        mark = f"...({len(frame):,} bytes)" if len(frame) > CUT else ""
        shown.append(show(_cut(frame)) + mark)
    if len(frames) > FRAMES:
        shown.append(f"...({len(frames):,} frames)")
    return between.join(shown)


def lossless(frame: bytes) -> dict[str, str]:
    """Return a frame for JSON: as ``text`` if it is UTF-8, else as ``base64``."""
    with contextlib.suppress(UnicodeDecodeError):
        return {"text": frame.decode()}
    return {"base64": base64.b64encode(frame).decode()}
