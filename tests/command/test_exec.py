"""``zdev exec`` runs a program just as Python does, but for whose the devices are."""

from __future__ import annotations

import signal
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from zdev.cli import main

from ..support import DEADLINE, Background

# Prints what a program can see of how it was started.
REPORT = '''
"""A program."""
import json, os, pickle, sys
import zmq.devices

class Mine:
    pass

pickle.loads(pickle.dumps(Mine()))
spec = __spec__ and (__spec__.name, __spec__.origin)
print(json.dumps([
    sys.argv, sys.path[0], __name__, __doc__, __file__, __package__, __cached__, spec,
    type(__loader__).__name__, type(__builtins__).__name__, sys.modules["__main__"].Mine is Mine,
    sys.stdout.errors,
]))
print(zmq.devices.ThreadProxy.__module__, file=sys.stderr)
'''

ARGUMENTS = ["-m", "x", "--", "--version", "-h", ""]


Done = subprocess.CompletedProcess[str]


def run(directory: Path, *arguments: str, flags: Sequence[str] = ()) -> Done:
    return subprocess.run(
        [sys.executable, *flags, *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE,
        check=False,
    )


def run_both(directory: Path, *arguments: str, flags: Sequence[str] = ()) -> tuple[Done, Done]:
    """Run a program as it is, and under zdev."""
    theirs = Background(run, directory, *arguments, flags=flags)
    ours = run(directory, "-m", "zdev", "exec", *arguments, flags=flags)
    return theirs.join(3 * DEADLINE), ours


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """Make a directory with a program in each of the forms that Python runs."""
    inner = tmp_path / "inner"
    (inner / "package" / "sub").mkdir(parents=True)
    for file in ("script.py", "package/__main__.py", "package/module.py"):
        (inner / file).write_text(REPORT)
    (inner / "package" / "__init__.py").touch()
    (inner / "link.py").symlink_to(inner / "package" / "module.py")
    with zipfile.ZipFile(inner / "archive.zip", "w") as archive:
        archive.writestr("__main__.py", REPORT)
    return tmp_path


@pytest.mark.parametrize(
    ("program", "flags"),
    [
        (["inner/script.py"], []),
        (["inner/script.py"], ["-I"]),
        (["inner/link.py"], []),
        (["inner/package"], ["-I"]),
        (["inner/archive.zip"], []),
        (["-m", "inner.package"], []),
        (["-m", "inner.package.module"], []),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_program_sees_what_it_would_see_without_zdev(
    programs: Path, program: list[str], flags: list[str]
) -> None:
    theirs, ours = run_both(programs, *program, *ARGUMENTS, flags=flags)
    assert theirs.stderr == "zmq.devices.proxydevice\n"
    assert ours.stderr == "zdev._devices\n"
    assert (ours.returncode, ours.stdout) == (0, theirs.stdout)


# How a program ends

ENDS = {
    "its last line": "",
    "a status": "import sys; sys.exit(3)",
    "a message": "import sys; sys.exit('no')",
    "an error": "def f():\n    1 / 0\nf()",
    "errors": "try:\n    {}[1]\nexcept KeyError as e:\n    raise ValueError('é') from e",
    "a syntax error": "if",
    "an import error": "import nonesuch",
    "Ctrl-C": "raise KeyboardInterrupt",
    "a broken pipe": "raise BrokenPipeError",
    "its own hook": "import sys; sys.excepthook = lambda *_: print('mine'); 1 / 0",
    "os._exit": "import os; os._exit(4)",
}


@pytest.mark.parametrize("how", ENDS)
def test_it_ends_as_it_would_without_zdev(tmp_path: Path, how: str) -> None:
    (tmp_path / "script.py").write_text(ENDS[how], encoding="utf-8")
    theirs, ours = run_both(tmp_path, "script.py")
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)
    assert ours.stderr == theirs.stderr
    assert theirs.returncode in {
        "its last line": [0],
        "a status": [3],
        "os._exit": [4],
        "Ctrl-C": [-signal.SIGINT, 128 + signal.SIGINT],
    }.get(how, [1])


def test_an_error_in_a_module_shows_its_frames(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("1 / 0")
    done = run(tmp_path, "-m", "zdev", "exec", "-m", "module")
    assert done.returncode == 1
    assert done.stderr.splitlines()[1].strip() == (
        f'File "{tmp_path / "module.py"}", line 1, in <module>'
    )


def test_an_error_of_a_package_is_not_mistaken_for_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("import nonesuch")
    done = run(tmp_path, "-m", "zdev", "exec", "-m", "package.module")
    assert done.returncode == 1
    assert done.stderr.endswith("ModuleNotFoundError: No module named 'nonesuch'\n")


# The main module outlives its last line

THREAD = """
import atexit, pickle, sys, threading
import zmq, zmq.devices

class Mine(zmq.devices.ThreadDevice):
    pass

def after(who):
    mine = pickle.loads(pickle.dumps(Mine(zmq.QUEUE, zmq.PULL, zmq.PUSH)))
    print(who, type(mine) is Mine, type(mine).__mro__[1].__module__)

def main_runs():
    frame = sys._current_frames().get(threading.main_thread().ident)
    while frame is not None and frame.f_globals is not globals():
        frame = frame.f_back
    return frame is not None

def thread():
    while main_runs():
        pass
    after("thread")

threading.Thread(target=thread).start()
atexit.register(after, "exit")
"""


def test_threads_and_exit_handlers_find_the_main_module(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(THREAD)
    done = run(tmp_path, "-m", "zdev", "exec", "script.py")
    expected = "thread True zdev._devices.launchers\nexit True zdev._devices.launchers\n"
    assert (done.returncode, done.stderr, done.stdout) == (0, "", expected)


# Its processes are under zdev too

PROCESSES = """
import multiprocessing, sys
import zmq
import zmq.devices

class Mine(zmq.devices.ProcessMonitoredQueue):
    pass

def report():
    print(sys.argv[1:], Mine.__mro__[1].__module__, zmq.proxy.__module__, flush=True)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    process = context.Process(target=report)
    process.start()
    process.join()
    Mine._launch_class = context.Process
    mine = Mine(zmq.PULL, zmq.PUSH)
    mine.bind_in("tcp://127.0.0.1:*")
    mine.start()
    print(mine.endpoints["in"][0].rstrip("0123456789"))
    mine.stop()
    sys.exit(mine.launcher.exitcode + process.exitcode)
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_have_zdev_too(tmp_path: Path, method: str) -> None:
    (tmp_path / "script.py").write_text(PROCESSES)
    done = run(tmp_path, "-m", "zdev", "exec", "script.py", method)
    expected = f"['{method}'] zdev._devices zdev._functions\ntcp://127.0.0.1:\n"
    assert (done.returncode, done.stderr, done.stdout) == (0, "", expected)


# Misuse


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "one of the arguments -m SCRIPT is required"),
        (["-m"], "argument -m: expected one argument"),
        (["--"], "one of the arguments -m SCRIPT is required"),
        (["--nonesuch"], "one of the arguments -m SCRIPT is required"),
        (["--help=x"], "argument -h/--help: ignored explicit argument"),
    ],
)
def test_bad_arguments(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["exec", *arguments])
    assert caught.value.code == 2
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (["nonesuch.py"], "cannot open 'nonesuch.py': No such file or directory"),
        (["--", "nonesuch.py"], "cannot open 'nonesuch.py': No such file or directory"),
        (["empty"], "there is no __main__ module in 'empty'"),
        (["-m", "nonesuch"], "there is no module 'nonesuch'"),
        (["-m", "empty"], "there is no module 'empty.__main__'"),
        (["-m", "json.nonesuch"], "there is no module 'json.nonesuch'"),
        (["-m", "json.tool.nonesuch"], "there is no module 'json.tool.nonesuch'"),
        (["-m", ""], "there is no module ''"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_no_such_program(
    tmp_path: Path,
    program: list[str],
    reason: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "argv", sys.argv[:])
    assert main(["exec", *program, "more"]) == 2
    assert capsys.readouterr().err == f"zdev exec: error: {reason}\n"


def test_a_module_without_python_code(tmp_path: Path) -> None:
    done = run(tmp_path, "-m", "zdev", "exec", "-m", "math")
    expected = "zdev exec: error: 'math' is no Python code\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["exec", "-h"])
    assert "usage: zdev exec [-h] (-m MODULE | SCRIPT) [ARGUMENT ...]" in capsys.readouterr().out
