"""``zdev queue`` and its kin: real commands in real processes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

from zdev._devices.run import Run
from zdev.cli import devices, main
from zdev.cli._brokers import make
from zdev.cli._spec import DEFAULTS, Endpoint, Spec, SpecError, Wanted

from ..support import DEADLINE, Network
from .running import ROOT, command, ended

LOCAL = "bind:tcp://127.0.0.1:*"
ENDS = ["--in", LOCAL, "--out", LOCAL]


class Running:
    """A command that relays."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.head: dict[str, Any] = json.loads(process.stdout.readline())

    def at(self, role: str) -> str:
        """Return where a socket is bound."""
        address: str = self.head["sockets"][role]["bound"][0]
        return address

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, dict[str, Any], str]:
        """Wait for its end; return the status, what it told then, and what it said."""
        out, err = ended(self.process)
        return self.process.returncode, json.loads(out or "{}"), err


@contextlib.contextmanager
def running(*arguments: str, **environment: str) -> Iterator[Running]:
    words = [sys.executable, "-W", "error", "-m", "zdev", *arguments, "--json"]
    with subprocess.Popen(
        words,
        cwd=ROOT,
        env={**os.environ, "PYTHONFAULTHANDLER": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Running(process)
        finally:
            process.kill()


# What they relay


@pytest.mark.parametrize(
    ("kind", "front", "back", "more"),
    [
        ("streamer", zmq.PUSH, zmq.PULL, []),
        ("forwarder", zmq.PUB, zmq.SUB, []),
        ("queue", zmq.DEALER, zmq.DEALER, []),
        ("proxy", zmq.DEALER, zmq.PULL, ["--in-type", "DEALER", "--out-type", "push"]),
        ("monitored-queue", zmq.DEALER, zmq.DEALER, []),
    ],
)
def test_each_kind_relays(net: Network, kind: str, front: int, back: int, more: list[str]) -> None:
    with running(kind, *ENDS, *more) as device:
        assert device.head["kind"] == device.head["name"] == kind
        source, sink = net.socket(front), net.socket(back)
        if back == zmq.SUB:
            sink.subscribe(b"")
        source.connect(device.at("in"))
        sink.connect(device.at("out"))
        received: list[bytes] = []
        deadline = time.monotonic() + DEADLINE
        while not received and time.monotonic() < deadline:  # a subscription takes its time
            source.send(b"hello")
            if sink.poll(100):
                received = sink.recv_multipart()
        assert received[-1] == b"hello"
        device.signal(signal.SIGTERM)
        if kind in ("queue", "monitored-queue"):
            sink.send_multipart(received)
        status, told, said = device.end()
    assert told["event"] == "ended"
    assert told["frontend_to_backend"]["messages_sent"] >= 1
    assert f"zdev {kind}: ended; " in said
    assert status == 0, said


def test_its_clients_are_not_called_what_others_were_before(net: Network) -> None:
    """A late reply to a request of a former queue would reach one of them."""
    names = []
    for _ in range(2):
        with running("queue", *ENDS) as device:
            client, worker = net.socket(zmq.DEALER), net.socket(zmq.DEALER)
            client.connect(device.at("in"))
            worker.connect(device.at("out"))
            client.send(b"who am I")
            names.append(worker.recv_multipart()[0])
    assert names[0] != names[1]


def test_it_prints_where_its_sockets_are_and_says_the_rest_elsewhere() -> None:
    words = [sys.executable, "-m", "zdev", "streamer", *ENDS, "--mon", LOCAL, "--drain", "0"]
    with subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE)
    expected = [("in", "PULL"), ("out", "PUSH"), ("mon", "PUB")]
    for line, (role, kind) in zip(lines, expected):
        assert re.fullmatch(rf"{role} +{kind} +bound to +tcp://127\.0\.0\.1:\d+\n", line)
    assert (out, process.returncode) == ("", 0)
    assert err.splitlines() == [
        "zdev streamer: relays; Ctrl-C ends it at once",
        "zdev streamer: ended; 0 messages from in to out, 0 back",
    ]


def test_a_monitored_queue_has_prefixes_and_a_control_socket(net: Network) -> None:
    wired = [*ENDS, "--mon", LOCAL, "--ctrl", LOCAL, "--in-prefix", "from", "--name", "depot"]
    with running("monitored-queue", *wired) as device:
        assert device.head["name"] == "depot"
        client, worker = net.socket(zmq.REQ), net.socket(zmq.REP)
        watcher, operator = net.socket(zmq.SUB), net.socket(zmq.REQ)
        watcher.subscribe(b"")
        watcher.connect(device.at("mon"))
        client.connect(device.at("in"))
        worker.connect(device.at("out"))
        operator.connect(device.at("ctrl"))
        while not watcher.poll(0):  # until it is known to the device
            client.send(b"x")
            worker.send(worker.recv())
            client.recv()
            watcher.poll(50)
        assert watcher.recv_multipart()[0] in (b"from", b"out")
        operator.send(b"STATISTICS")
        assert len(operator.recv_multipart()) == 8
        operator.send(b"TERMINATE")
        status, _, said = device.end()
    assert status == 0, said


# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_it_finish_its_work(net: Network, number: int) -> None:
    with running("queue", *ENDS) as device:
        client, worker = net.socket(zmq.REQ), net.socket(zmq.REP)
        client.connect(device.at("in"))
        worker.connect(device.at("out"))
        client.send(b"work")
        assert worker.recv() == b"work"
        device.signal(number)
        worker.send(b"done")
        assert client.recv() == b"done"
        status, told, said = device.end()
    assert told["left"]["drained"]
    assert status == 0, said


def half_done(net: Network, device: Running) -> None:
    """Have it wait for a reply."""
    client, worker = net.socket(zmq.REQ), net.socket(zmq.REP)
    client.connect(device.at("in"))
    worker.connect(device.at("out"))
    client.send(b"work")
    assert worker.recv() == b"work"


def test_a_second_signal_ends_it_at_once(net: Network) -> None:
    with running("queue", *ENDS, "--drain", "1000", "--name", "depot") as device:
        half_done(net, device)
        device.signal(signal.SIGTERM)
        device.signal(signal.SIGINT)  # two of one kind may arrive as one
        status, told, said = device.end()
    assert status == 130
    assert told["left"]["unanswered"] == 1
    assert "depot was cut off as it drained, and leaves 1 unanswered request" in said


def test_a_drain_has_an_end(net: Network) -> None:
    with running("queue", *ENDS, "--drain", "0.3") as device:
        half_done(net, device)
        device.signal(signal.SIGTERM)
        status, told, said = device.end()
    assert status == 3
    assert "1 unanswered request" in said
    assert not told["left"]["drained"]


INTERRUPTED = """
import os, signal, sys
from zdev.cli import main
from zdev.cli._brokers import ThreadBroker

start = ThreadBroker.start

def late(device):
    os.kill(os.getpid(), signal.SIGTERM)
    start(device)

ThreadBroker.start = late
sys.exit(main(sys.argv[1:]))
"""


def test_a_signal_that_comes_before_it_relays_ends_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, "streamer", *ENDS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0
    assert "ended; 0 messages from in to out" in done.stderr


@pytest.mark.skipif(
    sys.implementation.name == "pypy", reason="PyPy itself heeds a SIGINT that it should ignore"
)
def test_a_background_job_of_a_shell_is_not_interrupted(net: Network) -> None:
    """Such a one ignores SIGINT; SIGTERM ends it."""
    kept = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with running("streamer", *ENDS) as device:
            device.signal(signal.SIGINT)
            half = net.socket(zmq.PUSH), net.socket(zmq.PULL)
            half[0].connect(device.at("in"))
            half[1].connect(device.at("out"))
            half[0].send(b"still there")
            assert half[1].recv() == b"still there"
            device.signal(signal.SIGTERM)
            assert device.end()[0] == 0
    finally:
        signal.signal(signal.SIGINT, kept)


# What is refused

REFUSED = [
    ([], "argument --in: the frontend is neither bound nor connected; say where"),
    (["--in", LOCAL], "argument --out: the backend is neither bound nor connected; say where"),
    (["--in", "tcp://127.0.0.1:5"], "write bind:tcp://127.0.0.1:5 or connect:..."),
    (["--in", "bind:tcp://127.0.0.1"], "has no port"),
    (["--in", "bind:nonsense"], "has no transport"),
    (["--in", "connect:tcp://127.0.0.1:*"], "has no port to connect to"),
    ([*ENDS, "--in", "bind:inproc://x"], "inproc is of one process; use ipc"),
    ([*ENDS, "--in", "bind:tcp://*:5559"], "bind:tcp://*:5559 is beyond this machine"),
    ([*ENDS, "--out", "connect:tcp://host:5559"], "connect:tcp://host:5559 is beyond this machine"),
    ([*ENDS, "--in-type", "PUSH", "--out-type", "PUSH"], "argument --in-type: "),
    ([*ENDS, "--mon-type", "REP"], "argument --mon-type: is a REP socket, which cannot serve"),
    ([*ENDS, "--out-type", "ROUTR"], "there is no socket type 'ROUTR'; did you mean 'ROUTER'?"),
    ([*ENDS, "--set", "rcvhwm=5"], "'rcvhwm=5' sets no option; write ROLE.NAME=VALUE"),
    ([*ENDS, "--set", "in.rcvhmw=5"], "--set in.rcvhmw: there is no socket option 'rcvhmw'; did"),
    ([*ENDS, "--set", "in.rcvhwm=many"], "--set in.rcvhwm: rcvhwm is a number, not 'many'"),
    ([*ENDS, "--set", "in.subscribe=x"], "a ROUTER does not take subscribe = 'x'"),
    ([*ENDS, "--set", "in.curve_secretkey=x"], "is a secret, which has no place here"),
    ([*ENDS, "--set", "out.plain_password=x"], "is a secret, which has no place here"),
    ([*ENDS, "--burst", "0"], "argument --burst: must be from 1 to 10000 messages, not 0"),
    ([*ENDS, "--io-threads", "0"], "argument --io-threads: must be at least 1, not 0"),
    ([*ENDS, "--overflow", "lose"], "argument --overflow: invalid choice: 'lose'"),
    ([*ENDS, "--drain", "-1"], "argument --drain: must be a number of seconds, not '-1'"),
    ([*ENDS, "--drian", "1"], "unrecognized arguments: --drian 1; did you mean --drain?"),
    ([*ENDS, "--in-prefix", "x"], "unrecognized arguments: --in-prefix x"),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSED)
def test_what_cannot_be_is_refused(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main(["queue", *arguments])
    except SystemExit as ended:
        status = int(ended.code or 0)
    out, err = capsys.readouterr()
    assert (status, out) == (2, "")
    assert words in err
    assert "zdev queue: error: " in err


def test_a_proxy_has_no_types_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["proxy", *ENDS]) == 2
    assert "argument --in-type: a proxy has no types of its own" in capsys.readouterr().err


def test_an_address_that_is_taken(net: Network) -> None:
    taken = net.bound(zmq.PULL, "tcp")
    address = taken.getsockopt_string(zmq.LAST_ENDPOINT)
    done = command("queue", "--in", f"bind:{address}", "--out", LOCAL)
    assert (done.returncode, done.stdout) == (2, "")
    assert address in done.stderr
    assert done.stderr.startswith("zdev queue: error: ")


def test_what_ends_it_while_it_relays_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def relay(run: Any, relay: Any) -> None:
        original(run, relay)
        raise RuntimeError("the roof fell in")

    original = Run.relay_by
    monkeypatch.setattr(Run, "relay_by", relay)
    monkeypatch.setattr(devices, "sockets_of", lambda device, _: device.stop() and {})
    assert main(["streamer", *ENDS]) == 1
    assert "zdev streamer: error: the roof fell in\n" in capsys.readouterr().err


def test_nothing_starts_without_an_engine() -> None:
    done = command("queue", *ENDS, ZDEV_ENGINE="nonsense")
    assert (done.returncode, done.stdout) == (2, "")
    assert "ZDEV_ENGINE=nonsense cannot be had" in done.stderr


# From the environment


def test_the_environment_has_what_the_command_line_has_not() -> None:
    words = {
        "ZDEV_IN": LOCAL,
        "ZDEV_OUT": f"{LOCAL} {LOCAL}",
        "ZDEV_NAME": "not this",
        "ZDEV_INSECURE": "no",
    }
    with running("streamer", "--name", "depot", **words) as device:
        assert device.head["name"] == "depot"
        assert len(device.head["sockets"]["out"]["bound"]) == 2
        device.signal(signal.SIGTERM)
        assert device.end()[0] == 0


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ZDEV_BURST", "x", "argument --burst: invalid int value: 'x'"),
        ("ZDEV_INSECURE", "perhaps", "ZDEV_INSECURE is 'perhaps'; it must be one of 1, true"),
        ("ZDEV_IN", "'", 'ZDEV_IN is "\'": No closing quotation'),
    ],
)
def test_what_is_wrong_in_the_environment(
    name: str,
    value: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match="2"):
        main(["queue", "--out", LOCAL])
    assert words in capsys.readouterr().err


# What is made of it


def spec(kind: str = "queue", **settings: Any) -> Spec:
    made = Spec(kind, "depot", settings=settings)
    for role in ("in", "out"):
        made.sockets[role] = Wanted(endpoints=[Endpoint("bind", "tcp://127.0.0.1:*")])
    return made


def test_options_and_defaults_come_to_the_sockets() -> None:
    wanted = spec(io_threads=2)
    wanted.sockets["in"].options = {
        "rcvhwm": "7",
        "tcp_keepalive": "off",
        "identity": "x",
        "maxmsgsize": 10,
    }
    with make(wanted) as device:
        ins, outs = device._run.wiring.sockets["in"], device._run.wiring.sockets["out"]

        def options() -> dict[str, Any]:
            names = ("RCVHWM", "TCP_KEEPALIVE", "ROUTING_ID", "MAXMSGSIZE", "HEARTBEAT_IVL")
            return {name: ins.get(getattr(zmq, name)) for name in names}

        assert device._run.relay.call(options) == {
            "RCVHWM": 7,
            "TCP_KEEPALIVE": 0,
            "ROUTING_ID": b"x",
            "MAXMSGSIZE": 10,
            "HEARTBEAT_IVL": DEFAULTS["heartbeat_ivl"],
        }
        for name, value in DEFAULTS.items():
            assert (
                device._run.relay.call(lambda name=name: outs.get(getattr(zmq, name.upper())))
                == value
            )
        assert device._run.relay.call(lambda: ins.context.get(zmq.IO_THREADS)) == 2


PLACES = [
    ("tcp://127.0.0.1:5", True),
    ("tcp://127.8.0.1:5", True),
    ("tcp://localhost:5", True),
    ("tcp://[::1]:5", True),
    ("tcp://lo:5", True),
    ("ipc:///tmp/x", True),
    ("ipc://@x", True),
    ("tcp://127.0.0.1:0;127.0.0.1:5", True),
    ("tcp://127.0.0.1:0;10.0.0.1:5", False),
    ("tcp://*:5", False),
    ("tcp://0.0.0.0:5", False),
    ("tcp://[::]:5", False),
    ("tcp://[::ffff:127.0.0.1]:5", True),
    ("tcp://[::ffff:10.0.0.1]:5", False),
    ("tcp://eth0:5", False),
    ("tcp://127.0.0.1.example.com:5", False),
    ("tcp://localhost.example.com:5", False),
    ("ws://127.0.0.1:5/path", True),
    ("ws://10.0.0.1:5/127.0.0.1:5", False),
    ("udp://127.0.0.1:5", False),
    ("pgm://127.0.0.1;239.1.1.1:5", False),
]


@pytest.mark.parametrize(("address", "is_local"), PLACES)
def test_what_is_beyond_this_machine(address: str, is_local: bool) -> None:
    assert Endpoint("bind", address).is_local() == is_local
    is_name = "//lo:" in address  # to connect, no interface but a name, of which anybody may be
    assert Endpoint("connect", address).is_local() == (is_local and not is_name)


def test_insecure_is_said() -> None:
    wanted = spec()
    wanted.sockets["in"].endpoints = [Endpoint("bind", "tcp://0.0.0.0:*")]
    with pytest.raises(SpecError, match="beyond this machine") as told:
        make(wanted)
    assert told.value.key == "in"
    wanted.insecure = True
    with make(wanted) as device:
        assert device.endpoints["in"][0].startswith("tcp://0.0.0.0:")


def test_help_shows_an_example_that_is_right() -> None:
    """All words of it are taken; only the addresses are changed for ones that are free."""
    for kind in ("queue", "forwarder", "streamer", "proxy", "monitored-queue"):
        shown = command(kind, "--help").stdout
        example = re.search(rf"^  zdev {kind} ((?:.*\\\n)*.*)$", shown, re.M)
        assert example is not None
        words = re.sub(r"tcp://[\d.]+:\d+", "tcp://127.0.0.1:*", example[1].replace("\\\n", " "))
        words = words.replace("ipc:///run/", f"ipc://@zdev-{os.getpid()}-")
        with running(kind, *words.split()) as device:
            device.signal(signal.SIGTERM)
            assert device.end()[0] == 0
