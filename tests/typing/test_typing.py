"""mypy --strict takes the right uses, and minds each of the wrong ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def test_types() -> None:
    pytest.importorskip("mypy", reason="mypy is not installed")
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "right.py", "wrong.py"],
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (run.returncode, run.stdout) == (0, "Success: no issues found in 2 source files\n")


def test_the_package_says_that_it_is_typed() -> None:
    import zdev

    assert (Path(zdev.__file__).parent / "py.typed").is_file()
