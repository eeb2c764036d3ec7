"""Makes the table, the verdicts and the picture of what was measured."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from . import systems
from .workloads import PACED, WORKLOADS

__all__ = ["AGAIN", "draw", "goals", "summary", "table"]

# A second run of the first system in every round: how much a ratio is when nothing differs.
AGAIN = "the same again"

# The figures of one workload: of each system, one of each kind for each round.
Figures = dict[str, list[dict[str, float]]]
Results = dict[str, Figures]


def _quartiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) < 2:
        return (values[0],) * 3
    low, middle, high = statistics.quantiles(values, method="inclusive")
    return low, middle, high


def _median(figures: Figures, system: str, kind: str) -> float | None:
    values = [one[kind] for one in figures[system] if kind in one]
    return statistics.median(values) if values else None


def ratios(figures: Figures, one: str, other: str, kind: str) -> tuple[float, float, float]:
    """Return by what factor the one system is better: first quartile, median, third quartile."""
    pairs = [(a[kind], b[kind]) for a, b in zip(figures[one], figures[other])]
    return _quartiles([a / b if kind == "rate" else b / a for a, b in pairs])


def _text(quartiles: tuple[float, float, float]) -> str:
    low, middle, high = quartiles
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def _kind(figures: Figures) -> str:
    """Return which figure of a workload counts."""
    return "p50" if "p50" in next(iter(figures.values()))[0] else "rate"


def table(name: str, figures: Figures) -> str:
    """Return the absolute figures of one workload, and how much better its first system is."""
    first = next(iter(figures))
    kinds = {"messages/s": ("rate", 1.0), "CPU ns": ("cpu", 1.0)}
    if _kind(figures) == "p50":
        kinds = {f"{kind} us": (kind, 1e-3) for kind in ("p50", "p99", "p99.9")}
        kinds["CPU ns"] = ("cpu", 1.0)
    head = "".join(f"{title:>12}" for title in kinds)
    lines = [f"{name:44}{head}  {first} is better by"]
    for system in figures:
        line = f"  {system:42}"
        for kind, scale in kinds.values():
            value = _median(figures, system, kind)
            line += (
                f"{'':12}" if value is None else f"{value * scale:12,.{0 if scale == 1 else 1}f}"
            )
        if system != first:
            line += f"  {_text(ratios(figures, first, system, _kind(figures)))}"
        lines.append(line)
    return "\n".join(lines)


def summary(results: Results) -> str:
    """Return one Markdown row a workload: how much better the first system is than each other."""
    columns = list(dict.fromkeys(system for figures in results.values() for system in figures))
    first = columns[0]
    others = [system for system in columns[1:] if system != AGAIN] + [AGAIN]
    lines = [
        f"| {first} against | " + " | ".join(others) + " |",
        "|---" * (len(others) + 1) + "|",
    ]
    for name, figures in results.items():
        if first not in figures:
            continue
        kinds = ["p50", "p99"] if _kind(figures) == "p50" else ["rate"]
        for kind in kinds:
            cells = [
                _text(ratios(figures, first, system, kind)) if system in figures else ""
                for system in others
            ]
            title = name if kind == "rate" else f"{name}, {kind}"
            lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


@dataclass(frozen=True)
class Goal:
    """By what factor one system should be better than another."""

    workload: str
    factor: float
    other: str
    system: str = "zdev cffi"
    kind: str = "rate"


BASE = "PULL-PUSH inproc 100 B"
MONITORED = "PULL-PUSH inproc 100 B + PUB"
ROUTERS = "ROUTER-ROUTER inproc 100 B + PUB"


def _goals(pypy: bool) -> list[Goal]:
    below = [
        Goal(name, 1.0, systems.PROXY)
        for name, workload in WORKLOADS.items()
        if workload.transport == "inproc" and workload.shape == "flood"
    ]
    below += [Goal(f"PULL-PUSH tcp {size} B", 1.35, systems.PROXY) for size in (8, 100)]
    without = "zdev cffi-abi" if pypy else "zdev ctypes"
    for name, compiled, uncompiled in (
        (BASE, 35, 15 if pypy else 5),
        (MONITORED, 15, 10 if pypy else 2.5),
        (ROUTERS, 9, 6 if pypy else 2.5),
    ):
        if pypy:
            below.append(Goal(name, compiled, systems.PYTHON))
        below.append(Goal(name, uncompiled, systems.PYTHON, without))
    if not pypy:
        for device, factor in (
            ("PULL-PUSH", 5.0), ("XSUB-XPUB", 5.0), ("ROUTER-DEALER", 2.3), ("ROUTER-ROUTER", 2.3),
        ):  # fmt: skip
            below.append(Goal(f"{device} inproc 100 B + PUB", factor, systems.MQ))
        for shape in PACED:
            reverse = f"ROUTER-DEALER inproc 100 B {shape} + PUB"
            below.append(Goal(reverse, 3.0, systems.MQ, kind="p99"))
    return below


def goals(results: Results, pypy: bool) -> str:
    """Return what was reached of the goals that these results speak of."""
    lines = []
    for goal in _goals(pypy):
        figures = results.get(goal.workload, {})
        if goal.system in figures and goal.other in figures:
            quartiles = ratios(figures, goal.system, goal.other, goal.kind)
            reached = "reached" if quartiles[1] >= goal.factor else "missed"
            what = f"{goal.workload}: {goal.system} / {goal.other}"
            lines.append(f"  {what:76} {_text(quartiles):24} of {goal.factor:5g}  {reached}")
    few, many = (results.get(f"ROUTER-DEALER inproc 100 B{text}") for text in ("", " 1000 clients"))
    if few and many and "zdev cffi" in few:
        costs = [_median(figures, "zdev cffi", "cpu") or 0 for figures in (few, many)]
        factor = costs[1] / costs[0]
        reached = "reached" if factor <= 1.3 else "missed"
        what = "CPU a message, 1000 clients / 1 client: zdev cffi"
        lines.append(f"  {what:76} {factor:<24.2f} <= {1.3:5g}  {reached}")
    return "\n".join(lines)


def draw(results: Results, title: str, path: str) -> list[str]:
    """Draw the results as PNG and SVG, and return the files' names."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    panels = [
        ("rate", 1.0, "messages/s, median and quartiles"),
        ("p50", 1e-3, "latency in µs, from the median to p99"),
    ]
    shown = [
        (kind, scale, label, [name for name in results if _kind(results[name]) == kind])
        for kind, scale, label in panels
    ]
    shown = [panel for panel in shown if panel[3]]
    heights = [len(names) for *_, names in shown]
    figure, axes = pyplot.subplots(
        len(shown),
        figsize=(9, 1.6 + 0.42 * sum(heights) + 0.6 * len(shown)),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    columns = dict.fromkeys(system for figures in results.values() for system in figures)
    drawn = [system for system in columns if system != AGAIN]
    for axis, (kind, scale, label, names) in zip(axes[:, 0], shown):
        for number, system in enumerate(drawn):
            rows, middles, spans = [], [], []
            for row, name in enumerate(names):
                figures = results[name]
                if system not in figures:
                    continue
                values = [one[kind] * scale for one in figures[system]]
                low, middle, high = _quartiles(values)
                if kind == "p50":
                    low, high = middle, (_median(figures, system, "p99") or 0) * scale
                rows.append(row + (number - len(drawn) / 2) * 0.08)
                middles.append(middle)
                spans.append((middle - low, max(high - middle, 0)))
            below, above = zip(*spans) if spans else ((), ())
            axis.errorbar(
                middles, rows, xerr=(below, above), fmt="o", ms=5, lw=1, color=f"C{number}",
                label=system, zorder=3 if number == 0 else 2,
            )  # fmt: skip
        axis.set_xscale("log")
        axis.set_xlabel(label)
        axis.set_yticks(range(len(names)), names)
        axis.invert_yaxis()
        axis.grid(axis="both", alpha=0.3)
    figure.suptitle(title, fontsize="medium")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    files = [f"{path}.{suffix}" for suffix in ("png", "svg")]
    for file in files:
        figure.savefig(file, dpi=150)
    return files
