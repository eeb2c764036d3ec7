"""Relay real text through a monitored ROUTER-DEALER queue, and prove that all of it arrived.

Four clients send the lines of text files as multipart requests over tcp, some of them in flight
at a time; three workers count the words of each and sign it with a digest; a monitor is shown all
that passes. When the last answer is in, what everybody sent is held against what everybody saw.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import shutil
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import zmq

import zdev

__all__ = ["LINES", "UnfitFileError", "library", "read", "run"]

LINES = 20_000
CLIENTS = [b"client-%d" % number for number in range(1, 5)]
WORKERS = [b"worker-%d" % number for number in range(1, 4)]
WINDOW = 16  # requests that a client has in flight
PATIENCE = 10_000  # milliseconds that a client waits for any answer
TABLE_EVERY, LINE_EVERY = 0.1, 1.0  # seconds: on a terminal, and elsewhere
LONGEST = 1 << 16  # bytes; a longer line is sent in pieces
THE_END = [b"the end"]  # tells the monitor that nothing follows

Message = list[bytes]


class UnfitFileError(Exception):
    """A file that cannot be sent; the message says which, and why."""


def library() -> list[Path]:
    """Return real text that every Python has: the sources of its library."""
    sources = Path(os.__file__).parent.glob("*.py")
    files = sorted(path for path in sources if path.stat().st_size)
    if not files:
        raise UnfitFileError("this Python comes without its sources; name a text file")
    return files


def read(paths: Iterable[Path], limit: int) -> list[Message]:
    """Make requests ``[file, line number, text]`` of the first lines of some files.

    At least one line of each file is read, so that none is bad unnoticed.
    """
    requests: list[Message] = []
    for path in dict.fromkeys(paths):  # a file named twice is sent once: each request is unique
        name = os.fsencode(path)
        try:
            taken = list(lines(path, max(1, limit - len(requests))))
        except OSError as error:
            raise UnfitFileError(f"{path} cannot be read: {error.strerror}") from error
        if not taken:
            raise UnfitFileError(f"{path} is empty: there is nothing to send")
        requests += [[name, b"%d" % number, line] for number, line in enumerate(taken, 1)]
    return requests[:limit]


def lines(path: Path, limit: int) -> Iterator[bytes]:
    """Yield the first lines of a text file, without their ends."""
    with path.open("rb") as file:
        for number in range(1, limit + 1):
            line = file.readline(LONGEST)
            if b"\0" in line:
                raise UnfitFileError(f"{path} is not a text: a NUL byte is in line {number}")
            if not line:
                return
            yield line.rstrip(b"\r\n")


def answer(request: Message) -> Message:
    """Answer a request, so that the answer proves what was asked."""
    file, number, text = request
    digest = hashlib.sha256(b"\0".join(request)).hexdigest()
    return [file, number, b"%d words" % len(text.split()), digest.encode()]


# Who takes part, each in a thread with a socket of its own


def client(
    context: zmq.Context[Any], name: bytes, address: str, requests: Sequence[Message]
) -> list[Message]:
    """Send requests, a window of them ahead of the answers, and return the answers."""
    answers: list[Message] = []
    unsent = iter(requests)
    enough = contextlib.suppress(zmq.Again, zmq.ContextTerminated)
    with enough, context.socket(zmq.DEALER) as socket:
        socket.routing_id = name
        socket.rcvtimeo = PATIENCE
        socket.connect(address)
        for request in itertools.islice(unsent, WINDOW):
            socket.send_multipart([b"", *request])  # the empty frame is what a REQ would send
        while len(answers) < len(requests):
            answers.append(socket.recv_multipart()[1:])
            for request in itertools.islice(unsent, 1):
                socket.send_multipart([b"", *request])
    return answers


def worker(context: zmq.Context[Any], name: bytes, address: str) -> None:
    """Answer until the context ends, and sign each answer."""
    with contextlib.suppress(zmq.ContextTerminated), context.socket(zmq.REP) as socket:
        socket.connect(address)
        while True:
            socket.send_multipart([*answer(socket.recv_multipart()), name])


def monitor(context: zmq.Context[Any], address: str) -> list[Message]:
    """Return the copies of all that passed the queue."""
    copies: list[Message] = []
    with contextlib.suppress(zmq.ContextTerminated), context.socket(zmq.SUB) as socket:
        socket.rcvhwm = 0  # without limit: a PUB drops what a subscriber has no room for
        socket.subscribe(b"")
        socket.connect(address)
        while True:
            copy = socket.recv_multipart()
            if copy == THE_END:
                break
            copies.append(copy)
    return copies


# The queue, and everybody around it


def run(requests: Sequence[Message], out: TextIO) -> bool:
    """Send the requests through a queue, show it, and return whether all could be proven."""
    shares = {name: requests[at :: len(CLIENTS)] for at, name in enumerate(CLIENTS)}
    with contextlib.ExitStack() as stack:  # undone from the last line to the first
        pool = stack.enter_context(ThreadPoolExecutor(len(CLIENTS) + len(WORKERS) + 2))
        context = zmq.Context()
        context.linger = 0
        stack.callback(context.term)  # ends whoever still waits for a message

        frontend, backend, capture = (
            stack.enter_context(context.socket(kind)) for kind in (zmq.ROUTER, zmq.DEALER, zmq.XPUB)
        )
        capture.sndhwm = 0  # without limit: nothing is dropped on its way to the monitor
        capture.rcvtimeo = PATIENCE
        to_clients, to_workers, to_monitor = (
            f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}"
            for socket in (frontend, backend, capture)
        )
        copies = pool.submit(monitor, context, to_monitor)
        # An XPUB is a PUB that is told of its subscribers: this is the monitor's subscription, and
        # from here on it misses nothing.
        capture.recv()

        relay = zdev.Relay(frontend, backend, capture, in_prefix=b"in", out_prefix=b"out")
        queue = pool.submit(relay.run)
        stack.callback(wait, [queue])
        stack.callback(relay.stop)

        print(
            f"A monitored queue on the {zdev.engine} engine\n"
            f"  {len(requests):,} lines of {named(requests)}\n"
            f"  {len(CLIENTS)} clients  DEALER -> ROUTER  {to_clients}, {WINDOW} requests ahead\n"
            f"  {len(WORKERS)} workers  REP -> DEALER     {to_workers}\n"
            f"  1 monitor  SUB -> XPUB       {to_monitor}\n",
            file=out,
            flush=True,
        )
        display = Display(out, len(requests))
        others: list[Future[Any]] = [queue, copies]
        others += [pool.submit(worker, context, name, to_workers) for name in WORKERS]
        answers = {
            name: pool.submit(client, context, name, to_clients, share)
            for name, share in shares.items()
        }
        waiting = set(answers.values())
        while waiting:
            _, waiting = wait(waiting, display.interval)
            for other in others:
                if other.done():
                    other.result()  # they outlast the clients, unless an error ended them
            if waiting:
                display.show(relay.statistics())

        relay.stop()
        queue.result()
        display.end(relay.statistics())
        capture.send_multipart(THE_END)  # the sockets are ours again
        record = Record(
            shares,
            {name: future.result() for name, future in answers.items()},
            copies.result(),
            relay.statistics(),
        )
    return report(record, out)


class Display:
    """Shows the traffic: on a terminal a table, redrawn in place; elsewhere a line a second."""

    def __init__(self, out: TextIO, total: int) -> None:
        self._out = out
        self._total = total
        self._live = out.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self._drawn = 0
        self._start = time.monotonic()
        # When, and the messages that had passed in, out and to the monitor: the last second of it.
        self._samples = deque([(self._start, (0, 0, 0))])
        self.interval = TABLE_EVERY if self._live else LINE_EVERY

    def show(self, statistics: zdev.Statistics) -> None:
        """Show where it stands, with the rates of the last second."""
        now = time.monotonic()
        self._samples.append((now, counts(statistics)))
        while self._samples[1][0] <= now - 1:
            self._samples.popleft()
        self._draw(statistics, self._samples[0])

    def end(self, statistics: zdev.Statistics) -> None:
        """Show where it ended, with the rates of the whole time."""
        self._draw(statistics, (self._start, (0, 0, 0)))
        print(file=self._out, flush=True)

    def _draw(self, statistics: zdev.Statistics, since: tuple[float, tuple[int, int, int]]) -> None:
        there, back, capture = statistics
        now = time.monotonic()
        seconds = max(now - since[0], 1e-6)
        passed = counts(statistics)
        rates = [(new - old) / seconds for new, old in zip(passed, since[1])]
        elapsed = now - self._start
        if not self._live:
            print(
                f"{elapsed:6.1f} s"
                f"   in {passed[0]:,} ({rates[0]:,.0f}/s)"
                f"   out {passed[1]:,} ({rates[1]:,.0f}/s)"
                f"   monitor {passed[2]:,} ({rates[2]:,.0f}/s), {capture.dropped:,} dropped",
                file=self._out,
                flush=True,
            )
            return
        share = passed[1] / self._total
        bar = "#" * int(share * 40)
        names = ("in   clients -> workers", "out  clients <- workers", "monitor")
        sizes = (f"{there.bytes_sent:,}", f"{back.bytes_sent:,}", "")
        lost = (there.dropped + there.unroutable, back.dropped + back.unroutable, capture.dropped)
        rows = [
            f"{'':24}{'msg/s':>9}{'messages':>12}{'bytes':>14}{'lost':>7}",
            *map("{:24}{:9,.0f}{:12,}{:>14}{:7,}".format, names, rates, passed, sizes, lost),
            f"[{bar:-<40}] {share:4.0%} {elapsed:6.1f} s",
        ]
        width = shutil.get_terminal_size().columns - 1  # a line that wraps could not be redrawn
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        self._out.write(up + "".join(f"{row[:width]}\x1b[K\n" for row in rows))
        self._out.flush()
        self._drawn = len(rows)


def counts(statistics: zdev.Statistics) -> tuple[int, int, int]:
    """Return how many messages were passed in, out and to the monitor."""
    there, back, capture = statistics
    return there.messages_sent, back.messages_sent, capture.sent


# The proof


@dataclass(frozen=True)
class Record:
    """What everybody sent and saw."""

    requests: dict[bytes, Sequence[Message]]
    answers: dict[bytes, list[Message]]
    copies: list[Message]
    statistics: zdev.Statistics


def report(record: Record, out: TextIO) -> bool:
    """Print what is proven and what is not; return whether all is."""
    proven = True
    print("What everybody sent, held against what everybody saw:", file=out)
    for claim, differences in prove(record):
        print(f"{'FAIL' if differences else 'ok  '} {claim}", file=out)
        for difference in differences[:3]:
            print(f"       {difference}", file=out)
        if len(differences) > 3:
            print(f"       and {len(differences) - 3:,} more such", file=out)
        proven = proven and not differences
    there, back, capture = counts(record.statistics)
    passed = f"{there:,} requests, {back:,} answers, {capture:,} copies for the monitor"
    print(f"{'Proven' if proven else 'NOT proven, see FAIL'}: {passed}.", file=out, flush=True)
    return proven


def prove(record: Record) -> Iterator[tuple[str, list[str]]]:
    """Yield claims, each with what contradicts it."""
    yield "each request was answered once, rightly, to the client that sent it", once(record)
    yield "each client got each worker's answers in the order of its requests", ordered(record)
    yield (
        "the monitor saw each request under `in`, in the order its client sent it",
        seen(record.copies, b"in", record.requests),
    )
    yield (
        "the monitor saw each answer under `out`, in the order its client got it",
        seen(record.copies, b"out", record.answers),
    )
    yield "the queue's own statistics agree: nothing was dropped or left over", counted(record)


def once(record: Record) -> list[str]:
    """Hold the answers against the requests: one to each, and the right one."""
    differences = []
    for name, requests in record.requests.items():
        asked = {place(request): request for request in requests}
        missing = dict(asked)
        for reply in record.answers[name]:
            where = f"{text(name)}, {place(reply)}"
            if place(reply) not in asked:
                differences.append(f"{where}: an answer that it did not ask for")
            elif place(reply) not in missing:
                differences.append(f"{where}: answered twice")
            elif reply[:-1] != answer(missing.pop(place(reply))):
                differences.append(f"{where}: a wrong answer, {texts(reply)}")
        differences += [f"{text(name)}, {where}: no answer" for where in missing]
    return differences


def ordered(record: Record) -> list[str]:
    """Hold the order of one worker's answers to one client against that of the requests."""
    differences = []
    for name, requests in record.requests.items():
        number = {place(request): at for at, request in enumerate(requests)}
        last: dict[bytes, int] = {}
        for reply in record.answers[name]:
            at, by = number.get(place(reply), -1), b"".join(reply[-1:])
            if at <= last.get(by, -1):
                differences.append(f"{text(name)}, {place(reply)}: late, from {text(by)}")
            last[by] = max(at, last.get(by, -1))
    return differences


def seen(
    copies: Sequence[Message], prefix: bytes, expected: Mapping[bytes, Sequence[Message]]
) -> list[str]:
    """Hold what the monitor saw under a prefix against what passed, client by client."""
    shown: dict[bytes, list[Message]] = {name: [] for name in expected}
    for copy in copies:
        if copy[0] == prefix:
            shown.setdefault(b"".join(copy[1:2]), []).append(copy[2:])
    differences = []
    for name, messages in shown.items():
        wanted = [[b"", *message] for message in expected.get(name, [])]
        for at, (one, other) in enumerate(itertools.zip_longest(wanted, messages), 1):
            if one != other:
                differences.append(
                    f"{text(name)}, number {at}: {texts(one)} passed, {texts(other)} was seen"
                )
                break
    return differences


def counted(record: Record) -> list[str]:
    """Hold the relay's own counts against everybody else's."""
    requests = sum(map(len, record.requests.values()))
    answers = sum(map(len, record.answers.values()))
    there, back, capture = record.statistics
    rows = [("copies for the monitor", capture.sent, requests + answers)]
    rows += [("copies seen", len(record.copies), requests + answers)]
    rows += [("copies lost", capture.dropped + capture.parked, 0)]
    for name, way, due in (("requests", there, requests), ("answers", back, answers)):
        rows += [(f"{name} taken", way.messages_received, due)]
        rows += [(f"{name} passed on", way.messages_sent, due)]
        rows += [(f"{name} lost", way.dropped + way.unroutable + way.parked, 0)]
    return [f"{what}: {count:,} instead of {due:,}" for what, count, due in rows if count != due]


def named(requests: Sequence[Message]) -> str:
    """Name the files of some requests."""
    first, *others = dict.fromkeys(file for file, _, _ in requests)
    return text(first) + (f" and {len(others)} more" if others else "")


def place(message: Message) -> str:
    """Return where the line of a request or of its answer stands."""
    return text(b":".join(message[:2]))


def text(frame: bytes) -> str:
    """Return a frame as a person reads it."""
    return frame.decode(errors="backslashreplace")


def texts(message: Message | None) -> str:
    """Return a message as a person reads it."""
    if message is None:
        return "nothing"
    return " | ".join(text(frame) or "(empty)" for frame in message)
