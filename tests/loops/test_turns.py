"""REQ and REP out of turn: no answer becomes that to another question."""

from __future__ import annotations

import pytest
import zmq

import zdev

from ..support import Background, Network, running, wait_until
from .peers import accounted, ask


def test_answers_that_nobody_asked_for(engine: str, net: Network) -> None:
    """None may become the reply to another question."""
    frontend, backend = net.bound(zmq.REP), net.bound(zmq.DEALER)
    relay = zdev.Relay(frontend, backend)
    clients = [net.peer(frontend, zmq.REQ) for _ in range(2)]
    worker = net.peer(backend, zmq.DEALER)
    with running(relay):
        for number in range(1, 9):
            worker.send_multipart([b"early", b"%d" % number])
            wait_until(lambda n=number: relay.statistics()[1].messages_received == 3 * n - 2)
            client = clients[number % 2]
            client.send(b"%d" % number)
            assert worker.recv() == b"%d" % number
            worker.send(b"reply %d" % number)
            worker.send(b"another reply")
            assert client.recv() == b"reply %d" % number
            wait_until(lambda n=number: relay.statistics()[1].messages_received == 3 * n)
    there, back, _ = relay.statistics()
    assert (there.messages_sent, back.messages_sent, back.unroutable) == (8, 8, 16)
    assert back.parked == back.dropped == 0


def test_an_answer_older_than_the_question(engine: str, net: Network) -> None:
    """It was there before the relay, or came in a pause."""
    frontend, backend = net.bound(zmq.REP), net.bound(zmq.DEALER)
    relay = zdev.Relay(frontend, backend)
    client, worker = net.peer(frontend, zmq.REQ), net.peer(backend, zmq.DEALER)
    relay.pause()
    with running(relay):
        for number in range(1, 9):
            for _ in range(3):
                worker.send(b"stale")
            client.send(b"question")
            wait_until(lambda: relay.call(lambda: frontend.poll(0)))
            wait_until(lambda: relay.call(lambda: backend.poll(0)))
            relay.resume()
            assert worker.recv() == b"question"
            worker.send(b"reply")
            assert client.recv() == b"reply"
            relay.pause()
            assert relay.statistics()[1][:8] == (
                4 * number,
                4 * number,
                20 * number,
                number,
                number,
                5 * number,
                0,
                3 * number,
            )


@pytest.mark.parametrize("captured", [False, True])
def test_a_request_that_can_go_nowhere_is_replied_to(
    engine: str, net: Network, captured: bool
) -> None:
    """A REP that waits for a reply that nobody sends would serve no other client."""
    frontend, backend = net.bound(zmq.REP), net.bound(zmq.ROUTER, router_mandatory=1)
    capture = net.bound(zmq.PUSH) if captured else None
    relay = zdev.Relay(frontend, backend, capture)
    clients = [net.peer(frontend, zmq.REQ) for _ in range(2)]
    worker = net.peer(backend, zmq.DEALER, routing_id=b"worker")
    if capture is not None:
        net.peer(capture, zmq.PULL)
    with running(relay):
        for client in clients:
            for nowhere in ([b"nobody", b"question"], [b""], [b"worker"], [b"", b"question"]):
                client.send_multipart(nowhere)
                assert client.recv_multipart() == [b""]
            client.send_multipart([b"worker", b"question"])
            assert worker.recv() == b"question"
            worker.send(b"reply")
            assert client.recv_multipart() == [b"worker", b"reply"]
    there, back, _ = relay.statistics()
    assert (there.messages_sent, there.unroutable) == (2, 8)
    assert (back.messages_sent, back.unroutable) == (2, 0)


def test_clients_that_leave_before_their_answer(engine: str, net: Network) -> None:
    frontend, backend = net.bound(zmq.REP), net.bound(zmq.REQ)
    relay = zdev.Relay(frontend, backend)
    worker = net.peer(backend, zmq.REP)
    with running(relay):
        for number in range(20):
            hasty = net.peer(frontend, zmq.REQ)
            hasty.send(b"hasty")
            assert worker.recv() == b"hasty"
            hasty.close(0)
            worker.send(b"too late")
            client = net.peer(frontend, zmq.REQ)
            client.send_multipart([b"%d" % number, b"", b"?"])
            worker.send_multipart([*worker.recv_multipart(), b"!"])
            assert client.recv_multipart() == [b"%d" % number, b"", b"?", b"!"]
            client.close(0)
    assert all(accounted(way) for way in relay.statistics()[:2])


def test_a_request_without_answer_keeps_control(engine: str, net: Network) -> None:
    """A REQ that waits for ever holds its direction, and nothing else."""
    frontend, backend, control = net.bound(zmq.REP), net.bound(zmq.REQ), net.bound(zmq.REP)
    relay = zdev.Relay(frontend, backend, control=control)
    worker, client = net.peer(backend, zmq.REP), net.peer(frontend, zmq.REQ)
    operator = net.peer(control, zmq.REQ)
    device = Background(relay.run)
    client.send(b"question")
    assert worker.recv() == b"question"
    worker.close(0)
    net.peer(frontend, zmq.REQ).send(b"another")
    assert len(ask(operator, b"STATISTICS")) == 8
    assert ask(operator, b"TERMINATE") == [b""]
    device.join()
    assert relay.statistics().frontend_to_backend.messages_sent == 1
