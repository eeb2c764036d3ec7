"""The testing kit as users have it: README's example, the fixtures, what they import."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import threading
from typing import Any

import pytest
import zmq

import zdev
from zdev.testing import (
    no_leaks,
)
from zdev.testing.leaks import LeakError, tracked_context

from ..support import DEADLINE, python
from ..test_readme import BLOCKS

ROOT = pathlib.Path(zdev.__file__).parent.parent

# The README's example


def run_pytest(tmp_path: pathlib.Path, text: str) -> subprocess.CompletedProcess[str]:
    """Run a file of tests as a user does, on a machine that may be busy."""
    (tmp_path / "test_it.py").write_text(text, encoding="utf-8")
    (tmp_path / "conftest.py").write_text(
        "from hypothesis import settings\n"
        "settings.register_profile('patient', deadline=None)\n"
        "settings.load_profile('patient')\n"
    )
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
