"""What hypothesis draws: messages whose sizes matter, prefixes, limits; and how many examples."""

from __future__ import annotations

import os

import hypothesis.strategies as st
from hypothesis import HealthCheck, Phase, settings

# Up to 29 bytes (libzmq 4.1) or 33, a zmq_msg_t holds its data itself; from 256 on, a frame's
# length takes more than a byte on the wire. One in thirty is large.
SIZES = 3 * [0, 1, 2, 29, 30, 33, 34, 255, 256, 8192] + [2**20]
HWMS = [0, 1, 2, 3, 10, 1000]
PREFIXES = [None, b"in", b"", "ü", b"\0" * 40]


def sizes(min_frames: int = 1, max_frames: int = 4) -> st.SearchStrategy[list[int]]:
    """Draw the sizes of a message's frames; `content` fills them."""
    return st.lists(st.sampled_from(SIZES), min_size=min_frames, max_size=max_frames)


def content(number: int, sizes: list[int]) -> list[bytes]:
    """Return frames of these sizes, which tell the messages apart as far as their sizes allow."""
    return [
        (b"%d.%d " % (number, place) * (size // 4 + 1))[:size] for place, size in enumerate(sizes)
    ]


def hwms() -> st.SearchStrategy[int]:
    """Draw a high-water mark; 0 is none."""
    return st.sampled_from(HWMS)


def prefixes() -> st.SearchStrategy[bytes | str | None]:
    """Draw what goes in front of a capture message."""
    return st.sampled_from(PREFIXES)


def bursts() -> st.SearchStrategy[int]:
    """Draw how many messages one direction may move before it is the other's turn."""
    return st.sampled_from([1, 2, 64])


def examples(number: int) -> settings:
    """Return the settings of a property: so many examples; in CI always the same ones.

    ZDEV_FUZZ=n tries n times as many.
    """
    return settings(
        max_examples=number * int(os.environ.get("ZDEV_FUZZ", "1")),
        deadline=None,
        derandomize=bool(os.environ.get("CI")),
        print_blob=True,
        phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
