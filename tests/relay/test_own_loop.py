"""A relay that an event loop of its user's drives, by its descriptor."""

from __future__ import annotations

import gc
import random
import selectors
import signal
import threading
from typing import Any, Callable

import pytest
import zmq

import zdev
from zdev import _signals

from ..support import DEADLINE, Background, Network, wait_until
from .drivers import (
    DRIVERS,
    NARROW,
    Driver,
    has_tkinter,
    needs_set,
    no_alarms,
    publishers,
    settle,
    subscribed,
)
from .streamer import Streamer
from .test_visits import Interruption, at_each_moment

pytestmark = needs_set

COUNT = 3000
SMALL: dict[str, Any] = {"sndhwm": 3, "rcvhwm": 3}


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> Callable[[zdev.Relay], Driver]:
    if request.param == "tkinter" and not has_tkinter():
        pytest.skip("this interpreter has no tkinter")
    return DRIVERS[request.param]


# Floods


class Sides:
    """Two peers that send each other numbers, each in a thread.

    They send some, now few and now many, and go on when all have come: so the relay is idle again
    and again, and a wake-up that is lost leaves it so for ever.
    """

    def __init__(self, left: zmq.Socket[bytes], right: zmq.Socket[bytes], count: int) -> None:
        chance = random.Random(count)
        self.rounds: list[tuple[int, int]] = []
        while count > 0:
            most = chance.choice([1, 2, 30, 300])
            counts = chance.randrange(most + 1), chance.randrange(most + 1)
            self.rounds.append(counts)
            count -= sum(counts)
        self._all_here = threading.Barrier(2)
        self._threads = [
            Background(self.talk, left, 0),
            Background(self.talk, right, 1),
        ]

    def talk(self, socket: zmq.Socket[bytes], side: int) -> None:
        chance = random.Random(side)
        sent = received = to_send = to_receive = 0
        try:
            for counts in self.rounds:
                to_send += counts[side]
                to_receive += counts[1 - side]
                while sent < to_send or received < to_receive:
                    wanted = zmq.POLLIN | (zmq.POLLOUT if sent < to_send else 0)
                    events = socket.poll(int(DEADLINE * 1000), wanted)
                    assert events, f"{received} of {to_receive} have come, {sent} have gone"
                    for _ in range(chance.randrange(1, 40)):
                        if events & zmq.POLLIN and socket.poll(0):
                            assert socket.recv() == b"%d" % received
                            received += 1
                        if sent < to_send and socket.poll(0, zmq.POLLOUT):
                            socket.send(b"%d" % sent)
                            sent += 1
                self._all_here.wait(DEADLINE)
        except BaseException:
            self._all_here.abort()
            raise

    def join(self) -> None:
        for thread in self._threads:
            thread.join(10 * DEADLINE)


def both_ways(
    net: Network, driver: Callable[[zdev.Relay], Driver], transport: str, count: int, **options: Any
) -> Driver:
    """Drive a relay under load in both directions; return what the driver has counted."""
    frontend, backend = (net.bound(zmq.DEALER, transport, **options) for _ in range(2))
    left, right = (net.peer(end, zmq.DEALER, **options) for end in (frontend, backend))
    relay = zdev.Relay(frontend, backend, warn_after=None)
    drive = Background(driver(relay).run)
    sides = Sides(left, right, count)
    try:
        sides.join()
    finally:
        relay.stop()
        driven: Driver = drive.join()
    there, back, _ = relay.statistics()
    assert there.messages_sent == sum(round_[0] for round_ in sides.rounds)
    assert back.messages_sent == sum(round_[1] for round_ in sides.rounds)
    return driven


@pytest.mark.parametrize("hwm", ["small", "large"])
@pytest.mark.parametrize("transport", ["inproc", "tcp"])
def test_nothing_is_lost_and_nothing_spins(
    engine: str,
    net: Network,
    driver: Callable[[zdev.Relay], Driver],
    transport: str,
    hwm: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No timer comes to the rescue."""
    with no_alarms(monkeypatch):
        driven = both_ways(net, driver, transport, COUNT, **(SMALL if hwm == "small" else {}))
    # Each of these was woken by a command of libzmq's, such as that a peer has read something.
    assert driven.idle <= COUNT
    assert driven.steps <= 2 * COUNT


# What is parked though POLLOUT may be shown. Each message fills a small buffer of tcp's.
BIG = b"." * 4096
ROUNDS, BATCH = 6, 40


def await_parked(relay: zdev.Relay, way: int) -> None:
    wait_until(lambda: relay.statistics()[way].parked)


@pytest.mark.parametrize("transport", ["inproc", "tcp"])
def test_nothing_is_lost_that_a_full_xpub_refuses(
    engine: str, net: Network, driver: Callable[[zdev.Relay], Driver], transport: str
) -> None:
    relay, source, sink = publishers(net, transport)
    drive = Background(driver(relay).run)
    sink.subscribe(b"")
    wait_until(lambda: subscribed(relay))
    try:
        for _ in range(ROUNDS):
            for number in range(BATCH):
                source.send_multipart([b"%d" % number, BIG])
            await_parked(relay, 0)
            for number in range(BATCH):
                assert sink.recv_multipart() == [b"%d" % number, BIG]
    finally:
        relay.stop()
    assert drive.join().steps <= 8 * ROUNDS * BATCH


@pytest.mark.parametrize("transport", ["inproc", "tcp"])
def test_nothing_is_lost_that_a_full_router_refuses(
    engine: str, net: Network, driver: Callable[[zdev.Relay], Driver], transport: str
) -> None:
    frontend = net.bound(zmq.ROUTER, transport, router_mandatory=1, **NARROW)
    backend = net.bound(zmq.DEALER, transport)
    client = net.peer(frontend, zmq.DEALER, **NARROW)
    worker = net.peer(backend, zmq.REP)
    relay = zdev.Relay(frontend, backend, warn_after=None)
    drive = Background(driver(relay).run)

    def work() -> None:
        for _ in range(ROUNDS * BATCH):
            worker.send(worker.recv() + BIG)

    working = Background(work)
    try:
        for _ in range(ROUNDS):
            for number in range(BATCH):
                client.send_multipart([b"", b"%d" % number])
            await_parked(relay, 1)
            for number in range(BATCH):
                assert client.recv_multipart() == [b"", b"%d" % number + BIG]
        working.join()
    finally:
        relay.stop()
    assert drive.join().steps <= 12 * ROUNDS * BATCH


# Handlers


@pytest.mark.parametrize("asked", ["step", "call", "resume"])
def test_handlers_that_raise_at_any_moment_take_no_sign(streamer: Streamer, asked: str) -> None:
    """On one engine: those moments count that are not the loop's."""
    relay = streamer.relay
    uses: dict[str, Callable[[], object]] = {
        "step": relay.step,
        "call": lambda: relay.call(lambda: streamer.frontend.poll(0)),
        "resume": relay.resume,
    }

    def prepare() -> None:
        if asked == "resume":
            relay.pause()
        streamer.source.send(b"x")
        if asked == "resume":
            settle(relay)  # so that nothing but the end of the pause tells of it

    def interrupt() -> None:
        if not _signals._active:  # else it would wait
            raise Interruption

    settle(relay)
    prepare()
    raised = 0
    for interrupted in at_each_moment(uses[asked], interrupt):
        raised += interrupted
        settle(relay)
        if not relay.paused:
            assert streamer.sink.poll(0), "the message is forgotten"
            streamer.sink.recv()
            prepare()
    assert raised > 20


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers without it")
def test_a_storm_of_handlers_that_raise(engine: str, net: Network) -> None:
    frontend, backend = net.bound(zmq.DEALER), net.bound(zmq.DEALER)
    left, right = net.peer(frontend, zmq.DEALER), net.peer(backend, zmq.DEALER)
    relay = zdev.Relay(frontend, backend)
    is_armed = False  # where it may raise, which the test itself does not expect elsewhere

    def handle(*_: object) -> None:
        nonlocal is_armed
        if is_armed:
            is_armed = False
            raise Interruption

    previous = signal.signal(signal.SIGVTALRM, handle)
    gc.disable()  # what is raised in a finalizer is lost
    try:
        sides = Sides(left, right, COUNT)
        ending = Background(lambda: (sides.join(), relay.stop()))
        selector = selectors.DefaultSelector()
        selector.register(relay, selectors.EVENT_READ)
        moved: int | None = 0
        signal.setitimer(signal.ITIMER_VIRTUAL, 1e-3, 1e-3)
        while moved is not None:
            try:
                is_armed = True
                assert selector.select(DEADLINE), "nothing is readable, yet it is not over"
                moved = relay.step()
                is_armed = False
            except Interruption:
                if not ending.alive:
                    relay.stop()  # again: None may not have come so far
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, previous)
        gc.enable()
    selector.close()
    ending.join()
