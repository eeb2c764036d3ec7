"""A chain of brokers on one machine, each a real command; the one in the middle is killed.

Clients ask over ipc at `near`, a ``zdev queue``; it passes requests on, by CURVE over tcp, to
`middle`, a ``zdev run``; and that to `far`, another one, which has the workers, over ipc.

What such a chain has lost is to be told from what the brokers have counted. A broker that was
killed takes its counts along, of which no more is known than it told last; but those on both sides
of it have counted, too. So what died with it is the difference of two counts:

- of requests, what `near` has sent less what `far` has received;
- of replies, what `far` has sent less what `near` has received, and less those that reach the next
  `middle`: they are for an address that only the former one knew, and are `unroutable` there, since
  its frontend has ROUTER_MANDATORY. Without that, libzmq would drop them without a word, and
  `middle` would count them as sent: more replies than it has had requests.

No counter tells where in the middle something died: in a buffer of the kernel, in a socket or in
the device. Nor does any if `near` and `far` are killed, too.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
import zmq

from zdev.cli._control import ask

from ..support import DEADLINE, Network, wait_until
from .running import command
from .test_devices import Running as Near
from .test_devices import running as broker
from .test_run import Running, listens, ports, running

pytestmark = pytest.mark.skipif(not zmq.has("curve"), reason="this libzmq has no CURVE")

MIDDLE = """\
[device.middle]
kind = "queue"
in = ["bind:{0}"]
out = "bind:{1}"
curve-server = {{ in = "middle.key_secret", out = "middle.key_secret" }}
drain = 1
allow = {{ in = "peers", out = "peers" }}
set = {{ "in.router_mandatory" = 1 }}
"""

FAR = """\
[device.far]
kind = "queue"
in = "connect:{1}"
out = "bind:ipc://*"
curve-client = {{ in = ["far.key_secret", "middle.key"] }}
"""

SIZE = 100  # bytes of a request, at least
WINDOW = 40  # requests of a client without a reply, at most


class Traffic:
    """Clients and workers, in one thread: nothing of theirs moves but in `until`."""

    def __init__(self, net: Network, asked: str, worked: str) -> None:
        self.clients = [net.socket(zmq.DEALER) for _ in range(3)]
        self.workers = [net.socket(zmq.DEALER) for _ in range(2)]
        for sockets, address in ((self.clients, asked), (self.workers, worked)):
            for each in sockets:
                each.connect(address)
        self.open: list[set[int]] = [set() for _ in self.clients]
        """The requests that have no reply yet, of each client."""
        self.doubtful: set[int] = set()
        """Those that may be lost."""
        self.sent = self.answered = self.worked = self.replied = 0
        self.holds = False
        """Whether the workers keep what comes."""
        self.held: list[tuple[zmq.Socket[bytes], list[bytes]]] = []

    def ask(self, count: int) -> None:
        """Send so many requests, as many from each client."""
        for number in range(count):
            which = number % len(self.clients)
            self.open[which].add(self.sent)
            self.clients[which].send(b"%d" % self.sent + b" " * SIZE)
            self.sent += 1

    def reply(self, count: int) -> None:
        """Reply to so many of those that were held."""
        for worker, request in self.held[:count]:
            worker.send_multipart(request)
            self.replied += 1
        del self.held[:count]

    def until(self, condition: Callable[[], Any], *, asks: bool = False) -> None:
        """Have requests and replies move until something is so; with more requests all the time."""

        def moved() -> Any:
            if asks and max(map(len, self.open)) < WINDOW:
                self.ask(len(self.clients))
            for worker in self.workers:
                while worker.poll(0):
                    self.held.append((worker, worker.recv_multipart()))
                    self.worked += 1
            if not self.holds:
                self.reply(len(self.held))
            for client, open_ones in zip(self.clients, self.open):
                while client.poll(0):
                    number = int(client.recv())  # which was asked, and once
                    (self.doubtful if number in self.doubtful else open_ones).remove(number)
                    self.answered += 1
            return condition()

        wait_until(moved)

    def flows(self) -> None:
        """Have many requests answered, of those that are sent from now on."""
        self.doubt()
        first = self.sent
        self.until(lambda: self.sent >= first + 500, asks=True)
        self.until(lambda: not any(self.open))

    def doubt(self) -> None:
        """Wait no longer for the replies that are still to come."""
        self.doubtful.update(*self.open)
        for each in self.open:
            each.clear()


class Chain:
    """The three brokers."""

    def __init__(self, near: Near, far: Running, middle: Path, text: str) -> None:
        self.near, self.far = near, far
        self._file, self._text = middle, text
        self._stack = contextlib.ExitStack()
        self.middle: Running

    def begin(self) -> Running:
        """Start the one in the middle, where it was before."""
        self.middle = self._stack.enter_context(running(self._file, self._text))
        self.middle.next()
        return self.middle

    def close(self) -> None:
        self._stack.close()

    @staticmethod
    def status(run: Running) -> dict[str, Any]:
        """Return what a ``zdev run`` tells of its device."""
        (device,) = ask(str(run.file), {"verb": "status"}, DEADLINE)["devices"]
        return dict(device)

    @staticmethod
    def counts(run: Running) -> tuple[dict[str, int], dict[str, int]]:
        """Return its counts there and back."""
        counts = Chain.status(run)["counts"]
        return counts["frontend_to_backend"], counts["backend_to_frontend"]

    def end(self, traffic: Traffic) -> tuple[int, int, int]:
        """End all three, hold what they counted against what clients and workers know.

        Returns
        -------
        tuple
            Requests that died in the middle, replies that did, and replies that came too late.
        """
        there, back = self.counts(self.far)
        late = self.counts(self.middle)[1]["unroutable"]
        done = command("top", str(self.middle.file), "--json", "--count", "1")
        (seen,) = json.loads(done.stdout)["devices"]
        assert seen["counts"]["unroutable"] == late
        self.near.signal(signal.SIGTERM)
        traffic.until(lambda: self.near.process.poll() is not None)
        status, told, _ = self.near.end()
        begun, ended = told["frontend_to_backend"], told["backend_to_frontend"]
        traffic.until(lambda: traffic.answered == ended["messages_sent"])
        assert (self.far.end(), self.middle.end()) == (0, 0)

        # At its ends, a chain loses nothing.
        assert begun["messages_received"] == begun["messages_sent"] == traffic.sent
        assert there["messages_received"] == there["messages_sent"] == traffic.worked
        assert traffic.worked == traffic.replied == back["messages_received"]
        assert back["messages_sent"] == back["messages_received"]
        assert ended["messages_received"] == ended["messages_sent"] == traffic.answered
        for way in (begun, ended, there, back):
            for name in ("dropped", "overflowed", "unroutable", "parked"):
                assert way[name] == 0

        lost_there = begun["messages_sent"] - there["messages_received"]
        lost_back = back["messages_sent"] - ended["messages_received"] - late
        assert min(lost_there, lost_back) >= 0
        lost = lost_there + lost_back + late
        assert traffic.sent - traffic.answered == lost
        # The first broker knows by itself how many requests have no reply, and says so.
        assert told["left"]["unanswered"] == lost
        assert status == (3 if lost else 0)
        return lost_there, lost_back, late


@pytest.fixture
def chain(file: Path) -> Iterator[Chain]:
    folder = file.parent
    (folder / "peers").mkdir()
    for name in ("near", "middle", "far"):
        assert command("keygen", "--directory", str(folder), name).returncode == 0
    for name in ("near", "far"):
        (folder / f"{name}.key").rename(folder / "peers" / f"{name}.key")
    places = ports(2)
    ends = ["--in", "bind:ipc://*", "--out", f"connect:{places[0]}", "--drain", "1"]
    keys = ["--curve-client", f"out={folder}/near.key_secret,{folder}/middle.key"]
    with contextlib.ExitStack() as stack:
        far = stack.enter_context(running(folder / "far.toml", FAR.format(*places)))
        near = stack.enter_context(broker("queue", *ends, *keys))
        found = Chain(near, far, file, MIDDLE.format(*places))
        stack.callback(found.close)
        found.begin()
        yield found


@pytest.fixture
def traffic(net: Network, chain: Chain) -> Traffic:
    _, ends = chain.far.next()
    return Traffic(net, chain.near.at("in"), ends["out"][0])


def address(chain: Chain, role: str) -> str:
    bound: str = Chain.status(chain.middle)["endpoints"][role][0]
    return bound


def test_requests_flow_again_when_the_middle_is_killed_and_reloaded(
    chain: Chain, traffic: Traffic
) -> None:
    traffic.flows()
    inside = address(chain, "in")
    traffic.until(lambda: all(traffic.open), asks=True)
    chain.middle.process.kill()  # its device finds out, and ends
    traffic.until(lambda: not listens(inside), asks=True)
    middle = chain.begin()
    traffic.flows()
    lost = len(traffic.doubtful)

    # What is changed live costs nothing.
    (other,) = ports(1)
    text = middle.file.read_text()
    wider = text.replace('in = ["', f'in = ["bind:{other}", "')
    wider = wider.replace("set = { ", 'set = { "out.sndhwm" = 500, ')
    traffic.until(lambda: all(traffic.open), asks=True)
    done = middle.reload(wider)
    said = {"middle: set out.sndhwm = 500", f"middle: bind in {other}"}
    assert (done.returncode, {*done.stdout.splitlines()}) == (0, said)
    assert listens(other)
    middle.file.write_text(wider.replace(f'"bind:{other}", ', ""))
    middle.process.send_signal(signal.SIGHUP)
    traffic.until(lambda: not listens(other), asks=True)
    traffic.until(lambda: not any(traffic.open))
    traffic.flows()
    assert len(traffic.doubtful) == lost

    # A device that is made anew is drained before; but where requests come all the time, there are
    # always some that come too late for that, and die with its sockets.
    middle.file.write_text(text + "burst = 5\n")
    middle.process.send_signal(signal.SIGHUP)
    traffic.until(lambda: not middle.told.empty(), asks=True)
    assert middle.next()[1]["in"] == [inside]
    traffic.flows()
    assert sum(chain.end(traffic)) == len(traffic.doubtful)


def test_what_each_counted_tells_what_was_lost_where(chain: Chain, traffic: Traffic) -> None:
    """The middle is halted, so that it is known what it takes along."""
    if not os.path.exists("/proc/net/tcp"):
        pytest.skip("looks into the kernel's buffers")
    requests, replies, late = 12, 5, 7
    traffic.flows()
    traffic.holds = True
    traffic.ask(replies + late)
    traffic.until(lambda: len(traffic.held) == replies + late)
    places = [address(chain, role) for role in ("in", "out")]
    there, back = Chain.counts(chain.middle)
    assert (there["messages_sent"], back["messages_sent"]) == (traffic.worked, traffic.replied)

    (child,) = chain.middle.children()
    os.kill(child, signal.SIGSTOP)
    before = [waiting(place) for place in places]
    traffic.ask(requests)
    traffic.reply(replies)
    for place, was, count in zip(places, before, (requests, replies)):
        wait_until(lambda p=place, w=was, c=count: waiting(p) >= w + c * SIZE)
    os.killpg(chain.middle.process.pid, signal.SIGKILL)
    chain.middle.process.wait(DEADLINE)
    wait_until(lambda: Chain.status(chain.far)["connections"]["in"]["peers"] == 0)
    traffic.reply(late)
    wait_until(lambda: Chain.counts(chain.far)[1]["messages_sent"] == traffic.replied)
    traffic.holds = False
    traffic.doubt()
    traffic.ask(30)  # these wait at the near end

    middle = chain.begin()
    traffic.until(lambda: not any(traffic.open))
    again, _ = Chain.counts(middle)
    assert again["messages_received"] == again["messages_sent"] == 30
    assert there["messages_sent"] + again["messages_sent"] == traffic.worked
    assert len(traffic.doubtful) == requests + replies + late
    assert chain.end(traffic) == (requests, replies, late)


def waiting(address: str) -> int:
    """Return how many bytes were received there, of tcp, that nobody has read."""
    port = f":{int(address.rpartition(':')[2]):04X}"
    found = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(port) and fields[3] == "01":
            found += int(fields[4].partition(":")[2], 16)
    return found
