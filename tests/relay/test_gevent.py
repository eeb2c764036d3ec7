"""Relays and functions in programs that use gevent, whatever is patched."""

from __future__ import annotations

import select
from pathlib import Path

import pytest

from ..gevent_programs import Patches, each_way, needs_gevent, printed, run
from ..support import python

each_kind = pytest.mark.parametrize("kind", ["zmq", "zmq.green"])

SOCKETS = """
def pair(bound, connected, name):
    one, other = ours.socket(bound), theirs.socket(connected)
    one.linger = other.linger = 0
    one.bind(name)
    other.connect(name)
    return one, other

ours = (zmq.green if kind == "zmq.green" else zmq).Context()
theirs = zmq.green.Context.shadow(ours.underlying)
frontend, client = pair(zmq.ROUTER, zmq.DEALER, "inproc://clients")
backend, worker = pair(zmq.DEALER, zmq.DEALER, "inproc://workers")
monitor, watcher = pair(zmq.PUSH, zmq.PULL, "inproc://monitor")
control, operator = pair(zmq.REP, zmq.REQ, "inproc://control")

def ask(number, copied=True):
    client.send(b"%d" % number)
    worker.send_multipart(worker.recv_multipart())
    assert client.recv() == b"%d" % number
    if copied:
        assert [watcher.recv_multipart()[-1] for _ in range(2)] == [b"%d" % number] * 2
"""

CLOSED = (
    SOCKETS
    + """
relay = zdev.Relay(frontend, backend, monitor)
task = gevent.spawn(relay.run)
ask(1)
relay.call(monitor.close)
try:
    task.get()
except zmq.ZMQError as error:
    print(error.errno == zmq.ENOTSOCK)
gevent.sleep(0.01)
"""
)


@needs_gevent
def test_a_socket_may_be_closed_while_it_relays(tmp_path: Path, engine: str) -> None:
    done = run(tmp_path, CLOSED, {}, True, engine, kind="zmq.green")
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


FUNCTIONS = (
    SOCKETS
    + """
import contextlib, logging
logging.disable(logging.WARNING)
functions = {
    "proxy": lambda module: module.proxy(frontend, backend, monitor),
    "device": lambda module: module.device(zmq.QUEUE, frontend, backend),
    "monitored_queue": lambda module: module.monitored_queue(frontend, backend, monitor, "", ""),
    "proxy_steerable": lambda module: module.proxy_steerable(frontend, backend, monitor, control),
}
for module in (zdev, green):
    for name, function in functions.items():
        for error in (gevent.GreenletExit(), gevent.Timeout(1)):
            task = gevent.spawn(function, module)
            for number in range(20):
                ask(number, copied=name != "device")
            task.kill(error)
            assert task.dead
            with contextlib.suppress(gevent.Timeout):
                assert task.get() is error
        with gevent.Timeout(0.02, False):
            function(module)
task = gevent.spawn(functions["proxy_steerable"], zdev)
ask(1)
operator.send(b"TERMINATE")
assert operator.recv() == b"" and task.get() == 0
# The sockets are the program's again.
client.send(b"mine")
assert frontend.recv_multipart()[-1] == b"mine"

task = gevent.spawn(functions["proxy"], zdev)
ask(2)
for each in (client, worker, watcher, operator, control):
    each.close()
ended = gevent.get_hub().threadpool.spawn(ours.term)
try:
    task.get()
except zmq.ContextTerminated:
    print("terminated")
for each in (frontend, backend, monitor):
    each.close()
ended.get()
"""
)


@needs_gevent
@each_kind
@each_way
def test_functions(tmp_path: Path, engine: str, patches: Patches, first: bool, kind: str) -> None:
    done = run(tmp_path, FUNCTIONS, patches, first, engine, kind=kind)
    assert (done.returncode, done.stdout) == (0, "terminated\n"), done.stderr


@needs_gevent
def test_functions_on_the_python_loop(tmp_path: Path) -> None:
    done = run(tmp_path, FUNCTIONS, {}, True, "ctypes", kind="zmq.green")
    assert (done.returncode, done.stdout) == (0, "terminated\n"), done.stderr


RELAY = (
    SOCKETS
    + """
relay = zdev.Relay(frontend, backend, monitor)
assert relay.step() == 0
for _ in range(3):
    task = gevent.spawn(relay.run)
    ask(1)
    assert relay.call(lambda: 6) == 6
    assert "running" in repr(relay)
    relay.pause()
    assert relay.paused
    relay.resume()
    ask(2)
    relay.statistics()
    # It waits for the relay's thread, which waits for another task.
    let = []
    gevent.spawn_later(0.02, let.append, 1)
    with others_run():
        relay.call(lambda: [time.monotonic() for _ in iter(lambda: bool(let), True)])
    relay.stop(drain=1)
    task.get()
    assert relay.last_stop.drained
    # A task that is killed leaves the relay as it is, and whose stop it was.
    task = gevent.spawn(relay.run)
    ask(3)
    task.kill()
    assert "idle" in repr(relay)
    with gevent.Timeout(0.02) as timeout:
        try:
            relay.run()
        except gevent.Timeout as caught:
            assert caught is timeout
    relay.stop()
    relay.run()
try:
    relay.step()
    task = gevent.spawn(relay.run)
    ask(4)
    relay.run()
except RuntimeError as error:
    print(error)
task.kill()
"""
)


@needs_gevent
@each_kind
@each_way
def test_a_relay(tmp_path: Path, engine: str, patches: Patches, first: bool, kind: str) -> None:
    done = printed(tmp_path, RELAY, patches, first, engine, kind=kind)
    assert done == "this relay is running already; stop it first\n"


HANDLERS = (
    SOCKETS
    + """
import threading

class Interruption(Exception):
    pass

def handler(number, frame):
    raise Interruption

signal.signal(signal.SIGUSR1, handler)
relay = zdev.Relay(frontend, backend, monitor)

def send(number):
    wait_until(lambda: "running" in repr(relay))
    os.kill(os.getpid(), number)

for number, expected in [(signal.SIGUSR1, Interruption), (signal.SIGINT, KeyboardInterrupt)] * 5:
    gevent.spawn(send, number)
    try:
        relay.run()
    except expected:
        assert "idle" in repr(relay)
    gevent.spawn(relay.run).kill()

# One that comes as a run ends leaves its stop to the next.
class Ending:
    def flush(self):
        signal.raise_signal(signal.SIGUSR1)
        return loop.flush()

    def __getattr__(self, name):
        return getattr(loop, name)

loop, relay._loop = relay._loop, Ending()
relay.stop()
try:
    relay.run()
    assert False, "the handler did not end it"
except Interruption:
    relay._loop = loop
    relay.run()

# A storm, in which each run is interrupted.
calm = False

def storm():
    while not calm:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGINT)
        gevent.sleep(0)

def guarded():
    relay.run()

def inside(number, frame):
    while frame is not None:
        if frame.f_code is guarded.__code__:
            raise Interruption
        frame = frame.f_back

signal.signal(signal.SIGUSR1, inside)
signal.signal(signal.SIGINT, inside)
gevent.spawn(storm)
for _ in range(100):
    try:
        guarded()
    except Interruption:
        pass
calm = True
gevent.sleep(0.01)
assert "idle" in repr(relay)
assert signal.getsignal(signal.SIGINT) is inside
task = gevent.spawn(relay.run)
ask(1)
task.kill()
"""
)


@needs_gevent
@each_way
def test_handlers_that_raise_end_a_run_of_the_main_task(
    tmp_path: Path, engine: str, patches: Patches, first: bool
) -> None:
    assert printed(tmp_path, HANDLERS, patches, first, engine, kind="zmq") == ""


CTRL_C = (
    SOCKETS
    + """
# It meets the main task, which waits for another that relays; that one is not harmed.
relay = zdev.Relay(frontend, backend, monitor)
task = gevent.spawn(relay.run)
ask(1)
ticker.kill()  # or it would meet that
for _ in range(50):
    try:
        gevent.get_hub().threadpool.spawn(os.kill, os.getpid(), signal.SIGINT)
        task.join()
    except KeyboardInterrupt:
        ask(2)
relay.stop()
task.get()
print("over")
"""
)


@needs_gevent
@each_way
def test_ctrl_c_in_the_main_task_leaves_other_tasks_alone(
    tmp_path: Path, engine: str, patches: Patches, first: bool
) -> None:
    done = run(tmp_path, CTRL_C, patches, first, engine, kind="zmq")
    assert (done.returncode, done.stdout) == (0, "over\n"), done.stderr


EXIT = (
    SOCKETS
    + """
task = gevent.spawn(zdev.proxy, frontend, backend, monitor)
ask(1)
print("over")
"""
)


@needs_gevent
@each_way
def test_a_program_may_end_while_a_task_relays(
    tmp_path: Path, engine: str, patches: Patches, first: bool
) -> None:
    done = run(tmp_path, EXIT, patches, first, engine, kind="zmq")
    assert (done.returncode, done.stdout) == (0, "over\n"), done.stderr


OTHER_THREADS = (
    SOCKETS
    + """
from zdev import _threads

relay = zdev.Relay(frontend, backend)
over = []

def runs():
    for _ in range(300):
        relay.run()
        over.append(1)

_threads.start_new_thread(runs, ())
for number in range(300):
    client.send(b"to and fro")
    worker.send_multipart(worker.recv_multipart())
    assert client.recv() == b"to and fro"
    relay.stop()
    while len(over) <= number:
        gevent.sleep(0)
"""
)


@needs_gevent
@each_way
def test_a_thread_without_tasks_relays_between_sockets_of_a_hub(
    tmp_path: Path, patches: Patches, first: bool
) -> None:
    assert printed(tmp_path, OTHER_THREADS, patches, first, kind="zmq.green") == ""


OWN_LOOP = (
    SOCKETS
    + """
from gevent.socket import wait_read

relay = zdev.Relay(frontend, backend, monitor)

def drive():
    while relay.step() is not None:
        wait_read(relay.fileno())

task = gevent.spawn(drive)
for number in range(100):
    ask(number)
relay.stop()
task.get()
"""
)


@needs_gevent
@pytest.mark.skipif(not hasattr(select, "epoll"), reason="this system has no epoll")
@each_way
def test_a_loop_of_gevents_drives_a_relay(tmp_path: Path, patches: Patches, first: bool) -> None:
    assert printed(tmp_path, OWN_LOOP, patches, first, kind="zmq") == ""


FLOOD = """
context = zmq.Context()
ends = [context.socket(zmq.DEALER) for _ in range(2)]
ends[0].bind("inproc://ends")
ends[1].connect("inproc://ends")  # what is in one goes round and round
for end in ends:
    for _ in range(100):
        end.send(b"round")
counts = [0] * 10

def count(number):
    while True:
        gevent.sleep(0)
        counts[number] += 1

monitor = context.socket(zmq.PUB)
relay = zdev.Relay(*ends, monitor)
task = gevent.spawn(relay.run)
tasks = [gevent.spawn(count, number) for number in range(10)]
wait_until(lambda: min(counts) > 1000)
flooded = relay.statistics().frontend_to_backend.messages_sent
wait_until(lambda: relay.statistics().frontend_to_backend.messages_sent > flooded + 10_000)
task.kill()
gevent.killall(tasks)
for end in (*ends, monitor):
    end.close(linger=0)
context.term()
"""


@needs_gevent
@each_way
def test_tasks_run_beside_a_flood(
    tmp_path: Path, engine: str, patches: Patches, first: bool
) -> None:
    assert printed(tmp_path, FLOOD, patches, first, engine) == ""


def test_nobody_pays_who_does_not_use_it() -> None:
    code = """
import sys
import zdev, zdev._devices, zdev.aio
print([name for name in sys.modules if name.partition(".")[0] in ("gevent", "greenlet")])
import zdev._threads, threading, _thread, time, select
assert zdev._threads.sleep is time.sleep and zdev._threads.poll is select.poll
assert type(zdev._threads.waiter()) is type(_thread.allocate_lock())
"""
    done = python(code)
    assert (done.stdout, done.stderr) == ("[]\n", ""), done.stderr


@needs_gevent
def test_the_names_of_zmq_green() -> None:
    code = """
import zmq.green
from zdev import green
assert set(green.__all__) == {"device", "proxy", "proxy_steerable", "monitored_queue"}
context = zmq.green.Context()
echo, client = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
echo.bind("inproc://echo")
client.connect("inproc://echo")
import gevent
task = gevent.spawn(green.device, zmq.QUEUE, isocket=echo, osocket=-1)
client.send(b"hello")
assert client.recv() == b"hello"
task.kill()
client.close(), echo.close(), context.term()
"""
    done = python(code)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
