"""Devices in processes: how they are started, and how either end may go."""

from __future__ import annotations

import contextlib
import gc
import importlib
import multiprocessing
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
import zmq

import zdev

from ..support import DEADLINE, PROMPT, Background, Network, python, wait_until
from .background import Devices
from .own_ways import of_pyzmq, own_way

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

ANY = "tcp://127.0.0.1:*"
METHODS = ["fork", "spawn", "forkserver"]


@pytest.fixture
def devices() -> Iterator[Devices]:
    made = Devices("Process")
    yield made
    made.close()


def streamer(devices: Devices, derive: Callable[[Any], Any] = lambda base: base) -> Any:
    device = devices.of(derive, "Device", zmq.STREAMER, zmq.PULL, zmq.PUSH)
    device.bind_in(ANY)
    device.bind_out(ANY)
    return device


def relays(net: Network, device: Any) -> None:
    source, sink = net.socket(zmq.PUSH), net.socket(zmq.PULL)
    source.connect(device.endpoints["in"][0])
    sink.connect(device.endpoints["out"][0])
    source.send_multipart([b"x", b""])
    assert sink.recv_multipart() == [b"x", b""]


def state_of(process: int) -> str:
    """Return the letter that stands for the state of a process: X if there is none."""
    try:
        with open(f"/proc/{process}/stat", encoding="ascii", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def lives(process: int) -> bool:
    """Tell whether a process runs; one that nobody waits for has ended all the same."""
    return state_of(process) not in "ZX"


def freeze(device: Any) -> None:
    os.kill(device.launcher.pid, signal.SIGSTOP)
    wait_until(lambda: state_of(device.launcher.pid) == "T")


# Start methods


@pytest.mark.parametrize("method", METHODS)
def test_launch_class(net: Network, devices: Devices, method: str) -> None:
    device = streamer(devices)
    device._launch_class = getattr(multiprocessing.get_context(method), "Process")  # noqa: B009
    port = device.bind_in_to_random_port("tcp://127.0.0.1")
    for _ in range(2):
        device.start()
        relays(net, device)
        assert device.endpoints["in"][1] == f"tcp://127.0.0.1:{port}"
        assert device.statistics().frontend_to_backend.messages_sent == 1
        device.stop(drain=DEADLINE)
        assert device.launcher.exitcode == 0
    device.bind_out(f"tcp://127.0.0.1:{port}")
    with pytest.raises(zdev.BindError):
        device.start()
    assert device.launcher.exitcode == 1
    assert not multiprocessing.active_children()


SCRIPT = """
import multiprocessing, warnings
import zmq, zdev

if __name__ == "__main__":
    warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)
    multiprocessing.set_start_method({method!r})
    device = zdev.ProcessMonitoredQueue(zmq.PULL, zmq.PUSH, zmq.PUB, "in", "out")
    for role in ("in", "out", "mon"):
        getattr(device, "bind_" + role)("tcp://127.0.0.1:*")
    with device, zmq.Context() as context:
        with context.socket(zmq.PUSH) as source, context.socket(zmq.PULL) as sink:
            source.connect(device.endpoints["in"][0])
            sink.connect(device.endpoints["out"][0])
            source.send(b"x")
            assert sink.recv() == b"x"
    assert device.launcher.exitcode == 0
    print("done")
"""


@pytest.mark.parametrize("method", METHODS)
def test_set_start_method(method: str) -> None:
    done = python(SCRIPT.format(method=method))
    assert (done.stderr, done.stdout, done.returncode) == ("", "done\n", 0)


UNGUARDED = """
import multiprocessing, sys
import zmq, zdev

device = zdev.ProcessProxy(zmq.PULL, zmq.PUSH, name="depot")
device._launch_class = multiprocessing.get_context(sys.argv[1]).Process
try:
    device.start()
except RuntimeError as error:
    if __name__ != "__main__":
        raise
    print(error)
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_main_script_that_is_not_guarded(method: str, tmp_path: Path) -> None:
    """The process cannot import it; and who started it is told what to do."""
    (tmp_path / "script.py").write_text(UNGUARDED)
    done = subprocess.run(
        [sys.executable, "-W", "error", str(tmp_path / "script.py"), method],
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE,
        check=False,
    )
    assert done.stdout == (
        "the process of depot died with exit code 1 as it imported what it needs; if the main "
        'script starts the device, it must do so under if __name__ == "__main__":\n'
    )
    assert done.stderr.count("Traceback") == 1, done.stderr  # the child's
    assert done.returncode == 0


def test_start_in_another_thread(engine: str, net: Network, devices: Devices) -> None:
    device = streamer(devices)
    Background(device.start).join()
    relays(net, device)
    os.kill(device.launcher.pid, signal.SIGTERM)
    device.join()
    assert device.launcher.exitcode == 0


def test_many_start_at_once(engine: str, net: Network, devices: Devices) -> None:
    made = [streamer(devices) for _ in range(4)]
    for user in [Background(device.start) for device in made]:
        user.join()
    # None holds what belongs to another: each end is seen.
    for device in made:
        os.kill(device.launcher.pid, signal.SIGKILL)
        with pytest.raises(RuntimeError, match="exit code -9"):
            device.join()


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="this system has no waitid")
@pytest.mark.parametrize("signalled", [signal.SIGTERM, signal.SIGKILL])
def test_something_else_waits_for_the_process(
    monkeypatch: pytest.MonkeyPatch, devices: Devices, signalled: int
) -> None:
    """As an event loop does that waits for all children, such as gevent's with its subprocesses."""

    def waitid(_kind: int, process: int, _options: int) -> None:
        os.waitpid(process, 0)
        raise ChildProcessError

    monkeypatch.setattr(os, "waitid", waitid)
    device = streamer(devices)
    device.start()
    os.kill(device.launcher.pid, signalled)
    if signalled == signal.SIGTERM:
        device.join()
        assert device.launcher.exitcode == 0
    else:
        with pytest.raises(RuntimeError, match="died, and something else has its exit code"):
            device.join()
        assert device.launcher.exitcode == 255
    assert not device.launcher.is_alive()


def test_a_fork_while_another_thread_imports(engine: str, net: Network, devices: Devices) -> None:
    """The thread that holds a module's lock is not in the child, which imports the module, too."""
    device = streamer(devices)
    device.start()  # what is imported at the first start is imported
    device.stop()
    first = device.launcher
    # Of what the child pickles, and the parent does not while it forks.
    names = [name for name in sys.modules if name.startswith("zdev")]
    locks = [importlib._bootstrap._get_module_lock(name) for name in names]  # type: ignore[attr-defined]
    is_importing, may_end = threading.Event(), threading.Event()

    def imports() -> None:
        for lock in locks:
            lock.acquire()
        try:
            is_importing.set()
            may_end.wait(DEADLINE)
        finally:
            for lock in locks:
                lock.release()

    importer = Background(imports)
    assert is_importing.wait(DEADLINE)
    starter = Background(device.start)
    wait_until(lambda: device.launcher is not first and device.launcher.pid)
    may_end.set()
    importer.join()
    starter.join()
    relays(net, device)


def test_it_can_be_told_by_the_exit_code_whether_it_failed(engine: str, devices: Devices) -> None:
    device = streamer(devices)
    device.start()
    device.stop()
    assert device.launcher.exitcode == 0
    device.setsockopt_in(99_999, 1)
    with pytest.raises(zmq.ZMQError):
        device.start()
    assert device.launcher.exitcode == 1


class OneOfAKindError(Exception):
    """An error that cannot be made anew of its arguments."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} and {other}")


class TwoFacedError(OSError):
    """An error that can."""


@pytest.mark.parametrize(
    ("error", "kind"),
    [(OneOfAKindError("a", "b"), RuntimeError), (TwoFacedError(5), TwoFacedError)],
)
def test_errors_keep_their_type(
    engine: str, devices: Devices, error: Exception, kind: type[Exception]
) -> None:
    def failing(base: Any) -> Any:
        class Device(base):  # type: ignore[misc]
            def run_device(self) -> None:
                raise error

        return Device

    device = streamer(devices, failing)
    with pytest.raises(kind, match=str(error)) as raised, device:
        device.join()
    assert type(raised.value) is kind


# Signals


def park(net: Network, device: Any) -> None:
    source = net.socket(zmq.PUSH)
    source.connect(device.endpoints["in"][0])
    source.send(b"x")
    wait_until(lambda: device.statistics().frontend_to_backend.parked)


def pause(net: Network, device: Any) -> None:
    device.pause()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("state", [relays, park, pause])
def test_signals_end_it_cleanly(
    engine: str, net: Network, devices: Devices, number: int, state: Callable[..., None]
) -> None:
    """Also where the parent has handlers of its own, and an event loop that hears of signals."""
    hears, speaks = socket.socketpair()
    heard: list[int] = []
    with hears, speaks:
        hears.setblocking(False)
        speaks.setblocking(False)
        before = signal.set_wakeup_fd(speaks.fileno())
        previous = signal.signal(number, lambda *_: os._exit(42))
        try:
            device = streamer(devices)
            device.start()
            state(net, device)
            os.kill(device.launcher.pid, number)
            device.join()
        finally:
            signal.signal(number, previous)
            signal.set_wakeup_fd(before)
        assert device.done
        assert device.exception is None
        assert device.launcher.exitcode == 0
        with contextlib.suppress(BlockingIOError):
            heard += hears.recv(100)
        assert number not in heard


@pytest.mark.parametrize("derive", [own_way, of_pyzmq])
@pytest.mark.parametrize("how", ["stop", "SIGTERM", "SIGINT"])
def test_what_a_subclass_runs_ends_too(
    net: Network, devices: Devices, derive: Callable[[Any], Any], how: str
) -> None:
    device = streamer(devices, derive)
    device.start()
    source = net.socket(zmq.PUSH)
    source.connect(device.endpoints["in"][0])
    source.send(b"x")
    if how == "stop":
        device.stop(timeout=DEADLINE)
    else:
        os.kill(device.launcher.pid, getattr(signal, how))
    device.join()
    assert device.launcher.exitcode == 0


# One end goes


def test_killed(engine: str, net: Network, devices: Devices) -> None:
    device = streamer(devices)
    device.start()
    user = Background(device.join)
    os.kill(device.launcher.pid, signal.SIGKILL)
    with pytest.raises(RuntimeError, match="exit code -9"):
        user.join()
    assert device.done
    with pytest.raises(RuntimeError, match="exit code -9"):
        device.join()
    with pytest.raises(RuntimeError, match="ended"):
        device.pause()
    with pytest.raises(RuntimeError, match="counts died with its process"):
        device.statistics()
    device.stop()
    device.start()
    relays(net, device)


def test_killed_while_it_is_asked(engine: str, devices: Devices) -> None:
    device = streamer(devices)
    device.start()
    freeze(device)
    users = [Background(device.statistics), Background(device.bind_in, ANY)]
    wait_until(lambda: len(device._run._link._replies) == 2)
    os.kill(device.launcher.pid, signal.SIGKILL)
    for user in users:
        with pytest.raises(RuntimeError, match=r"ended|ending"):
            user.join()


def test_stop_kills_what_does_not_end(engine: str, devices: Devices) -> None:
    device = streamer(devices)
    device.start()
    freeze(device)
    with pytest.raises(TimeoutError):
        device.stop(timeout=0.05)
    assert device.done
    assert device.launcher.exitcode == -signal.SIGKILL


def test_a_stop_does_not_wait_for_the_link(engine: str, devices: Devices) -> None:
    """Which is full of what was asked of a process that is stopped, and reads nothing."""
    device = streamer(devices)
    device.start()
    freeze(device)
    link = device._run._link
    wire = "in", "setsockopt", (zmq.ROUTING_ID, bytes(255)), {}
    user = Background(lambda: [link.ask("wire", wire) for _ in range(2000)])
    wait_until(lambda: not select.select([], [link.connection], [], 0)[1])
    last = Background(device.setsockopt_in, zmq.RCVHWM, 7)
    with pytest.raises(TimeoutError):
        Background(device.stop, timeout=0.05).join(PROMPT)
    for each in (user, last):
        with contextlib.suppress(RuntimeError):  # it has ended
            each.join()
    assert device.done
    assert device.launcher.exitcode == -signal.SIGKILL


def test_a_signal_handler_may_ask_at_any_moment(
    engine: str, net: Network, devices: Devices
) -> None:
    """Also while its own thread asks for something: no message is broken by another."""
    device = streamer(devices)
    device.start()
    handled = []

    def handle(*_: Any) -> None:
        handled.append(device.statistics())
        signal.setitimer(signal.ITIMER_REAL, 0.001)

    previous = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    try:
        while len(handled) < 50:
            device.setsockopt_in(zmq.ROUTING_ID, bytes(200))
            assert not device.statistics().frontend_to_backend.messages_received
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    relays(net, device)


PARENT = """
import multiprocessing, os, signal, sys, time, warnings
import zmq, zdev

def wait():
    signal.alarm(60)
    while True:
        time.sleep(60)

def fork():
    process = os.fork()
    if not process:
        wait()
    return process

if __name__ == "__main__":
    warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)
    context = zmq.Context()
    others = [fork()]
    devices = []
    for launch in {methods!r}:
        device = zdev.ProcessDevice(zmq.STREAMER, zmq.PULL, zmq.PUSH)
        device._launch_class = multiprocessing.get_context(launch).Process
        device.daemon = {daemon}
        device.bind_in("tcp://127.0.0.1:*")
        device.start()
        devices.append(device)
        others.append(fork())
        source = context.socket(zmq.PUSH)
        source.connect(device.endpoints["in"][0])
        source.send(b"x")
    devices[0].pause()
    other = multiprocessing.get_context("fork").Process(target=wait)
    other.start()
    others.append(other.pid)
    print(*[device.launcher.pid for device in devices], flush=True)
    print(*others, flush=True)
    wait()
"""


@pytest.mark.parametrize("daemon", [True, False])
@pytest.mark.parametrize(
    "methods", [["fork", "fork"], ["spawn", "fork"], ["forkserver", "forkserver"]]
)
def test_its_parent_is_killed(methods: list[str], daemon: bool) -> None:
    """Then it ends, though siblings and other forks live that inherited all there was."""
    script = PARENT.format(methods=methods, daemon=daemon)
    parent = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    devices = [int(pid) for pid in parent.stdout.readline().split()]
    others = [int(pid) for pid in parent.stdout.readline().split()]
    try:
        assert len(devices) == 2
        assert all(map(lives, devices + others))
        parent.kill()
        parent.wait()
        wait_until(lambda: not any(map(lives, devices)))
        assert all(map(lives, others))
    finally:
        parent.stdout.close()
        for other in others:
            os.kill(other, signal.SIGKILL)


STUBBORN_PARENT = """
import multiprocessing, time, warnings
import zmq, zdev

class Stubborn(zdev.ProcessDevice):
    def run_device(self):
        self._setup_sockets()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                time.sleep(60)
            except BaseException:
                pass

warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)
device = Stubborn(zmq.STREAMER, zmq.PULL, zmq.PUSH)
device._launch_class = multiprocessing.get_context("fork").Process
device.start()
print(device.launcher.pid, flush=True)
time.sleep(60)
"""


def test_its_parent_is_killed_and_it_runs_what_does_not_end() -> None:
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", STUBBORN_PARENT], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        device = int(parent.stdout.readline())
        assert lives(device)
        parent.kill()
    wait_until(lambda: not lives(device))


# What a fork inherits


def test_nothing_of_the_parents_context_is_used(
    engine: str, net: Network, devices: Devices
) -> None:
    """It is in use, and the child lets go of all of it."""
    mine = [net.bound(zmq.PULL, "tcp"), net.bound(zmq.PUB, "ipc")]
    mine.append(net.peer(mine[0], zmq.PUSH))
    global_one: zmq.Context[Any] = zmq.Context.instance()
    inherited = [zmq.Context(), global_one.socket(zmq.PUSH)]
    enough = threading.Event()

    def talk() -> None:
        while not enough.is_set():
            mine[2].send(bytes(1000))
            mine[0].recv()

    def collecting(base: Any) -> Any:
        class Device(base):  # type: ignore[misc]
            def _setup_sockets(self) -> Any:
                inherited.clear()
                mine.clear()
                gc.collect()
                assert zmq.Context.instance() is not global_one
                return super()._setup_sockets()

        return Device

    thread = Devices("Thread")
    running = thread("Proxy", zmq.PULL, zmq.PUSH)
    user = Background(talk)
    try:
        with running:
            for _ in range(5):
                device = streamer(devices, collecting)
                with device:
                    relays(net, device)
                assert device.launcher.exitcode == 0
    finally:
        enough.set()
        user.join()
        inherited[1].close()
        inherited[0].term()
        global_one.term()


def test_a_port_of_the_parent_is_free_when_the_parent_leaves_it(
    engine: str, net: Network, devices: Devices
) -> None:
    first, second, child = (
        zdev.ThreadDevice(zmq.STREAMER, zmq.PULL, zmq.PUSH),
        *[streamer(devices) for _ in range(2)],
    )
    first.context_factory = lambda: net.context
    port = first.bind_in_to_random_port("tcp://127.0.0.1")
    held = second.bind_in_to_random_port("tcp://127.0.0.1")
    with child:
        first.start()
        with second, streamer(devices):
            first.stop()
            first.start()  # again, there
            assert first.endpoints["in"] == [f"tcp://127.0.0.1:{port}"]
            first.stop()
        second.start()
        assert f"tcp://127.0.0.1:{held}" in second.endpoints["in"]


@contextlib.contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)  # as for libzmq, or asyncio
        yield listener


@pytest.mark.parametrize("time", ["before the start", "during the start"])
def test_a_listening_socket_of_the_program_may_be_handed_over(
    engine: str, net: Network, devices: Devices, time: str
) -> None:
    """By ZMQ_USE_FD, as socket activation does; though the program polls it too."""

    def binding(base: Any) -> Any:
        class Device(base):  # type: ignore[misc]
            def _setup_sockets(self) -> Any:
                if time == "during the start":
                    self.setsockopt_in(zmq.USE_FD, listener.fileno())
                return super()._setup_sockets()

        return Device

    with listening() as listener, selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        net.bound(zmq.PULL, "tcp")  # with libzmq's own
        device = devices.of(binding, "Device", zmq.STREAMER, zmq.PULL, zmq.PUSH)
        if time == "before the start":
            device.setsockopt_in(zmq.USE_FD, listener.fileno())
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        device.bind_in(address)
        device.bind_out(ANY)
        with device:
            selector.unregister(listener)
            listener.close()
            assert device.endpoints["in"] == [address]
            relays(net, device)


FORKING = """
import os, sys, warnings
import zmq, zdev

warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)
devices = [zdev.ThreadProxy(zmq.PULL, zmq.PUSH), zdev.ProcessProxy(zmq.PULL, zmq.PUSH)]
devices[0].daemon = False
for device in devices:
    device.start()
child = os.fork()
if not child:
    for device in devices:
        device.stop()  # here, it was never started
        try:
            device.join()
        except RuntimeError:
            pass
        else:
            os._exit(2)
    mine = zdev.ThreadProxy(zmq.PULL, zmq.PUSH)
    mine.daemon = False
    mine.start()
    sys.exit(7)
assert os.waitpid(child, 0)[1] >> 8 == 7
for device in devices:
    device.statistics()
    assert not device.done
    device.stop()
print("done")
"""


def test_a_plain_fork_leaves_the_devices_alone() -> None:
    done = python(FORKING)
    assert (done.stderr, done.stdout, done.returncode) == ("", "done\n", 0)


LOGGING = """
import logging, sys, warnings
import zmq, zdev

warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)
logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO)
device = zdev.ProcessProxy(zmq.PULL, zmq.PUSH, name="depot")
with device:
    pass
device.setsockopt_in(99999, 1)
try:
    device.start()
except zmq.ZMQError:
    pass
"""


def test_the_log_is_the_parents() -> None:
    done = python(LOGGING)
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["depot", "relays,"],
        ["depot", "has"],
        ["depot", "failed:"],
        ["depot", "has"],
    ]
    assert (done.stderr, done.returncode) == ("", 0)
