"""What hypothesis draws: messages whose sizes matter, and how many examples."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings


def examples(number: int) -> settings:
    """Return the settings of a property: so many examples; in CI always the same ones."""
    return settings(
        max_examples=number,
        deadline=None,
        derandomize=bool(os.environ.get("CI")),
        print_blob=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
