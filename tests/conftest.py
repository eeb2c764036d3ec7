"""Fixtures: every engine in turn, and a network of sockets."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from zdev import _engines

from .support import Network, available_engines

# A test that hangs ends the run: CI must not wait for it. The signal's default action needs no
# Python, so it works whatever hangs.
HANG_TIMEOUT = 120


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    signal.alarm(HANG_TIMEOUT)
    yield
    signal.alarm(0)


@pytest.fixture(params=available_engines())
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the test once on each engine that the interpreter has; the name of the engine."""
    monkeypatch.setattr(_engines, "current", _engines.load(request.param))
    return str(request.param)


@pytest.fixture
def net() -> Iterator[Network]:
    """Make sockets, and close them behind the test."""
    network = Network()
    yield network
    network.close()
