"""``zdev tap``: what it shows of a device's messages, what it does not show, and what it says."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

import zdev
from zdev.cli import _values, main, tap_frames
from zdev.cli._client import Client

from ..support import DEADLINE, Background, Network, wait_until
from .running import ROOT, Running, command, started

TIME = re.compile(r"^\d\d:\d\d:\d\d\.\d{3} ")

# What a terminal obeys, what looks like something else, and what is no text at all.
HOSTILE = [
    b"\x1b[2J\x1b]0;owned\x07",
    "\x9b31m".encode(),
    b"\x9b31m\xff",
    "\u202etxt.exe\u2028\u200b".encode(),
    b"\r\n\t\x08\x7f\x00",
    b"",
    b'quote " and \\ backslash | bar',
    "caf\u00e9 \N{SNAKE}".encode(),
]


class Device:
    """A monitored queue between two DEALERs; what passes it is told to each subscriber."""

    def __init__(self, net: Network, address: str = "tcp://127.0.0.1:*", **settings: Any) -> None:
        # A device learns from an XPUB who has subscribed.
        self.queue = zdev.ThreadMonitoredQueue(
            zmq.DEALER, zmq.DEALER, zmq.XPUB, watch_connections=True, **settings
        )
        for role in ("in", "out"):
            getattr(self.queue, f"bind_{role}")("tcp://127.0.0.1:*")
        self.queue.bind_mon(address)
        self.queue.start()
        self.client, self.worker = net.socket(zmq.DEALER), net.socket(zmq.DEALER)
        self.client.connect(self.queue.endpoints["in"][0])
        self.worker.connect(self.queue.endpoints["out"][0])
        (self.monitor,) = self.queue.endpoints["mon"]

    def close(self) -> None:
        self.queue.stop()

    def request(self, *frames: bytes) -> None:
        self.client.send_multipart(frames)
        assert self.worker.recv_multipart() == [*frames]

    def reply(self, *frames: bytes) -> None:
        self.worker.send_multipart(frames)
        assert self.client.recv_multipart() == [*frames]

    def has_subscribers(self) -> bool:
        return bool(self.queue.connections()["mon"].subscriptions)

    @contextlib.contextmanager
    def tapped(self, *arguments: str, **environment: str) -> Iterator[Running]:
        """Start a tap, and wait until it is there."""
        with started("tap", self.monitor, *arguments, **environment) as running:
            running.hears(f"zdev tap: connected to {self.monitor}")
            wait_until(self.has_subscribers)
            yield running


@pytest.fixture
def device(net: Network) -> Iterator[Device]:
    with contextlib.closing(Device(net, in_prefix="in", out_prefix="out")) as made:
        yield made


def lines(out: bytes) -> list[str]:
    """Return the lines without their times."""
    found = out.decode().splitlines()
    assert all(TIME.match(line) for line in found), found
    return [TIME.sub("", line) for line in found]


def frames_of(line: str) -> list[bytes]:
    """Return the frames in a line of JSON."""
    found = []
    for frame in json.loads(line)["frames"]:
        ((kind, value),) = frame.items()
        found.append(value.encode() if kind == "text" else base64.b64decode(value))
    return found


# What is shown


@pytest.mark.parametrize(
    ("form", "shown"),
    [
        ("text", ['in  job | "" | 4 2', "out \\xff\\x00 | caf\u00e9\\n"]),
        ("quoted", ['in  "job" "" "4 2"', 'out "\\xff\\x00" "caf\u00e9\\n"']),
        ("hex", ["in  6a6f62 - 342032", "out ff00 636166c3a90a"]),
        ("sizes", ["in  3 0 3", "out 2 6"]),
    ],
)
def test_formats(form: str, shown: list[str], device: Device) -> None:
    with device.tapped("--format", form, "--count", "2") as tap:
        device.request(b"job", b"", b"4 2")
        device.reply(b"\xff\x00", "caf\u00e9\n".encode())
        status, out, said = tap.end()
    assert (status, lines(out)) == (0, shown)
    assert re.search(r"\nzdev tap: 2 messages in \d+\.\d s: 2 shown\n$", said)


def test_json_is_lossless(device: Device) -> None:
    with device.tapped("--json", "--count", "3", "--format", "sizes") as tap:
        device.request(*HOSTILE)
        device.reply(b"\xff")
        device.reply("\u202e".encode())
        status, out, _ = tap.end()
    one, other, last = out.decode().splitlines()
    assert (status, frames_of(one)) == (0, HOSTILE)
    told = json.loads(other)
    assert re.match(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$", told.pop("time"))
    assert told == {"schema": "tap/1", "direction": "out", "frames": [{"base64": "/w=="}]}
    assert json.loads(last)["frames"] == [{"text": "\u202e"}]


def test_what_is_written_is_valid_wherever_it_goes(device: Device) -> None:
    """Also where standard output cannot show it."""
    for form in (["--json"], ["--format", "text"]):
        with device.tapped(*form, "--count", "1", PYTHONIOENCODING="ascii") as tap:
            device.request("caf\u00e9".encode())
            status, out, _ = tap.end()
        assert status == 0
        if form == ["--json"]:
            assert frames_of(out.decode()) == ["caf\u00e9".encode()]
        else:
            assert lines(out) == ["in  caf\\xe9"]


def test_seconds_since_the_last(device: Device) -> None:
    with device.tapped("--delta-time", "--count", "2") as tap:
        device.request(b"one")
        device.request(b"two")
        _, out, _ = tap.end()
    one, two = out.decode().splitlines()
    assert one == "    0.000000 in  one"
    assert re.match(r"^ {2,4}\d+\.\d{6} in  two$", two)
    with device.tapped("--delta-time", "--json", "--count", "2") as tap:
        device.request(b"one")
        device.request(b"two")
        _, out, _ = tap.end()
    first, second = (json.loads(line)["delta"] for line in out.splitlines())
    assert first == 0.0 < second < DEADLINE


def test_prefixes_of_the_directions(net: Network) -> None:
    arguments = ["--in-prefix", r"\x00>", "--out-prefix", "in", "--count", "2"]
    with contextlib.closing(Device(net, in_prefix=b"\x00>", out_prefix="in")) as device:  # noqa: SIM117
        with device.tapped(*arguments) as tap:
            device.request(b"in", b"x")
            device.reply(b"y")
            assert lines(tap.end()[1]) == ["in  in | x", "out y"]


def test_what_has_no_direction(net: Network) -> None:
    """A PUB that is no monitor: what looks like a direction is taken for one, unless told not to."""
    news = net.bound(zmq.XPUB, "tcp")
    address = news.getsockopt_string(zmq.LAST_ENDPOINT)
    said = {
        (): ["in  x", "-   into", "in  "],
        ("--no-direction",): ["-   in | x", "-   into", "-   in"],
    }
    for more, shown in said.items():
        with started("tap", address, "--count", "3", *more) as tap:
            assert news.recv() == b"\x01"
            for message in ([b"in", b"x"], [b"into"], [b"in"]):
                news.send_multipart(message)
            assert lines(tap.end()[1]) == shown
        assert news.recv() == b"\x00"
    with started("tap", address, "--json", "--count", "1") as tap:
        assert news.recv() == b"\x01"
        news.send(b"news")
        assert json.loads(tap.end()[1])["direction"] is None


def test_without_a_direction_prefixes_are_what_is_subscribed_to(net: Network) -> None:
    news = net.bound(zmq.XPUB, "tcp")
    with started(
        *("tap", news.getsockopt_string(zmq.LAST_ENDPOINT), "--no-direction", "--count", "2"),
        *("--prefix", "weather", "--prefix", "sport", "--not-prefix", "weather.old"),
    ) as tap:
        assert {news.recv(), news.recv()} == {b"\x01weather", b"\x01sport"}
        for topic in (b"weather.old", b"weather.new", b"traffic", b"sport"):
            news.send_multipart([topic, b"x"])
        status, out, said = tap.end()
    assert (status, lines(out)) == (0, ["-   weather.new | x", "-   sport | x"])
    assert "3 messages in " in said
    assert "2 shown, 1 not asked for" in said


# What is asked for


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--prefix", "job"], ["job-1", "job-2"]),
        (["--prefix", "job", "--prefix", "note"], ["job-1", "job-2", "note"]),
        (["--not-prefix", "job"], ["\\x00id", "note"]),
        (["--not-prefix", "job", "--not-prefix", "note"], ["\\x00id"]),
        (["--prefix", "job", "--not-prefix", "job-1"], ["job-2"]),
        (["--prefix", r"\x00"], ["\\x00id"]),
        (["--grep", "^[0-9]{2}$"], ["job-2"]),
        (["--grep", "caf\u00e9|id"], ["\\x00id", "note"]),
        (["--grep", "(?i)JOB", "--not-prefix", "job-2"], ["job-1"]),
        (["--grep", r"\x00"], ["\\x00id"]),
        (["--grep", "^$"], ["job-1"]),
    ],
)
def test_filters(arguments: list[str], shown: list[str], device: Device) -> None:
    with device.tapped(*arguments) as tap:
        for _ in range(2):  # what is shown in the second round tells of all in the first
            device.request(b"job-1", b"")
            device.request(b"job-2", b"42")
            device.request(b"\x00id", b"\xff")
            device.request(b"note", "caf\u00e9".encode())
        for first in 2 * shown:
            assert lines(tap.stdout.readline())[0].startswith(f"in  {first} | ")
        status, out, said = tap.interrupt()
    assert (status, out) == (130, b"")
    assert f"{2 * len(shown)} shown, " in said
    assert " not asked for\n" in said


def test_ctrl_c_cannot_be_lost_where_nothing_is_there(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pyzmq may lose it while it raises `zmq.Again`; so that is never raised."""
    raised: list[BaseException] = []
    receive = zmq.Socket.recv_multipart

    def noted(*arguments: Any, **more: Any) -> Any:
        try:
            return receive(*arguments, **more)
        except zmq.Again as error:
            raised.append(error)
            raise

    with Client(zmq.SUB, device.monitor) as client:
        client.socket.subscribe(b"")
        wait_until(device.has_subscribers)
        monkeypatch.setattr(zmq.Socket, "recv_multipart", noted)
        assert client.receive() is None
        device.request(b"job", b"1")
        wait_until(lambda: client.wait(DEADLINE).get(client.socket))
        assert client.receive() == [b"in", b"job", b"1"]
        assert client.receive() is None
    assert not raised


def test_the_environment_has_options_too(device: Device) -> None:
    with device.tapped(ZDEV_PREFIX="'a b' c", ZDEV_COUNT="2", ZDEV_FORMAT="sizes") as tap:
        for frame in (b"a", b"a bc", b"d", b"cd"):
            device.request(frame)
        status, out, _ = tap.end()
    assert (status, lines(out)) == (0, ["in  4", "in  2"])


def test_it_ends_when_its_time_is_up(device: Device) -> None:
    with device.tapped("--for", "3") as tap:
        device.request(b"x")
        assert lines(tap.stdout.readline()) == ["in  x"]
        status, out, said = tap.end()
    assert (status, out) == (0, b"")
    assert re.search(r"zdev tap: 1 messages in \d\.\d s: 1 shown\n$", said)


# How much is shown


def test_a_terminal_bears_so_much(device: Device) -> None:
    with device.tapped("--format", "sizes") as tap:
        for _ in range(500):
            device.request(b"x")
        tap.hears("more came and were not shown: at most 50 a second are, without --all")
        status, out, said = tap.interrupt()
    told = re.search(r"(\d+) messages in .*: (\d+) shown, (\d+) not shown, since at most 50", said)
    assert told
    came, shown, withheld = map(int, told.groups())
    assert (status, len(lines(out))) == (130, shown)
    assert came == shown + withheld
    assert 50 <= shown < came <= 500


def test_all_are_shown_if_asked_for(device: Device) -> None:
    with device.tapped("--all", "--count", "2000") as tap:
        ending = Background(tap.end)
        for number in range(2000):
            device.request(b"%d" % number)
        status, out, said = ending.join()
    assert (status, lines(out)) == (0, [f"in  {number}" for number in range(2000)])
    assert "not shown" not in said


def test_a_tap_that_stands_still_holds_nothing_up(device: Device) -> None:
    """And says, when it goes on, that it may have missed some."""
    with device.tapped("--for", "600") as tap:
        tap.process.send_signal(signal.SIGSTOP)
        for _ in range(100):
            for _ in range(1000):
                device.client.send(b"x")
            for _ in range(1000):
                assert device.worker.recv() == b"x"
        tap.process.send_signal(signal.SIGCONT)
        tap.hears("messages come faster than it can take them; the monitor may drop some")
        said = tap.interrupt()[2]
    assert "it was too busy at times: the monitor may have dropped some, which none counts" in said


def test_a_hundred_thousand_messages_at_once(device: Device) -> None:
    """It is quick enough for what comes, and shows what a terminal bears."""
    with device.tapped("--grep", "^last$", "--count", "1") as tap:
        for _ in range(100):
            for _ in range(1000):
                device.client.send(b"x")
            for _ in range(1000):
                device.worker.recv()
        ending = Background(tap.end)
        while ending.alive:  # a PUB may have dropped one
            device.request(b"last")
        status, out, said = ending.join()
    assert (status, lines(out)) == (0, ["in  last"])
    assert re.search(r"zdev tap: [\d,]+ messages in .*: 1 shown, [\d,]+ not asked for", said)


# Hostile peers


@pytest.mark.parametrize("form", ["text", "quoted", "hex", "sizes", "json"])
def test_nothing_that_a_terminal_obeys_gets_there(form: str, device: Device) -> None:
    arguments = ["--json"] if form == "json" else ["--format", form]
    with device.tapped(*arguments, "--count", "1") as tap:
        device.request(*HOSTILE)
        _, out, _ = tap.end()
    assert out.count(b"\n") == 1
    assert out.decode().rstrip("\n").isprintable()


def test_it_has_no_colour_on_a_terminal(device: Device) -> None:
    """Whatever peers send, and with or without NO_COLOR."""
    master, slave = os.openpty()
    try:
        with subprocess.Popen(
            [sys.executable, "-m", "zdev", "tap", device.monitor, "--count", "1"],
            cwd=ROOT,
            env={**os.environ, "TERM": "xterm-256color"},
            stdout=slave,
            stderr=slave,
        ) as process:
            wait_until(device.has_subscribers)
            device.request(*HOSTILE)
            assert process.wait(DEADLINE) == 0
        shown = os.read(master, 65536).decode()
    finally:
        os.close(slave)
        os.close(master)
    assert "owned" in shown
    assert shown.replace("\r\n", "").isprintable()


@pytest.mark.parametrize(
    ("form", "start", "end"),
    [
        ("text", "in  " + "x" * tap_frames.CUT, "...(10,000,000 bytes)"),
        ("quoted", 'in  "xx', 'xx"...(10,000,000 bytes)'),
        ("hex", "in  7878", "78...(10,000,000 bytes)"),
        ("sizes", "in  ", "  10000000"),
    ],
)
def test_a_long_frame_is_cut(form: str, start: str, end: str, device: Device) -> None:
    with device.tapped("--format", form, "--count", "1") as tap:
        device.request(b"x" * 10_000_000)
        (line,) = lines(tap.end()[1])
    assert line.startswith(start)
    assert line.endswith(end.strip())
    assert len(line) < 3 * tap_frames.CUT


def test_a_long_frame_is_whole_in_json(device: Device) -> None:
    frame = b"\xff" * 10_000_000
    with device.tapped("--json", "--count", "1") as tap:
        ending = Background(tap.end)
        device.request(frame)
        assert frames_of(ending.join()[1].decode()) == [frame]


def test_a_message_of_very_many_frames(device: Device) -> None:
    for arguments in (["--format", "text"], ["--json"]):
        with device.tapped(*arguments, "--count", "1") as tap:
            ending = Background(tap.end)
            device.request(*[b"x"] * 100_000)
            out = ending.join()[1]
        if arguments == ["--json"]:
            assert frames_of(out.decode()) == [b"x"] * 100_000
        else:
            assert lines(out) == ["in  " + "x | " * 20 + "...(100,000 frames)"]


# What is said


def test_ctrl_c_ends_with_a_summary(device: Device) -> None:
    with device.tapped() as tap:
        device.request(b"x")
        assert lines(tap.stdout.readline()) == ["in  x"]
        status, out, said = tap.interrupt()
    assert (status, out) == (130, b"")
    first, last = said.splitlines()
    assert first == f"zdev tap: connected to {device.monitor}"
    assert re.match(r"^zdev tap: 1 messages in \d+\.\d s: 1 shown$", last)


def test_it_ends_when_nobody_reads_it(device: Device) -> None:
    """At the next message, and where none comes, at once."""
    for comes in (True, False):
        with device.tapped(PYTHONUNBUFFERED="") as tap:
            if comes:
                device.request(b"x")
                assert lines(tap.stdout.readline()) == ["in  x"]
            tap.stdout.close()
            if comes:
                device.request(b"y")
            assert tap.stderr.read() == b""
            assert tap.process.wait(DEADLINE) == 1
        wait_until(lambda: not device.has_subscribers())


def test_a_connection_that_is_lost(net: Network) -> None:
    device = Device(net, in_prefix="in")
    with device.tapped() as tap:
        device.queue.stop()
        tap.hears("a connection was lost; what passes until it is back is missed")
        device = Device(net, device.monitor, in_prefix="in")
        tap.hears("connected again, after ")
        wait_until(device.has_subscribers)
        device.request(b"again")
        assert lines(tap.stdout.readline()) == ["in  again"]
        device.queue.stop()
        tap.hears("a connection was lost")
        said = tap.interrupt()[2]
    assert re.search(r"the connection was lost 2 times, for \d+\.\d s; what passed then was", said)


def test_nothing_comes(net: Network, device: Device) -> None:
    """It says so once, and what may be wrong."""
    pushing = net.bound(zmq.PUSH, "tcp").getsockopt_string(zmq.LAST_ENDPOINT)
    nowhere = "tcp://127.0.0.1:1"  # a port that is let go may be somebody else's soon
    wrong = {
        (nowhere,): "nothing listens there, so far; is the address right?",
        (pushing,): "what listens there lets nobody in; is it the address of a PUB or XPUB?",
        (device.monitor,): "it is connected; perhaps nothing passes the device, or this is no ",
        ("tcp://127.0.0.1:*", "--bind"): "nobody has connected",
    }
    with contextlib.ExitStack() as stack:
        taps = {
            words: stack.enter_context(started("tap", *arguments))
            for arguments, words in wrong.items()
        }
        for words, tap in taps.items():
            assert tap.hears("nothing has come for 5 s: ").partition(" s: ")[2].startswith(words)
            status, out, said = tap.interrupt()
            assert (status, out) == (130, b"")
            assert said.count("nothing has come") == 1
            failed = "zdev tap: a handshake failed: the other end broke it off, as one does that is"
            assert said.count(failed) == ("lets nobody in" in words)


def test_a_monitor_that_connects(net: Network) -> None:
    with started("tap", "tcp://127.0.0.1:*", "--bind", "--count", "1") as tap:
        address = tap.hears("zdev tap: bound to ").split()[-1]
        publisher = net.socket(zmq.XPUB)
        publisher.connect(address)
        assert publisher.recv() == b"\x01"
        assert tap.hears("connected") == "zdev tap: connected\n"
        publisher.send_multipart([b"out", b"x"])
        status, out, _ = tap.end()
    assert (status, lines(out)) == (0, ["out x"])


def test_strangers_do_not_end_one_that_is_bound(net: Network) -> None:
    with started("tap", "tcp://127.0.0.1:*", "--bind", "--count", "1") as tap:
        address = tap.hears("zdev tap: bound to ").split()[-1]
        server, _ = zmq.curve_keypair()
        public, secret = zmq.curve_keypair()
        keys = {"curve_serverkey": server, "curve_publickey": public, "curve_secretkey": secret}
        guarded = net.socket(zmq.PUB, **keys)
        guarded.connect(address)
        tap.hears("a handshake failed: ")
        wrong = net.socket(zmq.REQ)
        wrong.connect(address)
        publisher = net.socket(zmq.XPUB)
        publisher.connect(address)
        assert publisher.recv() == b"\x01"
        publisher.send(b"x")
        assert lines(tap.end()[1]) == ["-   x"]


def test_one_that_wants_credentials(net: Network) -> None:
    _, secret = zmq.curve_keypair()
    guarded = net.socket(zmq.PUB, curve_server=True, curve_secretkey=secret)
    guarded.bind("tcp://127.0.0.1:*")
    done = command("tap", guarded.getsockopt_string(zmq.LAST_ENDPOINT))
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: the other end wants CURVE or PLAIN, which this command has not" in done.stderr


def test_what_cannot_be(net: Network, capsys: pytest.CaptureFixture[str]) -> None:
    taken = net.bound(zmq.PUB, "tcp").getsockopt_string(zmq.LAST_ENDPOINT)
    for arguments, reason in (
        (["nonsense"], "the address 'nonsense' has no transport"),
        (["tcp://127.0.0.1:*"], "has no port to connect to"),
        (["inproc://here"], "'inproc://here' is within another process"),
        ([taken, "--bind"], "Address already in use"),
        ([taken, "--in-prefix", "a", "--out-prefix", "a"], "--out-prefix are the same"),
    ):
        assert main(["tap", *arguments]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("zdev tap: error: ")
        assert reason in err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--count", "0"], "must be a whole number from 1 up"),
        (["--for", "inf"], "must be a number of seconds above 0"),
        (["--for", "-1"], "must be a number of seconds above 0"),
        (["--grep", "("], "'(' is no regular expression: "),
        (["--prefix", r"\q"], r"has '\\q'; a backslash is written \\"),
        (["--prefix", "\\"], "a backslash is written"),
        (["--format", "hexx"], "did you mean hex?"),
        (["--al"], "did you mean --all"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["tap", "tcp://127.0.0.1:1", *arguments])
    assert reason in capsys.readouterr().err


# Notations


@given(st.binary())
def test_what_is_quoted_can_be_given_back(data: bytes) -> None:
    shown = _values.quoted(data)
    assert shown.isprintable()
    assert _values.octets(shown[1:-1]) == data


@given(st.text())
def test_text_is_shown_as_it_is_if_it_can_be(text: str) -> None:
    shown = _values.readable(text.encode())
    assert shown.isprintable()
    assert (shown == text) is text.isprintable()


@given(st.lists(st.binary(max_size=500), max_size=50), st.sampled_from([*tap_frames.FORMATS]))
def test_a_line_is_one_whatever_is_in_it(frames: Sequence[bytes], form: str) -> None:
    line = tap_frames.line(frames, form)
    assert line.isprintable()
    assert len(line) < tap_frames.FRAMES * (4 * tap_frames.CUT + 30) + 30
    assert ("frames)" in line) >= (len(frames) > tap_frames.FRAMES)


def test_no_character_is_cut_in_two() -> None:
    for start in range(4):
        frame = b"x" * start + "\N{SNAKE}".encode() * 100
        shown = tap_frames.line([frame], "text")
        assert "\\x" not in shown
        assert shown.endswith(f"\N{SNAKE}...({len(frame)} bytes)")
    assert tap_frames.line([b"\x80" * 201], "hex").startswith("80" * 197)
