"""Names of hosts: a device is connected to all addresses that one has, as they come and go."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
import zmq

from zdev._devices import resolving

from ..gevent_programs import Patches, each_way, needs_gevent, printed
from ..support import DEADLINE, Background, Network, wait_until
from .background import Devices

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

ONE, TWO, THREE = (f"127.0.0.{number}" for number in (1, 2, 3))


class Names:
    """What is known of names; in a file, so that processes that have been forked know it too."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.know()

    def know(self, **names: list[str]) -> None:
        """Let each name have these addresses, and no other have any."""
        new = self._file.with_suffix(".new")
        new.write_text(json.dumps(names))
        new.replace(self._file)

    def getaddrinfo(self, host: str, port: int, family: int, kind: int) -> list[Any]:
        """Answer as that of `socket` does: by a DNS, which needs no network here."""
        found = json.loads(self._file.read_text()).get(host)
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(family, kind, socket.IPPROTO_TCP, "", (address, port)) for address in found]


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Names:
    """Say what is known of names."""
    known = Names(tmp_path / "names.json")
    monkeypatch.setattr(resolving, "getaddrinfo", known.getaddrinfo)
    return known


class Workers:
    """Workers at the same port of several addresses."""

    def __init__(self, net: Network, *hosts: str) -> None:
        self.sockets = {host: net.socket(zmq.PULL) for host in hosts}
        first, *others = hosts
        self.sockets[first].bind(f"tcp://{first}:*")
        self.port = int(self.sockets[first].getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2])
        for host in others:
            self.sockets[host].bind(f"tcp://{host}:{self.port}")

    def at(self, name: str) -> str:
        """Return the address by which a device is told of them."""
        return f"tcp://{name}:{self.port}"


@pytest.fixture
def workers(net: Network) -> Workers:
    return Workers(net, ONE, TWO, THREE)


def streamer(devices: Devices, **settings: Any) -> Any:
    device = devices("Proxy", zmq.PULL, zmq.PUSH, watch_connections=True, **settings)
    device.bind_in("tcp://127.0.0.1:*")
    return device


def await_peers(device: Any, peers: int, *, made: int | None = None) -> None:
    """Wait until so many are there; and so many connections have been made in all."""
    wait_until(lambda: device.connections()["out"].peers == peers)
    if made is not None:
        assert device.connections()["out"].connected == made


def test_all_addresses_of_a_name(
    engine: str, devices: Devices, net: Network, names: Names, workers: Workers
) -> None:
    """Only what has changed is connected and left, and nothing is lost on the others' way."""
    device = streamer(devices)
    device.connect_out(workers.at("workers"), resolve="all", every=0.1)
    names.know(workers=[ONE, TWO])
    with device:
        source = net.socket(zmq.PUSH)
        source.connect(device.endpoints["in"][0])
        await_peers(device, 2, made=2)
        for _ in range(100):
            source.send(b"to both")
        for host in (ONE, TWO):
            for _ in range(50):
                assert workers.sockets[host].recv() == b"to both"
        names.know(workers=[ONE, TWO, THREE])
        await_peers(device, 3, made=3)
        names.know(workers=[TWO])
        await_peers(device, 1, made=3)
        source.send(b"to the one that is left")
        assert workers.sockets[TWO].recv() == b"to the one that is left"


def test_a_name_that_fails_keeps_what_it_had(
    threads: Devices,
    names: Names,
    workers: Workers,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "zdev")
    device = streamer(threads, name="depot")
    device.connect_out(workers.at("workers"), resolve="all", every=0.1)
    where = f"depot: out: {workers.at('workers')}"
    failed = (
        f"{where} could not be looked up: [Errno {socket.EAI_NONAME}] Name or service not known"
    )
    with device:
        wait_until(lambda: caplog.messages)
        names.know(workers=[ONE])
        await_peers(device, 1)
        wait_until(lambda: len(caplog.messages) == 2)
        names.know()
        wait_until(lambda: len(caplog.messages) == 3)
        looks = resolving.getaddrinfo
        again = threading.Semaphore(0)

        def counted(*args: Any) -> Any:
            again.release()
            return looks(*args)

        resolving.getaddrinfo = counted  # put back behind the test
        for _ in range(3):
            assert again.acquire(timeout=DEADLINE)
        await_peers(device, 1, made=1)
        names.know(workers=[ONE])
        wait_until(lambda: len(caplog.messages) == 4)
        await_peers(device, 1, made=1)
    assert caplog.messages == [
        f"{failed}; it stays connected to nothing",
        f"{where} can be looked up again",
        f"{failed}; it stays connected to {workers.at(ONE)}",
        f"{where} can be looked up again",
    ]


def test_a_name_may_be_ones_own(engine: str, devices: Devices, net: Network, names: Names) -> None:
    """Where a socket is bound, it is not connected to; a name that leaves would end the bind."""
    device = streamer(devices)
    port = device.bind_out_to_random_port(f"tcp://{ONE}")
    other = net.socket(zmq.PULL)
    other.bind(f"tcp://{TWO}:{port}")
    device.connect_out(f"tcp://all:{port}", resolve="all", every=0.1)
    names.know(all=[ONE, TWO])
    with device:
        await_peers(device, 1, made=1)
        names.know(all=[TWO, THREE])
        wait_until(lambda: device.connections()["out"].retries)  # at the third, where nobody is
        sink = net.socket(zmq.PULL)
        sink.connect(f"tcp://{ONE}:{port}")
        await_peers(device, 2)


def test_with_immediate_nothing_is_for_nobody(
    threads: Devices, net: Network, names: Names, workers: Workers
) -> None:
    """What the README says of it."""
    names.know(workers=[ONE, "127.0.0.9"])
    device = streamer(threads)
    device.setsockopt_out("immediate", 1)
    device.connect_out(workers.at("workers"), resolve="all", every=0.1)
    with device:
        await_peers(device, 1)
        wait_until(lambda: device.connections()["out"].retries)
        source = net.socket(zmq.PUSH)
        source.connect(device.endpoints["in"][0])
        for _ in range(10):
            source.send(b"to the one that is there")
        for _ in range(10):
            assert workers.sockets[ONE].recv() == b"to the one that is there"


def test_an_answer_that_comes_late(threads: Devices, names: Names, workers: Workers) -> None:
    """Of a name that was left meanwhile it changes nothing, though that is back."""
    names.know(workers=[ONE])
    device, name = streamer(threads), workers.at("workers")
    device.connect_out(name, resolve="all", every=1000)
    with device:
        run = device._run
        (former,) = run.wiring.connects._names.values()
        await_peers(device, 1)
        device.disconnect_out(name)
        device.connect_out(name, resolve="all", every=1000)
        await_peers(device, 1)
        run._follow(former, [workers.at(TWO)])
        (now,) = run.wiring.connects._names.values()
        assert (former.addresses, now.addresses) == ([], [workers.at(ONE)])


def test_a_socket_may_come_to_use_ipv6(threads: Devices, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def getaddrinfo(_host: str, port: int, family: int, _kind: int) -> list[Any]:
        asked.append(family)
        return [(0, 0, 0, "", (ONE, port))]

    monkeypatch.setattr(resolving, "getaddrinfo", getaddrinfo)
    device = streamer(threads)
    device.connect_out("tcp://workers:1", resolve="all", every=1000)
    with device:
        wait_until(lambda: asked == [socket.AF_INET])
        device.setsockopt_out(zmq.IPV6, 1)
        wait_until(lambda: asked == [socket.AF_INET, socket.AF_UNSPEC])


def test_names_are_forgotten_with_the_list(devices: Devices) -> None:
    """As pyzmq's users do it."""
    device = streamer(devices)
    device.connect_out("tcp://workers:1", resolve="all")
    device._out_connects.clear()
    device.connect_out("tcp://workers:1")
    assert device._plans["out"].names == {}


def test_what_no_dns_can_have(threads: Devices, caplog: pytest.LogCaptureFixture) -> None:
    device = threads("Proxy", zmq.PULL, zmq.PUSH)
    device.connect_out(f"tcp://{'n' * 64}:1", resolve="all")
    with device:
        wait_until(lambda: "could not be looked up" in "".join(caplog.messages))
        assert not device.done


def test_a_name_is_wired_while_it_runs(
    engine: str, devices: Devices, names: Names, workers: Workers
) -> None:
    names.know(workers=[ONE, TWO], others=[TWO])
    device = streamer(devices)
    workers_at, others_at = workers.at("workers"), workers.at("others")
    with device:
        device.connect_out(others_at, resolve="all", every=1000)
        await_peers(device, 1)
        device.connect_out(workers_at, resolve="all", every=1000)
        await_peers(device, 2, made=2)  # who is there by two names is there once
        device.disconnect_out(others_at)
        device.connect_out(workers.at(ONE).encode())  # which is the same
        device.connect_out(workers.at(THREE))
        await_peers(device, 3, made=3)
        names.know(workers=[TWO])
        device.connect_out(workers_at, resolve="all", every=0.1)  # sooner, and once at once
        time_of_look = time.monotonic()
        names.know(workers=[TWO, THREE])
        wait_until(lambda: time.monotonic() > time_of_look + 0.5)
        await_peers(device, 3, made=3)
        device.disconnect_out(workers.at(THREE))  # which the name has, too
        device.disconnect_out(workers.at(ONE).encode())
        await_peers(device, 2, made=3)
        device.disconnect_out(workers_at)
        await_peers(device, 0, made=3)
        with pytest.raises(zmq.ZMQError, match="the out socket is not connected to"):
            device.disconnect_out(workers_at)


def test_a_name_is_one_way_or_the_other(devices: Devices, names: Names) -> None:
    device = streamer(devices)
    name, other = "tcp://workers:1", "tcp://127.0.0.1:1"
    device.connect_out(name, resolve="all")
    device.connect_out(other)
    for _ in range(2):
        with pytest.raises(ValueError, match="connected to 'tcp://workers:1' already, as all that"):
            device.connect_out(name)
        with pytest.raises(
            ValueError, match=r"connected to 'tcp://127\.0\.0\.1:1' already, as one"
        ):
            device.connect_out(other, resolve="all")
        assert device._out_connects == [name, other]
        if device._run is None:
            device.start()
    device.disconnect_out(name)
    device.connect_out(name.replace("workers", "localhost"))


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize(
    ("addr", "options", "error", "words"),
    [
        ("tcp://a:1", {"resolve": "every"}, ValueError, "must be 'first' or 'all', not 'every'"),
        ("tcp://a:1", {"resolve": True}, TypeError, "must be 'first' or 'all', not bool"),
        ("tcp://a:1", {"every": 5}, ValueError, "every is for resolve='all'; say that too"),
        ("tcp://a:1", {"resolve": "first", "every": 5}, ValueError, "every is for resolve='all'"),
        ("ipc://a", {"resolve": "all"}, ValueError, "resolve='all' is for tcp, and 'ipc://a'"),
        ("tcp://a:1", {"resolve": "all", "every": 0}, ValueError, "at least 0.1 seconds, not 0"),
        ("tcp://a:1", {"resolve": "all", "every": -1}, ValueError, "every must be seconds, not -1"),
        ("tcp://a:1", {"resolve": "all", "every": "5"}, TypeError, "be seconds, not str"),
        (b"tcp://a:1", {"resolve": "all"}, TypeError, "the address must be a str.* not bytes"),
        ("tcp://a", {"resolve": "all"}, zmq.ZMQError, "has no port"),
        ("tcp://*:1", {"resolve": "all"}, ValueError, r"for tcp://name:port, not 'tcp://\*:1'"),
        ("tcp://:1", {"resolve": "all"}, ValueError, "for tcp://name:port, not 'tcp://:1'"),
        ("tcp://a:1/b", {"resolve": "all"}, ValueError, "for tcp://name:port, not 'tcp://a:1/b'"),
        ("tcp://;a:1", {"resolve": "all"}, ValueError, "for tcp://name:port, not 'tcp://;a:1'"),
        ("tcp://a:1", {"resolves": "all"}, TypeError, "unexpected keyword argument 'resolves'"),
        ("tcp://a:1", {"every": None, "resolve": None}, TypeError, "not NoneType"),
    ],
)
def test_wrong_names(
    threads: Devices,
    addr: Any,
    options: dict[str, Any],
    error: type[Exception],
    words: str,
    live: bool,
) -> None:
    device = threads("Proxy", zmq.PULL, zmq.PUSH)
    if live:
        device.start()
    with pytest.raises(error, match=words):
        device.connect_out(addr, **options)
    assert device._out_connects == []
    with pytest.raises(TypeError, match="unexpected keyword argument 'resolve'"):
        device.bind_out("tcp://127.0.0.1:*", resolve="all")


def test_a_copy_has_names_of_its_own(threads: Devices, names: Names, workers: Workers) -> None:
    names.know(workers=[ONE])
    device = streamer(threads)
    device.connect_out(workers.at("workers"), resolve="all", every=0.5)
    copies = [copy.copy(device), pickle.loads(pickle.dumps(device))]
    device.disconnect_out(workers.at("workers"))
    for each in copies:
        for _ in range(2):  # and each start begins anew
            with each:
                await_peers(each, 1)
        assert each._plans["out"].names == {workers.at("workers"): 0.5}


def test_a_paused_device_follows_names(devices: Devices, names: Names, workers: Workers) -> None:
    names.know(workers=[ONE])
    device = streamer(devices)
    device.connect_out(workers.at("workers"), resolve="all", every=0.1)
    with device:
        device.pause()
        await_peers(device, 1)
        names.know(workers=[TWO, THREE])
        await_peers(device, 2)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, Callable[[], bool]]]:
    """Let nobody answer until the test is over; an event says that somebody asks."""
    asked, over = threading.Event(), threading.Event()

    def getaddrinfo(*_: Any) -> Any:
        asked.set()
        over.wait(2 * DEADLINE)
        raise socket.gaierror(socket.EAI_AGAIN, "over")

    monkeypatch.setattr(resolving, "getaddrinfo", getaddrinfo)
    yield asked, over.is_set
    over.set()


def test_nobody_waits_for_an_answer(
    threads: Devices, net: Network, slow: tuple[threading.Event, Callable[[], bool]]
) -> None:
    """A DNS that is away takes half a minute to be so; all else goes on, and ends."""
    asked, is_over = slow
    sink = net.bound(zmq.PULL, "tcp")
    device = streamer(threads)
    device.connect_out("tcp://workers:1", resolve="all")
    device.connect_out(sink.getsockopt_string(zmq.LAST_ENDPOINT))
    with device:
        assert asked.wait(DEADLINE)
        net_source = net.socket(zmq.PUSH)
        net_source.connect(device.endpoints["in"][0])
        net_source.send(b"passes")
        assert sink.recv() == b"passes"
        device.connect_out("tcp://others:1", resolve="all")
        device.disconnect_out("tcp://workers:1")
    assert device.done
    assert not is_over()


def test_a_name_counts_as_connected(threads: Devices, names: Names, net: Network) -> None:
    """A monitor whose name has no address yet is one that is waited for."""
    device = threads("Proxy", zmq.PULL, zmq.PUSH, zmq.PUSH)
    device.bind_in("tcp://127.0.0.1:*")
    device.bind_out("tcp://127.0.0.1:*")
    monitor = net.socket(zmq.PULL)
    monitor.bind("tcp://127.0.0.1:*")
    port = monitor.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2]
    device.connect_mon(f"tcp://monitor:{port}", resolve="all", every=0.1)
    with device:
        assert device._run.unattached == []
        source, sink = net.socket(zmq.PUSH), net.socket(zmq.PULL)
        source.connect(device.endpoints["in"][0])
        sink.connect(device.endpoints["out"][0])
        receiver = Background(sink.recv)
        source.send(b"waits for the monitor")
        wait_until(lambda: device.statistics().frontend_to_backend.messages_received)
        names.know(monitor=[ONE])
        assert monitor.recv() == b"waits for the monitor"
        assert receiver.join() == b"waits for the monitor"


@pytest.mark.parametrize(
    ("addr", "has_ipv6", "found"),
    [
        ("tcp://a:5", False, ["tcp://127.0.0.1:5"]),
        ("tcp://a:5", True, ["tcp://127.0.0.1:5", "tcp://[::1]:5"]),
        ("tcp://[::1]:5", True, ["tcp://[::1]:5"]),
        ("tcp://127.0.0.2:0;a:5", False, ["tcp://127.0.0.2:0;127.0.0.1:5"]),
        ("tcp://link:5", True, ["tcp://[fe80::1%1]:5"]),
    ],
)
def test_what_is_found(
    monkeypatch: pytest.MonkeyPatch, addr: str, has_ipv6: bool, found: list[str]
) -> None:
    """Each once; those of IPv6 in brackets, for sockets that can use them; behind their source.

    Those of one link only with its number.
    """
    known = {"a": ["127.0.0.1", "::1", "127.0.0.1"], "::1": ["::1"], "link": ["fe80::1"]}

    def getaddrinfo(host: str, port: int, family: int, _kind: int) -> list[Any]:
        assert port == 5
        scope = int(host == "link")
        all_of = [(host, port, 0, scope) if ":" in host else (host, port) for host in known[host]]
        wanted = [place for place in all_of if len(place) == 2 or family == socket.AF_UNSPEC]
        return [(0, 0, 0, "", place) for place in wanted]

    monkeypatch.setattr(resolving, "getaddrinfo", getaddrinfo)
    with zmq.Context() as context, context.socket(zmq.PUSH) as target:
        target.linger = 0
        target.ipv6 = has_ipv6
        family = socket.AF_UNSPEC if has_ipv6 else socket.AF_INET
        assert resolving.looked_up(addr, family) == found
        for each in found:
            target.connect(each)  # which libzmq takes


def test_the_system_is_asked(threads: Devices, net: Network) -> None:
    sink = net.bound(zmq.PULL, "tcp")
    device = streamer(threads)
    port = sink.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2]
    device.connect_out(f"tcp://localhost:{port}", resolve="all")
    with device:
        await_peers(device, 1)


NAMED = """
from zdev import _threads
from zdev._devices import resolving

def slow(*place, answer=resolving.getaddrinfo):
    _threads.sleep(0.1)
    return answer(*place)

resolving.getaddrinfo = slow
context = zmq.Context()
sink = context.socket(zmq.PULL)
sink.bind("tcp://127.0.0.1:*")
port = sink.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2]
device = made(launcher, "Proxy", zmq.PULL, zmq.PUSH, watch_connections=True)
device.bind_in("tcp://127.0.0.1:*")
device.connect_out(f"tcp://localhost:{port}", resolve="all", every=0.1)
device.start()
with others_run():
    wait_until(lambda: device.connections()["out"].peers == 1)
device.stop()
print("over")
"""


@needs_gevent
@pytest.mark.parametrize("launcher", ["Thread", "fork"])
@each_way
def test_gevent(tmp_path: Path, launcher: str, patches: Patches, first: bool) -> None:
    """Its resolver, which a thread of ours could not use, is not asked."""
    assert printed(tmp_path, NAMED, patches, first, launcher=launcher) == "over\n"
