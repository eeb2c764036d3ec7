"""``zdev check``: what is wrong with a file, and where."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
import zmq

from zdev.cli import _file, main

from ..support import Network

GOOD = """\
# a broker
[device.depot]
kind = "queue"
in = ["bind:tcp://127.0.0.1:*"]
out = "bind:ipc://@zdev-check-*"
"""

WRONG = [
    # what is put in the place of what, where it is wrong, and what is said
    ('kind = "queue"', 'kind = "que"', (3, 1), "kind: say what it is: kind = queue or"),
    ('kind = "queue"', "", (2, 1), "kind: say what it is"),
    ('kind = "queue"', 'kind = "proxy"', (2, 1), "in-type: a proxy has no types of its own"),
    ('kind = "queue"', "kind = 5", (3, 1), "kind: must be text, not 5"),
    ("out =", "outt =", (5, 1), "there is no 'outt'; did you mean out?"),
    ("bind:ipc", "ipc", (5, 8), "does not say what to do there; write bind:ipc"),
    ("bind:tcp://127.0.0.1:*", "connect:tcp://a:1?", (4, 8), "write ?resolve=all&every=10s"),
    ("bind:tcp://127.0.0.1:*", "connect:tcp://a:1?resolve=", (4, 8), "'first' or 'all', not ''"),
    (
        "bind:tcp://127.0.0.1:*",
        "connect:tcp://a:1?resolve=all&resolve=first",
        (4, 8),
        "each word must be there once",
    ),
    ("bind:tcp://127.0.0.1:*", "connect:tcp://*:1?resolve=all", (4, 8), "for tcp://name:port, not"),
    ("bind:tcp://127.0.0.1:*", "bind:tcp://0.0.0.0:9", (4, 13), "is beyond this machine"),
    ("bind:tcp://127.0.0.1:*", "bind:tcp://127.0.0.1:99999", (4, 8), "has the port 99999"),
    ('in = ["bind:tcp://127.0.0.1:*"]', "in = 5", (4, 1), "must be text such as bind:tcp"),
    ("# a", 'in = "x" #', (1, 1), "there is no 'in'"),
    ("[device.depot]", "[device]", (2, 2), "write [device.NAME] for each device"),
    ("[device.depot]", "[device.depot", (2, 14), "expected ']'"),
    (GOOD, "", (1, 1), "there is no device in it"),
    (GOOD, "burst = 1", (1, 1), "there is no 'burst'"),
    ("# a", "[device.x]\n# a", (1, 1), "kind: say what it is"),
]
ADDED = [
    ('set = { "in.rcvhmw" = 5 }', (6, 10), "no socket option 'rcvhmw'; did you mean 'RCVHWM'"),
    ('set = { "in.xpub_verbose" = 1 }', (6, 10), "a ROUTER does not take xpub_verbose = 1"),
    ('set."in.rcvhmw" = 5', (6, 6), "no socket option 'rcvhmw'"),
    ('set = { "rcvhwm" = 5 }', (6, 10), "'rcvhwm' sets no option"),
    ('set = { "in.rcvhwm" = [5] }', (6, 10), "'in.rcvhwm' sets no option"),
    ('set = { "in.curve_secretkey" = "x" }', (6, 10), "is a secret, which has no place here"),
    (
        'set = { "in.use_fd" = 1 }',
        (6, 10),
        "use_fd is a descriptor, of which a broker is given none",
    ),
    ("set = 5", (6, 1), "set: must be a table, not 5"),
    ("burst = 0", (6, 1), "burst: must be from 1 to 10000 messages, not 0"),
    ("burst = true", (6, 1), "burst: must be a whole number, not True"),
    ("burst = 1.5", (6, 1), "burst: must be a whole number, not 1.5"),
    ('overflow = "lose"', (6, 1), "overflow: must be"),
    ('in-prefix = "x"', (6, 1), "in-prefix: only a monitored-queue has it, not a queue"),
    ("drain = -1", (6, 1), "drain: must be a number of seconds, not -1"),
    ("drain = inf", (6, 1), "drain: must be a number of seconds, not inf"),
    ('thread = "yes"', (6, 1), "thread: must be true or false, not 'yes'"),
    ('in_type = "DEALER"', (6, 1), "there is no 'in_type'; did you mean in-type?"),
    ('in-type = "PUSH"\nout-type = "PUSH"', (6, 1), "in-type: "),
    ("x = ", (6, 5), "invalid value"),
    ('mon = ["bind:ipc://*", "bind:ipc://*"]', (6, 9), "ipc://* is there twice"),
]
CASES = [
    *((GOOD.replace(old, new), place, words) for old, new, place, words in WRONG),
    *((f"{GOOD}{line}\n", place, words) for line, place, words in ADDED),
]


@pytest.mark.parametrize(("text", "place", "words"), CASES)
def test_it_points_at_what_is_wrong(
    text: str,
    place: tuple[int, int],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "zdev.toml"
    file.write_text(text)
    assert main(["check", "--no-environment", str(file)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = [line for line in err.splitlines() if words in line]
    assert line.startswith(f"{file}:{place[0]}:{place[1]}: error: ")
    assert main(["check", "--no-environment", "--json", str(file)]) == 2
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {each["schema"] for each in told} == {"check/1"}
    (one,) = [each for each in told if each["message"] in line]
    assert (one["severity"], one["line"], one["column"]) == ("error", *place)


def test_what_is_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "zdev.toml"
    other = GOOD.replace("depot", '"b 2"').replace("check-*", "other-*")
    file.write_text(f"{GOOD}\n{other}")
    assert main(["check", "--deny-warnings", str(file)]) == 0
    assert capsys.readouterr() == (f"{file}: 2 devices, all right\n", "")
    monkeypatch.setattr(sys, "stdin", io.StringIO(GOOD))
    assert main(["check", "-"]) == 0
    assert capsys.readouterr() == ("-: 1 device, all right\n", "")


def test_two_cannot_be_bound_at_one_address(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "zdev.toml"
    text = GOOD.replace("tcp://127.0.0.1:*", "ipc:///tmp/one")
    file.write_text(text + text.replace("depot", "other"))
    assert main(["check", "--no-environment", str(file)]) == 2
    words = "error: other: in: ipc:///tmp/one is where in of depot is bound, too"
    assert words in capsys.readouterr().err


def test_a_mark_of_byte_order_is_no_part_of_it(tmp_path: Path) -> None:
    file = tmp_path / "zdev.toml"
    file.write_text(GOOD, encoding="utf-8-sig")
    assert main(["check", "--no-environment", str(file)]) == 0


def test_brackets_within_brackets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "zdev.toml"
    file.write_text("x = " + 5000 * "[")
    assert main(["check", str(file)]) == 2
    assert f"{file}: error: there are too many brackets" in capsys.readouterr().err


def test_all_that_is_wrong_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "zdev.toml"
    bad = GOOD.replace("depot", "bad").replace("kind", "knd").replace("out", "otu")
    file.write_text(f"{GOOD}{bad}{bad.replace('[device.bad]', '[device.worse]')}")
    assert main(["check", str(file)]) == 2
    err = capsys.readouterr().err
    assert [line.split(":")[1] for line in err.splitlines()] == ["7", "8", "10", "12", "13", "15"]


def test_a_file_that_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in (tmp_path / "none", tmp_path):
        assert main(["check", str(file)]) == 2
        assert f"zdev check: error: {file}: " in capsys.readouterr().err
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert main(["check", str(tmp_path / "binary")]) == 2


def test_without_a_reader_of_toml(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "zdev.toml"
    file.write_text(GOOD)
    monkeypatch.setattr(_file, "tomllib", None)
    assert main(["check", str(file)]) == 2
    assert "needs tomli to read it: pip install 'zmq-devices[cli]'" in capsys.readouterr().err


UNWISE = [
    ('set = { "in.rcvhwm" = 0 }', (6, 10), "in.rcvhwm = 0: memory alone limits"),
    ('set = { "out.sndhwm" = 0 }', (6, 10), "out.sndhwm = 0: memory alone limits"),
    ('set = { "in.maxmsgsize" = -1 }', (6, 10), "one message may take all memory"),
    ('mon = "bind:ipc://@*"\nmon-type = "PUSH"', (6, 1), "a PUSH as the monitor holds all traffic"),
]


@pytest.mark.parametrize(("more", "place", "words"), UNWISE)
def test_what_is_unwise(
    more: str,
    place: tuple[int, int],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "zdev.toml"
    file.write_text(f"{GOOD}{more}\n")
    assert main(["check", str(file)]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{file}:{place[0]}:{place[1]}: warning: depot: ")
    assert words in line
    assert main(["check", "--deny-warnings", str(file)]) == 2


def test_what_is_open_and_what_is_verbose(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "zdev.toml"
    news = '[device.news]\nkind = "forwarder"\nin = "bind:tcp://*:*"\nout = "bind:tcp://[::1]:*"\n'
    file.write_text(f'{news}insecure = true\nset = {{ "out.xpub_verbose" = true }}\n')
    assert main(["check", "--no-environment", str(file)]) == 0
    told = capsys.readouterr().err
    assert f"{file}:3:12: warning: news: in: tcp://*:* is open to whoever reaches it\n" in told
    assert "out.xpub_verbose: every subscription of every peer goes up to all senders" in told


def test_what_this_machine_has_not(
    net: Network, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tcp = net.bound(zmq.PULL, "tcp").getsockopt_string(zmq.LAST_ENDPOINT)
    held = tmp_path / "held"
    net.socket(zmq.PULL).bind(f"ipc://{held}")
    (tmp_path / "plain").touch()
    cases = [
        (f"bind:{tcp}", f"{tcp}: it is taken"),
        (f"bind:ipc://{held}", "somebody listens there"),
        (f"bind:ipc://{tmp_path}/plain", "there is something else by that name"),
        (f"bind:ipc://{tmp_path}/none/x", f"there is no folder {tmp_path}/none"),
        (f"connect:ipc://{tmp_path}/none/x", f"there is no folder {tmp_path}/none"),
        ("connect:tcp://no-such-host.invalid:5", "the name does not resolve"),
        ("connect:tcp://a..b:5", "there can be no such name"),
        ("connect:tcp://[::1]:5", "to use IPv6, set out.ipv6 = 1"),
        ("bind:tcp://[::1]:*", "to use IPv6, set out.ipv6 = 1"),
        ("bind:tcp://no-such-interface:5", "No such device"),
    ]
    file = tmp_path / "zdev.toml"
    for place, words in cases:
        text = GOOD.replace("bind:ipc://@zdev-check-*", place)
        file.write_text(f"{text}insecure = true\n")
        assert main(["check", str(file)]) == 2
        told = capsys.readouterr().err
        assert words in told
        assert f"{file}:5:{text.splitlines()[4].index(place.partition(':')[2]) + 1}: " in told
        assert main(["check", "--no-environment", str(file)]) == 0
        capsys.readouterr()
    # Whoever has a place still has it.
    there = net.socket(zmq.PUSH)
    there.connect(f"ipc://{held}")
    assert there.poll(5000, zmq.POLLOUT)
