"""The pytest plugin of zdev: its fixtures.

pytest loads this in every session where zdev is installed, so it imports nothing that is large
until a fixture is used; it is no part of the package since that would import zmq.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Callable

import pytest

if TYPE_CHECKING:
    from zdev.testing import TrackedContext


@pytest.fixture
def zdev_context() -> Iterator[TrackedContext]:
    """Make a zmq.Context; the test fails if it leaves a socket, thread or descriptor behind."""
    from zdev.testing.leaks import tracked_context

    with tracked_context() as context:
        yield context


@pytest.fixture(scope="session")
def zdev_harness() -> Callable[..., None]:
    """Check a device: ``zdev_harness(device, traffic, **options)``, see zdev.testing.DeviceHarness.

    It belongs to the session, so that Hypothesis lets it be used with ``@given``.
    """
    from zdev.testing.harness import check_device

    return check_device
