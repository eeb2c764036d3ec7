"""Devices for each launcher, stopped behind the test; and the names of all classes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .background import LAUNCHERS, Devices
from .classes import NAMES


@pytest.fixture(params=LAUNCHERS)
def devices(request: pytest.FixtureRequest) -> Iterator[Devices]:
    """Make devices in threads, and in processes."""
    made = Devices(request.param)
    yield made
    made.close()


@pytest.fixture
def threads() -> Iterator[Devices]:
    """Make devices in threads."""
    made = Devices("Thread")
    yield made
    made.close()


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    """Name one class after the other."""
    return str(request.param)
