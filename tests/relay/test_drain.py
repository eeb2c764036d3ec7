"""A drain of requests and replies: it waits for these, takes nothing new, and tells what it leaves."""

from __future__ import annotations

import logging
import math
import threading
from typing import Any, Callable

import pytest
import zmq

import zdev

from ..support import DEADLINE, PROMPT, Background, Network, running, wait_until
from .streamer import Streamer

LONGER = 200
"""Milliseconds, more than the quiet time."""

PAIRS = {
    "queue": (zmq.ROUTER, zmq.DEALER, zmq.REQ, zmq.REP),
    "reversed": (zmq.DEALER, zmq.ROUTER, zmq.REQ, zmq.REP),
    "REP and DEALER": (zmq.REP, zmq.DEALER, zmq.REQ, zmq.DEALER),
    "REQ and REP": (zmq.REQ, zmq.REP, zmq.REQ, zmq.REP),
    "ROUTER and REQ": (zmq.ROUTER, zmq.REQ, zmq.REQ, zmq.REP),
    "ROUTERs": (zmq.ROUTER, zmq.ROUTER, zmq.DEALER, zmq.DEALER),
    "DEALERs": (zmq.DEALER, zmq.DEALER, zmq.DEALER, zmq.DEALER),
}


class Broker:
    """A relay of requests and replies, its clients, and a worker."""

    def __init__(self, net: Network, pair: str = "queue", clients: int = 1) -> None:
        frontend, backend, client, worker = PAIRS[pair]
        self.ends = net.bound(frontend), net.bound(backend)
        asked, asking = self.ends[::-1] if frontend in (zmq.DEALER, zmq.REQ) else self.ends
        self.asked, self.asking = asked, asking
        self.worker = net.peer(asking, worker, routing_id=b"worker")
        self.request = [b"request"]
        if pair == "ROUTERs":
            self.request.insert(0, b"worker")
            self.worker.send(b"hello")  # so that the socket knows it
            asking.recv_multipart()
        self.clients = [net.peer(asked, client) for _ in range(clients)]
        self.relay = zdev.Relay(*self.ends)

    def ask(self, *, taken: bool = True) -> None:
        """Let each client ask, and the worker have the first request."""
        for client in self.clients:
            client.send_multipart(self.request)
        if taken:
            self.hand = self.worker.recv_multipart()

    def reply(self) -> None:
        self.worker.send_multipart(self.hand)

    def work(self) -> None:
        """Reply to so many requests as there are clients, the first of which is at hand."""
        for left in range(len(self.clients), 0, -1):
            self.reply()
            if left > 1:
                self.hand = self.worker.recv_multipart()


class Watched:
    """Stands for the loop of a relay, and shows what that does."""

    paused = False

    def __init__(self, relay: zdev.Relay) -> None:
        self._loop, relay._loop = relay._loop, self
        self.has_shut = threading.Event()
        self.before_it_waits: Callable[[], None] = lambda: None

    def shut(self, *, there: bool, back: bool) -> None:
        self._loop.shut(there=there, back=back)
        if there or back:
            self.has_shut.set()

    def run(self, timeout: int) -> int:
        if timeout > 0:
            self.before_it_waits()
        return self._loop.run(timeout)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


@pytest.mark.parametrize("pair", PAIRS)
def test_a_drain_waits_for_replies(engine: str, net: Network, pair: str) -> None:
    broker = Broker(net, pair)
    background = Background(broker.relay.run)
    broker.ask()
    broker.relay.stop(drain=math.inf)
    assert not broker.worker.poll(LONGER)
    assert background.alive
    assert broker.relay.statistics().unanswered == 1
    broker.reply()
    assert broker.clients[0].recv_multipart() == broker.request
    background.join()
    assert broker.relay.last_stop == (True, 0, 0, False)
    assert broker.relay.statistics().unanswered == 0


@pytest.mark.parametrize("pair", PAIRS)
def test_a_drain_relays_all_requests_that_are_queued(engine: str, net: Network, pair: str) -> None:
    """Though some sockets show them one by one."""
    broker = Broker(net, pair, clients=1 if pair in ("ROUTERs", "DEALERs") else 5)
    broker.ask(taken=False)
    broker.relay.stop(drain=math.inf)
    background = Background(broker.relay.run)
    broker.hand = broker.worker.recv_multipart()
    broker.work()
    for client in broker.clients:
        assert client.recv_multipart() == broker.request
    background.join()
    assert broker.relay.last_stop == (True, 0, 0, False)


def test_a_reply_that_comes_just_before_a_wait_ends_the_drain(engine: str, net: Network) -> None:
    """The loop relays it, and then waits for another; it must not do so for ever."""
    broker = Broker(net)
    loop = Watched(broker.relay)

    def reply() -> None:
        loop.before_it_waits = lambda: None
        broker.reply()
        wait_until(loop.look)  # which takes the sign that the descriptor gives

    background = Background(broker.relay.run)
    broker.ask()
    loop.before_it_waits = reply
    broker.relay.stop(drain=math.inf)
    assert broker.clients[0].recv_multipart() == broker.request
    background.join()
    assert broker.relay.last_stop == (True, 0, 0, False)


@pytest.mark.parametrize("again", [None, 0.05])
@pytest.mark.parametrize("pair", PAIRS)
def test_a_shorter_stop_ends_the_wait_for_replies(
    engine: str, net: Network, caplog: pytest.LogCaptureFixture, pair: str, again: float | None
) -> None:
    broker = Broker(net, pair)
    background = Background(broker.relay.run)
    broker.ask()
    broker.relay.stop(drain=math.inf)
    broker.relay.stop(drain=again)
    background.join()
    assert broker.relay.last_stop == (False, 1, 0, False)
    front, back = (zmq.SocketType(end.type).name for end in broker.ends)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        f"the relay of {front} and {back} was cut off as it drained, and leaves 1 unanswered request"
    )


@pytest.mark.parametrize("pair", ["queue", "reversed"])
def test_a_drain_takes_no_new_requests(
    engine: str, net: Network, caplog: pytest.LogCaptureFixture, pair: str
) -> None:
    """The one who asks too late is not cut off, nor is it kept from the next run."""
    broker = Broker(net, pair, clients=1)
    late = net.peer(broker.asked, zmq.REQ)
    loop = Watched(broker.relay)
    background = Background(broker.relay.run)
    broker.ask()
    broker.relay.stop(drain=math.inf)
    assert loop.has_shut.wait(DEADLINE)
    late.send(b"late")
    assert not broker.worker.poll(LONGER)
    broker.reply()
    assert broker.clients[0].recv() == b"request"
    background.join()
    assert broker.relay.last_stop == (True, 0, 0, True)
    (record,) = caplog.records
    assert "has drained, but leaves more in its sources" in record.getMessage()
    with running(broker.relay):
        assert broker.worker.recv() == b"late"
        broker.worker.send(b"reply")
        assert late.recv() == b"reply"
        assert broker.relay.last_stop is None


def test_a_drain_takes_requests_that_may_have_been_under_way(engine: str, net: Network) -> None:
    """Until the quiet time is over, though it finds none before."""
    broker = Broker(net)
    background = Background(broker.relay.run)
    broker.relay.stop(drain=math.inf, quiet=math.inf)
    assert not broker.worker.poll(LONGER)
    broker.ask()
    broker.reply()
    assert broker.clients[0].recv() == b"request"
    broker.relay.stop(drain=math.inf)
    background.join()
    assert broker.relay.last_stop == (True, 0, 0, False)


@pytest.mark.parametrize("pair", ["queue", "reversed", "REP and DEALER"])
def test_a_busy_broker_is_drained(engine: str, net: Network, pair: str) -> None:
    """Its clients ask again as soon as they have a reply; whatever was taken is replied to."""
    broker = Broker(net, pair, clients=5)
    enough = threading.Event()

    def ask() -> None:
        for client in broker.clients:
            client.send(b"request")
        while not enough.is_set():
            for client in broker.clients:
                if client.poll(1):
                    client.recv()
                    client.send(b"request")

    def work() -> None:
        while not enough.is_set():
            if broker.worker.poll(10):
                broker.worker.send_multipart(broker.worker.recv_multipart())

    background = Background(broker.relay.run)
    users = [Background(ask), Background(work)]
    try:
        wait_until(lambda: broker.relay.statistics().frontend_to_backend.messages_sent > 100)
        broker.relay.stop(drain=PROMPT / 2)
        background.join()
    finally:
        enough.set()
        for user in users:
            user.join()
    there, back, _ = broker.relay.statistics()
    assert there.messages_sent == back.messages_sent
    report = broker.relay.last_stop
    assert report is not None
    assert report[:3] == (True, 0, 0)


def test_a_reply_that_goes_nowhere_has_come_back(engine: str, net: Network) -> None:
    """Who asked is gone, and nobody waits."""
    broker = Broker(net)
    broker.asked.setsockopt(zmq.ROUTER_MANDATORY, 1)
    background = Background(broker.relay.run)
    broker.ask()
    broker.clients[0].close()
    broker.reply()
    wait_until(lambda: broker.relay.statistics().backend_to_frontend.messages_received)
    broker.relay.stop(drain=math.inf)
    background.join()
    assert broker.relay.last_stop == (True, 0, 0, False)


def test_what_nobody_asked_a_rep_for_is_no_reply(engine: str, net: Network) -> None:
    frontend, backend = net.bound(zmq.REP), net.bound(zmq.DEALER)
    client, worker = net.peer(frontend, zmq.REQ), net.peer(backend, zmq.DEALER)
    relay = zdev.Relay(frontend, backend)
    background = Background(relay.run)
    worker.send(b"unasked")
    wait_until(lambda: relay.statistics().backend_to_frontend.unroutable)
    client.send(b"request")
    assert worker.recv() == b"request"
    assert relay.statistics().unanswered == 1
    relay.stop(drain=math.inf)
    assert not worker.poll(LONGER)
    worker.send(b"reply")
    assert client.recv() == b"reply"
    background.join()
    assert relay.last_stop == (True, 0, 0, False)


def test_several_replies_are_as_many_as_one(engine: str, net: Network) -> None:
    """More than were asked for are none left; they are all relayed."""
    frontend, backend = net.bound(zmq.ROUTER), net.bound(zmq.DEALER)
    client, worker = net.peer(frontend, zmq.DEALER), net.peer(backend, zmq.DEALER)
    relay = zdev.Relay(frontend, backend)
    background = Background(relay.run)
    client.send(b"request")
    request = worker.recv_multipart()
    for _ in range(3):
        worker.send_multipart(request)
    relay.stop(drain=math.inf)
    background.join()
    for _ in range(3):
        assert client.recv() == b"request"
    assert relay.last_stop == (True, 0, 0, False)


def test_a_socket_with_itself_has_no_replies_to_wait_for(engine: str, net: Network) -> None:
    echo = net.bound(zmq.ROUTER)
    client = net.peer(echo, zmq.DEALER)
    relay = zdev.Relay(echo, echo, swap=False)
    background = Background(relay.run)
    client.send(b"x")
    assert client.recv() == b"x"
    relay.stop(drain=math.inf)
    background.join()
    assert relay.last_stop == (True, 0, 0, False)


def test_steps_wait_for_replies(engine: str, net: Network) -> None:
    broker = Broker(net)
    broker.ask(taken=False)
    broker.relay.stop(drain=math.inf)
    moved = wait_until(broker.relay.step)
    assert (moved, broker.relay.step(), broker.relay.step()) == (1, 0, 0)
    broker.hand = broker.worker.recv_multipart()
    broker.reply()
    assert wait_until(broker.relay.step) == 1
    assert broker.relay.step() is None
    assert broker.relay.last_stop == (True, 0, 0, False)
    broker.clients[0].recv()
    broker.ask(taken=False)
    assert wait_until(broker.relay.step) == 1


def test_terminate_is_no_drain(engine: str, net: Network) -> None:
    broker = Broker(net)
    control = net.bound(zmq.PAIR)
    operator = net.peer(control, zmq.PAIR)
    relay = zdev.Relay(*broker.ends, control=control)
    background = Background(relay.run)
    broker.ask()
    relay.stop(drain=math.inf)
    operator.send(b"TERMINATE")
    background.join()
    assert relay.last_stop is None
    assert relay.statistics().unanswered == 1


# Streams


def test_how_long_it_must_be_quiet_can_be_given(engine: str, streamer: Streamer) -> None:
    background = Background(streamer.relay.run)
    streamer.relay.stop(drain=math.inf, quiet=math.inf)
    assert not streamer.sink.poll(LONGER)
    streamer.check_it_relays()
    streamer.relay.stop(drain=math.inf, quiet=0)  # of several, the shortest
    background.join()
    assert streamer.relay.last_stop == (True, 0, 0, False)


@pytest.mark.parametrize("quiet", ["1", [], math.nan])
def test_the_quiet_time_is_a_number(engine: str, streamer: Streamer, quiet: Any) -> None:
    error = ValueError if quiet is math.nan else TypeError
    with pytest.raises(error, match="quiet must be a number of seconds"):
        streamer.relay.stop(drain=1, quiet=quiet)
    with pytest.raises(error, match="quiet must be a number of seconds"):
        streamer.relay.stop(quiet=quiet)
    with running(streamer.relay):
        streamer.check_it_relays()


def test_a_drain_that_is_cut_off_tells_what_it_leaves(
    engine: str, streamer: Streamer, caplog: pytest.LogCaptureFixture
) -> None:
    streamer.disconnect_sink()
    for _ in range(3):
        streamer.source.send(b"x")
    streamer.relay.stop(drain=0.05)
    Background(streamer.relay.run).join()
    assert streamer.relay.last_stop == (False, 0, 1, True)
    (record,) = caplog.records
    assert record.getMessage() == (
        "the relay of PULL and PUSH was cut off as it drained, "
        "and leaves 1 parked message and more in its sources"
    )
    caplog.clear()
    streamer.relay.stop()
    Background(streamer.relay.run).join()
    assert streamer.relay.last_stop is None
    assert not caplog.records
