"""A relay stays in the process that made it."""

from __future__ import annotations

import contextlib
import os
import signal
import warnings
from typing import Any, Callable

import pytest

from ..support import DEADLINE, Background, Network, running
from .streamer import Streamer

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.fixture
def streamer(net: Network) -> Streamer:
    return Streamer(net)


def in_child(function: Callable[[], Any]) -> int:
    """Run a function in a forked child; return its exit status."""
    with warnings.catch_warnings():
        # Python 3.12 warns of threads; libzmq has some whatever one does
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(int(DEADLINE))
            function()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("live", [True, False])
def test_a_relay_stays_in_its_process(engine: str, streamer: Streamer, live: bool) -> None:
    relay = streamer.relay
    uses: list[Callable[[], Any]] = [
        relay.run,
        relay.step,
        relay.statistics,
        relay.pause,
        relay.resume,
        relay.stop,
        lambda: relay.paused,
        lambda: relay.call(lambda: None),
    ]

    def use() -> None:
        for each in uses:
            with pytest.raises(RuntimeError, match=r"another process; .* make both anew"):
                each()

    with running(relay) if live else contextlib.nullcontext():
        if live:
            streamer.check_it_relays()
        assert in_child(use) == 0
        if live:
            streamer.check_it_relays()


def test_a_child_has_relays_of_its_own(engine: str, streamer: Streamer) -> None:
    def relay() -> None:
        net = Network()
        with running(Streamer(net).relay):
            pass
        child = Streamer(net)
        with running(child.relay):
            child.check_it_relays()

    with running(streamer.relay):
        streamer.check_it_relays()
        assert in_child(relay) == 0
        streamer.check_it_relays()


def test_a_fork_within_a_call(engine: str, streamer: Streamer) -> None:
    """The child comes out of the call, and must not relay its parent's messages."""
    children = []

    def fork() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            children.append(os.fork())

    def run() -> None:
        try:
            streamer.relay.run()
        except RuntimeError as error:
            if children == [0]:
                os._exit(42 if "another process" in str(error) else 1)
            raise

    background = Background(run)
    streamer.check_it_relays()
    streamer.relay.call(fork)
    streamer.check_it_relays()
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 42
    streamer.relay.stop()
    background.join()
