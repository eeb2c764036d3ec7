"""Programs that use gevent, each in an interpreter of its own, patched in every way."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Optional

import pytest

from .support import DEADLINE

Patches = Optional[dict[str, bool]]

NO_GEVENT = "gevent is not installed"
if sys.implementation.name == "pypy":
    NO_GEVENT = "there are no wheels of gevent for PyPy"
needs_gevent = pytest.mark.skipif(importlib.util.find_spec("gevent") is None, reason=NO_GEVENT)

# What is patched, and whether that comes before the import of zdev.
WAYS: list[Any] = [
    pytest.param({}, True, id="all"),
    pytest.param({}, False, id="all-late"),
    pytest.param({"thread": False}, True, id="no-thread"),
    pytest.param({"thread": False}, False, id="no-thread-late"),
    pytest.param(None, True, id="none"),
]

each_patch = pytest.mark.parametrize(("patches", "first"), [WAYS[0], WAYS[2]])
each_way = pytest.mark.parametrize(("patches", "first"), WAYS)

BEGIN = """
import faulthandler
faulthandler.dump_traceback_later({deadline}, exit=True)
patches, first = {patches!r}, {first!r}
if patches is not None and first:
    from gevent import monkey
    monkey.patch_all(**patches)
import zdev
if patches is not None and not first:
    from gevent import monkey
    monkey.patch_all(**patches)
import multiprocessing, os, signal, sys, time, warnings
import gevent, gevent.event, zmq
import zmq.green
from zdev import green

warnings.filterwarnings("ignore", ".*use of fork", DeprecationWarning)
"""

TOOLS = """
import contextlib

ticks = 0

def tick():
    global ticks
    while True:
        gevent.sleep(0.0005)
        ticks += 1

@contextlib.contextmanager
def others_run():
    "Fail if no other task has run meanwhile."
    before = ticks
    yield
    assert ticks > before, "the hub was blocked"

def wait_until(condition):
    while not condition():
        gevent.sleep(0.001)

def made(launcher, kind, *args, **settings):
    "Make a device; a launcher is Thread, or how a process is started."
    if launcher == "Thread":
        return getattr(zdev, "Thread" + kind)(*args, **settings)
    device = getattr(zdev, "Process" + kind)(*args, **settings)
    device._launch_class = multiprocessing.get_context(launcher).Process
    return device

def socket(context, kind, address):
    made = context.socket(kind)
    made.linger = 0
    made.connect(address)
    return made

def relayed(source, sink, count=50):
    for number in range(count):
        source.send(b"%d" % number)
    assert [sink.recv() for _ in range(count)] == [b"%d" % number for number in range(count)]
"""


def run(
    directory: Path,
    body: str,
    patches: Patches = None,
    first: bool = True,
    engine: str | None = None,
    **names: Any,
) -> subprocess.CompletedProcess[str]:
    """Run the body of a program's main; names are what it knows besides.

    It is a file, so that the processes that it spawns are patched as it is.
    """
    begin = BEGIN.format(patches=patches, first=first, deadline=2 * DEADLINE)
    known = "".join(f"    {name} = {value!r}\n" for name, value in names.items())
    main = "".join(f"    {line}\n" for line in ["ticker = gevent.spawn(tick)", *body.splitlines()])
    program = directory / "program.py"
    program.write_text(f'{begin}{TOOLS}\nif __name__ == "__main__":\n{known}{main}')
    environment = {key: value for key, value in os.environ.items() if key != "ZDEV_ENGINE"}
    if engine is not None:
        environment["ZDEV_ENGINE"] = engine
    return subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE,
        check=False,
    )


def printed(*args: Any, **kwargs: Any) -> str:
    """Run a program, which may complain of nothing, and return what it prints."""
    done = run(*args, **kwargs)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout
