"""Fixtures: every engine in turn, and a network of sockets."""

from __future__ import annotations

from typing import Iterator

import pytest

from zdev import _engines

from .support import Network, available_engines


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
