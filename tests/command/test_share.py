"""What is installed beside the command: its man page, and completions for shells."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ..support import DEADLINE
from .running import ROOT

SHARE = ROOT / "share"
MADE = sorted(path.relative_to(SHARE) for path in SHARE.glob("*/**/*") if path.is_file())

needs_makers = pytest.mark.skipif(
    platform.python_implementation() != "CPython"
    or sys.version_info[:2] != (3, 13)
    or None in map(importlib.util.find_spec, ("shtab", "argparse_manpage")),
    reason="they are made by CPython 3.13 with shtab and argparse-manpage",
)


@needs_makers
def test_the_files_fit_the_parser(tmp_path: Path) -> None:
    command = [sys.executable, str(SHARE / "make.py"), str(tmp_path)]
    subprocess.run(command, check=True, timeout=DEADLINE)
    made = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert made == set(MADE)
    stale = [path for path in MADE if (SHARE / path).read_text() != (tmp_path / path).read_text()]
    assert stale == [], "run: python share/make.py"


# What bash does at <TAB>, with what it has set then.
TAB = r"""
set -e
source "$1"
shift
compopt() { :; }    # which wants to be called by readline
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
"$(complete -p zdev | sed -n 's/.* -F \([^ ]*\) .*/\1/p')" zdev "${*: -1}" "${*: -2:1}"
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="completes in bash")
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("ru", "run"),
        ("re", "reload"),
        ("run --js", "--json"),
        ("run zd", "zdev.toml"),
        ("top zd", "zdev.toml"),
        ("demo -n 5 zd", "zdev.toml"),
        ("keygen --directory ke", "keys"),
        ("keygen --directory zd", ""),
        ("top --sort ", "name rate parked dropped"),
        ("ctl tcp://127.0.0.1:5562 st", "statistics"),
        ("queue --overflow ", "park drop"),
        ("queue --overflow drop --in-type ROU", "ROUTER"),
    ],
)
def test_bash_completes(tmp_path: Path, words: str, completed: str) -> None:
    (tmp_path / "zdev.toml").touch()
    (tmp_path / "keys").mkdir()
    file = SHARE / "bash-completion" / "completions" / "zdev"
    done = subprocess.run(
        ["bash", "-c", TAB, "bash", file, "zdev", *words.split(" ")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == completed.split()
