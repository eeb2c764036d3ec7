"""Endpoints, binds, connects and options, before the start and while a device runs."""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import zmq

import zdev

from ..support import DEADLINE, Background, Network, wait_until
from .addresses import LOCAL, ROLES, listens, port_of, steerable
from .background import Devices

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

# Endpoints


def test_endpoints_of_all_roles(engine: str, devices: Devices, tmp_path: Path) -> None:
    device = steerable(devices)
    assert device.endpoints == {}
    path = f"ipc://{tmp_path}/socket"
    for role in ROLES:
        bind = getattr(device, f"bind_{role}")
        for address in (f"{LOCAL}:*", f"{LOCAL}:0", "tcp://*:*", "ipc://*"):
            bind(address)
    device.bind_in(path)
    device.start()
    endpoints = device.endpoints
    assert list(endpoints) == ROLES
    assert endpoints["in"].pop() == path
    for bound in endpoints.values():
        assert [address.rstrip("0123456789") for address in bound[:3]] == [
            f"{LOCAL}:",
            f"{LOCAL}:",
            "tcp://0.0.0.0:",
        ]
        assert bound[3].startswith("ipc://")
        assert all(map(listens, bound))
    everywhere = [address for bound in endpoints.values() for address in bound]
    assert len(set(everywhere)) == 16
    device.stop()
    wait_until(lambda: not any(map(listens, everywhere)))
    assert device.endpoints["out"] == endpoints["out"], "what was is still known"


def test_endpoints_of_a_thread_may_be_inproc(engine: str, net: Network) -> None:
    device = zdev.ThreadProxy(zmq.PULL, zmq.PUSH)
    device.context_factory = lambda: net.context
    device.bind_mon("inproc://mon")
    with device:
        assert device.endpoints == {"in": [], "out": [], "mon": ["inproc://mon"]}


def test_endpoints_are_a_copy(devices: Devices) -> None:
    device = devices("Proxy", zmq.PULL, zmq.PUSH)
    device.bind_in(f"{LOCAL}:*")
    device.start()
    device.endpoints["in"].clear()
    assert len(device.endpoints["in"]) == 1


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("verb", ["bind", "connect", "unbind", "disconnect"])
def test_what_is_no_address(devices: Devices, verb: str, role: str, live: bool) -> None:
    device = steerable(devices)
    method = getattr(device, f"{verb}_{role}")
    if live:
        device.start()
    for addr, kind in ((None, "NoneType"), (5, "int")):
        with pytest.raises(TypeError, match=f"{verb}_{role}: the address must be a str.* {kind}"):
            method(addr)
    assert not getattr(device, f"_{role}_binds") + getattr(device, f"_{role}_connects")


def test_endpoints_after_a_start_that_failed(devices: Devices) -> None:
    device = steerable(devices)
    device.bind_in(f"{LOCAL}:*")
    device.bind_out("tcp://nowhere:1")
    with pytest.raises(zmq.ZMQError):
        device.start()
    assert device.endpoints == {}


# Plans


def test_unbind_and_disconnect_before_the_start(engine: str, devices: Devices) -> None:
    device = steerable(devices)
    for role in ROLES:
        for verb, undo in (("bind", "unbind"), ("connect", "disconnect")):
            getattr(device, f"{verb}_{role}")(f"{LOCAL}:1")
            getattr(device, f"{undo}_{role}")(f"{LOCAL}:1")
            with pytest.raises(zmq.ZMQError) as caught:
                getattr(device, f"{undo}_{role}")(f"{LOCAL}:1")
            assert caught.value.errno == errno.ENOENT
            assert f"{LOCAL}:1" in str(caught.value)
    device.start()
    assert not any(device.endpoints.values())


def test_a_restart_keeps_the_configuration(engine: str, devices: Devices, net: Network) -> None:
    device = devices("Device", zmq.QUEUE, zmq.PULL, zmq.DEALER)
    outside = net.bound(zmq.ROUTER, "tcp", router_handover=True)
    gone = net.bound(zmq.ROUTER, "tcp")
    port = device.bind_in_to_random_port(LOCAL)
    device.setsockopt_out(zmq.ROUTING_ID, "first")
    device.connect_out(gone.last_endpoint.decode())
    device.bind_out(f"{LOCAL}:*")
    source = net.socket(zmq.PUSH)
    source.connect(f"{LOCAL}:{port}")
    device.start()
    source.send(b"x")
    assert gone.recv_multipart() == [b"first", b"x"]
    # what is changed while it runs is kept too
    device.setsockopt_out(zmq.ROUTING_ID, "second")
    device.connect_out(outside.last_endpoint.decode())
    device.disconnect_out(gone.last_endpoint.decode())
    (wildcard,) = device.endpoints["out"]
    device.unbind_out(wildcard)
    late = device.bind_in_to_random_port(LOCAL)
    for turn in range(3):
        device.stop()
        device.start()
        assert [port_of(address) for address in device.endpoints["in"]] == [port, late]
        assert device.endpoints["out"] == []
        # the old one may not yet know that its connection is gone, and would lose this with it
        source = net.socket(zmq.PUSH)
        source.connect(f"{LOCAL}:{port}")
        source.send(b"%d" % turn)
        assert outside.recv_multipart() == [b"second", b"%d" % turn]
    assert gone.poll(0) == 0
    assert device.statistics().frontend_to_backend.messages_sent == 1, "of this run"


def test_unbind_after_the_end_by_the_real_address(devices: Devices) -> None:
    device = devices("Device", zmq.QUEUE, zmq.PULL, zmq.PUSH)
    device.bind_in(f"{LOCAL}:*")
    device.bind_in("ipc://*")
    device.start()
    device.stop()
    device.unbind_in(device.endpoints["in"][0])
    assert device._in_binds == ["ipc://*"]


# While it runs


def test_bind_and_unbind_while_it_runs(engine: str, devices: Devices) -> None:
    device = steerable(devices)
    device.start()
    for role in ROLES:
        bind, unbind = (getattr(device, f"{verb}_{role}") for verb in ("bind", "unbind"))
        for wildcard in (f"{LOCAL}:*", "tcp://*:*", "ipc://*"):
            bind(wildcard)
            bind(addr=wildcard)
            first, second = device.endpoints[role]
            assert listens(first)
            assert listens(second)
            assert getattr(device, f"_{role}_binds") == [wildcard, wildcard]
            unbind(addr=second)  # by what it became
            assert device.endpoints[role] == [first]
            assert not listens(second)
            assert listens(first)
            unbind(wildcard)  # as it was asked for
            assert device.endpoints[role] == []
            assert not listens(first)
            assert getattr(device, f"_{role}_binds") == []


def test_connect_and_disconnect_while_it_runs(engine: str, devices: Devices, net: Network) -> None:
    device = devices("Device", zmq.QUEUE, zmq.PULL, zmq.PUSH)
    device.start()
    sources = [net.bound(zmq.PUSH, "tcp") for _ in range(2)]
    sinks = [net.bound(zmq.PULL, "tcp") for _ in range(2)]
    addresses = [socket.last_endpoint.decode() for socket in (*sources, *sinks)]
    device.connect_in(addresses[0])
    device.connect_out(addresses[2])
    sources[0].send(b"a")
    assert sinks[0].recv() == b"a"
    device.connect_in(addr=addresses[1])
    device.disconnect_in(addresses[0])
    device.connect_out(addresses[3])
    device.disconnect_out(addr=addresses[2])
    sources[1].send(b"b")
    assert sinks[1].recv() == b"b"
    sources[0].sndtimeo = 0

    def is_alone() -> bool:
        try:
            sources[0].send(b"nobody takes it")
        except zmq.Again:
            return True
        return False

    wait_until(is_alone)
    assert (device._in_connects, device._out_connects) == ([addresses[1]], [addresses[3]])


def test_options_while_it_runs(engine: str, devices: Devices, net: Network) -> None:
    device = devices("Proxy", zmq.SUB, zmq.DEALER)
    source, sink = net.bound(zmq.XPUB, "tcp"), net.bound(zmq.ROUTER, "tcp")
    device.connect_in(source.last_endpoint.decode())
    device.start()
    device.setsockopt_in(zmq.SUBSCRIBE, "news")
    assert source.recv() == b"\x01news"
    device.setsockopt_out(opt=zmq.ROUTING_ID, value="later")
    device.connect_out(sink.last_endpoint.decode())
    source.send_multipart([b"news", b"!"])
    assert sink.recv_multipart() == [b"later", b"news", b"!"]
    device.setsockopt_in(zmq.UNSUBSCRIBE, b"news")
    assert source.recv() == b"\x00news"
    assert device._in_sockopts == [(zmq.SUBSCRIBE, "news"), (zmq.UNSUBSCRIBE, b"news")]


def test_errors_are_raised_here_and_leave_the_device_alone(
    engine: str, devices: Devices, net: Network
) -> None:
    device = steerable(devices)
    device.bind_in(f"{LOCAL}:*")
    device.bind_out(f"{LOCAL}:*")
    device.start()
    with net.socket(zmq.PULL) as other:
        other.bind(f"{LOCAL}:*")
        taken = other.last_endpoint.decode()
        before = device.endpoints
        for role in ROLES:
            for verb, arguments, number in [
                ("bind", [taken], errno.EADDRINUSE),
                ("bind", ["tcp://nonesuch:1"], errno.ENODEV),
                ("bind", ["nonsense"], errno.EINVAL),
                ("unbind", [taken], errno.ENOENT),
                ("connect", ["nonsense"], errno.EINVAL),
                ("disconnect", [taken], errno.ENOENT),
                ("setsockopt", [zmq.SNDHWM, -5], errno.EINVAL),
                ("setsockopt", [99999, 1], errno.EINVAL),
            ]:
                with pytest.raises(zmq.ZMQError) as caught:
                    getattr(device, f"{verb}_{role}")(*arguments)
                assert caught.value.errno == number, (verb, arguments)
                in_use = number == errno.EADDRINUSE
                assert isinstance(caught.value, zmq.ZMQBindError) is in_use
            with pytest.raises(TypeError):
                getattr(device, f"setsockopt_{role}")(zmq.SNDHWM, object)
            with pytest.raises(zmq.ZMQError):
                getattr(device, f"bind_{role}_to_random_port")("tcp://nonesuch")
            plans = [getattr(device, f"_{role}_{what}") for what in ("connects", "sockopts")]
            assert plans == [[], []]
    assert device.endpoints == before
    source, sink = net.socket(zmq.PUSH), net.socket(zmq.PULL)
    source.connect(device.endpoints["in"][0])
    sink.connect(device.endpoints["out"][0])
    source.send(b"fine")
    assert sink.recv() == b"fine"


def test_wiring_in_any_state(engine: str, devices: Devices, net: Network) -> None:
    device = devices("Proxy", zmq.PULL, zmq.PUSH)
    device.bind_in(f"{LOCAL}:*")
    device.start()
    source, sink = net.socket(zmq.PUSH), net.socket(zmq.PULL)
    source.connect(device.endpoints["in"][0])
    source.send(b"first")
    wait_until(lambda: device.statistics().frontend_to_backend.parked)
    device.pause()
    device.bind_out(f"{LOCAL}:*")  # parked and paused
    sink.connect(device.endpoints["out"][0])
    assert sink.poll(50) == 0
    device.resume()
    assert sink.recv() == b"first"


def test_wiring_from_many_threads(engine: str, devices: Devices) -> None:
    device = devices("Device", zmq.QUEUE, zmq.PULL, zmq.PUSH)
    device.start()

    def bind_and_unbind() -> int:
        port: int = device.bind_in_to_random_port(LOCAL)
        device.unbind_in(f"{LOCAL}:{port}")
        device.bind_out(f"{LOCAL}:*")
        return port

    threads = [Background(bind_and_unbind) for _ in range(8)]
    assert len({thread.join() for thread in threads}) == 8
    assert device.endpoints["in"] == device._in_binds == []
    assert len(set(device.endpoints["out"])) == 8


@pytest.mark.parametrize("role", ["in", "out", "mon"])
def test_wiring_of_a_foreground_device(engine: str, net: Network, role: str) -> None:
    device = zdev.Proxy(zmq.PULL, zmq.PUSH)
    device.context_factory = lambda: net.context
    device.bind_in(f"{LOCAL}:*")
    background = Background(device.start)
    wait_until(lambda: device.endpoints.get("in"))
    port = getattr(device, f"bind_{role}_to_random_port")(LOCAL)
    assert listens(f"{LOCAL}:{port}")
    device.stop(timeout=DEADLINE)
    background.join()


def test_an_option_for_linger_stays(engine: str, net: Network) -> None:
    # zdev holds LINGER at 0 while a device runs, and must not lose what the user says meanwhile
    device = zdev.ThreadDevice(zmq.QUEUE, zmq.PULL, zmq.PUSH)
    device.context_factory = lambda: net.context
    sockets: list[Any] = []
    lingers: list[int] = []
    close = device._close_sockets

    def look() -> None:
        lingers.extend(socket.linger for socket in device._sockets)
        sockets.extend(device._sockets)
        close()

    device._close_sockets = look  # type: ignore[method-assign]
    device.start()
    device.setsockopt_in(zmq.LINGER, 1234)
    device.setsockopt_out(zmq.LINGER, -1)
    relay = device._run.relay
    assert relay is not None
    assert relay.call(lambda: [socket.linger for socket in device._sockets]) == [1234, 0]
    device.stop()
    assert lingers[0] == 1234
    assert all(socket.closed for socket in sockets)


# The classic: another publisher joins a forwarder


def test_a_live_forwarder_joins_another_publisher(
    engine: str, devices: Devices, net: Network
) -> None:
    device = devices("Proxy", zmq.XSUB, zmq.XPUB)
    unlimited = {"sndhwm": 0, "rcvhwm": 0}
    old = net.bound(zmq.XPUB, "tcp", **unlimited)
    new = net.bound(zmq.XPUB, "tcp", **unlimited)
    for role in ("in", "out"):
        for option in (zmq.SNDHWM, zmq.RCVHWM):
            getattr(device, f"setsockopt_{role}")(option, 0)
    device.connect_in(old.last_endpoint.decode())
    device.bind_out(f"{LOCAL}:*")
    device.start()
    subscriber = net.socket(zmq.SUB, **unlimited)
    subscriber.connect(device.endpoints["out"][0])
    subscriber.subscribe(b"news")
    assert old.recv() == b"\x01news"

    over = threading.Event()

    def publish() -> int:
        number = 0
        while not over.is_set() or number < 100:
            old.send_multipart([b"news", b"old", b"%d" % number])
            number += 1
            over.wait(0.0001)
        old.send_multipart([b"news", b"old", b"end"])
        return number

    publisher = Background(publish)
    assert subscriber.recv_multipart() == [b"news", b"old", b"0"]
    device.connect_in(new.last_endpoint.decode())
    assert new.recv() == b"\x01news"  # subscriptions of old are told to the new one
    for number in range(100):
        new.send_multipart([b"news", b"new", b"%d" % number])
    # and in midstream it goes again
    received: dict[bytes, list[bytes]] = {b"old": [b"0"], b"new": []}
    while len(received[b"new"]) < 100:
        _, who, what = subscriber.recv_multipart()
        received[who].append(what)
    device.disconnect_in(new.last_endpoint.decode())
    over.set()
    while received[b"old"][-1] != b"end":
        _, who, what = subscriber.recv_multipart()
        received[who].append(what)
    published = publisher.join()
    assert received[b"old"] == [*(b"%d" % number for number in range(published)), b"end"]
    assert received[b"new"] == [b"%d" % number for number in range(100)]
    there, back, _ = device.statistics()
    assert there.messages_received == there.messages_sent == published + 101
    assert back.messages_sent == 1


def test_what_waits_for_a_disconnected_peer_does_not_hold_the_end_up(
    engine: str, devices: Devices, net: Network
) -> None:
    device = devices("Device", zmq.STREAMER, zmq.PULL, zmq.PUSH)
    device.context_factory = zmq.Context
    device.bind_in(f"{LOCAL}:*")
    stalled = net.bound(zmq.PULL, "tcp", rcvhwm=1, rcvbuf=4096)
    address = stalled.last_endpoint.decode()
    device.connect_out(address)
    device.start()
    source = net.socket(zmq.PUSH, sndhwm=0)
    source.connect(device.endpoints["in"][0])
    for _ in range(200):  # more than the buffers of tcp hold
        source.send(bytes(100_000))
    wait_until(lambda: device.statistics().frontend_to_backend.messages_sent == 200)
    device.disconnect_out(address)
    device.stop(timeout=DEADLINE)
    assert device.done
    device.join()


@pytest.mark.parametrize("addr", ["tcp://[::1]:*", b"tcp://[::1]:*"])
def test_ipv6_has_to_be_asked_for(devices: Devices, addr: Any) -> None:
    device = devices("Proxy", zmq.PULL, zmq.PUSH)
    device.bind_in(addr)
    with pytest.raises(zmq.ZMQError, match="to use IPv6, set ZMQ_IPV6") as caught:
        device.start()
    assert caught.value.errno == errno.ENODEV


@pytest.mark.parametrize("forgotten", [1, 3])
def test_a_bind_whose_reason_libzmq_has_forgotten(
    engine: str, net: Network, threads: Devices, forgotten: int
) -> None:
    """A monitor that is told of the failure may leave EAGAIN in its place."""
    left = [zmq.Again()] * forgotten

    class Forgetful(zmq.Socket[bytes]):
        def bind(self, addr: str) -> Any:
            if left:
                raise left.pop()
            return super().bind(addr)

    class Context(zmq.Context[Any]):
        _socket_class = Forgetful

    taken = net.bound(zmq.PULL, "tcp").last_endpoint.decode()
    device = threads("Proxy", zmq.PULL, zmq.PUSH)
    device.context_factory = Context
    device.bind_in(taken)
    with pytest.raises(zmq.ZMQError) as caught:
        device.start()
    assert caught.value.errno == (errno.EADDRINUSE if forgotten == 1 else errno.EAGAIN)
    assert left == []


# The threads of a context


def io_threads(device: Any) -> int:
    """Return how many a device's context has."""
    process = device.launcher.pid
    names = [task / "comm" for task in Path(f"/proc/{process}/task").iterdir()]
    return sum(name.read_text().startswith("ZMQbg/IO/") for name in names)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads in /proc")
def test_io_threads_of_a_process(engine: str) -> None:
    device = zdev.ProcessProxy(zmq.PULL, zmq.PUSH, io_threads=3)
    device.bind_in("tcp://127.0.0.1:*")
    with device:
        wait_until(lambda: io_threads(device) == 3)  # each thread names itself
    device.io_threads = None
    with device:
        wait_until(lambda: io_threads(device) == 1)


def test_io_threads_of_a_context_of_its_own(engine: str, threads: Devices) -> None:
    device = threads("Proxy", zmq.PULL, zmq.PUSH, io_threads=2)
    with pytest.raises(ValueError, match="is for a context of the device's own; set context_fac"):
        device.start()
    device.context_factory = zmq.Context
    device.bind_in("tcp://127.0.0.1:*")
    with device:
        assert device._context.get(zmq.IO_THREADS) == 2


@pytest.mark.parametrize(
    ("count", "error", "words"),
    [
        (0, ValueError, "io_threads must be at least 1, not 0"),
        (-1, ValueError, "io_threads must be at least 1, not -1"),
        ("2", TypeError, "io_threads must be an int, not str"),
        (1.5, TypeError, "io_threads must be an int, not float"),
    ],
)
def test_wrong_io_threads(count: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        zdev.ThreadProxy(zmq.PULL, zmq.PUSH, io_threads=count)


def test_a_capture_is_wired_when_the_device_relays_but_its_relay_has_not_begun(
    engine: str, net: Network, threads: Devices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it joins from the thread that wires it, while the device's own looks at its sockets."""
    begins, is_wired = threading.Event(), threading.Event()

    def slowly(sockets: Iterable[Any]) -> contextlib.AbstractContextManager[None]:
        for _ in sockets:
            begins.set()
            assert is_wired.wait(DEADLINE)
        return contextlib.nullcontext()

    monkeypatch.setattr(zdev._relay, "unwatched", slowly)
    device = threads("Proxy", zmq.PULL, zmq.PUSH, zmq.PUB)
    device.bind_in("tcp://127.0.0.1:*")
    device.bind_out("tcp://127.0.0.1:*")
    device.start()
    assert begins.wait(DEADLINE)
    device.bind_mon("tcp://127.0.0.1:*")
    is_wired.set()
    watcher = net.socket(zmq.SUB)
    watcher.subscribe(b"")
    (address,) = device.endpoints["mon"]
    watcher.connect(address)
    source, sink = net.socket(zmq.PUSH), net.socket(zmq.PULL)
    source.connect(device.endpoints["in"][0])
    sink.connect(device.endpoints["out"][0])

    def seen() -> bool:
        source.send(b"x")
        assert sink.recv() == b"x"
        return bool(watcher.poll(10))

    wait_until(seen)
    device.stop()
