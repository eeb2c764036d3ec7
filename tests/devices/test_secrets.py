"""Keys and passwords: what is taken for them, and that they are shown nowhere."""

from __future__ import annotations

import copy
import io
import logging
import multiprocessing
import os
import pickle
import re
import traceback
from pathlib import Path
from typing import Any, Callable

import pytest
import zmq
import zmq.auth

import zdev
from zdev import _certificates
from zdev._secrets import Secret, dumps_for_child

from ..support import wait_until
from .keys import Pair
from .streams import ANY

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
    pytest.mark.skipif(not zmq.has("curve"), reason="this libzmq has no CURVE"),
]

PASSWORD = "the-word-of-alice"


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path, "server")


@pytest.fixture
def device() -> Any:
    return zdev.ThreadProxySteerable(zmq.PULL, zmq.PUSH)


# What is taken


def test_certificates_of_pyzmq(device: Any, tmp_path: Path) -> None:
    public, secret = zmq.auth.create_certificates(tmp_path, "theirs", {"name": "secret-key"})
    os.chmod(secret, 0o600)
    device.curve_server_in(secret)
    device.allow_in([public])
    device.allow_in(tmp_path)
    assert dict(device._in_sockopts)[zmq.CURVE_SECRETKEY] == zmq.auth.load_certificate(secret)[1]


def test_its_certificates_are_pyzmqs(pair: Pair) -> None:
    assert zmq.auth.load_certificate(pair.secret_path) == pair.both
    assert zmq.auth.load_certificate(pair.public_path) == (pair.public, None)
    assert zmq.curve_public(pair.secret) == pair.public


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o666])
def test_a_secret_that_others_can_have(device: Any, pair: Pair, mode: int) -> None:
    pair.secret_path.chmod(mode)
    for call in (
        lambda: device.curve_server_in(pair.secret_path),
        lambda: device.curve_client_in(str(pair.secret_path), pair.public),
    ):
        with pytest.raises(PermissionError, match=rf"mode is {mode:04o}; chmod 600 it") as raised:
            call()
        assert str(pair.secret_path) in str(raised.value)
    pair.secret_path.chmod(0o400)
    device.curve_server_in(pair.secret_path)


def test_a_credential_of_systemd_shows_its_access_control_list_as_its_group(
    device: Any, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(pair.secret_path.parent))
    pair.secret_path.chmod(0o440)
    device.curve_server_in(pair.secret_path)
    for mode in (0o460, 0o444):
        pair.secret_path.chmod(mode)
        with pytest.raises(PermissionError, match=f"mode is {mode:04o}"):
            device.curve_server_in(pair.secret_path)
    pair.secret_path.chmod(0o440)
    others = pair.secret_path.parent / "others"
    others.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(others))
    link = others / "link"  # which makes no credential of what it leads to
    link.symlink_to(pair.secret_path)
    for path in (pair.secret_path, link):
        with pytest.raises(PermissionError, match="mode is 0440"):
            device.curve_server_in(path)


def test_a_public_certificate_may_be_read_by_all(device: Any, pair: Pair) -> None:
    pair.public_path.chmod(0o666)
    device.curve_client_in(pair.secret_path, pair.public_path)
    assert dict(device._in_sockopts)[zmq.CURVE_SERVERKEY] == pair.public


def bad(what: str, pair: Pair) -> Any:
    """Return keys that are none."""
    other = zmq.curve_keypair()
    files = {
        "no secret": f'public-key = "{pair.public.decode()}"',
        "no public": f'secret-key = "{pair.secret.decode()}"',
        "short": f'public-key = "{pair.public.decode()}"\nsecret-key = "{pair.secret.decode()[1:]}"',
        "of two": f'public-key = "{other[0].decode()}"\nsecret-key = "{pair.secret.decode()}"',
        "binary": f'secret-key = "{pair.secret.decode()}\0\xff"\npublic-key = "{pair.public.decode()}"',
    }
    if what in files:
        pair.secret_path.write_text(files[what], encoding="latin-1")
        return pair.secret_path
    return {
        "swapped": (pair.secret, pair.public),
        "of others": (other[0], pair.secret),
        "text": (pair.public, pair.secret.decode() + "x"),
        "accents": (pair.public, pair.secret.decode()[1:] + "\xe4"),
        "overflow": (pair.public, b"#" * 40),
        "three": (pair.public, pair.secret, b""),
        "a list": [pair.public, pair.secret],
        "bytes": pair.secret,
        "none": None,
        "surrogate": (pair.public, "\udc80" * 40),
    }[what]


@pytest.mark.parametrize(
    ("what", "error", "words"),
    [
        ("no secret", ValueError, "server.key_secret has no secret-key"),
        ("no public", ValueError, "server.key_secret has no public-key"),
        ("short", ValueError, "the secret-key is no key"),
        ("of two", ValueError, "the public key is not that of the secret key"),
        ("binary", ValueError, "the secret-key is no key"),
        ("swapped", ValueError, "the public key is not that of the secret key"),
        ("of others", ValueError, "the public key is not that of the secret key"),
        ("text", ValueError, "keys: the secret key is no key"),
        ("accents", ValueError, "keys: the secret key is no key"),
        ("overflow", ValueError, "keys: the secret key is no key"),
        ("surrogate", ValueError, "keys: the secret key is no key"),
        ("three", TypeError, "keys must be the path"),
        ("a list", TypeError, "keys must be the path"),
        ("bytes", TypeError, "keys must be the path"),
        ("none", TypeError, "keys must be the path"),
    ],
)
def test_what_are_no_keys(
    what: str, error: type[Exception], words: str, device: Any, pair: Pair
) -> None:
    keys = bad(what, pair)
    for call in (
        lambda: device.curve_server_mon(keys),
        lambda: device.curve_client_ctrl(keys, pair.public),
    ):
        with pytest.raises(error, match=words) as raised:
            call()
        shows_nothing(told_by(raised.value), pair.secret)
    assert not device._plans["mon"]


def test_files_that_are_not_there(device: Any, pair: Pair, tmp_path: Path) -> None:
    for call in (
        lambda: device.curve_server_in(tmp_path / "none"),
        lambda: device.curve_client_in(pair.both, tmp_path / "none"),
        lambda: device.curve_client_in(pair.both, f"{tmp_path}/none"),
        lambda: device.allow_in(tmp_path / "none"),
        lambda: device.allow_in(str(tmp_path / "none")),
        lambda: device.allow_in([tmp_path / "none"]),
    ):
        with pytest.raises(FileNotFoundError, match="none"):
            call()
    with pytest.raises(NotADirectoryError, match="allow_in takes a directory"):
        device.allow_in(pair.public_path)
    with pytest.raises(IsADirectoryError):
        device.curve_server_in(tmp_path)
    assert not device._plans["in"]


@pytest.mark.parametrize("who", [b"x" * 40, 5, None])
def test_what_is_no_list(device: Any, who: Any) -> None:
    with pytest.raises(TypeError, match="allow_in: who must be a directory"):
        device.allow_in(who)


def test_what_are_no_public_keys(device: Any, pair: Pair) -> None:
    for key in (b"short", "short", 5, None, b"\xff" * 40):
        with pytest.raises((TypeError, ValueError), match="allow_in: a key"):
            device.allow_in([pair.public, key])
        with pytest.raises((TypeError, ValueError), match="curve_client_in: server_key"):
            device.curve_client_in(pair.both, key)
    assert not device._plans["in"]


@pytest.mark.parametrize(
    ("name", "password"), [("", "b"), ("a", ""), ("a" * 256, "b"), ("a", "b" * 256), (5, "b")]
)
def test_what_are_no_passwords(device: Any, name: Any, password: Any) -> None:
    for call in (
        lambda: device.plain_client_in(name, password),
        lambda: device.plain_server_in({name: password}),
        lambda: device.allow_in({name: password}),
    ):
        with pytest.raises((TypeError, ValueError), match=r"_in: (a )?(username|password) must"):
            call()
    with pytest.raises(TypeError, match="passwords must be a mapping"):
        device.plain_server_in([name, password])
    assert not device._plans["in"]


def test_arguments_that_there_are_not(device: Any, pair: Pair) -> None:
    for call in (
        lambda: device.curve_server_in(),
        lambda: device.curve_server_in(pair.both, pair.public),
        lambda: device.curve_client_in(pair.both),
        lambda: device.allow_in(keys=[]),
        lambda: device.plain_client_in("name"),
    ):
        with pytest.raises(TypeError, match=r"_in\(\): "):
            call()
    device.curve_client_in(keys=pair.both, server_key=pair.public)
    device.allow_out(who=[])


def test_a_libzmq_without_curve(device: Any, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zmq, "has", lambda what: what != "curve")
    for call in (
        lambda: device.curve_server_in(pair.both),
        lambda: device.curve_client_in(pair.both, pair.public),
        lambda: device.allow_in([pair.public]),
    ):
        with pytest.raises(NotImplementedError, match=r"_in: libzmq .* was built without CURVE"):
            call()
    device.plain_server_in({"alice": "hers"})


def test_a_libzmq_that_may_let_in_all(
    device: Any, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zmq, "zmq_version_info", lambda: (4, 2, 5))
    for call in (
        lambda: device.allow_in([pair.public]),
        lambda: device.plain_server_in({"alice": "hers"}),
    ):
        with pytest.raises(NotImplementedError, match=r"takes 4\.3"):
            call()


# Where they are not shown


def told_by(error: BaseException) -> str:
    """Return all that is told of an error."""
    lines = traceback.format_exception(type(error), error, error.__traceback__)
    return "".join(lines) + repr(error) + str(error) + repr(error.args) + repr(vars(error))


def shows_nothing(text: str | bytes, *secrets: bytes) -> None:
    raw = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    for secret in (*secrets, PASSWORD.encode()):
        assert secret not in raw
        assert secret[5:20] not in raw


def secured(name: str, pair: Pair) -> Any:
    made = getattr(zdev, name)("PULL", "PUSH", "PUB")
    made.curve_server_in(pair.secret_path)
    made.allow_in([pair.public])
    made.plain_server_out({"alice": PASSWORD})
    made.setsockopt_mon(zmq.CURVE_SERVERKEY, pair.public)
    made.setsockopt_mon(zmq.CURVE_PUBLICKEY, pair.public)
    made.setsockopt_mon(zmq.CURVE_SECRETKEY, pair.secret.decode())
    made.bind_in(ANY)
    made.bind_out(ANY)
    return made


def test_it_shows_itself_nowhere() -> None:
    secret = Secret(b"of-forty-letters")
    texts = [repr(secret), str(secret), f"{secret}", f"{secret!r:>9}", "%s %r" % (secret, [secret])]  # noqa: UP031
    assert all("forty" not in text for text in texts)
    assert secret == b"of-forty-letters"
    assert copy.copy(secret) is copy.deepcopy(secret) is secret
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="are not pickled"):
            pickle.dumps([secret], protocol)
    again = pickle.loads(dumps_for_child([secret]))[0]
    assert (type(again), again) == (Secret, secret)


@pytest.mark.parametrize("name", ["ThreadProxy", "ProcessProxy"])
def test_a_device_shows_nothing(name: str, pair: Pair) -> None:
    device = secured(name, pair)
    shows_nothing(repr(device), pair.secret)
    shows_nothing(repr(vars(device)), pair.secret)
    for plan in device._plans.values():
        shows_nothing(repr(vars(plan)), pair.secret)
    for leak in (pickle.dumps, lambda it: pickle.Pickler(io.BytesIO()).dump(it)):
        with pytest.raises(TypeError, match="are not pickled") as raised:
            leak(device)
        shows_nothing(told_by(raised.value), pair.secret)
    twin = copy.copy(device)
    assert dict(twin._in_sockopts)[zmq.CURVE_SECRETKEY] == pair.secret
    deep = copy.deepcopy(device)
    assert dict(deep._in_sockopts)[zmq.CURVE_SECRETKEY] == pair.secret
    public = zdev.ThreadProxy("PULL", "PUSH")
    public.allow_in([pair.public])
    assert pickle.loads(pickle.dumps(public))._plans["in"].allowed == public._plans["in"].allowed


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="the system has no /proc")
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_its_process_shows_nothing(
    method: str, pair: Pair, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    device = secured("ProcessProxy", pair)
    device._launch_class = multiprocessing.get_context(method).Process
    with device:
        pid = device.launcher.pid
        for process in (pid, os.getpid()):
            for file in ("cmdline", "environ", "comm", "maps", "status"):
                shows_nothing(Path(f"/proc/{process}/{file}").read_bytes(), pair.secret)
        with pytest.raises(ValueError, match="the list is one of PLAIN") as raised:
            device.allow_in({"alice": PASSWORD})  # goes there, and comes back as an error
        shows_nothing(told_by(raised.value), pair.secret)
        device.allow_out({"alice": PASSWORD})
    shows_nothing(caplog.text, pair.secret)
    shows_nothing("".join(capfd.readouterr()), pair.secret)
    assert not [
        file
        for file in pair.secret_path.parent.iterdir()
        if file != pair.secret_path and pair.secret in file.read_bytes()
    ]


def test_what_cannot_be_pickled_is_named_all_the_same(pair: Pair) -> None:
    device = secured("ProcessProxy", pair)
    device._launch_class = multiprocessing.get_context("spawn").Process
    device.context_factory = lambda: zmq.Context()
    with pytest.raises(TypeError, match=r"^context_factory") as raised:
        device.start()
    shows_nothing(told_by(raised.value), pair.secret)


@pytest.mark.parametrize("launcher", ["Thread", "Process"])
def test_errors_of_libzmq_show_nothing(launcher: str, pair: Pair) -> None:
    made = getattr(zdev, f"{launcher}Proxy")("PULL", "PUSH")
    calls: list[Callable[[], object]] = [
        lambda: made.setsockopt_in(zmq.CURVE_SECRETKEY, pair.secret + b"x" * 5),
        lambda: made.setsockopt_in(zmq.PLAIN_PASSWORD, PASSWORD * 20),
        lambda: made.setsockopt_in(zmq.PLAIN_PASSWORD, [PASSWORD]),
    ]
    with made:
        for call in calls:
            with pytest.raises((zmq.ZMQError, TypeError)) as raised:
                call()
            shows_nothing(told_by(raised.value), pair.secret)
    for call in calls[:2]:
        made._in_sockopts.clear()
        call()
        with pytest.raises(zmq.ZMQError) as raised:
            made.start()
        shows_nothing(told_by(raised.value), pair.secret)


# Files


def test_nobody_can_read_it_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the umask is."""
    modes: list[tuple[str, int]] = []
    write = os.fsync

    def look(fd: int) -> None:
        for path in tmp_path.iterdir():
            modes.append((path.name, path.stat().st_mode & 0o777))
        write(fd)

    monkeypatch.setattr(os, "fsync", look)
    before = os.umask(0)
    try:
        for replace in (False, True):
            _certificates.write_keys(tmp_path, "a", replace=replace)
            for name, mode in modes:
                assert mode & 0o077 == 0 or not re.match(r"a\.key_secret", name)
    finally:
        os.umask(before)
    assert {name for name, _ in modes} >= {"a.key", "a.key_secret"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.key", "a.key_secret"]


@pytest.mark.parametrize("replace", [False, True])
def test_what_fails_leaves_nothing(
    tmp_path: Path, replace: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Pair(tmp_path, "a") if replace else None
    fsync, calls = os.fsync, []

    def fail(fd: int) -> None:
        calls.append(fd)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        _certificates.write_keys(tmp_path, "a", replace=replace)
    if before is None:
        assert not list(tmp_path.iterdir())
    else:
        assert zmq.auth.load_certificate(before.secret_path) == before.both
        assert len(list(tmp_path.iterdir())) == 2


def test_the_log_of_a_refusal_names_no_secret(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    device = secured("ThreadProxy", pair)
    device.context_factory = zmq.Context
    with device, zmq.Context() as context, context.socket(zmq.PULL) as sink:
        sink.linger = 0
        sink.plain_username, sink.plain_password = b"bob", PASSWORD.encode()
        sink.connect(device.endpoints["out"][0])
        wait_until(lambda: "PLAIN, with a user name that is not known" in caplog.text)
    shows_nothing(caplog.text, pair.secret)


@pytest.mark.parametrize(
    "name", ["CURVE_SECRETKEY", "PLAIN_PASSWORD", "SOCKS_PASSWORD", "WSS_KEY_PEM"]
)
def test_each_option_that_is_a_secret_shows_none(name: str) -> None:
    if name not in zmq.SocketOption.__members__:
        pytest.skip(f"this pyzmq does not know {name}")
    device = zdev.ThreadDevice(zmq.QUEUE, zmq.PULL, zmq.PUSH)
    device.setsockopt_in(name, "hush, a secret")
    assert "hush" not in repr(device._plans["in"].sockopts)
    with pytest.raises(TypeError, match="secret keys and passwords are not pickled"):
        pickle.dumps(device)
