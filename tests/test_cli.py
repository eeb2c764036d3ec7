"""The command line: what it prints, what it proves, and how it ends."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import gc
import io
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
import zmq

import zdev
from zdev import _demo, _engines
from zdev.cli import main

from .support import DEADLINE, available_engines, python, wait_until

ROOT = Path(__file__).parent.parent
FILES = sorted(str(path) for path in (ROOT / "tests").glob("*.py") if path.stat().st_size)

Record = _demo.Record


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m zdev`` to its end."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "zdev", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE,
        check=False,
    )


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
    """Check that neither a thread nor a descriptor is left behind."""

    def descriptors() -> set[str]:
        gc.collect()
        return set(os.listdir("/dev/fd"))

    zmq.Context().term()  # the first of a process may open /dev/urandom, for good
    threads, before = threading.active_count(), descriptors()
    yield
    assert threading.active_count() == threads
    wait_until(lambda: len(descriptors()) <= len(before))  # libzmq's reaper closes some a bit later


# Usage


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
    "arguments",
    [["nonsense"], ["--nonsense"], ["info", "more"], ["demo", "--lines"], ["demo", "-n", "0"],
     ["demo", "-n", "-1"], ["demo", "-n", "many"]],
)  # fmt: skip
def test_bad_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.search(r"^zdev( demo)?: error: ", err, re.MULTILINE)


# info


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


def without_engine(err: str) -> None:
    (line,) = err.splitlines()
    assert line.startswith("zdev: error: ZDEV_ENGINE=nonsense cannot be had: there is no engine ")


def test_info_without_an_engine() -> None:
    done = command("info", ZDEV_ENGINE="nonsense")
    assert done.returncode == 2
    without_engine(done.stderr)
    used, others = engines_told(done.stdout)
    assert used == "none: ZDEV_ENGINE=nonsense cannot be had"
    assert set(others) == set(_engines.NAMES)
    for name in available_engines():
        assert others[name] == "available, but ZDEV_ENGINE=nonsense forces another"


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
        code = f"import sys; sys.argv = [{name!r}, 'demo']; from zdev.cli import main; sys.exit(main())"
        done = python(code, ZDEV_ENGINE="nonsense")
        assert (done.returncode, done.stdout) == (2, "")
        without_engine(done.stderr)


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


# demo


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
    other.write_bytes(b"x" * (_demo.LONGEST + 1))
    names = [os.fsencode(one), os.fsencode(other)]
    everything = [
        [names[0], b"1", b"caf\xe9 \xf0\x9f\x90\x8d"],
        [names[0], b"2", b""],
        [names[0], b"3", b"\ttabbed  "],
        [names[1], b"1", b"x" * _demo.LONGEST],
        [names[1], b"2", b"x"],
    ]
    assert _demo.read([one, other, one], 100) == everything
    for limit in range(1, 6):
        assert _demo.read([one, other], limit) == everything[:limit]


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
            file, number, words, digest = _demo.answer(socket.recv_multipart())
            socket.send_multipart([file, number, words + b"?", digest, name])


def forgetful(context: zmq.Context[Any], name: bytes, address: str) -> None:
    """Be a worker that leaves the first line of each file without an answer."""
    with contextlib.suppress(zmq.ContextTerminated), context.socket(zmq.DEALER) as socket:
        socket.connect(address)
        while True:
            client, _, *request = socket.recv_multipart()
            if request[1] != b"1":
                socket.send_multipart([client, b"", *_demo.answer(request), name])


def misdelivering(context: zmq.Context[Any], name: bytes, address: str) -> None:
    """Be a worker that answers the next client."""
    following = dict(zip(_demo.CLIENTS, _demo.CLIENTS[1:] + _demo.CLIENTS[:1]))
    with contextlib.suppress(zmq.ContextTerminated), context.socket(zmq.DEALER) as socket:
        socket.connect(address)
        while True:
            client, _, *request = socket.recv_multipart()
            socket.send_multipart([following[client], b"", *_demo.answer(request), name])


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
    monkeypatch.setattr(_demo, "worker", worker)
    monkeypatch.setattr(_demo, "PATIENCE", 500)
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

    monkeypatch.setattr(_demo, "worker", dying)
    monkeypatch.setattr(_demo, "LINE_EVERY", 0.01)
    with nothing_left(), pytest.raises(ArithmeticError, match="cannot count"):
        main(["demo", __file__])


@pytest.fixture(scope="module")
def _record() -> Record:
    """What everybody sent and saw in a demo."""
    records: list[Record] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_demo, "report", lambda record, out: records.append(record))
        _demo.run(_demo.read([Path(__file__)], 60), io.StringIO())
    return records[0]


@pytest.fixture
def record(_record: Record) -> Record:
    """The same, to do with it as one likes."""
    return copy.deepcopy(_record)


ONCE, ORDERED, SEEN_IN, SEEN_OUT, COUNTED = range(5)
C = _demo.CLIENTS


def refuted(record: Record) -> dict[int, str]:
    """Return the claims that do not hold, each with what is said against it."""
    out = io.StringIO()
    claims = list(_demo.prove(record))
    proven = _demo.report(record, out)
    assert proven == (not any(differences for _, differences in claims))
    assert proven == ("FAIL" not in out.getvalue())
    for _, differences in claims:
        assert all(difference in out.getvalue() for difference in differences[:3])
    return {at: "; ".join(said) for at, (_, said) in enumerate(claims) if said}


def test_a_right_record_is_proven(record: Record) -> None:
    assert refuted(record) == {}


def first(record: Record, prefix: bytes, at: int = 0) -> int:
    """Return which copy is the first, second ... of the first client."""
    return [n for n, copy in enumerate(record.copies) if copy[:2] == [prefix, C[0]]][at]


def lose_an_answer(record: Record) -> None:
    del record.answers[C[0]][5]


def double_an_answer(record: Record) -> None:
    record.answers[C[0]].insert(6, record.answers[C[0]][5])


def change_an_answer(record: Record) -> None:
    record.answers[C[0]][5][2] = b"some words"


def change_a_digest(record: Record) -> None:
    record.answers[C[0]][5][3] = b"0" * 64


def swap_answers_of_two_clients(record: Record) -> None:
    one, other = record.answers[C[0]], record.answers[C[1]]
    one[5], other[5] = other[5], one[5]


def turn_answers_round(record: Record) -> None:
    record.answers[C[0]].reverse()


def hide_a_request(record: Record) -> None:
    del record.copies[first(record, b"in")]


def hide_the_last_answer(record: Record) -> None:
    del record.copies[first(record, b"out", -1)]


def show_a_request_twice(record: Record) -> None:
    at = first(record, b"in")
    record.copies.insert(at, record.copies[at])


def show_requests_in_the_wrong_order(record: Record) -> None:
    one, other = first(record, b"in"), first(record, b"in", 1)
    copies = record.copies
    copies[one], copies[other] = copies[other], copies[one]


def show_a_request_as_an_answer(record: Record) -> None:
    record.copies[first(record, b"in")][0] = b"out"


def show_another_text(record: Record) -> None:
    record.copies[first(record, b"in")][-1] += b"!"


def show_no_delimiter(record: Record) -> None:
    del record.copies[first(record, b"in")][2]


def show_another_delimiter(record: Record) -> None:
    record.copies[first(record, b"in")][2] = b"-"


def show_a_stranger(record: Record) -> None:
    record.copies.append([b"in", b"stranger", b"", b"file", b"1", b"text"])


def show_a_prefix_alone(record: Record) -> None:
    record.copies.append([b"out"])


def show_another_prefix(record: Record) -> None:
    record.copies.append([b"up", *record.copies[0][1:]])


@pytest.mark.parametrize(
    ("change", "claims", "said"),
    [
        (lose_an_answer, {ONCE, SEEN_OUT, COUNTED}, "no answer"),
        (double_an_answer, {ONCE, ORDERED, SEEN_OUT, COUNTED}, "answered twice"),
        (change_an_answer, {ONCE, SEEN_OUT}, "a wrong answer, .* some words"),
        (change_a_digest, {ONCE, SEEN_OUT}, "a wrong answer, .* 000000"),
        (swap_answers_of_two_clients, {ONCE, ORDERED, SEEN_OUT}, "did not ask for"),
        (turn_answers_round, {ORDERED, SEEN_OUT}, "client-1, .*: late, from worker-"),
        (hide_a_request, {SEEN_IN, COUNTED}, "client-1, number 1: .* was seen"),
        (hide_the_last_answer, {SEEN_OUT, COUNTED}, "client-1, number 15: .* nothing was seen"),
        (show_a_request_twice, {SEEN_IN, COUNTED}, "client-1, number 2: "),
        (show_requests_in_the_wrong_order, {SEEN_IN}, "client-1, number 1: "),
        (show_a_request_as_an_answer, {SEEN_IN, SEEN_OUT}, "client-1, number 1: "),
        (show_another_text, {SEEN_IN}, "client-1, number 1: .*! was seen"),
        (show_no_delimiter, {SEEN_IN}, "client-1, number 1: "),
        (show_another_delimiter, {SEEN_IN}, "client-1, number 1: "),
        (show_a_stranger, {SEEN_IN, COUNTED}, "stranger, number 1: nothing passed"),
        (show_a_prefix_alone, {SEEN_OUT, COUNTED}, "number 1: nothing passed"),
        (show_another_prefix, {COUNTED}, "copies seen: 121 instead of 120"),
    ],
)
def test_a_wrong_record_is_refuted(
    change: Callable[[Record], None], claims: set[int], said: str, record: Record
) -> None:
    change(record)
    found = refuted(record)
    assert set(found) == claims
    assert re.search(said, "; ".join(found.values()))


@pytest.mark.parametrize(
    ("way", "field"),
    [
        *itertools.product(
            ("frontend_to_backend", "backend_to_frontend"),
            ("messages_received", "messages_sent", "dropped", "unroutable", "parked"),
        ),
        *itertools.product(("capture",), ("sent", "dropped", "parked")),
    ],
)
def test_wrong_statistics_are_refuted(way: str, field: str, record: Record) -> None:
    counts = getattr(record.statistics, way)
    wrong = counts._replace(**{field: getattr(counts, field) + 1})
    statistics = record.statistics._replace(**{way: wrong})
    assert set(refuted(dataclasses.replace(record, statistics=statistics))) == {COUNTED}


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
    display = _demo.Display(terminal, 60)
    idle = zdev.DirectionStatistics(*[0] * 9)
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
    monkeypatch.setattr(_demo, "TABLE_EVERY", 0.001)
    drawn = threading.Event()
    show, worker = _demo.Display.show, _demo.worker

    def shown(display: _demo.Display, statistics: zdev.Statistics) -> None:
        show(display, statistics)
        drawn.set()

    def patient(*arguments: Any) -> None:
        assert drawn.wait(DEADLINE)
        worker(*arguments)

    monkeypatch.setattr(_demo.Display, "show", shown)
    monkeypatch.setattr(_demo, "worker", patient)
    terminal = Terminal()
    assert _demo.run(_demo.read([Path(__file__)], 200), terminal)
    assert terminal.getvalue().count("msg/s") > 1
    assert sum("msg/s" in row for row in terminal.screen()) == 1


def test_no_table_on_a_dumb_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    terminal = Terminal()
    assert _demo.run(_demo.read([Path(__file__)], 10), terminal)
    assert "\x1b" not in terminal.getvalue()


# Ctrl-C


def test_an_interrupted_demo_leaves_nothing(
    engine: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Traffic flows in both directions when it comes."""

    def interrupt(display: _demo.Display, statistics: zdev.Statistics) -> None:
        if statistics.backend_to_frontend.messages_sent:
            raise KeyboardInterrupt

    monkeypatch.setattr(_demo.Display, "show", interrupt)
    monkeypatch.setattr(_demo, "LINE_EVERY", 0.01)
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
