"""Values of options: numbers, times, and bytes in the notation in which ``zdev tap`` shows them."""

from __future__ import annotations

import argparse
import contextlib
import math
import re

__all__ = ["duration", "octets", "quoted", "readable", "seconds", "whole"]

NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
BACK = {escape[1]: raw.encode() for raw, escape in NAMED.items()} | {"\\": b"\\", '"': b'"'}


def whole(text: str) -> int:
    """Read a number of at least 1."""
    with contextlib.suppress(ValueError):
        if int(text) >= 1:
            return int(text)
    raise argparse.ArgumentTypeError(f"must be a whole number from 1 up, not {text!r}")


def duration(text: str) -> float:
    """Read a number of seconds, which may be 0."""
    with contextlib.suppress(ValueError):
        if 0 <= float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a number of seconds, not {text!r}")


def seconds(text: str) -> float:
    """Read a time."""
    with contextlib.suppress(argparse.ArgumentTypeError):
        if duration(text) > 0:
            return duration(text)
    raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, not {text!r}")


def readable(data: bytes, also: str = "") -> str:
    r"""Return bytes as text of which a terminal obeys nothing.

    What is UTF-8 and printable stays, but for the characters in `also`; of the rest, each byte is
    shown as ``\x1b``, or as ``\n``, ``\r`` or ``\t``. Not printable are all control characters,
    those from U+0080 to U+009F too, and what changes the direction of writing.
    """
    text = data.decode(errors="surrogateescape")
    if text.isprintable() and not any(one in text for one in also):
        return text
    return "".join(
        one if one.isprintable() and one not in also else _escaped(one, also) for one in text
    )


def _escaped(one: str, also: str) -> str:
    if one in NAMED:
        return NAMED[one]
    if one in also:
        return f"\\{one}"
    return "".join(f"\\x{byte:02x}" for byte in one.encode(errors="surrogateescape"))


def quoted(data: bytes) -> str:
    """Return bytes in quotes, without a loss; `octets` reads what is between them."""
    return '"' + readable(data, '"\\') + '"'


def octets(text: str) -> bytes:
    r"""Read bytes: text, in which a backslash is written twice, and any byte as ``\x00``."""

    def plain(escape: re.Match[str]) -> bytes:
        if escape[1]:
            return bytes.fromhex(escape[1])
        if escape[2] in BACK:
            return BACK[escape[2]]
        raise argparse.ArgumentTypeError(
            f"{text!r} has {escape[0]!r}; a backslash is written \\\\, any byte such as \\x00"
        )

    found, at = [], 0
    for escape in re.finditer(r"\\(?:x([0-9a-fA-F]{2})|(.?))", text, re.S):
        found += [text[at : escape.start()].encode(errors="surrogateescape"), plain(escape)]
        at = escape.end()
    return b"".join(found) + text[at:].encode(errors="surrogateescape")
