"""Devices in programs that use gevent, whatever is patched, before or after the import of zdev."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ..gevent_programs import Patches, each_patch, each_way, needs_gevent, printed, run

pytestmark = needs_gevent

METHODS = ["fork", "spawn", "forkserver"]
LAUNCHERS = ["Thread", *METHODS]

each_launcher = pytest.mark.parametrize("launcher", LAUNCHERS)

LIFE = """
device = made(launcher, "MonitoredQueue", zmq.ROUTER, zmq.DEALER, zmq.PUB)
device.bind_out("tcp://127.0.0.1:*")
port = device.bind_in_to_random_port("tcp://127.0.0.1")
context = zmq.green.Context()
for _ in range(2):
    device.start()
    client = socket(context, zmq.DEALER, f"tcp://127.0.0.1:{port}")
    worker = socket(context, zmq.DEALER, device.endpoints["out"][0])
    for number in range(20):
        client.send(b"%d" % number)
        worker.send_multipart(worker.recv_multipart())
        assert client.recv() == b"%d" % number
    assert device.statistics().frontend_to_backend.messages_sent == 20
    device.pause()
    device.resume()
    late = device.bind_in_to_random_port("tcp://127.0.0.1")
    device.unbind_in(f"tcp://127.0.0.1:{late}")
    # The drain awaits a reply, which only another task can give.
    client.send(b"late")
    request = worker.recv_multipart()
    gevent.spawn_later(0.05, worker.send_multipart, request)
    with others_run():
        report = device.stop(drain=30)
    assert report.drained and not report.unanswered, report
    assert client.recv() == b"late"
    assert device.done and device.exception is None
    assert getattr(device.launcher, "exitcode", 0) == 0
    client.close()
    worker.close()
context.term()
"""


@each_launcher
@each_way
def test_a_life(tmp_path: Path, engine: str, patches: Patches, first: bool, launcher: str) -> None:
    assert printed(tmp_path, LIFE, patches, first, engine, launcher=launcher) == ""


EXITS = """
device = made(launcher, "Proxy", zmq.PULL, zmq.PUSH)
device.daemon = daemon
device.bind_in("tcp://127.0.0.1:*")
device.start()
import atexit, zdev._devices.running
at_end = lambda: print(device.done, device.exception, zdev._devices.running._running)
multiprocessing.util.Finalize(None, at_end, exitpriority=1)
sys.exit(3)
"""


@pytest.mark.parametrize("daemon", [True, False])
@pytest.mark.parametrize("launcher", ["Thread", "fork"])
@each_way
def test_the_exit_stops_what_runs(
    tmp_path: Path, patches: Patches, first: bool, launcher: str, daemon: bool
) -> None:
    done = run(tmp_path, EXITS, patches, first, launcher=launcher, daemon=daemon)
    assert (done.returncode, done.stdout, done.stderr) == (3, "True None set()\n", "")


PATCHED_AFTER_THE_START = """
device = made(launcher, "Proxy", zmq.PULL, zmq.PUSH)
device.daemon = False
device.start()
from gevent import monkey
monkey.patch_all()
device.pause()
with others_run():
    time.sleep(0.01)
other = made(launcher, "Proxy", zmq.PULL, zmq.PUSH)
other.start()
other.stop()
if stops:
    device.stop()
print("over")
"""


@pytest.mark.parametrize("stops", [True, False])
@pytest.mark.parametrize("launcher", ["Thread", "fork"])
def test_a_device_that_runs_when_all_is_patched(tmp_path: Path, launcher: str, stops: bool) -> None:
    # gevent complains of every thread that was there before.
    done = run(tmp_path, PATCHED_AFTER_THE_START, launcher=launcher, stops=stops)
    assert (done.returncode, done.stdout) == (0, "over\n"), done.stderr


ENDS = """
device = made(launcher, "Proxy", zmq.PULL, zmq.PUSH)
device.bind_in("tcp://127.0.0.1:*")
# The hub of the main thread sees the end too, or is kept from it.
for await_end in (lambda: wait_until(lambda: device.done), lambda: device.stop(timeout=20)) * 2:
    device.start()
    os.kill(device.launcher.pid, signal.SIGTERM)
    await_end()
    print(device.exception, device.launcher.exitcode)
    device.start()
    os.kill(device.launcher.pid, signal.SIGKILL)
    await_end()
    print(device.exception)
"""


@pytest.mark.parametrize("launcher", METHODS)
@each_patch
def test_the_end_of_a_process_is_seen(
    tmp_path: Path, patches: Patches, first: bool, launcher: str
) -> None:
    died = "the process of ProcessProxy-1 died with exit code -9"
    done = run(tmp_path, ENDS, patches, first, launcher=launcher)
    assert (done.returncode, done.stdout) == (0, f"None 0\n{died}\n" * 4), done.stderr


INHERITS = """
import threading

def note(what):
    with open(notes, "a") as file:
        file.write(f"{what} {os.getpid() == parent}\\n")

def sleeps():
    try:
        while True:
            gevent.sleep(0.001)
            note("runs")
    finally:
        note("ends")

class Slow(zdev.ProcessProxy):
    def run_device(self):
        deadline = time.monotonic() + 0.1
        while time.monotonic() < deadline:
            time.sleep(0.01)  # by a hub, where it is patched
        super().run_device()

parent = os.getpid()
sleeper = gevent.spawn(sleeps)
device = Slow(zmq.PULL, zmq.PUSH)
device._launch_class = multiprocessing.get_context("fork").Process
for _ in range(3):
    device.start()
    device.stop()
    assert device.launcher.exitcode == 0
sleeper.kill()
with open(notes) as file:
    lines = set(file.read().splitlines())
assert lines == {"runs True", "ends True"}, lines
"""


@each_way
def test_a_fork_leaves_the_tasks_to_its_parent(
    tmp_path: Path, patches: Patches, first: bool
) -> None:
    notes = str(tmp_path / "notes")
    assert printed(tmp_path, INHERITS, patches, first, notes=notes) == ""


ENDS_BY = """
import contextlib

device = zdev.Proxy(zmq.PULL, zmq.PUSH)
device.bind_in("tcp://127.0.0.1:*")
port = None
for how in ("stop", "kill", "Timeout", "term"):
    context = zmq.green.Context()
    device.context_factory = lambda: context
    task = gevent.spawn(device.start)
    wait_until(lambda: device._is_running and device.endpoints.get("in"))
    assert device.statistics().frontend_to_backend.parked == 0
    if how == "stop":
        device.stop()
    elif how == "kill":
        task.kill()
    elif how == "term":
        gevent.get_hub().threadpool.apply(context.term)
    else:
        task.kill(gevent.Timeout(1))
    with contextlib.suppress(gevent.Timeout):
        task.get()
    assert device.done and device.exception is None
    context.term()
"""


@each_way
def test_a_device_in_the_foreground_ends_by_all_that_ends_a_task(
    tmp_path: Path, engine: str, patches: Patches, first: bool
) -> None:
    done = run(tmp_path, ENDS_BY, patches, first, engine)
    assert done.returncode == 0, done.stderr


SUBCLASSES = """
import threading

class Waits:
    "It relays only once another task lets it."

    def run_device(self):
        while not os.path.exists(flag):
            time.sleep(0.005)
        super().run_device()

class OwnLoop:
    "It relays with nothing of zdev's."

    def run_device(self):
        self._setup_sockets()
        while True:
            time.sleep(0.01)

class Waiting(Waits, zdev.ThreadProxy if launcher == "Thread" else zdev.ProcessProxy):
    _launch_class = threading.Thread if launcher == "Thread" else multiprocessing.Process

class Own(OwnLoop, zdev.ProcessProxy):
    pass

def opened():
    open(flag, "w").close()

device = Waiting(zmq.PULL, zmq.PUSH)
if launcher != "Thread":
    device._launch_class = Own._launch_class = multiprocessing.get_context(launcher).Process
device.bind_in("tcp://127.0.0.1:*")
gevent.spawn_later(0.05, opened)
with others_run():
    device.start()
    assert device.statistics().frontend_to_backend.parked == 0
device.stop()
if launcher != "Thread":
    device = Own(zmq.PULL, zmq.PUSH)
    device.start()
    with others_run():
        device.stop(timeout=20)
    assert device.launcher.exitcode == 0
"""


@pytest.mark.parametrize("launcher", ["Thread", "fork"])
@each_way
def test_subclasses(tmp_path: Path, patches: Patches, first: bool, launcher: str) -> None:
    flag = str(tmp_path / "flag")
    assert printed(tmp_path, SUBCLASSES, patches, first, launcher=launcher, flag=flag) == ""


TOLD = """
import logging

records = []

class Handler(logging.Handler):
    def emit(self, record):
        records.append(record.getMessage())

logging.getLogger("zdev").addHandler(Handler())
came = []

def on_connection(role, event, address):
    # In a thread of zdev's, in which all must be as in any other.
    came.append((role, event, device.statistics().frontend_to_backend.messages_sent))
    time.sleep(0.001)

settings = {"overflow": "drop", "watch_connections": True, "on_connection": on_connection}
device = zdev.ThreadProxy(zmq.PULL, zmq.PUSH, **settings)
device.bind_in("tcp://127.0.0.1:*")
device.start()
context = zmq.green.Context()
source = socket(context, zmq.PUSH, device.endpoints["in"][0])
source.send(b"nobody takes it")
wait_until(lambda: device.connections()["in"].peers == 1)
wait_until(lambda: zmq.EVENT_HANDSHAKE_SUCCEEDED in [event for _, event, _ in came])
wait_until(lambda: device.statistics().frontend_to_backend.overflowed == 1)
wait_until(lambda: any("drops messages" in each for each in records))
assert device.call(lambda: 6) == 6 if hasattr(device, "call") else True
source.close()
device.stop()
context.term()
"""


@each_way
def test_handlers_and_the_log(tmp_path: Path, engine: str, patches: Patches, first: bool) -> None:
    done = run(tmp_path, TOLD, patches, first, engine)
    assert done.returncode == 0, done.stderr


LEAVES = """
import gc

def open_now():
    gc.collect()
    return len(os.listdir("/dev/fd")), len(os.listdir("/proc/self/task"))

device = made(launcher, "Proxy", zmq.PULL, zmq.PUSH)
context = zmq.green.Context()
device.context_factory = (lambda: context) if launcher == "Thread" else zmq.Context
device.bind_in("tcp://127.0.0.1:*")
for run in range(12):
    device.start()
    device.stop()
    if run == 1:
        before = open_now()
wait_until(lambda: open_now() <= before)
context.term()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
@pytest.mark.parametrize("launcher", ["Thread", "fork"])
@each_patch
def test_nothing_is_left(tmp_path: Path, patches: Patches, first: bool, launcher: str) -> None:
    assert printed(tmp_path, LEAVES, patches, first, launcher=launcher) == ""


TOGETHER = """
devices = [made(launcher, "Proxy", zmq.PULL, zmq.PUSH) for _ in range(6)]
for device in devices:
    device.bind_in("tcp://127.0.0.1:*")

def lives(device):
    for _ in range(3):
        device.start()
        device.statistics()
        device.stop()
    return device.exception

tasks = [gevent.spawn(lives, device) for device in devices]
gevent.joinall(tasks, raise_error=True)
assert [task.value for task in tasks] == [None] * 6
"""


@pytest.mark.parametrize("launcher", ["Thread", "fork", "spawn"])
@each_patch
def test_many_tasks_have_devices_at_once(
    tmp_path: Path, patches: Patches, first: bool, launcher: str
) -> None:
    assert printed(tmp_path, TOGETHER, patches, first, launcher=launcher) == ""


INTERRUPTED = """
class Slow(zdev.ThreadProxy):
    def run_device(self):
        while not self._run._stops:
            time.sleep(0.001)
        super().run_device()

def begin(device, how):
    try:
        device.start()
    except BaseException as error:
        how.append(type(error).__name__)
        raise

for error in (gevent.GreenletExit, gevent.Timeout(1)):
    device, how = Slow(zmq.PULL, zmq.PUSH), []
    device.bind_in("tcp://127.0.0.1:*")  # so that its set-up is waited for
    task = gevent.spawn(begin, device, how)
    wait_until(lambda: device._run is not None and device._run.worker is not None)
    gevent.sleep(0.01)
    task.kill(error)
    assert how == [error.__name__ if isinstance(error, type) else type(error).__name__], how
    assert device.done
"""


@each_patch
def test_a_start_that_is_killed_is_undone(tmp_path: Path, patches: Patches, first: bool) -> None:
    done = run(tmp_path, INTERRUPTED, patches, first)
    assert done.returncode == 0, done.stderr


SIGNALS = """
came = []

def handles(*numbers):
    return [gevent.signal_handler(number, came.append, number) for number in numbers]

handlers = handles(signal.SIGINT)
device = made(launcher, "Proxy", zmq.PULL, zmq.PUSH)
device.start()
device.stop()
os.kill(os.getpid(), signal.SIGINT)
wait_until(lambda: came == [signal.SIGINT])

# While the main task relays, another has the event loop take a signal, and the main task goes on.
signal.signal(signal.SIGUSR1, lambda *_: came.append("Python"))
context = zmq.Context()
relay = zdev.Relay(context.socket(zmq.PULL), context.socket(zmq.PUSH))

def other():
    wait_until(lambda: "running" in repr(relay))
    handlers.extend(handles(signal.SIGUSR1))
    os.kill(os.getpid(), signal.SIGUSR1)
    os.kill(os.getpid(), signal.SIGINT)
    wait_until(lambda: len(came) == 3)
    relay.stop()

gevent.spawn(other)
relay.run()
os.kill(os.getpid(), signal.SIGUSR1)
wait_until(lambda: len(came) == 4)
assert "Python" not in came, came
context.destroy(linger=0)
"""


@pytest.mark.parametrize("launcher", ["Thread", "fork"])
@each_way
def test_signals_of_the_hub_stay_its_own(
    tmp_path: Path, patches: Patches, first: bool, launcher: str
) -> None:
    assert printed(tmp_path, SIGNALS, patches, first, launcher=launcher) == ""


AT_ONCE = """
before = [signal.getsignal(number) for number in signal.valid_signals()]
devices = [zdev.Proxy(zmq.PULL, zmq.PUSH) for _ in range(8)]
for _ in range(10):
    tasks = [gevent.spawn(device.start) for device in devices]
    wait_until(lambda: all(device._is_running for device in devices))
    gevent.killall(tasks)
    assert [signal.getsignal(number) for number in signal.valid_signals()] == before
"""


@each_patch
def test_handlers_are_as_they_were_behind_several_ends_at_once(
    tmp_path: Path, patches: Patches, first: bool
) -> None:
    assert printed(tmp_path, AT_ONCE, patches, first) == ""


AWAITED = """
device = made("fork", "Proxy", zmq.PULL, zmq.PUSH)
for _ in range(5):
    device.start()
    task = gevent.spawn(device.launcher.join)
    gevent.sleep(0.01)
    device.stop()
    task.get()
    assert device.launcher.exitcode == 0
"""


@each_patch
def test_a_task_may_wait_for_the_process(tmp_path: Path, patches: Patches, first: bool) -> None:
    assert printed(tmp_path, AWAITED, patches, first) == ""


ELSEWHERE = """
device = made(launcher, "Proxy", zmq.PULL, zmq.PUSH)
device.bind_in("tcp://127.0.0.1:*")
call = gevent.get_hub().threadpool.apply
for start, stop in ((call, call), (call, lambda do: do()), (lambda do: do(), call)) * 2:
    start(device.start)
    assert device.statistics().frontend_to_backend.parked == 0
    stop(device.stop)
    assert device.exception is None
    # A fork of a thread that `threading` does not know fails at its exit, before Python 3.13.
    if sys.version_info >= (3, 13):
        assert getattr(device.launcher, "exitcode", 0) == 0
"""


@each_launcher
@each_way
def test_another_thread_has_it(
    tmp_path: Path, patches: Patches, first: bool, launcher: str
) -> None:
    assert printed(tmp_path, ELSEWHERE, patches, first, launcher=launcher) == ""


EVERYBODY_LOGS = """
import logging

class Handler(logging.Handler):
    def emit(self, record):
        records.append(record.getMessage())
        if len(records) % 50 == 0:
            gevent.sleep(0.001)  # others want the lock meanwhile
        sum(range(3000))

records = []
logging.getLogger().addHandler(Handler())
logging.getLogger().setLevel(logging.INFO)
over = False

def logs():
    while not over:
        logging.info("mine")
        gevent.sleep(0)

tasks = [gevent.spawn(logs) for _ in range(5)]
def lives(device):
    for _ in range(20):
        device.start()
        device.stop()

devices = [zdev.ThreadProxy(zmq.PULL, zmq.PUSH, name=f"device {n}") for n in range(8)]
gevent.joinall([gevent.spawn(lives, device) for device in devices], raise_error=True)
over = True
gevent.joinall(tasks, raise_error=True)
for device in devices:
    told = [record for record in records if record.startswith(f"{device.name} ")]
    assert ["ended" in record for record in told] == [False, True] * 20, told
"""


@pytest.mark.parametrize("first", [True, False])
def test_a_log_that_everybody_writes(tmp_path: Path, first: bool) -> None:
    assert printed(tmp_path, EVERYBODY_LOGS, {}, first) == ""
