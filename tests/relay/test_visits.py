"""Short calls of an idle relay, what signal handlers may do in the middle, and what they cost."""

from __future__ import annotations

import gc
import itertools
import queue
import signal
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Callable

import pytest
import zmq

import zdev
from zdev import _calls, _signals, _sockets

from ..support import DEADLINE, Background, Network, running, wait_until
from .streamer import Streamer

Use = Callable[[zdev.Relay], object]


class Interruption(Exception):
    """What a handler raises."""


def interrupt(*_: object) -> None:
    raise Interruption


def run_stopped(relay: zdev.Relay) -> None:
    relay.stop()
    relay.run()


SHORT: dict[str, Use] = {
    "statistics": lambda relay: relay.statistics(),
    "paused": lambda relay: relay.paused,
    "pause": lambda relay: relay.pause(),
    "resume": lambda relay: relay.resume(),
    "step": lambda relay: relay.step(),
}

# What a handler does that comes in the middle of one of them.
DEEDS: dict[str, Use] = {
    "raises": interrupt,
    "takes statistics": lambda relay: relay.statistics(),
    "looks whether it is paused": lambda relay: relay.paused,
    "pauses": lambda relay: relay.pause(),
    "stops": lambda relay: relay.stop(),
    "steps": lambda relay: relay.step(),
    "runs": run_stopped,
    "calls": lambda relay: relay.call(threading.get_ident),
    "waits for another thread": lambda relay: Background(relay.statistics).join(),
}


@pytest.fixture
def streamer(net: Network) -> Iterator[Streamer]:
    """A relay; at the end it is as free and as well as it was."""
    streamer = Streamer(net)
    yield streamer
    check_free(streamer.relay)
    assert Background(streamer.relay.step).join() == 0
    with running(streamer.relay):
        streamer.check_it_relays()


def check_free(relay: zdev.Relay) -> None:
    """Check that nobody has the relay or its sockets, nor seems to."""
    assert relay._calls._owner is None
    assert not relay._calls._visits
    assert not _sockets._users.keys() & {end.handle for end in relay._ends.values()}


def settle(relay: zdev.Relay) -> None:
    """Undo what a handler did."""
    relay.resume()
    while relay.step() != 0:
        pass


# At any moment


PACKAGE = str(Path(zdev.__file__).parent)


def traced(trace: Any, function: Callable[[], object]) -> None:
    """Call a function with a trace function of Python's set."""
    previous = sys.gettrace()
    sys.settrace(trace)
    try:
        function()
    finally:
        sys.settrace(previous)


def finest_event() -> str:
    """Return what comes oftenest in a trace: some versions of Python 3.12 tell of lines only."""
    events = set()

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        frame.f_trace_opcodes = True
        events.add(event)
        return trace

    traced(trace, lambda: None)
    return "opcode" if "opcode" in events else "line"


def _is_deleting(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_name != "__del__":
        frame = frame.f_back
    return frame is not None


def at_each_moment(function: Callable[[], object], deed: Callable[[], object]) -> Iterator[bool]:
    """Call a function again and again; the n-th time, do a deed before its n-th operation of ours.

    That is where Python may run a signal handler, and in more places besides. Yield after each
    whether the function has raised what `interrupt` does; at last it is called without the deed.
    """
    place = at = 0
    operation = finest_event()

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal place
        # Objects of other tests are deleted at any moment on PyPy, and there nothing can be raised.
        if _is_deleting(frame) or not frame.f_code.co_filename.startswith(PACKAGE):
            return None
        frame.f_trace_opcodes = True
        if event == operation:
            place += 1
            if place == at:
                sys.settrace(None)  # the rest is not counted, and is faster so
                deed()
        return trace

    while place >= at:
        place, at = 0, at + 1
        raised = False
        try:
            traced(trace, function)
        except Interruption:
            raised = True
        if place >= at:
            yield raised
    assert at > 20, "it was not traced"


@pytest.mark.parametrize(
    ("asked", "deed"),
    [
        *itertools.product(["statistics", "step"], DEEDS),
        *itertools.product(["paused", "pause"], ["raises", "stops", "runs"]),
    ],
)
def test_handlers_at_any_moment_of_a_short_call(
    engine: str, streamer: Streamer, asked: str, deed: str
) -> None:
    relay = streamer.relay
    told: list[Any] = []
    moments = 0
    # For a step, there is nothing to do; else there is one message, that the deed may relay.
    messages = 0 if asked == "step" else 1
    for _ in range(messages):
        streamer.source.send(b"x")
    for raised in at_each_moment(
        lambda: told.append(SHORT[asked](relay)), lambda: DEEDS[deed](relay)
    ):
        moments += 1
        check_free(relay)
        assert not (raised and deed != "raises")
        if told and asked == "statistics":
            there = told[-1].frontend_to_backend
            assert len({*there[:6]}) == 1, "it is of two moments"
            assert there.messages_received in (moments - 1, moments)
        if told and asked == "step" and deed == "stops" and told[-1] is not None:
            assert relay.step() is None, "the stop is lost"
        if asked == "pause" and not raised:
            assert relay.paused
        if asked == "resume" and not raised and deed != "pauses":
            assert not relay.paused
        settle(relay)
        for _ in range(messages):
            assert streamer.sink.recv() == b"x"
            streamer.source.send(b"x")
    settle(relay)
    for _ in range(messages):
        assert streamer.sink.recv() == b"x"
    assert len(told) == (1 if deed == "raises" else moments + 1)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers without it")
@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("asked", ["statistics", "step"])
def test_real_handlers_at_some_moment_of_a_short_call(
    engine: str, streamer: Streamer, asked: str, deed: str
) -> None:
    relay = streamer.relay
    came = 0

    def handle(*_: object) -> None:
        nonlocal came
        came += 1
        DEEDS[deed](relay)

    def ask_until_it_came(seconds: float) -> None:
        before = came
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
        while came == before:
            SHORT[asked](relay)

    previous = signal.signal(signal.SIGVTALRM, handle)
    gc.disable()  # what is raised in a finalizer is lost
    try:
        for number in range(25):
            try:
                ask_until_it_came(2e-5 * (1 + number))
            except Interruption:
                assert deed == "raises"
            assert signal.getsignal(signal.SIGVTALRM) is handle
            check_free(relay)
            settle(relay)
    finally:
        gc.enable()
        signal.signal(signal.SIGVTALRM, previous)
    assert came == 25


# In company


def test_a_run_waits_for_the_end_of_a_visit(engine: str, streamer: Streamer) -> None:
    relay = streamer.relay
    begun, over = threading.Event(), threading.Event()

    def look() -> bool:
        begun.set()
        return over.wait(DEADLINE)

    visit = Background(relay._calls.visit, look, lambda: False)
    assert begun.wait(DEADLINE)
    streamer.source.send(b"x")
    run = Background(relay.run)
    wait_until(lambda: relay._calls.is_running)
    assert not streamer.sink.poll(50)
    over.set()
    assert visit.join()
    assert streamer.sink.recv() == b"x"
    relay.stop()
    run.join()


def test_a_handler_may_wait_for_a_thread_that_runs_the_relay(
    engine: str, streamer: Streamer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of a visit; what that saw is then out of date, and the visit is made again."""
    relay = streamer.relay
    monkeypatch.setattr(_calls, "VISIT_LOOKS", 20)
    visits = []

    def look() -> int:
        visits.append("")
        if len(visits) == 1:
            with running(relay):
                streamer.check_it_relays()
        return len(visits)

    assert relay._calls.visit(look, lambda: 0) == 2


def test_a_handler_may_stop_a_step_that_finds_nothing_to_do(
    engine: str, streamer: Streamer
) -> None:
    """As does whoever watches the sockets; the step says so at once."""

    def stop(relay: zdev.Relay, ends: object) -> None:
        relay.stop()

    _sockets.watch(stop)
    try:
        assert streamer.relay.step() is None
    finally:
        _sockets.unwatch(stop)


def test_visits_that_share_do_not_wait_for_each_other(engine: str, streamer: Streamer) -> None:
    calls = streamer.relay._calls
    begun, over = threading.Event(), threading.Event()

    def look() -> bool:
        begun.set()
        return over.wait(DEADLINE)

    visit = Background(calls.visit, look, lambda: False)
    assert begun.wait(DEADLINE)
    assert streamer.relay.statistics().capture == (0, 0, 0)
    assert not calls.visit(lambda: True, lambda: False)
    over.set()
    assert visit.join()
    assert calls.visit(lambda: True, lambda: False)


def test_a_step_waits_for_another_threads_visit(engine: str, streamer: Streamer) -> None:
    """Two that look at a socket at the same time could do it harm."""
    begun, over = threading.Event(), threading.Event()

    def look() -> bool:
        begun.set()
        return over.wait(DEADLINE)

    visit = Background(streamer.relay._calls.visit, look, lambda: False)
    assert begun.wait(DEADLINE)
    step = Background(streamer.relay.step)
    step.thread.join(0.05)
    assert step.alive
    over.set()
    assert visit.join()
    assert step.join() == 0


def test_many_threads_at_an_idle_relay_that_runs_now_and_then(
    engine: str, streamer: Streamer
) -> None:
    relay = streamer.relay
    over = threading.Event()

    def use(name: str) -> int:
        uses = 0
        while not over.is_set():
            SHORT[name](relay)
            uses += 1
        return uses

    users = [Background(use, name) for name in ("statistics", "statistics", "paused", "resume")]
    for _ in range(30):
        with running(relay):
            streamer.check_it_relays()
        for _ in range(10):
            assert relay.step() == 0
    over.set()
    assert all(user.join() for user in users)
    assert streamer.there.messages_sent == 30


# What it costs


def test_a_short_call_leaves_the_signal_handlers_alone(
    engine: str, streamer: Streamer, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchanged: list[int] = []
    set_handler = _signals.set_handler

    def watched(number: int, handler: Any) -> Any:
        exchanged.append(number)
        return set_handler(number, handler)

    monkeypatch.setattr(_signals, "set_handler", watched)
    for use in SHORT.values():
        use(streamer.relay)
    assert exchanged == []
    streamer.relay.call(threading.get_ident)
    assert exchanged


class Elsewhere:
    """Another thread that does what it is told."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[Callable[[], float] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[float] = queue.SimpleQueue()
        self._thread = Background(self._work)

    def _work(self) -> None:
        for task in iter(self._tasks.get, None):
            self._results.put(task())

    def __call__(self, task: Callable[[], float]) -> float:
        self._tasks.put(task)
        return self._results.get(timeout=DEADLINE)

    def end(self) -> None:
        self._tasks.put(None)
        self._thread.join()


@pytest.mark.alone
@pytest.mark.parametrize("asked", SHORT)
def test_a_short_call_costs_as_much_in_the_main_thread(
    engine: str, streamer: Streamer, asked: str
) -> None:
    """To defer signals would cost twice to four times as much."""
    use, relay = SHORT[asked], streamer.relay

    def cost() -> float:
        begin = time.perf_counter()
        for _ in range(20):
            use(relay)
        return time.perf_counter() - begin

    elsewhere = Elsewhere()
    ratio = 99.0
    deadline = time.monotonic() + DEADLINE
    # By turns, and again while the machine is busy with something else.
    while ratio > 1.3 and time.monotonic() < deadline:
        costs = [(cost(), elsewhere(cost)) for _ in range(100)]
        here, there = map(statistics.median, zip(*costs))
        ratio = here / there
    elsewhere.end()
    assert ratio <= 1.3
    relay.resume()


def test_a_handler_that_raises_in_a_wait_leaves_the_other_thread_alone(
    engine: str, net: Network
) -> None:
    """Wherever in the wait for its answer: the relay goes on, and answers others."""
    relay = zdev.Relay(net.bound(zmq.PULL), net.bound(zmq.PUSH))

    def interrupted_at(line: int) -> bool:
        lines, waits = 0, False

        def trace(frame: Any, event: str, _: Any) -> Any:
            nonlocal lines, waits
            waits = waits or frame.f_code.co_name == "wake"
            if waits and event == "line" and frame.f_code.co_name not in ("wake", "call"):
                lines += 1
                if lines == line:
                    raise LookupError
            return trace

        sys.settrace(trace)
        try:
            relay.statistics()
        except LookupError:
            return True
        finally:
            sys.settrace(None)
        return False

    with running(relay):
        line = 1
        while interrupted_at(line):
            assert Background(relay.statistics).join()
            line += 1
        assert line > 2
