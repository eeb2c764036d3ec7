"""How long the project's own properties are tried, and how."""

from __future__ import annotations

import os

import hypothesis.strategies as st
from hypothesis import HealthCheck, Phase, settings

# ZDEV_FUZZ=n tries n times as much as usual, ZDEV_FUZZ=deep for hours, with longer schedules.
_fuzz = os.environ.get("ZDEV_FUZZ", "1")
DEEP = _fuzz == "deep"
TIMES = 2000 if DEEP else int(_fuzz)


def examples(number: int) -> settings:
    """Return the settings of a property: so many examples; in CI always the same ones."""
    return settings(
        max_examples=number * TIMES,
        stateful_step_count=200 if DEEP else 50,
        deadline=None,
        derandomize=bool(os.environ.get("CI")) and not DEEP,
        print_blob=True,
        phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def bursts() -> st.SearchStrategy[int]:
    """Draw how many messages one direction may move before it is the other's turn."""
    return st.sampled_from([1, 2, 64])
