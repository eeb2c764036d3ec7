"""Many devices in one program: what each takes, and what happens when there is no more of it."""

from __future__ import annotations

import pytest
import zmq

import zdev

from ..support import Network, python, wait_until
from .background import Devices
from .classes import KINDS, ROLES

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

MANY = """
import os, resource, threading, time
import zmq, zdev

MOST = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (MOST, MOST))
context = zmq.Context.instance()
context.max_sockets = 2 * {count} + 10
context.socket(zmq.PULL).close()

def used():
    return len(os.listdir("/dev/fd")), threading.active_count()

def device(kind, number):
    types = (zmq.QUEUE, zmq.PULL, zmq.PUSH) if kind == "Device" else (zmq.PULL, zmq.PUSH)
    made = getattr(zdev, "Thread" + kind)(*types)
    made.bind_in(f"inproc://in-{{number}}")
    made.bind_out(f"inproc://out-{{number}}")
    return made

def started(kind):
    devices = [device(kind, number) for number in range({count})]
    for each in devices:
        each.start()
    return devices

before = used()
devices = started({kind!r})
now = used()
print((now[0] - before[0]) / {count} <= 3, (now[1] - before[1]) / {count})
source, sink = context.socket(zmq.PUSH), context.socket(zmq.PULL)
source.connect("inproc://in-{last}")
sink.connect("inproc://out-{last}")
source.send(b"through the last of them")
print(sink.recv().decode())
source.close(), sink.close()
for each in devices:
    each.stop()
deadline = time.monotonic() + 20
while used()[0] > before[0] and time.monotonic() < deadline:
    time.sleep(0.001)  # libzmq closes the two sockets in its own time
after = used()
print(after[0] <= before[0], after[1] == before[1])
first = device({kind!r}, 0)  # its addresses are free again
first.start()
first.stop()
"""


def many(kind: str, count: int) -> None:
    done = python(MANY.format(kind=kind, count=count, last=count - 1))
    assert done.stdout == "True 1.0\nthrough the last of them\nTrue True\n", done.stderr
    assert done.returncode == 0


@pytest.mark.parametrize("kind", KINDS)
def test_each_takes_three_descriptors(kind: str) -> None:
    """One for each end, and one that wakes it; none for sockets that nobody has wired."""
    many(kind, 20)


def test_more_than_the_usual_limits_allow() -> None:
    """More than 1,024 descriptors, and nearly as many sockets as a context has by default."""
    many("MonitoredQueue", 500)


# Sockets that come later


@pytest.mark.parametrize("verb", ["bind", "connect", "setsockopt"])
def test_a_monitor_that_comes_later(engine: str, net: Network, devices: Devices, verb: str) -> None:
    """It gets copies from then on, also of a message that is parked by then."""
    device = devices("MonitoredQueue", zmq.PULL, zmq.PUSH, zmq.PUSH)
    device.bind_in("tcp://127.0.0.1:*")
    device.bind_out("tcp://127.0.0.1:*")
    watcher = net.socket(zmq.PULL)
    with device:
        source, sink = net.socket(zmq.PUSH), net.socket(zmq.PULL)
        source.connect(device.endpoints["in"][0])
        source.send_multipart([b"a", b"parked"])
        wait_until(lambda: device.statistics().frontend_to_backend.parked)
        assert device.endpoints["mon"] == []
        if verb == "setsockopt":
            device.setsockopt_mon(zmq.SNDHWM, 5)
        if verb == "connect":
            port = watcher.bind_to_random_port("tcp://127.0.0.1")
            device.connect_mon(f"tcp://127.0.0.1:{port}")
        else:
            device.bind_mon("tcp://127.0.0.1:*")
            watcher.connect(device.endpoints["mon"][0])
        sink.connect(device.endpoints["out"][0])
        assert sink.recv_multipart() == [b"a", b"parked"]
        assert watcher.recv_multipart() == [b"in", b"a", b"parked"]
        source.send(b"next")
        assert sink.recv() == b"next"
        assert watcher.recv_multipart() == [b"in", b"next"]
        wait_until(lambda: device.statistics().capture == (2, 0, 0))


def test_a_publisher_that_comes_later(engine: str, net: Network, devices: Devices) -> None:
    """What its subscribers say is read, as if it had been there from the start."""
    device = devices("Proxy", zmq.PULL, zmq.PUSH, zmq.XPUB)
    device.bind_in("tcp://127.0.0.1:*")
    device.bind_out("tcp://127.0.0.1:*")
    with device:
        source, sink = net.socket(zmq.PUSH), net.socket(zmq.PULL)
        source.connect(device.endpoints["in"][0])
        sink.connect(device.endpoints["out"][0])
        port = device.bind_mon_to_random_port("tcp://127.0.0.1")
        watcher = net.socket(zmq.SUB)
        watcher.subscribe(b"")
        watcher.connect(f"tcp://127.0.0.1:{port}")

        def is_subscribed() -> bool:
            source.send(b"x")
            assert sink.recv() == b"x"
            return bool(watcher.poll(0))

        wait_until(is_subscribed)
        assert watcher.recv() == b"x"


def test_a_control_that_comes_later(engine: str, net: Network, devices: Devices) -> None:
    device = devices("ProxySteerable", zmq.PULL, zmq.PUSH, zmq.PUB, zmq.REP)
    device.bind_in("tcp://127.0.0.1:*")
    device.start()
    pilot = net.socket(zmq.REQ)
    port = pilot.bind_to_random_port("tcp://127.0.0.1")
    device.connect_ctrl(f"tcp://127.0.0.1:{port}")
    pilot.send(b"STATISTICS")
    assert len(pilot.recv_multipart()) == 8
    pilot.send(b"TERMINATE")
    device.join()
    assert device.done


def test_what_a_late_socket_refuses(engine: str, devices: Devices) -> None:
    """The error is raised where it is asked for, and the socket can still be wired."""
    device = devices("ProxySteerable", zmq.PULL, zmq.PUSH)
    with device:
        with pytest.raises(zmq.ZMQError, match="mon"):
            device.unbind_mon("tcp://127.0.0.1:1")
        with pytest.raises(zmq.ZMQError, match="SNDHWM"):
            device.setsockopt_mon(zmq.SNDHWM, -5)
        assert device.bind_mon_to_random_port("tcp://127.0.0.1")
        assert device.bind_ctrl_to_random_port("tcp://127.0.0.1")


def test_what_it_says_of_them(devices: Devices, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "zdev")
    device = devices("ProxySteerable", zmq.PULL, zmq.PUSH)
    with device:
        assert "neither bound nor connected: in, out, mon, ctrl" in caplog.text
        assert device.endpoints == {role: [] for role in ROLES["ProxySteerable"]}


def test_a_subclass_has_all_sockets(net: Network) -> None:
    """As in pyzmq, whatever it does with them."""
    kinds = []

    class Mine(zdev.ThreadProxy):
        def _setup_sockets(self):  # type: ignore[no-untyped-def]
            sockets = super()._setup_sockets()
            kinds.extend(socket.type for socket in sockets)
            return sockets

    device = Mine(zmq.PULL, zmq.PUSH)
    device.context_factory = lambda: net.context
    with device:
        assert kinds == [zmq.PULL, zmq.PUSH, zmq.PUB]


# Limits

OUT_OF_DESCRIPTORS = """
import multiprocessing, resource, warnings
warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)
import zmq, zdev
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))
context = zmq.Context.instance()
if {launcher!r} == "Process":
    zdev.ProcessProxy._launch_class = multiprocessing.get_context("fork").Process
devices = []
while True:
    device = zdev.{launcher}Proxy(zmq.PULL, zmq.PUSH)
    devices.append(device)
    try:
        device.start()
    except (OSError, zmq.ZMQError) as error:
        print(error.errno, error)
        break
device = devices.pop()
devices.pop().stop()
while True:  # there is room for one again, when libzmq has closed what those two had
    try:
        device.start()
    except (OSError, zmq.ZMQError):
        continue
    break
for each in devices:
    each.stop()
device.stop()
"""


@pytest.mark.parametrize("launcher", ["Thread", "Process"])
def test_a_start_without_descriptors(launcher: str) -> None:
    done = python(OUT_OF_DESCRIPTORS.format(launcher=launcher))
    assert "this process has its 100 descriptors (RLIMIT_NOFILE)" in done.stdout, done.stderr
    assert "up to 200, by resource.setrlimit" in done.stdout
    assert done.returncode == 0, done.stderr


def test_a_start_without_sockets(net: Network) -> None:
    """libzmq's error for this is the same."""
    context = zmq.Context()
    context.max_sockets = 5
    first, second = (zdev.ThreadProxy(zmq.PULL, zmq.PUSH) for _ in range(2))
    first.context_factory = second.context_factory = lambda: context
    with first:
        filler = [context.socket(zmq.PULL) for _ in range(2)]
        with pytest.raises(zmq.ZMQError, match=r"has its 5 sockets \(ZMQ_MAX_SOCKETS\)"):
            second.start()
        for each in filler:
            each.close()
    context.term()


def test_a_relay_without_descriptors() -> None:
    """Nor can it have one for an event loop; and no standard input may be there to count by."""
    done = python("""
import os, resource, zmq, zdev
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))
context = zmq.Context()
ends = context.socket(zmq.PULL), context.socket(zmq.PUSH)
relay = zdev.Relay(*ends)
os.close(0)  # as a daemon's may be
taken = []
try:
    while True:
        taken.append(os.dup(1))
except OSError:
    pass
for tries in (lambda: zdev.Relay(*ends), relay.fileno, lambda: device.start()):
    device = zdev.ThreadProxy(zmq.PULL, zmq.PUSH)
    try:
        tries()
    except (OSError, zmq.ZMQError) as error:
        print(error)
for each in taken:
    os.close(each)
zdev.Relay(*ends)
assert relay.fileno() >= 0
for end in ends:
    end.close()
context.term()
""")
    told = done.stdout.count("this process has its 100 descriptors (RLIMIT_NOFILE)")
    assert told == 3, done.stdout + done.stderr
    assert done.returncode == 0, done.stderr


def test_a_relay_from_another_thread_hears_signals(engine: str, net: Network) -> None:
    """In the main thread, though no signal can write to what wakes it."""
    done = python(
        """
import os, signal, threading, zmq, zdev
context = zmq.Context()
ends = context.socket(zmq.PULL), context.socket(zmq.PUSH)
made = []
thread = threading.Thread(target=lambda: made.append(zdev.Relay(*ends)))
thread.start(), thread.join()
(relay,) = made
thread = threading.Thread(target=lambda: relay.call(lambda: os.kill(os.getpid(), signal.SIGINT)))
signal.signal(signal.SIGINT, lambda *_: relay.stop())
thread.start()
relay.run()
thread.join()
for end in ends:
    end.close()
context.term()
""",
        ZDEV_ENGINE=engine,
    )
    assert (done.returncode, done.stderr) == (0, "")
