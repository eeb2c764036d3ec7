"""Each pair of socket types that a device joins, over each transport."""

from __future__ import annotations

import contextlib
import socket as tcp
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

import zdev

from ..support import DEADLINE, Background, Network, running, wait_until

TRANSPORTS = ["inproc", "ipc", "tcp"]
NOTHING = (0,) * 10

# Few and many frames, empty, small and large ones, in every place.
MESSAGES = [
    [b""],
    [b"one frame"],
    [b"", b""],
    [b"a", b"", b"c"],
    [b"%d" % i for i in range(50)],
    [b"x" * 100_000, b"", b"y" * 40],
]


def sizes(messages: list[list[bytes]]) -> tuple[int, int, int]:
    """Return how many messages, frames and bytes these are."""
    frames = [frame for message in messages for frame in message]
    return len(messages), len(frames), sum(map(len, frames))


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextlib.contextmanager
def proxied(frontend: zmq.Socket[Any], backend: zmq.Socket[Any], net: Network) -> Iterator[None]:
    """Run `proxy`, and end it with the context."""
    background = Background(zdev.proxy, frontend, backend)
    yield
    assert isinstance(net.terminate(background), zmq.ContextTerminated)


# One way


@pytest.mark.parametrize(("into", "out"), [(zmq.PULL, zmq.PUSH), (zmq.PUSH, zmq.PULL)])
def test_streamer_either_way_round(
    engine: str, net: Network, transport: str, into: int, out: int
) -> None:
    frontend, backend = net.bound(into, transport), net.bound(out, transport)
    pull, push = (frontend, backend) if into == zmq.PULL else (backend, frontend)
    source, sink = net.peer(pull, zmq.PUSH), net.peer(push, zmq.PULL)
    relay = zdev.Relay(frontend, backend)
    with running(relay):
        for message in MESSAGES * 50:
            source.send_multipart(message)
        assert [sink.recv_multipart() for _ in MESSAGES * 50] == MESSAGES * 50
    moved = (*sizes(MESSAGES * 50) * 2, 0, 0, 0, 0)
    there, back, _ = relay.statistics()
    assert (there, back) == ((moved, NOTHING) if pull is frontend else (NOTHING, moved))


def subscribed(publisher: zmq.Socket[bytes], subscriber: zmq.Socket[bytes]) -> None:
    """Publish until the subscription has reached the publisher, and take what that brings."""
    subscriber.rcvtimeo = 1
    while True:
        publisher.send(b"ready?")
        with contextlib.suppress(zmq.Again):
            subscriber.recv()
            break
    publisher.send(b"ready")
    subscriber.rcvtimeo = int(DEADLINE * 1000)
    while subscriber.recv() != b"ready":
        pass


@pytest.mark.parametrize(
    ("into", "out"),
    [
        (zmq.SUB, zmq.PUB),
        (zmq.SUB, zmq.XPUB),
        (zmq.XSUB, zmq.PUB),
        (zmq.XSUB, zmq.XPUB),
        (zmq.PUB, zmq.SUB),
        (zmq.XPUB, zmq.XSUB),
    ],
)
def test_forwarder_either_way_round(
    engine: str, net: Network, transport: str, into: int, out: int
) -> None:
    frontend, backend = net.bound(into, transport), net.bound(out, transport)
    reverse = into in (zmq.PUB, zmq.XPUB)
    listening, telling = (backend, frontend) if reverse else (frontend, backend)
    if zmq.SUB in (into, out):
        listening.subscribe(b"")
    elif zmq.PUB in (into, out):
        listening.send(b"\x01")
    publisher, subscriber = net.peer(listening, zmq.PUB), net.peer(telling, zmq.SUB)
    subscriber.subscribe(b"")
    relay = zdev.Relay(frontend, backend)
    with running(relay):
        subscribed(publisher, subscriber)
        for message in MESSAGES:
            publisher.send_multipart(message)
            assert subscriber.recv_multipart() == message
    there, back, _ = relay.statistics()
    data, upstream = (back, there) if reverse else (there, back)
    assert data[:3] == data[3:6]
    assert data.messages_received > len(MESSAGES)
    if zmq.PUB in (into, out):
        assert upstream == NOTHING
    elif zmq.SUB in (into, out):
        assert upstream == (1, 1, 1, 0, 0, 0, 1, 0, 0, 0), "a SUB takes no subscription from XPUB"
    else:
        assert upstream == (1, 1, 1, 1, 1, 1, 0, 0, 0, 0)


def test_subscriptions_flow_upstream(engine: str, net: Network, transport: str) -> None:
    frontend, backend = net.bound(zmq.XSUB, transport), net.bound(zmq.XPUB, transport)
    # an XPUB shows what a PUB would see
    publisher, subscriber = net.peer(frontend, zmq.XPUB), net.peer(backend, zmq.SUB)
    relay = zdev.Relay(frontend, backend)
    with running(relay):
        subscriber.subscribe(b"news")
        assert publisher.recv() == b"\x01news"
        publisher.send_multipart([b"weather", b"not wanted"])
        publisher.send_multipart([b"news", b"wanted"])
        assert subscriber.recv_multipart() == [b"news", b"wanted"]
        subscriber.unsubscribe(b"news")
        assert publisher.recv() == b"\x00news"
        subscriber.subscribe(b"")
        assert publisher.recv() == b"\x01"


def test_pipeline_to_subscribers(engine: str, net: Network, transport: str) -> None:
    frontend, backend = net.bound(zmq.PULL, transport), net.bound(zmq.XPUB, transport)
    source, subscriber = net.peer(frontend, zmq.PUSH), net.peer(backend, zmq.SUB)
    subscriber.subscribe(b"")
    relay = zdev.Relay(frontend, backend)
    with running(relay):
        # the subscription is read, since nobody else would, and goes nowhere
        wait_until(lambda: relay.statistics().backend_to_frontend.dropped == 1)
        for message in MESSAGES:
            source.send_multipart(message)
        assert [subscriber.recv_multipart() for _ in MESSAGES] == MESSAGES
    there, back, _ = relay.statistics()
    assert there == (*sizes(MESSAGES) * 2, 0, 0, 0, 0)
    assert back == (1, 1, 1, 0, 0, 0, 1, 0, 0, 0)


# Both ways


def test_pair_to_pair(engine: str, net: Network, transport: str) -> None:
    frontend, backend = net.bound(zmq.PAIR, transport), net.bound(zmq.PAIR, transport)
    left, right = net.peer(frontend, zmq.PAIR), net.peer(backend, zmq.PAIR)
    relay = zdev.Relay(frontend, backend)
    with running(relay):
        for message in MESSAGES:
            left.send_multipart(message)
            right.send_multipart(message[::-1])
        assert [right.recv_multipart() for _ in MESSAGES] == MESSAGES
        assert [left.recv_multipart() for _ in MESSAGES] == [m[::-1] for m in MESSAGES]
    there, back, _ = relay.statistics()
    assert there == back == (*sizes(MESSAGES) * 2, 0, 0, 0, 0)


def test_queue(engine: str, net: Network, transport: str) -> None:
    frontend, backend = net.bound(zmq.ROUTER, transport), net.bound(zmq.DEALER, transport)
    clients = [net.peer(frontend, zmq.REQ, routing_id=b"c%d" % i) for i in range(3)]
    workers = [net.peer(backend, zmq.REP) for _ in range(2)]
    poller = zmq.Poller()
    for worker in workers:
        poller.register(worker, zmq.POLLIN)
    relay = zdev.Relay(frontend, backend)
    with running(relay):
        for turn in range(10):
            for number, client in enumerate(clients):
                client.send_multipart([b"%d" % number, b"", b"%d" % turn])
            answered = 0
            while answered < len(clients):
                for worker, _ in poller.poll(int(DEADLINE * 1000)):
                    worker.send_multipart([*worker.recv_multipart(), b"done"])
                    answered += 1
            for number, client in enumerate(clients):
                assert client.recv_multipart() == [b"%d" % number, b"", b"%d" % turn, b"done"]
    there, back, _ = relay.statistics()
    # an envelope of two frames, the routing id's two bytes; then 1 + 0 + 1 bytes, and 4 behind
    assert there == (30, 150, 120, 30, 150, 120, 0, 0, 0, 0)
    assert back == (30, 180, 240, 30, 180, 240, 0, 0, 0, 0)


def test_queue_the_other_way_round(engine: str, net: Network, transport: str) -> None:
    frontend, backend = net.bound(zmq.DEALER, transport), net.bound(zmq.ROUTER, transport)
    worker, client = net.peer(frontend, zmq.REP), net.peer(backend, zmq.REQ)
    with running(zdev.Relay(frontend, backend)):
        for message in MESSAGES:
            client.send_multipart(message)
            assert worker.recv_multipart() == message
            worker.send_multipart(message)
            assert client.recv_multipart() == message


def test_dealers_need_no_turns(engine: str, net: Network, transport: str) -> None:
    frontend, backend = net.bound(zmq.ROUTER, transport), net.bound(zmq.DEALER, transport)
    client, worker = net.peer(frontend, zmq.DEALER), net.peer(backend, zmq.ROUTER)
    with running(zdev.Relay(frontend, backend)):
        for message in MESSAGES:
            client.send_multipart(message)
        for message in MESSAGES:
            dealer, client_id, *frames = worker.recv_multipart()
            assert frames == message
            worker.send_multipart([dealer, client_id, *frames])
        assert [client.recv_multipart() for _ in MESSAGES] == MESSAGES


def test_requests_by_turns(engine: str, net: Network, transport: str) -> None:
    frontend, backend = net.bound(zmq.REP, transport), net.bound(zmq.REQ, transport)
    clients = [net.peer(frontend, zmq.REQ) for _ in range(2)]
    worker = net.peer(backend, zmq.REP)
    with running(zdev.Relay(frontend, backend)):
        for message in MESSAGES:
            for client in clients:  # the second waits in the device's REP
                client.send_multipart(message)
            for _ in clients:
                assert worker.recv_multipart() == message
                worker.send_multipart([*message, b"done"])
            for client in clients:
                assert client.recv_multipart() == [*message, b"done"]


# ROUTER to ROUTER


def routers(
    net: Network, transport: str
) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes], zmq.Socket[bytes], zmq.Socket[bytes]]:
    """Make two ROUTERs and a DEALER for each, which has said its name."""
    frontend = net.bound(zmq.ROUTER, transport, router_mandatory=1)
    backend = net.bound(zmq.ROUTER, transport, router_mandatory=1)
    client = net.peer(frontend, zmq.DEALER, routing_id=b"client")
    worker = net.peer(backend, zmq.DEALER, routing_id=b"worker")
    for router, dealer in ((frontend, client), (backend, worker)):
        dealer.send(b"hello")
        assert router.recv_multipart()[1] == b"hello"
    return frontend, backend, client, worker


def test_relay_swaps_addresses(engine: str, net: Network, transport: str) -> None:
    frontend, backend, client, worker = routers(net, transport)
    relay = zdev.Relay(frontend, backend)
    with running(relay):
        for message in [[], *MESSAGES]:
            client.send_multipart([b"worker", *message])
            assert worker.recv_multipart() == [b"client", *message]
            worker.send_multipart([b"client", *message])
            assert client.recv_multipart() == [b"worker", *message]
    there, back, _ = relay.statistics()
    assert there == back
    assert there.unroutable == there.dropped == 0


def test_monitored_queue_swaps_addresses(engine: str, net: Network, transport: str) -> None:
    frontend, backend, client, worker = routers(net, transport)
    mon = net.bound(zmq.PUSH, transport)
    monitor = net.peer(mon, zmq.PULL)
    background = Background(zdev.monitored_queue, frontend, backend, mon)
    for message in [[], *MESSAGES]:
        client.send_multipart([b"worker", *message])
        assert worker.recv_multipart() == [b"client", *message]
        assert monitor.recv_multipart() == [b"in", b"worker", b"client", *message]
        worker.send_multipart([b"client", *message])
        assert client.recv_multipart() == [b"worker", *message]
        assert monitor.recv_multipart() == [b"out", b"client", b"worker", *message]
    assert isinstance(net.terminate(background), zmq.ContextTerminated)


def test_proxy_does_not_swap(engine: str, net: Network, transport: str) -> None:
    """As zmq_proxy: the sender's routing id is the address on the other side."""
    frontend, backend, client, _ = routers(net, transport)
    namesake = net.peer(backend, zmq.DEALER, routing_id=b"client")
    namesake.send(b"hello")
    assert backend.recv_multipart() == [b"client", b"hello"]
    with proxied(frontend, backend, net):
        client.send_multipart([b"worker", b"x"])
        assert namesake.recv_multipart() == [b"worker", b"x"]
        namesake.send(b"y")
        assert client.recv() == b"y"


def test_swap_can_be_had_or_not(engine: str, net: Network) -> None:
    frontend, backend, client, worker = routers(net, "inproc")
    relay = zdev.Relay(frontend, backend, swap=False)
    client.send_multipart([b"worker", b"x"])
    wait_until(relay.step)
    assert relay.statistics().frontend_to_backend.unroutable == 1
    relay = zdev.Relay(frontend, backend, swap=True)
    client.send_multipart([b"worker", b"x"])
    wait_until(relay.step)
    assert worker.recv_multipart() == [b"client", b"x"]


# One socket as both ends


def test_rep_with_itself(engine: str, net: Network, transport: str) -> None:
    echo = net.bound(zmq.REP, transport)
    client = net.peer(echo, zmq.REQ)
    relay = zdev.Relay(echo, echo)
    with running(relay):
        for message in MESSAGES:
            client.send_multipart(message)
            assert client.recv_multipart() == message
    there, back, _ = relay.statistics()
    assert there == (*sizes(MESSAGES) * 2, 0, 0, 0, 0)
    assert back == NOTHING


def test_one_socket_has_one_direction(engine: str, net: Network) -> None:
    echo = net.bound(zmq.PAIR)
    client = net.peer(echo, zmq.PAIR)
    relay = zdev.Relay(echo, echo, burst=1)
    for _ in range(3):
        client.send(b"x")
    assert [relay.step() for _ in range(4)] == [1, 1, 1, 0]
    assert relay.statistics()[:2] == ((3, 3, 3, 3, 3, 3, 0, 0, 0, 0), NOTHING)


@pytest.mark.parametrize("kind", [zmq.PAIR, zmq.DEALER])
def test_echo(engine: str, net: Network, transport: str, kind: int) -> None:
    echo = net.bound(kind, transport)
    client = net.peer(echo, kind)
    with running(zdev.Relay(echo, echo)):
        for message in MESSAGES:
            client.send_multipart(message)
        assert [client.recv_multipart() for _ in MESSAGES] == MESSAGES


def test_router_with_itself_echoes_in_proxy(engine: str, net: Network, transport: str) -> None:
    echo = net.bound(zmq.ROUTER, transport)
    clients = [net.peer(echo, zmq.DEALER) for _ in range(2)]
    with proxied(echo, echo, net):
        for number, client in enumerate(clients):
            client.send_multipart([b"%d" % number, b"x"])
        for number, client in enumerate(clients):
            assert client.recv_multipart() == [b"%d" % number, b"x"]


def test_router_with_itself_is_a_switch_in_monitored_queue(
    engine: str, net: Network, transport: str
) -> None:
    switch = net.bound(zmq.ROUTER, transport, router_mandatory=1)
    mon = net.bound(zmq.PUSH)
    monitor = net.peer(mon, zmq.PULL)
    names = [b"a", b"b", b"c"]
    peers = {name: net.peer(switch, zmq.DEALER, routing_id=name) for name in names}
    for name in names:
        peers[name].send(b"hello")
        assert switch.recv_multipart() == [name, b"hello"]
    background = Background(zdev.monitored_queue, switch, switch, mon)
    for sender in names:
        for receiver in names:
            peers[sender].send_multipart([receiver, b"x"])
            assert peers[receiver].recv_multipart() == [sender, b"x"]
            assert monitor.recv_multipart() == [b"in", receiver, sender, b"x"]
    assert isinstance(net.terminate(background), zmq.ContextTerminated)


# Raw TCP


def tunnelled(data: bytes, sender: tcp.socket, receiver: tcp.socket) -> None:
    sender.sendall(data)
    received = b""
    while len(received) < len(data):
        received += receiver.recv(65536)
    assert received == data


def test_stream_to_stream(engine: str, net: Network) -> None:
    """A TCP tunnel: equal routing ids on both sides carry each connection through."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(tcp.create_server(("127.0.0.1", 0))) for _ in range(2)]
        frontend = net.socket(zmq.STREAM, stream_notify=0)
        backend = net.socket(zmq.STREAM, stream_notify=0)
        ends = []
        for server, socket in zip(servers, (frontend, backend)):
            server.settimeout(DEADLINE)
            socket.setsockopt(zmq.CONNECT_ROUTING_ID, b"tunnel")
            socket.connect(f"tcp://127.0.0.1:{server.getsockname()[1]}")
            end = stack.enter_context(server.accept()[0])
            end.settimeout(DEADLINE)
            ends.append(end)
        relay = zdev.Relay(frontend, backend)
        there, back = b"x" * 100_000, b"GET / HTTP/1.0\r\n\r\n"
        with running(relay):
            tunnelled(there, *ends)
            tunnelled(back, *reversed(ends))
        out, home, _ = relay.statistics()
        assert out.bytes_sent == out.bytes_received == len(there) + 6 * out.messages_sent
        assert home == (1, 2, len(back) + 6, 1, 2, len(back) + 6, 0, 0, 0, 0)


def test_stream_with_itself(engine: str, net: Network) -> None:
    echo = net.bound(zmq.STREAM, "tcp", stream_notify=0)
    port = int(echo.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])
    with running(zdev.Relay(echo, echo)), contextlib.ExitStack() as stack:
        for line in (b"first", b"second"):
            client = stack.enter_context(tcp.create_connection(("127.0.0.1", port), DEADLINE))
            tunnelled(line, client, client)


# Captures


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("kind", "peer"),
    [
        (zmq.PUB, zmq.SUB),
        (zmq.XPUB, zmq.SUB),
        (zmq.XPUB, zmq.XSUB),
        (zmq.PUSH, zmq.PULL),
        (zmq.PAIR, zmq.PAIR),
        (zmq.DEALER, zmq.DEALER),
        (zmq.DEALER, zmq.ROUTER),
        (zmq.ROUTER, zmq.DEALER),
    ],
)
def test_captures(engine: str, net: Network, transport: str, kind: int, peer: int) -> None:
    frontend, backend = net.bound(zmq.PAIR), net.bound(zmq.PAIR)
    left, right = net.peer(frontend, zmq.PAIR), net.peer(backend, zmq.PAIR)
    capture = net.bound(kind, transport)
    # a ROUTER takes the prefix for the address: with it, a capture goes to the one who is named so
    monitor = net.peer(capture, peer, routing_id=b"there")
    backward = net.peer(capture, peer, routing_id=b"back") if kind == zmq.ROUTER else monitor
    if peer == zmq.SUB:
        monitor.subscribe(b"")
    elif peer == zmq.XSUB:
        monitor.send(b"\x01")
    relay = zdev.Relay(frontend, backend, capture, in_prefix="there", out_prefix="back")
    with running(relay):
        sent = ready(left, right, monitor, backward)
        for message in MESSAGES:
            left.send_multipart(message)
            assert right.recv_multipart() == message
            assert copy(monitor, kind, peer) == strip([b"there", *message], kind)
            right.send_multipart(message)
            assert left.recv_multipart() == message
            assert copy(backward, kind, peer) == strip([b"back", *message], kind)
    sent += 2 * len(MESSAGES)
    assert relay.statistics().capture == (sent, 0, 0)


def strip(message: list[bytes], kind: int) -> list[bytes]:
    """Return what a peer of a capture sees of it: an address is not for its owner."""
    return message[1:] if kind == zmq.ROUTER else message


def copy(monitor: zmq.Socket[bytes], kind: int, peer: int) -> list[bytes]:
    """Receive a copy, without the address that a ROUTER puts in front."""
    message = monitor.recv_multipart()
    return message[1:] if peer == zmq.ROUTER else message


def ready(
    left: zmq.Socket[bytes],
    right: zmq.Socket[bytes],
    monitor: zmq.Socket[bytes],
    backward: zmq.Socket[bytes],
) -> int:
    """Send until the captures arrive on both monitors; return how many were made."""
    sent = 0
    for sender, receiver, to in ((left, right, monitor), (right, left, backward)):
        to.rcvtimeo = 1
        while True:
            sender.send(b"ready?")
            sent += 1
            assert receiver.recv() == b"ready?"
            with contextlib.suppress(zmq.Again):
                to.recv_multipart()
                break
        to.rcvtimeo = int(DEADLINE * 1000)
        sender.send(b"ready")
        sent += 1
        assert receiver.recv() == b"ready"
        while to.recv_multipart()[-1] != b"ready":
            pass
    return sent
