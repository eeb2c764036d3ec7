"""Devices in the background, from their start to their end, whatever they are doing."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any, Callable

import pytest
import zmq

import zdev
from zdev._devices.base import PATIENCE

from .background import LAUNCHERS, Devices, running_device
from .support import DEADLINE, Background, Network, fill, wait_until

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

ANY = "tcp://127.0.0.1:*"
FORK = multiprocessing.get_context("fork")


@pytest.fixture(params=LAUNCHERS)
def devices(request: pytest.FixtureRequest) -> Iterator[Devices]:
    """Make devices in threads, and in processes."""
    made = Devices(request.param)
    yield made
    made.close()


@pytest.fixture
def threads() -> Iterator[Devices]:
    made = Devices("Thread")
    yield made
    made.close()


class Census:
    """What the process has, to see later whether it has come to have more."""

    def __init__(self, net: Network) -> None:
        net.socket(zmq.PAIR)  # with the first socket come libzmq's threads
        self.threads = set(threading.enumerate())
        self.descriptors = descriptors()

    def nothing_new(self) -> None:
        assert set(threading.enumerate()) <= self.threads
        assert not multiprocessing.active_children()
        # libzmq's reaper has the last word of a socket, and nothing tells when it has said it.
        wait_until(lambda: descriptors() <= self.descriptors)


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


def can_bind(net: Network, address: str) -> bool:
    """Tell whether an address is free, right now."""
    transport, _, place = address.partition("://")
    if transport == "inproc":
        with net.context.socket(zmq.PULL) as user, contextlib.suppress(zmq.ZMQError):
            user.bind(address)
            user.unbind(address)
            return True
        return False
    family: int = socket.AF_UNIX
    where: Any = place.replace("@", "\0")
    if transport == "tcp":
        host, _, port = place.rpartition(":")
        family, where = socket.AF_INET, (host, int(port))
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(where)
        except OSError:
            return False
        listener.listen()
        return True


class Stream:
    """A streamer, with a monitor if it is a proxy, and its peers."""

    def __init__(
        self, net: Network, devices: Devices, kind: str = "Device", **options: Any
    ) -> None:
        self.net = net
        first = (zmq.STREAMER,) if kind == "Device" else ()
        mon = (zmq.PUSH,) if kind != "Device" else ()
        self.device = devices(kind, *first, zmq.PULL, zmq.PUSH, *mon, **options)
        if devices.in_this_process:
            self.device.context_factory = self.context
        self.device.bind_in(ANY)
        self.device.bind_out(ANY)

    def context(self) -> zmq.Context[Any]:
        return self.net.context

    @property
    def addresses(self) -> list[str]:
        return [address for role in self.device.endpoints.values() for address in role]

    def source(self, **options: Any) -> zmq.Socket[bytes]:
        source = self.net.socket(zmq.PUSH, **options)
        source.connect(self.device.endpoints["in"][0])
        return source

    def sink(self, **options: Any) -> zmq.Socket[bytes]:
        sink = self.net.socket(zmq.PULL, **options)
        sink.connect(self.device.endpoints["out"][0])
        return sink

    @property
    def there(self) -> Any:
        return self.device.statistics().frontend_to_backend

    def has_ended(self) -> None:
        assert self.device.done
        assert self.device.exception is None
        assert not self.device.launcher.is_alive()
        self.device.join()
        for address in self.addresses:
            assert can_bind(self.net, address)


# What a device may be doing


@contextlib.contextmanager
def idle(stream: Stream) -> Iterator[None]:
    stream.device.start()
    yield


@contextlib.contextmanager
def paused(stream: Stream) -> Iterator[None]:
    stream.device.start()
    stream.device.pause()
    fill(stream.source())
    yield


@contextlib.contextmanager
def parked(stream: Stream) -> Iterator[None]:
    stream.device.start()
    fill(stream.source())
    wait_until(lambda: stream.there.parked)
    yield


@contextlib.contextmanager
def full(stream: Stream) -> Iterator[None]:
    """Have a peer that does not read, and unsent messages in a socket."""
    stream.device.setsockopt_out(zmq.SNDHWM, 10)
    stream.device.start()
    stream.sink(rcvhwm=1, rcvbuf=4096)
    source = stream.source(sndhwm=0)
    for _ in range(400):  # more than all buffers of tcp hold
        source.send(bytes(100_000))
    wait_until(lambda: stream.there.parked)
    yield


@contextlib.contextmanager
def monitor_blocked(stream: Stream) -> Iterator[None]:
    stream.device.bind_mon(ANY)
    stream.device.start()
    stream.sink()
    fill(stream.source())
    wait_until(lambda: stream.device.statistics().capture.parked)
    yield


@contextlib.contextmanager
def flooded(stream: Stream) -> Iterator[None]:
    stream.device.start()
    enough = threading.Event()
    ends = [stream.source(), stream.sink()]

    def feed() -> None:
        while not enough.is_set():
            ends[0].poll(10, zmq.POLLOUT)
            fill(ends[0])

    def drain() -> None:
        while not enough.is_set():
            while ends[1].poll(10):
                ends[1].recv()

    users = [Background(feed), Background(drain)]
    wait_until(lambda: stream.there.messages_sent > 1000)
    try:
        yield
    finally:
        enough.set()
        for user in users:
            user.join()


STATES = [idle, paused, parked, full, monitor_blocked, flooded]


def stream_for(state: Any, net: Network, devices: Devices) -> Stream:
    return Stream(net, devices, "Proxy" if state is monitor_blocked else "Device")


# Start


class Trouble(Exception):
    """What a subclass may raise."""


def trouble() -> Any:
    raise Trouble("none to be had")


def closed_context() -> zmq.Context[Any]:
    context = zmq.Context()
    context.term()
    return context


def bad_option(device: Any) -> None:
    device.setsockopt_out(99_999, 1)


def bad_types(device: Any) -> None:
    device.in_type = device.out_type = zmq.SUB


def no_such_type(device: Any) -> None:
    device.out_type = 999


def draft_type(device: Any) -> None:
    device.out_type = zmq.SERVER


def bad_address(device: Any) -> None:
    device.bind_out("tcp://nowhere")


def bad_context_factory(device: Any) -> None:
    device.context_factory = trouble


def no_context(device: Any) -> None:
    device.context_factory = closed_context


def bad_prefix(device: Any) -> None:
    device._in_prefix = 3.14


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (bad_option, zmq.ZMQError),
        (bad_types, ValueError),
        (no_such_type, zmq.ZMQError),
        (draft_type, (zmq.ZMQError, ValueError)),
        (bad_address, zmq.ZMQError),
        (bad_context_factory, Trouble),
        (no_context, zmq.ZMQError),
        (bad_prefix, TypeError),
    ],
)
def test_start_raises_what_went_wrong_and_leaves_nothing(
    engine: str, net: Network, devices: Devices, spoil: Callable[[Any], None], error: Any
) -> None:
    stream = Stream(net, devices, "MonitoredQueue")
    port = stream.device.bind_in_to_random_port("tcp://127.0.0.1")
    census = Census(net)
    spoil(stream.device)
    with pytest.raises(error) as raised:
        stream.device.start()
    assert can_bind(net, f"tcp://127.0.0.1:{port}")
    # The held port is gone too: hence one less.
    census.descriptors -= 1
    census.nothing_new()
    assert stream.device.done
    assert stream.device.exception is raised.value
    with pytest.raises(error):
        stream.device.join()


def test_address_in_use(engine: str, net: Network, devices: Devices) -> None:
    stream = Stream(net, devices)
    taken = net.bound(zmq.PAIR, "tcp")
    address = taken.getsockopt_string(zmq.LAST_ENDPOINT)
    stream.device.bind_out(address)
    census = Census(net)
    for _ in range(3):
        with pytest.raises(zdev.BindError) as raised:
            stream.device.start()
        census.nothing_new()
        assert isinstance(raised.value, zmq.ZMQError)
        assert isinstance(raised.value, zmq.ZMQBindError)
        assert raised.value.errno == errno.EADDRINUSE
    taken.unbind(address)
    wait_until(lambda: can_bind(net, address))
    stream.device.start()
    assert address in stream.device.endpoints["out"]
    stream.device.stop()
    stream.has_ended()


def test_no_thread_to_be_had(
    engine: str, net: Network, devices: Devices, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Stream(net, devices)
    port = stream.device.bind_in_to_random_port("tcp://127.0.0.1")
    census = Census(net)

    here, theirs = os.getpid(), threading.Thread.start

    def start(thread: threading.Thread) -> None:
        if os.getpid() == here:
            raise RuntimeError("can't start new thread")
        theirs(thread)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="new thread"):
            stream.device.start()
    assert stream.device.done
    assert can_bind(net, f"tcp://127.0.0.1:{port}")
    census.descriptors -= 1  # the held port's
    census.nothing_new()
    with stream.device:
        assert stream.there.messages_received == 0


def test_start_returns_when_the_device_relays(engine: str, net: Network, devices: Devices) -> None:
    stream = Stream(net, devices)
    stream.device.start()
    assert not stream.device.done
    assert stream.there.messages_received == 0
    stream.source().send(b"x")
    assert stream.sink().recv() == b"x"
    with pytest.raises(RuntimeError, match="running already"):
        stream.device.start()
    stream.device.stop()
    stream.has_ended()


def test_start_again_after_the_end(engine: str, net: Network, devices: Devices) -> None:
    """At once, and at the same addresses, of each transport."""
    stream = Stream(net, devices, "Proxy")
    port = stream.device.bind_in_to_random_port("tcp://127.0.0.1")
    stream.device.bind_mon("inproc://monitor")
    stream.device.bind_mon(f"ipc://@zdev-{os.getpid()}")
    for number in range(10):
        stream.device.start()
        with zmq.Context() as context, context.socket(zmq.PUSH) as source:
            source.connect(f"tcp://127.0.0.1:{port}")
            source.send(b"%d" % number)
            wait_until(lambda: stream.there.parked)
        assert stream.there.messages_received == 1
        stream.device.stop()
        assert stream.there.messages_received == 1
    stream.has_ended()


def test_start_again_in_this_process(engine: str, net: Network, threads: Devices) -> None:
    """At addresses that nothing but libzmq's reaper knows."""
    device = threads("Device", zmq.STREAMER, zmq.PULL, zmq.PUSH)
    device.context_factory = lambda: net.context
    device.bind_in("inproc://in")
    device.bind_out("inproc://out")
    for _ in range(50):
        with device:
            assert device.endpoints == {"in": ["inproc://in"], "out": ["inproc://out"]}


def test_start_again_as_soon_as_it_is_done(threads: Devices) -> None:
    """What is left of the last run, in its thread, does nothing to this one."""
    device = threads("Proxy", zmq.PULL, zmq.PUSH)
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        for _ in range(1000):
            device.start()
            assert device.statistics()
            assert device.exception is None
            device._ask("stop", None)  # as another thread's stop() would
            while not device.done:
                pass
    finally:
        sys.setswitchinterval(switch)
    device.stop()
    assert "_setup_sockets" not in vars(device)


@pytest.mark.parametrize("fails", [False, True])
def test_the_last_run_does_nothing_to_the_next(threads: Devices, fails: bool) -> None:
    """Even if it goes on for long after its end, and then fails."""
    lingers, gate = threading.Event(), threading.Event()

    def lingering(base: Any) -> Any:
        class Device(base):  # type: ignore[misc]
            def run_device(self) -> None:
                zdev.proxy(*self._setup_sockets())  # which have to be noted, to be asked

            def run(self) -> None:
                super().run()
                if not lingers.is_set():
                    lingers.set()
                    assert gate.wait(DEADLINE)
                    if fails:
                        raise trouble()

        return Device

    device = threads.of(lingering, "Proxy", zmq.PULL, zmq.PUSH)
    device.start()
    last = device._run.worker
    stop = Background(device.stop)
    assert lingers.wait(DEADLINE)
    device.start()
    gate.set()
    last.join(DEADLINE)
    stop.join()
    assert device.statistics()
    assert not device.done
    assert device.exception is None
    device.stop()
    assert "_setup_sockets" not in vars(device)


def test_join_raises_what_ended_the_run_it_waits_for(threads: Devices) -> None:
    """Though the device runs again, which here it starts by itself."""
    fail = threading.Event()

    def restarting(base: Any) -> Any:
        class Device(base):  # type: ignore[misc]
            def run_device(self) -> None:
                if fail.is_set():
                    return super().run_device()
                self._setup_sockets()
                assert fail.wait(DEADLINE)
                raise trouble()

            def run(self) -> None:
                try:
                    super().run()
                except Trouble:
                    self.start()

        return Device

    device = threads.of(restarting, "Proxy", zmq.PULL, zmq.PUSH)
    device.start()
    join = Background(device.join)
    wait_until(lambda: device._run.ended._waiters)
    fail.set()
    with pytest.raises(Trouble):
        join.join()
    assert device.statistics()
    assert device.exception is None


def test_many_start_and_stop_at_once(devices: Devices) -> None:
    device = devices("Proxy", zmq.PULL, zmq.PUSH)

    def use() -> None:
        for _ in range(50 if devices.in_this_process else 5):
            with contextlib.suppress(RuntimeError):
                device.start()
            device.stop(timeout=DEADLINE)

    users = [Background(use) for _ in range(3)]
    for user in users:
        user.join()
    device.stop()
    device.join()
    with device:
        assert device.statistics()


def test_join_before_start(devices: Devices) -> None:
    device = devices("Proxy", zmq.PULL, zmq.PUSH)
    with pytest.raises(RuntimeError, match="not started"):
        device.join()
    with pytest.raises(RuntimeError, match="not started"):
        device.statistics()
    device.stop()
    assert not device.done


# Stop


def at_once(device: Any) -> None:
    device.stop(timeout=DEADLINE)


def concurrently(device: Any) -> None:
    users = [Background(device.stop), Background(device.stop, timeout=DEADLINE)]
    users += [Background(device.join), Background(device.stop, drain=0)]
    for user in users:
        user.join()


def by_signal(device: Any) -> None:
    """Stop in a handler, while this thread joins."""
    previous = signal.signal(signal.SIGUSR1, lambda *_: device.stop(timeout=DEADLINE))
    try:
        user = Background(os.kill, os.getpid(), signal.SIGUSR1)
        device.join()
        user.join()
    finally:
        signal.signal(signal.SIGUSR1, previous)


@pytest.mark.parametrize("way", [at_once, concurrently, by_signal])
@pytest.mark.parametrize("state", STATES)
def test_stop_in_every_state(
    engine: str, net: Network, devices: Devices, state: Any, way: Callable[[Any], None]
) -> None:
    stream = stream_for(state, net, devices)
    with state(stream):
        way(stream.device)
        stream.has_ended()
        stream.device.stop()
    there = stream.there
    assert there.messages_received == there.messages_sent + there.parked


def test_stop_on_the_devices_own_thread(engine: str, net: Network, threads: Devices) -> None:
    stream = Stream(net, threads)
    stream.device.start()
    stream.device._run.relay.call(stream.device.stop)
    stream.device.join()
    stream.has_ended()


class Hesitant:
    """A device whose sockets take their time."""

    def __init__(self) -> None:
        self.entered, self.gate = FORK.Event(), FORK.Event()

    def __call__(self, base: Any) -> Any:
        class Device(base):  # type: ignore[misc]
            def _setup_sockets(device) -> Any:  # noqa: N805
                self.entered.set()
                assert self.gate.wait(DEADLINE)
                return super()._setup_sockets()

        return Device


def test_stop_during_start(engine: str, devices: Devices) -> None:
    hesitant = Hesitant()
    device = devices.of(hesitant, "Proxy", zmq.PULL, zmq.PUSH)
    start = Background(device.start)
    assert hesitant.entered.wait(DEADLINE)
    stop = Background(device.stop)
    hesitant.gate.set()
    stop.join()
    start.join()
    assert device.done
    assert device.exception is None
    device.join()


def test_a_start_that_is_interrupted_leaves_nothing(
    engine: str, net: Network, devices: Devices
) -> None:
    """As Ctrl-C does."""
    hesitant = Hesitant()
    device = devices.of(hesitant, "Proxy", zmq.PULL, zmq.PUSH)
    if devices.in_this_process:
        device.context_factory = lambda: net.context
    census = Census(net)

    def interrupt(*_: object) -> None:
        hesitant.gate.set()
        raise Trouble("interrupted")

    def when_it_starts() -> None:
        assert hesitant.entered.wait(DEADLINE)
        # Not in the midst of a fork, or before a thread begins, of which Python would keep traces.
        wait_until(lambda: devices.in_this_process or device._run.thread == -1)
        os.kill(os.getpid(), signal.SIGUSR1)

    previous = signal.signal(signal.SIGUSR1, interrupt)
    try:
        user = Background(when_it_starts)
        with pytest.raises(Trouble, match="interrupted") as raised:
            device.start()
        user.join()
    finally:
        signal.signal(signal.SIGUSR1, previous)
    assert device.done
    # If not even the thread or process has come up, the start has failed by it.
    assert device.exception in (None, raised.value)
    census.nothing_new()


def test_stop_times_out(engine: str, devices: Devices) -> None:
    hesitant = Hesitant()
    device = devices.of(hesitant, "Proxy", zmq.PULL, zmq.PUSH)
    start = Background(device.start)
    assert hesitant.entered.wait(DEADLINE)
    with pytest.raises(TimeoutError, match="not ended"):
        device.stop(timeout=0.05)
    if devices.in_this_process:
        assert not device.done
        hesitant.gate.set()
        start.join()
        device.join()
    else:  # it is killed
        with pytest.raises(RuntimeError, match="exit code -9"):
            start.join()
    assert device.done


# Drain


@pytest.mark.parametrize("transport", ["inproc", "tcp"])
def test_drain_delivers_all_that_is_queued(
    engine: str, net: Network, devices: Devices, transport: str
) -> None:
    """Also with sockets that are not to linger, and if the receiver comes late."""
    stream = Stream(net, devices)
    stream.device.setsockopt_out(zmq.LINGER, 0)
    if transport == "inproc" and devices.in_this_process:
        stream.device._in_binds[:] = ["inproc://in"]
        stream.device._out_binds[:] = ["inproc://out"]
    stream.device.start()
    stream.device.pause()
    source = stream.source(sndhwm=0)
    for number in range(5000):
        source.send(b"%d" % number)
    sink = stream.sink()
    stop = Background(stream.device.stop, drain=DEADLINE)
    assert [int(sink.recv()) for _ in range(5000)] == list(range(5000))
    stop.join()
    stream.has_ended()
    assert stream.there.messages_sent == 5000


def test_a_drain_gives_peers_its_time(engine: str, net: Network, devices: Devices) -> None:
    """What its sockets have taken reaches them, though they are late and it is not to linger."""
    stream = Stream(net, devices)
    stream.device.setsockopt_out(zmq.LINGER, 0)
    stream.device.start()
    stream.device.pause()
    source, sink = stream.source(), stream.sink(rcvhwm=1, rcvbuf=4096)
    for _ in range(500):
        source.send(bytes(20_000))
    stop = Background(stream.device.stop, drain=DEADLINE)
    wait_until(lambda: stream.there.messages_sent == 500)
    if devices.in_this_process:  # the child lives until all is sent
        stop.join()
    for _ in range(500):
        assert sink.recv() == bytes(20_000)
    stop.join()
    stream.has_ended()


@pytest.mark.parametrize("state", [parked, full, monitor_blocked, flooded])
def test_drain_is_bounded(engine: str, net: Network, devices: Devices, state: Any) -> None:
    stream = stream_for(state, net, devices)
    with state(stream):
        began = time.monotonic()
        stream.device.stop(drain=0.3, timeout=DEADLINE)
        # A flood may pause for so long that it looks like its end.
        assert state is flooded or time.monotonic() - began >= 0.3
        stream.has_ended()


def test_a_drain_does_not_put_off_a_stop(engine: str, devices: Devices) -> None:
    """Not even one that is asked for when the device does not yet relay."""
    hesitant = Hesitant()
    device = devices.of(hesitant, "Proxy", zmq.PULL, zmq.PUSH)
    with pytest.raises(TypeError, match="drain must be a number of seconds"):
        device.stop(drain="1")
    start = Background(device.start)
    assert hesitant.entered.wait(DEADLINE)
    with pytest.raises(TypeError, match="drain must be a number of seconds"):
        device.stop(drain="1")
    device._ask("stop", None)
    stop = Background(device.stop, drain=1000)
    hesitant.gate.set()
    start.join()
    stop.join()
    assert device.done


def test_drain_of_nothing_is_short(engine: str, net: Network, devices: Devices) -> None:
    stream = Stream(net, devices)
    stream.device.start()
    stream.device.stop(drain=1000, timeout=DEADLINE)
    stream.has_ended()


@pytest.mark.parametrize("drain", [float("inf"), 1e30, 1e7])
def test_a_drain_without_end(engine: str, net: Network, devices: Devices, drain: float) -> None:
    stream = Stream(net, devices)
    stream.device.setsockopt_out(zmq.LINGER, 0)
    stream.device.start()
    source, sink = stream.source(), stream.sink()
    source.send(b"x")
    stream.device.stop(drain=drain, timeout=DEADLINE)
    assert sink.recv() == b"x"
    assert stream.device.exception is None
    assert stream.device.statistics().frontend_to_backend.messages_sent == 1
    stream.has_ended()


def test_what_is_sent_arrives_after_stop(engine: str, net: Network, devices: Devices) -> None:
    """A socket's default is to linger."""
    stream = Stream(net, devices)
    stream.device.start()
    sink, source = stream.sink(rcvhwm=1), stream.source()
    for _ in range(500):
        source.send(bytes(1000))
    wait_until(lambda: stream.there.messages_sent == 500)
    stream.device.stop()
    for _ in range(500):
        assert sink.recv() == bytes(1000)


# The end


def slow_peer(net: Network, device: Any, reads: bool) -> None:
    """Have the device send more than the network holds to a peer that reads it, or does not."""
    device.setsockopt_out(zmq.SNDBUF, 4096)
    device.bind_in("tcp://127.0.0.1:*")
    device.bind_out("tcp://127.0.0.1:*")
    device.start()
    source = net.socket(zmq.PUSH)
    sink = net.socket(zmq.PULL, rcvhwm=1, rcvbuf=4096)
    source.connect(device.endpoints["in"][0])
    sink.connect(device.endpoints["out"][0])
    for _ in range(50):
        source.send(bytes(100_000))
    wait_until(lambda: device.statistics().frontend_to_backend.messages_sent == 50)
    if reads:
        for _ in range(50):
            sink.recv()


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("linger", [None, 600])
def test_it_is_told_when_what_was_sent_is_cut_off(
    engine: str, net: Network, caplog: pytest.LogCaptureFixture, reads: bool, linger: int | None
) -> None:
    processes = Devices("Process")
    device = processes("Proxy", zmq.PULL, zmq.PUSH, name="depot")
    if linger is not None:
        device.setsockopt_out(zmq.LINGER, linger)
    with contextlib.closing(processes):
        slow_peer(net, device, reads)
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    if reads:
        assert not told
    else:
        (message,) = told
        assert message.startswith("depot may have lost messages")
        assert "drain" in message
        assert "ZMQ_LINGER" in message


def test_a_context_that_lives_on_cuts_nothing_off(
    engine: str, net: Network, threads: Devices, caplog: pytest.LogCaptureFixture
) -> None:
    device = threads("Proxy", zmq.PULL, zmq.PUSH)
    device.context_factory = lambda: net.context
    slow_peer(net, device, False)
    device.stop()
    assert not caplog.records
    # The peer, which has read nothing yet, is net's last socket.
    for _ in range(50):
        net._sockets[-1].recv()


def test_join_waits_no_longer_than_told(engine: str, net: Network, devices: Devices) -> None:
    stream = Stream(net, devices)
    stream.device.start()
    stream.device.join(timeout=0.01)
    assert not stream.device.done
    stream.device.stop()
    stream.device.join(timeout=0)


def test_many_wait_for_the_end_at_once(engine: str, devices: Devices) -> None:
    """And each finds that nothing is left; in time, in a signal handler too."""
    device = devices("Proxy", zmq.PULL, zmq.PUSH)
    handled = 0

    def wait_by(verb: Callable[..., None], **options: Any) -> None:
        verb(**options)
        assert device.done
        assert not device._run.worker.is_alive()

    def handle(*_: object) -> None:
        nonlocal handled
        device.stop(timeout=DEADLINE)
        assert device.done
        handled += 1

    def interrupt() -> None:
        """Interrupt the wait of the main thread, which starts no threads meanwhile."""
        for number in range(handled, handled + 3):
            os.kill(os.getpid(), signal.SIGUSR1)
            wait_until(lambda number=number: handled > number)  # type: ignore[misc]

    previous = signal.signal(signal.SIGUSR1, handle)
    try:
        for number in range(20 if devices.in_this_process else 5):
            device.start()
            begin = threading.Event()
            interrupter = Background(lambda begin=begin: begin.wait(DEADLINE) and interrupt())
            waits = [Background(wait_by, device.join, timeout=DEADLINE) for _ in range(3)]
            waits += [Background(wait_by, device.stop, timeout=DEADLINE) for _ in range(number % 4)]
            begin.set()
            try:
                wait_by(device.join)
            finally:
                # Not join(), which a signal that comes just before does not wake.
                wait_until(lambda: not interrupter.alive)  # noqa: B023
            for user in (interrupter, *waits):
                user.join()
    finally:
        signal.signal(signal.SIGUSR1, previous)


@pytest.mark.parametrize("verb", ["join", "stop"])
def test_a_wait_for_the_end_is_not_longer_for_another(threads: Devices, verb: str) -> None:
    """Who waits for the thread, once the device has ended, does not make others wait longer."""
    device = threads("Proxy", zmq.PULL, zmq.PUSH)
    lingers, gate = threading.Event(), threading.Event()

    class Lingering(threading.Thread):
        def run(self) -> None:
            super().run()
            lingers.set()
            gate.wait(DEADLINE)

    device._launch_class = Lingering
    device.start()
    first = Background(device.stop)
    assert lingers.wait(DEADLINE)
    began = time.monotonic()
    getattr(device, verb)(timeout=0.01)
    assert time.monotonic() - began < PATIENCE / 2
    assert device.done
    gate.set()
    first.join()


class Failing:
    """A device that fails when it is told."""

    def __init__(self, error: BaseException) -> None:
        self.fail, self.error = FORK.Event(), error

    def __call__(self, base: Any) -> Any:
        class Device(base):  # type: ignore[misc]
            def run_device(device) -> None:  # noqa: N805
                device._setup_sockets()
                assert self.fail.wait(DEADLINE)
                raise self.error

        return Device


@pytest.mark.parametrize("error", [Trouble("why", 42), zmq.ZMQError(errno.EFAULT), SystemExit(3)])
def test_join_raises_what_ended_the_device(
    engine: str, net: Network, devices: Devices, error: BaseException
) -> None:
    failing = Failing(error)
    device = devices.of(failing, "Device", zmq.STREAMER, zmq.PULL, zmq.PUSH)
    device.start()
    failing.fail.set()
    for _ in range(2):
        with pytest.raises(type(error)) as raised:
            device.join()
        assert raised.value is device.exception
        assert str(raised.value) == str(error)
    assert device.done
    device.stop()  # of an ended device: nothing


def test_with(engine: str, net: Network, devices: Devices) -> None:
    stream = Stream(net, devices, "MonitoredQueue")
    with stream.device as device:
        assert device is stream.device
        stream.source().send(b"x")
        assert stream.sink().poll(0) in (0, zmq.POLLIN)
    stream.has_ended()
    with pytest.raises(Trouble), stream.device:
        trouble()
    stream.has_ended()
    failing = Failing(Trouble("inside"))
    device = devices.of(failing, "Device", zmq.STREAMER, zmq.PULL, zmq.PUSH)
    failing.fail.set()
    with pytest.raises(Trouble, match="inside"), device:
        wait_until(lambda: device.done)


def test_control_after_the_end(engine: str, net: Network, devices: Devices) -> None:
    stream = Stream(net, devices)
    with stream.device:
        pass
    with pytest.raises(RuntimeError):
        stream.device.pause()
    stream.device.bind_out("inproc://planned")  # for the next start
    with stream.device:
        assert "inproc://planned" in stream.device.endpoints["out"]


def test_control_while_it_ends(engine: str, net: Network, devices: Devices) -> None:
    entered, gate = FORK.Event(), FORK.Event()

    def tarrying(base: Any) -> Any:
        class Device(base):  # type: ignore[misc]
            def _let_go(self) -> None:
                entered.set()
                gate.wait(DEADLINE)
                super()._let_go()

        return Device

    device = devices.of(tarrying, "Proxy", zmq.PULL, zmq.PUSH, name="depot")
    device.bind_in(ANY)
    device.start()
    source = net.socket(zmq.PUSH)
    source.connect(device.endpoints["in"][0])
    source.send(b"x")
    wait_until(lambda: device.statistics().frontend_to_backend.messages_received)
    stop = Background(device.stop)
    assert entered.wait(DEADLINE)
    counts = device.statistics()
    assert counts.frontend_to_backend.messages_received == 1
    for verb in (device.pause, device.resume):
        with pytest.raises(RuntimeError, match=r"^depot is ending"):
            verb()
    gate.set()
    stop.join()
    assert device.statistics() == counts
    for verb in (device.pause, device.resume):
        with pytest.raises(RuntimeError, match=r"^depot has ended; start it again"):
            verb()


def test_statistics_at_any_moment(engine: str, devices: Devices) -> None:
    """They are told also while a device ends and is started again."""
    device = devices("Proxy", zmq.PULL, zmq.PUSH)
    device.start()
    enough = threading.Event()
    asked = 0

    def ask() -> None:
        nonlocal asked
        while not enough.is_set():
            device.statistics()
            asked += 1

    user = Background(ask)
    try:
        for _ in range(10):
            before = asked
            wait_until(lambda seen=before: asked > seen or not user.alive)  # type: ignore[misc]
            device.stop()
            device.start()
    finally:
        enough.set()
        user.join()


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_control_before_the_start(devices: Devices, verb: str) -> None:
    device = devices("Proxy", zmq.PULL, zmq.PUSH)
    with pytest.raises(RuntimeError, match="was not started"):
        getattr(device, verb)()


@pytest.mark.parametrize("state", STATES)
def test_all_at_once(engine: str, net: Network, devices: Devices, state: Any) -> None:
    """One joins, one looks, one pauses and resumes, one stops: nobody hangs."""
    stream = stream_for(state, net, devices)

    def until_it_ends(verb: Callable[[], Any]) -> None:
        with contextlib.suppress(RuntimeError):
            while not stream.device.done:
                verb()

    def toggle() -> None:
        stream.device.pause()
        stream.device.resume()

    with state(stream):
        users = [
            Background(stream.device.join),
            Background(until_it_ends, stream.device.statistics),
            Background(until_it_ends, toggle),
            Background(until_it_ends, lambda: stream.device.endpoints),
        ]
        for _ in range(20):
            stream.device.statistics()
        stream.device.stop(timeout=DEADLINE)
        for user in users:
            user.join()
        stream.has_ended()


# Termination of the context


@pytest.mark.parametrize("factory", ["shared", "instance", "own"])
@pytest.mark.parametrize("state", STATES)
def test_termination_of_the_context_ends_the_device(
    engine: str, net: Network, threads: Devices, state: Any, factory: str
) -> None:
    stream = stream_for(state, net, threads)
    if factory == "shared":
        context = zmq.Context()
        stream.device.context_factory = lambda: context
    elif factory == "instance":
        stream.device.context_factory = zmq.Context.instance
    else:
        stream.device.context_factory = zmq.Context
    with state(stream):
        term = Background(stream.device._context.term)
        term.join()
        stream.device.join(DEADLINE)
        stream.has_ended()


def test_a_context_of_its_own_ends_with_the_device(
    engine: str, net: Network, threads: Devices
) -> None:
    stream = Stream(net, threads)
    stream.device.context_factory = zmq.Context
    with full(stream):
        stream.device.stop(timeout=DEADLINE)
        assert stream.device._context.closed
    with stream.device:
        # Of which others have sockets, it goes on.
        other = stream.device._context.socket(zmq.PAIR)
    assert not stream.device._context.closed
    other.close()
    stream.device._context.term()


def test_a_context_that_ends_before_the_start(engine: str, net: Network, threads: Devices) -> None:
    hesitant = Hesitant()
    device = threads.of(hesitant, "Proxy", zmq.PULL, zmq.PUSH)
    context = zmq.Context()
    device.context_factory = lambda: context
    start = Background(device.start)
    assert hesitant.entered.wait(DEADLINE)
    context.term()
    hesitant.gate.set()
    with pytest.raises(zmq.ZMQError):
        start.join()
    assert device.done


# What is left


def resident() -> int:
    """Return the size of what this process has in memory, in bytes."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# Bytes that an interpreter may still come to need as it warms up; PyPy compiles then.
WARMTH = 16_000_000 if sys.implementation.name == "pypy" else 500_000


def tasks() -> int:
    """Count the threads of this process, libzmq's too."""
    return len(os.listdir("/proc/self/task"))


CLASSES = [
    launcher + ("Device" if launcher and kind == "Device" else kind)
    for launcher in ("", *LAUNCHERS)
    for kind in ("Device", "Proxy", "ProxySteerable", "MonitoredQueue")
]


def started_and_stopped(device: Any, times: int) -> None:
    for _ in range(times):
        with running_device(device):
            pass
        assert device.done


def leave_nothing(name: str, context: Callable[[], zmq.Context[Any]], times: int) -> None:
    """Start and stop a device so many times, and expect nothing to be left of that."""
    first = (zmq.STREAMER,) if name.endswith("Device") else ()
    device = getattr(zdev, name)(*first, zmq.PULL, zmq.PUSH)
    if name.startswith("Process"):
        device._launch_class = FORK.Process
    else:
        device.context_factory = context
    for role in device._roles:
        getattr(device, f"bind_{role}")(ANY)
    started_and_stopped(device, max(times // 10, 5))
    threads, files, size = tasks(), descriptors(), resident()
    started_and_stopped(device, times)
    wait_until(lambda: tasks() <= threads)
    wait_until(lambda: descriptors() <= files)
    assert resident() - size < WARMTH + 5_000 * times
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("name", CLASSES)
def test_starts_and_stops_of_each_class_leave_nothing(net: Network, name: str) -> None:
    """Processes, whose starts take their time, fewer times than others."""
    Census(net)
    leave_nothing(name, lambda: net.context, 15 if name.startswith("Process") else 200)


def test_starts_and_stops_leave_nothing(engine: str, net: Network) -> None:
    """On each engine, with contexts of others and of its own."""
    Census(net)
    leave_nothing("ThreadProxySteerable", lambda: net.context, 100)
    leave_nothing("ThreadProxySteerable", zmq.Context, 50)


def test_a_device_that_runs_outlives_its_last_reference(
    engine: str, net: Network, devices: Devices
) -> None:
    """As a thread does; and when it ends by itself, it leaves nothing."""
    census = Census(net)
    context = zmq.Context()
    stream = Stream(net, Devices(devices.launcher), name="left alone")
    if devices.in_this_process:
        stream.device.context_factory = lambda: context
    stream.device.start()
    source, sink = stream.source(), stream.sink()
    gone = weakref.ref(stream.device)
    process = stream.device.launcher
    del stream
    for number in range(10):
        gc.collect()
        source.send(b"%d" % number)
        assert sink.recv() == b"%d" % number
    source.close()
    sink.close()
    if not devices.in_this_process:
        os.kill(process.pid, signal.SIGTERM)
    context.term()
    del process

    def is_gone() -> bool:
        gc.collect()
        return gone() is None

    wait_until(is_gone)
    wait_until(lambda: set(threading.enumerate()) <= census.threads)
    census.nothing_new()


def test_an_ended_device_is_collected_with_all_it_had(
    engine: str, net: Network, devices: Devices
) -> None:
    stream = Stream(net, devices)
    with stream.device:
        pass
    census = Census(net)
    for spoilt in (False, True):
        stream = Stream(net, Devices(devices.launcher), "MonitoredQueue")
        if spoilt:
            bad_prefix(stream.device)
        with contextlib.suppress(TypeError), stream.device:
            pass
        gone = weakref.ref(stream.device)
        census.nothing_new()
        del stream
        for _ in range(10):  # PyPy takes its time
            gc.collect()
        assert gone() is None
        census.nothing_new()


# The log


def test_log(engine: str, net: Network, devices: Devices, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "zdev")
    stream = Stream(net, devices, name="depot")
    with stream.device:
        assert stream.device.launcher.name == "depot"
        address = stream.device.endpoints["in"][0]
        assert [(r.name, r.levelno) for r in caplog.records] == [("zdev", logging.INFO)]
        assert "depot relays" in caplog.text
        assert address in caplog.text
    assert "depot has ended" in caplog.text
    assert all(record.levelno == logging.INFO for record in caplog.records)


def test_log_of_errors(
    engine: str, net: Network, devices: Devices, caplog: pytest.LogCaptureFixture
) -> None:
    """What start raises is not shown besides; what happens later is, before anybody joins."""
    caplog.set_level(logging.DEBUG, "zdev")
    stream = Stream(net, devices, name="depot")
    bad_option(stream.device)
    with pytest.raises(zmq.ZMQError):
        stream.device.start()
    assert "depot failed: ZMQError: Invalid argument" in caplog.text
    assert all(record.levelno < logging.WARNING for record in caplog.records)
    caplog.clear()
    failing = Failing(Trouble("inside"))
    device = devices.of(failing, "Device", zmq.STREAMER, zmq.PULL, zmq.PUSH, name="mill")
    device.start()
    failing.fail.set()
    wait_until(lambda: device.done)
    errors = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert errors == ["mill failed: Trouble: inside"]


def fails_at_once(base: Any) -> Any:
    class Device(base):  # type: ignore[misc]
        def run_device(self) -> None:
            raise Trouble("at once")

    return Device


def fails_with_sockets(base: Any) -> Any:
    class Device(base):  # type: ignore[misc]
        def run_device(self) -> None:
            self._setup_sockets()
            raise Trouble("at once")

    return Device


@pytest.mark.parametrize("derive", [fails_at_once, fails_with_sockets])
def test_start_raises_what_a_subclass_raises_at_once(
    devices: Devices, derive: Any, caplog: pytest.LogCaptureFixture
) -> None:
    device = devices.of(derive, "Proxy", zmq.PULL, zmq.PUSH)
    for _ in range(10):
        with pytest.raises(Trouble, match="at once"):
            device.start()
        assert device.done
        with pytest.raises(Trouble, match="at once"):
            device.join()
    assert not caplog.records


def test_repr(devices: Devices) -> None:
    kind = f"{devices.launcher}Proxy"
    device = devices("Proxy", zmq.PULL, zmq.PUSH, name="depot")
    assert repr(device) == f"<{kind} depot PULL to PUSH, idle>"
    with device:
        assert repr(device) == f"<{kind} depot PULL to PUSH, running>"
    assert repr(device) == f"<{kind} depot PULL to PUSH, ended>"
    assert repr(devices("Proxy", zmq.ROUTER, -1, name="x")) == f"<{kind} x ROUTER to itself, idle>"
    assert repr(devices("Proxy", 999, "y", name="x")) == f"<{kind} x 999 to y, idle>"
    blank = type(device).__new__(type(device))
    assert repr(blank) == f"<{kind} None None to None, idle>"


def test_names(devices: Devices) -> None:
    """They count, whatever the class; and a copy keeps its name, as a spawned process does."""
    first, second, third = (
        devices(kind, zmq.PULL, zmq.PUSH) for kind in ("Proxy", "MonitoredQueue", "Proxy")
    )
    prefix, _, number = first.name.rpartition("-")
    assert prefix == f"{devices.launcher}Proxy"
    assert second.name == f"{devices.launcher}MonitoredQueue-{int(number) + 1}"
    assert third.name == f"{prefix}-{int(number) + 2}"
    assert pickle.loads(pickle.dumps(first)).name == first.name
    with first:
        assert first.launcher.name == first.name
