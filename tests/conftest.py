"""Which engines the tests run on, on how many workers, in what company, and for how long.

And fixtures: the engine, and a network of sockets.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from zmq.utils import garbage

import zdev
from zdev import _engines

from .alone import Turns
from .fuzzing import TIMES
from .support import Network, available_engines, wait_until

if sys.implementation.name == "pypy":
    # Hypothesis calls it often. On PyPy 7.3.11 it moves the stacks of all threads, also of those
    # that wait in C, as one of each worker of pytest-xdist does; when they go on, the process
    # crashes.
    sys.setrecursionlimit = lambda limit: None  # type: ignore[assignment]

# A shell that starts the tests in the background has them ignore Ctrl-C, which some of them send.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Where this is not set, libzmq makes the paths of ipc://* in the working directory, where they stay
# when a process is killed.
os.environ.setdefault("TMPDIR", tempfile.gettempdir())

# pytest finds it by itself where zdev is installed; here it is that of this tree.
pytest_plugins = ["pytest_zdev"]


# Engines

# The tests in here compare the engines' loops, and run on all of them.
LOOPS = Path(__file__).parent / "loops"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--engines",
        metavar="NAMES",
        help="run the tests on these engines, such as ctypes,pyzmq, or on all; without it, those in "
        "tests/loops run on all, and the others on the engine that zdev chooses",
    )
    parser.addoption(
        "--patience",
        metavar="SECONDS",
        type=int,
        default=300 * TIMES,
        help="end a test that takes so long, and the process with it (default: %(default)s)",
    )


def pytest_configure(config: pytest.Config) -> None:
    named = {*(config.getoption("engines") or "all").split(",")}
    if unknown := named - {"all", *available_engines()}:
        raise pytest.UsageError(
            f"--engines: no {', '.join(unknown)} here; there are {', '.join(available_engines())}"
        )
    if hasattr(config, "workerinput"):
        config.stash[_TURNS] = Turns(config.workerinput["turns"])


def engines(config: pytest.Config, path: Path) -> list[str]:
    """Return the engines that the tests of a file are to run on."""
    named = config.getoption("engines")
    if named is None:
        return available_engines() if LOOPS in path.parents else [zdev.engine]
    return [name for name in available_engines() if name in named.split(",") or named == "all"]


@pytest.hookimpl(tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test once on each of its engines; on those that can be scripted, if it is given names.

    pyzmq's own calls cannot be.
    """
    names = engines(metafunc.config, metafunc.definition.path)
    if "engine" in metafunc.fixturenames:
        metafunc.parametrize("engine", names, indirect=True)
    if "scripted_engine" in metafunc.fixturenames:
        metafunc.parametrize("scripted_engine", [name for name in names if name != "pyzmq"])


@pytest.fixture
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let the test's relays run on one engine; its name."""
    monkeypatch.setattr(_engines, "_chosen", _engines.load(request.param))
    return str(request.param)


# Workers

# For each processor. Most tests wait most of the time.
WORKERS = 3

_TURNS = pytest.StashKey[Turns]()
_TURNS_FILE = pytest.StashKey[Any]()


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Spread directories of tests over workers of pytest-xdist, unless told how many it may be.

    Single files are run sooner than workers start.
    """
    here = config.getoption("usepdb") or config.getoption("collectonly")
    files = any(not Path(argument.partition("::")[0]).is_dir() for argument in config.args)
    is_worker = hasattr(config, "workerinput")
    if not (here or files or is_worker) and config.getoption("numprocesses", 0) is None:
        config.option.numprocesses = WORKERS * (os.cpu_count() or 1)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker which file it shares with the others."""
    stash = node.config.stash
    if _TURNS_FILE not in stash:
        stash[_TURNS_FILE] = tempfile.NamedTemporaryFile()  # noqa: SIM115 - unconfigure closes it
    node.workerinput["turns"] = stash[_TURNS_FILE].name


def pytest_unconfigure(config: pytest.Config) -> None:
    if _TURNS_FILE in config.stash:
        config.stash[_TURNS_FILE].close()  # which deletes it


CRASHED = 9
"""The exit status when a process with tests has died or hung, which no second run excuses."""

_HAS_CRASHED = pytest.StashKey[bool]()


@pytest.hookimpl(optionalhook=True)
def pytest_handlecrashitem(sched: Any) -> None:
    sched.config.stash[_HAS_CRASHED] = True


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.config.stash.get(_HAS_CRASHED, False):
        session.exitstatus = CRASHED


def is_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let workers have the tests that run alone last: else all wait again and again for one."""
    if _TURNS in config.stash:
        items.sort(key=is_alone)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """Wait for the test's turn, and then let it run, but not for ever: CI must not wait for it.

    The signal's default action ends the process. It needs no Python, so it works whatever hangs.
    """
    turns = item.config.stash.get(_TURNS, None)
    with turns.one(alone=is_alone(item)) if turns else contextlib.nullcontext():
        signal.alarm(item.config.getoption("patience"))
        try:
            return (yield)
        finally:
            signal.alarm(0)


# Fixtures


@pytest.fixture
def net() -> Iterator[Network]:
    """Make sockets, and close them behind the test."""
    network = Network()
    yield network
    network.close()


@pytest.fixture
def zero_copy() -> Iterator[None]:
    """Let messages be sent without a copy, and see that pyzmq gets all of them back.

    Before `net`, so that the context is gone by then. The thread of pyzmq that takes them back must
    not outlive the test: Hypothesis calls sys.setrecursionlimit, which on PyPy 7.3.11 moves the
    stacks of all threads, also of those that wait in C; when they go on, the process crashes.
    """
    yield
    wait_until(lambda: gc.collect() or not garbage.gc.refs)
    garbage.gc.stop()
