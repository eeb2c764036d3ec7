"""What is seen of the demo's traffic while it flows."""

from __future__ import annotations

import os
import shutil
import time
from collections import deque
from typing import TextIO

import zdev

__all__ = ["Display"]

TABLE_EVERY, LINE_EVERY = 0.1, 1.0  # seconds: on a terminal, and elsewhere


class Display:
    """Shows the traffic: on a terminal a table, redrawn in place; elsewhere a line a second."""

    def __init__(self, out: TextIO, total: int) -> None:
        self._out = out
        self._total = total
        self._live = out.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._drawn = 0
        self._start = time.monotonic()
        # When, and the messages that had passed in, out and to the monitor: the last second of it.
        self._samples = deque([(self._start, (0, 0, 0))])
        self.interval = TABLE_EVERY if self._live else LINE_EVERY

    def show(self, statistics: zdev.Statistics) -> None:
        """Show where it stands, with the rates of the last second."""
        now = time.monotonic()
        self._samples.append((now, counts(statistics)))
        while self._samples[1][0] <= now - 1:
            self._samples.popleft()
        self._draw(statistics, self._samples[0])

    def end(self, statistics: zdev.Statistics) -> None:
        """Show where it ended, with the rates of the whole time."""
        self._draw(statistics, (self._start, (0, 0, 0)))
        print(file=self._out, flush=True)

    def _draw(self, statistics: zdev.Statistics, since: tuple[float, tuple[int, int, int]]) -> None:
        requests, answers, capture = statistics
        now = time.monotonic()
        seconds = max(now - since[0], 1e-6)
        passed = counts(statistics)
        rates = [(new - old) / seconds for new, old in zip(passed, since[1])]
        elapsed = now - self._start
        if not self._live:
            print(
                f"{elapsed:6.1f} s"
                f"   in {passed[0]:,} ({rates[0]:,.0f}/s)"
                f"   out {passed[1]:,} ({rates[1]:,.0f}/s)"
                f"   monitor {passed[2]:,} ({rates[2]:,.0f}/s), {capture.dropped:,} dropped",
                file=self._out,
                flush=True,
            )
            return
        share = passed[1] / self._total
        bar = "#" * int(share * 40)
        names = ("in   clients -> workers", "out  clients <- workers", "monitor")
        sizes = (f"{requests.bytes_sent:,}", f"{answers.bytes_sent:,}", "")
        lost = (
            requests.dropped + requests.unroutable,
            answers.dropped + answers.unroutable,
            capture.dropped,
        )
        rows = [
            f"{'':24}{'msg/s':>9}{'messages':>12}{'bytes':>14}{'lost':>7}",
            *map("{:24}{:9,.0f}{:12,}{:>14}{:7,}".format, names, rates, passed, sizes, lost),
            f"[{bar:-<40}] {share:4.0%} {elapsed:6.1f} s",
        ]
        width = shutil.get_terminal_size().columns - 1  # a line that wraps could not be redrawn
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        self._out.write(up + "".join(f"{row[:width]}\x1b[K\n" for row in rows))
        self._out.flush()
        self._drawn = len(rows)


def counts(statistics: zdev.Statistics) -> tuple[int, int, int]:
    """Return how many messages were passed in, out and to the monitor."""
    requests, answers, capture = statistics
    return requests.messages_sent, answers.messages_sent, capture.sent
