"""``--metrics``: the exposition, the probes and the status page, of real commands and of made-up ones."""

from __future__ import annotations

import contextlib
import copy
import html
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import zmq
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from zdev.cli import _http, _meter, _metrics, _page, _sampler
from zdev.cli._file import read
from zdev.cli._http import CLIENTS, Server, Site
from zdev.cli._kept import Account
from zdev.cli._page import page
from zdev.cli._sampler import Sample, Sampler, StaleError
from zdev.cli._spec import http_place

from ..support import DEADLINE, Network, python, wait_until
from .running import ROOT, command, nothing_left
from .test_devices import ENDS
from .test_devices import running as broker
from .test_run import QUEUE, TASKS, Running, passes, running

LOCAL = 'metrics = "127.0.0.1:0"\n'
OPENMETRICS = "application/openmetrics-text; version=1.0.0"

HOSTILE = """<script>alert(1)</script>"'&\\ \n"""


class Reader:
    """Reads from a server; no counter that it reads may ever go down."""

    def __init__(self, url: str) -> None:
        self.place = urlsplit(url).netloc
        self._before: dict[Any, float] = {}

    def get(self, path: str, verb: str = "GET", accept: str = OPENMETRICS) -> tuple[int, str, Any]:
        """Return status, text and headers."""
        connection = http.client.HTTPConnection(self.place, timeout=DEADLINE)
        with contextlib.closing(connection):
            connection.request(verb, path, headers={"Accept": accept})
            answer = connection.getresponse()
            return answer.status, answer.read().decode(), answer.headers

    def metrics(self) -> dict[Any, float]:
        """Return the samples, by name and values of labels."""
        status, text, headers = self.get("/metrics")
        assert status == 200
        assert headers["Content-Type"].startswith("application/openmetrics-text")
        families = list(text_string_to_metric_families(text))
        assert all(family.documentation for family in families)
        samples = [sample for family in families for sample in family.samples]
        found = {(s.name, *(v for _, v in sorted(s.labels.items()))): s.value for s in samples}
        for key, value in found.items():
            if key[0].endswith("_total"):
                assert value >= self._before.get(key, 0), key
        self._before.update(found)
        return found

    def until(self, value: float, *key: str) -> None:
        """Wait for a value."""
        wait_until(lambda: self.metrics().get(key) == value)

    def verdict(self, path: str) -> tuple[int, list[str]]:
        """Return what a probe is told: the status, and which devices are to blame."""
        status, text, _ = self.get(path)
        told = json.loads(text)
        assert told["ok"] == (status == 200)
        return status, told["wrong"]


def reader_of(run: Running) -> Reader:
    """Read what a run says of its devices."""
    run.await_words("metrics at http")
    said = [line for line in run.said if "metrics at http" in line]
    return Reader(said[-1].split()[-1])


# A real zdev run


SENT = ("zdev_messages_sent_total", "depot", "frontend_to_backend")


def test_counters_survive_a_kill_and_reloads(net: Network, file: Path) -> None:
    with running(file, LOCAL + QUEUE) as run:
        _, ends = run.next()
        reader = reader_of(run)
        client, worker = passes(net, ends)
        reader.until(1, *SENT)
        reader.until(1, "zdev_peers", "depot", "in")
        seen = reader.metrics()
        assert seen["zdev_device_up", "depot"] == 1
        assert seen["zdev_received_bytes_total", "depot", "backend_to_frontend"] > len(b"hello")
        assert seen["zdev_connections_accepted_total", "depot", "out"] == 1
        assert seen["zdev_handshakes_failed_total", "refused", "depot", "in"] == 0
        assert not any("monitor" in key[0] for key in seen)
        (child,) = run.children()
        os.kill(child, signal.SIGKILL)
        run.next()
        reader.until(1, "zdev_restarts_total", "depot")
        for end in (client, worker):
            end.close()
        reader.until(0, "zdev_peers", "depot", "out")
        for end in passes(net, ends):
            end.close()
        reader.until(2, *SENT)
        for end in passes(net, ends):
            end.close()
        reader.until(3, *SENT)
        assert run.reload(LOCAL + QUEUE + "burst = 5\n").stdout == "depot: replaced\n"
        for end in passes(net, ends):
            end.close()
        reader.until(4, *SENT)
        # Also where the file has not had it for a while.
        assert run.reload(LOCAL + TASKS).returncode == 0
        wait_until(lambda: SENT not in reader.metrics())
        assert run.reload(LOCAL + QUEUE).returncode == 0
        reader.until(4, *SENT)
        assert run.reload(LOCAL + QUEUE.replace("kind", "knd")).returncode == 1
        reader.until(1, "zdev_reload_failed")
        assert "the last reload failed" in reader.get("/")[1]
        assert run.end() == 0
    with pytest.raises(OSError, match="refused"):
        reader.get("/")


def test_probes_tell_of_one_that_is_halted(net: Network, file: Path) -> None:
    with running(file, LOCAL + QUEUE + TASKS) as run:
        run.next()
        reader = reader_of(run)
        run.next()
        wait_until(lambda: reader.verdict("/readyz") == (200, []))
        assert reader.verdict("/healthz") == (200, [])
        child = run.children()[0]
        os.kill(child, signal.SIGSTOP)
        wait_until(lambda: reader.verdict("/healthz")[0] == 503)
        status, (name,) = reader.verdict("/readyz")
        assert status == 503
        reader.until(0, "zdev_device_up", name)
        assert "1 of 2 devices relays" in reader.get("/")[1]

        # It is asked once, and not again until it answers.
        def threads() -> int:
            return len(os.listdir(f"/proc/{run.process.pid}/task"))

        before = threads()
        for _ in range(3):
            latest = reader.get("/status.json")[1]
            wait_until(lambda seen=latest: reader.get("/status.json")[1] != seen)
        assert threads() <= before + 2
        # Nor does it hold up what is done to others.
        more = TASKS.replace("tasks", "more")
        assert "more: started" in run.reload(LOCAL + QUEUE + TASKS + more).stdout
        os.kill(child, signal.SIGCONT)
        wait_until(lambda: reader.verdict("/healthz") == (200, []))
        assert run.end() == 0


def test_a_place_that_is_taken_is_told_of_before_a_device_starts(file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        words = f"error: cannot be measured at {place}: Address already in use"
        with running(file, QUEUE, ZDEV_METRICS=place) as run:
            assert run.process.wait(DEADLINE) == 2
        run.await_words(words)
        assert run.told.empty()
        done = command("queue", *ENDS, "--metrics", place)
        assert (done.returncode, done.stdout) == (2, "")
        assert words in done.stderr
        file.write_text(f'metrics = "{place}"\n' + QUEUE)
        done = command("check", str(file))
        assert done.returncode == 2
        assert f"{file}:1:1: error: metrics: cannot be measured at {place}" in done.stderr


def test_it_moves_with_the_file_unless_the_option_says_where(net: Network, file: Path) -> None:
    with running(file, QUEUE) as run:
        run.next()
        assert run.reload(LOCAL + QUEUE).stdout == "metrics: moved\n"
        first = reader_of(run)
        assert first.get("/healthz")[0] == 200
        with socket.create_server(("127.0.0.1", 0)) as taken:
            other = f'metrics = "127.0.0.1:{taken.getsockname()[1]}"\n'
            assert run.reload(other + QUEUE).returncode == 1
        first.until(1, "zdev_reload_failed")
        assert run.reload(other + QUEUE).returncode == 0
        wait_until(lambda: sum("metrics at" in line for line in run.said) == 2)
        assert reader_of(run).get("/healthz")[0] == 200
        assert run.reload(QUEUE).returncode == 0
        with pytest.raises(OSError, match="refused"):
            reader_of(run).get("/healthz")
        assert run.end() == 0
    with running(file, other + QUEUE, ZDEV_METRICS="127.0.0.1:0") as run:
        run.next()
        reader = reader_of(run)
        assert reader.place not in other
        assert run.reload(QUEUE).stdout == ""
        assert reader.get("/healthz")[0] == 200
        assert run.end() == 0


def test_one_device_is_measured_too(net: Network) -> None:
    port = net.bound(zmq.PULL, "tcp").getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2]
    net.close()
    place = f"127.0.0.1:{port}"
    wired = ["--name", HOSTILE.strip(), "--mon", "bind:tcp://127.0.0.1:*", "--metrics", place]
    with broker("queue", *ENDS, *wired) as device:
        reader = Reader(f"http://{place}/")
        wait_until(lambda: reader.verdict("/readyz") == (200, []))
        seen = reader.metrics()
        assert seen["zdev_device_up", HOSTILE.strip()] == 1
        assert seen["zdev_monitor_messages_sent_total", HOSTILE.strip()] == 0
        (status,) = json.loads(reader.get("/status.json")[1])["devices"]
        assert status["endpoints"]["in"] == [device.at("in")]
        device.signal(signal.SIGTERM)
        assert device.end()[0] == 0


# What is known


def device(name: str = "depot", **more: Any) -> dict[str, Any]:
    """Make a status up."""
    way = dict.fromkeys(
        [
            *(
                f"{what}_{done}"
                for what in ("messages", "frames", "bytes")
                for done in ("received", "sent")
            ),
            *("dropped", "unroutable", "overflowed", "parked", "parked_seconds"),
        ],
        0,
    )
    connections = {"peers": 3, "subscriptions": 1}
    came = {"accepted": 4, "connected": 0, "disconnected": 1, "retries": 0}
    return {
        "name": name,
        "kind": "queue",
        "types": {"in": "ROUTER", "out": "XPUB", "mon": "PUB"},
        "state": "relays",
        "restarts": 1,
        "seconds": 3700.0,
        "endpoints": {"in": ["ipc:///a/" + "very-long" * 20], "out": ["tcp://127.0.0.1:1"]},
        "connected": {"in": ["tcp://127.0.0.1:2"], "out": [], "mon": []},
        "connections": {"in": {**connections, "subscriptions": None}, "out": connections},
        "came": {"in": {**came, "failed": {"refused": 2}}, "out": {**came, "failed": {}}},
        "counts": {
            "frontend_to_backend": {**way, "messages_sent": 1_234_567_890_123, "bytes_sent": 5},
            "backend_to_frontend": {**way, "dropped": 7, "parked": 1, "parked_seconds": 12.5},
            "capture": {"sent": 9, "dropped": 0, "parked": 0, "parked_seconds": 0.0},
        },
    } | more


def sample(*devices: dict[str, Any], at: float = 0.0, problem: str | None = None) -> Sample:
    return Sample(at, problem, False, list(devices))


@contextlib.contextmanager
def serving(*devices: dict[str, Any]) -> Iterator[tuple[Reader, Server, Site]]:
    """Serve what is made up."""
    site = Site(lambda: {"problem": None, "ending": False, "devices": list(devices)}, "a title")
    server = Server("127.0.0.1:0", insecure=False)
    site.sampler.start()
    server.begin(site)
    try:
        site.sampler.latest()
        yield Reader(server.url), server, site
    finally:
        server.end()
        site.sampler.close()
        assert site.sampler._working is not None
        site.sampler._working.result(DEADLINE)


def test_what_prometheus_gets_is_what_it_accepts() -> None:
    with serving(device(HOSTILE), device("byte\udcff")) as (reader, _, _):
        seen = reader.metrics()
        assert seen["zdev_parked_seconds", HOSTILE, "backend_to_frontend"] == 12.5
        assert seen["zdev_handshakes_failed_total", "refused", HOSTILE, "in"] == 2
        assert seen["zdev_subscriptions", HOSTILE, "out"] == 1
        assert seen["zdev_device_up", "byte\\udcff"] == 1
        (info,) = (key for key in seen if key[0] == "zdev_info")
        assert zmq.zmq_version() in info
        _, text, headers = reader.get("/metrics", accept="")
        assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert "zdev_messages_sent_total{" in text
        assert text.count("# HELP zdev_") == text.count("# TYPE zdev_") > 20


def test_what_a_life_has_left_counts_once() -> None:
    from zdev._connections import Connections
    from zdev._contract import NOTHING, DirectionStatistics, Statistics

    def of(sent: int, retries: int) -> tuple[Statistics, dict[str, Connections]]:
        there = DirectionStatistics(messages_received=sent, messages_sent=sent)
        return (
            Statistics(there, NOTHING[1], NOTHING[2]),
            {"in": Connections(0, 0, 0, 0, {"protocol": retries}, retries, [])},
        )

    account = Account()

    def take(sent: int, retries: int, life: int) -> tuple[float, int, int]:
        statistics, connections = of(sent, retries)
        account.take(statistics, life)
        account.take_connections(connections, life)
        came = account.came()["in"]
        sent_now = account.counts()["frontend_to_backend"]["messages_sent"]
        return sent_now, came["retries"], came["failed"]["protocol"]

    assert take(5, 2, 0) == (5, 2, 2)
    assert take(4, 1, 0) == (5, 2, 2)  # an answer that was overtaken
    account.end()
    assert take(5, 2, 0) == (5, 2, 2)  # one that comes after the end
    assert take(1, 1, 1) == (6, 3, 3)


def test_the_dashboard_asks_for_what_there_is() -> None:
    board = json.loads((ROOT / "examples" / "grafana.json").read_text())
    text, _ = _metrics.exposition(sample(device()), OPENMETRICS)
    known = {s.name for f in text_string_to_metric_families(text.decode()) for s in f.samples}
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    asked += [each["query"] for each in board["templating"]["list"]]
    named = {name for query in asked for name in re.findall(r"zdev_\w+", query)}
    assert len(named) > 12
    assert named <= known


# The sampler


def test_many_who_ask_are_one_question_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sampler, "INTERVAL", 1000.0)
    asked: list[int] = []

    def ask() -> dict[str, Any]:
        asked.append(1)
        return {"problem": None, "ending": False, "devices": []}

    sampler = Sampler(ask)
    sampler.start()
    for _ in range(1000):
        sampler.latest()
    assert asked == [1]
    sampler.close()


def test_what_is_old_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask() -> dict[str, Any]:
        raise RuntimeError

    monkeypatch.setattr(_sampler, "STALE", 0.01)
    site = Site(ask, "")
    site.sampler.start()
    for path in ("/", "/metrics", "/healthz", "/readyz", "/status.json"):
        assert site.answer(path, "").status == 503
    with pytest.raises(StaleError):
        site.sampler.latest()
    site.sampler.close()


def test_rates_are_of_what_was_answered() -> None:
    sampler = Sampler(dict)
    for at, count, state in (
        (0, 10, "relays"),
        (1, 30, "relays"),
        (2, 30, "does not answer"),
        (4, 90, "relays"),
    ):
        one = device(state=state)
        one["counts"] = copy.deepcopy(one["counts"])
        one["counts"]["frontend_to_backend"] |= {"messages_sent": count, "bytes_sent": count * 2}
        sampler._past.append(sample(one, at=at))
    trend = sampler.trends()["depot"]["frontend_to_backend"]
    assert trend.messages == [20, None, 20]
    assert trend.bytes == 40


# The server


@pytest.mark.parametrize("verb", ["POST", "PUT", "DELETE", "OPTIONS", "BREW"])
def test_it_is_only_read(verb: str) -> None:
    with serving() as (reader, _, _):
        status, _, headers = reader.get("/", verb)
        assert (status, headers["Allow"]) == (405, "GET, HEAD")
        for path in ("/x", "/..", "/metrics/", "/%2e%2e/etc/passwd"):
            assert reader.get(path)[0] == 404


def test_a_head_has_no_body() -> None:
    with serving(device()) as (reader, _, _):
        status, body, headers = reader.get("/?x=1", "HEAD")
        assert (status, body) == (200, "")
        assert int(headers["Content-Length"]) > 1000
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; ")


def test_the_probes_know_each_state() -> None:
    for state, health, ready in (
        ("relays", 200, 200),
        ("ended", 200, 503),
        ("waits", 503, 503),
        ("starts", 503, 503),
        ("does not answer", 503, 503),
    ):
        with serving(device(), device("other", state=state)) as (reader, _, _):
            assert reader.verdict("/healthz") == (health, ["other"] if health != 200 else [])
            assert reader.verdict("/readyz") == (ready, ["other"] if ready != 200 else [])
    with serving() as (reader, _, _):  # as while it starts
        assert reader.verdict("/readyz") == (503, [])


def test_slow_clients_hold_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_http, "PATIENCE", 0.3)
    with nothing_left(), contextlib.ExitStack() as stack, serving(device()) as (reader, server, _):
        port = server.server_port
        slow = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), DEADLINE))
            for _ in range(CLIENTS - 1)
        ]
        for each in slow:
            each.sendall(b"GET /metrics HTTP/1.1\r\n")
        assert reader.get("/healthz")[0] == 200  # one seat is left
        ends = threading.Event()

        def trickle() -> None:
            with contextlib.suppress(OSError):
                while not ends.wait(0.05):
                    slow[0].sendall(b"X: y\r\n")

        trickler = threading.Thread(target=trickle)
        trickler.start()
        for each in slow:  # also of that one which goes on and on
            with contextlib.suppress(ConnectionResetError):
                assert each.recv(1000) == b""
        ends.set()
        trickler.join(DEADLINE)
        assert reader.get("/healthz")[0] == 200


def test_more_than_there_are_seats_for_are_turned_away() -> None:
    with contextlib.ExitStack() as stack, serving(device()) as (_, server, _):
        many = [
            stack.enter_context(
                socket.create_connection(("127.0.0.1", server.server_port), DEADLINE)
            )
            for _ in range(CLIENTS + 1)
        ]
        with contextlib.suppress(ConnectionResetError):
            assert many[-1].recv(1000) == b""


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\r\n",
        b"\x00" * 100,
        b"GET",
        b"GET / HTTP/9.9\r\n\r\n",
        b"G" * 70_000,
        b"A: b\r\n" * 200,
    ],
)
def test_what_is_no_request_does_no_harm(said: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    with serving(device()) as (reader, server, _):
        client = socket.create_connection(("127.0.0.1", server.server_port), DEADLINE)
        with client, contextlib.suppress(OSError):
            client.sendall(said)
            client.shutdown(socket.SHUT_WR)
            while client.recv(1000):
                pass
        assert reader.get("/healthz")[0] == 200
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("9464", "must be HOST:PORT"),
        (":9464", "must be HOST:PORT"),
        ("::1:9464", "must be HOST:PORT"),
        ("127.0.0.1:http", "must be HOST:PORT"),
        ("127.0.0.1:65536", "must be HOST:PORT"),
        ("0.0.0.0:9464", "is beyond this machine"),
        ("[::]:9464", "is beyond this machine"),
        ("example.com:9464", "is beyond this machine"),
    ],
)
def test_places_that_are_refused(place: str, words: str, file: Path) -> None:
    with pytest.raises(ValueError, match=words):
        http_place(place, insecure=False)
    _, (problem,) = read(f'metrics = "{place}"\n{QUEUE}')
    assert (problem.line, problem.column, problem.key) == (1, 1, "metrics")
    assert words in problem.words
    done = command("queue", *ENDS, "--metrics", place)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


def test_a_name_must_stand_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    address = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("192.0.2.1", 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [address])
    with pytest.raises(_meter.MeterError, match=r"is 192\.0\.2\.1, which is beyond"):
        _meter.opened("localhost:0", insecure=False)


def test_beyond_this_machine_if_that_is_said() -> None:
    assert http_place("0.0.0.0:9464", insecure=True) == ("0.0.0.0", 9464)
    assert read(f'insecure = true\nmetrics = "0.0.0.0:9464"\n{QUEUE}')[1] == []
    Server("0.0.0.0:0", insecure=True).end()


def test_what_is_missing_is_named() -> None:
    code = f"""
import sys
sys.modules["prometheus_client"] = None
from zdev.cli import main
assert main(["queue", *{ENDS!r}, "--metrics", "127.0.0.1:0"]) == 2
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert "pip install 'zmq-devices[metrics]'" in done.stderr


# The page


class Tags(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


def made_up() -> str:
    """Return a page with all that it may have."""
    sampler = Sampler(dict)
    devices = [
        device(HOSTILE),
        device("a" * 300),
        device("idle", state="waits", connections={}, seconds=0),
    ]
    for at in range(70):
        moved = copy.deepcopy(devices)
        moved[0]["counts"]["frontend_to_backend"]["messages_sent"] += at * at * 1000
        sampler._past.append(sample(*moved, at=at))
    return page(sample(*moved, problem=f"wrong: {HOSTILE}"), sampler.trends(), "a <title>")


def test_names_are_text_wherever_they_stand() -> None:
    found = Tags(made_up())
    scripts = [attributes for tag, attributes in found.tags if tag == "script"]
    assert scripts == [{}]  # ours
    assert found.words.count(HOSTILE.strip()) == 2
    assert not any(name.startswith("on") or name == "style" for _, a in found.tags for name in a)
    labels = [attributes["aria-label"] for tag, attributes in found.tags if tag == "svg"]
    assert len(labels) == 9
    assert labels[0] == (
        f"{HOSTILE}, in to out: 137,000 messages a second, at most 137,000 in the last minute"
    )


def test_the_page_wants_nothing_from_elsewhere() -> None:
    found = Tags(made_up())
    links = {
        (tag, a.get("src") or a.get("href")) for tag, a in found.tags if {"src", "href"} & a.keys()
    }
    assert links == {("a", "metrics"), ("a", "status.json"), ("a", "healthz")}
    for tag, attributes in found.tags:
        if tag == "th":
            assert attributes["scope"] in ("row", "col")


def test_colours_are_told_apart() -> None:
    def light(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
        linear = [
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        ]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear))

    schemes = re.findall(r":root \{(.*?)\}", _page.STYLE, re.S)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = dict(re.findall(r"--(\w+): (#\w+)", scheme))
        for name, least in {
            "text": 7,
            "soft": 4.5,
            "good": 4.5,
            "bad": 4.5,
            "line": 4.5,
            "edge": 3,
        }.items():
            for ground in ("ground", "card"):
                low, high = sorted((light(colours[name]), light(colours[ground])))
                contrast = (high + 0.05) / (low + 0.05)
                assert contrast >= least, (name, ground, contrast)


CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
in_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


def chromium(folder: Path, *options: str) -> list[str]:
    """Return the words that start Chromium."""
    assert CHROMIUM is not None
    words = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    words += ["--no-proxy-server", "--enable-logging=stderr"]
    return [*words, f"--user-data-dir={folder / 'chromium'}", *options]


def shown(url: str, folder: Path) -> tuple[str, str]:
    """Return the DOM that Chromium makes of a page within eight seconds, and what it says."""
    done = subprocess.run(
        chromium(folder, "--virtual-time-budget=8000", "--dump-dom", url),
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE,
        check=True,
    )
    return done.stdout, done.stderr


@in_chromium
@pytest.mark.parametrize("width", [320, 360, 1280])
def test_it_fits_a_phone(width: int, tmp_path: Path) -> None:
    (tmp_path / "wrapper.html").write_text(
        f"""<!DOCTYPE html><meta charset="utf-8">
<iframe style="width: {width}px; height: 800px; border: 0" srcdoc="{html.escape(made_up())}"></iframe>
<script>
document.querySelector("iframe").onload = (event) => {{
  const root = event.target.contentDocument.documentElement;
  document.title = `${{root.clientWidth}} ${{root.scrollWidth}}`;
}};
</script>""",
        encoding="utf-8",
    )
    dom, _ = shown((tmp_path / "wrapper.html").as_uri(), tmp_path)
    measured = re.search(r"<title>(\d+) (\d+)</title>", dom)
    assert measured is not None
    assert width - 20 <= int(measured[1]) <= width
    assert measured[2] == measured[1]


@contextlib.contextmanager
def numbered(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """Serve the page, each time with another number; the address, and a list that grows."""
    with serving(device(HOSTILE)) as (reader, _, site):
        pages: list[str] = []
        answer = site.answer

        def counted(path: str, accept: str) -> Any:
            found = answer(path, accept)
            if path == "/":
                pages.append(path)
                body = found.body.replace(b"a title", b"page %d" % len(pages))
                found = found._replace(body=body)
            return found

        monkeypatch.setattr(site, "answer", counted)
        yield f"http://{reader.place}/", pages


@in_chromium
def test_it_is_live_in_a_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with numbered(monkeypatch) as (url, _):
        dom, said = shown(url, tmp_path)
    assert "Content Security Policy" not in said
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in dom
    number = re.search(r"<h1>page (\d+)</h1>", dom)
    assert number is not None
    assert int(number[1]) > 1
    assert re.search(r'id="late"[^>]*hidden', dom)


@in_chromium
def test_it_is_live_without_javascript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--blink-settings=scriptEnabled=false"]  # also Chromium's own, which dump the DOM
    with (
        numbered(monkeypatch) as (url, pages),
        subprocess.Popen(
            chromium(tmp_path, *options, url),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as browser,
    ):
        try:
            wait_until(lambda: len(pages) > 1)
        finally:
            os.killpg(browser.pid, signal.SIGKILL)
