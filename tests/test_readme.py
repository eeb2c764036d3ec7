"""Every Python block of the README runs as it stands there, and every signature is the real one."""

from __future__ import annotations

import ast
import contextlib
import fcntl
import inspect
import multiprocessing
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

import zdev

README = pathlib.Path(__file__).parent.parent / "README.md"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.S | re.M)
SIGNATURES = {
    call.partition("(")[0]: ast.parse(f"def _{call[call.index('(') :]}: pass").body[0].args  # type: ignore[attr-defined]
    for block in re.findall(r"^```text\n(.*?)^```", TEXT, re.S | re.M)
    for call in re.findall(r"^\S[^(]*\([^)]*\)", block, re.M)
}


@contextlib.contextmanager
def fixed_ports(block: str) -> Iterator[None]:
    """Let one suite on this machine at a time have the ports that a block names."""
    if not re.search(r"tcp://[^:]+:\d", block):
        yield
        return
    with open(pathlib.Path(tempfile.gettempdir(), "zdev-readme-ports"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(block: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a block to its end; by default as ``python -c`` does."""
    command = [sys.executable, "-W", "error", *(arguments or ("-c", block))]
    with fixed_ports(block):
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_readme_has_its_blocks() -> None:
    assert len(BLOCKS) >= 3


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_block(block: str) -> None:
    done = run(block)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("block", "place"),
    [
        pytest.param(block, place, id=f"{number}-{nth}")
        for number, block in enumerate(BLOCKS)
        for nth, place in enumerate(re.finditer(r"\bassert .*", block))
    ],
)
def test_a_block_that_fails_ends(block: str, place: re.Match[str]) -> None:
    """Whichever of its assertions does not hold."""
    done = run(block[: place.start()] + "raise ArithmeticError" + block[place.end() :])
    assert "ArithmeticError" in done.stderr


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
@pytest.mark.parametrize("block", [pytest.param(b, id="") for b in BLOCKS if "Process" in b])
def test_a_program_that_starts_processes(block: str, method: str, tmp_path: pathlib.Path) -> None:
    program = tmp_path / "program.py"
    choice = f"import multiprocessing\nmultiprocessing.set_start_method({method!r}, force=True)\n"
    program.write_text(choice + block, encoding="utf-8")
    done = run(block, str(program))
    assert (done.returncode, done.stderr) == (0, "")


def test_the_readme_has_its_signatures() -> None:
    functions = {"proxy", "device", "proxy_steerable", "monitored_queue"}
    assert SIGNATURES.keys() >= functions | {"Relay", "Relay.run", "Relay.stop", "ThreadProxy"}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature(name: str) -> None:
    shown = SIGNATURES[name]
    function: Any = zdev
    for part in name.split("."):
        function = getattr(function, part)
    real = dict(inspect.signature(function).parameters)
    real.pop("self", None)
    assert [argument.arg for argument in (*shown.args, *shown.kwonlyargs)] == [*real]
    keywords = {argument.arg for argument in shown.kwonlyargs}
    assert keywords == {p.name for p in real.values() if p.kind is p.KEYWORD_ONLY}
    after = shown.args[len(shown.args) - len(shown.defaults) :]
    given = zip((*after, *shown.kwonlyargs), (*shown.defaults, *shown.kw_defaults))
    defaults = {argument.arg: eval(ast.unparse(value), {"zmq": zmq}) for argument, value in given}
    if name == "ThreadProxySteerable":
        assert zdev.ThreadProxySteerable(zmq.PULL, zmq.PUSH).ctrl_type == defaults["ctrl_type"]
        defaults["ctrl_type"] = None
    if name == "ThreadDevice":  # two that must be given come behind one that need not be
        defaults |= {"device_type": zmq.QUEUE, "in_type": None, "out_type": None}
    assert defaults == {p.name: p.default for p in real.values() if p.default is not p.empty}


@pytest.mark.parametrize("kind", [zdev.DirectionStatistics, zdev.CaptureStatistics])
def test_every_count_is_explained(kind: Any) -> None:
    table = TEXT[TEXT.index("| of a direction |") : TEXT.index("What a relay promises")]
    assert set(kind._fields) <= set(re.findall(r"`(\w+)`", table))
