"""``zdev ctl``: how it reaches each control socket, and what it says where it does not."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

import zdev
from zdev.cli import _steering, main

from ..support import DEADLINE, Background, Network, wait_until
from .running import command, nothing_left

REACHED = {
    "REP": "REQ",
    "ROUTER": "REQ",
    "DEALER": "DEALER",
    "PAIR": "PAIR",
    "XPUB": "XSUB",
    "PULL": "PUSH",
    "SUB": "PUB",
    "XSUB": "PUB",
}
ANSWERING = ["REP", "ROUTER", "DEALER", "PAIR", "XPUB"]

COUNTED = [2, 3, 0, 0, 0, 0, 2, 3]  # one message of two frames, that is three bytes


class Proxy:
    """A steerable proxy that has relayed one message, and may be steered from outside."""

    def __init__(self, net: Network, kind: str, transport: str = "tcp", *, plain: bool) -> None:
        frontend, backend = net.bound(zmq.PULL), net.bound(zmq.PUSH)
        self.source, self.sink = net.peer(frontend, zmq.PUSH), net.peer(backend, zmq.PULL)
        control = net.socket(getattr(zmq, kind))
        if kind == "SUB":
            control.subscribe(b"")
        elif kind == "XSUB":
            control.send(b"\x01")
        control.bind({"tcp": "tcp://127.0.0.1:*", "ipc": "ipc://*"}[transport])
        self.address = control.getsockopt_string(zmq.LAST_ENDPOINT)
        self.relay = zdev.Relay(frontend, backend, control=control)
        if plain:
            self.running = Background(zmq.proxy_steerable, frontend, backend, None, control)
        else:
            self.running = Background(self.relay.run)
        self.source.send_multipart([b"a", b"bc"])
        assert self.sink.recv_multipart() == [b"a", b"bc"]


def ctl(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run the command in this process; the status, what it wrote and what it said."""
    status = main(["ctl", *arguments])
    out, err = capsys.readouterr()
    return status, out, err


def counts(out: str) -> list[int]:
    names, numbers = zip(*(line.split() for line in out.splitlines()))
    assert names == _steering.COUNTS
    return [int(number) for number in numbers]


# Who is reached


@pytest.mark.parametrize("kind", ANSWERING)
def test_every_control_socket_that_answers_is_found(
    kind: str, net: Network, engine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    proxy = Proxy(net, kind, plain=False)
    with nothing_left():
        status, out, err = ctl(capsys, proxy.address, "statistics")
    assert (status, counts(out), err) == (0, COUNTED, "")
    for word, paused in (("pause", True), ("resume", False)):
        status, out, err = ctl(capsys, proxy.address, word)
        assert (status, out) == (0, "")
        if kind in ("REP", "ROUTER"):
            assert err == f"zdev ctl: {word} was answered\n"
        else:
            assert err.startswith(f"zdev ctl: {word} was sent; whether it is obeyed, ")
            assert kind in err
        wait_until(lambda: proxy.relay.paused == paused)  # noqa: B023
    assert ctl(capsys, proxy.address, "terminate")[0] == 0
    proxy.running.join()


@pytest.mark.parametrize("kind", ["PULL", "SUB", "XSUB"])
def test_one_that_answers_nothing_has_to_be_meant(
    kind: str, net: Network, engine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    proxy = Proxy(net, kind, plain=False)
    status, out, err = ctl(capsys, proxy.address, "terminate", "--timeout", "0.5")
    assert (status, out) == (3, "")
    assert "in 0.5 s; nothing was sent: " in err
    assert "for a PULL say --type PUSH, for a SUB or XSUB --type PUB" in err
    for word, paused in (("pause", True), ("resume", False)):
        status, out, err = ctl(capsys, proxy.address, word, "--type", REACHED[kind])
        assert (status, out) == (0, "")
        assert err.startswith(f"zdev ctl: {word} was sent; whether it is obeyed, ")
        wait_until(lambda: proxy.relay.paused == paused)  # noqa: B023
    assert ctl(capsys, proxy.address, "terminate", "--type", REACHED[kind])[0] == 0
    proxy.running.join()


@pytest.mark.parametrize("kind", REACHED)
def test_a_type_that_is_given_is_used(
    kind: str, net: Network, capsys: pytest.CaptureFixture[str]
) -> None:
    proxy = Proxy(net, kind, "ipc", plain=False)
    given = REACHED[kind]
    status, out, _ = ctl(capsys, proxy.address, "pause", "--type", given, "--json")
    told = json.loads(out)
    answered = kind in ("REP", "ROUTER")
    assert (status, told["type"], told["answered"]) == (0, given, answered)
    wait_until(lambda: proxy.relay.paused)
    others = [
        other for other in _steering.TYPES if kind not in _steering.TYPES[other].split(" or ")
    ]
    if kind in ("REP", "ROUTER"):
        others.remove("DEALER")  # which reaches these too, but speaks otherwise
    for other in others:
        status, out, err = ctl(capsys, proxy.address, "resume", "--type", other, "--timeout", "0.7")
        assert (status, out) == (3, "")
        assert f"breaks off every connection. If it is a control socket, a {other} reaches " in err
    assert proxy.relay.paused
    proxy.relay.stop()


@pytest.mark.skipif(
    zmq.zmq_version_info() < (4, 3, 5), reason="older libzmq counts messages, and has other bugs"
)
@pytest.mark.parametrize("kind", ["REP", "PAIR", "DEALER"])
def test_a_proxy_of_libzmq(kind: str, net: Network, capsys: pytest.CaptureFixture[str]) -> None:
    proxy = Proxy(net, kind, plain=True)
    status, out, _ = ctl(capsys, proxy.address, "statistics")
    assert (status, counts(out)) == (0, COUNTED)
    # Until libzmq has put it right, RESUME pauses and PAUSE goes on: say both, in this order, and
    # it relays whichever way it is.
    swapped = zmq.zmq_version_info() == (4, 3, 5)
    for word in ("resume", "pause") if swapped else ("pause", "resume"):
        assert ctl(capsys, proxy.address, word)[0] == 0
    proxy.source.send(b"on")
    assert proxy.sink.recv() == b"on"
    assert ctl(capsys, proxy.address, "terminate")[0] == 0
    proxy.running.join()


@pytest.mark.skipif(
    zmq.zmq_version_info() != (4, 3, 5), reason="it is libzmq 4.3.5 that swaps them"
)
def test_libzmq_takes_one_for_the_other(net: Network, capsys: pytest.CaptureFixture[str]) -> None:
    """As --help says: when this fails, that is to be mended."""
    proxy = Proxy(net, "REP", plain=True)
    assert ctl(capsys, proxy.address, "resume")[0] == 0
    proxy.source.send(b"held")
    assert ctl(capsys, proxy.address, "statistics")[1].split()[1] == "2"
    assert not proxy.sink.poll(100)
    assert ctl(capsys, proxy.address, "pause")[0] == 0
    assert proxy.sink.recv() == b"held"
    assert ctl(capsys, proxy.address, "terminate")[0] == 0
    proxy.running.join()


def test_the_control_socket_of_a_device(capsys: pytest.CaptureFixture[str]) -> None:
    """A ThreadProxySteerable has a PAIR, unless it is told otherwise."""
    device = zdev.ThreadProxySteerable(zmq.PULL, zmq.PUSH)
    for role in ("in", "out", "ctrl"):
        getattr(device, f"bind_{role}")("tcp://127.0.0.1:*")
    with device:
        (address,) = device.endpoints["ctrl"]
        done = command("ctl", address, "statistics", "--json")
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout) == {
            "schema": "ctl/1",
            "address": address,
            "command": "statistics",
            "type": "PAIR",
            "answered": True,
            "statistics": dict.fromkeys(_steering.COUNTS, 0),
        }
        done = command("ctl", address, "terminate", ZDEV_TYPE="PAIR", ZDEV_JSON="yes")
        assert (done.returncode, json.loads(done.stdout)["answered"]) == (0, False)
        device.join(DEADLINE)


# Who is not


@contextlib.contextmanager
def listening(answer: bytes | None) -> Iterator[str]:
    """Listen on a port, and answer each connection so; None says nothing, and keeps it."""
    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as kept:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    peer = server.accept()[0]
                    kept.callback(peer.close)
                    if answer is not None:
                        peer.sendall(answer)
                        peer.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join(DEADLINE)


def late(capsys: pytest.CaptureFixture[str], address: str, *arguments: str) -> str:
    """Run out of time, and return what is said."""
    status, out, err = ctl(capsys, address, *arguments, "--timeout", "1.5")
    assert (status, out) == (3, "")
    assert err.startswith(f"zdev ctl: error: no answer from {address} in 1.5 s; ")
    return err


def test_nobody_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    with nothing_left():
        said = late(capsys, "tcp://127.0.0.1:1", "pause")
    assert "nothing was sent: nothing listens there" in said


def test_one_that_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with listening(None) as address:
        assert "took the connection and says nothing" in late(capsys, address, "pause")


def test_one_that_speaks_http(capsys: pytest.CaptureFixture[str]) -> None:
    with listening(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 5) as address:
        assert "nothing was sent: the other end breaks off" in late(capsys, address, "pause")


def test_one_that_starts_late(net: Network, capsys: pytest.CaptureFixture[str]) -> None:
    with listening(b"") as address:
        pass
    asking = Background(main, ["ctl", address, "statistics", "--timeout", str(DEADLINE)])
    replier = net.socket(zmq.REP)
    replier.bind(address)
    assert replier.recv() == b"STATISTICS"
    replier.send_multipart([b"%08d" % number for number in range(8)])
    assert asking.join() == 0
    assert len(capsys.readouterr().out.splitlines()) == 8


def test_a_pair_that_has_another_peer(net: Network, capsys: pytest.CaptureFixture[str]) -> None:
    taken = net.bound(zmq.PAIR, "tcp")
    other = net.peer(taken, zmq.PAIR)
    other.send(b"first")
    assert taken.recv() == b"first"
    address = taken.getsockopt_string(zmq.LAST_ENDPOINT)
    said = late(capsys, address, "terminate")
    assert "STATISTICS was sent and not answered, so TERMINATE was not sent" in said
    assert not taken.poll(0)


@pytest.mark.parametrize("word", _steering.COMMANDS)
def test_one_that_does_not_answer(
    word: str, net: Network, capsys: pytest.CaptureFixture[str]
) -> None:
    mute = net.bound(zmq.REP, "tcp")
    said = late(capsys, mute.getsockopt_string(zmq.LAST_ENDPOINT), word)
    assert f"{word.upper()} was sent; it may be obeyed all the same" in said
    assert mute.recv() == word.upper().encode()


def test_one_that_goes_without_an_answer(net: Network, capsys: pytest.CaptureFixture[str]) -> None:
    going = net.bound(zmq.REP, "tcp")
    address = going.getsockopt_string(zmq.LAST_ENDPOINT)
    asking = Background(main, ["ctl", address, "terminate", "--timeout", "1"])
    assert going.recv() == b"TERMINATE"
    going.close()
    assert asking.join() == 3
    assert "TERMINATE was sent, but the connection was lost then" in capsys.readouterr().err


def test_nobody_has_subscribed(net: Network, capsys: pytest.CaptureFixture[str]) -> None:
    deaf = net.bound(zmq.SUB, "tcp", subscribe=b"PAUSED")
    address = deaf.getsockopt_string(zmq.LAST_ENDPOINT)
    arguments = ["ctl", address, "pause", "--type", "PUB", "--timeout", "2"]
    asking = Background(main, arguments)
    while asking.alive:
        assert not deaf.poll(10)  # which also has it subscribe
    assert asking.join() == 3
    assert "nobody there has subscribed to it" in capsys.readouterr().err
    deaf.subscribe(b"PAU")
    asking = Background(main, arguments)
    assert deaf.recv() == b"PAUSE"
    assert asking.join() == 0


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("statistics", [b""]),
        ("statistics", [b"%08d" % number for number in range(9)]),
        ("statistics", [b"1"] * 8),
        ("pause", [b"\x1b[31mno"]),
        ("pause", [b"", b""]),
    ],
)
def test_one_that_answers_as_no_proxy_does(
    word: str, answer: list[bytes], net: Network, capsys: pytest.CaptureFixture[str]
) -> None:
    other = net.bound(zmq.REP, "tcp")
    asking = Background(main, ["ctl", other.getsockopt_string(zmq.LAST_ENDPOINT), word])
    other.recv()
    other.send_multipart(answer)
    assert asking.join() == 1
    said = f"zdev ctl: error: what is there answered {word.upper()} as no proxy does\n"
    assert capsys.readouterr() == ("", said)


def test_an_answer_without_end_is_not_taken(
    net: Network, capsys: pytest.CaptureFixture[str]
) -> None:
    other = net.bound(zmq.REP, "tcp")
    address = other.getsockopt_string(zmq.LAST_ENDPOINT)
    asking = Background(main, ["ctl", address, "statistics", "--timeout", "4"])
    other.recv()
    other.send(bytes(10_000_000))
    assert asking.join() == 3
    assert "the connection was lost then" in capsys.readouterr().err


def test_what_else_a_pair_says_is_passed_over(
    net: Network, capsys: pytest.CaptureFixture[str]
) -> None:
    """libzmq's own proxies answer a PAIR's commands too, and another client's answer may come."""
    pair = net.bound(zmq.PAIR, "tcp")
    asking = Background(main, ["ctl", pair.getsockopt_string(zmq.LAST_ENDPOINT), "statistics"])
    assert pair.recv() == b"STATISTICS"
    pair.send(b"")
    pair.send_multipart([b"%08d" % number for number in range(8)])
    assert asking.join() == 0
    assert "frontend_frames_received" in capsys.readouterr().out


@pytest.mark.parametrize("answers_all", [True, False])
def test_it_stays_until_its_command_was_read(
    answers_all: bool, net: Network, capsys: pytest.CaptureFixture[str]
) -> None:
    """libzmq 4.3.5's own proxies answer all, and would hang if nobody was there to take it."""
    pair = net.bound(zmq.PAIR, "tcp")
    counts = [b"%08d" % number for number in range(8)]
    address = pair.getsockopt_string(zmq.LAST_ENDPOINT)
    asking = Background(main, ["ctl", address, "pause", "--timeout", "2"])
    assert pair.recv() == b"STATISTICS"
    pair.send_multipart(counts)
    assert pair.recv() == b"PAUSE"
    assert pair.recv() == b"STATISTICS"
    if answers_all:
        pair.send(b"")
        pair.send_multipart(counts)
    assert asking.join() == (0 if answers_all else 3)
    said = "PAUSE was sent; but STATISTICS behind it was not answered, though it was before it"
    assert (said in capsys.readouterr().err) is not answers_all


def test_one_that_wants_credentials(net: Network, capsys: pytest.CaptureFixture[str]) -> None:
    _, secret = zmq.curve_keypair()
    guarded = net.socket(zmq.REP, curve_server=True, curve_secretkey=secret)
    guarded.bind("tcp://127.0.0.1:*")
    status, out, err = ctl(capsys, guarded.getsockopt_string(zmq.LAST_ENDPOINT), "pause")
    assert (status, out) == (2, "")
    assert "wants CURVE or PLAIN, which this command has not" in err


def test_one_that_does_not_let_it_in(net: Network, capsys: pytest.CaptureFixture[str]) -> None:
    handler = net.socket(zmq.REP)
    handler.bind("inproc://zeromq.zap.01")
    guarded = net.socket(zmq.REP, zap_domain=b"global")
    guarded.bind("tcp://127.0.0.1:*")
    address = guarded.getsockopt_string(zmq.LAST_ENDPOINT)
    asking = Background(main, ["ctl", address, "pause"])
    while asking.alive:
        if handler.poll(10):
            version, request, *_ = handler.recv_multipart()
            handler.send_multipart([version, request, b"400", b"no", b"", b""])
    assert asking.join() == 2
    assert "the other end does not let this command in" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nonsense", "pause"], "the address 'nonsense' has no transport"),
        (["tcp://127.0.0.1:70000", "pause"], "has the port 70000"),
        (["inproc://here", "pause"], "'inproc://here' is within another process"),
        (["tcp://[::1]:1", "statistics", "--type", "PUSH"], "a PUSH gets no answer"),
        (["tcp://[::1]:1", "statistics", "--type", "PUB"], "a PUB gets no answer"),
    ],
)
def test_what_cannot_be(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = ctl(capsys, *arguments)
    assert (status, out) == (2, "")
    assert reason in err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["tcp://127.0.0.1:1"], "the following arguments are required: COMMAND"),
        (["tcp://127.0.0.1:1", "puase"], "did you mean pause"),
        (["tcp://127.0.0.1:1", "pause", "--timeout", "0"], "must be a number of seconds above 0"),
        (["tcp://127.0.0.1:1", "pause", "--timeout", "nan"], "must be a number of seconds above 0"),
        (["tcp://127.0.0.1:1", "pause", "--type", "SUB"], "invalid choice: 'SUB'"),
    ],
)
def test_wrong_arguments(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["ctl", *arguments])
    assert reason in capsys.readouterr().err


def test_any_address_of_this_machine(net: Network, capsys: pytest.CaptureFixture[str]) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    replier: zmq.Socket[Any] = net.socket(zmq.REP, ipv6=True)
    try:
        replier.bind("tcp://[::1]:*")
    except zmq.ZMQError:
        pytest.skip("no IPv6 here")
    asking = Background(main, ["ctl", replier.getsockopt_string(zmq.LAST_ENDPOINT), "pause"])
    assert replier.recv() == b"PAUSE"
    replier.send(b"")
    assert asking.join() == 0
