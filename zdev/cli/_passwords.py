"""Files of names and passwords, for PLAIN: a line such as ``alice:secret`` for each."""

from __future__ import annotations

from zdev._certificates import lines

__all__ = ["load_password", "load_passwords"]


def load_passwords(path: str) -> dict[str, str]:
    """Return passwords by name. Empty lines and those that begin with ``#`` are left out.

    Raises
    ------
    OSError
        If the file cannot be read; PermissionError also if others than its owner could.
    ValueError
        If a line has no colon, or a name comes twice. The lines are not shown.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(lines(path, is_secret=True), 1):
        text = line.rstrip(b"\r\n").decode(errors="surrogateescape")
        if not text or text.startswith("#"):
            continue
        name, colon, password = text.partition(":")
        if not colon:
            raise ValueError(f"{path}, line {number}: write NAME:PASSWORD")
        if name in found:
            raise ValueError(f"{path}, line {number}: that name has a password already")
        found[name] = password
    return found


def load_password(path: str) -> tuple[str, str]:
    """Return the name and the password of a file that has one line of them."""
    found = load_passwords(path)
    if len(found) != 1:
        words = f"has {len(found)} names; one must tell who it is by one, such as NAME:PASSWORD"
        raise ValueError(f"{path} {words}")
    (pair,) = found.items()
    return pair
