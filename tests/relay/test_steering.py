"""Control sockets of every kind, in both functions and every state, as zmq_proxy_steerable(3)."""

from __future__ import annotations

import functools
import itertools
import struct
import threading
from typing import Callable

import pytest
import zmq

import zdev

from ..support import DEADLINE, Background, Network, fill, wait_until

# The kind of the control socket, and of the operator's who steers by it.
KINDS = {
    "PAIR": (zmq.PAIR, zmq.PAIR),
    "REP": (zmq.REP, zmq.REQ),
    "ROUTER-DEALER": (zmq.ROUTER, zmq.DEALER),
    "ROUTER-REQ": (zmq.ROUTER, zmq.REQ),
    "DEALER": (zmq.DEALER, zmq.DEALER),
    "DEALER-REP": (zmq.DEALER, zmq.ROUTER),
    "PULL": (zmq.PULL, zmq.PUSH),
    "SUB": (zmq.SUB, zmq.XPUB),
    "XPUB": (zmq.XPUB, zmq.XSUB),
}
SILENT = ("PULL", "SUB")
REPLYING = [kind for kind in KINDS if kind not in SILENT]
FACES = ["proxy_steerable", "monitored_queue"]
# What is no command, in frames.
NONSENSE = [
    [b""],
    [b"pause"],
    [b"PAUSE "],
    [b"PAUSE\0"],
    [b"TERMINATE\n"],
    [b"STATISTIC"],
    [b"TERMINATE" * 100_000],
    [b"nonsense", b"TERMINATE"],
    [b"nonsense"] * 100,
    [b"\xff", b"", b"PAUSE"],
]


class Operator:
    """The far end of a control socket."""

    def __init__(self, net: Network, kind: str, transport: str) -> None:
        ours, theirs = KINDS[kind]
        self.kind = kind
        self.control = net.bound(ours, transport)
        self.envelope: list[bytes] = []
        self.socket = net.socket(theirs)
        if theirs == zmq.ROUTER:
            # A ROUTER knows only whom it heard from, so it is the one that is bound.
            self.control = net.socket(ours, routing_id=b"the device")
            self.socket.bind("inproc://operator" if transport == "inproc" else "tcp://127.0.0.1:*")
            self.control.connect(self.socket.getsockopt_string(zmq.LAST_ENDPOINT))
            self.control.send(b"here I am")
            self.envelope = self.socket.recv_multipart()[:1]
            return
        self.socket.connect(self.control.getsockopt_string(zmq.LAST_ENDPOINT))
        if ours == zmq.SUB:
            self.control.subscribe(b"")
            # It notices the operator, and subscribes, only when it is looked at.
            wait_until(lambda: self.control.poll(0) or self.socket.poll(0))
            assert self.socket.recv() == b"\1"
        if ours == zmq.XPUB:
            self.socket.send(b"\1")  # to everything, which is to the device no command

    def send(self, *frames: bytes) -> None:
        self.socket.send_multipart([*self.envelope, *frames])

    def recv(self) -> list[bytes]:
        return self.socket.recv_multipart()[len(self.envelope) :]

    def command(self, *frames: bytes) -> None:
        """Send a command; who waits for a reply to everything gets an empty one."""
        self.send(*frames)
        if self.socket.type == zmq.REQ:
            assert self.recv() == [b""]

    def statistics(self) -> tuple[int, ...]:
        self.send(b"STATISTICS")
        frames = self.recv()
        assert [len(frame) for frame in frames] == [8] * 8
        return struct.unpack("=8Q", b"".join(frames))


class Plant:
    """A queue that is steered: a client, a worker, a monitor and an operator."""

    def __init__(
        self,
        net: Network,
        monkeypatch: pytest.MonkeyPatch,
        *,
        kind: str = "REP",
        transport: str = "inproc",
        face: str = "proxy_steerable",
        narrow: str = "",
        room: int = 1000,
        burst: int = 64,
    ) -> None:
        self.operator = Operator(net, kind, transport)

        def ends(role: str, kind: int, peer: int) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
            limit = 1 if role in narrow.split() else room
            end = net.bound(kind, sndhwm=limit)
            return end, net.peer(end, peer, rcvhwm=limit)

        self.frontend, self.client = ends("frontend", zmq.DEALER, zmq.DEALER)
        self.backend, self.worker = ends("backend", zmq.DEALER, zmq.DEALER)
        self.capture, self.watcher = ends("capture", zmq.PUSH, zmq.PULL)
        self.relays: list[zdev.Relay] = []
        run = zdev.Relay.run

        def record(relay: zdev.Relay) -> None:
            self.relays.append(relay)
            run(relay)

        monkeypatch.setattr(zdev.Relay, "run", record)
        self._start = functools.partial(
            Background,
            getattr(zdev, face),
            self.frontend,
            self.backend,
            self.capture,
            control=self.operator.control,
            burst=burst,
        )

    @property
    def relay(self) -> zdev.Relay:
        """The relay that the function made."""
        return self.relays[0]

    def run(self) -> None:
        self.device = self._start()
        wait_until(lambda: self.relays)
        wait_until(lambda: self.relay.call(threading.get_ident) == self.device.thread.ident)

    def run_to_the_end(self) -> None:
        """Run, with the end among the commands that wait already."""
        self.device = self._start()
        self.end()

    def end(self) -> None:
        assert self.device.join() == 0

    def counts(self) -> tuple[int, ...]:
        """Return what STATISTICS should answer, by the relay's own account."""
        there, back, _ = self.relay.statistics()
        return (
            *there[1:3],
            *(back.frames_sent, back.bytes_sent),
            *back[1:3],
            *(there.frames_sent, there.bytes_sent),
        )


@pytest.fixture
def plant(net: Network, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Plant]:
    return lambda **settings: Plant(net, monkeypatch, **settings)


@pytest.mark.parametrize("transport", ["inproc", "tcp"])
@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("kind", KINDS)
def test_commands(
    engine: str, plant: Callable[..., Plant], kind: str, face: str, transport: str
) -> None:
    device = plant(kind=kind, face=face, transport=transport)
    operator, client, worker = device.operator, device.client, device.worker
    device.run()
    client.send_multipart([b"one", b"", b"three"])
    assert worker.recv_multipart() == [b"one", b"", b"three"]
    worker.send_multipart([b"r"] * 20)
    assert client.recv_multipart() == [b"r"] * 20
    # Frames and bytes: received and sent by the frontend, then by the backend.
    before = (3, 8, 20, 20, 20, 20, 3, 8)
    if kind not in SILENT:
        assert operator.statistics() == before

    operator.command(b"PAUSE")
    wait_until(lambda: device.relay.paused)
    client.send(b"waits")
    worker.send(b"waits, too")
    # They are there, and the loop has been round since.
    for end in (device.frontend, device.backend):
        assert device.relay.call(lambda end=end: end.poll(DEADLINE * 1000))
    for _ in range(3):
        assert device.counts() == before
        if kind not in SILENT:
            assert operator.statistics() == before
    assert not client.poll(0)
    assert not worker.poll(0)
    operator.command(b"PAUSE")  # once more changes nothing
    for nonsense in NONSENSE:
        operator.command(*nonsense)
    if kind in SILENT:
        operator.send(b"STATISTICS")  # nothing to reply on
    assert device.relay.paused

    operator.command(b"RESUME")
    assert worker.recv() == b"waits"
    assert client.recv() == b"waits, too"
    operator.command(b"RESUME")
    for nonsense in NONSENSE:
        operator.command(*nonsense)
    after = (4, 13, 21, 30, 21, 30, 4, 13)
    if kind not in SILENT:
        assert operator.statistics() == after
    assert device.counts() == after
    assert not device.relay.paused

    operator.command(b"TERMINATE")
    device.end()
    prefixes = {"proxy_steerable": ([], []), "monitored_queue": ([b"in"], [b"out"])}[face]
    seen = [device.watcher.recv_multipart() for _ in range(4)]
    assert sorted(map(len, seen)) == sorted(
        len(prefix) + frames for prefix, frames in zip(prefixes * 2, (3, 20, 1, 1))
    )
    assert not operator.socket.poll(0)
    assert not device.watcher.poll(0)


def _exchange(function: Callable[..., object], net: Network) -> list[list[bytes]]:
    """Let a device relay a few messages, and return what it answers to each command."""
    frontend, backend, control = net.bound(zmq.ROUTER), net.bound(zmq.DEALER), net.bound(zmq.REP)
    client = net.peer(frontend, zmq.DEALER, routing_id=b"client")
    worker, operator = net.peer(backend, zmq.DEALER), net.peer(control, zmq.REQ)
    device = Background(function, frontend, backend, None, control)
    answers = []

    def ask(command: bytes) -> None:
        operator.send(command)
        answers.append(operator.recv_multipart())

    ask(b"STATISTICS")
    for size in range(10):
        client.send_multipart([b"q" * size] * (size + 1))
        request = worker.recv_multipart()
        worker.send_multipart([request[0], b"answer", b""])
        client.recv_multipart()
        ask(b"STATISTICS")
    ask(b"TERMINATE")
    device.join()
    return answers


@pytest.mark.skipif(
    zmq.zmq_version_info() < (4, 3, 5), reason="older libzmq counts messages, and has other bugs"
)
def test_statistics_are_those_of_libzmq(engine: str, net: Network) -> None:
    ours = _exchange(zdev.proxy_steerable, net)
    assert ours == _exchange(zmq.proxy_steerable, net)
    assert struct.unpack("=8Q", b"".join(ours[-2])) == (65, 390, 30, 120, 30, 120, 65, 390)


def _numbered(count: int) -> list[list[bytes]]:
    """Return messages of one to twenty frames."""
    return [[b"%d" % number] * (1 + number % 20) for number in range(count)]


def _drain(socket: zmq.Socket[bytes]) -> list[list[bytes]]:
    """Return what is in a socket, over inproc."""
    messages = []
    while socket.poll(0):
        messages.append(socket.recv_multipart())
    return messages


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("state", ["idle", "paused", "backend", "capture", "paused-backend"])
def test_terminate_in_every_state(
    engine: str, plant: Callable[..., Plant], state: str, kind: str
) -> None:
    """Every message is delivered, still in a socket, or counted as parked."""
    device = plant(kind=kind, face="monitored_queue", narrow=state.rpartition("-")[2])
    operator, client, worker = device.operator, device.client, device.worker
    messages = _numbered(30)
    device.run()
    if state == "paused":
        operator.command(b"PAUSE")
        wait_until(lambda: device.relay.paused)
    if state != "idle":
        for message in messages:
            client.send_multipart(message)
    if state.endswith("backend"):
        wait_until(lambda: device.relay.statistics().frontend_to_backend.parked)
    if state == "capture":
        wait_until(lambda: device.relay.statistics().capture.parked)
    if state == "paused-backend":
        operator.command(b"PAUSE")
        wait_until(lambda: device.relay.paused)
    if state == "idle":
        for message in messages:
            client.send_multipart(message)
            assert worker.recv_multipart() == message

    # Full or not, it answers.
    for _ in range(5):
        operator.command(b"nonsense")
        if kind not in SILENT:
            assert operator.statistics() == device.counts()
    operator.command(b"TERMINATE")
    device.end()

    there, back, capture = device.relay.statistics()
    assert there.messages_received == there.messages_sent + there.parked
    assert there.parked == (1 if state.endswith("backend") else 0)
    delivered = messages if state == "idle" else _drain(worker)
    left = _drain(device.frontend)
    assert len(delivered) == there.messages_sent
    assert delivered == messages[: len(delivered)]
    assert left == messages[len(delivered) + there.parked :]
    copies = _drain(device.watcher)
    assert copies == [[b"in", *message] for message in delivered[: capture.sent]]
    assert len(copies) == capture.sent == len(delivered) - capture.parked
    assert capture.parked == (1 if state == "capture" else 0)
    assert back == (0,) * 10


@pytest.mark.parametrize("kind", KINDS)
def test_terminate_in_the_middle_of_a_burst(
    engine: str, plant: Callable[..., Plant], kind: str
) -> None:
    device = plant(kind=kind, room=0)  # no end of it: nothing is ever parked
    numbers = itertools.count()
    stop = threading.Event()
    messages: list[list[bytes]] = []

    def feed() -> None:
        while not stop.is_set():
            message = [b"%d" % next(numbers)] * (1 + len(messages) % 20)
            device.client.send_multipart(message)
            messages.append(message)

    device.run()
    feeder = Background(feed)
    delivered = [device.worker.recv_multipart() for _ in range(200)]
    device.operator.command(b"TERMINATE")
    device.end()
    stop.set()
    # It may wait for room in the frontend, which nobody empties any more.
    left: list[list[bytes]] = []
    while feeder.alive:
        left += _drain(device.frontend)
    feeder.join()
    left += _drain(device.frontend)
    delivered += _drain(device.worker)
    there, _, capture = device.relay.statistics()
    assert there.parked == capture.parked == 0
    assert len(delivered) == there.messages_sent
    assert delivered + left == messages
    assert _drain(device.watcher) == delivered[: capture.sent]


@pytest.mark.parametrize("kind", REPLYING)
@pytest.mark.parametrize("state", ["backend", "capture"])
def test_pause_and_resume_while_a_peer_is_full(
    engine: str, plant: Callable[..., Plant], kind: str, state: str
) -> None:
    """What is parked stays where it is as long as the pause, though its peer has room again."""
    device = plant(kind=kind, narrow=state)
    messages = _numbered(30)
    device.run()
    for message in messages:
        device.client.send_multipart(message)
    if state == "backend":
        wait_until(lambda: device.relay.statistics().frontend_to_backend.parked)
    else:
        wait_until(lambda: device.relay.statistics().capture.parked)
    device.operator.command(b"PAUSE")
    wait_until(lambda: device.relay.paused)
    before = device.relay.statistics()
    full, other = device.worker, device.watcher
    if state == "capture":
        full, other = other, full
    first = _drain(full)
    for _ in range(3):
        assert device.operator.statistics() == device.counts()
        assert device.relay.statistics() == before
    assert not full.poll(0)

    device.operator.command(b"RESUME")
    assert first + [full.recv_multipart() for _ in messages[len(first) :]] == messages
    assert [other.recv_multipart() for _ in messages] == messages
    device.operator.command(b"TERMINATE")
    device.end()


@pytest.mark.parametrize("state", ["backend", "capture"])
def test_terminate_tries_what_is_parked_a_last_time(
    engine: str, plant: Callable[..., Plant], state: str
) -> None:
    """Its peer has made room meanwhile, in a pause."""
    device = plant(narrow=state)
    messages = _numbered(30)
    device.run()
    for message in messages:
        device.client.send_multipart(message)
    stuck = device.worker if state == "backend" else device.watcher
    wait_until(lambda: device.relay.statistics()[0].parked + device.relay.statistics()[2].parked)
    device.operator.command(b"PAUSE")
    first = _drain(stuck)
    # The room is known to libzmq only some time after the reads.
    end = device.backend if state == "backend" else device.capture
    wait_until(lambda: device.relay.call(lambda: end.poll(0, zmq.POLLOUT)))
    device.operator.command(b"TERMINATE")
    device.end()
    there, _, capture = device.relay.statistics()
    assert there.parked == capture.parked == 0
    assert first + _drain(stuck) == messages[: len(first) + 1]
    assert _drain(device.frontend) == messages[there.messages_received :]


def test_both_ways_parked_and_steered(engine: str, plant: Callable[..., Plant]) -> None:
    device = plant(narrow="frontend backend")
    device.run()
    for number in range(30):
        device.client.send(b"%d" % number)
    fill(device.worker)
    wait_until(lambda: all(way.parked for way in device.relay.statistics()[:2]))
    device.operator.command(b"PAUSE")
    device.operator.command(b"RESUME")
    assert device.operator.statistics() == device.counts()
    device.operator.command(b"TERMINATE")
    device.end()
    assert [way.parked for way in device.relay.statistics()[:2]] == [1, 1]


def test_a_pause_holds_under_pressure(engine: str, net: Network) -> None:
    """Behind the reply to PAUSE nothing moves, though a moment ago everything did."""
    frontend = net.bound(zmq.DEALER)
    backend = net.peer(frontend, zmq.DEALER)  # what is sent there comes back here
    control = net.bound(zmq.REP)
    operator = net.peer(control, zmq.REQ)
    messages = _numbered(20)
    for end in (frontend, backend):
        for message in messages:
            end.send_multipart(message)
    relay = zdev.Relay(frontend, backend, control=control)
    device = Background(relay.run)

    def ask(command: bytes) -> list[bytes]:
        operator.send(command)
        return operator.recv_multipart()

    statistics = relay.statistics()
    for _ in range(20):
        before = statistics
        wait_until(lambda before=before: relay.statistics() != before)
        assert ask(b"PAUSE") == [b""]
        counts = ask(b"STATISTICS")
        statistics = relay.statistics()
        assert ask(b"nonsense") == [b""]
        assert ask(b"STATISTICS") == counts
        assert relay.statistics() == statistics
        assert ask(b"RESUME") == [b""]
    assert ask(b"TERMINATE") == [b""]
    device.join()
    for end in (frontend, backend):
        left = [end.recv_multipart() for _ in messages]
        first = left.index(messages[0])
        assert [*left[first:], *left[:first]] == messages


def test_a_flood_of_commands_does_not_starve_traffic(
    engine: str, plant: Callable[..., Plant]
) -> None:
    device = plant(kind="PULL")
    commands, messages = 900, _numbered(500)
    for _ in range(commands):
        device.operator.send(b"nonsense")
    device.operator.send(b"TERMINATE")
    for message in messages:
        device.client.send_multipart(message)
    device.run_to_the_end()
    assert _drain(device.worker) == messages


@pytest.mark.parametrize("burst", [1, 64])
def test_a_flood_of_traffic_does_not_starve_commands(
    engine: str, plant: Callable[..., Plant], burst: int
) -> None:
    device = plant(kind="PULL", burst=burst)
    messages = _numbered(900)
    for message in messages:
        device.client.send_multipart(message)
    device.operator.send(b"TERMINATE")
    device.run_to_the_end()
    delivered = _drain(device.worker)
    assert len(delivered) <= 2 * burst
    assert delivered + _drain(device.frontend) == messages


@pytest.mark.parametrize("kind", ["PAIR", "ROUTER-DEALER", "DEALER", "XPUB"])
def test_an_operator_who_never_reads_holds_nothing_up(
    engine: str, plant: Callable[..., Plant], kind: str
) -> None:
    """Its answers go where its socket has room for them; the rest it does without."""
    device = plant(kind=kind)
    device.operator.control.sndhwm = device.operator.socket.rcvhwm = 2
    device.run()
    for number in range(500):
        device.operator.send(b"STATISTICS")
        device.client.send(b"%d" % number)
        assert device.worker.recv() == b"%d" % number
    device.operator.send(b"PAUSE")
    wait_until(lambda: device.relay.paused)
    device.operator.send(b"RESUME")
    device.operator.send(b"TERMINATE")
    device.end()
    answers = _drain(device.operator.socket)
    assert answers
    assert {len(answer) for answer in answers} == {8}


def test_an_operator_who_vanishes(engine: str, plant: Callable[..., Plant], net: Network) -> None:
    """Before it got its answer, or in the middle of its commands; the next one is served."""
    device = plant(kind="ROUTER-DEALER", transport="tcp")
    device.run()
    for _ in range(20):
        for kind, frames in ((zmq.DEALER, []), (zmq.REQ, [])):
            operator = net.peer(device.operator.control, kind)
            operator.send_multipart([b"STATISTICS", *frames])
            operator.close(0)
    assert device.operator.statistics() == (0,) * 8
    device.operator.send(b"TERMINATE")
    device.end()


def test_several_operators_get_their_own_answers(
    engine: str, plant: Callable[..., Plant], net: Network
) -> None:
    device = plant(kind="ROUTER-DEALER")
    device.run()
    device.client.send(b"12345")
    assert device.worker.recv() == b"12345"
    wait_until(lambda: device.relay.statistics().capture.sent)
    dealer = net.peer(device.operator.control, zmq.DEALER)
    request = net.peer(device.operator.control, zmq.REQ)
    expected = [struct.pack("=Q", count) for count in (1, 5, 0, 0, 0, 0, 1, 5)]
    for _ in range(10):
        request.send(b"STATISTICS")
        dealer.send(b"STATISTICS")
        dealer.send_multipart([b"", b"PAUSE"])  # as REQ would: with a delimiter
        dealer.send(b"RESUME")
        dealer.send_multipart([b"STATISTICS", b"and more"])
        assert request.recv_multipart() == expected
        assert dealer.recv_multipart() == expected
        assert dealer.recv_multipart() == [b"", b""]
        assert dealer.recv_multipart() == expected
    request.send(b"TERMINATE")
    assert request.recv_multipart() == [b""]
    device.end()
    assert not dealer.poll(0)


@pytest.mark.parametrize("kind", REPLYING)
def test_frames_behind_a_command_are_ignored(
    engine: str, plant: Callable[..., Plant], kind: str
) -> None:
    device = plant(kind=kind)
    device.run()
    device.operator.command(b"PAUSE", b"RESUME")
    wait_until(lambda: device.relay.paused)
    device.operator.command(b"nonsense", b"RESUME")
    device.operator.send(b"STATISTICS", b"TERMINATE")
    assert len(device.operator.recv()) == 8
    assert device.relay.paused
    device.operator.command(b"RESUME", b"", b"PAUSE")
    assert device.operator.statistics() == (0,) * 8
    assert not device.relay.paused
    device.operator.command(*[b"TERMINATE"] * 50)
    device.end()


def test_the_relays_own_pause_and_the_commands_are_one(
    engine: str, plant: Callable[..., Plant]
) -> None:
    device = plant()
    device.run()
    device.operator.command(b"PAUSE")
    device.relay.resume()
    device.client.send(b"goes")
    assert device.worker.recv() == b"goes"
    device.relay.pause()
    device.client.send(b"waits")
    assert device.relay.call(lambda: device.frontend.poll(DEADLINE * 1000))
    assert device.operator.statistics() == (1, 4, 0, 0, 0, 0, 1, 4)
    device.operator.command(b"RESUME")
    assert device.worker.recv() == b"waits"
    device.operator.command(b"PAUSE")
    device.relay.stop()
    device.end()
    assert device.relay.paused


def test_control_alone_without_any_peer(engine: str, net: Network) -> None:
    """Frontend and backend have nobody yet; the operator is heard."""
    control = net.bound(zmq.REP)
    operator = net.peer(control, zmq.REQ)
    ends = net.socket(zmq.ROUTER), net.socket(zmq.DEALER)
    device = Background(zdev.proxy_steerable, *ends, None, control)
    for command in (b"PAUSE", b"RESUME", b"TERMINATE"):
        operator.send(command)
        assert operator.recv() == b""
    assert device.join() == 0
