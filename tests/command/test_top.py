"""``zdev top``: what devices do, of a run and of a control socket."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import zmq

import zdev
from zdev.cli.top import SORTS
from zdev.cli.top_samples import HEADS, Row, Sample, cells, samples

from ..support import DEADLINE, Network, running, wait_until
from .running import ROOT, command
from .test_run import QUEUE, TASKS, passes
from .test_run import running as service


def told(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["schema"] for line in lines} == {"top/1"}
    return lines


def test_a_run(net: Network, file: Path) -> None:
    with service(file, QUEUE + TASKS) as run:
        ends = dict(run.next() for _ in range(2))
        passes(net, ends["depot"])
        for address in ([], [str(file)]):
            (look,) = told(command("top", "--json", "--count", "1", *address))
            assert look["problem"] is None
            depot, tasks = look["devices"]
            assert (depot["name"], depot["kind"], depot["state"]) == ("depot", "queue", "relays")
            assert depot["counts"]["in_messages"] == depot["counts"]["out_messages"] == 1
            assert (depot["parked"], depot["peers"], depot["restarts"]) == (0, 2, 0)
            assert depot["endpoints"] == [*ends["depot"]["in"], *ends["depot"]["out"]]
            assert tasks["counts"]["in_messages"] == 0
        plain = command("top", "--count", "2", "--interval", "0.1")
        head, *lines = plain.stdout.splitlines()
        assert head.split() == ["time", "device", *" ".join(HEADS).split(), "state"]
        assert [line.split()[1] for line in lines] == ["depot", "tasks"] * 2
        run.reload("x")
        (look,) = told(command("top", "--json", "--count", "1"))
        assert look["problem"].startswith("the last reload failed: ")
        (child, _) = run.children()
        os.kill(child, signal.SIGSTOP)
        states = {d["state"] for d in told(command("top", "--json", "--count", "1"))[0]["devices"]}
        assert states == {"relays", "does not answer"}
        os.kill(child, signal.SIGCONT)
        assert run.end() == 0


def test_the_only_run(file: Path) -> None:
    done = command("top")
    assert done.returncode == 2
    assert "there is no zdev run of yours; name the file of one, or an address" in done.stderr
    other = file.with_name("other.toml")
    with service(file, TASKS) as run, service(other, TASKS) as second:
        run.next(), second.next()
        done = command("top")
        assert done.returncode == 2
        assert "there are several; name one of " in done.stderr
        assert str(other) in done.stderr
    done = command("top", str(file))
    assert done.returncode == 2
    assert f"there is no zdev run of {file}" in done.stderr


def test_the_only_run_may_be_known_by_a_link(file: Path) -> None:
    """Which may lead to another version of the file by now."""
    link = file.with_name("link.toml")
    link.symlink_to(file)
    with service(link, TASKS) as run:
        run.next()
        assert told(command("top", "--json", "--count", "1"))[0]["devices"][0]["name"] == "tasks"
        other = file.with_name("other.toml")
        other.write_text(TASKS)
        link.unlink()
        link.symlink_to(other)
        assert told(command("top", "--json", "--count", "1"))[0]["devices"][0]["name"] == "tasks"
        assert run.end() == 0


def test_a_run_that_ends(file: Path) -> None:
    with service(file, TASKS) as run:
        run.next()
        with subprocess.Popen(
            [sys.executable, "-m", "zdev", "top", "--plain", "--interval", "0.05", str(file)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as top:
            assert top.stdout is not None
            assert "tasks" in [top.stdout.readline() for _ in range(3)][2]
            assert run.end() == 0
            _, err = top.communicate(timeout=DEADLINE)
    # It has ended before it was asked, or before it has answered.
    assert (top.returncode, err.count("\n")) == (1, 1)
    assert err.startswith("zdev top: error: ")


def test_a_control_socket(net: Network) -> None:
    control = net.bound(zmq.REP, "tcp")
    address = control.getsockopt_string(zmq.LAST_ENDPOINT)
    frontend, backend = net.bound(zmq.PULL), net.bound(zmq.PUSH)
    source, sink = net.peer(frontend, zmq.PUSH), net.peer(backend, zmq.PULL)
    relay = zdev.Relay(frontend, backend, control=control)
    with running(relay):
        source.send_multipart([b"ab", b"c"])
        assert sink.recv_multipart() == [b"ab", b"c"]
        (look,) = told(command("top", address, "--json", "--count", "1"))
    (row,) = look["devices"]
    assert (row["name"], row["parked"], row["peers"]) == (address, None, None)
    expected = {"in_frames": 2, "in_bytes": 3, "out_frames": 0, "out_bytes": 0}
    assert row["counts"] == expected


def test_nobody_answers(net: Network) -> None:
    silent = net.bound(zmq.ROUTER, "tcp").getsockopt_string(zmq.LAST_ENDPOINT)
    done = command("top", silent)
    assert done.returncode == 3
    assert done.stderr.startswith("zdev top: error: STATISTICS was sent")


@pytest.mark.parametrize("words", [["--interval", "0"], ["--count", "0"], ["--sort", "size"]])
def test_what_is_refused(words: list[str]) -> None:
    assert command("top", *words).returncode == 2


def test_ctrl_c_is_the_usual_end(file: Path) -> None:
    with service(file, TASKS) as run:
        run.next()
        with subprocess.Popen(
            [sys.executable, "-m", "zdev", "top"], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as top:
            assert top.stdout is not None
            top.stdout.readline()
            top.send_signal(signal.SIGINT)
            assert top.wait(DEADLINE) == 0
        assert run.end() == 0


# Without processes


def row(name: str, **known: Any) -> Row:
    counts = {"in_messages": 0.0, "out_messages": 0.0, "dropped": 0.0, **known.pop("counts", {})}
    return Row(name, counts=counts, **known)


def test_rates_are_of_the_time_between_looks() -> None:
    counts = iter([5.0, 25.0, 25.0])
    looks = samples(lambda: Sample(0.0, [row("x", counts={"in_messages": next(counts)})]), 0.05)
    first, second, third = next(looks), next(looks), next(looks)
    assert first.rows[0].rates["in_messages"] is None
    rate = second.rows[0].rates["in_messages"]
    assert rate is not None
    assert 0 < rate <= 20 / 0.05
    assert third.rows[0].rates["in_messages"] == 0


def test_what_comes_first() -> None:
    rows = [
        row("a", parked_seconds=1.0, rates={"in_messages": 5.0, "in_bytes": 900.0}),
        row("c", parked_seconds=2.0, rates={"in_messages": 7.0}),
        row("b", counts={"dropped": 3.0}, rates={"in_messages": None}),
    ]
    order = {name: "".join(r.name for r in sorted(rows, key=key)) for name, key in SORTS.items()}
    assert order == {"name": "abc", "rate": "cab", "parked": "cab", "dropped": "bac"}


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"), (999, "999"), (999.4, "999"), (999.6, "1k"), (1234567, "1.23M"),
        (5e13, "50T"), (3e16, "3e+04T"), (0.2, "0"),
    ],
)  # fmt: skip
def test_numbers_are_short(number: float, text: str) -> None:
    assert cells(row("x", peers=number))[HEADS.index("peers")] == text


def test_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    rich = pytest.importorskip("rich.console", reason="rich is not installed")
    from zdev.cli.top_table import table

    sample = Sample(
        0.0,
        [
            row("de\x1b[31mpot", state="waits", counts={"dropped": 12345}, endpoints=["tcp://a:1"]),
            row("[bold]news[/bold]", parked=1, parked_seconds=7.2, peers=3),
        ],
        "the last reload failed: x",
    )
    for width in (160, 100, 80, 60):
        out = io.StringIO()
        with table("zdev.toml", rich.Console(file=out, width=width, force_terminal=False)) as show:
            show(sample)
        shown = out.getvalue()
        assert max(map(len, shown.splitlines())) <= width
        for words in (r"de\x1b[31mpot", "[bold]news[/bold]", "12.3k", "7s", "in/s", "waits"):
            assert words in shown or width == 60  # where it is cut
        assert ("peers" in shown) == (width > 80)  # which matters less than the name
        assert "tcp://a:1" in shown
        assert "the last reload failed: x" in shown


def test_without_rich_there_are_lines(file: Path, tmp_path: Path) -> None:
    """On a terminal, where there would be a table."""
    pty = pytest.importorskip("pty", reason="this system has no terminals")
    (tmp_path / "rich.py").write_text("raise ImportError('hidden by a test')\n")
    with service(file, TASKS) as run:
        run.next()
        ours, theirs = pty.openpty()
        done = subprocess.run(
            [sys.executable, "-m", "zdev", "top", "--count", "1"],
            cwd=ROOT,
            env={**os.environ, "TERM": "xterm", "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
            stdout=theirs,
            stderr=subprocess.PIPE,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        os.close(theirs)
        shown = os.read(ours, 10_000).decode()
        os.close(ours)
        assert done.returncode == 0
        assert "the table needs rich: pip install 'zmq-devices[cli]'" in done.stderr
        assert "tasks" in shown
        assert run.end() == 0
    wait_until(lambda: run.process.poll() is not None)
