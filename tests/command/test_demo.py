"""``zdev demo``: what it relays, shows and proves, and how it ends."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Callable

import pytest
import zmq

import zdev
from zdev.cli import demo, demo_display, demo_requests, main
from zdev.cli.demo_proof import Record

from ..support import DEADLINE
from .running import ROOT, command, nothing_left

FILES = sorted(str(path) for path in (ROOT / "tests").glob("*.py") if path.stat().st_size)


def test_demo_proves_what_it_relays(engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    with nothing_left():
        assert main(["demo", "--lines", "300", *FILES]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("\nok ") == 5
    assert "FAIL" not in out
    assert "in 300 (" in out
    assert "out 300 (" in out
    assert "monitor 600 (" in out
    assert out.endswith("\nProven: 300 requests, 300 answers, 600 copies for the monitor.\n")


def test_demo_of_python_itself() -> None:
    done = command("demo", "-n", "200")
    assert (done.returncode, done.stderr) == (0, "")
    assert os.path.dirname(os.__file__) in done.stdout
    assert "Proven: 200 requests" in done.stdout


def test_demo_of_a_single_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "line.txt"
    file.write_bytes(b"no end of line")
    assert main(["demo", str(file)]) == 0
    assert "Proven: 1 requests" in capsys.readouterr().out


def test_demo_without_a_reader() -> None:
    """As in ``zdev demo | head -1``."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "zdev", "demo", "-n", "200"],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": ""},  # what is buffered is flushed at exit
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(DEADLINE) == 1


def test_files_are_read_as_they_are(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"caf\xe9 \xf0\x9f\x90\x8d\r\n\n\ttabbed  \n")
    other.write_bytes(b"x" * (demo_requests.LONGEST + 1))
    names = [os.fsencode(one), os.fsencode(other)]
    everything = [
        [names[0], b"1", b"caf\xe9 \xf0\x9f\x90\x8d"],
        [names[0], b"2", b""],
        [names[0], b"3", b"\ttabbed  "],
        [names[1], b"1", b"x" * demo_requests.LONGEST],
        [names[1], b"2", b"x"],
    ]
    assert demo_requests.read([one, other, one], 100) == everything
    for limit in range(1, 6):
        assert demo_requests.read([one, other], limit) == everything[:limit]


@pytest.mark.parametrize("good_first", [False, True])
@pytest.mark.parametrize(
    ("content", "why"),
    [(None, "cannot be read: No such file"), (b"", "is empty"),
     (b"text\nbi\0nary\n", "is not a text: a NUL byte is in line 2")],
)  # fmt: skip
def test_files_that_cannot_be_sent(
    content: bytes | None,
    why: str,
    good_first: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bad, good = tmp_path / "bad", tmp_path / "good"
    good.write_bytes(b"one\ntwo\n")
    if content is not None:
        bad.write_bytes(content)
    files = [str(good), str(bad)] if good_first else [str(bad), str(good)]
    assert main(["demo", *files]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"zdev demo: error: {bad} {why}")


def test_a_directory_is_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", str(tmp_path)]) == 2
    assert f"error: {tmp_path} cannot be read: Is a directory" in capsys.readouterr().err


def test_a_python_without_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "__file__", str(tmp_path / "os.py"))
    assert main(["demo"]) == 2
    assert "name a text file" in capsys.readouterr().err


# demo: what it makes of faults


def miscounting(context: zmq.Context[Any], name: bytes, address: str) -> None:
    """Be a worker that takes one thing for another."""
    with contextlib.suppress(zmq.ContextTerminated), context.socket(zmq.REP) as socket:
        socket.connect(address)
        while True:
            file, number, words, digest = demo_requests.answer(socket.recv_multipart())
            socket.send_multipart([file, number, words + b"?", digest, name])


def forgetful(context: zmq.Context[Any], name: bytes, address: str) -> None:
    """Be a worker that leaves the first line of each file without an answer."""
    with contextlib.suppress(zmq.ContextTerminated), context.socket(zmq.DEALER) as socket:
        socket.connect(address)
        while True:
            client, _, *request = socket.recv_multipart()
            if request[1] != b"1":
                socket.send_multipart([client, b"", *demo_requests.answer(request), name])


def misdelivering(context: zmq.Context[Any], name: bytes, address: str) -> None:
    """Be a worker that answers the next client."""
    following = dict(zip(demo.CLIENTS, demo.CLIENTS[1:] + demo.CLIENTS[:1]))
    with contextlib.suppress(zmq.ContextTerminated), context.socket(zmq.DEALER) as socket:
        socket.connect(address)
        while True:
            client, _, *request = socket.recv_multipart()
            socket.send_multipart([following[client], b"", *demo_requests.answer(request), name])


@pytest.mark.parametrize(
    ("worker", "what"),
    [(miscounting, r"client-1, .*:\d+: a wrong answer, .* words\? "),
     (forgetful, r"client-1, .*:1: no answer"),
     (misdelivering, r"client-1, .*:\d+: an answer that it did not ask for")],
)  # fmt: skip
def test_demo_tells_when_a_worker_errs(
    engine: str,
    worker: Callable[..., None],
    what: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(demo, "worker", worker)
    monkeypatch.setattr(demo, "PATIENCE", 500)
    with nothing_left():
        assert main(["demo", "-n", "40", __file__]) == 1
    out = capsys.readouterr().out
    assert "\nFAIL each request was answered once" in out
    assert re.search(what, out)
    assert "\nNOT proven, see FAIL: 40 requests" in out


def test_demo_tells_when_the_monitor_is_misled(
    engine: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    relay = zdev.Relay

    def misled(*sockets: Any, **_: Any) -> zdev.Relay:
        return relay(*sockets, in_prefix=b"out", out_prefix=b"in")

    monkeypatch.setattr(zdev, "Relay", misled)
    assert main(["demo", "-n", "40", __file__]) == 1
    out = capsys.readouterr().out
    assert "\nok   each request was answered once" in out
    assert "\nFAIL the monitor saw each request" in out
    assert "\nFAIL the monitor saw each answer" in out


def test_demo_ends_when_a_worker_dies(
    engine: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def dying(*_: Any) -> None:
        raise ArithmeticError("cannot count")

    monkeypatch.setattr(demo, "worker", dying)
    monkeypatch.setattr(demo_display, "LINE_EVERY", 0.01)
    with nothing_left(), pytest.raises(ArithmeticError, match="cannot count"):
        main(["demo", __file__])


# The live table


class Terminal(io.StringIO):
    """A terminal that knows as much of ANSI as the table needs."""

    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        """Return what stands on it."""
        rows, row = [""], 0
        for part in re.split(r"(\x1b\[\d*[A-Z]|\n)", self.getvalue()):
            if part == "\n":
                row += 1
                rows += [""] * (row == len(rows))
                column = 0
            elif part.endswith("A") and part.startswith("\x1b"):
                row -= int(part[2:-1])
                assert row >= 0
            elif part == "\x1b[K":
                rows[row] = rows[row][:column]
            else:
                assert "\x1b" not in part
                column = len(part)
                rows[row] = part + rows[row][column:]
        return rows


@pytest.mark.parametrize("columns", [40, 80])
def test_the_table_is_redrawn_in_place(
    record: Record, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    terminal = Terminal()
    display = demo_display.Display(terminal, 60)
    idle = zdev.DirectionStatistics(*[0] * 10)
    nothing = zdev.Statistics(idle, idle, zdev.CaptureStatistics(0, 0, 0))
    for statistics in (nothing, record.statistics, record.statistics):
        display.show(statistics)
    display.end(record.statistics)
    screen = terminal.screen()
    assert [bool(row) for row in screen] == [True] * 5 + [False] * 2
    assert all(len(row) < columns for row in screen)
    if columns == 80:
        there, back, _ = record.statistics
        assert screen[1].split()[-3:] == ["60", f"{there.bytes_sent:,}", "0"]
        assert screen[2].split()[-3:] == ["60", f"{back.bytes_sent:,}", "0"]
        assert screen[3].split()[-2:] == ["120", "0"]
        assert "[" + 40 * "#" + "] 100%" in screen[4]


def test_demo_on_a_terminal(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(demo_display, "TABLE_EVERY", 0.001)
    drawn = threading.Event()
    show, worker = demo_display.Display.show, demo.worker

    def shown(display: demo_display.Display, statistics: zdev.Statistics) -> None:
        show(display, statistics)
        drawn.set()

    def patient(*arguments: Any) -> None:
        assert drawn.wait(DEADLINE)
        worker(*arguments)

    monkeypatch.setattr(demo_display.Display, "show", shown)
    monkeypatch.setattr(demo, "worker", patient)
    terminal = Terminal()
    assert demo.run(demo_requests.read([Path(__file__)], 200), terminal)
    assert terminal.getvalue().count("msg/s") > 1
    assert sum("msg/s" in row for row in terminal.screen()) == 1


def test_no_table_on_a_dumb_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal()
    assert demo.run(demo_requests.read([Path(__file__)], 10), terminal)
    assert "\x1b" not in terminal.getvalue()


# Ctrl-C


def test_an_interrupted_demo_leaves_nothing(
    engine: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Traffic flows in both directions when it comes."""

    def interrupt(display: demo_display.Display, statistics: zdev.Statistics) -> None:
        if statistics.backend_to_frontend.messages_sent:
            raise KeyboardInterrupt

    monkeypatch.setattr(demo_display.Display, "show", interrupt)
    monkeypatch.setattr(demo_display, "LINE_EVERY", 0.01)
    with nothing_left():
        assert main(["demo"]) == 130
    assert capsys.readouterr().err == "\ninterrupted\n"


def test_ctrl_c() -> None:
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "zdev", "demo", "-n", "1000000"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the tests may ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout
        assert process.stderr
        for line in process.stdout:
            if "/s)" in line:
                break
        else:
            pytest.fail("no traffic was shown")
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == "\ninterrupted\n"
        assert process.wait(DEADLINE) == 130
