"""``zdev run`` with six devices, for as long as is asked, while its file and its peers change.

    python -m tests.proofs.soak.brokers --seconds N [--seed S]

Every second the file is another one, and SIGHUP comes: endpoints and options change live, a device
is made anew, another comes or goes, or the file is wrong. Every 13 seconds a device's process is
killed with SIGKILL. Peers come, go and stall (`customers`). Checked throughout:

- no message is lost, twice there, in disorder or in pieces, and the counts of ``zdev run`` are
  those of the peers; but of a process that was killed, what it held dies, as much as high-water
  marks and the kernel's buffers allow, and its counts since they were last asked for;
- a device that is made anew while its peers rest loses nothing;
- of the device with ``overflow = "drop"``, what has not come is what was counted as overflowed;
- ``zdev run`` itself has no more memory, descriptors, threads or children in the end.

The exit status is 0 if all went well.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zdev.cli._control import ask

from ...support import DEADLINE, wait_until
from .customers import HWM, KERNEL, KINDS, RECEIVERS, Customers
from .messages import Violation, tally
from .processes import children, is_alive, owner, resident, resources

ROOT = Path(__file__).parents[3]
KILL_EVERY = (
    13.0  # five processes take turns, each lives for more than a minute: its delay is short
)
LOST = ("dropped", "overflowed", "unroutable")
MEMORY_MORE, MEMORY_PART = (64, 0.25) if sys.implementation.name == "pypy" else (8, 0.1)


class Device:
    """What the file says of a device now, and its peers."""

    def __init__(self, name: str, kind: str, transport: str, folder: str, *more: str) -> None:
        self.name, self.kind, self.more = name, kind, more
        self.folder, self.transport = folder, transport
        self.ends: dict[str, str] = {}
        self.is_wider = False
        self.rcvhwm, self.burst, self.drain = HWM, 64, 5
        self.customers: Customers
        self.is_thread = "thread = true" in more
        self.before: dict[str, Counter[str]] = {}
        """The counts, and what the peers had sent and received, when they rested last."""
        self.was_killed = False
        """Whether it was killed since then."""
        self.lives = 0

    def text(self) -> str:
        """Return its table."""
        lines = [f"[device.{self.name}]", f'kind = "{self.kind}"', *self.more]
        for role in ("in", "out", *(("mon",) if self.kind == "monitored-queue" else ())):
            wild = "tcp://127.0.0.1:*" if self.transport == "tcp" else self.path(role)
            places = [f"bind:{wild}"]
            if role == "in" and self.is_wider:
                places.append(f"bind:{self.path('wider')}")
            lines.append(f"{role} = {places}".replace("'", '"'))
        options: dict[str, int] = {"in.rcvhwm": self.rcvhwm}
        for option in ("sndhwm", "rcvhwm", "sndbuf", "rcvbuf"):
            for role in ("in", "out"):
                options.setdefault(f"{role}.{option}", KERNEL if "buf" in option else HWM)
        if self.kind == "forwarder":
            options["out.xpub_nodrop"] = 1
        if "queue" in self.kind:
            options["in.router_mandatory"] = 1
        pairs = ", ".join(f'"{name}" = {value}' for name, value in options.items())
        lines += [f"set = {{ {pairs} }}", f"burst = {self.burst}", f"drain = {self.drain}"]
        return "\n".join(lines) + "\n"

    def path(self, role: str) -> str:
        """Return an address for ipc."""
        return f"ipc://{self.folder}/{self.name}-{role}"


class Soak:
    """The command, its devices and what becomes of them."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.rng = random.Random(seed)
        self.ipc = folder / "ipc"
        self.temporary = folder / "tmp"
        self.runtime = folder / "runtime"
        for each in (self.ipc, self.temporary, self.runtime):
            each.mkdir(mode=0o700)
        self.file = folder / "zdev.toml"
        pair = ('in-type = "PAIR"', 'out-type = "PAIR"')
        place = str(self.ipc)
        self.devices = [
            Device("queue", "queue", "ipc", place),
            Device("news", "forwarder", "tcp", place),
            Device("tasks", "streamer", "ipc", place),
            Device("both", "proxy", "tcp", place, *pair),
            Device("shown", "monitored-queue", "ipc", place, 'mon-type = "PUSH"'),
            Device("spill", "streamer", "tcp", place, 'overflow = "drop"', "thread = true"),
        ]
        self.has_guest = False
        self.memory: list[float] = []
        self.descriptors: list[int] = []
        self.said: list[str] = []
        self._heard = threading.Condition()
        os.environ["XDG_RUNTIME_DIR"] = str(self.runtime)
        self.write()
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "zdev", "run", "--json", str(self.file)],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(self.temporary)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._heard:
                self.said.append(line.rstrip())
                self._heard.notify_all()

    def hear(self, after: int, *words: str) -> list[str]:
        """Wait until it says one of these; return what it has said up to that."""
        with self._heard:
            while True:
                for place in range(after, len(self.said)):
                    if self.said[place].startswith(words):
                        return self.said[after : place + 1]
                if not self._heard.wait(2 * DEADLINE):
                    raise Violation(f"it has not said {words}, but {self.said[after:]}")

    # The file

    def write(self, *more: str) -> None:
        """Write the file as it is to be now."""
        guest = Device("guest", "streamer", "tcp", str(self.ipc))
        devices = [*self.devices, guest] if self.has_guest else self.devices
        new = self.file.with_suffix(".new")
        new.write_text("\n".join([*(device.text() for device in devices), *more]))
        new.replace(self.file)

    def reload(self, *more: str) -> list[str]:
        """Have the file read again; return what was said."""
        self.write(*more)
        after = len(self.said)
        self.process.send_signal(signal.SIGHUP)
        tally("reloads")
        said = self.hear(after, "zdev run: read again", "zdev run: not read again")
        if ("not read" in said[-1]) != bool(more):
            raise Violation(f"a reload went wrong: {said}")
        return said

    def change_live(self) -> None:
        """Change something that a device need not be made anew for."""
        device = self.rng.choice(self.devices)
        which = self.rng.randrange(3)
        if which == 0:
            device.is_wider = not device.is_wider
        elif which == 1:
            device.rcvhwm = HWM - 1 if device.rcvhwm == HWM else HWM
        else:
            device.drain = 9 - device.drain
        self.reload()

    # What is done

    def start(self) -> None:
        """Wait until it relays, and have peers."""
        wait_until(self.status)
        self.reload()
        self.base = resources(self.process.pid)
        for device in self.devices:
            known = self.status()[device.name]
            device.ends = {role: bound[0] for role, bound in known["endpoints"].items() if bound}
            kind = KINDS["spill" if device.is_thread else device.kind]
            seed = f"{self.rng.random()} {device.name}"
            device.customers = kind(device.name, seed, device.ends)

    def status(self) -> dict[str, dict[str, Any]]:
        """Return what it tells of its devices."""
        if self.process.poll() is not None:
            raise Violation(f"it has ended: {self.said}")
        try:
            found = ask(str(self.file), {"verb": "status"}, DEADLINE)["devices"]
        except Exception as error:
            if self.memory:
                raise Violation(f"it does not answer: {error}") from error
            return {}
        return {device["name"]: device for device in found}

    def kill(self, device: Device) -> None:
        """Kill the process of a device."""
        device.was_killed = True
        device.lives += 1
        device.customers.expose()
        child = owner(self.process.pid, device.ends["in"])
        os.kill(child, signal.SIGKILL)
        wait_until(lambda: not is_alive(child))
        device.customers.probe()
        tally("kills")

    def replace(self, device: Device) -> None:
        """Have a device made anew while its peers rest, so that nothing may be lost."""
        device.customers.rest()
        self.account(device)
        device.burst = 65 if device.burst == 64 else 64
        device.lives += 1
        said = self.reload()
        if f"zdev run: {device.name}: replaced" not in said:
            raise Violation(f"{device.name} was not made anew: {said}")
        device.customers.probe()
        device.customers.go_on()
        tally("devices made anew")

    def recast(self, device: Device) -> None:
        """Have a receiver leave and another one come while nothing is under way."""
        peers = device.customers
        peers.rest()
        self.account(device)
        if device.kind != "proxy":
            peers.part()  # until the device knows, it would send to who has left
            wait_until(lambda: self.peers_of(device) == RECEIVERS - 1)
            peers.join()
        peers.go_on()

    def peers_of(self, device: Device) -> int:
        """Return how many peers its backend has; -1 if it does not tell."""
        known = self.status()[device.name]["connections"]
        return int(known["out"]["peers"]) if known else -1

    def account(self, device: Device) -> None:
        """Hold its counts against what its peers have sent and received; they rest."""
        peers = device.customers
        deadline = time.monotonic() + DEADLINE
        while True:
            problem = self._problem(device, peers)
            if problem is None:
                return
            if time.monotonic() > deadline:
                raise Violation(f"{device.name}: {problem}")
            time.sleep(0.05)  # what libzmq still holds comes to be counted

    def _problem(self, device: Device, peers: Customers) -> str | None:
        known = self.status()[device.name]
        if known["state"] != "relays":
            return f"it is {known['state']}"
        ways = {"there": "frontend_to_backend", "back": "backend_to_frontend"}
        counts = {way: Counter(known["counts"][name]) for way, name in ways.items()}
        known_now = {**counts, "sent": peers.sent.copy(), "came": peers.came.copy()}
        known_now["lost"] = Counter(all=peers.lost)
        for way, of in counts.items():
            rest = of["messages_received"] - of["messages_sent"] - sum(of[n] for n in LOST)
            if not 0 <= rest - of["parked"] <= device.lives:
                return f"{way}, {rest} messages are nowhere: {of}"
        news = {name: Counter(of) for name, of in known_now.items()}
        for name, before in device.before.items():
            news[name].subtract(before)
        lost = news["lost"]["all"]
        for way in peers.ways:
            of, sent = news[way], news["sent"][way]
            received, least = of["messages_received"], sent - lost
            if device.was_killed:
                least = 0  # its counts since they were last asked for died, too
            if not least <= received <= sent:
                return f"{way}, {sent} were sent, {lost} died, but it received {received}"
            if peers.may_overflow:
                missing = sent - news["came"][way]
                if not missing - lost <= of["overflowed"] <= missing:
                    return f"{way}, {missing} have not come, {lost} of them died: {of}"
                of["overflowed"] = 0
            if not device.was_killed and any(of[name] for name in LOST):
                return f"{way}, some were dropped without a cause: {of}"
        device.before = {name: Counter(of) for name, of in known_now.items()}
        device.was_killed = False
        return None

    # What it has

    def sample(self) -> None:
        """Look what it has, and that it leaves no zombie for long."""
        self.memory.append(resident(self.process.pid))
        self.descriptors.append(resources(self.process.pid)[0])
        with contextlib.suppress(AssertionError):
            wait_until(lambda: all(map(is_alive, children(self.process.pid))), 5)
            return
        raise Violation(f"there are zombies among {children(self.process.pid)}")

    def compare(self) -> str:
        """Compare the second quarter with the last one."""
        quarter = len(self.memory) // 4
        if quarter < 5:
            return "too short to tell of memory"
        words = []
        for what, found, more, part in (
            ("MiB", self.memory, MEMORY_MORE, MEMORY_PART),
            ("descriptors", self.descriptors, 4, 0.0),  # peers of the thread's device come and go
        ):
            before = statistics.median(found[quarter : 2 * quarter])
            after = statistics.median(found[-quarter:])
            words.append(f"{before:.0f}, then {after:.0f} {what}")
            if after > before * (1 + part) + more:
                raise Violation(f"it grows: {words[-1]}: {[round(one) for one in found]}")
        return "; ".join(words)

    def end(self) -> str:
        """Have all come to rest, and end; nothing may be left."""
        for device in self.devices:
            device.customers.rest()
            self.account(device)
        for device in self.devices:
            device.customers.end()
            device.is_wider, device.rcvhwm = False, HWM
        self.has_guest = False
        self.reload()
        pid = self.process.pid
        with contextlib.suppress(AssertionError):
            wait_until(lambda: all(a <= b for a, b in zip(resources(pid), self.base)))
        if any(a > b for a, b in zip(resources(pid), self.base)):
            raise Violation(f"it had {self.base} descriptors and threads, now {resources(pid)}")
        figures = self.compare()
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(3 * DEADLINE)
        if status or any("Traceback" in line for line in self.said):
            raise Violation(f"exit status {status}: {self.said[-40:]}")
        left = [
            str(each)
            for folder in (self.runtime, self.temporary)  # a path of ipc is left by libzmq
            for each in folder.rglob("*")
            if each != self.runtime / "zdev"
        ]
        if left:
            raise Violation(f"this is left: {left}")
        return figures

    def play(self, seconds: float) -> str:
        """Do all that at random; return some figures."""
        self.start()
        began = said = time.monotonic()
        kill_at = began + KILL_EVERY / 2
        mortal = [device for device in self.devices if not device.is_thread]
        turns = 0
        while time.monotonic() < began + seconds:
            second = time.monotonic()
            for device in self.devices:
                device.customers.check()
            self.sample()
            if second > kill_at:
                kill_at += KILL_EVERY
                self.kill(mortal[0])
                mortal.append(mortal.pop(0))
            turns += 1
            device = self.devices[turns // 3 % len(self.devices)]
            if turns % 3 == 0:
                self.replace(device)
            elif turns % 3 == 1:
                self.recast(device)
            elif self.rng.random() < 0.3:
                self.has_guest = not self.has_guest
            elif self.rng.random() < 0.3:
                self.reload("this is no TOML")
            self.change_live()
            self.status()
            if time.monotonic() > said + 10:
                said = time.monotonic()
                print(f"{said - began:6.0f} s: {tally}", flush=True)
            time.sleep(max(second + 1 - time.monotonic(), 0))
        return self.end()


@contextlib.contextmanager
def soaking(seed: int) -> Iterator[Soak]:
    """Have a soak, and leave no process of it."""
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(seed, Path(folder).resolve())
        try:
            yield soak
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(soak.process.pid, signal.SIGKILL)
            soak.process.wait(DEADLINE)


def main() -> int:
    """Play until the time is up."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.proofs.soak.brokers", description=__doc__
    )
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=random.randrange(10**9))
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.seconds:.0f} s", flush=True)
    with soaking(options.seed) as soak:
        try:
            figures = soak.play(options.seconds)
        except BaseException as error:
            print(f"FAILED, with --seed {options.seed}: {type(error).__name__}: {error}")
            print("\n".join(["it said:", *soak.said[-30:], f"so far: {tally}"]), flush=True)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(soak.process.pid, signal.SIGKILL)
            os._exit(1)  # whatever else may still run
    for device in soak.devices:
        peers = device.customers
        print(f"{device.name}: {dict(peers.sent)} sent, {dict(peers.came)} came, {peers.lost} lost")
    print(f"well: {tally}\n{figures}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
