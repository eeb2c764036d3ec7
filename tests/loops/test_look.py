"""A look tells whether a step would move something, and moves nothing itself."""

from __future__ import annotations

import pytest

from zdev._contract import FINISHED, STEPPED, WOKEN

from .schedules import (
    CASES,
    ENGINES,
    THROTTLED,
    Bench,
    assert_same_calls,
    check_freed,
    compare,
    predict,
)


class Looking(Bench):
    """Looks before each step."""

    def run_on(self, timeout: int = -1) -> int:
        before, calls = self.loop.statistics(), len(self.libzmq.trace)
        looked = self.loop.look()
        assert looked in (0, 1)
        assert {call.name for call in self.libzmq.trace[calls:]} <= {"events"}
        assert self.loop.statistics() == before
        waits = any(way.parked for way in before[:2]) or before.capture.parked
        assert looked == int(bool(self.movable() or (waits and not self.loop.paused)))
        code = super().run_on(timeout)
        if looked == 0:
            assert code == STEPPED, "it moves what no look saw"
        return code


@THROTTLED
@pytest.mark.parametrize("name", CASES)
def test_a_look_tells_what_a_step_would_do(name: str, throttled: bool) -> None:
    case = CASES[name]
    benches = [Looking(case, engine, throttled=throttled) for engine in ENGINES]
    for bench in benches:
        assert bench.run_by_steps() == (FINISHED if case.terminates else WOKEN)
        compare(bench, *predict(case))
    assert_same_calls(benches)
    check_freed(benches)


class Shutting(Looking):
    """From some step on, leaves what comes to the frontend unread, as a drain does."""

    shut_at = 0

    def run_on(self, timeout: int = -1) -> int:
        if self.shut_at == 0:
            self.shut(is_shut=True)
        self.shut_at -= 1
        before = self.loop.statistics()[0]
        code = super().run_on(timeout)
        if self.is_shut:
            assert self.statistics[0].messages_received == before.messages_received
        return code


@pytest.mark.parametrize("shut_at", range(6))
@pytest.mark.parametrize("name", ["both ways", "queue", "request", "capture", "full capture"])
def test_what_is_shut_is_not_read_until_it_is_opened(name: str, shut_at: int) -> None:
    """What is parked goes on, as does the other way; and nothing is lost by it."""
    case = CASES[name]
    benches = [Shutting(case, engine) for engine in ENGINES]
    for bench in benches:
        bench.shut_at = shut_at
        assert bench.run_by_steps() == WOKEN
        bench.shut(is_shut=False)
        while bench.run_on(0) != STEPPED:
            pass
        compare(bench, *predict(case))
    assert_same_calls(benches)
    check_freed(benches)


@pytest.mark.parametrize("engine_name", ENGINES)
def test_a_look_fails_as_a_step_does(engine_name: str) -> None:
    bench = Looking(CASES["both ways"], engine_name)
    assert bench.make()
    bench.sockets["backend"].closed = True
    looked = bench.loop.look()
    assert looked < 0
    assert bench.loop.run(0) == looked
    bench.libzmq.check()
    check_freed([bench])
