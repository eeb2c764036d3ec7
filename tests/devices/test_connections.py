"""Who is there: what a device that watches its connections tells of them."""

from __future__ import annotations

import contextlib
import copy
import threading
from typing import Any

import pytest
import zmq
from zmq.auth.thread import ThreadAuthenticator

import zdev

from ..support import DEADLINE, Background, Network, fill, wait_until
from .addresses import listens
from .background import Devices
from .census import Census
from .peers import connected, greeting
from .streams import Stream

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


def watched(net: Network, devices: Devices) -> Stream:
    return Stream(net, devices, watch_connections=True)


def of(stream: Stream, role: str = "in") -> zdev.Connections:
    connections: zdev.Connections = stream.device.connections()[role]
    return connections


def test_who_comes_and_goes(engine: str, net: Network, devices: Devices) -> None:
    stream = watched(net, devices)
    stream.device.start()
    sources = [stream.source() for _ in range(3)]
    wait_until(lambda: of(stream).peers == 3)
    assert of(stream).listeners == stream.device.endpoints["in"]
    sources.pop().close()
    wait_until(lambda: of(stream).peers == 2)
    stream.source()
    wait_until(lambda: of(stream).peers == 3)
    assert of(stream) == (3, 4, 0, 1, {}, 0, stream.device.endpoints["in"], None)
    assert of(stream, "out") == (0, 0, 0, 0, {}, 0, stream.device.endpoints["out"], None)
    stream.device.unbind_in(stream.device.endpoints["in"][0])  # which cuts them off
    wait_until(lambda: not of(stream).listeners)
    assert of(stream) == (0, 4, 0, 4, {}, 0, [], None)
    stream.device.stop()
    stream.has_ended()
    assert copy.copy(stream.device).watch_connections


def test_what_it_connects_to(engine: str, net: Network, devices: Devices) -> None:
    stream = watched(net, devices)
    sink = net.bound(zmq.PULL, "tcp")
    address = sink.last_endpoint.decode()
    sink.unbind(address)
    wait_until(lambda: not listens(address))  # lest a fork does
    stream.device.setsockopt_out(zmq.RECONNECT_IVL, 1)
    stream.device.connect_out(address)
    stream.device.start()
    wait_until(lambda: of(stream, "out").retries > 1)
    assert of(stream, "out").peers == 0
    wait_until(lambda: bind(sink, address))
    wait_until(lambda: of(stream, "out").peers == 1)
    stream.device.disconnect_out(address)
    assert of(stream, "out").peers == 0
    assert of(stream, "out")[1:5] == (0, 1, 1, {})


def bind(target: zmq.Socket[Any], address: str) -> bool:
    with contextlib.suppress(zmq.ZMQError):
        target.bind(address)
        return True
    return False


def test_handshakes_that_fail(engine: str, net: Network, devices: Devices) -> None:
    stream = watched(net, devices)
    _, secret = zmq.curve_keypair()
    stream.device.setsockopt_in(zmq.CURVE_SERVER, 1)
    stream.device.setsockopt_in(zmq.CURVE_SECRETKEY, secret)
    stream.device.start()
    public, secret = zmq.curve_keypair()
    wrong = {"curve_serverkey": public, "curve_publickey": public, "curve_secretkey": secret}
    without = connected(stream.device.endpoints["in"][0], b"PUSH")
    wait_until(lambda: of(stream).failed == {"credentials": 1})
    without.connection.close()
    stream.source(reconnect_ivl=-1, **wrong)
    wait_until(lambda: of(stream).failed == {"credentials": 2})
    assert (of(stream).peers, of(stream).accepted, of(stream).disconnected) == (0, 2, 0)


def test_peers_that_do_not_speak_zmtp(engine: str, net: Network, devices: Devices) -> None:
    stream = watched(net, devices)
    stream.device.start()
    stream.source()
    wait_until(lambda: of(stream).peers == 1)
    (address,) = stream.device.endpoints["in"]
    silent = connected(address, b"PUSH", says=b"")
    wait_until(lambda: of(stream).accepted == 2)
    silent.connection.close()
    wait_until(lambda: of(stream).failed == {"broken off": 1})
    garbled = connected(address, b"PUSH", says=greeting(b"PUSH", b"HELLO"))
    wait_until(lambda: of(stream).failed == {"broken off": 1, "protocol": 1})
    garbled.connection.close()
    wait_until(lambda: stream.source() and of(stream).peers > 1)
    assert of(stream).disconnected == 0


def test_a_handler_of_zap_that_refuses(engine: str, net: Network, threads: Devices) -> None:
    stream = watched(net, threads)
    stream.device.setsockopt_in(zmq.PLAIN_SERVER, 1)
    zap = ThreadAuthenticator(net.context)
    zap.start()
    try:
        zap.configure_plain(domain="*", passwords={"known": "word"})
        stream.device.start()
        stream.source(plain_username=b"known", plain_password=b"word")
        wait_until(lambda: of(stream).peers == 1)
        stream.source(reconnect_ivl=-1, plain_username=b"known", plain_password=b"wrong")
        wait_until(lambda: of(stream).failed == {"refused": 1})
        wait_until(lambda: of(stream)[:4] == (1, 2, 0, 0))
        stream.device.stop()
    finally:
        zap.stop()


def test_one_socket_as_both_ends(engine: str, net: Network, devices: Devices) -> None:
    device = devices("Device", zmq.QUEUE, zmq.ROUTER, -1)
    device.watch_connections = True
    device.bind_in("tcp://127.0.0.1:*")
    device.start()
    peer = net.socket(zmq.DEALER)
    peer.connect(device.endpoints["in"][0])
    wait_until(lambda: device.connections()["in"].peers == 1)
    assert device.connections()["out"] == device.connections()["in"]


def test_which_subscriptions_are_held(engine: str, net: Network, devices: Devices) -> None:
    """At each XPUB; a device that is started again has none."""
    types = zmq.XSUB, zmq.XPUB, zmq.XPUB, zmq.XPUB
    device = devices("ProxySteerable", *types, watch_connections=True)
    for role in ("in", "out", "mon", "ctrl"):
        getattr(device, f"bind_{role}")("tcp://127.0.0.1:*")
    for _ in range(2):
        device.start()
        assert held(device) == {"in": None, "out": 0, "mon": 0, "ctrl": 0}
        subscribers = {}
        for number, role in enumerate(("out", "out", "mon", "ctrl")):
            subscriber = subscribers[number] = net.socket(zmq.SUB)
            subscriber.connect(device.endpoints[role][0])
            subscriber.subscribe("all")
            subscriber.subscribe(f"{number}")
        wait_until(lambda: held(device) == {"in": None, "out": 3, "mon": 2, "ctrl": 2})
        subscribers[0].unsubscribe("0")
        subscribers[2].close()
        wait_until(lambda: held(device) == {"in": None, "out": 2, "mon": 0, "ctrl": 2})
        device.stop()
        for subscriber in subscribers.values():
            subscriber.close()


def held(device: Any) -> dict[str, int | None]:
    return {role: each.subscriptions for role, each in device.connections().items()}


def test_a_device_that_is_asked_by_whom_it_tells(
    engine: str, net: Network, threads: Devices
) -> None:
    """It may be asked at any moment, also as it ends, and waits for nobody."""
    seen = []
    device = threads("Proxy", zmq.XSUB, zmq.XPUB, watch_connections=True)

    def hear(role: str, event: zmq.Event, address: str) -> None:
        with contextlib.suppress(RuntimeError):  # it runs no more
            seen.append(held(device)["out"])

    device.on_connection = hear
    device.bind_out("tcp://127.0.0.1:*")
    with device:
        subscriber = net.socket(zmq.SUB)
        subscriber.connect(device.endpoints["out"][0])
        subscriber.subscribe("all")
        wait_until(lambda: held(device)["out"] == 1)
        wait_until(lambda: seen)
    assert set(seen) <= {0, 1}


def test_a_program_is_told(
    engine: str, net: Network, threads: Devices, caplog: pytest.LogCaptureFixture
) -> None:
    """In another thread; what it raises there ends nothing."""
    heard = []

    def hear(role: str, event: zmq.Event, address: str) -> None:
        heard.append((role, event.name, address))
        raise LookupError("not heard")

    stream = watched(net, threads)
    stream.device.on_connection = hear
    stream.device.start()
    (address,) = stream.device.endpoints["in"]
    source = stream.source()
    wait_until(lambda: of(stream).peers == 1)
    source.close()
    wait_until(lambda: of(stream).disconnected == 1)
    wait_until(lambda: len(heard) == 5)
    assert [event for role, *event in heard if role == "in"] == [
        ["LISTENING", address],
        ["ACCEPTED", address],
        ["HANDSHAKE_SUCCEEDED", address],
        ["DISCONNECTED", address],
    ]
    assert "on_connection: LookupError: not heard" in caplog.text
    stream.device.on_connection = "no function"
    stream.device.stop()
    with pytest.raises(TypeError, match="on_connection must be callable, or None, not str"):
        stream.device.start()
    with pytest.raises(TypeError, match="on_connection must be callable, or None, not int"):
        zdev.ThreadProxy(zmq.PULL, zmq.PUSH, on_connection=5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="on_connection needs watch_connections=True"):
        zdev.ThreadProxy(zmq.PULL, zmq.PUSH, on_connection=hear)
    with pytest.raises(TypeError, match="watch_connections must be a bool"):
        zdev.ThreadProxy(zmq.PULL, zmq.PUSH, watch_connections="yes")  # type: ignore[arg-type]


class TwoWordsError(Exception):
    """One that is lost on the way between processes."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} {other}")


class NoWordsError(Exception):
    def __str__(self) -> str:
        raise LookupError("no words")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (SystemExit(3), "SystemExit: 3"),
        (TwoWordsError("not", "heard"), "TwoWordsError: not heard"),
        (ValueError(threading.Lock()), "ValueError: <unlocked"),
        (NoWordsError(), "NoWordsError: <exception str() failed>"),
    ],
)
def test_it_watches_whatever_it_is_told(
    net: Network,
    devices: Devices,
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
    words: str,
) -> None:
    """Else nobody reads the monitor, and libzmq waits for that for ever."""

    def hear(role: str, event: zmq.Event, address: str) -> None:
        raise error

    stream = watched(net, devices)
    stream.device.on_connection = hear
    stream.device.start()
    stream.source()
    wait_until(lambda: of(stream).peers == 1)
    wait_until(lambda: words in caplog.text)
    stream.device.stop(timeout=DEADLINE)
    stream.has_ended()


def test_what_is_not_watched_is_not_known(engine: str, net: Network, devices: Devices) -> None:
    stream = Stream(net, devices)
    with pytest.raises(RuntimeError, match="does not run; call start"):
        stream.device.connections()
    stream.device.start()
    with pytest.raises(RuntimeError, match="set watch_connections to True before start"):
        stream.device.connections()


def test_a_paused_device_watches(engine: str, net: Network, devices: Devices) -> None:
    """More than a monitor's high-water mark would have: it is read whatever the device does."""
    stream = watched(net, devices)
    stream.device.start()
    stream.device.pause()
    for _ in range(700):  # 3 events each
        peer = connected(stream.device.endpoints["in"][0], b"PUSH")
        peer.shake_hands()
        peer.connection.close()
    wait_until(lambda: of(stream).disconnected == 700)
    assert of(stream)[:4] == (0, 700, 0, 700)


def test_it_ends_with_the_device(engine: str, net: Network, devices: Devices) -> None:
    stream = watched(net, devices)
    census = Census(net)
    for _ in range(5):
        with stream.device:
            stream.source().close()
        stream.has_ended()
        census.nothing_new()
    if devices.in_this_process:
        stream.device.start()
        term = Background(net.context.term)
        stream.device.join()
        for target in net._sockets:
            target.close()
        term.join()
        wait_until(lambda: set(threading.enumerate()) <= census.threads)


def test_it_ends_with_sockets_that_linger(engine: str, net: Network, threads: Devices) -> None:
    """Nothing waits for a monitor that is read no more."""
    stream = watched(net, threads)
    late = net.bound(zmq.PULL, "tcp")
    address = late.last_endpoint.decode()
    late.unbind(address)
    wait_until(lambda: not listens(address))
    stream.device.setsockopt_out(zmq.SNDHWM, 10)
    stream.device.connect_out(address)
    with stream.device:
        fill(stream.source())
        wait_until(lambda: stream.there.parked)
    stream.has_ended()
    wait_until(lambda: bind(late, address))
    assert late.recv() == b"full"
    with stream.device:
        pass
    stream.has_ended()
