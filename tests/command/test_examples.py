"""The unit, the container and the file in examples/: what they start, and how that is told."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import zmq

from zdev._certificates import write_keys

from ..support import DEADLINE, Network
from .running import ROOT, command
from .test_run import needs_curve, running, service_manager

EXAMPLES = ROOT / "examples"
UNIT = (EXAMPLES / "zdev.service").read_text()
CONTAINER = re.sub(r"\\\n\s*", "", (EXAMPLES / "Containerfile").read_text())
KEYS = "/run/credentials/zdev.service/"

pytestmark = needs_curve


def of_unit(name: str) -> str:
    (value,) = re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)
    return str(value)


def of_container(name: str) -> list[str]:
    (value,) = re.findall(rf"^{name} .*?(\[.*\])$", CONTAINER, re.MULTILINE)
    return [str(word) for word in json.loads(value)]


@pytest.fixture
def broker(file: Path, tmp_path: Path) -> bytes:
    """Put the file and its keys where the test may have them, on free ports; return the key."""
    pytest.importorskip("prometheus_client")
    *_, public = write_keys(tmp_path, "broker")
    text = (EXAMPLES / "zdev.toml").read_text().replace(KEYS, f"{tmp_path}/")
    text = text.replace("127.0.0.1:9464", "127.0.0.1:0")
    file.write_text(re.sub(r"tcp://\*:\d+", "tcp://127.0.0.1:*", text))
    return public


# What both start; `running` does, from this environment, and has it told as JSON.
STARTED = ["/opt/zdev/bin/zdev", "run", "/etc/zdev/zdev.toml"]


def test_the_file_is_right_and_wise(broker: bytes, file: Path) -> None:
    done = command("check", "--no-environment", "--deny-warnings", str(file))
    assert (done.returncode, done.stdout) == (0, f"{file}: 1 device, all right\n")


def passes(net: Network, ends: dict[str, list[str]], broker: bytes) -> None:
    """Check that a request passes between two who know the broker's key."""
    public, secret = zmq.curve_keypair()
    client, worker = net.socket(zmq.REQ), net.socket(zmq.REP)
    for sock, (address,) in ((client, ends["in"]), (worker, ends["out"])):
        sock.curve_serverkey, sock.curve_publickey, sock.curve_secretkey = broker, public, secret
        sock.connect(address)
    client.send(b"hello")
    worker.send(worker.recv() + b" to you")
    assert client.recv() == b"hello to you"


def test_the_unit_starts_a_broker_that_tells_how_it_is(
    net: Network, broker: bytes, file: Path, runtime: Path, tmp_path: Path
) -> None:
    (runtime / "zdev").mkdir(mode=0o755)
    (tmp_path / "broker.key_secret").chmod(0o440)  # which an access control list makes of 0400
    environment = {
        "NOTIFY_SOCKET": str(runtime / "notify"),
        "WATCHDOG_USEC": str(int(of_unit("WatchdogSec").rstrip("s")) * 10_000),  # a hundredth
        "RUNTIME_DIRECTORY": str(runtime / of_unit("RuntimeDirectory")),
        "CREDENTIALS_DIRECTORY": str(tmp_path),
    }
    assert of_unit("LoadCredential").startswith("broker.key_secret:/")
    assert of_unit("ExecStart").split() == STARTED
    with service_manager(runtime) as heard, running(file, file.read_text(), **environment) as run:
        _, ends = run.next()
        passes(net, ends, broker)

        def told(*words: str) -> None:
            for word in words:
                while not heard.get(timeout=DEADLINE).startswith(word):
                    pass

        told("READY=1", "WATCHDOG=1")
        run.process.send_signal(signal.SIGHUP)  # what notify-reload sends
        told("RELOADING=1\nMONOTONIC_USEC=", "READY=1")
        run.process.send_signal(signal.SIGTERM)
        told("STOPPING=1")
        assert run.process.wait(DEADLINE) == 0


def test_the_container_starts_a_broker_that_is_found_healthy(
    net: Network, broker: bytes, file: Path, runtime: Path
) -> None:
    assert of_container("ENTRYPOINT") + of_container("CMD") == STARTED
    python, dash_c, probe = of_container("HEALTHCHECK")
    assert (python, dash_c) == ("/opt/zdev/bin/python", "-c")
    told = {"RUNTIME_DIRECTORY": str(runtime / "zdev")}
    with running(file, file.read_text(), **told) as run:
        _, ends = run.next()
        passes(net, ends, broker)
        run.await_words("metrics at http://")
        (place,) = re.findall(r"http://(127\.0\.0\.1:\d+)", "".join(run.said))
        assert "127.0.0.1:9464" in probe
        probed = [sys.executable, "-c", probe.replace("127.0.0.1:9464", place)]
        assert subprocess.run(probed, timeout=DEADLINE, check=False).returncode == 0
        assert "\nSTOPSIGNAL SIGTERM\n" in CONTAINER
        assert run.end(signal.SIGTERM) == 0
        ended = subprocess.run(probed, stderr=subprocess.DEVNULL, timeout=DEADLINE, check=False)
        assert ended.returncode == 1


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    def said(*words: str) -> str:
        command = ["systemd-analyze", *words]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=DEADLINE, check=False
        )
        return done.stdout + done.stderr

    path = tmp_path / "zdev.service"
    path.write_text(UNIT.replace("/opt/zdev/bin/zdev", sys.executable))
    lines = said("verify", "--man=no", str(path)).splitlines()
    wrong = [line for line in lines if "zdev.service" in line]
    version = re.search(r"\d+", said("--version"))
    assert version is not None
    if int(version[0]) < 253:  # which has all the rest
        assert len(wrong) == 1
        assert wrong[0].endswith("Failed to parse service type, ignoring: notify-reload")
    else:
        assert wrong == []
