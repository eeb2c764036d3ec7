"""What a device had is gone when its stop returns: nothing of it takes messages, nor holds a name."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket as raw
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

import zdev

from ..support import DEADLINE, Network, fill, wait_until
from .addresses import listens
from .background import Devices
from .peers import Peer, connected, greeting, place
from .streams import Stream

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

TRANSPORTS = ["path", "abstract", "tcp"]

_numbers = itertools.count()


def addresses(transport: str, where: Path) -> tuple[str, str]:
    """Return two addresses that are the same at each start."""
    if transport == "tcp":
        with raw.socket() as one, raw.socket() as other:
            for found in (one, other):
                found.bind(("127.0.0.1", 0))
            ports = [found.getsockname()[1] for found in (one, other)]
        return f"tcp://127.0.0.1:{ports[0]}", f"tcp://127.0.0.1:{ports[1]}"
    if transport == "path":
        return f"ipc://{where}/in", f"ipc://{where}/out"
    name = f"ipc://@zdev-{os.getpid()}-{next(_numbers)}"
    return f"{name}-in", f"{name}-out"


@pytest.mark.parametrize("peers", [1, 20])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_nothing_is_lost(
    engine: str, net: Network, devices: Devices, tmp_path: Path, transport: str, peers: int
) -> None:
    """By peers that stay connected, and send as soon as the device runs again."""
    device = devices("Proxy", zmq.PULL, zmq.PUSH)
    if devices.in_this_process:
        device.context_factory = lambda: net.context
    ends = addresses(transport, tmp_path)
    device.bind_in(ends[0])
    device.bind_out(ends[1])
    sources = [net.socket(zmq.PUSH, reconnect_ivl=1) for _ in range(peers)]
    sink = net.socket(zmq.PULL, reconnect_ivl=1)
    for source in sources:
        source.connect(ends[0])
    sink.connect(ends[1])
    for number in range(25 if devices.in_this_process else 5):
        device.start()
        for source in sources:
            source.send(b"%d" % number)
        assert [sink.recv() for _ in sources] == [b"%d" % number] * peers
        device.stop()
        assert not any(map(listens, ends))
        assert device.statistics().frontend_to_backend.messages_received == peers


@contextlib.contextmanager
def bound(address: str) -> Iterator[raw.socket]:
    family, where = place(address)
    with raw.socket(family) as listener:
        listener.setsockopt(raw.SOL_SOCKET, raw.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen()
        listener.settimeout(DEADLINE)
        yield listener


def as_it_is(base: Any) -> Any:
    return base


def closes_by_itself(base: Any) -> Any:
    class Device(base):  # type: ignore[misc]
        def run_device(self) -> None:
            sockets = self._setup_sockets()
            try:
                zdev.proxy(*sockets)
            finally:
                for socket in sockets:
                    socket.close()

    return Device


@pytest.mark.parametrize("derive", [as_it_is, closes_by_itself])
@pytest.mark.parametrize("io_threads", [1, 3])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_nothing_is_left(
    engine: str, devices: Devices, tmp_path: Path, transport: str, io_threads: int, derive: Any
) -> None:
    """Neither listeners nor accepted connections, nor those that the device has made."""
    device = devices.of(derive, "Proxy", zmq.PULL, zmq.PUSH)
    with zmq.Context(io_threads) as context:
        if devices.in_this_process:
            device.context_factory = lambda: context
            device.bind_mon(f"inproc://{tmp_path}")
        near, far = addresses(transport, tmp_path)
        device.bind_in(near)
        device.connect_out(far)
        for _ in range(10 if devices.in_this_process else 2):
            with bound(far) as listener:
                device.start()
                sources = [connected(near, b"PUSH") for _ in range(20)]
                sink = Peer(listener.accept()[0], greeting(b"PULL"))
                for source in sources:
                    source.shake_hands()
                    source.send(b"x")
                sink.shake_hands()
                wait_until(lambda: device.statistics().frontend_to_backend.messages_sent == 20)
                device.stop()
                assert not listens(near)
                assert [peer.is_cut_off() for peer in (*sources, sink)] == [True] * 21
                for peer in (*sources, sink):
                    peer.connection.close()
            if transport == "path":
                os.unlink(place(far)[1])


def test_a_stop_does_not_wait_for_what_is_still_to_be_sent(
    engine: str, net: Network, threads: Devices, tmp_path: Path
) -> None:
    """That goes on in the context that others share, and holds up nothing else there."""
    stream = Stream(net, threads)
    late = addresses("tcp", tmp_path)[0]
    stream.device.setsockopt_out(zmq.SNDHWM, 10)
    stream.device.connect_out(late)
    for _ in range(2):
        with stream.device:
            source = stream.source()
            fill(source)
            wait_until(lambda: stream.there.parked)
            source.close()
        stream.has_ended()
    sink = net.socket(zmq.PULL)
    sink.bind(late)
    assert [sink.recv() for _ in range(20)] == [b"full"] * 20


def test_accepted_connections_end_with_their_device(
    engine: str, net: Network, threads: Devices
) -> None:
    """Whatever was forked meanwhile, and lives on."""
    processes = Devices("Process")
    stream = Stream(net, threads)
    path = f"ipc://@zdev-{os.getpid()}-{next(_numbers)}"
    stream.device.bind_in(path)
    with contextlib.closing(processes):
        stream.device.start()
        peers = [connected(address, b"PUSH") for address in stream.device.endpoints["in"]]
        for peer in peers:
            peer.shake_hands()
        processes("Device", zmq.STREAMER, zmq.PULL, zmq.PUSH).start()
        stream.device.stop()
        assert [peer.is_cut_off() for peer in peers] == [True, True]
        for peer in peers:
            peer.connection.close()
