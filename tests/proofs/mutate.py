"""Does the suite catch faults? Seed one at a time in a copy of the tree, and see it fail.

    python -m tests.proofs.mutate [--jobs N] [--only REGEX] [--list]

The faults are in `tests/proofs/mutants.py`. A fault is caught when a test fails, crashes or hangs. Of the
tests that run on every engine, those on the engine that has the fault are run: first the files that
tell most of such a fault in the least time, and if they pass, all the others. The exit status is 0
only if every fault was found in the source as it is, and caught.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .mutants import CTYPES, DIRECTION, FRAMES, LOOP, MUTANTS, TURN, Mutant

ROOT = Path(__file__).resolve().parents[2]
LEFT_OUT = shutil.ignore_patterns(
    ".git", ".hypothesis", ".*_cache", ".venv", "venv", "build", "__pycache__", "*.so", "*.o"
)

# What is run before the others, by the beginning of the name of the file with the fault.
LOOPS = ("loops/test_interleaving", "loops/test_injection", "loops/test_topologies")
RELAY = ("relay/test_relay", "relay/test_call", "relay/test_visits", "relay/test_steering")
TELLING = {
    "zdev/_devices/": ("devices/",),
    "zdev/aio/": ("aio/",),
    "zdev/cli/tap": ("command/test_tap",),
    "zdev/cli/": ("command/test_ctl", "command/test_tap", "command/"),
    "zdev/_engines/__init__": ("loops/test_engines",),
    "zdev/_engines/": (*LOOPS, "loops/", *RELAY),
    "csrc/": (*LOOPS, "loops/", *RELAY),
    "zdev/_descriptor": ("relay/test_descriptor", "relay/test_own_loop"),
    "zdev/_wakeup": ("relay/test_descriptor", "relay/test_own_loop", *RELAY),
    "zdev/_tasks": ("relay/test_gevent", "devices/test_gevent"),
    "zdev/_threads": ("relay/test_gevent", "devices/test_gevent"),
    "zdev/_aside": ("relay/test_gevent", "devices/test_gevent"),
    "zdev/_zap": ("devices/test_allowed",),
    "zdev/_secrets": ("devices/test_secrets",),
    "zdev/_certificates": ("devices/test_secrets", "command/test_keygen"),
    "zdev/_connections": ("devices/test_connections", "devices/test_allowed"),
    "zdev/_stops": ("relay/test_drain", *RELAY),
    "zdev/": (*RELAY, "relay/"),
}

# Seconds: for one test, and for all.
TEST_LIMIT, SUITE_LIMIT = 60, 900

PYPY = sys.implementation.name == "pypy"


# Trees


def seeded(text: str, mutant: Mutant) -> str | None:
    """Return the text with the fault in it; None if the old text is not where it should be."""
    start = text.find(mutant.behind)
    if start < 0:
        return None
    end = text.find("\n}\n" if is_c(mutant) else "\n    def ", start) if mutant.behind else -1
    head, body, rest = text[:start], text[start:end], text[end:]
    if end < 0:
        body, rest = text[start:], ""
    if mutant.old not in body or (not mutant.behind and body.count(mutant.old) > 1):
        return None
    return head + body.replace(mutant.old, mutant.new, 1) + rest


def is_c(mutant: Mutant) -> bool:
    return mutant.file.startswith("csrc/")


def engine_of(mutant: Mutant) -> str:
    """Return the engine that has the fault; any has those of relays and devices."""
    if mutant.file == CTYPES:
        return "ctypes"
    if mutant.file in (FRAMES, DIRECTION, TURN, LOOP):
        return "cffi-abi" if PYPY else "ctypes"
    return "cffi"


def tells(mutant: Mutant) -> tuple[str, ...]:
    """Return the beginnings of the names of the files that tell most of it."""
    return next(files for start, files in TELLING.items() if mutant.file.startswith(start))


def build(tree: Path) -> str:
    """Compile the C loop in a tree; return what went wrong."""
    for old in (tree / "zdev" / "_engines").glob("_c.*"):
        old.unlink()
    made = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace", "--force"],
        cwd=tree,
        env={**os.environ, "CFLAGS": "-O1"},
        capture_output=True,
        text=True,
        check=False,
    )
    built = [*(tree / "zdev" / "_engines").glob("_c.*.so")]
    return "" if built else f"it does not compile:\n{made.stdout}{made.stderr}"


# Runs


@dataclass
class Outcome:
    """What became of a mutant; or, where none was seeded, of the suite itself."""

    is_caught: bool
    by: str
    seconds: float = 0.0
    is_void: bool = False  # it could not be tried


def run_tests(tree: Path, engine: str, files: list[str]) -> tuple[bool, str]:
    """Run tests until one fails; tell whether one did, and which."""
    environment = {
        **os.environ,
        "CI": "1",  # Hypothesis draws the same examples each time
        "PYTHONPATH": str(tree),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    environment.pop("ZDEV_ENGINE", None)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-xv",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "--engines",
        engine,
        "--patience",
        str(TEST_LIMIT),
    ]
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            [*command, *files],
            cwd=tree,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(SUITE_LIMIT)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and what a test may have left behind
            process.wait()
        output.seek(0)
        text = output.read()
    if code == 0:
        return False, ""
    failed = re.search(r"^(?:FAILED|ERROR) (tests.*?)(?: - |$)", text, re.MULTILINE)
    begun = re.findall(r"^(tests/\S+::.*?)(?: PASSED.*| *)$", text, re.MULTILINE)
    last = begun[-1] if begun else text[-2000:]
    if code is None or code == -signal.SIGALRM:
        return True, f"{last} hangs"
    if code < 0:
        return True, f"{last} crashes: {signal.Signals(-code).name}"
    if code == 1 and failed:
        return True, failed[1]
    return True, f"pytest's exit status {code}: {text[-2000:]}"


def try_out(base: Path, mutant: Mutant | None) -> Outcome:
    """Run the suite on a copy of the tree with a fault in it, or without one."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory) / "tree"
        shutil.copytree(base, tree, symlinks=True)
        if mutant is not None:
            path = tree / mutant.file
            text = seeded(path.read_text(), mutant)
            if text is None:
                return Outcome(False, f"not found, or not once: {mutant.old!r}", is_void=True)
            path.write_text(text)
            if is_c(mutant):
                problem = build(tree)
                if problem:
                    return Outcome(False, problem, is_void=True)
        every = sorted(str(path.relative_to(tree)) for path in (tree / "tests").rglob("test_*.py"))
        telling = TELLING["csrc/"] if mutant is None else tells(mutant)
        first = [file for name in telling for file in every if file.startswith(f"tests/{name}")]
        first = [*dict.fromkeys(first)]
        engine = "cffi" if mutant is None else engine_of(mutant)
        is_caught, by = run_tests(tree, engine, first)
        if not is_caught:
            is_caught, by = run_tests(tree, engine, [file for file in every if file not in first])
    return Outcome(is_caught, by, time.monotonic() - began)


@contextlib.contextmanager
def base_tree() -> Iterator[Path]:
    """Make a copy of the tree, built and compiled: pytest takes seconds to compile its tests."""
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory) / "base"
        shutil.copytree(ROOT, tree, symlinks=True, ignore=LEFT_OUT)
        problem = build(tree)
        if problem:
            sys.exit(problem)
        environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": ""}
        collect = [
            sys.executable,
            "-m",
            "pytest",
            "--collect-only",
            "-qq",
            "-p",
            "no:cacheprovider",
        ]
        subprocess.run(collect, cwd=tree, env=environment, stdout=subprocess.DEVNULL, check=True)
        yield tree


def main() -> int:
    """Try every mutant, and tell the score."""
    parser = argparse.ArgumentParser(prog="python -m tests.proofs.mutate", description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="how many at the same time")
    parser.add_argument("--only", default="", help="those whose file or reason this is found in")
    parser.add_argument("--list", action="store_true", help="name them, and try none")
    options = parser.parse_args()
    chosen = [m for m in MUTANTS if re.search(options.only, f"{m.file}: {m.why}")]
    missing = [m for m in MUTANTS if seeded((ROOT / m.file).read_text(), m) is None]
    for mutant in missing:
        print(
            f"VOID      {mutant.file}: {mutant.why}\n          no longer as it was: {mutant.old!r}"
        )
    if options.list:
        print(*(f"{m.file}: {m.why}" for m in chosen), sep="\n")
        return bool(missing)
    # A shell that starts us in the background ignores Ctrl-C, and so would the tests of it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    began = time.monotonic()
    count = {"caught": 0, "SURVIVED": 0, "VOID": 0}
    with base_tree() as base, ThreadPoolExecutor(options.jobs) as pool:
        healthy = pool.submit(try_out, base, None)
        outcomes = pool.map(lambda mutant: try_out(base, mutant), chosen)
        for mutant, outcome in zip(chosen, outcomes):
            word = "VOID" if outcome.is_void else "caught" if outcome.is_caught else "SURVIVED"
            count[word] += 1
            print(f"{word:8}  {mutant.file}: {mutant.why}")
            if outcome.by:
                print(f"          {outcome.by}  ({outcome.seconds:.0f} s)", flush=True)
        if healthy.result().is_caught:
            print(f"VOID      the suite fails without any fault: {healthy.result().by}")
            count["VOID"] += 1
    took = time.monotonic() - began
    print(
        f"{count['caught']} of {len(chosen)} caught, {count['SURVIVED']} survived,"
        f" {count['VOID']} void, in {took:.0f} s"
    )
    return int(count["caught"] < len(chosen) or count["VOID"] > 0 or bool(missing))


if __name__ == "__main__":
    sys.exit(main())
