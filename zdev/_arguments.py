"""What relays, functions and devices are told besides their sockets, and the checks of it."""

from __future__ import annotations

import operator
from typing import Any, Literal, Union

__all__ = [
    "DEFAULT_BURST",
    "WARN_AFTER",
    "CapturePolicy",
    "Overflow",
    "Prefix",
    "check_burst",
    "check_flag",
    "check_function",
    "check_io_threads",
    "check_no_copies",
    "check_overflows",
    "check_policy",
    "check_prefix",
    "check_watching",
]

Prefix = Union[bytes, bytearray, memoryview, str, None]
CapturePolicy = Literal["block", "drop"]
Overflow = Literal["park", "drop"]

WARN_AFTER = 5.0
DEFAULT_BURST = 64
# A burst is not interrupted: more would delay stop() and Ctrl-C noticeably.
MAX_BURST = 10_000


def check_prefix(prefix: Any, name: str) -> bytes | None:
    """Return a prefix as it is sent, or raise what is wrong with it."""
    if prefix is None or isinstance(prefix, bytes):
        return prefix
    if isinstance(prefix, str):
        return prefix.encode()
    try:
        return memoryview(prefix).tobytes()
    except TypeError:
        raise TypeError(
            f"{name} must be bytes, another buffer, str (sent as UTF-8) or None (no prefix frame), "
            f"not {type(prefix).__name__}"
        ) from None


def check_burst(burst: Any) -> int:
    """Return a burst, or raise what is wrong with it."""
    try:
        number = operator.index(burst)
    except TypeError:
        raise TypeError(f"burst must be an int, not {type(burst).__name__}") from None
    if not 1 <= number <= MAX_BURST:
        raise ValueError(f"burst must be from 1 to {MAX_BURST} messages, not {number}")
    return number


def check_io_threads(count: Any) -> int | None:
    """Return a number of I/O threads, or raise what is wrong with it; None for libzmq's own."""
    if count is None:
        return None
    try:
        number = operator.index(count)
    except TypeError:
        raise TypeError(f"io_threads must be an int, not {type(count).__name__}") from None
    if number < 1:
        raise ValueError(f"io_threads must be at least 1, not {number}")
    return number


def check_flag(flag: Any, name: str, what: str = "a bool") -> bool:
    """Return a flag, or raise what is wrong with it."""
    if flag not in (True, False):
        raise TypeError(f"{name} must be {what}, not {type(flag).__name__}")
    return bool(flag)


def check_policy(policy: Any, name: str, other: str) -> bool:
    """Tell whether a policy is "drop", and not the other one; or raise what is wrong with it."""
    if policy not in (other, "drop"):
        raise ValueError(f'{name} must be "{other}" or "drop", not {policy!r}')
    return bool(policy == "drop")


def check_overflows(overflow: Any, in_overflow: Any, out_overflow: Any) -> tuple[bool, bool]:
    """Tell whether to drop what is refused, there and back; or raise what is wrong with that."""
    both = check_policy(overflow, "overflow", "park")
    there, back = (
        both if policy is None else check_policy(policy, name, "park")
        for policy, name in ((in_overflow, "in_overflow"), (out_overflow, "out_overflow"))
    )
    return there, back


def check_no_copies(given: dict[str, Any], capture: str) -> None:
    """Raise for what is given of the copies, where there is no such capture."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(
                f"{name} is of the copies that a {capture} gets, and there is none; "
                f"give a {capture}, or leave {name} out"
            )


def check_watching(watch_connections: Any, on_connection: Any) -> bool:
    """Tell whether connections are to be watched, or raise what is wrong with these two."""
    watches = check_flag(watch_connections, "watch_connections")
    if not (on_connection is None or callable(on_connection)):
        raise TypeError(
            f"on_connection must be callable, or None, not {type(on_connection).__name__}"
        )
    if on_connection is not None and not watches:
        raise ValueError("on_connection needs watch_connections=True, or nothing calls it")
    return watches


def check_function(function: Any) -> None:
    """Raise if that cannot be called where a relay runs."""
    if not callable(function):
        raise TypeError(
            f"function must be callable, such as lambda: ..., not {type(function).__name__}"
        )
