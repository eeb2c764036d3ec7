"""A start: it raises what prevented it and leaves nothing, and may be made again and again."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
from linecache import getline
from typing import Any, Callable

import pytest
import zmq

import zdev

from ..support import DEADLINE, Background, Network, wait_until
from .background import Devices
from .census import Census, can_bind
from .faulty import Trouble, bad_option, bad_prefix, trouble
from .streams import Stream

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


def closed_context() -> zmq.Context[Any]:
    context = zmq.Context()
    context.term()
    return context


def bad_types(device: Any) -> None:
    device.in_type = device.out_type = zmq.SUB


def no_such_type(device: Any) -> None:
    device.out_type = 999


def draft_type(device: Any) -> None:
    device.out_type = zmq.SERVER


def bad_address(device: Any) -> None:
    device.bind_out("tcp://nowhere:1")


def bad_context_factory(device: Any) -> None:
    device.context_factory = trouble


def no_context(device: Any) -> None:
    device.context_factory = closed_context


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
    if devices.in_this_process:
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
        for _ in range(300):
            device.start()
            assert device.statistics()
            assert device.exception is None
            device._run.stop(None)  # as another thread's stop() would
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


def where(frame: Any) -> tuple[str, int]:
    return frame.f_code.co_filename, frame.f_lineno


def interrupted_at(line: int, function: Callable[[], Any]) -> bool:
    """Call a function, and raise at so many lines of zdev's devices that it runs; tell whether."""
    lines = 0

    def trace(frame: Any, event: str, _: Any) -> Any:
        nonlocal lines
        if "_devices" not in frame.f_code.co_filename or "test" in frame.f_code.co_filename:
            return None
        # Python does not pass on what is raised where an object is deleted.
        if any(f.f_code.co_name == "__del__" for f in (frame, frame.f_back)):
            return None
        # The line of a `with` is traced once more as it is left, before the lock is given back. What
        # is raised there would keep the lock; a signal handler does not come there.
        if event == "line" and not getline(*where(frame)).lstrip().startswith("with "):
            lines += 1
            if lines == line:
                raise Trouble("interrupted")
        return trace

    sys.settrace(trace)
    try:
        function()
    except Trouble:
        return True
    finally:
        sys.settrace(None)
    return False


def test_a_start_may_be_interrupted_anywhere(net: Network, threads: Devices) -> None:
    """As Ctrl-C does: the device has ended, or was not started, or has been started by then."""
    device = threads("Proxy", zmq.PULL, zmq.PUSH)
    device.context_factory = lambda: net.context
    device.bind_in("inproc://in")
    before = set(threading.enumerate())
    line = 1
    while interrupted_at(line, device.start):
        if device._is_running:
            assert device.statistics(), line
            device.stop(timeout=DEADLINE)
        assert set(threading.enumerate()) <= before, line
        line += 1
    assert line > 50
    assert device.statistics().frontend_to_backend.messages_received == 0
    device.stop(timeout=DEADLINE)
