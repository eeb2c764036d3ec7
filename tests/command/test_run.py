"""``zdev run`` and ``zdev reload``: many devices of one file, in real processes."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Callable

import pytest
import zmq
import zmq.auth

from zdev.cli import _control, _supervisor
from zdev.cli._changes import planned
from zdev.cli._control import ask, only_run, path_of
from zdev.cli._file import Entry, read

from ..support import DEADLINE, Background, Network, wait_until
from .running import ROOT, command
from .test_devices import running as broker

needs_curve = pytest.mark.skipif(not zmq.has("curve"), reason="this libzmq has no CURVE")

QUEUE = """\
[device.depot]
kind = "queue"
in = "bind:tcp://127.0.0.1:*"
out = "bind:tcp://127.0.0.1:*"
"""
TASKS = """\
[device.tasks]
kind = "streamer"
in = "bind:tcp://127.0.0.1:*"
out = "bind:tcp://127.0.0.1:*"
"""


def shown(path: Path) -> str:
    """Return what the system tells of a thread or process; nothing of one that has ended."""
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


class Running:
    """A ``zdev run``, with what it has printed and said so far."""

    def __init__(self, process: subprocess.Popen[str], file: Path) -> None:
        self.process, self.file = process, file
        self.told: queue.Queue[dict[str, Any]] = queue.Queue()
        self.said: list[str] = []
        for read_on in (self._hear, self._listen):
            threading.Thread(target=read_on, daemon=True).start()

    def _hear(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.told.put(json.loads(line))

    def _listen(self) -> None:
        assert self.process.stderr is not None
        self.said.extend(iter(self.process.stderr.readline, ""))

    def next(self) -> tuple[str, dict[str, list[str]]]:
        """Return the next device that relays, and where it is bound."""
        told = self.told.get(timeout=DEADLINE)
        assert (told["schema"], told["event"]) == ("device/1", "relaying")
        return told["name"], {role: of["bound"] for role, of in told["sockets"].items()}

    def await_words(self, words: str) -> None:
        """Wait until that was said."""
        wait_until(lambda: any(words in line for line in self.said))

    def children(self) -> list[int]:
        """Return the processes of its devices."""
        tasks = Path(f"/proc/{self.process.pid}/task")
        if not tasks.exists():
            pytest.skip("looks for processes in /proc")
        found = [each for task in tasks.iterdir() for each in shown(task / "children").split()]
        commands = {each: shown(Path(f"/proc/{each}/cmdline")) for each in found}
        return [int(each) for each, words in commands.items() if "spawn_main" in words]

    def reload(self, text: str) -> subprocess.CompletedProcess[str]:
        """Change the file, and have it read again."""
        self.file.write_text(text)
        return command("reload", str(self.file))

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE)


@contextlib.contextmanager
def running(file: Path, text: str, **environment: str) -> Iterator[Running]:
    file.write_text(text)
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "zdev", "run", "--json", str(file)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield Running(process, file)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def service_manager(runtime: Path) -> Iterator[queue.Queue[str]]:
    """Listen as systemd does, and read at once: what finds no room is lost."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(runtime / "notify"))
    heard: queue.Queue[str] = queue.Queue()

    def hear() -> None:
        with contextlib.suppress(OSError):  # it is closed
            for text in iter(lambda: manager.recv(4096).decode(), ""):
                heard.put(text)

    threading.Thread(target=hear, daemon=True).start()
    yield heard
    manager.shutdown(socket.SHUT_RDWR)
    manager.close()


def passes(net: Network, ends: Mapping[str, list[str]]) -> tuple[Any, Any]:
    """Check that messages pass a device; return a socket at each side."""
    kind = zmq.DEALER
    client, worker = net.socket(kind), net.socket(kind)
    client.connect(ends["in"][0])
    worker.connect(ends["out"][0])
    client.send(b"hello")
    asked = worker.recv_multipart()
    assert asked[-1] == b"hello"
    worker.send_multipart(asked)
    assert client.recv() == b"hello"
    return client, worker


# Lives


@pytest.mark.parametrize("thread", [False, True])
def test_devices_run_until_a_signal(net: Network, file: Path, thread: bool) -> None:
    text = QUEUE + (f"thread = true\n{TASKS}thread = true\n" if thread else TASKS)
    with running(file, text) as run:
        ends = dict(run.next() for _ in range(2))
        assert ends.keys() == {"depot", "tasks"}
        passes(net, ends["depot"])
        assert len(run.children()) == (0 if thread else 2)
        assert run.end() == 0
    assert run.said == ["zdev run: drains; a second signal ends it at once\n"]


def test_one_that_dies_starts_again_and_the_others_never_notice(net: Network, file: Path) -> None:
    with running(file, QUEUE) as run:
        _, before = run.next()
        client, worker = passes(net, before)
        (child,) = run.children()
        assert "kept" in run.reload(QUEUE + TASKS.replace("tasks", "kept")).stdout
        _, other = run.next()
        source, sink = net.socket(zmq.PUSH), net.socket(zmq.PULL)
        source.connect(other["in"][0])
        sink.connect(other["out"][0])
        os.kill(child, signal.SIGKILL)
        name, again = run.next()
        assert (name, again) == ("depot", before)  # also where any port would have done
        run.await_words("depot: starts again in 0.25 s")
        run.await_words("depot: relays again")
        source.send(b"meanwhile")
        assert sink.recv() == b"meanwhile"
        # Its peers come back by themselves.
        client.send(b"once more")
        assert worker.recv_multipart()[-1] == b"once more"
        assert run.end() == 3  # for that, there was no reply


def name_of_client(net: Network, ends: Mapping[str, list[str]]) -> bytes:
    """Return what a queue calls a client, who leaves then, and the worker, too."""
    client, worker = passes(net, ends)
    client.send(b"who am I")
    name = worker.recv_multipart()[0]
    for each in (client, worker):
        each.close()
    return name


@pytest.mark.parametrize("thread", [False, True])
def test_its_clients_are_not_called_what_others_were_before(
    net: Network, file: Path, thread: bool
) -> None:
    """A late reply to a request of a former life would reach one of them."""
    names = []
    for _ in range(2):
        with running(file, QUEUE + f"thread = {str(thread).lower()}\n") as run:
            names.append(name_of_client(net, run.next()[1]))
            if not thread:
                os.kill(run.children()[0], signal.SIGKILL)
                names.append(name_of_client(net, run.next()[1]))
    assert len({*names}) == len(names)


def test_ctrl_c_drains_though_it_goes_to_all_processes(net: Network, file: Path) -> None:
    with running(file, QUEUE) as run:
        _, ends = run.next()
        client, worker = passes(net, ends)
        client.send(b"work")
        asked = worker.recv_multipart()
        os.killpg(run.process.pid, signal.SIGINT)
        run.await_words("drains")
        worker.send_multipart(asked)
        assert client.recv() == b"work"
        assert run.process.wait(DEADLINE) == 0


def test_a_hangup_of_a_terminal_reloads_and_kills_no_device(file: Path) -> None:
    """It goes to all processes there."""
    with running(file, QUEUE) as run:
        run.next()
        children = run.children()
        os.killpg(run.process.pid, signal.SIGHUP)
        run.await_words("read again; nothing has changed")
        assert command("reload", str(file)).returncode == 0  # which a device that died would show
        assert run.children() == children
        assert run.end() == 0
    assert not any("died" in line for line in run.said)


def test_a_second_signal_ends_it_at_once(net: Network, file: Path) -> None:
    with running(file, QUEUE + "drain = 1000\n") as run:
        _, ends = run.next()
        client, worker = passes(net, ends)
        client.send(b"work")
        worker.recv_multipart()
        run.process.send_signal(signal.SIGINT)
        run.await_words("drains")
        assert run.end() == 130


def test_a_drain_has_an_end(net: Network, file: Path) -> None:
    with running(file, QUEUE + "drain = 0.3\n") as run:
        _, ends = run.next()
        client, worker = passes(net, ends)
        client.send(b"work")
        worker.recv_multipart()
        assert run.end() == 3


def test_it_ends_when_all_devices_were_told_to(net: Network, file: Path) -> None:
    with running(file, TASKS + 'ctrl = "bind:tcp://127.0.0.1:*"\n') as run:
        _, ends = run.next()
        operator = net.socket(zmq.REQ)
        operator.connect(ends["ctrl"][0])
        operator.send(b"TERMINATE")
        assert run.process.wait(DEADLINE) == 0
    run.await_words("tasks: ended, as it was told to")


def test_if_one_cannot_start_none_does(net: Network, file: Path) -> None:
    taken = net.bound(zmq.PULL, "tcp").getsockopt_string(zmq.LAST_ENDPOINT)
    with running(file, QUEUE + TASKS.replace("tcp://127.0.0.1:*", taken, 1)) as run:
        assert run.process.wait(DEADLINE) == 2
    run.await_words("zdev run: error: not all devices could be started, so none is")
    assert any(f"zdev run: error: tasks: {''}" in line and taken in line for line in run.said)
    assert run.told.empty()


def test_a_file_that_is_wrong(file: Path) -> None:
    file.write_text(QUEUE.replace("queue", "que"))
    done = command("run", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{file}:2:1: error: depot: kind: say what it is" in done.stderr


def test_a_file_has_one_run(file: Path) -> None:
    with running(file, TASKS) as run:
        run.next()
        done = command("run", str(file))
        assert done.returncode == 2
        assert f"zdev run: error: another zdev run has {file}" in done.stderr
        assert run.end() == 0
    assert not path_of(str(file)).exists()


def test_one_that_was_killed_leaves_no_obstacle(file: Path) -> None:
    with running(file, TASKS) as run:
        run.next()
        assert run.end(signal.SIGKILL) == -signal.SIGKILL
    assert path_of(str(file)).exists()
    with running(file, TASKS) as run:
        run.next()
        assert run.end() == 0


def test_counts_survive_restarts_and_replacements(net: Network, file: Path) -> None:
    def status() -> dict[str, Any]:
        answer = ask(str(file), {"verb": "status"}, DEADLINE)
        assert answer["problem"] is None
        (device,) = answer["devices"]
        return dict(device)

    def sent() -> float:
        return float(status()["counts"]["frontend_to_backend"]["messages_sent"])

    with running(file, QUEUE) as run:
        _, ends = run.next()
        client, worker = passes(net, ends)
        assert sent() == 1
        known = status()
        assert (known["name"], known["kind"], known["state"]) == ("depot", "queue", "relays")
        assert (known["restarts"], known["endpoints"]["in"]) == (0, ends["in"])
        assert known["types"] == {"in": "ROUTER", "out": "DEALER"}
        assert known["connections"]["in"]["peers"] == 1
        (child,) = run.children()
        os.kill(child, signal.SIGSTOP)
        assert status()["state"] == "does not answer"
        os.kill(child, signal.SIGKILL)
        run.next()
        assert sent() == 1
        assert status()["restarts"] == 1
        run.reload(QUEUE + "burst = 5\n")
        run.next()
        for end in (client, worker):
            end.close()
        wait_until(lambda: status()["connections"]["out"]["peers"] == 0)
        passes(net, ends)
        assert sent() == 2
        assert run.end() == 0


def test_one_that_is_killed_while_it_drains_has_not_drained(net: Network, file: Path) -> None:
    with running(file, TASKS + "drain = 1000\n") as run:
        _, ends = run.next()
        source = net.socket(zmq.PUSH)
        source.connect(ends["in"][0])
        source.send(b"nobody takes it")
        (child,) = run.children()
        run.process.send_signal(signal.SIGTERM)
        run.await_words("drains")
        os.kill(child, signal.SIGKILL)
        assert run.process.wait(DEADLINE) == 3


@pytest.mark.parametrize("verb", ["run", "streamer"])
@pytest.mark.parametrize("output", ["full", "closed", "nobody reads it"])
def test_it_relays_though_nobody_reads_its_output(file: Path, verb: str, output: str) -> None:
    (address,) = ports(1)
    ends = [f"bind:{address}", "bind:tcp://127.0.0.1:*"]
    file.write_text(TASKS.replace("bind:tcp://127.0.0.1:*", ends[0], 1))
    words = ["run", str(file)] if verb == "run" else [verb, "--in", ends[0], "--out", ends[1]]
    reader, writer = os.pipe()
    os.close(reader)
    if output == "full":
        os.close(writer)
        writer = os.open("/dev/full", os.O_WRONLY)
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-m", "zdev", *words],
        cwd=ROOT,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=(lambda: os.close(1)) if output == "closed" else None,
    ) as process:
        os.close(writer)
        try:
            wait_until(lambda: listens(address))
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE) == 0
            assert process.stderr is not None
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()


# Reloads


def test_only_what_has_changed_is_changed(net: Network, file: Path) -> None:
    with running(file, QUEUE + TASKS) as run:
        ends = dict(run.next() for _ in range(2))
        client, worker = passes(net, ends["depot"])
        children = set(run.children())
        wired = QUEUE.replace(
            'in = "bind:tcp://127.0.0.1:*"', 'in = ["bind:tcp://127.0.0.1:*", "bind:ipc://@%s"]'
        )
        name = f"zdev-run-{os.getpid()}"
        done = run.reload((wired % name) + 'set = { "out.sndhwm" = 7 }\ndrain = 1\n' + TASKS)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == [
            f"depot: bind in ipc://@{name}",
            "depot: set out.sndhwm = 7",
        ]
        other = net.socket(zmq.DEALER)
        other.connect(f"ipc://@{name}")
        for each in (client, other):
            each.send(b"still")
            asked = worker.recv_multipart()
            worker.send_multipart(asked)
            assert each.recv() == b"still"
        assert set(run.children()) == children
        done = run.reload(QUEUE + 'set = { "out.sndhwm" = 7 }\n')
        assert done.stdout.splitlines() == [f"depot: unbind in ipc://@{name}", "tasks: stopped"]
        wait_until(lambda: len(run.children()) == 1)
        done = run.reload(QUEUE + 'overflow = "drop"\n')
        assert done.stdout.splitlines() == ["depot: replaced"]
        assert run.next() == ("depot", ends["depot"])  # the same ports
        assert run.reload(QUEUE + 'overflow = "drop"\n').stdout == ""
        run.await_words("read again; nothing has changed")
        assert run.end() == 0


NAMES = """
import json, os, socket

def getaddrinfo(host, port, *rest, known=socket.getaddrinfo, **others):
    with open(os.environ["KNOWN_NAMES"]) as file:
        names = json.load(file)
    if host in ("workers", "nobody"):
        if not names.get(host):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(2, 1, 6, "", (address, port)) for address in names[host]]
    return known(host, port, *rest, **others)

socket.getaddrinfo = getaddrinfo
"""


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Say what addresses the names workers and nobody have, in all processes that are started."""
    folder = tmp_path / "names"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(NAMES)
    monkeypatch.setenv("KNOWN_NAMES", str(folder / "names.json"))
    path = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", str(folder) + (os.pathsep + path if path else ""))

    def know(**names: list[str]) -> None:
        (folder / "new.json").write_text(json.dumps(names))
        (folder / "new.json").replace(folder / "names.json")

    know()
    return know


def test_names(net: Network, file: Path, names: Callable[..., None]) -> None:
    """All addresses of a name are connected to; a reload changes how, and where to."""
    one, two = net.socket(zmq.REP), net.socket(zmq.REP)
    one.bind("tcp://127.0.0.1:*")
    port = one.getsockopt_string(zmq.LAST_ENDPOINT).rpartition(":")[2]
    two.bind(f"tcp://127.0.0.2:{port}")
    names(workers=["127.0.0.1"])

    def asked(*workers: Any) -> None:
        """Ask until each of them has been, which takes as long as the name does to be known."""
        left = set(workers)
        while left:
            client.send(b"?")
            wait_until(lambda: any(worker.poll(0) for worker in (one, two)))
            worker = next(each for each in (one, two) if each.poll(0))
            worker.send(worker.recv())
            assert client.recv() == b"?"
            left.discard(worker)

    def of(workers: str) -> str:
        return f"""\
[device.depot]
kind = "queue"
in = "bind:tcp://127.0.0.1:*"
out = "connect:tcp://{workers}"
insecure = true
"""

    named = f"workers:{port}?resolve=all&every="
    with running(file, of(named + "0.1s")) as run:
        _, ends = run.next()
        client = net.socket(zmq.REQ)
        client.connect(ends["in"][0])
        asked(one)
        names(workers=["127.0.0.1", "127.0.0.2"])
        asked(one, two)
        names()  # it keeps what it had
        run.await_words("could not be looked up")
        asked(one, two)
        done = run.reload(of(named + "0.2s"))
        assert done.stdout == f"depot: connect out tcp://{named}0.2s\n"
        asked(one, two)
        done = run.reload(of(f"127.0.0.2:{port}"))
        assert done.stdout.splitlines() == [
            f"depot: connect out tcp://127.0.0.2:{port}",
            f"depot: disconnect out tcp://{named}0.2s",
        ]
        client.send(b"?")
        two.send(two.recv())
        assert client.recv() == b"?"
        assert run.end() == 0


def test_addresses_may_go_from_one_to_another(file: Path) -> None:
    name = f"zdev-run-{os.getpid()}"
    first = QUEUE.replace("tcp://127.0.0.1:*", f"ipc://@{name}-a", 1)
    second = TASKS.replace("tcp://127.0.0.1:*", f"ipc://@{name}-b", 1)
    swapped = (first + second).replace("-a", "-c").replace("-b", "-a").replace("-c", "-b")
    with running(file, first + second) as run:
        run.next(), run.next()
        assert run.reload(swapped).returncode == 0
        assert run.reload(first.replace("depot", "new") + second).returncode == 0
        assert run.next()[1]["in"] == [f"ipc://@{name}-a"]
        assert run.end() == 0


@pytest.mark.parametrize("how", ["wrong", "taken", "new is taken", "replaced is taken", "too deep"])
def test_a_reload_that_fails_leaves_all_as_it_was(net: Network, file: Path, how: str) -> None:
    taken = net.bound(zmq.PULL, "tcp").getsockopt_string(zmq.LAST_ENDPOINT)
    more = f'mon = "bind:ipc://@zdev-run-{os.getpid()}"\nset = {{ "in.rcvhwm" = 5 }}\n'
    bad = TASKS.replace("tcp://127.0.0.1:*", taken, 1)
    text = {
        "wrong": QUEUE + more + TASKS.replace("kind", "knd"),
        "taken": QUEUE + more + bad,
        "new is taken": QUEUE + more + TASKS + bad.replace("tasks", "more"),
        "replaced is taken": QUEUE + more + bad + "burst = 5\n",
        "too deep": "x = " + 5000 * "[",
    }[how]
    with running(file, QUEUE + TASKS) as run:
        ends = dict(run.next() for _ in range(2))
        for end in passes(net, ends["depot"]):
            end.close()
        done = run.reload(text)
        assert (done.returncode, done.stdout) == (1, "")
        assert "zdev reload: error: not reloaded; all is as it was" in done.stderr
        words = {"wrong": f"{file}:8:1: error: tasks: knd: ", "too deep": "too many brackets"}
        assert words.get(how, taken) in done.stderr
        passes(net, ends["depot"])
        source, sink = net.socket(zmq.PUSH), net.socket(zmq.PULL)
        source.connect(ends["tasks"]["in"][0])
        sink.connect(ends["tasks"]["out"][0])
        source.send(b"as before")
        assert sink.recv() == b"as before"
        assert run.reload(QUEUE + TASKS).stdout == ""
        assert run.end() == 0


def ports(count: int) -> list[str]:
    """Return addresses that are free now."""
    found = [socket.socket() for _ in range(count)]
    for each in found:
        each.bind(("127.0.0.1", 0))
    names = [f"tcp://127.0.0.1:{each.getsockname()[1]}" for each in found]
    for each in found:
        each.close()
    return names


def listens(address: str) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(address.rpartition(":")[2]))) == 0


def test_what_leaves_is_unbound_in_whatever_order_the_file_has_it(file: Path) -> None:
    one, other = ports(2)
    text = QUEUE.replace('"bind:tcp://127.0.0.1:*"', f'["bind:{one}"]', 1)
    with running(file, text) as run:
        run.next()
        both = text.replace(f'"bind:{one}"', f'"bind:{other}", "bind:{one}"')
        assert run.reload(both).stdout == f"depot: bind in {other}\n"
        assert run.reload(text).stdout == f"depot: unbind in {other}\n"
        assert (listens(one), listens(other)) == (True, False)
        assert run.end() == 0


def test_a_reload_that_drains_heeds_a_second_signal_and_feeds_the_watchdog(
    net: Network, file: Path, runtime: Path
) -> None:
    with service_manager(runtime) as heard:
        told: dict[str, str] = {"NOTIFY_SOCKET": str(runtime / "notify"), "WATCHDOG_USEC": "500000"}
        with running(file, QUEUE + "drain = 1000\n", **told) as run:
            _, ends = run.next()
            client, worker = passes(net, ends)
            client.send(b"work")
            worker.recv_multipart()
            file.write_text(QUEUE + "drain = 1000\nburst = 5\n")
            run.process.send_signal(signal.SIGHUP)
            while not heard.get(timeout=DEADLINE).startswith("RELOADING=1"):
                pass
            for _ in range(3):
                assert heard.get(timeout=DEADLINE) == "WATCHDOG=1"
            for number in (signal.SIGTERM, signal.SIGINT):  # two of a kind may become one
                run.process.send_signal(number)
            assert run.process.wait(DEADLINE) == 130


def test_a_check_before_a_reload_knows_what_the_run_has(file: Path, tmp_path: Path) -> None:
    (address,) = ports(1)
    text = QUEUE.replace("tcp://127.0.0.1:*", address, 1)
    with running(file, text) as run:
        run.next()
        assert command("check", str(file)).returncode == 0
        other = tmp_path / "other.toml"
        other.write_text(text)
        done = command("check", str(other))
        assert (done.returncode, f"{address}: it is taken" in done.stderr) == (2, True)
        assert run.end() == 0


def test_a_path_that_libzmq_chooses_may_be_another_one(file: Path) -> None:
    text = QUEUE.replace("tcp://127.0.0.1:*", "ipc://*", 1)
    with running(file, text) as run:
        _, first = run.next()
        assert run.reload(text + "burst = 5\n").stdout == "depot: replaced\n"
        _, second = run.next()
        assert second["out"] == first["out"]
        (child,) = run.children()
        os.kill(child, signal.SIGKILL)
        assert run.next()[1] == second
        assert run.reload(text).stdout == "depot: replaced\n"
        assert run.end() == 0


def test_it_takes_no_path_that_somebody_has(net: Network, file: Path, tmp_path: Path) -> None:
    plain, held = tmp_path / "plain", tmp_path / "held"
    plain.write_text("precious")
    theirs = net.socket(zmq.PULL)
    theirs.bind(f"ipc://{held}")
    for path, words in ((plain, "there is something else"), (held, "somebody listens there")):
        place = f"bind:ipc://{path}"
        done = command("queue", "--in", place, "--out", "bind:tcp://127.0.0.1:*")
        assert (done.returncode, words in done.stderr) == (2, True)
        with running(file, TASKS) as run:
            run.next()
            both = TASKS.replace('in = "', f'in = ["{place}", "').replace('*"', '*"]', 1)
            for more in (both, TASKS + QUEUE.replace("bind:tcp://127.0.0.1:*", place, 1)):
                done = run.reload(more)
                assert (done.returncode, words in done.stderr) == (1, True)
            assert run.end() == 0
    assert plain.read_text() == "precious"
    ours = net.socket(zmq.PUSH)
    ours.connect(f"ipc://{held}")
    ours.send(b"still theirs")
    assert theirs.recv() == b"still theirs"


@pytest.mark.parametrize("how", ["swapped", "to one that goes on", "to another interface"])
def test_an_address_is_free_for_another(file: Path, how: str) -> None:
    one, two = ports(2)
    first = QUEUE.replace("tcp://127.0.0.1:*", one, 1)
    second = TASKS.replace("tcp://127.0.0.1:*", two, 1)
    text = {
        "swapped": first.replace(one, two) + "burst = 5\n" + second.replace(two, one) + "burst = 5",
        "to one that goes on": first.replace(one, two) + TASKS + "burst = 5\n",
        "to another interface": first.replace("127.0.0.1", "*", 1) + "insecure = true\n" + second,
    }[how]
    with running(file, first + second) as run:
        run.next(), run.next()
        done = run.reload(text)
        assert (done.returncode, done.stderr) == (0, "")
        assert listens(two)
        assert run.end() == 0


def test_what_waits_to_start_again_does_so_after_a_reload_that_fails(file: Path) -> None:
    (address,) = ports(1)
    text = QUEUE.replace("tcp://127.0.0.1:*", address, 1)
    with running(file, text) as run:
        run.next()
        (child,) = run.children()
        os.kill(child, signal.SIGSTOP)  # so that its port is had before it starts again
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            run.process.send_signal(signal.SIGSTOP)
            os.kill(child, signal.SIGKILL)

            def is_bound() -> bool:
                with contextlib.suppress(OSError):
                    other.bind(("127.0.0.1", int(address.rpartition(":")[2])))
                    return True
                return False

            wait_until(is_bound)
            other.listen()
            run.process.send_signal(signal.SIGCONT)
            run.await_words("depot: did not start: ")
            assert run.reload(text + "burst = 5\n").returncode == 1
        assert run.next()[1]["in"] == [address]
        assert run.end() == 0


@pytest.mark.parametrize("drains", [True, False])
def test_one_that_is_halted_holds_up_neither_a_reload_nor_the_end(
    monkeypatch: pytest.MonkeyPatch, drains: bool
) -> None:
    monkeypatch.setattr(_supervisor, "ANSWER", 0.5)
    monkeypatch.setattr(_supervisor, "PATIENCE", 0.5)
    supervisor = _supervisor.Supervisor([].append, [].append)
    try:
        text = QUEUE + "drain = 0.1\n"
        supervisor.start(entries(text))
        kept = supervisor.kept["depot"]
        first = kept.device.launcher.pid
        os.kill(first, signal.SIGSTOP)
        with pytest.raises(TimeoutError, match="depot has not answered"):
            supervisor.reload(entries(text + 'set = { "in.sndhwm" = 7 }\n'))

        def is_again() -> bool:
            supervisor.attend()
            return kept.restarts == 1 and kept.device is not None

        wait_until(is_again)
        os.kill(kept.device.launcher.pid, signal.SIGSTOP)
        assert supervisor.reload(entries(text + "burst = 5\n")) == ["depot: replaced"]
        kept = supervisor.kept["depot"]
        os.kill(kept.device.launcher.pid, signal.SIGSTOP)
        supervisor.stop(drain=drains)
        wait_until(lambda: (supervisor.attend(), supervisor.has_ended)[1])
        wait_until(lambda: supervisor.was_cut_off == drains)
    finally:
        supervisor.stop(drain=False)
        wait_until(lambda: (supervisor.attend(), supervisor.has_ended)[1])
        supervisor.close()


def test_no_message_is_lost_while_it_is_rewired(net: Network, file: Path) -> None:
    count = 3000
    name = f"zdev-run-{os.getpid()}"
    with running(file, TASKS) as run:
        _, ends = run.next()
        source, sink = net.socket(zmq.PUSH), net.socket(zmq.PULL)
        source.connect(ends["in"][0])
        sink.connect(ends["out"][0])
        received: list[bytes] = []
        reader = threading.Thread(
            target=lambda: received.extend(sink.recv() for _ in range(count)), daemon=True
        )
        reader.start()
        added = TASKS.replace('in = "', f'in = ["connect:ipc://@{name}-none", "').replace(
            '*"\nout', f'*", "bind:ipc://@{name}"]\nout'
        )
        for number in range(count):
            source.send(b"%d" % number)
            if number % 500 == 250:
                run.file.write_text(TASKS if number % 1000 == 750 else added)
                run.process.send_signal(signal.SIGHUP)
                wait_until(lambda n=number // 500: sum("read again" in s for s in run.said) > n)
        reader.join(DEADLINE)
        assert received == [b"%d" % number for number in range(count)]
        assert run.end() == 0


def test_there_is_no_such_run(file: Path) -> None:
    done = command("reload", str(file))
    assert done.returncode == 2
    assert f"zdev reload: error: there is no zdev run of {file}" in done.stderr


def test_a_file_is_known_by_all_its_paths(runtime: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"v{number}").mkdir()
        (tmp_path / f"v{number}" / "zdev.toml").write_text(TASKS + f"burst = {number}\n")
    now, then = tmp_path / "now", tmp_path / "then"
    now.symlink_to("v1")
    then.symlink_to("v2")
    with running(now / "zdev.toml", TASKS) as run:
        run.next()
        assert command("reload", str(tmp_path / "v1" / "zdev.toml")).returncode == 0
        then.replace(now)  # as deployments put a new version in place
        assert command("reload", str(now / "zdev.toml")).stdout == "tasks: replaced\n"
        done = command("run", str(now / "zdev.toml"))
        assert (done.returncode, "another zdev run has" in done.stderr) == (2, True)
        assert run.end() == 0
    assert list((runtime / "zdev").iterdir()) == []


def no_folder() -> str:
    raise FileNotFoundError


def test_a_service_is_found_from_a_shell(
    file: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = runtime / "service"
    folder.mkdir(mode=0o755)
    with running(file, TASKS, RUNTIME_DIRECTORY=str(folder)) as run:
        run.next()
        if os.getuid() == 0:  # root may reload what runs as another
            os.chown(folder, 65534, 65534)
        assert command("reload", str(file)).returncode == 2
        assert command("reload", str(file), RUNTIME_DIRECTORY=str(folder)).returncode == 0
        monkeypatch.setattr(_control, "SERVICE", folder)
        assert ask(str(file), {"verb": "file"}, DEADLINE) == {"file": str(file)}
        assert only_run() == str(file)
        for name in ("XDG_RUNTIME_DIR", "RUNTIME_DIRECTORY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(tempfile, "gettempdir", no_folder)  # as where all is read-only
        assert only_run() == str(file)
        assert run.end() == 0
    shutil.rmtree(folder)
    with pytest.raises(_control.ControlError, match="RUNTIME_DIRECTORY can name one"):
        only_run()


def test_the_control_socket_is_its_users_alone(file: Path, runtime: Path) -> None:
    with running(file, TASKS) as run:
        run.next()
        path = path_of(str(file))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        for line in (b"", b"\n", b"[]\n", b"{}\n", b'{"verb": "x"}\n', b"\xff\n", b"x" * 100_000):
            with socket.socket(socket.AF_UNIX) as client, contextlib.suppress(OSError):
                client.settimeout(DEADLINE)
                client.connect(str(path))
                client.sendall(line)
                client.shutdown(socket.SHUT_WR)
                while client.recv(1000):
                    pass
        assert command("reload", str(file)).returncode == 0
        assert run.end() == 0
    path.parent.chmod(0o777)
    done = command("run", str(file))
    assert done.returncode == 2
    assert f"{path.parent} is not a folder that only you can write to" in done.stderr


def test_what_answers_is_not_trusted(file: Path, runtime: Path) -> None:
    """It may be what a service's user runs, while root asks."""
    answers = [
        b"[1]\n",
        b"5\n",
        b"[" * 100_000 + b"\n",
        b'{"devices": [{}]}\n',
        b'{"changes": ["a\\u001b[2J"]}\n',
        b"",
    ]
    over = threading.Event()
    file.write_text(TASKS)

    def serve(listener: socket.socket) -> None:
        for answer in answers:
            client, _ = listener.accept()
            with client, contextlib.suppress(OSError):
                client.recv(1000)
                client.sendall(answer)
                while not (answer or over.wait(0.05)):  # a little now and then, and never a line
                    client.sendall(b" ")

    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(DEADLINE)
        listener.bind(str(path_of(str(file))))
        listener.listen()
        server = Background(lambda: serve(listener))
        for _ in range(3):
            with pytest.raises(_control.ControlError, match=r"no zdev run|before it answered"):
                ask(str(file), {"verb": "file"}, DEADLINE)
        done = command("top", "--plain", "--count", "1", str(file))
        assert done.returncode == 2
        assert "it is of another version" in done.stderr
        assert command("reload", str(file)).stdout == "a\\x1b[2J\n"
        with pytest.raises(TimeoutError, match=r"has not answered in 0\.5 s"):
            ask(str(file), {"verb": "file"}, 0.5)
        over.set()
        server.join()


def test_standard_input_is_read_once() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "zdev", "run", "-"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(TASKS)
        process.stdin.close()
        assert process.stdout.readline().startswith("tasks in   PULL    bound")
        process.send_signal(signal.SIGHUP)
        assert process.stderr is not None
        assert process.stderr.readline() == "zdev run: standard input cannot be read again\n"
        process.send_signal(signal.SIGTERM)
        process.wait(DEADLINE)
        assert process.returncode == 0


# The service manager


def test_it_tells_the_service_manager(file: Path, runtime: Path) -> None:
    def told(but: str = "WATCHDOG=1") -> dict[str, str]:
        text = next(t for t in iter(lambda: heard.get(timeout=DEADLINE), None) if t != but)
        return dict(line.split("=", 1) for line in text.splitlines())

    environment = {"NOTIFY_SOCKET": str(runtime / "notify"), "WATCHDOG_USEC": "200000"}
    with service_manager(runtime) as heard, running(file, TASKS, **environment) as run:
        assert told() == {"READY": "1", "STATUS": "1 device"}
        for _ in range(3):
            assert told(but="") == {"WATCHDOG": "1"}
        assert run.reload(QUEUE + TASKS).returncode == 0
        begins = told()
        assert begins.keys() == {"RELOADING", "MONOTONIC_USEC"}
        assert begins["MONOTONIC_USEC"].isdigit()
        assert told() == {"READY": "1", "STATUS": "2 devices"}
        assert run.reload("x").returncode == 1
        assert told().keys() == {"RELOADING", "MONOTONIC_USEC"}
        assert told()["STATUS"].startswith("2 devices; the last reload failed: ")
        run.process.send_signal(signal.SIGTERM)
        assert told() == {"STOPPING": "1", "STATUS": "Draining"}
        assert run.process.wait(DEADLINE) == 0


# What is to be done


def entries(text: str) -> dict[str, Entry]:
    found, problems = read(text)
    assert problems == []
    return found


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ("", None),
        ("drain = 1\n", "noted"),
        ("insecure = true\n", "noted"),
        ('set = { "in.rcvhwm" = 5 }\n', "rewired"),
        ('mon = "bind:ipc://@x"\n', "rewired"),
        ('mon-type = "XPUB"\n', "replaced"),
        ("burst = 5\n", "replaced"),
        ("thread = true\n", "replaced"),
        ('in-type = "router"\n', "noted"),
    ],
)
def test_what_a_change_needs(more: str, where: str | None) -> None:
    plan = planned(entries(QUEUE), entries(QUEUE + more))
    for name in ("stopped", "started", "replaced", "rewired", "noted"):
        assert list(getattr(plan, name)) == (["depot"] if name == where else [])
    # And back again.
    plan = planned(entries(QUEUE + more), entries(QUEUE))
    back = "replaced" if more.startswith("set") else where
    for name in ("stopped", "started", "replaced", "rewired", "noted"):
        assert list(getattr(plan, name)) == (["depot"] if name == back else [])


# Keys


def curve(net: Network, folder: Path, name: str, server: Path) -> zmq.Socket[bytes]:
    """Return a client with the keys of that name, which are made if there are none."""
    if not (folder / f"{name}.key").exists():
        assert command("keygen", "--directory", str(folder), name).returncode == 0
    public, secret = zmq.auth.load_certificate(folder / f"{name}.key_secret")
    client = net.socket(zmq.PUSH)
    client.curve_publickey, client.curve_secretkey = public, secret
    client.curve_serverkey = zmq.auth.load_certificate(server)[0]
    return client


SECURED = f"""\
[device.tasks]
kind = "streamer"
in = "bind:tcp://0.0.0.0:*"
out = "bind:ipc://@zdev-run-{os.getpid()}"
curve-server = {{ in = "keys/depot.key_secret" }}
allow = {{ in = "keys/clients" }}
"""


@needs_curve
def test_a_list_of_clients_is_read_again(net: Network, file: Path) -> None:
    keys = file.parent / "keys"
    (keys / "clients").mkdir(parents=True)
    assert command("keygen", "--directory", str(keys), "depot").returncode == 0
    with running(file, SECURED) as run:
        _, ends = run.next()
        address = ends["in"][0].replace("0.0.0.0", "127.0.0.1")
        sink = net.socket(zmq.PULL)
        sink.connect(ends["out"][0])

        def comes(name: str) -> None:
            client = curve(net, keys, name, keys / "depot.key")
            client.connect(address)
            client.send(name.encode())

        comes("alice")
        run.await_words("refused")
        curve(net, keys, "bob", keys / "depot.key")
        shutil.copy(keys / "bob.key", keys / "clients")
        done = run.reload(SECURED)
        assert (done.returncode, done.stdout) == (0, "")
        comes("bob")
        assert sink.recv() == b"bob"
        shutil.rmtree(keys / "clients")
        done = run.reload(SECURED)
        assert done.returncode == 1
        assert f"{keys}/clients: No such file or directory" in done.stderr
        assert run.end() == 0
    secret = zmq.auth.load_certificate(keys / "depot.key_secret")[1]
    assert secret.decode() not in "".join(run.said)


@needs_curve
def test_a_socket_that_is_secured_may_be_open(net: Network, tmp_path: Path) -> None:
    assert command("keygen", "--directory", str(tmp_path), "depot").returncode == 0
    curve(net, tmp_path, "alice", tmp_path / "depot.key")
    words = ["--in", "bind:tcp://0.0.0.0:*", "--out", "bind:tcp://127.0.0.1:*"]
    server = f"in={tmp_path}/depot.key_secret"
    with broker("streamer", *words, "--curve-server", server) as device:
        address = device.at("in").replace("0.0.0.0", "127.0.0.1")
        client = f"out={tmp_path}/alice.key_secret,{tmp_path}/depot.key"
        source, sink = net.socket(zmq.PUSH), net.socket(zmq.PULL)
        sink.connect(device.at("out"))
        ends = ["--in", "bind:tcp://127.0.0.1:*", "--out", f"connect:{address}"]
        with broker("streamer", *ends, "--curve-client", client) as other:
            source.connect(other.at("in"))
            source.send(b"through both")
            assert sink.recv() == b"through both"
            for each in (other, device):
                each.signal(signal.SIGTERM)
                assert each.end()[0] == 0
    mode = command("streamer", *words, "--curve-server", f"in={tmp_path}/depot.key")
    assert mode.returncode == 2
    assert f"the public key; the secret one is in {tmp_path}/depot.key_secret" in mode.stderr


@needs_curve
def test_keys_for_all_devices(net: Network, file: Path) -> None:
    """What [curve] says holds for the sockets of which a device says nothing itself."""
    keys = file.parent / "keys"
    (keys / "clients").mkdir(parents=True)
    for name in ("depot", "other"):
        assert command("keygen", "--directory", str(keys), name).returncode == 0
    shared = '[curve]\nserver = { in = "keys/depot.key_secret" }\nallow = { in = "keys/clients" }\n'
    its = 'curve-server = { in = "keys/other.key_secret" }\n'
    first = TASKS.replace("tasks", "first").replace("127.0.0.1", "0.0.0.0", 1)
    second = TASKS.replace("tasks", "second") + its
    with running(file, shared + first + second) as run:
        ends = dict(run.next() for _ in range(2))
        at = {name: ends[name]["in"][0] for name in ends}
        sink = net.socket(zmq.PULL)
        for each in ends.values():
            sink.connect(each["out"][0])

        def connected(name: str, server: str, address: str) -> zmq.Socket[bytes]:
            client = curve(net, keys, name, keys / f"{server}.key")
            client.connect(address.replace("0.0.0.0", "127.0.0.1"))
            return client

        connected("alice", "depot", at["first"])  # nobody is in the list
        run.await_words("refused")
        connected("anybody", "other", at["second"]).send(b"there is no list")
        assert sink.recv() == b"there is no list"
        shutil.copy(keys / "alice.key", keys / "clients")
        assert run.reload(shared + first + second).returncode == 0
        # She comes again by another socket: libzmq does not try again where it was refused.
        connected("alice", "depot", at["first"]).send(b"is in it")
        assert sink.recv() == b"is in it"
        assert run.end() == 0


def test_passwords(net: Network, file: Path) -> None:
    known, own = file.with_name("passwords"), file.with_name("own")
    for path, text in ((known, "# who may come\n\nalice:a:b c\n"), (own, "bob:its\n")):
        path.touch(0o600)
        path.write_text(text)
    text = TASKS + 'plain-server = { in = "passwords" }\n'
    with running(file, text) as run:
        _, ends = run.next()
        sink = net.socket(zmq.PULL)
        sink.connect(ends["out"][0])
        alice = net.socket(zmq.PUSH, plain_username=b"alice", plain_password=b"a:b c")
        alice.connect(ends["in"][0])
        alice.send(b"has a password")
        assert sink.recv() == b"has a password"
        words = ["--in", "bind:tcp://127.0.0.1:*", "--out", f"connect:{ends['in'][0]}"]
        words += ["--plain-client", f"out={own}"]
        with broker("streamer", *words):
            run.await_words("refused")
        known.write_text("bob:its\n")
        assert run.reload(text).returncode == 0
        with broker("streamer", *words) as device:
            bob = net.socket(zmq.PUSH)
            bob.connect(device.at("in"))
            bob.send(b"has one now")
            assert sink.recv() == b"has one now"
        known.write_text("who has no colon")
        done = run.reload(text)
        assert done.returncode == 1
        assert "line 1: write NAME:PASSWORD" in done.stderr
        assert "who has no colon" not in done.stderr + "".join(run.said)
        assert run.end() == 0


@needs_curve
@pytest.mark.parametrize(
    ("more", "key", "words"),
    [
        ("[curve]\nserver = 5\n", "server", "must be a table, not 5"),
        (
            "[curve]\nservers = { in = 'x' }\n",
            "servers",
            "no 'servers' in it; did you mean server?",
        ),
        ("[curve]\nclient = { out = 'x' }\n", "client", "out must be the paths of its own secret"),
        ("curve = 5\n", "curve", "must be a table, not 5"),
    ],
)
def test_keys_for_all_that_are_wrong(file: Path, more: str, key: str, words: str) -> None:
    file.write_text(more + TASKS)
    done = command("check", "--no-environment", str(file))
    assert done.returncode == 2
    assert f": error: {key}: " in done.stderr
    assert words in done.stderr


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        ("alice:secret", 0o640, "not its owner alone may read and change it, its mode is 0640"),
        ("alice secret", 0o600, "passwords, line 1: write NAME:PASSWORD"),
        ("alice:secret\nalice:secret", 0o600, "line 2: that name has a password already"),
        ("alice:", 0o600, "a password must have 1 to 255 bytes, not 0"),
        (":secret", 0o600, "a username must have 1 to 255 bytes, not 0"),
    ],
)
def test_passwords_that_are_wrong(file: Path, text: str, mode: int, words: str) -> None:
    """None of them is shown."""
    known = file.with_name("passwords")
    known.touch(0o600)
    known.write_text(text)
    known.chmod(mode)
    file.write_text(TASKS + 'plain-server = { in = "passwords" }\n')
    done = command("check", "--no-environment", str(file))
    assert done.returncode == 2
    assert f"{file}:5:" in done.stderr
    assert words in done.stderr
    assert "secret" not in done.stderr


@needs_curve
@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            'plain-client = { in = "x" }\nplain-server = { in = "x" }',
            "in has plain-server and plain-client, of which a socket can have one",
        ),
        ('plain-client = { in = "two" }', "two has 2 names; one must tell who it is by one"),
        ('curve-server = { in = "none.key_secret" }', "none.key_secret: No such file"),
        ("curve-server = { in = 5 }", "in must be a path, not 5"),
        ('curve-server = { inn = "x" }', "there is no socket 'inn'; did you mean in?"),
        ('curve-client = { out = "x" }', "out must be the paths of its own secret certificate"),
        ('curve-client = { out = ["no", "y"] }', "/no: No such file"),
        ('allow = { in = "." }', "in is no server of CURVE, so it cannot tell who comes"),
    ],
)
def test_keys_that_are_wrong(file: Path, more: str, words: str) -> None:
    for name in ("x", "two"):
        file.with_name(name).touch(0o600)
        file.with_name(name).write_text("alice:secret\n" * (name == "two") + "bob:secret")
    file.write_text(TASKS + more + "\n")
    done = command("check", "--no-environment", str(file))
    assert done.returncode == 2
    assert words in done.stderr
    key = more.partition(" ")[0]
    assert done.stderr.startswith(f"{file}:5:")
    assert f": error: tasks: {key}: " in done.stderr
