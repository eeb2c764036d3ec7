"""Every Python and shell block of the README does what it says; every signature is the real one."""

from __future__ import annotations

import ast
import contextlib
import fcntl
import inspect
import multiprocessing
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

import zdev

from .gevent_programs import NO_GEVENT
from .support import Background, Network, running

README = pathlib.Path(__file__).parent.parent / "README.md"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, re.S | re.M)
SIGNATURES = {
    call.partition("(")[0]: ast.parse(f"def _{call[call.index('(') :]}: pass").body[0].args  # type: ignore[attr-defined]
    for block in re.findall(r"^```text\n(.*?)^```", TEXT, re.S | re.M)
    for call in re.findall(r"^\S[^(]*\([^)]*\)", block, re.M)
}


@contextlib.contextmanager
def fixed_ports(block: str) -> Iterator[None]:
    """Let one suite on this machine at a time have the ports that a block names."""
    if not re.search(r"tcp://[^:]+:\d", block):
        yield
        return
    with open(pathlib.Path(tempfile.gettempdir(), "zdev-readme-ports"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(block: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a block to its end; by default as ``python -c`` does."""
    if "import trio" in block:
        pytest.importorskip("trio", reason="trio is not installed")
    if "import gevent" in block:
        pytest.importorskip("gevent", reason=NO_GEVENT)
    command = [sys.executable, "-W", "error", *(arguments or ("-c", block))]
    with fixed_ports(block):
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_readme_has_its_blocks() -> None:
    assert len(BLOCKS) >= 3


def test_the_readme_has_two_commands_of_one_line() -> None:
    """noxfile.py finds them by their marks and runs them; this looks that there are no others."""
    marked = re.findall(r"^<!-- ci: (\w+) -->\n```sh\n(.+)\n```$", TEXT, re.M)
    assert [mark for mark, _ in marked] == ["demo", "test"]
    assert len(re.findall(r"^```sh$", TEXT, re.M)) == 2
    for _, command in marked:  # each begins with nothing but Python, and needs no other shell state
        steps = command.split(" && ")
        assert steps[0] == "python3 -m venv .venv"
        assert all(step.startswith(".venv/bin/") for step in steps[1:])


def test_the_broker() -> None:
    (command,) = re.findall(r"^```bash\nzdev (.*?)\n```$", TEXT, re.M | re.S)
    command = command.replace("\\\n", "")
    with fixed_ports(command):
        broker = subprocess.Popen(
            [sys.executable, "-m", "zdev", *command.split()], stdout=subprocess.PIPE, text=True
        )
        assert broker.stdout is not None
        shown = [broker.stdout.readline().split() for _ in range(4)]
        broker.terminate()
        assert broker.wait(60) == 0
        broker.stdout.close()
    places = re.findall(r"--(\w+) bind:(\S+)", command)
    assert [(role, address) for role, _, _, _, address in shown] == places


def test_the_file() -> None:
    (file,) = re.findall(r"^```toml\n(.*?)^```", TEXT, re.S | re.M)
    done = subprocess.run(
        [sys.executable, "-m", "zdev", "check", "--no-environment", "--deny-warnings", "-"],
        input=file,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("-: 2 devices, all right\n", "")


CONSOLE = re.findall(r"^```console\n(.*?)^```", TEXT, re.S | re.M)


@pytest.fixture
def asked(net: Network) -> Iterator[None]:
    """A steerable monitored queue at the addresses that README's shell names, and a client."""
    kinds = {"5561": zmq.XPUB, "5562": zmq.REP}
    monitor, control = (net.socket(kind) for kind in kinds.values())
    frontend, backend = net.bound(zmq.ROUTER), net.bound(zmq.DEALER)
    client = net.peer(frontend, zmq.REQ, routing_id=b"client-1")
    worker = net.peer(backend, zmq.REP)
    enough = threading.Event()

    def ask() -> None:
        """Ask while somebody looks, who sees a request before its answer so."""
        while not enough.wait(0.05):
            if not relay.connections()["capture"].subscriptions:
                continue
            client.send(b"hello")
            worker.send(worker.recv().upper())
            assert client.recv() == b"HELLO"

    relay = zdev.Relay(
        *(frontend, backend, monitor),
        in_prefix="in",
        out_prefix="out",
        control=control,
        watch_connections=True,
    )
    with fixed_ports("tcp://127.0.0.1:5561"):
        for socket, port in zip((monitor, control), kinds):
            socket.bind(f"tcp://127.0.0.1:{port}")
        with running(relay):
            asking = Background(ask)
            yield
            enough.set()
            asking.join()


def without_numbers(text: str) -> str:
    return re.sub(r"\d[\d.:TZ-]*", "0", text)


def test_the_readme_has_its_shell() -> None:
    assert len(CONSOLE) == 1


@pytest.mark.parametrize("block", CONSOLE, ids=range(len(CONSOLE)))
def test_shell(block: str, asked: None) -> None:
    """Each command prints what stands below it, but for times and counts."""
    zdev_command = f'zdev() {{ "{sys.executable}" -m zdev "$@"; }}\n'
    for step in re.split(r"^\$ ", block, flags=re.M)[1:]:
        line, _, shown = step.partition("\n")
        done = subprocess.run(
            ["sh", "-c", zdev_command + line],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0
        assert without_numbers(done.stdout) == without_numbers(shown), line


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_block(block: str) -> None:
    done = run(block)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("block", "place"),
    [
        pytest.param(block, place, id=f"{number}-{nth}")
        for number, block in enumerate(BLOCKS)
        for nth, place in enumerate(re.finditer(r"\bassert .*", block))
    ],
)
def test_a_block_that_fails_ends(block: str, place: re.Match[str]) -> None:
    """Whichever of its assertions does not hold."""
    done = run(block[: place.start()] + "raise ArithmeticError" + block[place.end() :])
    assert "ArithmeticError" in done.stderr


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
@pytest.mark.parametrize("block", [pytest.param(b, id="") for b in BLOCKS if "Process" in b])
def test_a_program_that_starts_processes(block: str, method: str, tmp_path: pathlib.Path) -> None:
    program = tmp_path / "program.py"
    choice = f"import multiprocessing\nmultiprocessing.set_start_method({method!r}, force=True)\n"
    program.write_text(choice + block, encoding="utf-8")
    done = run(block, str(program))
    assert (done.returncode, done.stderr) == (0, "")


def test_the_readme_has_its_signatures() -> None:
    functions = {"proxy", "device", "proxy_steerable", "monitored_queue"}
    assert SIGNATURES.keys() >= functions | {"Relay", "Relay.run", "Relay.stop", "ThreadProxy"}


@pytest.mark.parametrize("name", SIGNATURES)
def test_signature(name: str) -> None:
    shown = SIGNATURES[name]
    function: Any = zdev
    for part in name.split("."):
        function = getattr(function, part)
    real = dict(inspect.signature(function).parameters)
    real.pop("self", None)
    rest = [shown.kwarg] if shown.kwarg else []
    assert [argument.arg for argument in (*shown.args, *shown.kwonlyargs, *rest)] == [*real]
    keywords = {argument.arg for argument in shown.kwonlyargs}
    assert keywords == {p.name for p in real.values() if p.kind is p.KEYWORD_ONLY}
    after = shown.args[len(shown.args) - len(shown.defaults) :]
    given = zip((*after, *shown.kwonlyargs), (*shown.defaults, *shown.kw_defaults))
    defaults = {argument.arg: eval(ast.unparse(value), {"zmq": zmq}) for argument, value in given}
    if name == "ThreadProxySteerable":
        assert zdev.ThreadProxySteerable(zmq.PULL, zmq.PUSH).ctrl_type == defaults["ctrl_type"]
        defaults["ctrl_type"] = None
    if name == "ThreadDevice":  # two that must be given come behind one that need not be
        defaults |= {"device_type": zmq.QUEUE, "in_type": None, "out_type": None}
    assert defaults == {p.name: p.default for p in real.values() if p.default is not p.empty}


@pytest.mark.parametrize("kind", [zdev.DirectionStatistics, zdev.CaptureStatistics])
def test_every_count_is_explained(kind: Any) -> None:
    table = TEXT[TEXT.index("| of a direction |") : TEXT.index("What a relay promises")]
    assert {*kind._fields, "parked_seconds"} <= set(re.findall(r"`(\w+)`", table))
