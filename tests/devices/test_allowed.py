"""Who is let in at a device's sockets: by CURVE or PLAIN, and by lists."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from zmq.auth.thread import ThreadAuthenticator

import zdev
from zdev import _connections, _zap

from ..support import DEADLINE, Background, Network, wait_until
from .background import Devices, running_device
from .census import Census
from .keys import Pair, joined
from .peers import connected
from .streams import ANY, Stream

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
    pytest.mark.skipif(not zmq.has("curve"), reason="this libzmq has no CURVE"),
]

ROLES = ["in", "out", "mon", "ctrl"]
PEERS = {"in": zmq.PUSH, "out": zmq.PULL, "mon": zmq.SUB, "ctrl": zmq.REQ}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="module")
def server(directory: Path) -> Pair:
    return Pair(directory, "server")


@pytest.fixture(scope="module")
def alice(directory: Path) -> Pair:
    return Pair(directory, "alice")


@pytest.fixture(scope="module")
def bob(directory: Path) -> Pair:
    return Pair(directory, "bob")


def steerable(net: Network, devices: Devices, **settings: Any) -> Any:
    types = zmq.PULL, zmq.PUSH, zmq.PUB, zmq.REP
    device = devices("ProxySteerable", *types, watch_connections=True, **settings)
    if devices.in_this_process:
        device.context_factory = lambda: net.context
    return device


def guarded(net: Network, devices: Devices, server: Pair, *allowed: Pair) -> Stream:
    """Return a streamer that lets these in at its front."""
    stream = Stream(net, devices, watch_connections=True)
    stream.device.curve_server_in(server.both)
    stream.device.allow_in([pair.public for pair in allowed])
    return stream


def of(device: Any, role: str = "in") -> zdev.Connections:
    connections: zdev.Connections = device.connections()[role]
    return connections


def gets_through(source: zmq.Socket[bytes], sink: zmq.Socket[bytes], message: bytes) -> None:
    source.send(message)
    assert sink.recv() == message


# In each role


@pytest.mark.parametrize("role", ROLES)
def test_a_server_lets_in_who_is_allowed_and_nobody_else(
    role: str,
    engine: str,
    net: Network,
    devices: Devices,
    server: Pair,
    alice: Pair,
    bob: Pair,
    caplog: pytest.LogCaptureFixture,
) -> None:
    device = steerable(net, devices)
    for each in ROLES:
        getattr(device, f"bind_{each}")(ANY)
    getattr(device, f"curve_server_{role}")(server.secret_path)
    getattr(device, f"allow_{role}")([alice.public])
    device.start()
    (address,) = device.endpoints[role]
    joined(net, PEERS[role], address, **alice.client_of(server.public))
    wait_until(lambda: of(device, role).peers == 1)
    joined(net, PEERS[role], address, **bob.client_of(server.public))
    wait_until(lambda: of(device, role).failed.get("refused"))
    without = connected(address, zmq.SocketType(PEERS[role]).name.encode())
    wait_until(lambda: of(device, role).failed.get("credentials"))
    without.connection.close()
    assert of(device, role).peers == 1
    refused = (
        f"{device.name}: {role} has refused 127.0.0.1: CURVE, public key {bob.public.decode()}"
    )
    wait_until(lambda: refused in caplog.messages)
    disagree = f"{role}: who came to {address}, or is there, has no security"
    wait_until(lambda: any(disagree in message for message in caplog.messages))
    for other in set(ROLES) - {role}:  # nothing has been said of them
        joined(net, PEERS[other], device.endpoints[other][0])
        wait_until(lambda other=other: of(device, other).peers == 1)  # type: ignore[misc]


@pytest.mark.parametrize("role", ROLES)
def test_a_client_comes_to_servers_that_have_the_key(
    role: str, engine: str, net: Network, devices: Devices, server: Pair, alice: Pair
) -> None:
    kind = {"in": zmq.PUSH, "out": zmq.PULL, "mon": zmq.SUB, "ctrl": zmq.REQ}[role]
    device = steerable(net, devices)
    getattr(device, f"curve_client_{role}")(alice.secret_path, server.public_path)
    right = net.bound(kind, "tcp", **server.server())
    wrong = net.bound(kind, "tcp", **alice.server())
    for target in (right, wrong):
        getattr(device, f"connect_{role}")(target.last_endpoint.decode())
    device.start()
    wait_until(lambda: of(device, role).peers == 1 and of(device, role).failed)
    assert of(device, role).peers == 1


@pytest.mark.parametrize("role", ROLES)
def test_passwords(role: str, engine: str, net: Network, devices: Devices) -> None:
    device = steerable(net, devices)
    getattr(device, f"plain_server_{role}")({"alice": "hers"})
    getattr(device, f"bind_{role}")("ipc://*")
    device.start()
    (address,) = device.endpoints[role]
    joined(net, PEERS[role], address, plain_username=b"alice", plain_password=b"hers")
    wait_until(lambda: of(device, role).peers == 1)
    for number, (name, password) in enumerate([(b"alice", b"her"), (b"bob", b"hers")], 1):
        joined(net, PEERS[role], address, plain_username=name, plain_password=password)
        wait_until(lambda n=number: of(device, role).failed == {"refused": n})  # type: ignore[misc]
    getattr(device, f"allow_{role}")({"bob": b"hers"})
    joined(net, PEERS[role], address, plain_username=b"bob", plain_password=b"hers")
    wait_until(lambda: of(device, role).peers == 2)


def test_a_client_with_a_password(engine: str, net: Network, devices: Devices) -> None:
    """Between two devices."""
    worker, broker = (Stream(net, devices, watch_connections=True) for _ in range(2))
    broker.device.plain_server_out({"w\N{LATIN SMALL LETTER O WITH DIAERESIS}rker": "word"})
    broker.device.start()
    worker.device.plain_client_in("w\N{LATIN SMALL LETTER O WITH DIAERESIS}rker", "word")
    worker.device.unbind_in(ANY)
    worker.device.connect_in(broker.device.endpoints["out"][0])
    worker.device.start()
    gets_through(broker.source(), worker.sink(), b"a job")


def test_a_chain_of_devices(
    engine: str, net: Network, devices: Devices, server: Pair, alice: Pair
) -> None:
    far = guarded(net, devices, server, alice)
    far.device.start()
    near = Stream(net, devices)
    near.device.curve_client_out(alice.both, server.public.decode())
    near.device.unbind_out(ANY)
    near.device.connect_out(far.device.endpoints["in"][0])
    near.device.start()
    gets_through(near.source(), far.sink(), b"through both")


def test_over_ipc(
    engine: str, net: Network, devices: Devices, server: Pair, alice: Pair, bob: Pair
) -> None:
    stream = guarded(net, devices, server, alice)
    stream.device.bind_in("ipc://*")
    stream.device.start()
    address = stream.device.endpoints["in"][1]
    joined(net, zmq.PUSH, address, **bob.client_of(server.public))
    wait_until(lambda: of(stream.device).failed == {"refused": 1})
    source = joined(net, zmq.PUSH, address, **alice.client_of(server.public))
    gets_through(source, stream.sink(), b"over ipc")


def test_without_a_list_all_come_in_who_know_the_servers_key(
    engine: str, net: Network, devices: Devices, server: Pair, alice: Pair, bob: Pair
) -> None:
    """Also where the handler is there for another device's list."""
    listed = guarded(net, devices, server)
    listed.device.start()
    stream = Stream(net, devices, watch_connections=True)
    stream.device.curve_server_in(server.both)
    stream.device.start()
    (address,) = stream.device.endpoints["in"]
    source = joined(net, zmq.PUSH, address, **bob.client_of(server.public))
    gets_through(source, stream.sink(), b"encrypted")
    joined(net, zmq.PUSH, address, **bob.client_of(alice.public))
    wait_until(lambda: of(stream.device).failed.get("credentials"))
    assert of(stream.device).peers == 1


# Lists


def test_an_empty_list_lets_nobody_in(
    engine: str, net: Network, devices: Devices, server: Pair, alice: Pair
) -> None:
    stream = guarded(net, devices, server)
    stream.device.start()
    stream.source(**alice.client_of(server.public))
    wait_until(lambda: of(stream.device).failed == {"refused": 1})


def test_a_new_list_holds_at_once_and_who_is_in_stays(
    engine: str, net: Network, devices: Devices, server: Pair, alice: Pair, bob: Pair
) -> None:
    stream = guarded(net, devices, server, alice)
    stream.device.start()
    sink = stream.sink()
    first = stream.source(**alice.client_of(server.public))
    gets_through(first, sink, b"hers")
    stream.device.allow_in([bob.public.decode()])
    second = stream.source(**bob.client_of(server.public))
    gets_through(second, sink, b"his")
    stream.source(**alice.client_of(server.public))
    wait_until(lambda: of(stream.device).failed == {"refused": 1})
    gets_through(first, sink, b"hers still")
    stream.device.pause()
    stream.device.allow_in([alice.public_path, bob.public])
    stream.source(**alice.client_of(server.public))
    wait_until(lambda: of(stream.device).peers == 3)
    stream.device.stop()
    stream.device.start()  # as it was last
    gets_through(stream.source(**bob.client_of(server.public)), stream.sink(), b"again")
    stream.device.stop()
    stream.has_ended()


def test_a_directory_is_read_again_when_it_is_given_again(
    engine: str,
    net: Network,
    devices: Devices,
    server: Pair,
    alice: Pair,
    bob: Pair,
    tmp_path: Path,
) -> None:
    shutil.copy(alice.public_path, tmp_path)
    shutil.copy(bob.secret_path, tmp_path)  # which is not looked at
    stream = guarded(net, devices, server)
    stream.device.allow_in(tmp_path)
    stream.device.start()
    sink = stream.sink()
    gets_through(stream.source(**alice.client_of(server.public)), sink, b"hers")
    shutil.copy(bob.public_path, tmp_path)
    stream.source(**bob.client_of(server.public))
    wait_until(lambda: of(stream.device).failed == {"refused": 1})
    (tmp_path / "broken.key").write_text("curve\n")
    with pytest.raises(ValueError, match=r"broken\.key has no public-key"):
        stream.device.allow_in(str(tmp_path))
    (tmp_path / "broken.key").unlink()
    stream.source(**bob.client_of(server.public))  # the list is as it was
    wait_until(lambda: of(stream.device).failed == {"refused": 2})
    stream.device.allow_in(str(tmp_path))
    gets_through(stream.source(**bob.client_of(server.public)), sink, b"his")


def test_each_socket_has_a_list_of_its_own(
    engine: str, net: Network, devices: Devices, server: Pair, alice: Pair, bob: Pair
) -> None:
    """Of one context, and one device's end is not another's."""
    census = Census(net)
    one, other = guarded(net, devices, server, alice), guarded(net, devices, server, bob)
    one.device.curve_server_out(server.both)
    one.device.allow_out([bob.public])
    one.device.start()
    other.device.start()
    source = one.source(**alice.client_of(server.public))
    gets_through(source, one.sink(**bob.client_of(server.public)), b"from her to him")
    one.sink(**alice.client_of(server.public))
    wait_until(lambda: of(one.device, "out").failed == {"refused": 1})
    other.source(**alice.client_of(server.public))
    wait_until(lambda: of(other.device).failed == {"refused": 1})
    one.device.stop()
    gets_through(other.source(**bob.client_of(server.public)), other.sink(), b"his")
    other.device.stop()
    assert not _zap._handlers
    net.close()
    net.context = zmq.Context()
    census.nothing_new()


def test_it_can_be_wired_to_a_device_that_runs(
    engine: str, net: Network, devices: Devices, server: Pair, alice: Pair, bob: Pair
) -> None:
    """What is bound already stays as it is, so that is refused."""
    device = steerable(net, devices)
    device.bind_in(ANY)
    device.start()
    for call in (
        lambda: device.curve_server_in(server.both),
        lambda: device.curve_client_in(alice.both, server.public),
        lambda: device.plain_server_in({}),
        lambda: device.plain_client_in("a", "b"),
        lambda: device.allow_in([]),
    ):
        with pytest.raises(RuntimeError, match="the in socket is bound or connected"):
            call()
    device.unbind_in(device.endpoints["in"][0])
    for role in ("in", "mon"):  # the monitor has no socket yet, unless it is watched
        getattr(device, f"curve_server_{role}")(server.both)
        getattr(device, f"allow_{role}")([alice.public])
        getattr(device, f"bind_{role}")(ANY)
        (address,) = device.endpoints[role]
        joined(net, PEERS[role], address, **bob.client_of(server.public))
        wait_until(lambda role=role: of(device, role).failed.get("refused"))  # type: ignore[misc]
        joined(net, PEERS[role], address, **alice.client_of(server.public))
        wait_until(lambda role=role: of(device, role).peers == 1)  # type: ignore[misc]
    with pytest.raises(ValueError, match="the list is one of PLAIN, and the in socket"):
        device.allow_in({"alice": "hers"})
    device.stop()
    device.start()
    wait_until(lambda: of(device, "in").listeners)


def test_one_socket_as_both_ends(
    engine: str, net: Network, devices: Devices, server: Pair, alice: Pair, bob: Pair
) -> None:
    device = devices("Device", zmq.QUEUE, zmq.ROUTER, -1, watch_connections=True)
    device.bind_in(ANY)
    device.start()
    for call in (
        lambda: device.curve_server_out(server.both),
        lambda: device.allow_out([alice.public]),
    ):
        with pytest.raises(RuntimeError, match="the out socket is bound or connected"):
            call()
    device.stop()
    device.curve_server_in(server.both)
    device.allow_in([alice.public])
    device.start()
    device.allow_out([bob.public])  # it is one list
    (address,) = device.endpoints["in"]
    joined(net, zmq.DEALER, address, **alice.client_of(server.public))
    wait_until(lambda: of(device).failed == {"refused": 1})
    joined(net, zmq.DEALER, address, **bob.client_of(server.public))
    wait_until(lambda: of(device).peers == 1)


def test_a_monitor_that_is_made_when_it_is_wired(
    engine: str, net: Network, devices: Devices, server: Pair, alice: Pair
) -> None:
    stream = Stream(net, devices, "Proxy")
    stream.device.start()
    stream.device.curve_server_mon(server.both)
    stream.device.allow_mon([alice.public])
    stream.device.bind_mon(ANY)
    (address,) = stream.device.endpoints["mon"]
    seen = joined(net, zmq.PULL, address, **alice.client_of(server.public))
    gets_through(stream.source(), stream.sink(), b"a message")
    assert seen.recv() == b"a message"


def test_the_last_word_counts(
    engine: str, net: Network, devices: Devices, server: Pair, alice: Pair
) -> None:
    stream = guarded(net, devices, alice, alice)
    stream.device.curve_client_in(alice.both, server.public)
    stream.device.plain_client_in("a", "b")
    stream.device.curve_server_in(server.both)
    options = [option for option, _ in stream.device._in_sockopts]
    assert options == [zmq.CURVE_PUBLICKEY, zmq.CURVE_SECRETKEY, zmq.CURVE_SERVER]
    stream.device.start()
    source = stream.source(**alice.client_of(server.public))
    gets_through(source, stream.sink(), b"to the server")


@pytest.mark.parametrize("mechanism", ["CURVE", "PLAIN", "NULL"])
def test_a_list_that_does_not_fit(
    mechanism: str, engine: str, net: Network, devices: Devices, server: Pair
) -> None:
    stream = Stream(net, devices)
    stream.device.allow_in({"alice": "hers"} if mechanism == "CURVE" else [server.public])
    if mechanism == "CURVE":
        stream.device.curve_server_in(server.both)
    elif mechanism == "PLAIN":
        stream.device.setsockopt_in(zmq.PLAIN_SERVER, 1)
    assert stream.device._plans["in"].mechanism == mechanism
    with pytest.raises(ValueError, match=r"allow_in: the list is one of .* is no server of that"):
        stream.device.start()
    assert not _zap._handlers


def test_options_that_were_set_one_by_one(
    engine: str, net: Network, devices: Devices, server: Pair, alice: Pair
) -> None:
    stream = Stream(net, devices)
    stream.device.allow_in([alice.public])
    stream.device.setsockopt_in(zmq.ZAP_DOMAIN, "mine")  # there is another
    stream.device.setsockopt_in(zmq.CURVE_SECRETKEY, server.secret.decode())
    stream.device.setsockopt_in(zmq.CURVE_SERVER, 1)
    stream.device.start()
    gets_through(stream.source(**alice.client_of(server.public)), stream.sink(), b"hers")


class OwnSockets(zdev.ThreadDevice):
    def _setup_sockets(self) -> Any:
        context = self._context = self.context_factory()
        self._sockets = [context.socket(kind) for kind in (self.in_type, self.out_type)]
        return self._sockets


def test_a_subclass_that_makes_its_sockets_itself_has_no_lists(
    engine: str, net: Network, alice: Pair
) -> None:
    device = OwnSockets(zmq.QUEUE, zmq.PULL, zmq.PUSH)
    device.context_factory = lambda: net.context
    device.allow_in([alice.public])
    with pytest.raises(RuntimeError, match="allow_in: the in socket was made elsewhere"):
        device.start()


# The handler


def is_free(context: zmq.Context[Any]) -> bool:
    """Tell whether a context has no handler."""
    with context.socket(zmq.ROUTER) as socket:
        try:
            socket.bind(_zap.ENDPOINT)
        except zmq.ZMQError:
            return False
        socket.unbind(_zap.ENDPOINT)
    return True


def test_another_handler_is_in_the_way(
    engine: str, net: Network, threads: Devices, server: Pair, alice: Pair
) -> None:
    """With it, a device has no list, but asks it; without, zdev's own is no trace in the way."""
    theirs = ThreadAuthenticator(net.context)
    theirs.start()
    stream = guarded(net, threads, server, alice)
    with pytest.raises(RuntimeError, match=r"has a ZAP handler already.*context_factory"):
        stream.device.start()
    asking = Stream(net, threads, watch_connections=True)
    asking.device.curve_server_in(server.both)
    asking.device.start()
    asking.source(reconnect_ivl=-1, **alice.client_of(server.public))
    wait_until(lambda: of(asking.device).failed == {"refused": 1})
    asking.device.stop()
    theirs.stop()
    wait_until(lambda: is_free(net.context))  # a name is, some time after its socket was closed
    for _ in range(20):
        stream.device.start()
        stream.device.stop()
    theirs = ThreadAuthenticator(net.context)
    theirs.start()
    theirs.stop()


def test_nonsense_from_within_the_process(
    engine: str, net: Network, threads: Devices, server: Pair, alice: Pair
) -> None:
    stream = guarded(net, threads, server, alice)
    stream.device.start()
    asker = net.socket(zmq.DEALER)
    asker.connect(_zap.ENDPOINT)
    domain = f"zdev-{next(_zap._numbers) - 1}".encode()
    head = [b"", b"1.0", b"7", domain, b"1.2.3.4", b""]
    for nonsense in (
        [b""],
        [b"x"],
        [b"", b"1.0"],
        [b"", b"1.0", b""],
        [b"x"] * 20,
    ):
        asker.send_multipart(nonsense)
    for question, status in (
        ([b"", b"2.0", *head[2:], b"CURVE", bytes(32)], b"500"),
        ([*head, b"CURVE"], b"500"),
        ([*head, b"CURVE", bytes(31)], b"500"),
        ([*head, b"CURVE", bytes(32), b"more"], b"500"),
        ([*head, b"CURVE", bytes(32)], b"400"),
        ([*head, b"PLAIN"], b"500"),
        ([*head, b"PLAIN", b"a", b"b"], b"400"),
        ([*head, b"NULL"], b"400"),
        ([*head, b"\xff", b"x"], b"400"),
        ([*head[:3], b"another", *head[4:], b"CURVE", bytes(32)], b"400"),
        ([*head[:3], b"", *head[4:], b"PLAIN", b"a", b"b"], b"400"),
    ):
        asker.send_multipart(question)
        while True:
            answer = asker.recv_multipart()
            if answer[2] == b"7":
                break
        assert answer[:4] == [b"", b"1.0", b"7", status], question
        assert len(answer) == 7
    gets_through(stream.source(**alice.client_of(server.public)), stream.sink(), b"hers")


def test_a_handler_that_has_died_lets_nobody_in(
    engine: str,
    net: Network,
    threads: Devices,
    server: Pair,
    alice: Pair,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """libzmq would let in all, if it was not told otherwise."""
    stream = guarded(net, threads, server, alice)
    stream.device.start()
    (handler,) = _zap._handlers.values()
    with monkeypatch.context() as patch:
        patch.setattr("threading.excepthook", lambda _: None)
        patch.setattr(handler, "_answer_all", lambda: 1 / 0)
        handler._wakeup.wake()
        handler._thread.join(DEADLINE)
    stream.source(reconnect_ivl=-1, **alice.client_of(server.public))
    wait_until(lambda: of(stream.device).failed)
    assert of(stream.device).peers == 0
    other = guarded(net, threads, server, alice)
    other.device.start()  # with a handler that lives
    sink = other.sink()
    gets_through(other.source(**alice.client_of(server.public)), sink, b"hers")
    stream.device.stop()
    gets_through(other.source(**alice.client_of(server.public)), sink, b"hers")
    stream.device.start()
    gets_through(stream.source(**alice.client_of(server.public)), stream.sink(), b"hers")


def test_it_ends_with_its_context(
    engine: str, net: Network, threads: Devices, server: Pair, alice: Pair
) -> None:
    census = Census(net)
    streams = [guarded(net, threads, server, alice) for _ in range(3)]
    for stream in streams:
        stream.device.start()
    (handler,) = _zap._handlers.values()
    Background(net.context.destroy).join()
    for stream in streams:
        stream.device.join(DEADLINE)
        assert stream.device.done
    assert not _zap._handlers
    assert not handler._thread.is_alive()
    net.context = zmq.Context()
    net.socket(zmq.PAIR)
    wait_until(lambda: census.threads >= set(threading.enumerate()))


@pytest.mark.parametrize("name", ["Device", "ThreadDevice", "ProcessDevice"])
def test_a_context_of_its_own_is_ended(
    name: str, engine: str, net: Network, server: Pair, alice: Pair
) -> None:
    device = getattr(zdev, name)(zmq.QUEUE, zmq.PULL, zmq.PUSH, watch_connections=True)
    device.context_factory = zmq.Context
    device.curve_server_in(server.both)
    device.allow_in([alice.public])
    device.bind_in(ANY)
    with running_device(device):
        source = joined(net, zmq.PUSH, device.endpoints["in"][0], **alice.client_of(server.public))
        wait_until(lambda: of(device).peers == 1)
        source.close()
    if name != "ProcessDevice":
        assert device._context.closed


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_a_process_however_it_is_started(
    method: str, net: Network, server: Pair, alice: Pair, bob: Pair
) -> None:
    device = zdev.ProcessDevice(zmq.QUEUE, zmq.PULL, zmq.PUSH, watch_connections=True)
    device._launch_class = multiprocessing.get_context(method).Process  # type: ignore[attr-defined]
    device.curve_server_in(server.secret_path)
    device.allow_in([alice.public])
    device.plain_server_out({"alice": "hers"})
    device.bind_in(ANY)
    device.bind_out(ANY)
    with device:
        (address,) = device.endpoints["in"]
        password = {"plain_username": b"alice", "plain_password": b"hers"}
        sink = joined(net, zmq.PULL, device.endpoints["out"][0], **password)
        source = joined(net, zmq.PUSH, address, **alice.client_of(server.public))
        gets_through(source, sink, b"hers")
        joined(net, zmq.PUSH, address, **bob.client_of(server.public))
        wait_until(lambda: of(device).failed == {"refused": 1})
        device.allow_in([bob.public])
        source = joined(net, zmq.PUSH, address, **bob.client_of(server.public))
        gets_through(source, sink, b"his")
        device.allow_out({"bob": "his"})  # passwords go to the process, too
        password = {"plain_username": b"bob", "plain_password": b"his"}
        joined(net, zmq.PULL, device.endpoints["out"][0], **password)
        wait_until(lambda: of(device, "out").peers == 2)


def in_a_fork(server: Pair, alice: Pair) -> None:
    network = Network()
    devices = Devices("Thread")
    stream = guarded(network, devices, server, alice)
    stream.device.start()
    gets_through(stream.source(**alice.client_of(server.public)), stream.sink(), b"hers")
    devices.close()
    assert not _zap._handlers
    network.close()


def test_a_fork_has_handlers_of_its_own(
    engine: str, net: Network, threads: Devices, server: Pair, alice: Pair
) -> None:
    stream = guarded(net, threads, server, alice)
    stream.device.start()
    fork = multiprocessing.get_context("fork").Process(target=in_a_fork, args=(server, alice))
    fork.start()
    fork.join(DEADLINE)
    assert fork.exitcode == 0
    gets_through(stream.source(**alice.client_of(server.public)), stream.sink(), b"hers")


# The log


@contextlib.contextmanager
def a_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now = [100.0]

    class Time:
        @staticmethod
        def monotonic() -> float:
            return now[0]

    with monkeypatch.context() as patch:
        patch.setattr(_connections, "time", Time)
        yield now


def test_what_many_bring_about_is_told_of_some(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    class Speaker:
        name = "a device"

        def log(self, *words: Any) -> None:
            told.append(words)

    with a_time(monkeypatch) as now:
        complaints = _connections.Complaints(Speaker())
        for number in range(1000):
            complaints.warn(f"number {number}")
        assert [words[-1] for words in told] == [f"number {number}" for number in range(10)]
        now[0] += 9.9
        complaints.warn("too early")
        assert len(told) == 10
        now[0] += 0.2
        complaints.warn("another")
        assert [words[-1] for words in told[10:]] == [991, "another"]
        assert {words[0] for words in told} == {logging.WARNING}
        complaints.end()
        assert len(told) == 12
        for _ in range(12):
            complaints.warn("the like")
        complaints.end()
        assert (len(told), told[-1][-1]) == (22, 3)


def test_refusals_are_told_of_at_a_bounded_rate(
    engine: str,
    net: Network,
    devices: Devices,
    server: Pair,
    alice: Pair,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stream = guarded(net, devices, server)
    stream.device.start()
    for number in range(1, 31):
        stream.source(**alice.client_of(server.public))
        wait_until(lambda n=number: of(stream.device).failed == {"refused": n})  # type: ignore[misc]
    stream.device.stop()
    told = [words for words in caplog.messages if "refused" in words]
    assert 10 <= len(told) < 30
    assert any("times more" in words for words in caplog.messages)
