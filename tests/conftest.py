"""Fixtures: every engine in turn, and a network of sockets."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator

import pytest
from zmq.utils import garbage

from zdev import _engines

from .fuzzing import TIMES
from .support import Network, available_engines, wait_until

# pytest finds it by itself where zdev is installed; here it is that of this tree.
pytest_plugins = ["pytest_zdev"]

# A test that hangs ends the run: CI must not wait for it. The signal's default action needs no
# Python, so it works whatever hangs.
HANG_TIMEOUT = 120 * TIMES


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


@pytest.fixture
def zero_copy() -> Iterator[None]:
    """Let messages be sent without a copy, and see that pyzmq gets all of them back.

    Before `net`, so that the context is gone by then. The thread of pyzmq that takes them back must
    not outlive the test: Hypothesis calls sys.setrecursionlimit, which on PyPy 7.3.11 moves the
    stacks of all threads, also of those that wait in C; when they go on, the process crashes.
    """
    yield
    wait_until(lambda: gc.collect() or not garbage.gc.refs)
    garbage.gc.stop()
