"""The testing kit: it finds what is wrong with a device, says so readably, and passes what is right."""

from __future__ import annotations

import contextlib
import doctest
import errno
import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any, Callable

import hypothesis.strategies as st
import pytest
import zmq
from hypothesis import find, given, settings

import zdev
from zdev._contract import WOKEN
from zdev.testing import (
    DeviceError,
    DeviceHarness,
    Inbox,
    ScriptedLibzmq,
    Send,
    Traffic,
    faults,
    harness,
    identities,
    messages,
    no_leaks,
    prefixes,
    socket_pairs,
    traffic,
)
from zdev.testing.leaks import LeakError, end_context, tracked_context
from zdev.testing.model import Type

from .fuzzing import examples
from .support import DEADLINE, available_engines, python
from .test_readme import BLOCKS

Message = list[bytes]
Spoil = Callable[[Iterator[Message]], Iterator[Message]]

SCRIPTABLE = [name for name in available_engines() if name != "pyzmq"]
ROOT = pathlib.Path(zdev.__file__).parent.parent
PULL_PUSH = Traffic(
    zmq.PULL, zmq.PUSH, [Send("c0", [b"first"]), Send("c0", [b"2a", b"2b"]), Send("c0", [b"3"])]
)


class Broker:
    """A device like those that users write, of one direction, and with a fault."""

    def __init__(
        self, spoil: Spoil = iter, prefix: bytes | None = None, swap: bool = False
    ) -> None:
        self.spoil = spoil
        self.prefix = prefix
        self.swap = swap

    def __call__(self, frontend: Any, backend: Any, capture: Any) -> None:
        def source() -> Iterator[Message]:
            while True:
                yield frontend.recv_multipart()

        for message in self.spoil(source()):
            if self.swap:
                message[:2] = message[1], message[0]
            backend.send_multipart(message)
            if capture:
                capture.send_multipart([*([] if self.prefix is None else [self.prefix]), *message])


def drops(source: Iterator[Message]) -> Iterator[Message]:
    yield next(source)
    next(source)
    yield from source


def reorders(source: Iterator[Message]) -> Iterator[Message]:
    first = next(source)
    yield next(source)
    yield first
    yield from source


def merges(source: Iterator[Message]) -> Iterator[Message]:
    yield next(source) + next(source)
    yield from source


def splits(source: Iterator[Message]) -> Iterator[Message]:
    for message in source:
        yield from ([frame] for frame in message)


def duplicates(source: Iterator[Message]) -> Iterator[Message]:
    for message in source:
        yield message
        yield message


def alters(source: Iterator[Message]) -> Iterator[Message]:
    yield next(source)
    yield [*next(source)[:-1], b"altered" * 100]
    yield from source


def keeps(source: Iterator[Message]) -> Iterator[Message]:
    yield next(source)
    for _ in source:
        pass


def raises(source: Iterator[Message]) -> Iterator[Message]:
    yield next(source)
    raise ArithmeticError("spoilt")


def ends(source: Iterator[Message]) -> Iterator[Message]:
    yield next(source)


WRONG = {
    "drops": (
        Broker(drops),
        """\
w0 received a wrong message, first at frame 0:
           received  expected from c0
! frame 0  b'3'      b'2a'
  frame 1  -         b'2b'
It is a later one of c0: one before it was lost or overtaken.""",
    ),
    "reorders": (
        Broker(reorders),
        """\
w0 received a wrong message, first at frame 0:
           received  expected from c0
! frame 0  b'2a'     b'first'
  frame 1  b'2b'     -
It is a later one of c0: one before it was lost or overtaken.""",
    ),
    "merges": (
        Broker(merges),
        """\
w0 received a wrong message, first at frame 1:
           received  expected from c0
  frame 0  b'first'  b'first'
! frame 1  b'2a'     -
  frame 2  b'2b'     -""",
    ),
    "splits": (
        Broker(splits),
        """\
w0 received a wrong message, first at frame 1:
           received  expected from c0
  frame 0  b'2a'     b'2a'
! frame 1  -         b'2b'""",
    ),
    "duplicates": (
        Broker(duplicates),
        """\
w0 received a wrong message, first at frame 0:
           received  expected from c0
! frame 0  b'first'  b'2a'
  frame 1  -         b'2b'
The same has come before.""",
    ),
    "alters": (
        Broker(alters),
        """\
w0 received a wrong message, first at frame 1:
           received                             expected from c0
  frame 0  b'2a'                                b'2a'
! frame 1  b'alteredalteredaltere'... (700 bytes)  b'2b'""",
    ),
    "prefix": (
        Broker(prefix=b"front"),
        """\
the capture received a wrong message, first at frame 0:
           received  expected from c0
! frame 0  b'front'  b'in'
  frame 1  b'first'  b'first'""",
    ),
    "keeps": (
        Broker(keeps, prefix=b"in"),
        """\
the device does not go on: nothing has come for 0.3 s
Not received:
  w0 from c0: [b'2a', b'2b']
  w0 from c1: [b'the end of c1']
  the capture from c0: [b'in', b'2a', b'2b']
  the capture from c1: [b'in', b'the end of c1']""",
    ),
    "raises": (
        Broker(raises),
        """\
the device raised ArithmeticError: spoilt before its context was terminated
Not received:
  w0 from c0: [b'2a', b'2b']""",
    ),
    "ends": (
        Broker(ends),
        """\
the device returned before its context was terminated
Not received:
  w0 from c0: [b'2a', b'2b']""",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_reported(name: str) -> None:
    """And nothing is left behind."""
    device, report = WRONG[name]
    captured = device.prefix is not None
    with no_leaks(), pytest.raises(DeviceError) as raised:
        check(device, PULL_PUSH, capture=captured, prefixes=(b"in", None), timeout=0.3)
    assert re.sub(" +", " ", str(raised.value)).startswith(re.sub(" +", " ", report))
    assert isinstance(raised.value.__cause__, ArithmeticError) == (name == "raises")


def check(device: Any, sent: Traffic, **options: Any) -> None:
    with DeviceHarness(device, sent, **options) as made:
        made.check()


def test_a_device_that_forgets_to_swap() -> None:
    sent = Traffic(zmq.ROUTER, zmq.ROUTER, [Send("c0", [b"w1", b"body"])])
    with no_leaks(), pytest.raises(DeviceError, match=r"\n  w1 from c0: \[b'c0', b'body'\]"):
        check(Broker(), sent, capture=False, swap=True, timeout=0.3)


def test_a_device_that_swaps_needlessly() -> None:
    with no_leaks(), pytest.raises(DeviceError, match=r"frame 0 +b'2b' +b'2a'"):
        check(Broker(swap_two), PULL_PUSH, capture=False)


def swap_two(source: Iterator[Message]) -> Iterator[Message]:
    for message in source:
        yield message[::-1]


@pytest.mark.parametrize(
    ("relays", "report"),
    [(True, "the device did not end within 0.3 s"), (False, "nothing has come for 0.3 s")],
)
def test_a_device_that_never_ends(relays: bool, report: str) -> None:
    """It cannot be ended, but it is told, and nothing waits for it."""
    gone = threading.Event()

    def device(frontend: Any, backend: Any, _: Any) -> None:
        if relays:
            with contextlib.suppress(zmq.ContextTerminated):
                Broker()(frontend, backend, None)
        gone.wait(DEADLINE)

    with no_leaks():
        made = DeviceHarness(device, PULL_PUSH, capture=False, timeout=0.3)
        with pytest.raises(DeviceError, match=re.escape(report)), made:
            made.check()
        gone.set()
        assert made._thread
        assert end_context(made.context, {made._thread}, DEADLINE)
        del made


@pytest.mark.parametrize("end", ["term", "destroy"])
def test_a_device_that_ends_its_context(end: str) -> None:
    def broker(frontend: Any, backend: Any) -> None:
        try:
            frontend.recv()
            raise ZeroDivisionError("the reason")
        finally:
            frontend.close()
            backend.close()
            getattr(frontend.context, end)()

    made = DeviceHarness(lambda f, b, _: broker(f, b), PULL_PUSH, capture=False)
    with pytest.raises(DeviceError, match="raised ZeroDivisionError: the reason"), made:
        made.check()
    made = DeviceHarness(lambda f, b, _: f.context.destroy(), PULL_PUSH, capture=False)
    with pytest.raises(DeviceError, match=r"the device (terminated|returned)"), made:
        made.check()


def test_a_failure_of_the_test_itself_comes_through() -> None:
    made = DeviceHarness(Broker(), PULL_PUSH, capture=False)
    with no_leaks(), pytest.raises(ZeroDivisionError), made:
        raise ZeroDivisionError


def test_a_harness_can_check_again(engine: str) -> None:
    with DeviceHarness("Relay", Traffic(zmq.XSUB, zmq.XPUB, [Send("c1", [b"news"])])) as made:
        made.check()
        made.check()
        assert made.inboxes["w0"].received.count([b"news"]) == 2


@pytest.mark.parametrize(
    ("wrong", "error", "match"),
    [
        (lambda: DeviceHarness("ProcessProxy", PULL_PUSH), ValueError, "process"),
        (lambda: DeviceHarness("zmq.devices.ProcessDevice", PULL_PUSH), ValueError, "process"),
        (lambda: DeviceHarness(dict, PULL_PUSH), TypeError, "neither"),
        (
            lambda: DeviceHarness(zdev.ThreadProxy(zmq.PULL, zmq.PUSH), PULL_PUSH),
            TypeError,
            "called",
        ),  # type: ignore[arg-type]
        (lambda: ScriptedLibzmq().engine("pyzmq"), ValueError, "no engine that calls libzmq"),
        (lambda: DeviceHarness("nothing", PULL_PUSH), AttributeError, "nothing"),
        (lambda: Traffic(zmq.REQ, zmq.REP, []), ValueError, "REQ-REP, but for PULL-PUSH"),
        (lambda: Traffic(zmq.PULL, zmq.PUSH, [], clients=[b"a"]), ValueError, "2 are wanted"),
        (lambda: traffic(zmq.PULL, zmq.PUSH, single=True), ValueError, "must be a ROUTER"),
        (lambda: traffic(zmq.PULL), TypeError, "both"),
    ],
)
def test_misuse(wrong: Callable[[], Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        wrong()


# Devices that are right

FUNCTIONS = ["proxy", "device", "proxy_steerable", "monitored_queue", "Relay"]
CLASSES = ["Device", "Proxy", "ProxySteerable", "MonitoredQueue"]
ZDEV = [*FUNCTIONS, *CLASSES, *(f"Thread{name}" for name in CLASSES)]


@pytest.mark.parametrize("device", ZDEV)
def test_zdev(engine: str, device: str, zdev_harness: Any) -> None:
    @given(traffic())
    @examples(5)
    def run(sent: Traffic) -> None:
        zdev_harness(device, sent)

    run()


@pytest.mark.parametrize(
    "device",
    [
        *("proxy", "device", "proxy_steerable", "devices.monitored_queue", "devices.Proxy"),
        *("devices.ThreadDevice", "devices.ThreadProxy", "devices.ThreadMonitoredQueue"),
        "devices.ThreadProxySteerable",
    ],
)
@pytest.mark.parametrize("ends", [(zmq.PULL, zmq.PUSH), (zmq.ROUTER, zmq.DEALER)])
def test_pyzmq(device: str, ends: tuple[int, int], zdev_harness: Any) -> None:
    @given(traffic(*ends))
    @examples(5)
    def run(sent: Traffic) -> None:
        zdev_harness(f"zmq.{device}", sent)

    run()


@pytest.mark.parametrize("limit", [1, 2])
def test_a_users_own_broker(limit: int, zdev_harness: Any) -> None:
    """Also with queues that are full most of the time."""

    @given(traffic(zmq.PULL, zmq.PUSH))
    @examples(10)
    def run(sent: Traffic) -> None:
        zdev_harness(Broker(prefix=b"in"), sent, prefixes=(b"in", b"out"), hwms=[limit])

    run()


# The README's example


def run_pytest(tmp_path: pathlib.Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run a file of tests as a user does."""
    (tmp_path / "test_it.py").write_text(text, encoding="utf-8")
    environment = {key: value for key, value in os.environ.items() if key != "PYTEST_ADDOPTS"}
    # Where zdev is installed, pytest finds the plugin by itself.
    command = [sys.executable, "-m", "pytest", "-p", "pytest_zdev", "-W", "error", "test_it.py"]
    return subprocess.run(
        command,
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(ROOT), "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=4 * DEADLINE,
        check=False,
    )


(EXAMPLE,) = (block for block in BLOCKS if "zdev_harness" in block)


def test_the_example_is_short() -> None:
    assert len([line for line in EXAMPLE.splitlines() if line]) <= 10


@pytest.mark.skipif(
    sys.implementation.name != "cpython",
    reason="pyzmq's monitored queue for PyPy is another one, without this fault",
)
def test_the_example_finds_what_pyzmq_merges(tmp_path: pathlib.Path) -> None:
    """An expected failure: if this no longer fails, pyzmq has mended its monitored queue."""
    assert "from zmq.devices import monitored_queue" in EXAMPLE
    done = run_pytest(tmp_path, EXAMPLE)
    assert done.returncode == 1, done.stdout
    assert "sent=Traffic(zmq.ROUTER, zmq.ROUTER, [Send('c0', [b'w0'])])," in done.stdout
    shown = [line[1:].split() for line in done.stdout.splitlines() if line.startswith("E  ")]
    # Of what c0 sent, and of the next message, which is of c1, it made one.
    report = shown[shown.index(["received", "expected", "from", "c0"]) :][1:5]
    assert [" ".join(row) for row in report] == [
        "frame 0 b'c0' b'c0'",
        "! frame 1 b'c1' -",
        "frame 2 b'w0' -",
        "frame 3 b'the end of c1' -",
    ]


def test_the_example_passes_with_zdev(tmp_path: pathlib.Path) -> None:
    done = run_pytest(tmp_path, EXAMPLE.replace("zmq.devices import", "zdev import"))
    assert done.returncode == 0, done.stdout


# The fixtures


def test_the_context_of_the_fixture(zdev_context: Any) -> None:
    with zdev_context.socket(zmq.PUSH) as push, zdev_context.socket(zmq.PULL) as pull:
        push.bind("inproc://here")
        pull.connect("inproc://here")
        push.send(b"x" * 2**20, copy=False)
        assert len(pull.recv()) == 2**20


def test_the_fixture_may_be_ended_early(zdev_context: Any) -> None:
    thread = threading.Thread(target=end_of, args=(zdev_context,))
    thread.start()
    zdev_context.term()
    thread.join(DEADLINE)


def end_of(context: Any) -> None:
    with context.socket(zmq.PULL) as socket, pytest.raises(zmq.ContextTerminated):
        socket.recv()


LEAKS = """
import os, threading, zmq, zdev

def test_socket(zdev_context):
    zdev_context.socket(zmq.PUSH)

def test_device(zdev_context):
    ends = [zdev_context.socket(kind) for kind in (zmq.PULL, zmq.PUSH)]
    threading.Thread(target=run, args=ends, name="left").start()

def run(*ends):
    try:
        zdev.proxy(*ends)
    except zmq.ContextTerminated:
        pass

def test_clean(zdev_context):
    zdev_context.socket(zmq.PUSH).close()
"""


def test_leaks_fail_a_test(tmp_path: pathlib.Path) -> None:
    done = run_pytest(tmp_path, LEAKS)
    assert "3 passed, 2 errors" in done.stdout, done.stdout
    assert re.search(r"LeakError: left behind:\s+E\s+socket <.*zmq.PUSH", done.stdout)
    assert re.search(r"E\s+thread <Thread\(left", done.stdout)


def test_each_kind_of_leak() -> None:
    gone = threading.Event()
    thread = threading.Thread(target=gone.wait, args=(DEADLINE,), name="left")
    leak = pytest.raises(LeakError, match=r"left behind:\n  thread <Thread\(left")
    with leak, tracked_context(patience=0.1) as context:
        thread.start()
    gone.set()
    thread.join()
    context.term()
    with pytest.raises(LeakError, match=r"left behind:\n  descriptor \d+ "), no_leaks(0.1):
        opened = os.open("/dev/null", os.O_RDONLY)
    os.close(opened)
    with pytest.raises(LeakError, match=r"left behind:\n  socket <"), tracked_context() as context:
        context.socket(zmq.PUSH)
    assert context.closed


# What it imports


def test_the_plugin_is_light() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import pytest_zdev; "
        "assert not {'zmq', 'zdev', 'hypothesis'} & {*sys.modules}"
    )
    done = python(code)
    assert (done.returncode, done.stderr) == (0, "")


def test_zdev_needs_neither_hypothesis_nor_pytest() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); "
        "sys.modules.update(hypothesis=None, pytest=None); import zdev; import zdev.testing"
    )
    error = python(code).stderr.splitlines()[-1]
    assert error.startswith("ModuleNotFoundError: zdev.testing needs Hypothesis, which is not")
    assert error.endswith("pip install 'zmq-devices[testing]'")


def test_the_model_needs_no_socket() -> None:
    specification = importlib.util.find_spec("zdev.testing.model")
    assert specification
    code = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('model', {specification.origin!r})\n"
        "sys.modules['model'] = model = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(model)\n"
        "assert not {'zmq', 'zdev', 'ctypes', 'cffi'} & {*sys.modules}\n"
    )
    done = python(code)
    assert (done.returncode, done.stderr) == (0, "")


# Strategies

SMALL = settings(database=None)


@pytest.mark.parametrize(
    ("strategy", "condition", "smallest"),
    [
        (messages(), lambda _: True, [b""]),
        (messages(), lambda m: len(m) > 2, [b"", b"", b""]),
        (messages(), lambda m: any(len(frame) > 33 for frame in m), [(b"0.0 " * 9)[:34]]),
        (identities(), lambda _: True, b"a"),
        (prefixes(), lambda p: p is not None, b"in"),
        (socket_pairs(), lambda _: True, (zmq.PULL, zmq.PUSH)),
        (faults(), lambda f: len(f) > 1, {0: errno.EINTR, 1: errno.EINTR}),
        (faults(errors=[errno.ENOMEM]), lambda f: f, {0: errno.ENOMEM}),
        (traffic(), lambda _: True, Traffic(zmq.PULL, zmq.PUSH, [])),
    ],
)
def test_shrinking(strategy: Any, condition: Any, smallest: Any) -> None:
    assert find(strategy, condition, settings=SMALL) == smallest


def drops_three_frames(source: Iterator[Message]) -> Iterator[Message]:
    return (message for message in source if len(message) != 3)


def merges_what_is_empty(source: Iterator[Message]) -> Iterator[Message]:
    for message in source:
        yield [*message, *next(source)] if message == [b""] else message


@pytest.mark.parametrize(
    ("spoil", "smallest"),
    [
        (splits, [Send("c0", [b"", b""])]),
        (drops_three_frames, [Send("c0", [b"", b"", b""])]),
        (merges_what_is_empty, [Send("c0", [b""])]),
    ],
)
def test_what_is_found_is_short(
    spoil: Spoil, smallest: list[Send], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "MOMENT", 0)  # that there is a difference matters, not which

    def fails(sent: Traffic) -> bool:
        try:
            check(Broker(spoil), sent, capture=False)
        except DeviceError:
            return True
        return False

    assert find(traffic(zmq.PULL, zmq.PUSH), fails, settings=SMALL).sends == smallest


@given(traffic())
@examples(50)
def test_traffic_can_be_pasted(sent: Traffic) -> None:
    assert eval(repr(sent), {"zmq": zmq, "Send": Send, "Traffic": Traffic}) == sent


@pytest.mark.parametrize("name", SCRIPTABLE)
@given(failing=faults(), messages=st.lists(messages(), max_size=3))
@examples(20)
def test_a_scripted_libzmq(name: str, failing: dict[int, int], messages: list[Message]) -> None:
    libzmq = ScriptedLibzmq()
    frontend = libzmq.socket(Type.PULL, "frontend")
    backend = libzmq.socket(Type.PUSH, "backend")
    for message in messages:
        libzmq.script.append(partial(frontend.deliver, message))
    libzmq.faults.update(failing)
    loop = libzmq.loop(name, frontend, backend)
    assert libzmq.run(loop) == WOKEN
    libzmq.check()
    lost = loop.statistics().frontend_to_backend.dropped
    assert len(backend.arrived) == len(messages) - lost
    assert lost or backend.arrived == messages


@pytest.mark.skipif("ctypes" not in SCRIPTABLE, reason="the example names the engine ctypes")
def test_the_example_of_the_scripted_libzmq() -> None:
    names = {"ScriptedLibzmq": ScriptedLibzmq}
    (example,) = doctest.DocTestFinder(recurse=False).find(ScriptedLibzmq, "it", globs=names)
    assert doctest.DocTestRunner().run(example) == (0, 9)


def test_an_inbox_keeps_each_order() -> None:
    def takes(*messages: bytes, gaps: bool = False) -> bool:
        inbox = Inbox("w0", gaps=gaps)
        for sender, frame in (("c0", b"a"), ("c0", b"b"), ("c1", b"c")):
            inbox.expect(sender, [frame])
        try:
            for message in messages:
                inbox.receive([message])
        except DeviceError:
            return False
        return inbox.has_all()

    assert takes(b"a", b"c", b"b")
    assert not takes(b"b", b"c", b"a")
    assert not takes(b"a", b"b")
    assert not takes(b"a", b"b", b"c", b"c")
    assert takes(b"c", b"b", gaps=True)
    assert not takes(b"b", b"a", gaps=True)


def test_an_inbox_bears_messages_that_are_alike() -> None:
    inbox = Inbox("w0")
    for sender, last in (("c0", b"0"), ("c1", b"1")):
        inbox.expect(sender, [b""])
        inbox.expect(sender, [last])
    for frame in (b"", b"1", b""):
        inbox.receive([frame])
    assert inbox.has_all("c1")
    assert not inbox.has_all("c0")
    assert inbox.missing() == "  w0 from c0: [b'0']"
