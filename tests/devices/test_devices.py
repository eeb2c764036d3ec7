"""Devices of each class relay, swap, and are steered as they should be."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import socket as tcp
import struct
from typing import Any

import pytest
import zmq
import zmq.devices

import zdev

from ..support import DEADLINE, Network, wait_until
from .background import Devices, running_device
from .classes import ROLES, arguments, counts, kind_of

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

# Each class relays


MESSAGES = [[b"one"], [b"", b"two", b""], [b"x" * 100_000, b"three"]]


def test_each_class_relays(engine: str, net: Network, name: str) -> None:
    kind = kind_of(name)
    device = getattr(zdev, name)(*arguments(name, *([zmq.PUSH] if kind != "Device" else [])))
    ports = {
        role: getattr(device, f"bind_{role}_to_random_port")("tcp://127.0.0.1")
        for role in ROLES[kind]
    }
    peers = {
        role: net.socket(peer)
        for role, peer in zip(ROLES[kind], (zmq.PUSH, zmq.PULL, zmq.PULL, zmq.PAIR))
    }
    for role, peer in peers.items():
        peer.connect(f"tcp://127.0.0.1:{ports[role]}")
    with running_device(device):
        for message in MESSAGES:
            peers["in"].send_multipart(message)
        assert [peers["out"].recv_multipart() for _ in MESSAGES] == MESSAGES
        if kind != "Device":
            prefix = [b"in"] if kind == "MonitoredQueue" else []
            copies = [peers["mon"].recv_multipart() for _ in MESSAGES]
            assert copies == [prefix + message for message in MESSAGES]
        if kind == "ProxySteerable":
            peers["ctrl"].send(b"STATISTICS")
            numbers = [struct.unpack("=Q", frame)[0] for frame in peers["ctrl"].recv_multipart()]
            assert numbers[0] == numbers[6] == 6
        assert counts(device) == (3, 3, 0 if kind == "Device" else 3)
        assert not device.done
    assert device.done
    assert device.exception is None
    assert counts(device) == (3, 3, 0 if kind == "Device" else 3)
    if name.startswith("Process"):
        assert device.launcher.exitcode == 0


def test_both_ways(engine: str, devices: Devices, net: Network) -> None:
    device = devices("MonitoredQueue", zmq.ROUTER, zmq.DEALER, zmq.PUSH, None, "öut")
    device.bind_in("tcp://127.0.0.1:*")
    device.bind_out("tcp://127.0.0.1:*")
    device.bind_mon("tcp://127.0.0.1:*")
    device.start()
    client, worker, monitor = (net.socket(kind) for kind in (zmq.REQ, zmq.REP, zmq.PULL))
    client.routing_id = b"me"
    for socket, role in ((client, "in"), (worker, "out"), (monitor, "mon")):
        socket.connect(device.endpoints[role][0])
    client.send(b"question")
    worker.send(worker.recv() + b"?")
    assert client.recv() == b"question?"
    asked, answered = monitor.recv_multipart(), monitor.recv_multipart()
    assert asked == [b"me", b"", b"question"]
    assert answered == ["öut".encode(), *asked[:2], b"question?"]


def test_a_monitored_queue_swaps_the_ids_of_two_routers(
    engine: str, devices: Devices, net: Network
) -> None:
    device = devices("MonitoredQueue", zmq.ROUTER, zmq.ROUTER, zmq.PUB, out_prefix=bytearray(b"o"))
    device.setsockopt_in(zmq.ROUTER_MANDATORY, 1)
    device.setsockopt_out(zmq.ROUTER_MANDATORY, 1)
    device.bind_in("tcp://127.0.0.1:*")
    device.bind_out("tcp://127.0.0.1:*")
    device.start()
    left, right = net.socket(zmq.DEALER, routing_id=b"l"), net.socket(zmq.DEALER, routing_id=b"r")
    left.connect(device.endpoints["in"][0])
    right.connect(device.endpoints["out"][0])
    right.rcvtimeo = 10
    while True:  # until both ends know their peers
        left.send_multipart([b"r", b"hello"])
        with contextlib.suppress(zmq.Again):
            assert right.recv_multipart() == [b"l", b"hello"]
            break
    right.send_multipart([b"l", b"and", b"you"])
    assert left.recv_multipart() == [b"r", b"and", b"you"]


def test_a_proxy_does_not_swap(engine: str, devices: Devices, net: Network) -> None:
    device = devices("Proxy", zmq.ROUTER, zmq.ROUTER)
    device.bind_in("tcp://127.0.0.1:*")
    device.bind_out("tcp://127.0.0.1:*")
    device.start()
    left, right = (net.socket(zmq.DEALER, routing_id=b"same") for _ in range(2))
    left.connect(device.endpoints["in"][0])
    right.connect(device.endpoints["out"][0])
    right.rcvtimeo = 10
    while True:
        left.send_multipart([b"other", b"hello"])
        with contextlib.suppress(zmq.Again):
            assert right.recv_multipart() == [b"other", b"hello"]
            break


@pytest.mark.parametrize("end", ["in", "out"])
def test_one_socket_as_both_ends(engine: str, devices: Devices, net: Network, end: str) -> None:
    device = devices("Device", zmq.QUEUE, zmq.REP, -1)
    client = net.bound(zmq.REQ, "tcp")
    getattr(device, f"connect_{end}")(client.last_endpoint.decode())
    device.start()
    for word in (b"echo", b"again"):
        client.send(word)
        assert client.recv() == word
    if devices.in_this_process:
        assert len(device._sockets) == 1


def test_options_may_be_str(engine: str, devices: Devices, net: Network) -> None:
    front, back = net.bound(zmq.ROUTER, "tcp"), net.bound(zmq.ROUTER, "tcp")
    device = devices("Device", zmq.QUEUE, zmq.ROUTER, zmq.DEALER)
    device.connect_in(front.last_endpoint.decode())
    device.connect_out(back.last_endpoint.decode())
    device.setsockopt_in(zmq.IDENTITY, "ROUTER")
    device.setsockopt_out(zmq.IDENTITY, "DÉALER")
    device.start()
    front.router_mandatory = True

    def send() -> bool:
        with contextlib.suppress(zmq.ZMQError):  # EHOSTUNREACH until the device has connected
            front.send_multipart([b"ROUTER", b"x"])
            return True
        return False

    wait_until(send)
    sender, *rest = back.recv_multipart()
    assert (sender.decode(), rest[1:]) == ("DÉALER", [b"x"])


# Steering


def command(control: zmq.Socket[bytes], text: bytes) -> list[bytes]:
    control.send(text)
    return control.recv_multipart()


def test_a_steerable_proxy_steers_by_default(engine: str, devices: Devices, net: Network) -> None:
    device = devices("ProxySteerable", zmq.PULL, zmq.PUSH)
    control = net.bound(zmq.PAIR, "tcp")
    device.connect_ctrl(control.last_endpoint.decode())
    device.bind_in("tcp://127.0.0.1:*")
    device.bind_out("tcp://127.0.0.1:*")
    device.start()
    source, sink = net.socket(zmq.PUSH), net.socket(zmq.PULL)
    source.connect(device.endpoints["in"][0])
    sink.connect(device.endpoints["out"][0])
    source.send(b"before")
    assert sink.recv() == b"before"
    control.send(b"PAUSE")
    command(control, b"STATISTICS")  # answered behind it
    source.send(b"paused")
    assert sink.poll(50) == 0
    control.send(b"RESUME")
    assert sink.recv() == b"paused"
    numbers = [struct.unpack("=Q", frame)[0] for frame in command(control, b"STATISTICS")]
    assert numbers == [2, 12, 0, 0, 0, 0, 2, 12]
    control.send(b"TERMINATE")
    device.join(DEADLINE)
    assert device.done


def test_a_steerable_proxy_with_another_control(
    engine: str, devices: Devices, net: Network
) -> None:
    device = devices("ProxySteerable", zmq.PULL, zmq.PUSH, ctrl_type=zmq.REP)
    port = device.bind_ctrl_to_random_port("tcp://127.0.0.1")
    device.start()
    control = net.socket(zmq.REQ)
    control.connect(f"tcp://127.0.0.1:{port}")
    assert command(control, b"PAUSE") == [b""]
    assert command(control, b"TERMINATE") == [b""]
    device.join(DEADLINE)
    assert device.done


@pytest.mark.parametrize("prefix", [bytearray(b"side"), memoryview(b"side"), b"side", "side", None])
def test_prefixes_go_into_another_process(prefix: Any) -> None:
    device = zdev.ProcessMonitoredQueue(zmq.PULL, zmq.PUSH, zmq.PUB, prefix, prefix)
    kept = prefix if isinstance(prefix, (str, type(None))) else b"side"
    assert (device._in_prefix, device._out_prefix) == (kept, kept)
    other = pickle.loads(pickle.dumps(device))
    assert other._relay_options() == {"in_prefix": kept, "out_prefix": kept}


def test_a_forked_device_leaves_what_it_inherits_as_it_is() -> None:
    ends = [*tcp.socketpair(), *tcp.socketpair(), tcp.create_server(("127.0.0.1", 0))]
    ends[0].setblocking(False)
    ends[4].setblocking(False)
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    descriptors = [*(end.fileno() for end in ends), reader, writer]
    before = [os.get_blocking(descriptor) for descriptor in descriptors]
    device = zdev.ProcessDevice(zmq.QUEUE, zmq.PULL, zmq.PUSH)
    device._launch_class = multiprocessing.get_context("fork").Process
    with device:
        assert [os.get_blocking(descriptor) for descriptor in descriptors] == before
    assert before == [False, True, True, True, False, False, True]
    for end in ends:
        end.close()
    os.close(reader)
    os.close(writer)
