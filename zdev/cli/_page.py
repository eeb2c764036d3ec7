"""The status page: one HTML page, made anew for each who asks, which needs nothing else.

Names and addresses are the user's words, and are escaped wherever they stand.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator
from html import escape
from typing import Any

import zmq

import zdev
from zdev.cli._sampler import KEPT, Sample, Trend

__all__ = ["POLICY", "page"]

STYLE = """
:root { color-scheme: light dark; --ground: #fff; --card: #f5f6f8; --edge: #838a95; --text: #1a1d21;
  --soft: #4d5560; --rule: #d9dde3; --line: #0b57d0; --good: #0a6b2d; --bad: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #111417; --card: #1b1f24; --edge: #737c88; --text: #e8eaed; --soft: #b4bbc4;
    --rule: #30363d; --line: #8ab4f8; --good: #7fd79a; --bad: #ffaba3; }
}
* { box-sizing: border-box; }
body { margin: 0; padding: 1rem; background: var(--ground); color: var(--text);
  font: 1rem/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.25rem; margin: 0; }
h2 { font-size: 1.1rem; margin: 0; }
p { margin: .25rem 0; }
.soft, footer, caption { color: var(--soft); }
.good { color: var(--good); font-weight: 600; }
.bad { color: var(--bad); font-weight: 600; }
.notice { border-left: .3rem solid var(--bad); padding: .25rem .75rem; }
.devices { display: grid; gap: 1rem; margin: 1rem 0;
  grid-template-columns: repeat(auto-fill, minmax(min(26rem, 100%), 1fr)); }
article { background: var(--card); border: 1px solid var(--edge); border-radius: .4rem;
  padding: .75rem; min-width: 0; }
table { width: 100%; border-collapse: collapse; margin-top: .5rem; font-size: .9rem;
  table-layout: fixed; }
caption { text-align: left; font-size: .85rem; }
th, td { text-align: right; padding: .2rem .25rem; vertical-align: top;
  border-top: 1px solid var(--rule); font-variant-numeric: tabular-nums; }
th:first-child, .sockets th, .sockets td { text-align: left; }
.sockets th:first-child { width: 28%; }
.sockets th:last-child { width: 24%; }
th { font-weight: 500; color: var(--soft); }
svg { display: block; width: 100%; height: 2rem; }
polyline { fill: none; stroke: var(--line); stroke-width: 1.5; vector-effect: non-scaling-stroke; }
a { color: var(--line); }
"""

SCRIPT = """
const late = document.getElementById("late");
async function again() {
  if (document.hidden) return;
  try {
    const answer = await fetch(location.href,
      {cache: "no-store", signal: AbortSignal.timeout(5000)});
    const text = await answer.text();
    const main = new DOMParser().parseFromString(text, "text/html").querySelector("main");
    if (!answer.ok || !main) throw new Error(answer.status);
    document.querySelector("main").replaceWith(document.adoptNode(main));
    late.hidden = true;
  } catch (error) {
    late.hidden = false;
  }
}
setInterval(again, 2000);
document.addEventListener("visibilitychange", again);
"""


def _hashed(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


POLICY = (
    f"default-src 'none'; style-src {_hashed(STYLE)}; script-src {_hashed(SCRIPT)}; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The Content-Security-Policy for the page: that style and that script, and no more."""

TEMPLATE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<noscript><meta http-equiv="refresh" content="5"></noscript>
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<p id="late" class="notice" role="status" hidden>No answer: what you see is old.</p>
<main>
{main}
</main>
<footer>{footer}</footer>
<script>{script}</script>
</body>
</html>
"""

WAYS = {
    "frontend_to_backend": "in to out",
    "backend_to_frontend": "out to in",
    "capture": "to monitor",
}

COUNTS = {
    "sent": "sent",
    "dropped": "dropped",
    "overflowed": "overflowed",
    "unroutable": "unroutable",
    "parked": "parked",
}
BAD = {"dropped", "overflowed", "unroutable"}


def page(sample: Sample, trends: dict[str, dict[str, Trend]], title: str) -> str:
    """Return the page for what is known."""
    footer = f"zdev {zdev.__version__}, libzmq {zmq.zmq_version()}, engine {zdev.engine}"
    links = " ".join(f'<a href="{to}">{to}</a>' for to in ("metrics", "status.json", "healthz"))
    return TEMPLATE.format(
        title=escape(title),
        style=STYLE,
        script=SCRIPT,
        main="\n".join(_main(sample, trends, title)),
        footer=f"{escape(footer)} &middot; {links}",
    )


def _main(sample: Sample, trends: dict[str, dict[str, Trend]], title: str) -> Iterator[str]:
    count = len(sample.devices)
    relay = sum(device["state"] == "relays" for device in sample.devices)
    yield f"<h1>{escape(title)}</h1>"
    words = f"{relay} of {count} device{'s' if count != 1 else ''} relay{'s' if relay == 1 else ''}"
    yield f'<p class="{"good" if relay == count else "bad"}">{words}</p>'
    if sample.ending:
        yield '<p class="notice">It is ending, and drains its devices.</p>'
    if sample.problem is not None:
        yield f'<p class="notice" role="alert">{escape(sample.problem)}</p>'
    yield '<div class="devices">'
    for device in sample.devices:
        yield from _device(device, trends.get(device["name"], {}))
    yield "</div>"


def _device(device: dict[str, Any], trends: dict[str, Trend]) -> Iterator[str]:
    name, state, restarts = device["name"], device["state"], device["restarts"]
    types = "-".join(device["types"][role] for role in ("in", "out") if role in device["types"])
    yield f"<article><h2>{escape(name)}</h2>"
    yield f'<p class="soft">{escape(device["kind"])}, {escape(types)}</p>'
    since = f" for {_time(device['seconds'])}" if device["seconds"] else ""
    times = "once" if restarts == 1 else f"{restarts:,} times"
    again = f", started again {times}" if restarts else ""
    mood = "good" if state == "relays" else "bad"
    yield f'<p><span class="{mood}">{escape(state)}</span>{since}{again}</p>'
    ways = [way for way in WAYS if way != "capture" or "mon" in device["types"]]
    yield from _traffic(name, device["counts"], trends, ways)
    yield from _sockets(device)
    yield "</article>"


def _traffic(
    name: str, counts: dict[str, dict[str, float]], trends: dict[str, Trend], ways: list[str]
) -> Iterator[str]:
    yield "<table><caption>Messages</caption>"
    yield _row("<td></td>", (f'<th scope="col">{WAYS[way]}</th>' for way in ways), "thead")
    yield "<tbody>"
    nothing = Trend([], None)
    lines = (f"<td>{_line(name, way, trends.get(way, nothing).messages)}</td>" for way in ways)
    yield _row(_head("last minute"), lines)
    newest = (trends.get(way, nothing).messages[-1:] or [None] for way in ways)
    yield _row(_head("messages a second"), (f"<td>{_number(rate[0])}</td>" for rate in newest))
    volumes = (trends.get(way, nothing).bytes for way in ways)
    yield _row(_head("bytes a second"), (f"<td>{_number(volume)}</td>" for volume in volumes))
    for key, words in COUNTS.items():
        yield _row(_head(words), (_count(counts[way], key) for way in ways))
    yield "</tbody></table>"


def _head(words: str) -> str:
    return f'<th scope="row">{words}</th>'


def _row(head: str, cells: Iterable[str], group: str = "") -> str:
    row = f"<tr>{head}{''.join(cells)}</tr>"
    return f"<{group}>{row}</{group}>" if group else row


def _count(counts: dict[str, float], key: str) -> str:
    value = counts.get("messages_sent" if key == "sent" and "messages_sent" in counts else key)
    words = _number(value)
    if key == "parked" and value:
        words += f", for {_time(counts['parked_seconds'])}"
    return f'<td class="bad">{words}</td>' if key in BAD and value else f"<td>{words}</td>"


def _sockets(device: dict[str, Any]) -> Iterator[str]:
    yield '<table class="sockets"><caption>Sockets</caption>'
    heads = (f'<th scope="col">{words}</th>' for words in ("where", "peers"))
    yield _row('<th scope="col">socket</th>', heads, "thead")
    yield "<tbody>"
    for role, kind in device["types"].items():
        places = [f"bound to {address}" for address in device["endpoints"].get(role, ())]
        places += (f"connects to {address}" for address in device["connected"].get(role, ()))
        known = device["connections"].get(role)
        peers = "&ndash;" if known is None else _number(known["peers"])
        if known is not None and known["subscriptions"] is not None:
            topics = known["subscriptions"]
            peers += f", {_number(topics)} topic{'s' if topics != 1 else ''}"
        failed = sum(device["came"].get(role, {}).get("failed", {}).values())
        if failed:
            peers += f', <span class="bad">{_number(failed)} failed</span>'
        where = "<br>".join(map(escape, places)) or "&ndash;"
        cells = f"<td>{where}</td><td>{peers}</td>"
        yield _row(_head(f"{escape(role)} {escape(kind)}"), [cells])
    yield "</tbody></table>"


def _line(name: str, way: str, rates: list[float | None]) -> str:
    """Draw the rates of the last minute, now at the right."""
    known = [rate for rate in rates if rate is not None]
    most, now = max(known, default=0.0), rates[-1] if rates else None
    label = f"{name}, {WAYS[way]}: {_number(now, '?')} messages a second"
    label += f", at most {_number(most)} in the last minute"
    parts: list[list[str]] = [[]]
    for at, rate in enumerate(rates, KEPT - len(rates)):
        if rate is None:
            parts.append([])
        else:
            parts[-1].append(f"{at},{29 - 27 * rate / most if most else 29:.1f}")
    drawn = "".join(f'<polyline points="{" ".join(part)}"/>' for part in parts if len(part) > 1)
    return (
        f'<svg viewBox="0 0 {KEPT - 1} 30" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(label)}">{drawn}</svg>'
    )


def _number(value: float | None, unknown: str = "&ndash;") -> str:
    if value is None:
        return unknown
    return f"{value:,.1f}" if 0 < value < 10 and value != int(value) else f"{value:,.0f}"


def _time(seconds: float) -> str:
    """Say a time in its two largest units."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for size, unit, part, rest in ((86400, "d", 3600, "h"), (3600, "h", 60, "min")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part} {rest}"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"
