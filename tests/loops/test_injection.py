"""Every error at every call: the loops over a scripted libzmq, against the model.

Each case is run once as it is, and then again for each call that it made and each error that libzmq
could have given there. Each time what arrived where, the counters and every zmq_msg_t must be as the
model has it, and the loop must never block while something could move.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pytest

from zdev._contract import FINISHED, WOKEN
from zdev.testing.model import CANNOT_SEND, Device, Fate, fate, ordered

from .schedules import (
    CASES,
    ENGINES,
    PLAIN,
    THROTTLED,
    Bench,
    Case,
    assert_same_calls,
    check_accounts,
    check_freed,
    compare,
    copy_of,
    predict,
)
from .scripted import Call
from .scripted_sockets import EAGAIN, EHOSTUNREACH, ENOMEM, ENOTSOCK, ETERM, errno_name


@dataclass(frozen=True)
class Fault:
    """An error at a call of the undisturbed run."""

    number: int
    call: Call
    error: int

    def __str__(self) -> str:
        return f"{errno_name(self.error)} at call {self.number}: {self.call}"


def faults(trace: list[Call]) -> Iterator[Fault]:
    """Yield every error that any call could have given."""
    for number, call in enumerate(trace):
        for error in call.errors:
            yield Fault(number, call, error)


class Story:
    """What the calls of an undisturbed run were about."""

    def __init__(self, base: Bench) -> None:
        self.case = base.case
        self.trace = base.libzmq.trace
        self.device, self.answers = predict(base.case)
        self.capture = base.sockets["capture"].arrived if base.case.capture is not None else []
        self.ways = {
            base.sockets["frontend"].name: self.device.back,
            base.sockets["backend"].name: self.device.there,
        }
        """The directions by the name of their destination."""

    def sends(self, socket: str, number: int) -> list[Call]:
        """Return what was sent on the socket before the call of that number."""
        calls = self.trace[:number]
        return [c for c in calls if (c.name, c.socket, c.result) == ("send", socket, None)]

    def accepted(self, socket: str, number: int) -> int:
        """Return how many messages it had accepted before the call of that number."""
        return sum(is_last(call) for call in self.sends(socket, number))

    def is_middle(self, number: int) -> bool:
        """Tell whether the call is a send, and not the first of its message."""
        call = self.trace[number]
        before = self.sends(call.socket, number)
        return call.name == "send" and bool(before) and not is_last(before[-1])

    def message(self, socket: str, number: int) -> tuple[bytes, ...]:
        """Return, as it came in, the message that the socket was to accept next at that call."""
        return tuple(ordered(self.ways[socket].sent[self.accepted(socket, number)], self.case.swap))

    def copied(self, place: int) -> tuple[bytes, ...]:
        """Return the message whose copy was the capture's so manieth."""
        (frames,) = (
            frames
            for way in self.ways.values()
            for frames in way.sent
            if copy_of(way, frames) == self.capture[place]
        )
        return tuple(ordered(frames, self.case.swap))

    def delivered(self, number: int) -> tuple[bytes, ...]:
        """Return the message whose delivery ended last before that call."""
        while True:
            number -= 1
            call = self.trace[number]
            if call.socket in self.ways and call.name == "send" and is_last(call):
                return self.message(call.socket, number)

    def offered(self, number: int) -> set[tuple[bytes, ...]]:
        """Return the messages that a socket was offered from that call until the next block."""
        socket = self.trace[number].socket
        source = "backend" if socket == "frontend" else "frontend"
        first = {ordered(m, self.case.swap)[0]: m for m in self.case.arriving(source)}
        return {
            first[call.asked[0]]
            for _, call in self.until_block(number)
            if (call.name, call.socket) == ("send", socket) and call.asked[0] in first
            if call.result != "EHOSTUNREACH"
        }

    def until_block(self, number: int) -> Iterator[tuple[int, Call]]:
        """Yield the calls from that one on, with their numbers, until the relay blocks."""
        for place, call in enumerate(self.trace[number:], number):
            if call.name == "poll" and call.asked[1] != 0:
                return
            yield place, call

    def copies_tried(self, number: int) -> set[tuple[bytes, ...]]:
        """Return the messages that the capture was offered from that call until the next block."""
        return {
            self.delivered(place)
            for place, call in self.until_block(number)
            if (call.name, call.socket) == ("send", "capture") and not self.is_middle(place)
        }


def is_last(send: Call) -> bool:
    return len(send.asked) == 1


def effect(story: Story, fault: Fault) -> tuple[Device, list[list[bytes]]]:
    """Return what the model makes of an error that does not end the relay."""
    case, call, number, error = story.case, fault.call, fault.number, fault.error
    refused = call.name == "send" and error in (EAGAIN, EHOSTUNREACH)
    middle = story.is_middle(number)
    place = story.accepted(call.socket, number)

    if call.name == "msg_copy":
        following = (c for c in story.trace[number:] if c.name == "send")
        send = next(c for c in following if c.socket in story.ways)
        drops = story.ways[send.socket].drop
        if send.result == "EAGAIN" and drops:
            send = next(following)  # it is tried twice
        # What nobody asked for, or nobody took, nobody gets a copy of.
        if send.result == "EFSM" or (send.result == "EAGAIN" and drops):
            return story.device, story.answers
        return predict(case, uncaptured={story.message(send.socket, number)})
    if call.socket == "capture" and error == ENOTSOCK:
        captured = {story.copied(n) for n in range(place)}
        return predict(case, uncaptured=case.messages() - captured)
    if call.socket == "capture" and refused and middle:
        return predict(case, uncaptured={story.copied(place)})
    if call.socket == "capture" and refused and case.capture_drop:
        return predict(case, uncaptured=story.copies_tried(number))
    if call.socket == "control" and refused:
        # a peer that does not take its answer goes without
        return story.device, story.answers[:place] + story.answers[place + 1 :]
    first = call.name == "send" and not middle
    if call.socket in story.ways and story.ways[call.socket].drop and first and error == EAGAIN:
        return predict(case, dict.fromkeys(story.offered(number), Fate.OVERFLOWED))
    if call.socket in story.ways and refused and (middle or error == EHOSTUNREACH):
        fate = Fate.UNROUTABLE if error == EHOSTUNREACH else Fate.DROPPED
        return predict(case, {story.message(call.socket, number): fate})
    return story.device, story.answers


def ends_relay(case: Case, fault: Fault) -> bool:
    """Tell whether run must return the error: ETERM, or a socket that is none any more."""
    forgiven = fault.call.socket == "capture" and case.capture_drop
    return fault.error == ETERM or (fault.error == ENOTSOCK and not forgiven)


def check_ended(bench: Bench, story: Story, fault: Fault) -> None:
    """The relay was ended by an error, with every message accounted for."""
    check_accounts(bench, story.device, story.answers)
    cut = fault.call.socket if story.is_middle(fault.number) else None
    for source, destination, counted in (
        ("frontend", "backend", bench.statistics.frontend_to_backend),
        ("backend", "frontend", bench.statistics.backend_to_frontend),
    ):
        socket = bench.sockets[destination]
        if socket.kind not in CANNOT_SEND and not (bench.case.single and destination == "frontend"):
            taken = bench.case.arriving(source)[: counted.messages_received]
            case = bench.case
            sure = [fate(frames, socket.kind, case.swap, case.only_first) for frames in taken]
            assert counted.dropped == sure.count(Fate.DROPPED) + (cut == socket.name)


def run_fault(engine: str, throttled: bool, story: Story, fault: Fault) -> Bench:
    """Run the case with the fault, and compare what came out with the model."""
    case = story.case
    bench = Bench(case, engine, throttled=throttled)
    bench.libzmq.faults[fault.number] = fault.error
    code = bench.run()
    if code is None:
        assert fault.error == ENOMEM
    elif ends_relay(case, fault):
        assert code == -fault.error
        check_ended(bench, story, fault)
        again = bench.run_on()
        assert again == code or (again == FINISHED and case.terminates), "it ends again"
        check_ended(bench, story, fault)
    else:
        assert code == (FINISHED if case.terminates else WOKEN)
        compare(bench, *effect(story, fault))
    return bench


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@THROTTLED
def test_undisturbed(case: Case, scripted_engine: str, throttled: bool) -> None:
    goes_undisturbed(Bench(case, scripted_engine, throttled=throttled), case)


@THROTTLED
def test_undisturbed_without_the_short_way(case: Case, throttled: bool) -> None:
    goes_undisturbed(Bench(case, PLAIN, throttled=throttled), case)


def goes_undisturbed(bench: Bench, case: Case) -> None:
    assert bench.run() == (FINISHED if case.terminates else WOKEN)
    compare(bench, *predict(case))
    check_freed([bench])


@THROTTLED
def test_every_error_at_every_call(case: Case, throttled: bool) -> None:
    check_every_error(case, ENGINES[:2], throttled=throttled)


def check_every_error(case: Case, engines: Iterable[str], *, throttled: bool) -> None:
    """Compare loops, call for call, and with the model. test_short_way.py calls it, too."""
    base = Bench(case, ENGINES[0], throttled=throttled)
    base.run()
    story = Story(base)
    benches = [base]
    for fault in faults(story.trace):
        if throttled and fault.error != EAGAIN:
            continue  # whether a send processes commands matters to who then waits for room
        try:
            tried = [run_fault(engine, throttled, story, fault) for engine in engines]
        except AssertionError as error:
            raise AssertionError(f"{fault}\n{error}") from error
        assert_same_calls(tried)
        benches += tried
    check_freed(benches)


# Small cases with each kind of end: a destination, a capture and a control socket that are full,
# peers that are unknown, turns.
PAIRED = ["a request to nobody", "full", "full capture", "full router", "steered while full"]


@pytest.mark.parametrize("name", PAIRED)
def test_an_error_right_after_each_error(name: str) -> None:
    """Whatever two errors come in a row, all is accounted for, and goes on whole."""
    case = CASES[name]
    base = Bench(case, ENGINES[0])
    base.run()
    device, answers = predict(case)
    benches = [base]
    for first in faults(base.libzmq.trace):
        once = Bench(case, ENGINES[0])
        once.libzmq.faults[first.number] = first.error
        once.run()
        benches.append(once)
        for second in faults(once.libzmq.trace):
            if second.number != first.number + 1:
                continue
            tried = [Bench(case, engine) for engine in ENGINES[:2]]
            for bench in tried:
                bench.libzmq.faults = {first.number: first.error, second.number: second.error}
                try:
                    assert bench.run() in (WOKEN, FINISHED, -first.error, -second.error)
                    check_accounts(bench, device, answers)
                except AssertionError as error:
                    raise AssertionError(f"{first}\n{second}\n{error}") from error
            assert_same_calls(tried)
            benches += tried
    check_freed(benches)
