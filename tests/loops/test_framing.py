"""Messages between ROUTERs: none borrows a frame of another, and what has no address goes nowhere."""

from __future__ import annotations

import pytest
import zmq

import zdev

from ..support import Background, Network, running, wait_until
from .peers import Exchange, accounted


@pytest.mark.parametrize("transport", ["inproc", "tcp"])
def test_short_messages_between_routers_borrow_nothing(
    engine: str, net: Network, transport: str
) -> None:
    exchange = Exchange(net, transport)
    worker = exchange.worker(b"worker")
    good, bad = exchange.client(b"good"), exchange.client(b"bad")
    asking = [exchange.client(b"req%d" % number, zmq.REQ) for number in range(20)]
    with running(exchange.relay):
        wait_until(lambda: exchange.relay.statistics().backend_to_frontend.messages_sent == 1)
        assert exchange.watcher.recv_multipart() == [b"out", b"nobody", b"worker", b"hello"]
        expected = []
        for number in range(20):
            # Of these only the first can go anywhere: it says to whom, and nothing else.
            for message in ([b"worker"], [b""], [b"", b""], [b"", b"worker", b"body"]):
                bad.send_multipart(message)
            asking[number].send(b"worker")  # a delimiter stands where the address should
            good.send_multipart([b"worker", b"%d" % number, b"", b"end"])
            expected.append([b"good", b"%d" % number, b"", b"end"])
        received = [worker.recv_multipart() for _ in range(40)]
        assert [message for message in received if message[0] == b"good"] == expected
        assert [message for message in received if message[0] != b"good"] == [[b"bad"]] * 20
        # Each client sends in order, so the last one that goes nowhere may be still to come.
        wait_until(lambda: exchange.relay.statistics()[0].messages_received == 120)
        there = exchange.relay.statistics().frontend_to_backend
        assert (there.messages_sent, there.unroutable, there.dropped) == (40, 80, 0)
        copies = [exchange.watcher.recv_multipart() for _ in range(40)]
        assert copies == [[b"in", b"worker", *message] for message in received]

        # And the way back.
        for message in ([b"good"], [b""], [b"good", b"an", b"answer"], [b"", b"x"]):
            worker.send_multipart(message)
        assert good.recv_multipart() == [b"worker"]
        assert good.recv_multipart() == [b"worker", b"an", b"answer"]
        wait_until(lambda: exchange.relay.statistics()[1].messages_received == 5)
        assert exchange.relay.statistics().backend_to_frontend.unroutable == 2


def test_monitored_queue_survives_what_breaks_others(engine: str, net: Network) -> None:
    """The case from pyzmq's bug: a client of one frame, then a client of three."""
    exchange = Exchange(net)
    worker = exchange.worker(b"worker")
    one, three = exchange.client(b"one"), exchange.client(b"three")
    one.send(b"worker")
    three.send_multipart([b"worker", b"a", b"b"])
    device = Background(
        zdev.monitored_queue, exchange.frontend, exchange.backend, exchange.capture, "in", "out"
    )
    received = [worker.recv_multipart() for _ in range(2)]
    assert sorted(received) == [[b"one"], [b"three", b"a", b"b"]]
    assert isinstance(net.terminate(device), zmq.ContextTerminated)


def test_what_has_no_address_is_unroutable(engine: str, net: Network) -> None:
    """A DEALER's messages to a ROUTER that does not swap: the first frame is the address."""
    frontend, backend = net.bound(zmq.DEALER), net.bound(zmq.ROUTER)
    source = net.peer(frontend, zmq.DEALER)
    sink = net.peer(backend, zmq.DEALER, routing_id=b"sink")
    sink.send(b"hello")
    relay = zdev.Relay(frontend, backend)
    with running(relay):
        assert source.recv_multipart() == [b"sink", b"hello"]
        for message in ([b""], [b"sink"], [b"", b"sink", b"x"], [b"sink", b"y"]):
            source.send_multipart(message)
        assert sink.recv_multipart() == [b"y"]
        there = relay.statistics().frontend_to_backend
        assert (there.messages_received, there.messages_sent, there.unroutable) == (4, 1, 3)


def test_mandatory_counts_unknown_peers_and_goes_on(engine: str, net: Network) -> None:
    exchange = Exchange(net, router_mandatory=1)
    worker = exchange.worker(b"worker")
    client = exchange.client(b"client")
    with running(exchange.relay):
        for number in range(50):
            client.send_multipart([b"stranger", b"%d" % number, b"x"])
            client.send_multipart([b"worker", b"%d" % number, b"y"])
            assert worker.recv_multipart() == [b"client", b"%d" % number, b"y"]
        there, back, _ = exchange.relay.statistics()
        assert (there.messages_sent, there.unroutable) == (50, 50)
        assert (back.messages_sent, back.unroutable) == (0, 1)
        wait_until(lambda: exchange.relay.statistics().capture.sent == 50)
        copies = [exchange.watcher.recv_multipart() for _ in range(50)]
        assert copies == [[b"in", b"worker", b"client", b"%d" % n, b"y"] for n in range(50)]


def test_mandatory_waits_for_a_full_peer(engine: str, net: Network) -> None:
    exchange = Exchange(net, router_mandatory=1, sndhwm=2)
    worker = exchange.worker(b"worker")
    worker.close(0)
    exchange.backend.sndhwm = 2
    worker = net.peer(exchange.backend, zmq.DEALER, routing_id=b"full", rcvhwm=2)
    worker.send_multipart([b"client", b"hello"])
    client = exchange.client(b"client")
    with running(exchange.relay):
        client.send_multipart([b"stranger", b"x"])
        for number in range(50):
            client.send_multipart([b"full", b"%d" % number])
        wait_until(lambda: exchange.relay.statistics().frontend_to_backend.parked)
        # The other way goes on.
        for number in range(50):
            worker.send_multipart([b"client", b"%d" % number])
        seen = [client.recv_multipart() for _ in range(50)]
        if seen[0] == [b"full", b"hello"]:
            seen = [*seen[1:], client.recv_multipart()]
        assert seen == [[b"full", b"%d" % number] for number in range(50)]
        seen = [worker.recv_multipart() for _ in range(50)]
        assert seen == [[b"client", b"%d" % number] for number in range(50)]
        there = exchange.relay.statistics().frontend_to_backend
        assert (there.messages_sent, there.unroutable, there.dropped) == (50, 1, 0)


def test_mandatory_gives_up_a_full_peer_that_leaves(engine: str, net: Network) -> None:
    exchange = Exchange(net, router_mandatory=1, sndhwm=1)
    full = net.peer(exchange.backend, zmq.DEALER, routing_id=b"full", rcvhwm=1)
    full.send_multipart([b"nobody", b"hello"])
    client = exchange.client(b"client")
    with running(exchange.relay):
        wait_until(lambda: exchange.relay.statistics().backend_to_frontend.unroutable == 1)
        for number in range(50):
            client.send_multipart([b"full", b"%d" % number])
        wait_until(lambda: exchange.relay.statistics().frontend_to_backend.parked)
        full.close(0)
        wait_until(lambda: exchange.relay.statistics().frontend_to_backend.messages_received == 50)
        wait_until(lambda: not exchange.relay.statistics().frontend_to_backend.parked)
        there = exchange.relay.statistics().frontend_to_backend
        assert accounted(there)
        assert there.unroutable > 0
        worker = exchange.worker(b"worker")
        wait_until(lambda: exchange.relay.statistics().backend_to_frontend.unroutable == 2)
        client.send_multipart([b"worker", b"still here"])
        assert worker.recv_multipart() == [b"client", b"still here"]
