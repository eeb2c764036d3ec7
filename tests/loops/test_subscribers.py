"""How many subscriptions an XPUB's peers hold: counted from what it tells, on every engine."""

from __future__ import annotations

from typing import Any

import pytest
import zmq

import zdev
from zdev._contract import WOKEN
from zdev.testing.model import Type

from ..support import Network, running, wait_until
from .schedules import ENGINES, MANY, PLAIN, Bench, Case, Step, check_freed

XPUB, XSUB, PULL, DEALER, PAIR = Type.XPUB, Type.XSUB, Type.PULL, Type.DEALER, Type.PAIR
A, B, NOT_A, NOT_B = [b"\1a"], [b"\1b"], [b"\0a"], [b"\0b"]
LONG = b"x" * 2049


def case_of(*messages: list[bytes], frontend: Type = XSUB, **options: Any) -> Case:
    steps: tuple[Step, ...] = tuple({"backend": [message]} for message in messages)
    return Case(frontend, XPUB, steps, **options)


# What comes upstream, and how many subscriptions are held after that.
CASES = {
    "none": (case_of(), 0),
    "each topic": (case_of(A, B, NOT_A, [b"\1"]), 2),
    "none is left": (case_of(A, NOT_A), 0),
    "more cancelled than made": (case_of(NOT_A, NOT_B, A), 1),
    "data": (case_of([b"a"], [b""], [b"\2"], [b"\2", b"\2a"], [b"a", b"", b""], MANY), 0),
    "neither made nor cancelled by data": (case_of(A, [b"\6CANCEL"], [b"\1a", b"b"], MANY), 1),
    "behind data": (case_of([b"data", *A], [b"", b"\1", *B], [*MANY, b"\1c"], [b"", *NOT_A]), 2),
    "behind data, where only a first frame subscribes": (
        case_of(A, [b"data", *B], B, [b"data", *NOT_A], [b"data", *NOT_A], only_first=True),
        2,
    ),
    "too long for an XSUB": (case_of([b"\1" + LONG], A, [b"\0" + LONG]), 1),
    "to a PULL": (case_of(A, B, NOT_A, frontend=PULL), 1),
    "to any other": (case_of(A, B, NOT_B, [b"\2"], frontend=DEALER), 1),
    "with copies": (case_of(A, B, NOT_B, capture=Type.PUSH, out_prefix=b"out"), 1),
    "swapped": (case_of(A, [b"data", *B], [b"\1a", b"a"], NOT_A, frontend=PAIR, swap=True), 1),
    "swapped, behind many frames": (case_of([*MANY, *A], frontend=PAIR, swap=True), 1),
}


def loops(case: Case) -> list[Bench]:
    benches = [Bench(case, engine) for engine in (*ENGINES, PLAIN)]
    for bench in benches:
        assert bench.run() == WOKEN
    return benches


@pytest.mark.parametrize("name", CASES)
def test_what_is_held(name: str) -> None:
    case, held = CASES[name]
    benches = loops(case)
    for bench in benches:
        ends = {role: socket.end for role, socket in bench.sockets.items()}
        assert bench.loop.subscriptions(ends["backend"]) == held, bench.engine
        assert bench.loop.subscriptions(ends["frontend"]) == 0
    check_freed(benches)


@pytest.mark.parametrize("role", ["capture", "control"])
def test_what_is_held_aside(role: str) -> None:
    """By those who get the copies, and by those who command."""
    steps: tuple[Step, ...] = ({role: [A, B, NOT_B]}, {"frontend": [[b"one"]], role: [B]})
    options = {role: XPUB}
    benches = loops(Case(PULL, Type.PUSH, steps, **options))  # type: ignore[arg-type]
    for bench in benches:
        assert bench.loop.subscriptions(bench.sockets[role].end) == 2, bench.engine
        assert bench.loop.subscriptions(bench.sockets["backend"].end) == 0
    check_freed(benches)


def test_while_a_subscription_waits_and_while_none_is_read(engine: str, net: Network) -> None:
    """It counts when it has been read: not in a pause, but where nobody upstream takes it."""
    frontend, backend = net.bound(zmq.PAIR), net.bound(zmq.XPUB)
    relay = zdev.Relay(frontend, backend)
    end, loop = relay._ends["backend"], relay._loop
    subscriber = net.peer(backend, zmq.SUB)

    def held() -> int:
        return relay._ask(lambda: loop.subscriptions(end))

    with running(relay):
        for topic in ("a", "b"):
            subscriber.subscribe(topic)
        wait_until(lambda: held() == 1)  # the first is parked, and the rest unread
        assert relay.statistics().backend_to_frontend.parked
        upstream = net.peer(frontend, zmq.PAIR)
        assert [upstream.recv(), upstream.recv()] == [b"\1a", b"\1b"]
        assert held() == 2
        relay.pause()
        subscriber.unsubscribe("a")
        assert held() == 2
        relay.resume()
        assert upstream.recv() == b"\0a"
        assert held() == 1
        subscriber.close()
        assert upstream.recv() == b"\0b"
        assert held() == 0


MANY_SUBSCRIBERS = 200


@pytest.mark.parametrize(
    ("option", "made", "cancelled", "left"),
    [
        (None, 1, 1, 0),
        (zmq.XPUB_VERBOSE, MANY_SUBSCRIBERS, 1, MANY_SUBSCRIBERS - 1),
        (zmq.XPUB_VERBOSER, MANY_SUBSCRIBERS, MANY_SUBSCRIBERS, 0),
    ],
)
def test_many_subscribers_of_one_topic(
    engine: str, net: Network, option: int | None, made: int, cancelled: int, left: int
) -> None:
    """What goes upstream. With XPUB_VERBOSE alone, the XSUB is left with more than it was rid of."""
    frontend, backend = net.bound(zmq.XSUB, sndhwm=0), net.bound(zmq.XPUB)
    if option is not None:
        backend.setsockopt(option, 1)
    publisher = net.peer(frontend, zmq.XPUB, rcvhwm=0)
    publisher.setsockopt(zmq.XPUB_VERBOSER, 1)
    relay = zdev.Relay(frontend, backend, watch_connections=True)

    def held() -> int | None:
        return relay.connections()["backend"].subscriptions

    def sent() -> int:
        return relay.statistics().backend_to_frontend.messages_sent

    with running(relay):
        subscribers = [net.peer(backend, zmq.SUB) for _ in range(MANY_SUBSCRIBERS)]
        for subscriber in subscribers:
            subscriber.subscribe("all")
        wait_until(lambda: held() == sent() == made)
        assert [publisher.recv() for _ in range(made)] == [b"\1all"] * made
        for subscriber in subscribers[::2]:
            subscriber.unsubscribe("all")
        for subscriber in subscribers[1::2]:
            subscriber.close()
        wait_until(lambda: (held(), sent()) == (left, made + cancelled))
        last = net.peer(backend, zmq.SUB)
        last.subscribe("end")
        assert publisher.recv() == (b"\1end" if left else b"\0all")
