"""What the tests of the commands share: how one is run, and what it may not leave behind."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import AnyStr

import zmq

from ..support import DEADLINE, PROMPT, wait_until

ROOT = Path(__file__).parents[2]

# What the import of zdev warns of; the command has its own words for it.
QUIET = "ignore:ZDEV_ENGINE=nonsense cannot be had:RuntimeWarning"


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m zdev`` to its end."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-W", QUIET, "-m", "zdev", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE,
        check=False,
    )


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
    """Check that neither a thread nor a descriptor is left behind."""

    def descriptors() -> set[str]:
        gc.collect()
        return set(os.listdir("/dev/fd"))

    zmq.Context().term()  # the first of a process may open /dev/urandom, for good
    threads, before = set(threading.enumerate()), descriptors()
    yield
    left = set(threading.enumerate()) - threads  # those of an earlier test may have ended meanwhile
    assert not left, left
    wait_until(lambda: len(descriptors()) <= len(before))  # libzmq's reaper closes some a bit later


def without_engine(err: str) -> None:
    """Check what is said where the engine that is forced is none."""
    (line,) = err.splitlines()
    assert line.startswith("zdev: error: ZDEV_ENGINE=nonsense cannot be had: there is no engine ")


def ended(process: subprocess.Popen[AnyStr], timeout: float = DEADLINE) -> tuple[AnyStr, AnyStr]:
    """Wait for a command's end, and return what it has written to both its outputs.

    Of one that does not end, what it has said is shown, and what its threads do, if it was started
    with PYTHONFAULTHANDLER: else nobody would know why, since it may be rare.
    """
    try:
        return process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        with contextlib.suppress(subprocess.TimeoutExpired):  # a child of its own holds its output
            out, err = process.communicate(timeout=PROMPT)
            raise AssertionError(f"no end after {timeout:g} s: {out!r}\n{err!r}") from None
        raise


class Running:
    """A command that runs until it is told to end, or ends by itself."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-W", QUIET, "-m", "zdev", *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONFAULTHANDLER": "1", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Whoever runs the tests may ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        assert self.process.stdout
        assert self.process.stderr
        self.stdout, self.stderr = self.process.stdout, self.process.stderr
        self.said = ""

    def hears(self, words: str) -> str:
        """Read standard error up to a line that has these words, and return the line."""
        for line in self.stderr:
            self.said += line.decode()
            if words in line.decode():
                return line.decode()
        raise AssertionError(f"{words!r} is not in {self.said!r}")

    def end(self) -> tuple[int, bytes, str]:
        """Wait for the end; return the exit status, and what it wrote and said."""
        out, err = ended(self.process, 3 * DEADLINE)
        self.said += err.decode()
        return self.process.returncode, out, self.said

    def interrupt(self) -> tuple[int, bytes, str]:
        """End it by Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        return self.end()


@contextlib.contextmanager
def started(*arguments: str, **environment: str) -> Iterator[Running]:
    """Start ``python -m zdev``, and leave nothing of it."""
    running = Running(*arguments, **environment)
    try:
        yield running
    finally:
        running.process.kill()
        running.process.wait(DEADLINE)
        running.stdout.close()
        running.stderr.close()
