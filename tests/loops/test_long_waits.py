"""A direction that waits long: the loop says when, and when it is over, and else wakes nobody."""

from __future__ import annotations

from typing import Any

import pytest

from zdev._contract import STEPPED, WOKEN
from zdev.testing.model import Type

from .schedules import ENGINES
from .scripted import ScriptedLibzmq

LONG = 100


class Stuck:
    """A loop whose frontend's message has nowhere to go, over the scripted libzmq."""

    def __init__(self, engine: str, *, kind: Type = Type.PUSH, to_capture: bool = False) -> None:
        self.libzmq = ScriptedLibzmq()
        self.frontend = self.libzmq.socket(Type.PULL, "frontend")
        full: dict[str, Any] = {"room": 0, "mandatory": True}
        backend = self.libzmq.socket(kind, "backend", **({} if to_capture else full))
        capture = self.libzmq.socket(Type.PUSH, "capture", **full) if to_capture else None
        self.full = capture or backend
        self.loop = self.libzmq.loop(engine, self.frontend, backend, capture, long_wait=LONG)
        self.frontend.deliver([b"x"])

    def run(self, timeout: int = -1) -> list[int]:
        """Run until the loop wakes its caller; return the timeouts of its polls."""
        self.libzmq.woken = False
        before = len(self.libzmq.trace)
        assert self.loop.run(timeout) == WOKEN
        self.libzmq.check()
        return [c.asked[1] for c in self.libzmq.trace[before:] if c.name == "poll"]

    @property
    def seconds(self) -> tuple[float, float]:
        """How long the direction has waited, and how long a copy has."""
        statistics = self.loop.statistics()
        assert statistics.backend_to_frontend.parked_seconds == 0
        return statistics.frontend_to_backend.parked_seconds, statistics.capture.parked_seconds


@pytest.mark.parametrize("to_capture", [False, True])
def test_the_caller_is_told_once_and_when_it_is_over(
    scripted_engine: str, to_capture: bool
) -> None:
    stuck = Stuck(scripted_engine, to_capture=to_capture)
    assert stuck.run() == [LONG, 0]
    assert not stuck.libzmq.over
    assert stuck.seconds == (0.1, 0.1 if to_capture else 0)

    assert stuck.run() == [-1], "from now on, it waits for ever"
    assert stuck.libzmq.over

    stuck.full.make_room()
    stuck.libzmq.over = False
    assert stuck.run() == [], "it says at once that it goes on"
    assert not stuck.libzmq.over
    assert stuck.seconds == (0, 0)
    assert stuck.run() == [-1]
    assert stuck.full.arrived == [[b"x"]]


@pytest.mark.parametrize("kind", [Type.XPUB, Type.ROUTER])
def test_where_the_wait_is_bounded_anyhow(scripted_engine: str, kind: Type) -> None:
    """It is told after as long; nothing needs a shorter wait than before."""
    stuck = Stuck(scripted_engine, kind=kind)
    if kind == Type.ROUTER:
        stuck.full._peers = {b"x"}
        stuck.frontend._inbox.clear()
        stuck.frontend.deliver([b"x", b"y"])
    assert set(stuck.run()) == {50, 0}
    assert stuck.seconds == (0.1, 0)


def test_a_short_wait_is_not_told_of(scripted_engine: str) -> None:
    stuck = Stuck(scripted_engine)
    stuck.libzmq.script.append(stuck.full.make_room)
    assert stuck.run() == [LONG, -1]
    assert stuck.libzmq.over
    assert stuck.full.arrived == [[b"x"]]


def test_bounded_runs_and_steps_return_as_ever(scripted_engine: str) -> None:
    stuck = Stuck(scripted_engine)
    assert stuck.run(30) == [30]
    assert stuck.loop.run(0) == STEPPED
    assert stuck.run(1000) == [LONG]
    assert stuck.run(1000) == [0], "it is told at the next look"
    assert stuck.seconds == (0.13, 0)


def test_a_busy_loop_tells_too(scripted_engine: str) -> None:
    """One that never blocks, since the other direction always has something."""
    libzmq = ScriptedLibzmq()
    frontend = libzmq.socket(Type.DEALER, "frontend")
    backend = libzmq.socket(Type.DEALER, "backend", room=0)
    loop = libzmq.loop(scripted_engine, frontend, backend, long_wait=LONG, burst=1)
    frontend.deliver([b"x"])
    for _ in range(100):
        backend.deliver([b"y"])
    libzmq.busy = 10
    assert loop.run(-1) == WOKEN
    libzmq.check()
    assert not libzmq.over
    assert 0 < backend.left < 100
    assert loop.statistics().frontend_to_backend.parked_seconds >= 0.1


def test_without_it_no_clock_is_read(scripted_engine: str) -> None:
    libzmq = ScriptedLibzmq()
    libzmq.busy = 1
    frontend = libzmq.socket(Type.PULL, "frontend")
    backend = libzmq.socket(Type.PUSH, "backend", room=0)
    loop = libzmq.loop(scripted_engine, frontend, backend)
    frontend.deliver([b"x"])
    assert libzmq.run(loop) == WOKEN
    assert loop.statistics().frontend_to_backend.parked == 1
    assert loop.statistics().frontend_to_backend.parked_seconds == 0
    assert libzmq.now == 1


def test_the_loops_do_the_same() -> None:
    traces = []
    for engine in ENGINES:
        stuck = Stuck(engine)
        stuck.run()
        stuck.full.make_room()
        stuck.run()
        stuck.run()
        traces.append([str(call) for call in stuck.libzmq.trace])
    assert all(trace == traces[0] for trace in traces)
