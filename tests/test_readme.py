"""Every Python block of the README runs as it stands there."""

from __future__ import annotations

import contextlib
import fcntl
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest

README = pathlib.Path(__file__).parent.parent / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.S | re.M)


@contextlib.contextmanager
def fixed_ports(block: str) -> Iterator[None]:
    """Let one suite on this machine at a time have the ports that a block names."""
    if not re.search(r"tcp://[^:]+:\d", block):
        yield
        return
    with open(pathlib.Path(tempfile.gettempdir(), "zdev-readme-ports"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test_the_readme_has_its_blocks() -> None:
    assert len(BLOCKS) >= 3


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_block(block: str) -> None:
    run = [sys.executable, "-W", "error", "-c", block]
    with fixed_ports(block):
        done = subprocess.run(run, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
