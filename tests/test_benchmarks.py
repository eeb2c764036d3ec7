"""What the benchmarks make of their figures; CI runs the benchmarks themselves."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gate, report, systems
from benchmarks.workloads import WORKLOADS, Workload

ROOT = Path(__file__).resolve().parent.parent
OURS, BASE = "zdev cffi", "PULL-PUSH inproc 100 B"


def rates(*figures: float) -> list[dict[str, float]]:
    return [{"rate": figure, "cpu": 1e9 / figure} for figure in figures]


def results(**factors: float) -> report.Results:
    """One workload in which ours is so many times as fast as the others."""
    ours = rates(100, 110, 120)
    others = {
        system: rates(*(one["rate"] / factor for one in ours)) for system, factor in factors.items()
    }
    return {BASE: {OURS: ours, **others, report.AGAIN: ours}}


def test_ratios_are_paired_and_above_one_where_better() -> None:
    figures = {"a": rates(100, 200, 400), "b": rates(50, 100, 200)}
    # By pairs: the medians of each system have another ratio as soon as one round is slow.
    figures["b"][2]["rate"] = 20
    assert report.ratios(figures, "a", "b", "rate") == (2, 2, 11)
    latency = {"a": [{"p50": 10.0}], "b": [{"p50": 40.0}]}
    assert report.ratios(latency, "a", "b", "p50") == (4, 4, 4)


@pytest.mark.parametrize(("factor", "verdict"), [(1.02, "reached"), (0.97, "missed")])
def test_goals_are_judged(factor: float, verdict: str) -> None:
    text = report.goals(results(**{systems.PROXY: factor}), pypy=False)
    assert text.count("\n") == 0
    assert text.endswith(verdict)
    assert f"{factor:.2f}" in text


def test_goals_speak_of_what_was_measured() -> None:
    assert report.goals({}, pypy=False) == report.goals({}, pypy=True) == ""
    assert "of     5  reached" in report.goals(
        {BASE: {"zdev ctypes": rates(60), systems.PYTHON: rates(10)}}, pypy=False
    )


def test_cost_of_clients() -> None:
    few, many = "ROUTER-DEALER inproc 100 B", "ROUTER-DEALER inproc 100 B 1000 clients"
    for times, verdict in ((1.2, "reached"), (1.5, "missed")):
        text = report.goals({few: {OURS: rates(100)}, many: {OURS: rates(100 / times)}}, pypy=False)
        assert text.endswith(verdict)


def test_table_and_summary() -> None:
    measured = results(**{systems.PROXY: 2})
    table = report.table(BASE, measured[BASE])
    assert [line.split("  ")[0] for line in table.splitlines()] == [BASE, "", "", ""]
    assert "2.00 [2.00, 2.00]" in table
    assert report.summary(measured).splitlines()[2:] == [
        f"| {BASE} | 2.00 [2.00, 2.00] | 1.00 [1.00, 1.00] |"
    ]


def test_every_goal_has_its_workload() -> None:
    for pypy in (False, True):
        for goal in report._goals(pypy):
            assert goal.workload in WORKLOADS


def test_equal_work_is_compared() -> None:
    everything = set(systems.available())
    plain, monitored = Workload("test"), Workload("test", monitor="PUB")
    assert set(systems.fit(plain)) == everything
    assert set(systems.fit(monitored)) == everything - {systems.PROXY}
    captured = Workload("test", monitor="PUB", prefixed=False)
    assert set(systems.fit(captured)) == everything - {systems.MQ, systems.PYTHON}


def test_the_gate_fails_where_a_limit_is_exceeded(capsys: pytest.CaptureFixture[str]) -> None:
    gated = gate.Report()
    gated.line("no limit", 10.0)
    gated.line("at the limit", 1.0, 1.0)
    assert not gated.exceeded
    gated.line("beyond", 1.01, 1.0)
    assert len(gated.exceeded) == 1
    assert "EXCEEDS 1" in capsys.readouterr().out
    gated.line("not measured", 0.0, 1.0)
    gated.line("not measured", math.nan, 1.0)
    assert len(gated.exceeded) == 3
    gated.line("no CPU time at all", 0.0, 1.0, -1.0)
    assert len(gated.exceeded) == 3


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        (["--list", "tcp"], 0, "tcp       PULL-PUSH tcp 8 B"),
        (["--quick", "gate"], 2, "the gate takes no arguments"),
        (["nonsense"], 2, "nothing to measure: --list '*' shows the workloads"),
        (["--systems", "nonsense"], 2, repr(systems.available()[0])),
    ],
)
def test_command(arguments: list[str], status: int, text: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status
    assert text in done.stdout
