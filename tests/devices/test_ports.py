"""Random ports: held from their choice to the end, and given back."""

from __future__ import annotations

import contextlib
import errno
import gc
import multiprocessing
import os
import socket as tcp
import subprocess
import sys
import threading
from typing import Any

import pytest
import zmq

import zdev

from ..support import DEADLINE, Background, Network, wait_until
from .addresses import LOCAL, ROLES, listens, port_of, steerable
from .background import Devices

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


@pytest.mark.parametrize("role", ROLES)
def test_a_random_port_takes_pyzmqs_arguments(devices: Devices, role: str) -> None:
    device = steerable(devices)
    bind = getattr(device, f"bind_{role}_to_random_port")
    assert 49152 <= bind(LOCAL) < 65536
    assert 20000 <= bind(LOCAL, 20000, 20500) < 20500
    assert 20000 <= bind(addr=LOCAL, min_port=20000, max_port=20500, max_tries=50) < 20500
    planned = getattr(device, f"_{role}_binds")
    assert len(set(planned)) == 3
    assert planned == device._random_addrs
    device.start()
    assert device.endpoints[role] == planned


def test_no_free_port() -> None:
    device = zdev.Device(zmq.QUEUE, zmq.PULL, zmq.PUSH)
    with contextlib.ExitStack() as taken:
        for port in range(21000, 21003):
            listener = taken.enter_context(tcp.socket())
            with contextlib.suppress(OSError):  # as good, if another has it
                listener.bind(("127.0.0.1", port))
                listener.listen()
        with pytest.raises(zmq.ZMQBindError, match="from 21000 to 21002 in 100 tries"):
            device.bind_in_to_random_port(LOCAL, 21000, 21003)
    assert device._in_binds == []


@pytest.mark.parametrize(
    ("address", "error"),
    [
        ("tcp://no such interface", errno.ENODEV),
        ("nonsense", errno.EINVAL),
        ("tipz://127.0.0.1", errno.EPROTONOSUPPORT),
        ("ipc://x", errno.EPROTONOSUPPORT),
        ("inproc://x", errno.EPROTONOSUPPORT),
    ],
)
def test_no_such_interface(address: str, error: int) -> None:
    device = zdev.Device(zmq.QUEUE, zmq.PULL, zmq.PUSH)
    with pytest.raises(zmq.ZMQError) as caught:
        device.bind_in_to_random_port(address)
    assert caught.value.errno == error
    assert device._in_binds == []


def test_what_has_no_ports_is_told_so(devices: Devices) -> None:
    device = steerable(devices)
    with pytest.raises(zmq.ZMQError, match=r"only tcp has ports.* not 'ipc://x'"):
        device.bind_in_to_random_port("ipc://x")
    with pytest.raises(TypeError, match=r"bind_mon_to_random_port\(\) takes min_port.* not 'port'"):
        device.bind_mon_to_random_port(LOCAL, port=5)
    with pytest.raises(TypeError, match="bind_out_to_random_port: the address must be a str"):
        device.bind_out_to_random_port(None)


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("ports", [(5000, 5000), (5000, 4000), (-1, 5000), (65535, 65537)])
def test_ranges_that_have_no_ports(devices: Devices, ports: tuple[int, int], live: bool) -> None:
    device = steerable(devices)
    if live:
        device.start()
    with pytest.raises(ValueError, match=f"min_port={ports[0]} up to max_port={ports[1]}"):
        device.bind_in_to_random_port(LOCAL, *ports)
    assert device._in_binds == []


def have_ipv6() -> bool:
    try:
        with tcp.socket(tcp.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not have_ipv6(), reason="this machine has no IPv6")
def test_a_random_port_of_ipv6(engine: str, devices: Devices, net: Network) -> None:
    device = devices("Device", zmq.QUEUE, zmq.PULL, zmq.PUSH)
    device.setsockopt_in(zmq.IPV6, 1)
    port = device.bind_in_to_random_port("tcp://[::1]")
    device.start()
    assert device.endpoints["in"] == [f"tcp://[::1]:{port}"]
    source = net.socket(zmq.PUSH, ipv6=True)
    source.connect(device.endpoints["in"][0])
    source.send(b"x")
    wait_until(lambda: device.statistics().frontend_to_backend.messages_received)


def can_bind(port: int) -> bool:
    """Tell whether anyone can have a port, in all the ways that there are."""
    for host in ("127.0.0.1", ""):
        with tcp.socket() as thief:
            thief.setsockopt(tcp.SOL_SOCKET, tcp.SO_REUSEADDR, 1)
            try:
                thief.bind((host, port))
                thief.listen()
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            else:
                return True
    return False


STEAL = """
import sys, zmq
context = zmq.Context()
socket = context.socket(zmq.PULL)
try:
    socket.bind(sys.argv[1])
except zmq.ZMQError as error:
    print(error.errno)
context.destroy()
"""


def test_nobody_else_gets_the_port(net: Network) -> None:
    device = zdev.ThreadDevice(zmq.QUEUE, zmq.PULL, zmq.PUSH)
    port = device.bind_in_to_random_port(LOCAL)
    assert not can_bind(port)
    with pytest.raises(zmq.ZMQError) as caught:
        net.socket(zmq.PULL).bind(f"{LOCAL}:{port}")
    assert caught.value.errno == errno.EADDRINUSE
    other = subprocess.run(
        [sys.executable, "-c", STEAL, f"{LOCAL}:{port}"],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert other.stdout == f"{errno.EADDRINUSE}\n"
    del device
    gc.collect()
    wait_until(lambda: can_bind(port))


class Thief:
    """Tries to have a port all the time."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.tries = 0
        self.over = threading.Event()
        self.background = Background(self.steal)

    def steal(self) -> bool:
        while not self.over.is_set():
            if can_bind(self.port):
                return True
            self.tries += 1
        return False

    def __enter__(self) -> Thief:
        self.look()
        return self

    def look(self) -> None:
        """Return when it has tried once more."""
        tries = self.tries
        wait_until(lambda: self.tries > tries + 1 or not self.background.alive)

    def __exit__(self, *_: object) -> None:
        self.look()
        self.over.set()
        assert not self.background.join(), f"stolen after {self.tries} tries"


METHODS = ["Thread", "fork", "spawn", "forkserver"]


@pytest.mark.parametrize("method", METHODS)
def test_the_port_is_held_from_its_choice_to_the_end(net: Network, method: str) -> None:
    device: Any = (zdev.ThreadProxy if method == "Thread" else zdev.ProcessProxy)(
        zmq.PULL, zmq.PUSH
    )
    if method != "Thread":
        device._launch_class = multiprocessing.get_context(method).Process  # type: ignore[attr-defined]
    ports = [
        getattr(device, f"bind_{role}_to_random_port")(LOCAL, 30000, 32000)
        for role in ("in", "out")
    ]
    early = net.socket(zmq.PUSH)
    early.connect(f"{LOCAL}:{ports[0]}")  # it is served as soon as there is a device
    early.send(b"early")
    sink = net.socket(zmq.PULL)
    with contextlib.ExitStack() as thieves:
        for port in ports:
            thieves.enter_context(Thief(port))
        device.start()
        sink.connect(device.endpoints["out"][0])
        assert sink.recv() == b"early"
        assert [port_of(device.endpoints[role][0]) for role in ("in", "out")] == ports
    device.stop()
    for port in ports:
        wait_until(lambda port=port: can_bind(port))  # type: ignore[misc]


def test_the_port_is_given_back_when_the_start_fails(devices: Devices) -> None:
    device = devices("Device", zmq.QUEUE, zmq.PULL, zmq.PUSH)
    port = device.bind_in_to_random_port(LOCAL)
    device.bind_out("tcp://nonesuch:1")
    with pytest.raises(zmq.ZMQError):
        device.start()
    wait_until(lambda: can_bind(port))


def test_the_port_is_given_back_when_it_is_unbound(devices: Devices) -> None:
    device = devices("Device", zmq.QUEUE, zmq.PULL, zmq.PUSH)
    port = device.bind_in_to_random_port(LOCAL)
    device.unbind_in(f"{LOCAL}:{port}")
    assert device._in_binds == []
    assert can_bind(port)


def test_a_random_port_while_it_runs(engine: str, devices: Devices, net: Network) -> None:
    device = steerable(devices)
    device.start()
    for role in ROLES:
        bind = getattr(device, f"bind_{role}_to_random_port")
        ports = [
            bind(LOCAL),
            bind(LOCAL, 22000, 22900),
            bind(LOCAL, min_port=22000, max_port=22900, max_tries=900),
        ]
        assert 49152 <= ports[0] < 65536
        assert all(22000 <= port < 22900 for port in ports[1:])
        planned = [f"{LOCAL}:{port}" for port in ports]
        assert device.endpoints[role] == planned == getattr(device, f"_{role}_binds")
        assert all(map(listens, planned))
        with net.socket(zmq.PULL) as other:
            taken = other.bind_to_random_port(LOCAL, 23000, 23900)
            with pytest.raises(zmq.ZMQBindError):
                bind(LOCAL, taken, taken + 1)
        assert device.endpoints[role] == planned


def test_a_fork_of_the_program_does_not_hold_the_ports(net: Network) -> None:
    """A held port is not inherited by programs that this one runs."""
    device = zdev.ThreadDevice(zmq.QUEUE, zmq.PULL, zmq.PUSH)
    port = device.bind_in_to_random_port(LOCAL)
    reader, writer = os.pipe()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=reader) as other:
        os.close(reader)
        device.unbind_in(f"{LOCAL}:{port}")
        assert can_bind(port)
        os.write(writer, b"\n")
        os.close(writer)
    assert other.returncode == 0
