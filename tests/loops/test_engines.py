"""The choice of the engine, and what it says when one cannot be had."""

from __future__ import annotations

import contextlib
import itertools
import os
import platform
import subprocess
from pathlib import Path

import pytest
import zmq

import zdev
from zdev import _engines, _libzmq

from ..support import DEADLINE, Network, available_engines, python, running, wait_until

PYPY = platform.python_implementation() == "PyPy"
ENGINES = (
    ["cffi", "cffi-abi", "ctypes", "pyzmq"] if PYPY else ["cffi", "ctypes", "cffi-abi", "pyzmq"]
)
PACKAGE = Path(zdev.__file__).parent

SHOW = "import zdev; print(zdev.engine)"
LOAD = "from zdev import _engines; _engines.current()"
# In python(), warnings are errors: one of the import would hide what is raised later.
QUIET = "import warnings; warnings.simplefilter('ignore', RuntimeWarning)"
# Ways to make an engine, or what it needs, missing; each to be run before zdev is imported.
NO_EXTENSION = "import sys; sys.modules['zdev._engines._c'] = None"
# ... but for pyzmq itself, which on PyPy is made with cffi
NO_CFFI = "import sys, zmq; sys.modules['cffi'] = None"
NO_CFFI_AT_ALL = "import sys; sys.modules['cffi'] = sys.modules['_cffi_backend'] = None"
NO_CTYPES = "import sys; sys.modules['zdev._engines.via_ctypes'] = None"
# pyzmq's extension is taken for another file: as if its libzmq hid its symbols, or it had gone
EXTENSION = "import sys, zmq.backend; name = zmq.backend.Socket.__module__; " + (
    "name = 'zmq.backend.cffi._cffi'; " if PYPY else ""
)
HIDDEN = EXTENSION + "sys.modules[name].__file__ = 'libc.so.6'"
GONE = EXTENSION + "sys.modules[name].__file__ = '/nonexistent/zmq.so'"
NAMELESS = EXTENSION + "sys.modules[name].__file__ = None"
OLD = "import zmq; zmq.zmq_version_info = lambda: (4, 0, 5); zmq.zmq_version = lambda: '4.0.5'"


def chosen(run: subprocess.CompletedProcess[str]) -> str:
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout.strip()


def complaint(run: subprocess.CompletedProcess[str]) -> str:
    """Return the last line of the one traceback."""
    assert run.returncode == 1
    assert run.stdout == ""
    assert run.stderr.count("Traceback") == 1, "what it came of is noise"
    return run.stderr.strip().splitlines()[-1]


# The choice


def test_all_engines_are_tested_where_it_counts() -> None:
    """A user's machine may lack some; the gate's may not."""
    available = available_engines()
    assert set(available) <= set(ENGINES)
    assert "pyzmq" in available
    if os.environ.get("CI"):
        assert available == ENGINES


def test_the_order_is_that_of_speed() -> None:
    assert list(_engines.NAMES) == ENGINES


def test_an_engine_is_loaded_once() -> None:
    for name in available_engines():
        assert _engines.load(name) is _engines.load(name)
        assert _engines.load(name).name == name


def test_the_best_is_chosen() -> None:
    best = available_engines()[0]
    assert chosen(python(SHOW)) == best
    assert chosen(python(SHOW, ZDEV_ENGINE="")) == best


ROUNDTRIP = """
import zmq, zdev, threading
context = zmq.Context()
front, back = context.socket(zmq.REP), context.socket(zmq.REQ)
client, worker = context.socket(zmq.REQ), context.socket(zmq.REP)
front.bind("inproc://front"); back.bind("inproc://back")
client.connect("inproc://front"); worker.connect("inproc://back")
relay = zdev.Relay(front, back)
thread = threading.Thread(target=relay.run)
thread.start()
client.send(b"request"); worker.recv(); worker.send(b"reply")
assert client.recv() == b"reply"
relay.stop()
thread.join()
context.destroy(linger=0)
print(zdev.engine)
"""


@pytest.mark.parametrize("name", available_engines())
def test_each_can_be_forced(name: str) -> None:
    assert chosen(python(ROUNDTRIP, ZDEV_ENGINE=name)) == name


@pytest.mark.parametrize("name", ["nonsense", "CFFI", "cffi,ctypes"])
def test_no_other_can_be_forced(name: str) -> None:
    said = complaint(python(f"{QUIET}\n{SHOW}", ZDEV_ENGINE=name))
    assert said.startswith("AttributeError: zdev.engine: ")
    assert f"ZDEV_ENGINE={name} cannot be had: there is no engine {name!r}." in said
    assert f"The engines are {', '.join(ENGINES)}; without ZDEV_ENGINE" in said


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ([NO_EXTENSION], ENGINES[1]),
        ([NO_CFFI], "cffi"),
        ([NO_EXTENSION, NO_CFFI], "ctypes"),
        ([NO_EXTENSION, NO_CTYPES], "cffi-abi"),
        ([NO_EXTENSION, NO_CFFI, NO_CTYPES], "pyzmq"),
        ([HIDDEN], "pyzmq"),
        ([GONE], "pyzmq"),
        ([NAMELESS], "pyzmq"),
        ([OLD], "pyzmq"),
        pytest.param(
            [NO_CFFI_AT_ALL],
            "ctypes",
            marks=pytest.mark.skipif(PYPY, reason="PyPy's cffi is part of it, and pyzmq needs it"),
        ),
    ],
)
def test_the_next_best_is_chosen(missing: list[str], expected: str) -> None:
    assert chosen(python("\n".join([*missing, ROUNDTRIP]))) == expected


@pytest.mark.parametrize(
    ("missing", "forced", "words"),
    [
        (NO_EXTENSION, "cffi", "extension is missing; reinstall zmq-devices with a C compiler"),
        (NO_CFFI, "cffi-abi", "the package cffi is missing; run pip install cffi"),
        (HIDDEN, "cffi", "does not lead to zmq_errno: its libzmq hides it"),
        (HIDDEN, "ctypes", "does not lead to zmq_errno: its libzmq hides it"),
        (GONE, "cffi-abi", "extension /nonexistent/zmq.so cannot be opened"),
        (NAMELESS, "cffi", "names no file"),
        (OLD, "ctypes", "libzmq 4.0.5 is too old: the loop needs 4.1; upgrade pyzmq"),
    ],
)
def test_why_one_cannot_be_forced(missing: str, forced: str, words: str) -> None:
    said = complaint(python(f"{QUIET}\n{missing}\n{LOAD}", ZDEV_ENGINE=forced))
    assert said.startswith(f"zdev._engines.EngineUnavailableError: ZDEV_ENGINE={forced} cannot be")
    assert words in said
    assert ", ".join(ENGINES) in said


def test_the_pyzmq_engine_needs_nothing() -> None:
    missing = [NO_EXTENSION, NO_CFFI, NO_CTYPES, HIDDEN, ROUNDTRIP]
    assert chosen(python("\n".join(missing), ZDEV_ENGINE="pyzmq")) == "pyzmq"


def test_an_import_says_why_the_forced_engine_is_missing() -> None:
    code = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import zdev
(warning,) = caught
assert warning.category is RuntimeWarning
assert warning.filename == "<string>", "it speaks of zdev's file, not of the importing one"
print(warning.message)
"""
    said = chosen(python(code, ZDEV_ENGINE="nonsense"))
    assert said.startswith("ZDEV_ENGINE=nonsense cannot be had: there is no engine 'nonsense'.")


def test_without_an_engine_nothing_relays() -> None:
    code = f"""
{QUIET}
import zdev, zmq
context = zmq.Context()
sockets = context.socket(zmq.PULL), context.socket(zmq.PUSH)
device = zdev.ThreadProxy(zmq.PULL, zmq.PUSH)
uses = lambda: zdev.Relay(*sockets), lambda: zdev.proxy(*sockets), device.start
for use in uses:
    try:
        use()
    except zdev.EngineUnavailableError as error:
        print(error)
context.destroy(linger=0)
"""
    run = python(code, ZDEV_ENGINE="nonsense")
    assert (run.returncode, run.stderr) == (0, "")
    lines = run.stdout.splitlines()
    assert len(lines) == 3
    assert len(set(lines)) == 1
    assert lines[0].startswith("ZDEV_ENGINE=nonsense cannot be had: ")


def test_without_an_engine_there_is_no_such_attribute() -> None:
    """Any other error than AttributeError would end whoever looks what a module has."""
    code = f"""
{QUIET}
import contextlib, io, zdev
assert not hasattr(zdev, "engine")
assert getattr(zdev, "engine", None) is None
with contextlib.redirect_stdout(io.StringIO()) as shown:
    help(zdev)
print("ThreadProxy" in shown.getvalue())
"""
    assert chosen(python(code, ZDEV_ENGINE="nonsense")) == "True"


@pytest.mark.parametrize("name", available_engines())
def test_an_engine_is_chosen_when_the_first_is_wanted(name: str) -> None:
    code = f"""
import os, sys, zdev
from zdev import _engines
assert _engines._chosen is None
assert not [each for each in sys.modules if each.startswith("zdev._engines.")]
os.environ["ZDEV_ENGINE"] = {name!r}
print(zdev.engine)
os.environ["ZDEV_ENGINE"] = "pyzmq"
assert zdev.engine == {name!r}
"""
    assert chosen(python(code)) == name


# Makes the import of the module that is tried first last until `go` is set.
SLOW = f"""
import importlib.abc, sys, threading
begun, go = threading.Event(), threading.Event()

class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "zdev._engines.compiled":
            begun.set()
            assert go.wait({DEADLINE})
        return None

sys.meta_path.insert(0, Slow())
"""


def test_threads_that_choose_at_once_choose_the_same() -> None:
    code = f"""
{SLOW}
import zdev
from zdev import _engines
chosen = []
threads = [threading.Thread(target=lambda: chosen.append(_engines.current())) for _ in range(5)]
for thread in threads:
    thread.start()
assert begun.wait({DEADLINE})
go.set()
for thread in threads:
    thread.join()
assert chosen == [_engines.load(zdev.engine)] * 5
"""
    assert chosen(python(code)) == ""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_waits_until_the_engine_is_chosen() -> None:
    """Else the child would have a module that is half imported, by a thread that it has not."""
    code = f"""
{SLOW}
import os, signal, time, warnings
import zdev
warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
thread = threading.Thread(target=lambda: zdev.engine)
thread.start()
assert begun.wait({DEADLINE})
threading.Timer(0.1, go.set).start()
child = os.fork()
if child == 0:
    signal.alarm({int(DEADLINE)})
    os._exit(7 if zdev.engine else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert chosen(python(code)) == "7"


def test_the_name_of_the_engine_is_an_attribute_like_others() -> None:
    assert "engine" in zdev.__all__
    assert "engine" in dir(zdev)
    assert set(zdev.__all__) <= set(dir(zdev))
    assert hasattr(zdev, "engine")
    with pytest.raises(AttributeError, match="module 'zdev' has no attribute 'engines'"):
        zdev.engines  # type: ignore[attr-defined]  # noqa: B018


def test_an_unavailable_engine_is_an_import_error() -> None:
    assert issubclass(zdev.EngineUnavailableError, ImportError)
    with pytest.raises(zdev.EngineUnavailableError, match="there is no engine 'x'"):
        _engines.load("x")


# Side by side


def test_engines_work_side_by_side(net: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relays of every engine in a line, at the same time."""
    names = available_engines() * 2
    first = net.bound(zmq.PULL)
    source, front = net.peer(first, zmq.PUSH), first
    relays = []
    for name in names:
        monkeypatch.setattr(_engines, "_chosen", _engines.load(name))
        back = net.bound(zmq.PUSH)
        relays.append(zdev.Relay(front, back))
        front = net.peer(back, zmq.PULL)
    messages = [[b"%d" % i, b"", b"x" * i] for i in range(100)]
    with contextlib.ExitStack() as stack:
        for relay in relays:
            stack.enter_context(running(relay))
        for message in messages:
            source.send_multipart(message)
        assert [front.recv_multipart() for _ in messages] == messages
    assert len({relay.statistics() for relay in relays}) == 1


def test_libzmq_is_pyzmqs_own() -> None:
    found = _libzmq.find()
    assert found.version == zmq.zmq_version_info()
    assert set(found.addresses) == set(_libzmq.FUNCTIONS)
    assert os.path.isfile(found.path)
    assert "zmq" in os.path.basename(found.path)


# What a Python loop does with what should not be


@pytest.mark.parametrize("name", [name for name in available_engines() if name != "cffi"])
def test_no_python_loop_goes_on_after_an_exception(
    name: str, net: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had in hand is uncertain: the next message could be appended to half of one."""
    loaded = _engines.load(name)
    monkeypatch.setattr(_engines, "_chosen", loaded)
    more = loaded.more  # type: ignore[attr-defined]
    calls = itertools.count()

    def raise_once(message: object) -> int:
        if next(calls) == 1:
            raise MemoryError
        return int(more(message))

    source, destination = net.bound(zmq.PULL), net.bound(zmq.PUSH)
    sender, receiver = net.peer(source, zmq.PUSH), net.peer(destination, zmq.PULL)
    sender.send_multipart([b"1", b"2"])
    relay = zdev.Relay(source, destination)
    monkeypatch.setattr(loaded, "more", raise_once)
    with pytest.raises(MemoryError):
        relay.run()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="cannot go on"):
            relay.step()
    assert relay.statistics().frontend_to_backend.messages_sent == 0
    # Another one is none the worse.
    sender.send_multipart([b"3", b"4"])
    again = zdev.Relay(source, destination)
    while not again.step():
        assert source.poll(DEADLINE * 1000)
    assert receiver.recv_multipart() == [b"3", b"4"]


@pytest.mark.parametrize("name", [name for name in available_engines() if name != "cffi"])
def test_frames_longer_than_an_int(
    name: str, net: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """zmq_msg_recv says no more than INT_MAX of them; the fuzz target shows it of the C loop."""
    loaded = _engines.load(name)
    monkeypatch.setattr(_engines, "_chosen", loaded)
    recv, giant = loaded.recv, 2**31 + 5  # type: ignore[attr-defined]
    sizes: list[int] = []

    def receive(message: object, socket: object, flags: int) -> int:
        size = int(recv(message, socket, flags))
        if size < 0:
            return size
        sizes.append(giant if len(sizes) % 3 == 1 else size)
        return min(sizes[-1], 2**31 - 1)

    monkeypatch.setattr(loaded, "recv", receive)
    monkeypatch.setattr(loaded, "size", lambda _: giant)
    source, destination = net.bound(zmq.PULL), net.bound(zmq.PUSH)
    sender, receiver = net.peer(source, zmq.PUSH), net.peer(destination, zmq.PULL)
    relay = zdev.Relay(source, destination)
    messages = [[b"%d" % place for place in range(frames)] for frames in (1, 2, 3, 4, 5, 9) * 3]
    for message in messages:
        sender.send_multipart(message)
    wait_until(lambda: relay.step() == 0 and len(sizes) == sum(map(len, messages)))
    assert [receiver.recv_multipart() for _ in messages] == messages
    there = relay.statistics().frontend_to_backend
    assert sizes.count(giant) == len(sizes) // 3
    assert there.bytes_received == there.bytes_sent == sum(sizes)
