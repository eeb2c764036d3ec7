"""Addresses that cannot work are refused where they are given, and those that may work are taken."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

import zdev

from .background import Devices
from .classes import ROLES

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


@pytest.fixture
def device() -> Iterator[zdev.ThreadProxySteerable]:
    device = zdev.ThreadProxySteerable(zmq.PULL, zmq.PUSH)
    yield device
    device.stop()


ADDRESSES = [
    ("127.0.0.1:5555", errno.EINVAL, "has no transport; did you mean 'tcp://127.0.0.1:5555'?"),
    ("://127.0.0.1:5555", errno.EINVAL, "has no transport; did you mean 'tcp://127.0.0.1:5555'?"),
    ("nonsense", errno.EINVAL, "has no transport; addresses are such as 'tcp://127.0.0.1:5555'"),
    ("", errno.EINVAL, "has no transport"),
    (
        "tipz://x",
        errno.EPROTONOSUPPORT,
        "has the transport 'tipz', which libzmq does not know; use",
    ),
    ("TCP://x:1", errno.EPROTONOSUPPORT, "has the transport 'TCP', which .*; write tcp"),
    ("tcp://", errno.EINVAL, "says nothing behind the transport"),
    ("ipc://", errno.EINVAL, "says nothing behind the transport"),
    ("ipc:///" + 200 * "x", errno.ENAMETOOLONG, "has a path of more than 107 bytes"),
    ("ipc:///" + 60 * "é", errno.ENAMETOOLONG, "has a path of more than 107 bytes"),
    ("tcp://127.0.0.1", errno.EINVAL, "has no port; ports are from 1 to 65535"),
    ("tcp://127.0.0.1:", errno.EINVAL, "has no port; ports are from 1 to 65535"),
    ("tcp://127.0.0.1:http", errno.EINVAL, "has no port, but 'http'"),
    ("tcp://127.0.0.1:55x55", errno.EINVAL, "has no port, but '55x55'"),
    ("tcp://127.0.0.1:5555\0", errno.EINVAL, "has a NUL in it; leave it out"),
    (b"ipc:///tmp/\0x", errno.EINVAL, "has a NUL in it; leave it out"),
    ("tcp://127.0.0.1:-5", errno.EINVAL, "has no port, but '-5'"),
    ("tcp://127.0.0.1:65536", errno.EINVAL, "has the port 65536; ports are from 1 to 65535"),
    ("tcp://[::1]:70000", errno.EINVAL, "has the port 70000; ports are from 1 to 65535"),
    (b"tcp://127.0.0.1:70000", errno.EINVAL, "has the port 70000; ports are from 1 to 65535"),
]


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize(("addr", "number", "words"), ADDRESSES)
def test_what_is_no_endpoint(device: Any, addr: Any, number: int, words: str, live: bool) -> None:
    if live:
        device.start()
    for role in ROLES["ProxySteerable"]:
        for verb in ("bind", "connect"):
            said = f"{verb}_{role}: the address {re.escape(repr(addr))} {words}"
            with pytest.raises(zmq.ZMQError, match=said) as caught:
                getattr(device, f"{verb}_{role}")(addr)
            assert caught.value.errno == number
            assert getattr(device, f"_{role}_{verb}s") == []


@pytest.mark.parametrize("addr", ["tcp://127.0.0.1:*", "tcp://127.0.0.1:0", "tcp://[::1]:00"])
def test_wildcards_are_not_connected_to(device: Any, addr: str) -> None:
    with pytest.raises(zmq.ZMQError, match=r"connect_in: .* has no port to connect to") as caught:
        device.connect_in(addr)
    assert caught.value.errno == errno.EINVAL
    device.bind_in(addr)


@pytest.mark.parametrize(
    "addr",
    [
        *("tcp://*:*", "tcp://127.0.0.1:1", "tcp://eth0:65535", "tcp://eth0:1:5", "tcp://[::]:5"),
        *("tcp://127.0.0.1:5555/", "tcp://127.0.0.1: 5555", "tcp://127.0.0.1:05555"),
        *("ipc://*", "ipc://@abstract", "ipc:///" + 106 * "x", "ipc://a:70000", "inproc://a:70000"),
        *("ws://*:70000/x", "udp://x:1", "pgm://x", "vmci://1:2", "tipc://{5560,0,0}", b"ipc://x"),
    ],
)
def test_what_libzmq_may_take_is_planned(device: Any, addr: Any) -> None:
    device.bind_in(addr)
    assert device._in_binds == [addr]


def test_a_source_address_is_no_port(device: Any) -> None:
    device.connect_in("tcp://127.0.0.1:0;127.0.0.1:5555")
    with pytest.raises(zmq.ZMQError, match="has the port 70000"):
        device.connect_in("tcp://127.0.0.1:0;127.0.0.1:70000")


def test_an_address_that_is_no_text(device: Any) -> None:
    for addr in ("ipc:///tmp/\udc80", b"ipc:///tmp/\x80"):
        said = f"bind_in: the address {re.escape(repr(addr))} is not UTF-8"
        with pytest.raises(ValueError, match=said):
            device.bind_in(addr)
    assert device._in_binds == []


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("verb", ["bind", "connect"])
def test_inproc_does_not_reach_a_process(devices: Devices, verb: str, live: bool) -> None:
    device = devices("Proxy", zmq.PULL, zmq.PUSH)
    if live:
        device.start()
    if devices.in_this_process:
        getattr(device, f"{verb}_mon")("inproc://watcher")
        return
    with pytest.raises(zmq.ZMQError, match=f"{verb}_mon: inproc .* 'inproc://watcher'; use ipc or"):
        getattr(device, f"{verb}_mon")("inproc://watcher")
    assert device._mon_binds == device._mon_connects == []


@pytest.mark.parametrize("live", [False, True])
def test_random_ports_of_what_has_one(devices: Devices, live: bool) -> None:
    device = devices("Proxy", zmq.PULL, zmq.PUSH)
    if live:
        device.start()
    for addr in ("tcp://127.0.0.1:5555", "tcp://127.0.0.1:", "tcp://127.0.0.1:*", "tcp://[::1]:5"):
        interface = addr.rpartition(":")[0]
        said = f"{re.escape(repr(addr))} has a port, .* leave it out, as in {re.escape(repr(interface))}"
        with pytest.raises(zmq.ZMQError, match=said):
            device.bind_in_to_random_port(addr)
    with pytest.raises(zmq.ZMQError, match=r"'127\.0\.0\.1' has no transport"):
        device.bind_in_to_random_port("127.0.0.1")
    for option in ("min_port", "max_port", "max_tries"):
        with pytest.raises(
            TypeError, match=f"bind_in_to_random_port: {option} must be an int, not s"
        ):
            device.bind_in_to_random_port("tcp://127.0.0.1", **{option: "5"})
    with pytest.raises(
        TypeError, match="bind_in_to_random_port: max_port must be an int, not float"
    ):
        device.bind_in_to_random_port("tcp://127.0.0.1", 50000, 6e4)
    with pytest.raises(ValueError, match="max_tries must be at least 1, not 0"):
        device.bind_in_to_random_port("tcp://127.0.0.1", max_tries=0)
    assert device._in_binds == []


def test_what_is_not_there_cannot_be_undone(engine: str, devices: Devices) -> None:
    device = devices("Proxy", zmq.PULL, zmq.PUSH)
    device.start()
    for addr in ("tcp://127.0.0.1:1", "nonsense"):
        for verb, state in (("unbind", "bound to"), ("disconnect", "connected to")):
            words = f"{verb}_in: the in socket is not {state} {addr!r}; it is {state} nothing"
            with pytest.raises(zmq.ZMQError, match=words):
                getattr(device, f"{verb}_in")(addr)
    device.bind_in("tcp://127.0.0.1:*")
    device.connect_in("tcp://127.0.0.1:9")
    (bound,) = device.endpoints["in"]
    with pytest.raises(zmq.ZMQError, match=f"it is bound to {bound!r}$") as caught:
        device.unbind_in("tcp://127.0.0.1:9")
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(zmq.ZMQError, match=r"it is connected to 'tcp://127\.0\.0\.1:9'$") as caught:
        device.disconnect_in(bound)
    assert caught.value.errno == errno.ENOENT
    assert device.endpoints["in"] == [bound]
    device.disconnect_in("tcp://127.0.0.1:9")
    device.unbind_in("tcp://127.0.0.1:*")
    assert device._in_connects == device._in_binds == device.endpoints["in"] == []
