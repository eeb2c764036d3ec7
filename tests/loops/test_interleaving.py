"""What peers do at every moment, not only when a relay blocks.

ZMQ_FD is edge-like, so a loop that looks at the wrong time sleeps for ever or spins. Here each step
of each small schedule happens just before each call that it can happen at, over the scripted
libzmq; so do wake-ups, PAUSE and TERMINATE.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from zdev._contract import FINISHED, WOKEN, Settings
from zdev._engines.loop import PythonLoop
from zdev._engines.turn import ShortWay
from zdev.testing.model import Type

from ..fuzzing import examples
from .faults import faults
from .schedules import (
    CASES,
    ENGINES,
    THROTTLED,
    Bench,
    Case,
    assert_same_calls,
    check_accounts,
    check_freed,
    compare,
    predict,
)

# Those whose outcome does not depend on when things happen.
TIMELESS = {name: case for name, case in CASES.items() if case.control is None and not case.drops}


def moments(base: Bench) -> Iterator[tuple[int, int]]:
    """Yield each step of a case with each call that it can come before: those since the last step."""
    earliest = 0
    for place, step in enumerate(base.case.steps):
        latest = base.performed[place]
        # A REQ gets no answer before its request was sent.
        if "backend" not in step or base.case.backend != Type.REQ:
            for number in range(earliest, latest + 1):
                yield place, number
        earliest = latest + 1


def move(bench: Bench, place: int, number: int) -> None:
    """Let a step happen before the call of that number."""
    step = bench.libzmq.script[place]
    del bench.libzmq.script[place]
    bench.libzmq.before[number] = step


def check_every_moment(base: Bench, engines: list[str], make: Any = Bench) -> int:
    """Run the case with each step at each moment; return how many times that was."""
    base.run()
    device, answers = predict(base.case)
    benches: list[Bench] = []
    for place, number in moments(base):
        tried = [make(base.case, engine, throttled=base.libzmq.throttled) for engine in engines]
        for bench in tried:
            move(bench, place, number)
            try:
                assert bench.run() == WOKEN
                compare(bench, device, answers)
            except AssertionError as error:
                raise AssertionError(
                    f"{bench.engine}: step {place} before call {number}\n{error}"
                ) from error
        assert_same_calls(tried)
        benches += tried
    check_freed([base, *benches])
    return len(benches)


@THROTTLED
@pytest.mark.parametrize("name", TIMELESS)
def test_every_step_at_every_moment(name: str, throttled: bool) -> None:
    base = Bench(TIMELESS[name], ENGINES[0], throttled=throttled)
    assert check_every_moment(base, ENGINES[:2])


# Traps that a loop may fall into, put into the Python loop: this file must notice.


class EdgeEaten(ShortWay):
    """Believes that a send leaves what is known of the socket's descriptor as it was."""

    def turn(self, burst: int) -> int:
        settled = self.destination.settled
        result = super().turn(burst)
        self.destination.settled = settled
        return result


class EdgeEating(PythonLoop):
    direction = EdgeEaten


class EventsNotRead(ShortWay):
    """Tries what is parked again without a look at the socket."""

    def retry(self) -> int:
        return self.deliver()


class NeverSettling(PythonLoop):
    """Waits for room on the descriptor alone."""

    direction = EventsNotRead

    def settle(self, timeout: int) -> tuple[int, int]:
        return 0, timeout


class Untimed(PythonLoop):
    """Waits for the descriptor alone where POLLOUT has proved to mean nothing."""

    def settle(self, timeout: int) -> tuple[int, int]:
        return super().settle(timeout)[0], timeout


@pytest.mark.parametrize(
    ("trap", "name", "throttled", "caught"),
    [
        (EdgeEating, "full, the other way free", False, "has a message"),
        (NeverSettling, "full", True, "again and again, and nothing moves"),
        (Untimed, "full xpub", False, "backend has room"),
    ],
)
def test_a_trap_put_back_is_noticed(trap: Any, name: str, throttled: bool, caught: str) -> None:
    class Trapped(Bench):
        def make_loop(self, settings: Settings) -> PythonLoop:
            return trap(self.libzmq.engine(self.engine), settings)

    base = Bench(CASES[name], "ctypes", throttled=throttled)
    with pytest.raises(AssertionError, match=caught):
        check_every_moment(base, ["ctypes"], Trapped)


# Control at every moment

MOVING = {name: TIMELESS[name] for name in ("both ways", "capture", "full capture")}


def disturbed(case: Case, act: Any) -> Iterator[tuple[int, list[Bench]]]:
    """Yield the benches of a case with `act` done to each before each call in turn."""
    base = Bench(case, ENGINES[0])
    base.run()
    benches = [base]
    for number in range(len(base.libzmq.trace)):
        tried = [Bench(case, engine) for engine in ENGINES[:2]]
        for bench in tried:
            bench.libzmq.before[number] = lambda bench=bench: act(bench)
        yield number, tried
        assert_same_calls(tried)
        benches += tried
    check_freed(benches)


@pytest.mark.parametrize("name", MOVING)
def test_a_wakeup_at_every_moment(name: str) -> None:
    """The loop returns soon, also when it is busy, and goes on as if nothing had been."""
    case = MOVING[name]

    def wake(bench: Bench) -> None:
        bench.libzmq.woken = True

    for number, benches in disturbed(case, wake):
        for bench in benches:
            assert bench.make()
            assert bench.run_on() == WOKEN
            received = [c.result for c in bench.libzmq.trace[number:] if c.name == "recv"]
            whole = [frame for frame in received if len(frame) == 1]
            assert len(whole) <= 2 * case.burst, "it looks up after a burst each way"
            while not bench.libzmq.over:
                assert bench.run_on() == WOKEN
            compare(bench, *predict(case))


@pytest.mark.parametrize("name", MOVING)
def test_pause_at_every_moment(name: str) -> None:
    """Nothing moves until RESUME, and nothing is lost."""
    case = replace(MOVING[name], control=Type.PULL)

    def pause(bench: Bench) -> None:
        bench.perform({"control": [[b"PAUSE"]]})
        bench.libzmq.script.appendleft(lambda: resume(bench))

    def resume(bench: Bench) -> None:
        assert bench.loop.paused, "it blocks, so it has heard PAUSE"
        bench.perform({"control": [[b"RESUME"]]})

    for _, benches in disturbed(case, pause):
        for bench in benches:
            assert bench.run() == WOKEN
            compare(bench, *predict(case))


@pytest.mark.parametrize("name", MOVING)
def test_terminate_at_every_moment(name: str) -> None:
    """The relay finishes; each message was delivered, is parked, or is still at its source."""
    case = replace(MOVING[name], control=Type.PULL)

    def terminate(bench: Bench) -> None:
        bench.perform({"control": [[b"TERMINATE"]]})

    for _, benches in disturbed(case, terminate):
        for bench in benches:
            assert bench.run() == FINISHED
            check_accounts(bench, *predict(case))
            assert sum(way.dropped for way in bench.statistics[:2]) == 0


# Step by step


@THROTTLED
@pytest.mark.parametrize("name", CASES)
def test_steps(name: str, throttled: bool) -> None:
    """A step that moves nothing may be followed by a wait for a descriptor."""
    case = CASES[name]
    benches = [Bench(case, engine, throttled=throttled) for engine in ENGINES]
    for bench in benches:
        assert bench.run_by_steps() == (FINISHED if case.terminates else WOKEN)
        compare(bench, *predict(case))
    assert_same_calls(benches)
    check_freed(benches)


# Everything at once


def test_many_errors_and_wakeups() -> None:
    checked: list[Bench] = []

    @given(
        name=st.sampled_from(sorted(TIMELESS)),
        throttled=st.booleans(),
        burst=st.sampled_from([1, 2, 64]),
        faults=faults(),
        wakeups=st.sets(st.integers(0, 80), max_size=3),
        steps=st.booleans(),
    )
    @examples(200)
    def check(
        name: str,
        throttled: bool,
        burst: int,
        faults: dict[int, int],
        wakeups: set[int],
        steps: bool,
    ) -> None:
        case = replace(TIMELESS[name], burst=burst)
        benches = [Bench(case, engine, throttled=throttled) for engine in ENGINES[:2]]
        for bench in benches:
            bench.libzmq.faults.update(faults)
            for number in wakeups:
                bench.libzmq.before[number] = partial(setattr, bench.libzmq, "woken", True)
            code = bench.run_by_steps() if steps else bench.run()
            if code is None:
                continue  # no memory for the prefix
            assert code == WOKEN
            check_accounts(bench, *predict(case))
            for way in bench.statistics[:2]:
                assert not way.parked, "every destination had room in the end"
            assert not any(socket.left for socket in bench.sockets.values())
        assert_same_calls(benches)
        checked.extend(benches)

    check()
    check_freed(checked)
