"""Options that change what a socket or its bytes mean, through every kind of device.

libzmq's own proxy says what is right: each scene is played with it, too, and what the peers see
must be the same.
"""

from __future__ import annotations

import contextlib
import functools
import socket as tcp
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Callable

import pytest
import zmq

import zdev

from ..support import DEADLINE, Background, Network
from .background import Devices

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

ANY = "tcp://127.0.0.1:*"
Options = dict[int, Any]
Ends = tuple[str, str]


@dataclass(frozen=True)
class Scene:
    """The sockets of a device, and what their peers do; `play` returns what they see."""

    frontend: int
    backend: int
    play: Callable[[Network, Ends], Any]
    in_options: Options = field(default_factory=dict)
    out_options: Options = field(default_factory=dict)
    right: Any = None
    """What they should see where libzmq's proxy fails."""


# Devices


@contextlib.contextmanager
def function_device(function: Callable[..., Any], scene: Scene, **said: Any) -> Iterator[Ends]:
    """Run a function that blocks until its context ends, in a thread."""
    context = zmq.Context()

    def relay(*ends: zmq.Socket[Any]) -> None:
        with contextlib.suppress(zmq.ContextTerminated), ends[0], ends[1]:
            function(*ends, **said)

    ends = [context.socket(kind) for kind in (scene.frontend, scene.backend)]
    for end, options in zip(ends, (scene.in_options, scene.out_options)):
        end.linger = 0
        for option, value in options.items():
            end.setsockopt(option, value)
        end.bind(ANY)
    addresses = [end.last_endpoint.decode() for end in ends]
    background = Background(relay, *ends)
    try:
        yield addresses[0], addresses[1]
    finally:
        term = Background(context.term)
        background.join()
        term.join()


@contextlib.contextmanager
def class_device(launcher: str, scene: Scene) -> Iterator[Ends]:
    """Run a device that makes its own sockets."""
    devices = Devices(launcher)
    device = devices("Proxy", scene.frontend, scene.backend)
    for option, value in scene.in_options.items():
        device.setsockopt_in(option, value)
    for option, value in scene.out_options.items():
        device.setsockopt_out(option, value)
    device.bind_in(ANY)
    device.bind_out(ANY)
    with device:
        yield device.endpoints["in"][0], device.endpoints["out"][0]


def relay_of(*ends: zmq.Socket[Any], **said: Any) -> None:
    zdev.Relay(*ends, swap=False, **said).run()


def by(name: str, scene: Scene) -> contextlib.AbstractContextManager[Ends]:
    """Run a device by its name; functions are told what they cannot learn from libzmq."""
    said = {"only_first_subscribe": zmq.ONLY_FIRST_SUBSCRIBE in scene.in_options}
    if name == "proxy":
        return function_device(zdev.proxy, scene, **said)
    if name == "Relay":
        return function_device(relay_of, scene, **said)
    return class_device(name, scene)


# Peers


def connected(net: Network, kind: int, address: str, **options: Any) -> zmq.Socket[bytes]:
    socket = net.socket(kind, **options)
    socket.connect(address)
    return socket


def queue(net: Network, ends: Ends) -> Any:
    """A request and its reply."""
    client, worker = connected(net, zmq.REQ, ends[0]), connected(net, zmq.REP, ends[1])
    client.send_multipart([b"question", b"?"])
    question = worker.recv_multipart()
    worker.send_multipart([b"answer", b"!"])
    return question, client.recv_multipart()


def conflated(net: Network, ends: Ends) -> Any:
    """Of many messages the last one comes, and none after a later one."""
    source, sink = connected(net, zmq.PUSH, ends[0]), connected(net, zmq.PULL, ends[1])
    for number in range(200):
        source.send(b"%d" % number)
    seen = [int(sink.recv())]
    while seen[-1] != 199:
        seen.append(int(sink.recv()))
    return seen == sorted(set(seen))


def relaxed(net: Network, ends: Ends) -> Any:
    """A second request without a reply to the first, whose reply then comes too late."""
    client = connected(net, zmq.REQ, ends[0], req_correlate=1, req_relaxed=1)
    worker = connected(net, zmq.REP, ends[1])
    client.send(b"one")
    seen = [worker.recv()]
    client.send(b"two")
    worker.send(b"to one")
    seen.append(worker.recv())
    worker.send(b"to two")
    return seen, client.recv()


def correlated(net: Network, ends: Ends) -> Any:
    """What a REQ with REQ_CORRELATE puts before a request, and takes with the reply."""
    client, worker = connected(net, zmq.REQ, ends[0]), connected(net, zmq.ROUTER, ends[1])
    client.send(b"question")
    device, number, *question = worker.recv_multipart()
    worker.send_multipart([device, b"none", b"", b"for nobody"])
    worker.send_multipart([device, number, b"", b"answer"])
    return len(number), question, client.recv()


def probed(net: Network, ends: Ends) -> Any:
    """The probe of a DEALER is a message without content."""
    connected(net, zmq.DEALER, ends[0], routing_id=b"client", probe_router=1)
    return connected(net, zmq.DEALER, ends[1]).recv_multipart()


def probing(net: Network, ends: Ends) -> Any:
    """The device's own probe says nothing to its peers that they did not ask for."""
    worker = connected(net, zmq.ROUTER, ends[1], routing_id=b"worker")
    probe = worker.recv_multipart()[1:]
    client = connected(net, zmq.DEALER, ends[0], routing_id=b"client")
    client.send(b"hello")
    return probe, worker.recv_multipart()[1:]


def handed_over(net: Network, ends: Ends) -> Any:
    """Of two clients with one name, the last has it."""
    worker = connected(net, zmq.DEALER, ends[1])
    seen = []
    clients = []
    for number in (b"1", b"2"):
        clients.append(connected(net, zmq.DEALER, ends[0], routing_id=b"name"))
        clients[-1].send(number)
        seen.append(worker.recv_multipart())
    worker.send_multipart([b"name", b"answer"])
    return seen, clients[1].recv()


def mandatory(net: Network, ends: Ends) -> Any:
    """What is for nobody holds nobody up."""
    client, worker = connected(net, zmq.DEALER, ends[0]), connected(net, zmq.DEALER, ends[1])
    client.send(b"question")
    name, _ = worker.recv_multipart()
    worker.send_multipart([b"nobody", b"lost"])
    worker.send_multipart([name, b"answer"])
    return client.recv()


def known(net: Network, ends: Ends) -> Any:
    """Peers that are there get what is for them."""
    client, worker = connected(net, zmq.DEALER, ends[0]), connected(net, zmq.DEALER, ends[1])
    client.send_multipart([b"a", b"b"])
    name, *question = worker.recv_multipart()
    worker.send_multipart([name, b"answer"])
    return question, client.recv_multipart()


def raw(net: Network, ends: Ends) -> Any:
    """A client that speaks no ZMTP."""
    worker = connected(net, zmq.DEALER, ends[1])
    host, _, port = ends[0].rpartition("/")[2].partition(":")
    with tcp.create_connection((host, int(port)), DEADLINE) as client:
        client.sendall(b"GET /")
        name, data = worker.recv_multipart()
        seen = [data]
        while data != b"GET /":  # a STREAM may tell of the connection first
            name, data = worker.recv_multipart()
            seen.append(data)
        worker.send_multipart([name, b"200"])
        answer = client.recv(100)
        client.shutdown(tcp.SHUT_RDWR)
    return len(name), seen, answer


def notified(net: Network, ends: Ends) -> Any:
    """And a STREAM that tells of the end of the connection."""
    worker = connected(net, zmq.DEALER, ends[1])
    host, _, port = ends[0].rpartition("/")[2].partition(":")
    tcp.create_connection((host, int(port)), DEADLINE).close()
    return [worker.recv_multipart()[1:] for _ in range(2)]


def repeated(net: Network, ends: Ends) -> Any:
    """Which subscriptions to one topic, and which cancellations, go upstream."""
    publisher = net.socket(zmq.XPUB)
    publisher.setsockopt(zmq.XPUB_VERBOSER, 1)
    publisher.connect(ends[0])
    seen = []
    readers = []
    for topic in (b"a", b"a", b"b"):
        readers.append(connected(net, zmq.XSUB, ends[1]))
        readers[-1].send(b"\1" + topic)
        if len(readers) != 2:  # whether the second is heard of is the question
            while seen[-1:] != [b"\1" + topic]:
                seen.append(publisher.recv())
        else:  # it has been heard of once its message comes
            readers[-1].send(b"\2mark")
            while seen[-1:] != [b"\2mark"]:
                seen.append(publisher.recv())
    for reader, mark in zip(readers[:2], (b"\2one", b"\2two")):
        reader.send(b"\0a")
        reader.send(mark)
        while seen[-1:] != [mark]:
            seen.append(publisher.recv())
    return seen


def slow(net: Network, ends: Ends) -> Any:
    """Nothing is lost for a subscriber that does not read."""
    reader = connected(net, zmq.SUB, ends[1], rcvhwm=1, rcvbuf=4096)
    reader.subscribe(b"")
    source = connected(net, zmq.PUSH, ends[0])
    while not reader.poll(10):  # until it is heard of
        source.send(b"early")
    numbers = [b"%d" % number + bytes(50_000) for number in range(200)]
    sender = Background(lambda: [source.send(number) for number in numbers])
    seen = [message for message in iter(reader.recv, numbers[-1]) if message != b"early"]
    sender.join()
    return seen == numbers[:-1]


def manual(net: Network, ends: Ends) -> Any:
    """A subscription that nobody confirms goes upstream, and brings nothing."""
    publisher = connected(net, zmq.XPUB, ends[0])
    reader = connected(net, zmq.SUB, ends[1])
    reader.subscribe(b"a")
    seen = publisher.recv()
    publisher.send(b"a1")
    return seen, reader.poll(100)


def welcomed(net: Network, ends: Ends) -> Any:
    """Who subscribes is welcomed, and then gets what is published."""
    publisher = connected(net, zmq.XPUB, ends[0])
    reader = connected(net, zmq.SUB, ends[1])
    reader.subscribe(b"")
    seen = publisher.recv(), reader.recv()
    publisher.send(b"news")
    return seen, reader.recv()


def inverted(net: Network, ends: Ends) -> Any:
    """A subscription keeps away what matches it."""
    publisher = connected(net, zmq.XPUB, ends[0], invert_matching=1)
    reader = connected(net, zmq.SUB, ends[1], invert_matching=1)
    reader.subscribe(b"a")
    seen = [publisher.recv()]
    for message in (b"a1", b"b1", b"a2", b"b2"):
        publisher.send(message)
    return seen, [reader.recv() for _ in range(2)]


def first_only(net: Network, ends: Ends) -> Any:
    """Data goes upstream, whatever is in its later frames; subscriptions go, too."""
    publisher = connected(net, zmq.XPUB, ends[0], only_first_subscribe=1)
    reader = connected(net, zmq.XSUB, ends[1], only_first_subscribe=1)
    reader.send(b"\1news")
    for message in ([b"data", bytes(10_000)], [b"data", b"\1" * 9_000, b"\0a"], [b"end"]):
        reader.send_multipart(message)
    seen = [publisher.recv_multipart() for _ in range(4)]
    publisher.send(b"news")
    return seen, reader.recv()


SERVER, CLIENT = (zmq.curve_keypair() for _ in range(2)) if zmq.has("curve") else (None, None)


def encrypted(net: Network, ends: Ends) -> Any:
    """A client with the server's key is served."""
    assert SERVER
    assert CLIENT
    keys = {
        "curve_serverkey": SERVER[0],
        "curve_publickey": CLIENT[0],
        "curve_secretkey": CLIENT[1],
    }
    client, worker = connected(net, zmq.REQ, ends[0], **keys), connected(net, zmq.REP, ends[1])
    client.send(b"question")
    question = worker.recv()
    worker.send(b"answer")
    return question, client.recv()


def admitted(net: Network, ends: Ends) -> Any:
    """A device whose name and password are right gets to a worker that asks for them."""
    zap = net.socket(zmq.REP)
    zap.bind("inproc://zeromq.zap.01")
    client, worker = connected(net, zmq.REQ, ends[0]), net.socket(zmq.REP, plain_server=1)
    worker.connect(ends[1])
    client.send(b"question")
    version, number, *_, mechanism, name, word = zap.recv_multipart()
    zap.send_multipart([version, number, b"200", b"", name, b""])
    question = worker.recv()
    worker.send(b"answer")
    return mechanism, name, word, question, client.recv()


BEATING = {zmq.HEARTBEAT_IVL: 20, zmq.HEARTBEAT_TIMEOUT: 5000, zmq.HEARTBEAT_TTL: 5000}
PLAIN = {zmq.PLAIN_USERNAME: b"name", zmq.PLAIN_PASSWORD: b"word"}
ONLY_FIRST = {zmq.ONLY_FIRST_SUBSCRIBE: 1}

SCENES = {
    "nothing set": Scene(zmq.ROUTER, zmq.DEALER, queue),
    "CONFLATE": Scene(zmq.PULL, zmq.PUSH, conflated, {zmq.CONFLATE: 1}, {zmq.CONFLATE: 1}),
    "IMMEDIATE": Scene(zmq.ROUTER, zmq.DEALER, queue, {zmq.IMMEDIATE: 1}, {zmq.IMMEDIATE: 1}),
    "REQ_RELAXED": Scene(zmq.ROUTER, zmq.DEALER, relaxed),
    "REQ_CORRELATE": Scene(
        zmq.REP,
        zmq.REQ,
        correlated,
        out_options={zmq.REQ_CORRELATE: 1},
        right=(4, [b"", b"question"], b"answer"),  # zmq_proxy ends with EFSM
    ),
    "PROBE_ROUTER of a peer": Scene(zmq.ROUTER, zmq.DEALER, probed),
    "PROBE_ROUTER": Scene(zmq.ROUTER, zmq.DEALER, probing, {}, {zmq.PROBE_ROUTER: 1}),
    "ROUTER_HANDOVER": Scene(zmq.ROUTER, zmq.DEALER, handed_over, {zmq.ROUTER_HANDOVER: 1}),
    "ROUTER_MANDATORY": Scene(zmq.ROUTER, zmq.DEALER, known, {zmq.ROUTER_MANDATORY: 1}),
    "ROUTER_MANDATORY, and nobody": Scene(
        zmq.ROUTER,
        zmq.DEALER,
        mandatory,
        {zmq.ROUTER_MANDATORY: 1},
        right=b"answer",  # zmq_proxy ends with EHOSTUNREACH
    ),
    "ROUTER_RAW": Scene(zmq.ROUTER, zmq.DEALER, raw, {zmq.ROUTER_RAW: 1}),
    "STREAM_NOTIFY": Scene(zmq.STREAM, zmq.DEALER, notified, {zmq.STREAM_NOTIFY: 1}),
    "no STREAM_NOTIFY": Scene(zmq.STREAM, zmq.DEALER, raw, {zmq.STREAM_NOTIFY: 0}),
    "no XPUB_VERBOSE": Scene(zmq.XSUB, zmq.XPUB, repeated),
    "XPUB_VERBOSE": Scene(zmq.XSUB, zmq.XPUB, repeated, {}, {zmq.XPUB_VERBOSE: 1}),
    "XPUB_VERBOSER": Scene(zmq.XSUB, zmq.XPUB, repeated, {}, {zmq.XPUB_VERBOSER: 1}),
    "XPUB_NODROP": Scene(zmq.PULL, zmq.XPUB, slow, {}, {zmq.XPUB_NODROP: 1, zmq.SNDHWM: 1}),
    "XPUB_MANUAL": Scene(zmq.XSUB, zmq.XPUB, manual, {}, {zmq.XPUB_MANUAL: 1}),
    "XPUB_WELCOME_MSG": Scene(zmq.XSUB, zmq.XPUB, welcomed, {}, {zmq.XPUB_WELCOME_MSG: b"hello"}),
    "INVERT_MATCHING": Scene(zmq.XSUB, zmq.XPUB, inverted, {}, {zmq.INVERT_MATCHING: 1}),
    "ONLY_FIRST_SUBSCRIBE": Scene(zmq.XSUB, zmq.XPUB, first_only, ONLY_FIRST, ONLY_FIRST),
    "HEARTBEAT": Scene(zmq.ROUTER, zmq.DEALER, queue, BEATING, BEATING),
    "PLAIN": Scene(zmq.ROUTER, zmq.DEALER, admitted, {}, PLAIN),
}
if SERVER:
    CURVE = {zmq.CURVE_SERVER: 1, zmq.CURVE_SECRETKEY: SERVER[1], zmq.CURVE_PUBLICKEY: SERVER[0]}
    SCENES["CURVE"] = Scene(zmq.ROUTER, zmq.DEALER, encrypted, CURVE)


@functools.cache
def expected(name: str) -> Any:
    """Return what the peers see of libzmq's own proxy."""
    if SCENES[name].right is not None:
        return SCENES[name].right
    net = Network()
    try:
        with function_device(zmq.proxy, SCENES[name]) as ends:
            return SCENES[name].play(net, ends)
    finally:
        net.close()


@pytest.mark.parametrize("device", ["proxy", "Relay", "Thread", "Process"])
@pytest.mark.parametrize("name", SCENES)
def test_a_device_does_what_libzmq_does(engine: str, net: Network, name: str, device: str) -> None:
    right = expected(name)
    with by(device, SCENES[name]) as ends:
        assert SCENES[name].play(net, ends) == right
