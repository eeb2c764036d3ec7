"""``zdev info``: what it tells of versions, of libzmq and of the engines."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import zmq

import zdev
from zdev import _engines

from ..support import DEADLINE, available_engines
from .running import ROOT, command, without_engine


def engines_told(out: str) -> tuple[str, dict[str, str]]:
    """Return what info says of the engine in use and of the others."""
    used = re.search(r"^engine +(.*)$", out, re.MULTILINE)
    assert used
    others = out.partition("The other engines, best first:\n")[2].splitlines()
    return used[1], dict(line.split(maxsplit=1) for line in others)


def test_info_names_versions_and_the_libzmq_that_is_loaded() -> None:
    done = command("info", ZDEV_ENGINE="")
    assert (done.returncode, done.stderr) == (0, "")
    told = dict(line.split(maxsplit=1) for line in done.stdout.splitlines()[:6])
    assert told["zdev"] == zdev.__version__
    assert sys.executable in told["Python"]
    assert told["pyzmq"] == zmq.pyzmq_version()
    assert told["libzmq"] == zmq.zmq_version()
    assert os.path.isfile(told["file"])
    assert b"zmq_msg_recv" in Path(told["file"]).read_bytes()
    used, others = engines_told(done.stdout)
    best = available_engines()[0]
    assert used == best
    assert {used, *others} == set(_engines.NAMES)
    for name, why in others.items():
        if name in available_engines():
            assert why == f"available, but {best} comes before it; ZDEV_ENGINE={name} forces it"


@pytest.mark.parametrize("name", available_engines())
def test_info_on_each_engine(name: str) -> None:
    done = command("info", ZDEV_ENGINE=name)
    assert (done.returncode, done.stderr) == (0, "")
    used, others = engines_told(done.stdout)
    assert used == f"{name}, forced by ZDEV_ENGINE"
    assert set(others) == set(_engines.NAMES) - {name}
    for other in set(available_engines()) - {name}:
        assert others[other] == f"available, but ZDEV_ENGINE={name} forces another"


def test_info_without_an_engine() -> None:
    done = command("info", ZDEV_ENGINE="nonsense")
    assert done.returncode == 2
    without_engine(done.stderr)
    used, others = engines_told(done.stdout)
    assert used == "none: ZDEV_ENGINE=nonsense cannot be had"
    assert set(others) == set(_engines.NAMES)
    for name in available_engines():
        assert others[name] == "available, but ZDEV_ENGINE=nonsense forces another"


def test_info_where_libzmq_hides_its_symbols() -> None:
    hide = """if True:
        import ctypes, sys
        class Hiding(ctypes.CDLL):
            def __getattr__(self, name):
                if name.startswith("zmq_"):
                    raise AttributeError(name)
                return super().__getattr__(name)
        ctypes.CDLL = Hiding
        from zdev.cli import main
        sys.exit(main())
    """
    done = subprocess.run(
        [sys.executable, "-c", hide, "info"],
        cwd=ROOT,
        env={**os.environ, "ZDEV_ENGINE": ""},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^file +cannot be called directly: .* zmq_errno", done.stdout, re.MULTILINE)
    used, others = engines_told(done.stdout)
    assert used == "pyzmq"
    for why in others.values():
        assert why.startswith("not available: pyzmq's extension ")
    assert len(others) == 3
