"""What cannot work is refused before anything is relayed, in words that help."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Any, Callable

import pytest
import zmq

import zdev

from ..support import Network, descriptors

# Which types send and which receive, from zmq_socket(3), written down anew and not imported.
SENDS = {"PAIR", "PUB", "REQ", "REP", "DEALER", "ROUTER", "PUSH", "XPUB", "XSUB", "STREAM"}
RECEIVES = {"PAIR", "SUB", "REQ", "REP", "DEALER", "ROUTER", "PULL", "XPUB", "XSUB", "STREAM"}
TYPES = sorted(SENDS | RECEIVES)


def works(one: str, other: str) -> bool:
    """Can a device relay more than one message between these types?"""
    if one == other and one in {"REQ", "REP"}:
        return False  # neither may send, or receive, first
    if not (one in RECEIVES and other in SENDS) and not (other in RECEIVES and one in SENDS):
        return False
    for turning, opposite in ((one, other), (other, one)):
        if turning in {"REQ", "REP"} and opposite not in RECEIVES:
            return False  # nothing comes that it could send, as it must before it receives again
        if turning == "REP" and opposite not in SENDS:
            return False  # its requests go nowhere, and it sends nothing but replies
    return True


def works_alone(kind: str) -> bool:
    """Can a socket of this type relay to itself?"""
    return kind in SENDS & RECEIVES and kind != "REQ"


Function = Callable[..., Any]
# Each face with the names that it gives frontend, backend and capture.
FACES: dict[str, tuple[Function, str, str, str]] = {
    "Relay": (zdev.Relay, "frontend", "backend", "capture"),
    "proxy": (zdev.proxy, "frontend", "backend", "capture"),
    "proxy_steerable": (zdev.proxy_steerable, "frontend", "backend", "capture"),
    "monitored_queue": (zdev.monitored_queue, "in_socket", "out_socket", "mon_socket"),
}


class Face:
    """One face, called with good arguments but for those that a test gives."""

    def __init__(self, name: str, net: Network) -> None:
        self.name = name
        self.function, self.frontend, self.backend, self.capture = FACES[name]
        self.good = {
            self.frontend: net.bound(zmq.PULL),
            self.backend: net.bound(zmq.PUSH),
            self.capture: net.bound(zmq.PUB),
        }
        self.net = net

    def __call__(self, **arguments: Any) -> Any:
        return self.function(**{**self.good, **arguments})

    def check_sockets_are_usable(self) -> None:
        """The good sockets are as they were: open, with nothing done to them."""
        frontend, backend = self.good[self.frontend], self.good[self.backend]
        source, sink = self.net.peer(frontend, zmq.PUSH), self.net.peer(backend, zmq.PULL)
        source.send(b"x")
        backend.send(frontend.recv())
        assert sink.recv() == b"x"


@pytest.fixture(params=FACES)
def face(request: pytest.FixtureRequest, net: Network) -> Face:
    return Face(request.param, net)


@contextlib.contextmanager
def refused(error: type[BaseException], *words: str) -> Iterator[None]:
    """Expect an error whose message has each of these words."""
    with pytest.raises(error) as raised:
        yield
    for word in words:
        assert word in str(raised.value)


def kind_of(value: object) -> str:
    """Name a test after the type of its value."""
    return type(value).__name__


# Not a socket

NO_SOCKETS = [42, "inproc://x", b"x", 1.5, [], object(), zmq.Socket, zmq.PULL]


@pytest.mark.parametrize("role", ["frontend", "backend", "capture"])
@pytest.mark.parametrize("value", NO_SOCKETS, ids=kind_of)
def test_not_a_socket(face: Face, role: str, value: Any) -> None:
    name = getattr(face, role)
    with refused(
        TypeError, f"{name} must be a zmq.Socket", type(value).__name__, "zmq.Context().socket"
    ):
        face(**{name: value})
    face.check_sockets_are_usable()


@pytest.mark.parametrize("role", ["frontend", "backend"])
def test_none_is_no_end(face: Face, role: str) -> None:
    name = getattr(face, role)
    with refused(TypeError, f"{name} must be a zmq.Socket", "NoneType"):
        face(**{name: None})
    face.check_sockets_are_usable()


def test_none_is_no_monitor(net: Network) -> None:
    face = Face("monitored_queue", net)
    with refused(TypeError, "mon_socket", "None", "use proxy"):
        face(mon_socket=None)
    face.check_sockets_are_usable()


@pytest.mark.parametrize("value", NO_SOCKETS, ids=kind_of)
@pytest.mark.parametrize("name", ["Relay", "proxy_steerable", "monitored_queue"])
def test_control_that_is_not_a_socket(net: Network, name: str, value: Any) -> None:
    face = Face(name, net)
    with refused(TypeError, "control must be a zmq.Socket", type(value).__name__):
        face(control=value)
    face.check_sockets_are_usable()


def test_a_context_a_poller_and_a_frame_are_no_sockets(net: Network) -> None:
    for value in (net.context, zmq.Poller(), zmq.Frame(b"x")):
        with pytest.raises(TypeError, match=r"frontend must be a zmq\.Socket"):
            zdev.Relay(value, net.socket(zmq.PUSH))  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0, 4, -1, zmq.ROUTER])
def test_no_device_type(net: Network, value: Any) -> None:
    words = f"device_type must be one of zmq.STREAMER, zmq.FORWARDER, zmq.QUEUE, not {int(value)}"
    with refused(ValueError, words):
        zdev.device(value, net.socket(zmq.PULL), net.socket(zmq.PUSH))


@pytest.mark.parametrize("value", [None, 2.5, b"QUEUE"])
def test_what_is_no_device_type_at_all(net: Network, value: Any) -> None:
    with refused(TypeError, "device_type must be a device type such as zmq.QUEUE", kind_of(value)):
        zdev.device(value, net.socket(zmq.PULL), net.socket(zmq.PUSH))


def test_the_name_of_no_device_type(net: Network) -> None:
    with refused(ValueError, "device_type: there is no device type 'QUEU'; did you mean 'QUEUE'?"):
        zdev.device("QUEU", net.socket(zmq.PULL), net.socket(zmq.PUSH))


def test_a_device_type_is_not_forgotten_silently(net: Network) -> None:
    with refused(TypeError, "device_type must be a device type such as zmq.QUEUE", "not Socket"):
        zdev.device(net.socket(zmq.PULL), net.socket(zmq.PUSH), zmq.QUEUE)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["proxy", "device"])
def test_no_arguments_at_all(name: str) -> None:
    with pytest.raises(TypeError, match="missing"):
        getattr(zdev, name)()


# Closed


@pytest.mark.parametrize("role", ["frontend", "backend", "capture"])
def test_a_closed_socket(engine: str, face: Face, role: str) -> None:
    name = getattr(face, role)
    closed = face.net.socket(zmq.PAIR)
    closed.close()
    with pytest.raises(zmq.ZMQError) as raised:
        face(**{name: closed})
    assert raised.value.errno == zmq.ENOTSOCK
    assert f"{name} is closed" in str(raised.value)
    assert "open until it has ended" in str(raised.value)
    face.check_sockets_are_usable()


@pytest.mark.parametrize("role", ["frontend", "backend", "capture", "control"])
@pytest.mark.parametrize("start", ["run", "step"])
def test_a_socket_closed_before_the_start(engine: str, net: Network, role: str, start: str) -> None:
    face = Face("Relay", net)
    sockets: dict[str, Any] = {**face.good, "control": net.socket(zmq.PAIR)}
    relay = zdev.Relay(**sockets)
    sockets[role].close()
    for _ in range(2):
        with pytest.raises(zmq.ZMQError) as raised:
            getattr(relay, start)()
        assert raised.value.errno == zmq.ENOTSOCK
        assert f"{role} is closed" in str(raised.value)
    assert relay.statistics().frontend_to_backend.messages_received == 0
    if role in ("capture", "control"):
        face.check_sockets_are_usable()


# Types that cannot go together


@pytest.mark.parametrize(("one", "other"), list(itertools.product(TYPES, TYPES)))
def test_pairs_of_types(net: Network, one: str, other: str) -> None:
    frontend, backend = net.socket(getattr(zmq, one)), net.socket(getattr(zmq, other))
    if works(one, other):
        relay = zdev.Relay(frontend, backend)
        assert relay.step() == 0
        return
    with refused(ValueError, f"frontend and backend are {one} and {other}: "):
        zdev.Relay(frontend, backend)
    assert not frontend.closed
    assert not backend.closed


def test_the_truth_table_is_not_trivial() -> None:
    working = sum(works(*pair) for pair in itertools.product(TYPES, TYPES))
    assert len(TYPES) == 12
    # 4 pairs of receivers, 4 of senders, REQ and REP with themselves, and either way: REQ or REP
    # with PUB or PUSH, REP with SUB or PULL
    assert working == 144 - 4 - 4 - 2 - 8 - 4


@pytest.mark.parametrize("kind", TYPES)
def test_one_socket_as_both_ends(net: Network, kind: str) -> None:
    socket = net.socket(getattr(zmq, kind))
    if works_alone(kind):
        assert zdev.Relay(socket, socket).step() == 0
        return
    with refused(ValueError, f"a {kind} socket cannot be both", "ROUTER"):
        zdev.Relay(socket, socket)


def test_pairs_of_types_by_every_face(face: Face) -> None:
    with refused(
        ValueError, f"{face.frontend} and {face.backend} are PUB and PUB: no message can go"
    ):
        face(**{face.frontend: face.net.socket(zmq.PUB), face.backend: face.net.socket(zmq.PUB)})
    push = face.net.socket(zmq.PUSH)
    with refused(ValueError, f"cannot be both {face.frontend} and {face.backend}"):
        face(**{face.frontend: push, face.backend: push})


def test_device_refuses_pairs_too(net: Network) -> None:
    with pytest.raises(ValueError, match="frontend and backend are PULL and SUB"):
        zdev.device(zmq.STREAMER, net.socket(zmq.PULL), net.socket(zmq.SUB))


# What cannot serve as capture or control

CAPTURES = {"PUB", "XPUB", "PUSH", "PAIR", "DEALER", "ROUTER"}
CONTROLS = {"PAIR", "REP", "ROUTER", "DEALER", "PULL", "SUB", "XSUB", "XPUB"}


@pytest.mark.parametrize("kind", TYPES)
def test_captures(net: Network, kind: str) -> None:
    face = Face("Relay", net)
    capture = net.socket(getattr(zmq, kind))
    if kind in CAPTURES:
        assert face(capture=capture).step() == 0
        return
    for each in ("Relay", "proxy", "proxy_steerable", "monitored_queue"):
        face = Face(each, net)
        with refused(ValueError, f"{face.capture} is a {kind} socket", "use DEALER, PAIR, PUB,"):
            face(**{face.capture: capture})
        face.check_sockets_are_usable()


@pytest.mark.parametrize("kind", TYPES)
def test_controls(net: Network, kind: str) -> None:
    face = Face("Relay", net)
    control = net.socket(getattr(zmq, kind))
    if kind in CONTROLS:
        assert face(control=control).step() == 0
        return
    for each in ("Relay", "proxy_steerable", "monitored_queue"):
        face = Face(each, net)
        with refused(ValueError, f"control is a {kind} socket", "use DEALER, PAIR, PULL,"):
            face(control=control)
        face.check_sockets_are_usable()


@pytest.mark.parametrize("role", ["frontend", "backend"])
def test_a_capture_that_is_an_end(face: Face, role: str) -> None:
    name = getattr(face, role)
    pairs = {each: face.net.socket(zmq.PAIR) for each in (face.frontend, face.backend)}
    with refused(ValueError, f"{face.capture} is also the {name}", "a socket of its own"):
        face(**{**pairs, face.capture: zmq.Socket.shadow(pairs[name].underlying)})


@pytest.mark.parametrize("role", ["frontend", "backend", "capture"])
@pytest.mark.parametrize("name", ["Relay", "proxy_steerable", "monitored_queue"])
def test_a_control_that_is_another(net: Network, name: str, role: str) -> None:
    face = Face(name, net)
    pairs = {each: net.socket(zmq.PAIR) for each in (face.frontend, face.backend, face.capture)}
    with refused(ValueError, f"control is also the {getattr(face, role)}", "a socket of its own"):
        face(**pairs, control=pairs[getattr(face, role)])


class Draft(zmq.Socket[bytes]):
    """Says that it is a SERVER, which no released libzmq has, yet has a handle that is valid."""

    def getsockopt(self, option: int) -> Any:
        return 12 if option == zmq.TYPE else super().getsockopt(option)


@pytest.mark.parametrize("role", ["frontend", "backend", "capture"])
def test_a_draft_type(face: Face, role: str) -> None:
    name = getattr(face, role)
    with refused(
        ValueError, f"{name} is of socket type 12", "draft", "a device takes DEALER, PAIR,"
    ):
        face(**{name: face.net.socket(zmq.PAIR, socket_class=Draft)})
    face.check_sockets_are_usable()


# Wrong values


@pytest.mark.parametrize(
    "value", [5, 1.5, ["in"], ("in",), object(), {b"in": 1}, True], ids=kind_of
)
@pytest.mark.parametrize("prefix", ["in_prefix", "out_prefix"])
@pytest.mark.parametrize("name", ["Relay", "monitored_queue"])
def test_prefixes(engine: str, net: Network, name: str, prefix: str, value: Any) -> None:
    face = Face(name, net)
    with refused(TypeError, f"{prefix} must be bytes", "str (sent as UTF-8)", type(value).__name__):
        face(**{prefix: value})
    face.check_sockets_are_usable()


def test_a_prefix_that_is_no_text(net: Network) -> None:
    face = Face("monitored_queue", net)
    with pytest.raises(ValueError, match="surrogates not allowed"):
        face(in_prefix="\udc80")
    face.check_sockets_are_usable()


@pytest.mark.parametrize("value", [1.5, "x", "64", None, [64], object()], ids=kind_of)
def test_bursts_that_are_no_numbers(face: Face, value: Any) -> None:
    with refused(TypeError, "burst must be an int", type(value).__name__):
        face(burst=value)
    face.check_sockets_are_usable()


@pytest.mark.parametrize("value", [0, -1, -(2**31), 10_001, 2**40, 2**100])
def test_bursts_out_of_range(face: Face, value: int) -> None:
    with refused(ValueError, "burst must be from 1 to 10000", str(value)):
        face(burst=value)
    face.check_sockets_are_usable()


@pytest.mark.parametrize("burst", [1, 2, 10_000, True])
def test_bursts_in_range(engine: str, net: Network, burst: int) -> None:
    face = Face("Relay", net)
    source = net.peer(face.good["frontend"], zmq.PUSH)
    sink = net.peer(face.good["backend"], zmq.PULL)
    for _ in range(3):
        source.send(b"x")
    relay = face(burst=burst)
    assert relay.step() == min(burst, 3)
    while relay.step():
        pass
    assert [sink.recv() for _ in range(3)] == [b"x"] * 3


@pytest.mark.parametrize(
    "value", ["", "BLOCK", "Drop", None, 0, b"block", [], object()], ids=kind_of
)
def test_capture_policies(face: Face, value: Any) -> None:
    with refused(ValueError, 'capture_policy must be "block" or "drop"', repr(value)):
        face(capture_policy=value)
    face.check_sockets_are_usable()


@pytest.mark.parametrize("name", ["Relay", "proxy", "proxy_steerable"])
@pytest.mark.parametrize(
    "setting", [{"in_prefix": b"in"}, {"out_prefix": ""}, {"capture_policy": "drop"}]
)
def test_what_is_said_of_a_capture_that_is_not_there(
    net: Network, name: str, setting: dict[str, Any]
) -> None:
    face, (argument,) = Face(name, net), setting
    if name != "Relay" and argument != "capture_policy":
        return  # these have no prefixes
    with refused(ValueError, f"{argument} is of the copies that a capture gets, and there is none"):
        face(capture=None, **setting)
    face.check_sockets_are_usable()


@pytest.mark.parametrize("value", ["yes", 5, 1.5, []], ids=kind_of)
def test_flags(net: Network, value: Any) -> None:
    face = Face("Relay", net)
    with refused(TypeError, "swap must be a bool or None, not", type(value).__name__):
        face(swap=value)
    with refused(TypeError, "only_first_subscribe must be a bool, not", type(value).__name__):
        face(only_first_subscribe=value)
    face.check_sockets_are_usable()


@pytest.mark.parametrize("name", ["overflow", "in_overflow", "out_overflow"])
@pytest.mark.parametrize(
    "value", ["", "block", "Drop", True, 0, b"drop", [], object()], ids=kind_of
)
def test_overflows(face: Face, name: str, value: Any) -> None:
    with refused(ValueError, f'{name} must be "park" or "drop"', repr(value)):
        face(**{name: value})
    face.check_sockets_are_usable()


def test_no_descriptors_are_kept(net: Network) -> None:
    """A refused relay leaves nothing behind, whatever the argument that was wrong."""
    face = Face("Relay", net)
    bad: list[dict[str, Any]] = [{"burst": 0}, {"in_prefix": 5}, {"capture": 5}, {"control": 5}]
    before = descriptors()
    for arguments in bad * 10:
        with pytest.raises((TypeError, ValueError)):
            face(**arguments)
    assert descriptors() == before
