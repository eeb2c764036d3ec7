"""Small schedules for a relay: run over a scripted libzmq, and predicted by the model.

A `Case` says what a relay joins and what its peers do, a step each time that the relay blocks. A
`Bench` runs it on one engine; `predict` says how it must end, and `compare` whether it did.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial
from itertools import zip_longest
from typing import Any

import pytest

from zdev._contract import STEPPED, WOKEN, Settings, Statistics
from zdev._engines.direction import Direction as PlainDirection
from zdev._engines.loop import PythonLoop
from zdev.testing.model import Device, Direction, Fate, Type, ordered

from ..support import available_engines
from .scripted import WAKEUP_FD, ScriptedLibzmq
from .scripted_sockets import Socket

PAIR, REQ, REP, DEALER, ROUTER = Type.PAIR, Type.REQ, Type.REP, Type.DEALER, Type.ROUTER
PULL, PUSH, XPUB, XSUB, STREAM = Type.PULL, Type.PUSH, Type.XPUB, Type.XSUB, Type.STREAM

# pyzmq's own calls cannot be scripted. The first two are the C loop and the Python loop.
ENGINES = [name for name in available_engines() if name != "pyzmq"]
# The Python loop without its short way (zdev/_engines/turn.py): a complete relay, only slower.
PLAIN = "the plain Python loop"

THROTTLED = pytest.mark.parametrize("throttled", [False, True], ids=["eager", "throttled"])
"""Run a test with sends that process commands and with sends that do not."""

# What happens at one time: messages that arrive at a socket, or room for so many at its peers.
Step = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """A relay and what its peers do, a step each time that it blocks."""

    frontend: Type
    backend: Type
    steps: tuple[Step, ...]
    capture: Type | None = None
    control: Type | None = None
    in_drop: bool = False
    out_drop: bool = False
    capture_drop: bool = False
    only_first: bool = False
    in_prefix: bytes | None = None
    out_prefix: bytes | None = None
    swap: bool = False
    single: bool = False
    burst: int = 64
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of the sockets, by role; see scripted.Socket."""

    @property
    def drops(self) -> bool:
        """Whether a socket that is full loses what it is given, so that all depends on when."""
        return self.in_drop or self.out_drop or self.capture_drop

    @property
    def terminates(self) -> bool:
        """Whether the control socket ends the relay."""
        return any(b"TERMINATE" in c for step in self.steps for c in step.get("control", ()))

    def arriving(self, role: str) -> list[tuple[bytes, ...]]:
        """Return the messages that arrive at a socket, in order."""
        steps = [step.get(role) for step in self.steps]
        return [tuple(m) for messages in steps if isinstance(messages, list) for m in messages]

    def messages(self) -> set[tuple[bytes, ...]]:
        """Return every message that arrives at the frontend or the backend."""
        return {*self.arriving("frontend"), *self.arriving("backend")}


ONE, THREE = [b"one"], [b"3a", b"", b"3c"]
# More than the C loop keeps in one piece.
MANY = [b"%d" % number for number in range(17)]
# A longer topic than an XSUB is given.
LONG = b"x" * 2049

CASES = {
    "streamer": Case(
        PULL,
        PUSH,
        ({"frontend": [ONE, THREE]}, {"frontend": [[b"two"]]}),
    ),
    "both ways": Case(
        DEALER,
        DEALER,
        (
            {"frontend": [ONE, THREE], "backend": [[b"4a", b"4b", b"4c"], [b""]]},
            {"backend": [[b"5"]]},
        ),
        burst=1,
    ),
    "queue": Case(
        ROUTER,
        DEALER,
        (
            {"frontend": [[b"id1", b"", b"q1"], [b"id2", b"q2"]]},
            {"backend": [[b"id1", b"", b"a1"], [b"stray"], [b"id2", b"a2"]]},
        ),
    ),
    "routers": Case(
        ROUTER,
        ROUTER,
        (
            {"frontend": [[b"a", b"x"], [b"a", b"", b"delimiter"], [b"a", b"x", b"", b"3"]]},
            {"frontend": [[b"a", b"nobody", b"1"]], "backend": [[b"x", b"a", b"answer"]]},
            {"frontend": [[b"a", b"x", b"next"]]},
        ),
        swap=True,
        options={
            "frontend": {"peers": {b"a"}, "mandatory": True},
            "backend": {"peers": {b"x"}, "mandatory": True},
        },
    ),
    "request": Case(
        REP,
        REQ,
        (
            {"frontend": [THREE]},
            {"backend": [ONE]},
            {"frontend": [[b"q2"]]},
            {"backend": [[b"a2"]]},
        ),
    ),
    "out of turn": Case(
        DEALER,
        REQ,
        ({"frontend": [[b"q1", b"1"], [b"q2"]]}, {"backend": [[b"a1"]]}, {"backend": [THREE]}),
    ),
    "nobody asked": Case(
        REP,
        DEALER,
        (
            {"backend": [[b"early"]]},
            {"frontend": [THREE]},
            {"backend": [ONE, [b"spare", b"2"]]},
            {"frontend": [[b"q2"]]},
            {"backend": [[b"a2"]]},
        ),
        capture=PUSH,
    ),
    "a request to nobody": Case(
        REP,
        ROUTER,
        (
            {"frontend": [[b"x", b"q1"]]},
            {"backend": [[b"x", b"a1"]]},
            {"frontend": [[b"nobody", b"q2"]]},
            {"frontend": [[b"no body"]]},
            {"frontend": [[b"x", b"", b"q3"]]},
            {"backend": [[b"x"]]},
        ),
        options={"backend": {"peers": {b"x"}, "mandatory": True}},
    ),
    "echo": Case(REP, REP, ({"frontend": [THREE]}, {"frontend": [ONE]}), single=True),
    "subscriptions": Case(
        XSUB,
        XPUB,
        ({"backend": [[b"\x01a"]]}, {"frontend": [[b"a", b"1"]], "backend": [[b"\x01b"]]}),
    ),
    "harmful subscriptions": Case(
        XSUB,
        DEALER,
        (
            {"backend": [[b"\1" + LONG], [b"\1" + LONG[1:]], [b"\0" + LONG], [b"\2" + LONG]]},
            {"backend": [[b"\6CANCEL" + LONG, b"1"], [b"\2", b"\11SUBSCRIBE" + LONG], ONE]},
        ),
        capture=PUSH,
    ),
    "harmful, behind many frames": Case(
        XSUB,
        DEALER,
        ({"backend": [[*MANY, b"\1" + LONG], [b"\1" + LONG, b"a"]]}, {"backend": [ONE]}),
        capture=PUSH,
    ),
    "harmless, behind many frames": Case(
        XSUB,
        DEALER,
        ({"backend": [[*MANY, b"\2" + LONG], ONE]},),
        capture=PUSH,
    ),
    "harmless, before many frames": Case(
        XSUB,
        DEALER,
        ({"backend": [[LONG, b"\1", *MANY], ONE]},),
        capture=PUSH,
    ),
    "harmful, without an address": Case(
        DEALER,
        XSUB,
        ({"frontend": [[b"\1" + LONG], [b"\1" + LONG, b"a"], [b"a", b"\1" + LONG], THREE]},),
        swap=True,
    ),
    "data, where only a first frame subscribes": Case(
        XSUB,
        DEALER,
        (
            {"backend": [[b"data", b"\1" + LONG], [b"\1" + LONG], [b"\1a", b"\0" + LONG]]},
            {"backend": [[b"", b"\1" + LONG, *MANY], [b"\6CANCEL" + LONG], [b"\6", LONG], ONE]},
        ),
        only_first=True,
    ),
    "no way up": Case(
        PULL,
        XPUB,
        ({"backend": [[b"\x01"]]}, {"frontend": [ONE], "backend": [[b"\x01b"]]}),
    ),
    "streams": Case(
        STREAM,
        STREAM,
        ({"frontend": [[b"p", b"1"], [b"gone", b"2"], [b"p", b"3"]], "backend": [[b"p", b""]]},),
        options={"frontend": {"peers": {b"p"}}, "backend": {"peers": {b"p"}}},
    ),
    "many frames": Case(
        DEALER,
        PAIR,
        ({"frontend": [MANY]}, {"backend": [ONE]}, {"frontend": [THREE]}),
        capture=PUSH,
        in_prefix=b"in",
    ),
    "full": Case(
        PULL,
        PUSH,
        ({"frontend": [ONE, THREE]}, {"backend": 1}, {"backend": 1}),
        options={"backend": {"room": 0}},
    ),
    "full, the other way free": Case(
        PAIR,
        PAIR,
        (
            {"frontend": [THREE, ONE], "backend": [[b"4"]]},
            {"backend": [[b"5a", b"5b"]]},
            {"backend": 2},
        ),
        options={"backend": {"room": 0}},
        burst=2,
    ),
    "full router": Case(
        DEALER,
        ROUTER,
        ({"frontend": [[b"x", b"1"], [b"x", b"2", b"3"]]}, {"backend": 2}),
        options={"backend": {"room": 0, "peers": {b"x"}, "mandatory": True}},
    ),
    "full xpub": Case(
        PULL,
        XPUB,
        ({"frontend": [ONE, THREE], "backend": [[b"\x01"]]}, {"backend": 2}),
        options={"backend": {"room": 0, "mandatory": True}},
    ),
    "full, dropped": Case(
        PULL,
        PUSH,
        (
            {"frontend": [ONE, THREE, [b"two"]]},
            {"backend": 1},
            {"frontend": [[b"4"], [b"5a", b"5b"]]},
            {"backend": 1, "frontend": [[b"6a", b"6b"]]},
        ),
        capture=PUSH,
        in_drop=True,
        in_prefix=b"in",
        options={"backend": {"room": 1}},
    ),
    "full both ways, dropped": Case(
        DEALER,
        DEALER,
        (
            {"frontend": [ONE, MANY], "backend": [THREE]},
            {"backend": 1},
            {"frontend": [[b"2a", b"2b"]], "backend": [[b"4"]]},
        ),
        in_drop=True,
        out_drop=True,
        burst=1,
        options={"backend": {"room": 0}, "frontend": {"room": 1}},
    ),
    "full there, dropped on the way back": Case(
        PAIR,
        PAIR,
        ({"frontend": [THREE, ONE], "backend": [[b"4"], [b"5"]]}, {"backend": 2}, {"frontend": 1}),
        out_drop=True,
        options={"backend": {"room": 0}, "frontend": {"room": 1}},
    ),
    "full router, dropped": Case(
        DEALER,
        ROUTER,
        (
            {"frontend": [[b"x", b"1"], [b"gone", b"2"], [b"y", b"3", b"4"]]},
            {"backend": 1},
            {"frontend": [[b"z", b"5"]]},
        ),
        in_drop=True,
        options={"backend": {"room": 0, "peers": {b"x", b"y", b"z"}, "mandatory": True}},
    ),
    "full xpub, dropped": Case(
        PULL,
        XPUB,
        ({"frontend": [ONE, THREE]}, {"backend": 1}, {"frontend": [[b"2"]]}),
        in_drop=True,
        options={"backend": {"room": 0, "mandatory": True}},
    ),
    "a request for which there is no room": Case(
        REP,
        DEALER,
        ({"frontend": [THREE]}, {"backend": 1}, {"frontend": [ONE]}, {"backend": [[b"a1"]]}),
        in_drop=True,
        options={"backend": {"room": 0}},
    ),
    "capture": Case(
        DEALER,
        DEALER,
        ({"frontend": [ONE, THREE], "backend": [[b"4a", b"4b"]]}, {"backend": [[b"5"]]}),
        capture=PUSH,
        in_prefix=b"a prefix that libzmq must allocate",
        out_prefix=b"",
    ),
    "capture of a swap": Case(
        ROUTER,
        ROUTER,
        ({"frontend": [[b"a", b"b", b"1"], [b"a", b""]]}, {"backend": [[b"b", b"a"]]}),
        swap=True,
        capture=PAIR,
        in_prefix=b"in",
    ),
    "full capture": Case(
        PULL,
        PUSH,
        ({"frontend": [ONE, THREE]}, {"capture": 1}, {"capture": 1}),
        capture=PAIR,
        in_prefix=b"in",
        options={"capture": {"room": 0}},
    ),
    "full, then full capture": Case(
        PULL,
        PUSH,
        (
            {"frontend": [ONE, THREE]},
            {"backend": 1},
            {"capture": 1},
            {"capture": 1},
            {"backend": 1},
        ),
        capture=PUSH,
        in_prefix=b"in",
        options={"backend": {"room": 0}, "capture": {"room": 0}},
    ),
    "full capture, dropped": Case(
        PULL,
        PUSH,
        (
            {"frontend": [ONE, THREE]},
            {"frontend": [[b"2"]]},
            {"capture": 1},
            {"frontend": [[b"3"]]},
        ),
        capture=PUSH,
        capture_drop=True,
        in_prefix=b"in",
        options={"capture": {"room": 1}},
    ),
    "xpub capture": Case(
        PAIR,
        PAIR,
        ({"capture": [[b"\x01"]], "frontend": [ONE]}, {"backend": [THREE], "capture": [[b"\x00"]]}),
        capture=XPUB,
        out_prefix=b"out",
        capture_drop=True,
    ),
    "steered": Case(
        PULL,
        PUSH,
        (
            {"frontend": [THREE]},
            {"control": [[b"PAUSE"]]},
            {"frontend": [ONE]},
            {"control": [[b"STATISTICS"], [b"nonsense"], [b""]]},
            {"control": [[b"RESUME", b"and more"]]},
            {"frontend": [[b"two"]]},
            {"control": [[b"TERMINATE"]]},
        ),
        control=PAIR,
    ),
    "steered while full": Case(
        DEALER,
        DEALER,
        (
            {"frontend": [THREE], "backend": [ONE]},
            {"control": [[b"STATISTICS"]]},
            {"backend": 1},
            {"control": [[b""]]},
        ),
        control=REP,
        options={"backend": {"room": 0}},
    ),
    "terminated while full": Case(
        PULL,
        PUSH,
        ({"frontend": [THREE, ONE]}, {"control": [[b"PAUSE"]]}, {"control": [[b"TERMINATE"]]}),
        control=PAIR,
        options={"backend": {"room": 0}},
    ),
    "steered by many": Case(
        PAIR,
        PAIR,
        (
            {"control": [[b"req", b"", b"PAUSE"]]},
            {"control": [[b"req", b"", b"huh"], [b"dealer", b"STATISTICS"]], "frontend": [ONE]},
            {"control": [[b"dealer", b"RESUME"], [b"dealer", b""]]},
            {"control": [[b"req", b"", b"TERMINATE", b"please"]]},
        ),
        control=ROUTER,
    ),
    "steered by a listener": Case(
        PAIR,
        PAIR,
        (
            {"control": [[b"STATISTICS"], [b"PAUSE"]]},
            {"frontend": [ONE]},
            {"control": [[b"RESUME"]]},
        ),
        control=PULL,
    ),
}


class PlainLoop(PythonLoop):
    direction = PlainDirection


class Bench:
    """A case on one engine."""

    def __init__(self, case: Case, engine: str, *, throttled: bool = False) -> None:
        self.case = case
        self.engine = engine
        self.libzmq = ScriptedLibzmq(throttled=throttled)
        self.libzmq.on_block = self.block
        self.sockets: dict[str, Socket] = {}
        for role in ("frontend", "backend", "capture", "control"):
            kind = getattr(case, role)
            if role == "backend" and case.single:
                self.sockets[role] = self.sockets["frontend"]
            elif kind is not None:
                options = case.options.get(role, {})
                self.sockets[role] = self.libzmq.socket(kind, role, **options)
        self.delivered = dict.fromkeys(self.sockets, 0)
        self.performed: list[int] = []
        """The number of the call at which each step happened."""
        for step in case.steps:
            self.libzmq.script.append(partial(self.perform, step))
        self.loop: Any = None
        self.statistics: Any = None
        self.is_shut = False
        """Whether the loop was told to leave unread what comes to the frontend."""

    def perform(self, step: Step) -> None:
        """Let the peers do something."""
        self.performed.append(len(self.libzmq.trace))
        for role, what in step.items():
            if isinstance(what, int):
                self.sockets[role].make_room(what)
                continue
            for frames in what:
                self.sockets[role].deliver(frames)
                self.delivered[role] += 1

    def block(self, bounded: bool) -> None:
        """The loop blocks; for a bounded time, if a socket showed POLLOUT and refused."""
        movable = self.movable(but_refusing=bounded)
        assert not movable, f"blocked, and {movable}"

    def movable(self, but_refusing: bool = False) -> str | None:
        """Say what the loop could move now, if anything."""
        statistics: Statistics = self.loop.statistics()
        frontend, backend = self.sockets["frontend"], self.sockets["backend"]
        capture, control = self.sockets.get("capture"), self.sockets.get("control")
        ways = [
            (frontend, backend, statistics.frontend_to_backend),
            (backend, frontend, statistics.backend_to_frontend),
        ]
        copies = statistics.capture.parked
        if control and control.readable():
            return "the control socket has a message"
        if self.loop.paused:
            return None
        for source, destination, way in ways[: 1 if self.case.single else 2]:
            if way.parked and destination.writable() and not but_refusing:
                return f"{destination.name} has room"
            is_shut = source is frontend and self.is_shut
            if source.readable() and not (is_shut or way.parked or copies):
                return f"{source.name} has a message"
        if capture and copies and capture.writable() and not but_refusing:
            return "the capture has room"
        if capture and capture.kind == XPUB and not capture.closed and capture.readable():
            return "the capture has a message"
        return None

    def run(self) -> int | None:
        """Run until the script is over or the loop ends; None if it could not be made."""
        if not self.make():
            return None
        while True:
            code = self.run_on()
            if code != WOKEN or self.libzmq.over:
                return code

    def make(self) -> bool:
        """Make the loop, unless memory is short."""
        case, ends = self.case, {role: socket.end for role, socket in self.sockets.items()}
        settings = Settings(
            frontend=ends["frontend"],
            backend=ends["backend"],
            capture=ends.get("capture"),
            control=ends.get("control"),
            in_prefix=case.in_prefix,
            out_prefix=case.out_prefix,
            swap=case.swap,
            in_drop=case.in_drop,
            out_drop=case.out_drop,
            capture_drop=case.capture_drop,
            burst=case.burst,
            wakeup_fd=WAKEUP_FD,
        )
        try:
            self.loop = self.make_loop(settings)
            self.loop.only_first = case.only_first
        except MemoryError:
            return False
        return True

    def shut(self, *, is_shut: bool) -> None:
        """Have what comes to the frontend left unread, or read again."""
        self.is_shut = is_shut
        self.loop.shut(there=is_shut, back=False)

    def run_by_steps(self) -> int | None:
        """Run as users of `step` do: again while it moves something, else when a socket is ready."""
        may_refuse = bool(self.libzmq.faults)
        if not self.make():
            return None
        while True:
            before, commands = self.loop.statistics(), self.commands_left()
            code = self.run_on(timeout=0)
            if code < STEPPED:
                return code
            changed = before != self.statistics or commands != self.commands_left()
            assert (code > STEPPED) == changed, f"{code - STEPPED} moved"
            if code > STEPPED:
                continue
            # What showed POLLOUT and refused, as by an injected error, is to be tried again soon.
            movable = self.movable(but_refusing=may_refuse)
            assert not movable, f"nothing moved, yet {movable}"
            if self.movable():
                continue
            while not any(socket.signalled for socket in self.sockets.values()):
                assert not self.movable(), f"no descriptor tells that {self.movable()}"
                if not self.libzmq.script:
                    return WOKEN
                self.libzmq.script.popleft()()

    def commands_left(self) -> int:
        return self.sockets["control"].left if "control" in self.sockets else 0

    def make_loop(self, settings: Settings) -> Any:
        if self.engine == PLAIN:
            return PlainLoop(self.libzmq.engine(ENGINES[-1]), settings)
        return self.libzmq.engine(self.engine).loop(settings)

    def run_on(self, timeout: int = -1) -> int:
        """Run on, as Relay.run does after each wake-up, and note the counters."""
        self.libzmq.woken = False
        code = int(self.loop.run(timeout))
        self.libzmq.check()
        self.statistics = self.loop.statistics()
        return code


def check_freed(benches: Iterable[Bench]) -> None:
    """Loops that are gone must have closed their messages.

    Give it all of a test's benches at once: on PyPy each call takes a collection, and those take
    the longer the more tests were run before.
    """
    benches = list(benches)
    for bench in benches:
        bench.loop = None
    if not all(bench.libzmq.all_closed for bench in benches):
        gc.collect()  # PyPy frees nothing sooner
    for bench in benches:
        bench.libzmq.check_closed()


def predict(
    case: Case,
    fates: Mapping[tuple[bytes, ...], Fate] | None = None,
    uncaptured: AbstractSet[tuple[bytes, ...]] = frozenset(),
) -> tuple[Device, list[list[bytes]]]:
    """Return the model at the end of the case, and what it answered on the control socket."""
    device = Device(
        case.frontend,
        case.backend,
        capture=case.capture is not None,
        in_drop=case.in_drop,
        out_drop=case.out_drop,
        capture_drop=case.capture_drop,
        in_prefix=case.in_prefix,
        out_prefix=case.out_prefix,
        swap=case.swap,
        single=case.single,
        only_first=case.only_first,
    )
    ways = {"frontend": device.there, "backend": device.back}
    peers = {"frontend": device.back.peers, "backend": device.there.peers}
    if device.capture:
        peers["capture"] = device.capture
    for role, options in case.options.items():
        peers[role].room = options.get("room")
    answers = []
    for step in case.steps:
        for role, what in step.items():
            if isinstance(what, int):
                peers[role].make_room(what)
            elif role in ways:
                for frames in what:
                    fate = (fates or {}).get(tuple(frames)) or unknown_peer(case, role, frames)
                    ways[role].arrive(frames, fate, tuple(frames) not in uncaptured)
        device.flow()
        for command in step.get("control", ()):
            assert case.control is not None
            answer = device.command(case.control, command)
            if answer:
                answers.append(answer)
            device.flow()
    return device, answers


def unknown_peer(case: Case, source: str, frames: list[bytes]) -> Fate | None:
    """Where a destination tells that a peer is unknown, the message is unroutable."""
    destination = "backend" if source == "frontend" else "frontend"
    known = case.options.get(destination, {}).get("peers")
    if known is None or ordered(frames, case.swap)[0] in known:
        return None
    return Fate.UNROUTABLE


def compare(bench: Bench, device: Device, answers: list[list[bytes]]) -> None:
    """Nothing but what the model says may have come out."""
    case, sockets = bench.case, bench.sockets
    actual = {
        "statistics": bench.statistics,
        "cut": {s.name for s in sockets.values() if s.mid_message and not s.closed},
    }
    expected: dict[str, Any] = {"statistics": device.statistics(), "cut": set()}
    for role, way, back in (
        ("frontend", device.there, device.back),
        ("backend", device.back, device.there),
    ):
        if not (case.single and role == "frontend"):
            actual[f"sent by {role}"], expected[f"sent by {role}"] = (
                sockets[role].arrived,
                back.sent,
            )
        if not (case.single and role == "backend"):
            actual[f"left at {role}"], expected[f"left at {role}"] = (
                sockets[role].left,
                len(way.source),
            )
    if case.control is not None:
        actual["answers"], expected["answers"] = sockets["control"].arrived, answers
    if case.capture is not None:
        # The two directions' copies may be mixed, but each's are in order.
        copies = sockets["capture"].arrived
        for way in (device.there, device.back):
            ours = [copy for copy in copies if copy in way.captured]
            actual[f"captured {way.prefix}"], expected[f"captured {way.prefix}"] = (
                ours,
                way.captured,
            )
    for what, value in expected.items():
        assert actual[what] == value, (
            f"{what}:\n  {actual[what]}\nbut the model has\n  {value}\nafter\n{bench.libzmq.story()}"
        )


def copy_of(way: Direction, frames: list[bytes]) -> list[bytes]:
    """Return what the capture gets of a message that was sent on."""
    return frames if way.prefix is None else [way.prefix, *frames]


def check_accounts(bench: Bench, device: Device, answers: list[list[bytes]]) -> None:
    """Every message is accounted for, and what went on did so whole, once and in order.

    That is what holds wherever a run ends; `device` is the model at the end of the case.
    """
    case, sockets = bench.case, bench.sockets
    lost = sum(way.dropped + way.unroutable + way.overflowed for way in bench.statistics[:2])
    for source, destination, way, counted in (
        ("frontend", "backend", device.there, bench.statistics.frontend_to_backend),
        ("backend", "frontend", device.back, bench.statistics.backend_to_frontend),
    ):
        if case.single and source == "backend":
            continue
        gone = counted.dropped + counted.unroutable + counted.overflowed
        assert counted.messages_received == counted.messages_sent + gone + counted.parked
        assert counted.messages_received + sockets[source].left == bench.delivered[source]
        arrived = sockets[destination].arrived
        replies = len(arrived) - counted.messages_sent  # of the device's own
        assert 0 <= replies <= (lost if way.destination_turns else 0)
        if way.destination_turns:  # of such replies, the model has fewer or more
            assert arrived.count([b""]) >= replies
            arrived = [frames for frames in arrived if frames != [b""]]
        assert is_subsequence(arrived, way.sent), f"{arrived} is out of order"
    if case.capture is not None:
        copies, statistics = sockets["capture"].arrived, bench.statistics
        assert len(copies) == statistics.capture.sent
        assert sum(statistics.capture) == sum(way.messages_sent for way in statistics[:2])
        ways = [[copy_of(w, frames) for frames in w.sent] for w in (device.there, device.back)]
        for possible in ways:
            assert is_subsequence([copy for copy in copies if copy in possible], possible)
        assert all(any(copy in possible for possible in ways) for copy in copies)
    if case.control is not None:
        arrived = sockets["control"].arrived
        assert is_subsequence(arrived, answers)


def is_subsequence(part: list[Any], whole: list[Any]) -> bool:
    """Tell whether the elements of one list are in the other, in the same order, each once."""
    rest = iter(whole)
    return all(element in rest for element in part)


def assert_same_calls(benches: list[Bench]) -> None:
    """Every engine's loop makes the same calls."""
    first, *others = benches
    for other in others:
        pairs = zip_longest(first.libzmq.trace, other.libzmq.trace)
        for number, (expected, actual) in enumerate(pairs):
            assert actual == expected, (
                f"call {number}: {other.engine} made\n  {actual}\nwhere {first.engine} made\n"
                f"  {expected}\nafter\n{first.libzmq.story()}"
            )
