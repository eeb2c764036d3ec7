"""The table of ``zdev top``, by rich, which nothing else imports."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Callable

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from zdev.cli._values import readable
from zdev.cli.top_samples import HEADS, Row, Sample, cells

__all__ = ["table"]

LESS = ("subs", "in B/s", "out B/s", "mon/s", "starts", "unrout", "peers")
"""What a terminal that is too narrow does not show, in this order."""

WARN = {"drop", "overfl", "unrout", "parked"}
"""Columns in which anything but 0 is worth a look."""


@contextlib.contextmanager
def table(what: str, console: Console | None = None) -> Iterator[Callable[[Sample], None]]:
    """Return what shows a sample in a table, which is drawn in place."""
    console = console or Console()
    with Live(console=console, auto_refresh=False) as live:

        def show(sample: Sample) -> None:
            live.update(Group(*drawn(what, sample, console.width)), refresh=True)

        yield show


def drawn(what: str, sample: Sample, width: int) -> Iterator[Table | Text]:
    """Draw a sample; NO_COLOR is rich's to heed."""
    now = time.strftime("%H:%M:%S", time.localtime(sample.at))
    found = Table(title=f"{_plain(what)}  {now}", box=box.SIMPLE_HEAD, title_justify="left")
    found.add_column("device", no_wrap=True)
    found.add_column("state", no_wrap=True)
    left = width - 2 - sum(3 + max(map(len, names)) for names in _names(sample))
    heads = _fitting(left)
    for head in heads:
        found.add_column(head, justify="right", no_wrap=True)
    for row in sample.rows:
        found.add_row(Text(_plain(row.name)), Text(row.state, _style(row)), *_numbers(row, heads))
    yield found
    for row in sample.rows:
        for address in row.endpoints:
            yield Text(f"  {_plain(row.name)}  {_plain(address)}", "dim")
    if sample.problem is not None:
        yield Text(_plain(sample.problem), "bold red")


def _plain(text: str) -> str:
    return readable(text.encode(errors="surrogateescape"))


def _style(row: Row) -> str:
    return "" if row.state in ("relays", "answers") else "bold red"


def _names(sample: Sample) -> tuple[list[str], list[str]]:
    rows = sample.rows
    return ["device", *(_plain(row.name) for row in rows)], ["state", *(row.state for row in rows)]


def _fitting(width: int) -> list[str]:
    """Return the heads for which there is room."""
    heads = list(HEADS)
    for head in LESS:
        if sum(3 + max(len(each), 5) for each in heads) <= width:
            break
        heads.remove(head)
    return heads


def _numbers(row: Row, heads: list[str]) -> Iterator[Text]:
    for head, cell in zip(HEADS, cells(row)):
        if head not in heads:
            continue
        warns = head in WARN and cell not in ("0", "-")
        yield Text(cell, "yellow" if warns else "")
