"""The command line: its usage, and what it refuses."""

from __future__ import annotations

import pytest

import zdev
from zdev.cli import main

from ..support import python
from .running import command, without_engine


def test_without_arguments_it_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: zdev ")
    assert " info " in out
    assert " demo " in out
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert capsys.readouterr().out == out


def test_version() -> None:
    done = command("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"zdev {zdev.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "who", "reason"),
    [
        (["nonsense"], "zdev", "argument COMMAND: invalid choice: 'nonsense'"),
        (["--nonsense"], "zdev", "unrecognized arguments: --nonsense"),
        (["--nonsense", "demo"], "zdev", "unrecognized arguments: --nonsense"),
        (["info", "more"], "zdev info", "unrecognized arguments: more"),
        (["demo", "--nonsense"], "zdev demo", "unrecognized arguments: --nonsense"),
        (["demo", "--lines"], "zdev demo", "argument -n/--lines: expected one argument"),
        (["demo", "-n", "0"], "zdev demo", "argument -n/--lines: must be a whole number from 1"),
        (["demo", "-n", "-1"], "zdev demo", "argument -n/--lines: must be a whole number from 1"),
        (["demo", "-n", "many"], "zdev demo", "argument -n/--lines: must be a whole number from 1"),
    ],
)
def test_bad_arguments_are_answered_with_the_usage_of_their_command(
    arguments: list[str], who: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"usage: {who} [-h]")
    assert f"\n{who}: error: {reason}" in err


# Without an engine


@pytest.mark.parametrize("arguments", [["demo", "-n", "5"], ["exec", "x.py"], ["exec", "-m", "x"]])
def test_nothing_is_done_without_an_engine(arguments: list[str]) -> None:
    done = command(*arguments, ZDEV_ENGINE="nonsense")
    assert (done.returncode, done.stdout) == (2, "")
    without_engine(done.stderr)


def test_help_needs_no_engine() -> None:
    for arguments in ([], ["--version"], ["exec", "--help"]):
        done = command(*arguments, ZDEV_ENGINE="nonsense")
        assert (done.returncode, done.stderr) == (0, "")
        assert "zdev" in done.stdout


def test_the_installed_command_without_an_engine() -> None:
    """As the script that pip makes does, which may be called zdev.exe before it calls main."""
    for name in ("/usr/bin/zdev", "zdev.exe"):
        code = f"""
import sys, warnings
warnings.simplefilter("ignore", RuntimeWarning)  # of the import
sys.argv = [{name!r}, 'demo']
from zdev.cli import main
sys.exit(main())
"""
        done = python(code, ZDEV_ENGINE="nonsense")
        assert (done.returncode, done.stdout) == (2, "")
        without_engine(done.stderr)
