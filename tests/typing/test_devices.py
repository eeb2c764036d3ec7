"""mypy --strict takes the right uses of devices, and minds each of the wrong ones.

Of those for event loops, too.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def test_types_of_devices() -> None:
    pytest.importorskip("mypy", reason="mypy is not installed")
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "devices.py", "event_loops.py"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (run.returncode, run.stdout) == (0, "Success: no issues found in 2 source files\n")
