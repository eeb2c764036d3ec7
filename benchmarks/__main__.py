"""The command; see README.md."""

from __future__ import annotations

import argparse
import fnmatch
import importlib.util
import json
import os
import pathlib
import platform
import sys

import zmq

from . import gate, report, systems
from .load import Load
from .measure import in_process, measure
from .workloads import WORKLOADS, Workload


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure zdev side by side with pyzmq, libzmq's proxy and no device at all.",
        epilog="`python -m benchmarks gate` checks the figures that repeat from run to run.",
    )
    parser.add_argument(
        "what",
        nargs="*",
        metavar="WHAT",
        default=["main", "latency"],
        help="groups of workloads, names, or patterns of either; default: main latency; all: '*'",
    )
    parser.add_argument("--list", action="store_true", help="list the workloads")
    parser.add_argument("--rounds", type=int, metavar="N", help="default: 9")
    parser.add_argument("--seconds", type=float, metavar="S", help="of each run; default: 0.3")
    parser.add_argument("--quick", action="store_true", help="3 rounds of 0.1 s: a glance, no more")
    parser.add_argument(
        "--systems", nargs="+", metavar="NAME", help="only these; patterns too; behind WHAT"
    )
    parser.add_argument("--json", metavar="FILE", help="write every single figure there")
    parser.add_argument(
        "--picture",
        metavar="PATH",
        help="draw PATH.png and PATH.svg; default: results, beside this program, unless WHAT or "
        "--quick is given; '' for none",
    )
    given = parser.parse_args()
    if given.picture is None:
        whole = given.what == parser.get_default("what") and not given.quick
        given.picture = str(pathlib.Path(__file__).with_name("results")) if whole else ""
    given.rounds = given.rounds or (3 if given.quick else 9)
    given.seconds = given.seconds or (0.1 if given.quick else 0.3)
    return given


def _machine() -> str:
    model = platform.machine()
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    return (
        f"{platform.python_implementation()} {platform.python_version()}, "
        f"pyzmq {zmq.__version__}, libzmq {zmq.zmq_version()}, {model}, {os.cpu_count()} CPUs"
    )


def _rounds(workload: Workload, names: list[str], rounds: int, seconds: float) -> report.Figures:
    """Run every system in turn, there and back, so that a drift cancels out."""
    runs = [*names, report.AGAIN]
    figures: report.Figures = {run: [] for run in runs}
    for number in range(rounds):
        for run in runs if number % 2 == 0 else reversed(runs):
            system = names[0] if run == report.AGAIN else run
            figures[run].append(in_process(measure, system, workload, system, seconds))
    return figures


def _chosen(items: list[str], patterns: list[str] | None) -> list[str]:
    return [
        item
        for item in items
        if not patterns or any(fnmatch.fnmatchcase(item, pattern) for pattern in patterns)
    ]


def main() -> int:
    """Run the command and return its exit code."""
    if "gate" in sys.argv[1:]:
        if len(sys.argv) > 2:
            print("the gate takes no arguments: python -m benchmarks gate")
            return 2
        return gate.main()
    given = _arguments()
    wanted = [
        name for name, workload in WORKLOADS.items() if _chosen([name, workload.group], given.what)
    ]
    if given.list:
        for name in wanted:
            print(f"{WORKLOADS[name].group:8}  {name}")
        return 0
    if not wanted or not _chosen(systems.available(), given.systems):
        print("nothing to measure: --list '*' shows the workloads; the systems are")
        print(*(f"  {system!r}" for system in systems.available()), sep="\n")
        return 2
    if given.picture and not importlib.util.find_spec("matplotlib"):
        print("matplotlib is missing: pip install -e '.[bench]', or leave it out with --picture ''")
        return 2
    Load()  # builds it, once for all

    print(_machine(), flush=True)
    results: report.Results = {}
    for name in wanted:
        names = _chosen(systems.fit(WORKLOADS[name]), given.systems)
        if not names:
            continue
        results[name] = _rounds(WORKLOADS[name], names, given.rounds, given.seconds)
        print("\n" + report.table(name, results[name]), flush=True)
        if given.json:
            text = json.dumps({"machine": _machine(), "results": results}, indent=1)
            pathlib.Path(given.json).write_text(text, encoding="utf-8")
    if not results:
        print("none of these systems fits any of these workloads")
        return 2
    print("\n" + report.summary(results))
    reached = report.goals(results, platform.python_implementation() == "PyPy")
    print(f"\nGoals\n{reached}" if reached else "")
    if given.picture:
        print("drawn:", *report.draw(results, _machine(), given.picture))
    return 0


if __name__ == "__main__":
    sys.exit(main())
