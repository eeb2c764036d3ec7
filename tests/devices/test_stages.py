"""The stages of a run only move on, and wake whoever waits for one."""

from __future__ import annotations

import itertools
import os
import signal
import threading

import pytest

from zdev._devices.stages import Stage, Stages

from ..support import DEADLINE, Background, wait_until


def test_a_stage_is_reached_with_all_before_it() -> None:
    stages = Stages()
    assert stages.now == Stage.BEGUN
    stages.reach(Stage.ENDING)
    assert [stages.wait(stage, 0) for stage in Stage] == [True] * 4 + [False]


@pytest.mark.parametrize("order", [*itertools.permutations(list(Stage)[1:])])
def test_a_stage_is_never_left_for_one_before_it(order: tuple[Stage, ...]) -> None:
    stages = Stages()
    for place, stage in enumerate(order):
        stages.reach(stage)
        assert stages.now == max(order[: place + 1])


def test_who_waits_is_woken_by_that_stage_and_no_earlier_one() -> None:
    stages = Stages()
    waits = {stage: Background(stages.wait, stage) for stage in list(Stage)[1:]}
    wait_until(lambda: len(stages._waiters) == len(waits))
    for stage, wait in waits.items():
        assert wait.alive
        stages.reach(stage)
        assert wait.join() is True
    assert stages._waiters == {}


def test_who_watches_for_a_stage_is_told_once() -> None:
    stages, told = Stages(), []
    ends = [stages.watch(stage, lambda stage=stage: told.append(stage)) for stage in Stage]
    assert told == [Stage.BEGUN]  # which it is at already
    ends[Stage.RELAYING]()
    stages.reach(Stage.ENDED)
    stages.reach(Stage.ENDED)
    assert told == [Stage.BEGUN, Stage.READY, Stage.ENDING, Stage.ENDED]
    assert stages._waiters == {}
    for end in ends:
        end()


def test_many_reach_and_watch_at_once() -> None:
    for _ in range(200):
        stages, told = Stages(), threading.Semaphore(0)
        barrier = threading.Barrier(2)

        def reach(stages: Stages = stages, barrier: threading.Barrier = barrier) -> None:
            barrier.wait(DEADLINE)
            stages.reach(Stage.ENDED)

        user = Background(reach)
        barrier.wait(DEADLINE)
        stages.watch(Stage.ENDED, told.release)
        user.join()
        assert told.acquire(timeout=DEADLINE)
        assert not told.acquire(blocking=False)


def test_many_reach_and_wait_at_once() -> None:
    for _ in range(200):
        stages = Stages()
        barrier = threading.Barrier(8)

        def reach(
            stage: Stage, stages: Stages = stages, barrier: threading.Barrier = barrier
        ) -> None:
            barrier.wait(DEADLINE)
            stages.reach(stage)

        def wait(
            stage: Stage, stages: Stages = stages, barrier: threading.Barrier = barrier
        ) -> bool:
            barrier.wait(DEADLINE)
            return stages.wait(stage, DEADLINE)

        waits = [Background(wait, stage) for stage in list(Stage)[1:]]
        for user in [Background(reach, stage) for stage in list(Stage)[1:]]:
            user.join()
        assert all(each.join() for each in waits)
        assert stages.now == Stage.ENDED


def test_a_signal_handler_may_wait_and_reach_where_its_thread_waits() -> None:
    stages = Stages()
    seen = []

    def handle(*_: object) -> None:
        stages.reach(Stage.RELAYING)
        seen.append(stages.wait(Stage.ENDED, 0))
        stages.reach(Stage.ENDED)

    previous = signal.signal(signal.SIGUSR1, handle)
    try:
        user = Background(os.kill, os.getpid(), signal.SIGUSR1)
        assert stages.wait(Stage.ENDED, DEADLINE)
        user.join()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert seen == [False]
