"""The four functions: pyzmq's names, on every kind of pyzmq's sockets, to every end."""

from __future__ import annotations

import array
import inspect
import itertools
import logging
import struct
import sys
from collections.abc import Iterator
from typing import Any, Callable

import pytest
import zmq
import zmq.asyncio
from zmq.devices import monitored_queue as pyzmq_monitored_queue

import zdev
from zdev import _engines
from zdev._contract import FINISHED, Settings, Statistics

from ..gevent_programs import NO_GEVENT
from ..support import Background, Network, wait_until

PYZMQ: dict[str, Callable[..., Any]] = {
    "proxy": zmq.proxy,
    "device": zmq.device,
    "proxy_steerable": zmq.proxy_steerable,
    "monitored_queue": pyzmq_monitored_queue,
}
CONTROLLED = ["proxy_steerable", "monitored_queue"]


class Started:
    """One of the functions at work in the background, with the sockets it needs besides two."""

    def __init__(
        self,
        net: Network,
        name: str,
        frontend: zmq.Socket[Any],
        backend: zmq.Socket[Any],
        **options: Any,
    ) -> None:
        self.users: list[Background] = []
        arguments: list[Any] = [frontend, backend]
        if name == "device":
            arguments.insert(0, zmq.QUEUE)
        if name == "monitored_queue" and "mon_socket" not in options:
            arguments.append(net.socket(zmq.PUB))
        if name in CONTROLLED:
            control = net.bound(zmq.PAIR)
            self.commander = net.peer(control, zmq.PAIR)
            options["control"] = control
        self.background = Background(getattr(zdev, name), *arguments, **options)

    def statistics(self) -> tuple[int, ...]:
        """Ask for libzmq's eight counts, and with that know that the commands before are done."""
        self.commander.send(b"STATISTICS")
        return struct.unpack("=8Q", b"".join(self.commander.recv_multipart()))

    def terminate(self) -> Any:
        self.commander.send(b"TERMINATE")
        return self.background.join()


# Names


@pytest.mark.parametrize("name", PYZMQ)
def test_arguments_are_those_of_pyzmq_and_keywords_of_its_own(name: str) -> None:
    theirs = list(inspect.signature(PYZMQ[name]).parameters.values())
    ours = list(inspect.signature(getattr(zdev, name)).parameters.values())
    same = ours[: len(theirs)]
    assert [p.name for p in same] == [p.name for p in theirs]
    assert [p.kind for p in same] == [p.kind for p in theirs]
    if name != "device":  # before pyzmq 26, its backend had a default that crashed
        assert [p.default for p in same] == [p.default for p in theirs]
    assert all(p.kind is p.KEYWORD_ONLY for p in ours[len(theirs) :])
    assert all(p.default is not p.empty for p in ours[len(theirs) :])


class Recorder:
    """An engine that only notes what it was asked for."""

    name = "recorder"

    def __init__(self) -> None:
        self.settings: list[Settings] = []

    def loop(self, settings: Settings) -> RecorderLoop:
        self.settings.append(settings)
        return RecorderLoop()


class RecorderLoop:
    paused = False

    def run(self, timeout: int) -> int:
        return FINISHED

    def flush(self) -> int:
        return 0

    def statistics(self) -> Statistics:
        nothing = zdev.DirectionStatistics(*(0,) * 10)
        return Statistics(nothing, nothing, zdev.CaptureStatistics(0, 0, 0))


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(_engines, "_chosen", recorder)
    return recorder


def test_arguments_by_position_and_by_name_mean_the_same(net: Network, recorder: Recorder) -> None:
    front, back = net.socket(zmq.ROUTER), net.socket(zmq.ROUTER)
    side, steer = net.socket(zmq.PUB), net.socket(zmq.PAIR)
    own: dict[str, Any] = {
        "capture_policy": "drop",
        "overflow": "drop",
        "in_overflow": "park",
        "out_overflow": None,
        "burst": 7,
        "only_first_subscribe": True,
    }
    assert zdev.proxy(front, back, side, **own) == 0
    assert zdev.proxy(frontend=front, backend=back, capture=side, **own) == 0
    assert zdev.device(zmq.QUEUE, front, back, in_overflow="drop") == 0
    assert zdev.device(device_type=zmq.QUEUE, frontend=front, backend=back, in_overflow="drop") == 0
    assert zdev.proxy_steerable(front, back, side, steer, **own) == 0
    assert (
        zdev.proxy_steerable(frontend=front, backend=back, capture=side, control=steer, **own) == 0
    )
    assert zdev.monitored_queue(front, back, side, b"a", b"b", control=steer, **own) == 0
    assert (
        zdev.monitored_queue(
            in_socket=front,
            out_socket=back,
            mon_socket=side,
            in_prefix=b"a",
            out_prefix=b"b",
            control=steer,
            **own,
        )
        == 0
    )

    def told(settings: Settings) -> tuple[Any, ...]:
        ends = (settings.frontend, settings.backend, settings.capture, settings.control)
        return (
            *(end and end.socket for end in ends),
            settings.in_prefix,
            settings.out_prefix,
            settings.swap,
            (settings.in_drop, settings.out_drop),
            settings.capture_drop,
            settings.burst,
        )

    proxy, steerable = (front, back, side, None), (front, back, side, steer)
    expected = [
        (*proxy, None, None, False, (False, True), True, 7),
        (front, back, None, None, None, None, False, (True, False), False, 64),
        (*steerable, None, None, False, (False, True), True, 7),
        (*steerable, b"a", b"b", True, (False, True), True, 7),
    ]
    assert [told(settings) for settings in recorder.settings] == [
        each for each in expected for _ in range(2)
    ]


@pytest.mark.parametrize("kind", [zmq.QUEUE, zmq.FORWARDER, zmq.STREAMER, 1, 2, 3])
def test_every_device_type_is_taken(net: Network, recorder: Recorder, kind: int) -> None:
    assert zdev.device(kind, net.socket(zmq.ROUTER), net.socket(zmq.DEALER)) == 0


# Sockets


class Overriding(zmq.Socket[bytes]):
    """A user's subclass; a device relays what libzmq has, not what its methods make of it."""

    def recv(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the device called recv of a subclass")

    def send(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("the device called send of a subclass")

    recv_multipart = recv
    send_multipart = send


def plain(net: Network, kind: int) -> zmq.Socket[Any]:
    return net.bound(kind)


def subclass(net: Network, kind: int) -> zmq.Socket[Any]:
    return net.bound(kind, socket_class=Overriding)


def asyncio(net: Network, kind: int) -> zmq.Socket[Any]:
    return net.bound(kind, socket_class=zmq.asyncio.Socket)


def green(net: Network, kind: int) -> zmq.Socket[Any]:
    pytest.importorskip("gevent", reason=NO_GEVENT)
    import zmq.green

    with pytest.warns(UserWarning, match="TIMEO"):
        return net.bound(kind, socket_class=zmq.green.Socket)


def shadow(net: Network, kind: int) -> zmq.Socket[Any]:
    return zmq.Socket.shadow(net.bound(kind).underlying)


@pytest.fixture
def no_hub() -> Iterator[None]:
    """Leave no hub behind, by which the main thread would wait in all tests to come."""
    yield
    gevent: Any = sys.modules.get("gevent")
    if gevent is not None:
        gevent.get_hub().destroy(destroy_loop=True)


@pytest.mark.parametrize("make", [plain, subclass, asyncio, green, shadow])
@pytest.mark.parametrize("name", PYZMQ)
def test_on_sockets_of_every_kind(
    engine: str,
    no_hub: None,
    net: Network,
    name: str,
    make: Callable[[Network, int], zmq.Socket[Any]],
) -> None:
    frontend, backend = make(net, zmq.ROUTER), make(net, zmq.DEALER)
    client, worker = net.peer(frontend, zmq.REQ), net.peer(backend, zmq.REP)
    background = Started(net, name, frontend, backend).background
    for i in range(10):
        client.send_multipart([b"request", b"%d" % i])
        assert worker.recv_multipart() == [b"request", b"%d" % i]
        worker.send(b"reply %d" % i)
        assert client.recv() == b"reply %d" % i
    assert isinstance(net.terminate(background), zmq.ContextTerminated)


def test_a_socket_and_its_shadow_are_one_socket(engine: str, net: Network) -> None:
    echo = net.bound(zmq.REP)
    client = net.peer(echo, zmq.REQ)
    started = Started(net, "proxy_steerable", echo, zmq.Socket.shadow(echo))
    client.send(b"x")
    assert client.recv() == b"x"
    assert started.terminate() == 0


# Ends


def idle(net: Network, started: Started, source: zmq.Socket[bytes]) -> None:
    """The device waits for messages."""


def parked(net: Network, started: Started, source: zmq.Socket[bytes]) -> None:
    """A message waits for its destination, which has no peer."""
    for _ in range(3):  # two fit between the sockets, so the device has one
        source.send(b"x")


def flooded(net: Network, started: Started, source: zmq.Socket[bytes]) -> None:
    """Messages come faster than they are relayed, until the context ends."""
    sent = itertools.count()

    def flood() -> None:
        while True:
            source.send(b"x")
            next(sent)

    started.users.append(Background(flood))
    wait_until(lambda: next(sent) > 1000)


def paused(net: Network, started: Started, source: zmq.Socket[bytes]) -> None:
    """A message waits in front of a device at rest."""
    started.commander.send(b"PAUSE")
    before = started.statistics()
    source.send(b"x")
    assert started.statistics() == before


STATES = [
    (name, state)
    for name in PYZMQ
    for state in (idle, parked, flooded, paused)
    if state is not paused or name in CONTROLLED
]


@pytest.mark.parametrize(("name", "state"), STATES)
def test_the_end_of_the_context(
    engine: str, net: Network, name: str, state: Callable[..., None]
) -> None:
    frontend = net.bound(zmq.PULL, rcvhwm=1)
    backend = net.bound(zmq.PUB if state is flooded else zmq.PUSH)
    source = net.peer(frontend, zmq.PUSH, sndhwm=1)
    started = Started(net, name, frontend, backend)
    state(net, started, source)
    assert started.background.alive
    error = net.terminate(started.background, *started.users)
    assert type(error) is zmq.ContextTerminated
    assert error.errno == zmq.ETERM


@pytest.mark.parametrize("name", PYZMQ)
def test_a_context_that_has_ended(engine: str, net: Network, name: str) -> None:
    sockets = [net.socket(kind) for kind in (zmq.PULL, zmq.PUSH, zmq.PUB)]
    term = Background(net.context.term)
    wait_until(lambda: has_ended(sockets[0]))
    arguments: list[Any] = sockets if name == "monitored_queue" else sockets[:2]
    if name == "device":
        arguments = [zmq.STREAMER, *arguments]
    with pytest.raises(zmq.ContextTerminated):
        getattr(zdev, name)(*arguments)
    for socket in sockets:
        socket.close()
    term.join()


def has_ended(socket: zmq.Socket[bytes]) -> bool:
    try:
        socket.getsockopt(zmq.EVENTS)
    except zmq.ContextTerminated:
        return True
    return False


@pytest.mark.parametrize("name", CONTROLLED)
def test_commands(engine: str, net: Network, name: str) -> None:
    frontend, backend = net.bound(zmq.PULL), net.bound(zmq.PUSH)
    source, sink = net.peer(frontend, zmq.PUSH), net.peer(backend, zmq.PULL)
    started = Started(net, name, frontend, backend)
    source.send_multipart([b"ab", b"c"])
    assert sink.recv_multipart() == [b"ab", b"c"]
    assert started.statistics() == (2, 3, 0, 0, 0, 0, 2, 3)
    started.commander.send(b"PAUSE")
    before = started.statistics()
    source.send(b"waits")
    for _ in range(5):
        assert started.statistics() == before
    started.commander.send(b"RESUME")
    assert sink.recv() == b"waits"
    assert started.terminate() == 0


def test_commands_are_not_needed(engine: str, net: Network) -> None:
    frontend, backend = net.bound(zmq.PULL), net.bound(zmq.PUSH)
    source, sink = net.peer(frontend, zmq.PUSH), net.peer(backend, zmq.PULL)
    background = Background(zdev.proxy_steerable, frontend, backend)
    source.send(b"x")
    assert sink.recv() == b"x"
    assert isinstance(net.terminate(background), zmq.ContextTerminated)


def test_what_is_left_undelivered_is_told(
    engine: str, net: Network, caplog: pytest.LogCaptureFixture
) -> None:
    frontend, backend = net.bound(zmq.PULL), net.socket(zmq.PUSH)
    source = net.peer(frontend, zmq.PUSH)
    started = Started(net, "proxy_steerable", frontend, backend)
    with caplog.at_level(logging.WARNING, "zdev"):
        source.send(b"nobody wants this")
        wait_until(lambda: started.statistics()[0] == 1)
        assert started.terminate() == 0
    (record,) = caplog.records
    assert record.name == "zdev"
    assert record.getMessage() == (
        "proxy_steerable ended with 1 message undelivered: no peer took it in time"
    )


def test_what_the_capture_did_not_get_is_told(
    engine: str, net: Network, pairs: Pairs, caplog: pytest.LogCaptureFixture
) -> None:
    started = Started(
        net, "monitored_queue", pairs.frontend, pairs.backend, mon_socket=pairs.capture
    )
    with caplog.at_level(logging.WARNING, "zdev"):
        pairs.left.send(b"there")
        assert pairs.right.recv() == b"there"
        pairs.right.send(b"back")
        assert pairs.left.recv() == b"back"
        started.statistics()
        assert started.terminate() == 0
    (record,) = caplog.records
    assert record.getMessage() == (
        "monitored_queue ended with 2 copies for the capture undelivered: no peer took it in time"
    )


@pytest.mark.parametrize(("kind", "told"), [(zmq.PUB, False), (zmq.PUSH, True)])
def test_a_copy_that_a_publisher_did_not_get_is_nobodys_loss(
    engine: str, net: Network, monkeypatch: pytest.MonkeyPatch, caplog: Any, kind: int, told: bool
) -> None:
    """The end of the context may come between a message and its copy: as if one was left then."""
    statistics = zdev.Relay.statistics

    def one_left(relay: zdev.Relay) -> Any:
        there, back, capture = statistics(relay)
        return there, back, capture._replace(parked=1)

    monkeypatch.setattr(zdev.Relay, "statistics", one_left)
    sockets = net.bound(zmq.PULL), net.bound(zmq.PUSH), net.bound(kind)
    background = Background(zdev.monitored_queue, *sockets)
    with caplog.at_level(logging.WARNING, "zdev"):
        assert isinstance(net.terminate(background), zmq.ContextTerminated)
    assert ("1 copy for the capture" in caplog.text) == told


# Captures

PREFIXES = {
    "bytes": (b"\x00in", b"\x00in"),
    "bytearray": (bytearray(b"in"), b"in"),
    "memoryview": (memoryview(b"in"), b"in"),
    "strided": (memoryview(b"i.n.")[::2], b"in"),
    "array": (array.array("H", [1, 2]), array.array("H", [1, 2]).tobytes()),
    "str": ("in", b"in"),
    "non-ASCII": ("\u00e9\u4e2d\U0001f600", "\u00e9\u4e2d\U0001f600".encode()),
    "empty": (b"", b""),
    "empty str": ("", b""),
    "long": (b"p" * 10_000, b"p" * 10_000),
    "None": (None, None),
}


@pytest.fixture
def pairs(net: Network) -> Pairs:
    """Two PAIR sockets to join, and their peers; a captured device's smallest network."""
    return Pairs(net)


class Pairs:
    def __init__(self, net: Network) -> None:
        self.frontend, self.backend = net.bound(zmq.PAIR), net.bound(zmq.PAIR)
        self.left, self.right = net.peer(self.frontend, zmq.PAIR), net.peer(self.backend, zmq.PAIR)
        self.capture = net.bound(zmq.PUSH)


@pytest.mark.parametrize(("given", "sent"), PREFIXES.values(), ids=PREFIXES)
def test_prefixes(engine: str, net: Network, pairs: Pairs, given: Any, sent: bytes | None) -> None:
    monitor = net.peer(pairs.capture, zmq.PULL)
    started = Started(
        net,
        "monitored_queue",
        pairs.frontend,
        pairs.backend,
        mon_socket=pairs.capture,
        in_prefix=given,
        out_prefix=b"other",
    )
    pairs.left.send_multipart([b"", b"there"])
    assert pairs.right.recv_multipart() == [b"", b"there"]
    prefix = [] if sent is None else [sent]
    assert monitor.recv_multipart() == [*prefix, b"", b"there"]
    pairs.right.send(b"back")
    assert pairs.left.recv() == b"back"
    assert monitor.recv_multipart() == [b"other", b"back"]
    assert started.terminate() == 0


def test_prefixes_by_default(engine: str, net: Network, pairs: Pairs) -> None:
    monitor = net.peer(pairs.capture, zmq.PULL)
    started = Started(
        net, "monitored_queue", pairs.frontend, pairs.backend, mon_socket=pairs.capture
    )
    pairs.left.send(b"there")
    assert monitor.recv_multipart() == [b"in", b"there"]
    pairs.right.send(b"back")
    assert monitor.recv_multipart() == [b"out", b"back"]
    assert started.terminate() == 0


def test_a_prefix_is_read_at_the_call(engine: str, net: Network, pairs: Pairs) -> None:
    prefix = bytearray(b"before")
    monitor = net.peer(pairs.capture, zmq.PULL)
    started = Started(
        net,
        "monitored_queue",
        pairs.frontend,
        pairs.backend,
        mon_socket=pairs.capture,
        in_prefix=prefix,
    )
    started.statistics()
    prefix[:] = b"behind"
    pairs.left.send(b"x")
    assert monitor.recv_multipart() == [b"before", b"x"]
    assert started.terminate() == 0


CAPTURING = {"proxy": "capture", "proxy_steerable": "capture", "monitored_queue": "mon_socket"}


@pytest.mark.parametrize("name", CAPTURING)
def test_traffic_waits_for_a_capture_without_peer(
    engine: str, net: Network, pairs: Pairs, name: str
) -> None:
    options = {CAPTURING[name]: pairs.capture}
    started = Started(net, name, pairs.frontend, pairs.backend, **options)
    messages = [b"%d" % i for i in range(20)]
    for message in messages:
        pairs.left.send(message)
    assert pairs.right.recv() == messages[0]
    pairs.right.send(b"back")  # the other direction waits for its own copy only
    assert pairs.left.recv() == b"back"
    if name in CONTROLLED:
        taken = started.statistics()[0]
        assert taken == 1, "the second message was taken before the copy of the first was gone"
    monitor = net.peer(pairs.capture, zmq.PULL)
    assert [pairs.right.recv() for _ in messages[1:]] == messages[1:]
    copies = [monitor.recv_multipart()[-1] for _ in range(len(messages) + 1)]
    assert sorted(copies) == sorted([*messages, b"back"])
    assert isinstance(net.terminate(started.background), zmq.ContextTerminated)


@pytest.mark.parametrize("name", CAPTURING)
def test_traffic_does_not_wait_for_a_capture_that_may_drop(
    engine: str, net: Network, pairs: Pairs, name: str
) -> None:
    options = {CAPTURING[name]: pairs.capture}
    started = Started(
        net, name, pairs.frontend, pairs.backend, capture_policy="drop", burst=3, **options
    )
    messages = [b"%d" % i for i in range(20)]
    for message in messages:
        pairs.left.send(message)
    assert [pairs.right.recv() for _ in messages] == messages
    assert isinstance(net.terminate(started.background), zmq.ContextTerminated)


def test_proxy_captures_frames_without_prefix(engine: str, net: Network, pairs: Pairs) -> None:
    monitor = net.peer(pairs.capture, zmq.PULL)
    background = Background(zdev.proxy, pairs.frontend, pairs.backend, pairs.capture)
    pairs.left.send_multipart([b"in", b"", b"there"])
    assert monitor.recv_multipart() == [b"in", b"", b"there"]
    assert isinstance(net.terminate(background), zmq.ContextTerminated)
