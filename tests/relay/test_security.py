"""What SECURITY.md promises: hostile peers, on the wire and by their messages.

Each test has an honest peer, which must be served as if nobody else was there.
"""

from __future__ import annotations

import contextlib
import os
import platform
import random
import re
import socket as tcp
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

import zdev

from ..support import DEADLINE, Network, fill, running, wait_until

ROOT = Path(__file__).resolve().parents[2]

# ZMTP 3, from the outside: https://rfc.zeromq.org/spec/23/
MORE, LONG, COMMAND = 1, 2, 4
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)

# The largest frame that the devices here take.
LIMIT = 100_000


def frame(body: bytes, flags: int = 0) -> bytes:
    """Return a frame as it goes over the wire."""
    if len(body) > 255:
        return struct.pack(">BQ", flags | LONG, len(body)) + body
    return struct.pack(">BB", flags, len(body)) + body


def command(name: bytes, data: bytes = b"") -> bytes:
    return frame(bytes([len(name)]) + name + data, COMMAND)


def ready(kind: bytes = b"DEALER", identity: bytes = b"") -> bytes:
    """Return the command that ends the handshake."""
    pairs = {b"Socket-Type": kind, b"Identity": identity}
    return command(
        b"READY",
        b"".join(
            bytes([len(key)]) + key + struct.pack(">I", len(value)) + value
            for key, value in pairs.items()
        ),
    )


def shake(connection: tcp.socket, kind: bytes = b"DEALER", identity: bytes = b"") -> None:
    """Open the connection as ZeroMQ does: nothing may follow READY before the other's has come."""
    connection.sendall(GREETING + ready(kind, identity))
    answer = b""
    while b"READY" not in answer:
        received = connection.recv(1000)
        assert received, "hung up"
        answer += received


@contextlib.contextmanager
def stranger(of: zmq.Socket[bytes]) -> Iterator[tcp.socket]:
    """Connect to a bound socket without ZeroMQ."""
    port = int(of.getsockopt_string(zmq.LAST_ENDPOINT).rsplit(":", 1)[1])
    with tcp.create_connection(("127.0.0.1", port), timeout=DEADLINE) as connection:
        yield connection


def hung_up(connection: tcp.socket) -> bool:
    """Read until the device ends the connection."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        pass
    return True


class Service:
    """A queue with a client and a worker who do as they should."""

    def __init__(self, net: Network, **options: int) -> None:
        self.frontend = net.bound(zmq.ROUTER, "tcp", maxmsgsize=LIMIT, **options)
        self.backend = net.bound(zmq.DEALER)
        self.relay = zdev.Relay(self.frontend, self.backend)
        self.client = net.peer(self.frontend, zmq.REQ, routing_id=b"honest")
        self.worker = net.peer(self.backend, zmq.ROUTER)
        self._asked = 0

    def ask(self) -> None:
        self._asked += 1
        self.client.send(b"%d" % self._asked)

    def answer(self) -> list[bytes]:
        """Answer the next request; return its sender and what it asked."""
        worker, *envelope, question = self.worker.recv_multipart()
        self.worker.send_multipart([worker, *envelope, question])
        return [envelope[0], question]

    def works(self, *, strangers: bool = False) -> bool:
        """Have a request answered; tell whether it was the next one, unless strangers may ask too."""
        self.ask()
        asked = b"%d" % self._asked
        question = self.answer()
        while strangers and question[0] != b"honest":
            question = self.answer()
        return question == [b"honest", asked] and self.client.recv() == asked


# On the wire

# Nothing of it is a message. (HTTP would be some, of ZMTP 1, which has no greeting.)
UNSHAKEN = {
    "nothing": b"",
    "ones": b"\xff" * 4096,
    "a part of a greeting": GREETING[:30],
    "a greeting": GREETING,
    "a greeting of ZMTP 1": b"\x01\x00",
    "a greeting of ZMTP 2": b"\xff" + bytes(8) + b"\x7f\x01\x05\x00\x00",
    "a greeting of ZMTP 255": GREETING[:10] + b"\xff\xff" + GREETING[12:],
    "an unknown mechanism": GREETING.replace(b"NULL", b"NONE"),
    "a message before READY": GREETING + frame(b"hello"),
    "an unknown command instead of READY": GREETING + command(b"STEADY"),
    "READY without a type": GREETING + command(b"READY"),
    "READY of a type that does not fit": GREETING + ready(b"PUB"),
    "READY with a length that lies": GREETING
    + command(b"READY", b"\x0bSocket-Type\xff\xff\xff\xff"),
    "READY with a name that is cut": GREETING + command(b"READY", b"\xffSock"),
    "READY with an enormous identity": GREETING + ready(identity=b"x" * 5000),
}
# Likewise, after the handshake
SHAKEN = {
    "READY twice": ready(),
    "ERROR": command(b"ERROR", b"\x04none"),
    "an unknown command": command(b"STEADY", b"x" * 200),
    "a command without a name": frame(b"", COMMAND),
    "a command whose name is cut": frame(b"\xffPI", COMMAND),
    "a command with more to come": frame(b"\x04PING", COMMAND | MORE),
    "PING that is cut": command(b"PING"),
    "PING with a long context": command(b"PING", b"\xff\xff" + b"x" * 300),
    "a frame that is cut": frame(b"hello world")[:-3],
    "a length that is cut": b"\x02\0\0\0",
    "a frame over the limit": frame(bytes(LIMIT + 1)),
    "a length of 4 EiB": struct.pack(">BQ", LONG, 1 << 62) + b"x",
    "a negative length": struct.pack(">BQ", LONG, (1 << 64) - 1) + b"x",
    "a message without an end": frame(b"part", MORE) * 3000,
    "a message without an end, over the limit": frame(b"part", MORE)
    + struct.pack(">BQ", LONG | MORE, 1 << 40),
}
NOISE = [(False, *item) for item in UNSHAKEN.items()] + [(True, *item) for item in SHAKEN.items()]


@pytest.mark.parametrize("stays", [False, True], ids=["leaves", "stays"])
def test_noise_on_the_wire(engine: str, net: Network, stays: bool) -> None:
    """None of it becomes a message, whether its sender stays connected or not."""
    service = Service(net)
    with running(service.relay), contextlib.ExitStack() as strangers:
        for shaken, name, noise in NOISE:
            connection = strangers.enter_context(stranger(service.frontend))
            if shaken:
                shake(connection)
            with contextlib.suppress(ConnectionError):  # the device may hang up at once
                connection.sendall(noise)
            if not stays:
                connection.close()
            assert service.works(), name
        there = service.relay.statistics().frontend_to_backend
        assert there.messages_received == there.messages_sent == len(NOISE)


def test_random_noise_on_the_wire(engine: str, net: Network) -> None:
    """What starts well and goes on at random may be messages; the honest one gets its answers."""
    dice = random.Random(engine)
    service = Service(net)
    with running(service.relay):
        for _ in range(100):
            start = dice.choice([b"", b"GET / HTTP/1.1\r\n\r\n" * 20, GREETING, None])
            with stranger(service.frontend) as connection:
                if start is None:
                    shake(connection)
                connection.sendall((start or b"") + dice.randbytes(dice.randrange(200)))
            assert service.works(strangers=True)
    assert service.relay.statistics().backend_to_frontend.parked == 0


def test_a_frame_over_maxmsgsize_ends_its_connection(engine: str, net: Network) -> None:
    """Also as a later frame of a message, of which nothing is delivered then."""
    service = Service(net)
    with running(service.relay):
        for before in (b"", frame(b"first", MORE)):
            with stranger(service.frontend) as connection:
                shake(connection)
                connection.sendall(before + struct.pack(">BQ", LONG, LIMIT + 1))
                assert hung_up(connection)
            assert service.works()
        with stranger(service.frontend) as connection:
            shake(connection)
            connection.sendall(frame(b"") + frame(b"x" * LIMIT))
            assert service.answer()[1] == b""
            assert len(service.answer()[1]) == LIMIT


def test_subscriptions_to_a_socket_that_has_none(engine: str, net: Network) -> None:
    """libzmq delivers these two commands to every type of socket, as if they were frames."""
    service = Service(net)
    with running(service.relay), stranger(service.frontend) as connection:
        shake(connection, identity=b"stranger")
        for noise in (command(b"SUBSCRIBE", b"x"), frame(b"", MORE) + command(b"CANCEL", b"y")):
            connection.sendall(noise + frame(b"end"))
            question = [b"stranger"]
            while question != [b"stranger", b"end"]:
                question = service.answer()
                assert question[0] == b"stranger"
            assert service.works()


def test_a_message_of_many_frames_is_one_message(engine: str, net: Network) -> None:
    """Not before its end is anything of it relayed; then all of it, and it blocks nobody."""
    service = Service(net)
    with running(service.relay), stranger(service.frontend) as connection:
        shake(connection)
        connection.sendall(frame(b"", MORE) + frame(b"part", MORE) * 20_000)
        assert service.works()
        assert service.relay.statistics().frontend_to_backend.messages_received == 1
        connection.sendall(frame(b"end"))
        assert len(service.worker.recv_multipart()) == 20_004
        assert service.works()


# Memory


@pytest.mark.parametrize("captured", [False, True])
def test_a_flood_fills_the_queues_and_one_message(
    engine: str, net: Network, captured: bool
) -> None:
    """Nobody reads at the far end: what the device holds of a flood is one message."""
    frontend = net.bound(zmq.PULL, rcvhwm=5)
    backend = net.bound(zmq.PUSH, sndhwm=5)
    capture = net.bound(zmq.PUSH, sndhwm=5) if captured else None
    flooder = net.peer(frontend, zmq.PUSH, sndhwm=5)
    sink = net.peer(backend, zmq.PULL, rcvhwm=5)
    monitor = net.peer(capture, zmq.PULL, rcvhwm=2) if capture else None
    relay = zdev.Relay(frontend, backend, capture)
    # A pipe within a process has both its ends' high-water marks.
    far = 7 if captured else 10

    def settled() -> bool:
        fill(flooder)
        there, _, copies = relay.statistics()
        return there.messages_sent >= far and there.parked + copies.parked == 1

    with running(relay):
        wait_until(settled)
        fill(flooder)
        there, _, copies = relay.statistics()
        assert there.messages_received == (there.messages_sent + there.parked)
        assert there.messages_received <= 11
        assert there.parked + copies.parked == 1
        for _ in range(3 * there.messages_received):
            assert sink.recv() == b"full"
            if monitor:
                assert monitor.recv() == b"full"
            fill(flooder)


def test_many_identities_come_and_go(engine: str, net: Network) -> None:
    """Answers to those who left are dropped, and nobody else gets them."""
    service = Service(net)
    with running(service.relay):
        for number in range(200):
            identity = b"stranger %d" % number
            with stranger(service.frontend) as connection:
                shake(connection, identity=identity)
                connection.sendall(frame(b"me too"))
                worker, sender, question = service.worker.recv_multipart()
                assert (sender, question) == (identity, b"me too")
            service.worker.send_multipart([worker, sender, question])
            if number % 10 == 0:
                assert service.works()
        wait_until(lambda: service.relay.statistics().backend_to_frontend.messages_sent == 200 + 20)


def test_many_and_long_subscriptions(engine: str, net: Network) -> None:
    """They go upstream, if they harm nobody; who has subscribed to less gets no more for it."""
    frontend, backend = net.bound(zmq.XSUB), net.bound(zmq.XPUB, "tcp", maxmsgsize=LIMIT)
    relay = zdev.Relay(frontend, backend)
    publisher, honest = net.peer(frontend, zmq.XPUB), net.peer(backend, zmq.SUB)
    with running(relay):
        honest.subscribe(b"news")
        assert publisher.recv() == b"\1news"
        with stranger(backend) as connection:
            shake(connection, b"SUB")
            for number in range(1000):
                connection.sendall(frame(b"\1topic %d" % number) + frame(b"\0never %d" % number))
            connection.sendall(frame(b"\1" + b"x" * 2048))
            topics = {publisher.recv() for _ in range(1001)}
            assert max(map(len, topics)) == 2049
            publisher.send(b"topic 7")
            publisher.send(b"news")
            assert honest.recv() == b"news"
            connection.sendall(frame(b"\1" + b"x" * LIMIT))
            assert hung_up(connection)
        publisher.send(b"more news")
        publisher.send(b"news again")
        assert honest.recv() == b"news again"


def test_a_subscription_that_would_crash_libzmq(engine: str, net: Network) -> None:
    """An XSUB's stack would overflow, at the latest when it is closed: it never sees that."""
    long = b"x" * 2049
    frontend, backend = net.bound(zmq.XSUB), net.bound(zmq.XPUB, "tcp")
    relay = zdev.Relay(frontend, backend)
    publisher, honest = net.peer(frontend, zmq.XPUB), net.peer(backend, zmq.SUB)
    with running(relay), stranger(backend) as connection:
        shake(connection, b"SUB")
        for topic in (long, long * 50):
            connection.sendall(frame(b"\1" + topic) + frame(b"\0" + topic) + frame(b"\1" + topic))
        connection.sendall(frame(b"\2" + long))  # what is none may be as long as it likes
        assert publisher.recv() == b"\2" + long
        connection.close()  # then libzmq cancels both
        wait_until(lambda: relay.statistics().backend_to_frontend.dropped == 8)
        honest.subscribe(b"news")
        assert publisher.recv() == b"\1news"
        publisher.send(b"news")
        assert honest.recv() == b"news"


@pytest.mark.skipif(
    platform.python_implementation() == "PyPy", reason="PyPy itself wants a larger stack"
)
def test_the_longest_subscription_fits_into_a_small_stack(engine: str) -> None:
    """In each of libzmq's recursions: to cancel it, to show it to a publisher, and to close.

    Every level of the tree branches: that takes most.
    """
    code = """
import threading, zmq, zdev
with zmq.Context() as context:
    frontend, backend = context.socket(zmq.XSUB), context.socket(zmq.DEALER)
    peer = context.socket(zmq.DEALER)
    publishers = [context.socket(zmq.XPUB) for _ in range(2)]
    for end in (frontend, backend, peer, *publishers):
        end.linger, end.rcvhwm, end.sndhwm = 0, 0, 0
    frontend.bind("inproc://f")
    backend.bind("inproc://b")
    peer.connect("inproc://b")
    relay = zdev.Relay(frontend, backend)
    threading.stack_size(512 * 1024)
    thread = threading.Thread(target=relay.run)
    thread.start()
    longest = b"x" * 2048
    for size in range(len(longest)):
        peer.send(b"\\1" + longest[:size] + b"y")
    for frame in (b"\\1", b"\\0", b"\\1"):
        peer.send(frame + longest)
    peer.send(b"\\2end")
    for publisher in publishers:
        publisher.connect("inproc://f")
        while publisher.recv() != b"\\1" + longest:
            pass
    assert relay.statistics().backend_to_frontend.dropped == 0
    relay.stop()
    thread.join()
    for end in (frontend, backend, peer, *publishers):
        end.close()
"""
    limited = 'ulimit -s 512 && exec "$0" -c "$1"'
    done = subprocess.run(
        ["/bin/sh", "-c", limited, sys.executable, code],
        env={**os.environ, "ZDEV_ENGINE": engine},
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_it_may_hide_in_any_frame_and_in_a_command(engine: str, net: Network) -> None:
    """Behind an XSUB there may be another socket than an XPUB, where peers send what they like."""
    long = b"x" * 500_000
    frontend, backend = net.bound(zmq.XSUB), net.bound(zmq.DEALER, "tcp")
    relay = zdev.Relay(frontend, backend)
    publisher = net.peer(frontend, zmq.XPUB)
    with running(relay), stranger(backend) as connection:
        shake(connection)
        for noise in (
            frame(b"\1" + long),
            frame(b"\2", MORE) + frame(b"\1" + long),
            frame(b"\2", MORE) * 40 + frame(b"\1" + long, MORE) + frame(b"\2"),
            command(b"SUBSCRIBE", long),
            command(b"CANCEL", long),
        ):
            connection.sendall(noise)
        connection.sendall(frame(b"\1end"))
        assert publisher.recv() == b"\1end"
        assert relay.statistics().backend_to_frontend.dropped == 5


# Whom a message reaches


@pytest.mark.parametrize("handover", [0, 1])
def test_who_takes_the_identity_of_another(engine: str, net: Network, handover: int) -> None:
    """The first who has it keeps it; with ROUTER_HANDOVER, the last who claims it gets it."""
    service = Service(net, router_handover=handover)
    with running(service.relay):
        assert service.works()
        service.ask()
        worker, sender, *request = service.worker.recv_multipart()
        with stranger(service.frontend) as thief, stranger(service.frontend) as other:
            shake(thief, identity=b"honest")
            thief.sendall(frame(b"mine"))
            if handover:
                assert service.answer() == [b"honest", b"mine"]
            else:  # its message is not even read: the next one is that of another
                shake(other, identity=b"other")
                other.sendall(frame(b"hello"))
                assert service.answer() == [b"other", b"hello"]
            service.worker.send_multipart([worker, sender, *request, b"secret"])
            if handover:
                received = b""
                while b"secret" not in received:
                    received += thief.recv(1000)
            else:
                assert service.client.recv_multipart()[-1] == b"secret"


def test_a_sender_cannot_be_forged(engine: str, net: Network) -> None:
    """Between two ROUTERs a client names the receiver; its own name is put there by libzmq."""
    frontend, backend = net.bound(zmq.ROUTER), net.bound(zmq.ROUTER)
    relay = zdev.Relay(frontend, backend)
    evil, good = (net.peer(frontend, zmq.DEALER, routing_id=name) for name in (b"evil", b"good"))
    here, there = (net.peer(backend, zmq.DEALER, routing_id=name) for name in (b"here", b"there"))
    with running(relay):
        for worker in (here, there):  # so that the device knows it
            worker.send_multipart([b"good", b"ready"])
            assert good.recv_multipart()[1:] == [b"ready"]
        evil.send_multipart([b"here", b"good", b"there", b"attack"])
        evil.send_multipart([b"good", b"across?"])  # clients reach no clients
        evil.send_multipart([b"nobody", b"lost"])
        evil.send_multipart([b"here", b"end"])
        assert here.recv_multipart() == [b"evil", b"good", b"there", b"attack"]
        assert here.recv_multipart() == [b"evil", b"end"]
        for quiet in (there, good, evil):
            assert not quiet.poll(0)


# Commands


def test_commands_are_heard_on_the_control_socket_only(engine: str, net: Network) -> None:
    """To the ends and to the capture they are messages like others."""
    frontend, backend, capture, control = (
        net.bound(kind) for kind in (zmq.DEALER, zmq.DEALER, zmq.DEALER, zmq.PULL)
    )
    one, two, monitor = (net.peer(end, zmq.DEALER) for end in (frontend, backend, capture))
    relay = zdev.Relay(frontend, backend, capture, control=control)
    with running(relay):
        for words in ([b"PAUSE"], [b"TERMINATE"], [b"STATISTICS"], [b"", b"TERMINATE"]):
            monitor.send_multipart(words)
            for sender, receiver in ((one, two), (two, one)):
                sender.send_multipart(words)
                assert receiver.recv_multipart() == words
                assert monitor.recv_multipart() == words
        assert not relay.paused


@pytest.mark.parametrize("kind", [zmq.REP, zmq.ROUTER, zmq.PAIR], ids=["REP", "ROUTER", "PAIR"])
def test_nonsense_on_the_control_socket(engine: str, net: Network, kind: int) -> None:
    """Is ignored, however large; a REQ is answered, or it could not ask again."""
    frontend, backend = net.bound(zmq.DEALER), net.bound(zmq.DEALER)
    control = net.bound(kind, "tcp", maxmsgsize=LIMIT)
    client, worker = net.peer(frontend, zmq.DEALER), net.peer(backend, zmq.DEALER)
    operator = net.peer(control, zmq.PAIR if kind == zmq.PAIR else zmq.REQ)
    relay = zdev.Relay(frontend, backend, control=control)
    nonsense = [
        [b""],
        [b"pause"],
        [b"PAUSE\0"],
        [b" TERMINATE"],
        [b"TERMINATETERMINATE"],
        [b"\xff" * 10],
        [b"x" * LIMIT],
        [b"x"] * 5000,
        [b"x", b"TERMINATE"],
    ]
    with running(relay):
        for message in nonsense:
            operator.send_multipart(message)
            if kind != zmq.PAIR:
                assert operator.recv_multipart() == [b""]
            client.send(b"question")
            assert worker.recv() == b"question"
        operator.send(b"STATISTICS")
        counts = operator.recv_multipart()
        assert len(counts) == 8
        assert struct.unpack("=Q", counts[0])[0] == len(nonsense)
        if kind != zmq.PAIR:  # the only peer of a PAIR is the operator
            for shaken, _, noise in NOISE:
                with stranger(control) as connection, contextlib.suppress(ConnectionError):
                    if shaken:
                        shake(connection, b"REQ")
                    connection.sendall(noise)
            operator.send(b"STATISTICS")
            assert len(operator.recv_multipart()) == 8


# The document


def test_each_promise_names_tests_that_exist() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", text)
    assert len(named) == text.count("`test_") > 10
    for name, function in named:
        (path,) = (ROOT / "tests").rglob(name)
        assert f"def {function}(" in path.read_text(), function
