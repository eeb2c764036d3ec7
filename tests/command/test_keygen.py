"""``zdev keygen``: two files, of which one is secret."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import zmq
import zmq.auth

from zdev.cli import main

from ..support import DEADLINE
from .running import ROOT, command

pytestmark = pytest.mark.skipif(not zmq.has("curve"), reason="this libzmq has no CURVE")


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
def test_it_writes_two_files(
    umask: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = os.umask(umask)
    try:
        assert main(["keygen", "--directory", str(tmp_path), "broker"]) == 0
    finally:
        os.umask(before)
    public_path, secret_path = tmp_path / "broker.key", tmp_path / "broker.key_secret"
    assert (mode(public_path), mode(secret_path)) == (0o644, 0o600)
    public, secret = zmq.auth.load_certificate(secret_path)
    assert secret is not None
    assert zmq.auth.load_certificate(public_path) == (public, None)
    assert zmq.curve_public(secret) == public
    out, err = capsys.readouterr()
    assert out == public.decode() + "\n"
    assert err == f"zdev keygen: wrote {public_path}, and {secret_path}, which is secret\n"
    assert secret.decode() not in out + err
    assert secret not in public_path.read_bytes()


def test_it_replaces_nothing_unless_forced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["keygen", "--directory", str(tmp_path), "broker"]
    assert main(arguments) == 0
    first = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for kept in ("broker.key", "broker.key_secret"):
        (tmp_path / kept).chmod(0o666)
        capsys.readouterr()
        assert main(arguments) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert err.endswith(" is there already; --force replaces it\n")
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == first
        (tmp_path / kept).unlink()  # one of them is enough
        other = ({"broker.key", "broker.key_secret"} - {kept}).pop()
        assert main(arguments) == 2
        assert [path.name for path in tmp_path.iterdir()] == [other]
        (tmp_path / kept).write_bytes(first[kept])
    (tmp_path / "broker.key_secret").chmod(0o666)
    assert main([*arguments, "--force"]) == 0
    assert mode(tmp_path / "broker.key_secret") == 0o600
    assert {path.name for path in tmp_path.iterdir()} == set(first)
    assert all(path.read_bytes() != first[path.name] for path in tmp_path.iterdir())


def test_a_link_is_not_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "elsewhere"
    (tmp_path / "broker.key_secret").symlink_to(target)
    assert main(["keygen", "--directory", str(tmp_path), "broker"]) == 2
    assert not target.exists()
    assert main(["keygen", "--directory", str(tmp_path), "--force", "broker"]) == 0
    assert not target.exists()
    assert not (tmp_path / "broker.key_secret").is_symlink()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc/a"])
def test_what_is_no_name(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keygen", "--directory", str(tmp_path), name]) == 2
    assert capsys.readouterr().err == f"zdev keygen: error: {name!r} is no name for a file\n"
    assert not list(tmp_path.iterdir())


def test_a_directory_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["keygen", "--directory", str(tmp_path / "none"), "broker"]) == 2
    words = f"zdev keygen: error: there is no folder {tmp_path / 'none'}; make it first\n"
    assert capsys.readouterr().err == words


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    done = subprocess.run(
        [sys.executable, "-m", "zdev", "keygen", "--directory", str(tmp_path), "broker"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE,
        check=False,
        preexec_fn=limit,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"zdev keygen: error: {tmp_path}: File too large\n"
    assert not list(tmp_path.iterdir())


def test_a_libzmq_without_curve(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zmq, "has", lambda _: False)
    assert main(["keygen", "--directory", str(tmp_path), "broker"]) == 2
    assert "was built without CURVE" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_command_itself(tmp_path: Path) -> None:
    done = command("keygen", "broker", ZDEV_DIRECTORY=str(tmp_path), ZDEV_ENGINE="nonsense")
    assert done.returncode == 0  # it relays nothing
    assert done.stdout.encode().strip() == zmq.auth.load_certificate(tmp_path / "broker.key")[0]
    assert "zdev keygen broker" in command("keygen", "--help").stdout
