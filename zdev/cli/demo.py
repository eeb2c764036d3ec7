"""``zdev demo``: a monitored queue, and everybody around it."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import zmq

import zdev
from zdev import _engines
from zdev._signals import DeferredSignals
from zdev.cli._ends import printing, refuse
from zdev.cli._values import whole
from zdev.cli.demo_display import Display
from zdev.cli.demo_proof import Record, report
from zdev.cli.demo_requests import Message, UnfitFileError, answer, library, named, read

if TYPE_CHECKING:
    from zdev.cli._ends import Commands

__all__ = ["add_to", "demo", "run"]

DESCRIPTION = """\
Relay real text through a monitored ROUTER-DEALER queue, and prove that all of it arrived.

Four clients send the lines of text files as multipart requests over tcp, some of them in flight
at a time; three workers count the words of each and sign it with a digest; a monitor is shown all
that passes. When the last answer is in, what everybody sent is held against what everybody saw.
"""

LINES = 20_000
CLIENTS = [b"client-%d" % number for number in range(1, 5)]
WORKERS = [b"worker-%d" % number for number in range(1, 4)]
WINDOW = 16  # requests that a client has in flight
PATIENCE = 60_000  # milliseconds that a client waits for any answer
BRIEFLY = 100  # milliseconds
THE_END = [b"the end"]  # tells the monitor that nothing follows


def add_to(commands: Commands) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "demo",
        help="relay real text through a monitored queue, live, and prove that all of it arrived",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "files",
        nargs="*",
        type=Path,
        metavar="FILE",
        help="text files to send, line by line (default: the sources of Python's library)",
    )
    parser.add_argument(
        "-n",
        "--lines",
        type=whole,
        default=LINES,
        metavar="N",
        help="send N lines at most (default: %(default)s)",
    )
    parser.set_defaults(command=demo)


@printing
def demo(arguments: argparse.Namespace) -> int:
    """Run ``zdev demo``."""
    try:
        _engines.current()
    except zdev.EngineUnavailableError as error:
        return refuse("zdev", error)
    try:
        requests = read(arguments.files or library(), arguments.lines)
    except UnfitFileError as error:
        return refuse("zdev demo", error)
    return 0 if run(requests, sys.stdout) else 1


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
    # Ctrl-C waits for a `deliver`. It would else come also while a future's lock is held, which it
    # leaves so: then the thread that is to give its result hangs, and the end with it.
    with DeferredSignals() as signals, contextlib.ExitStack() as stack:  # undone from the last line
        pool = stack.enter_context(ThreadPoolExecutor(len(CLIENTS) + len(WORKERS) + 2))
        context = zmq.Context()
        context.linger = 0
        stack.callback(context.term)  # ends whoever still waits for a message

        frontend, backend, capture = (
            stack.enter_context(context.socket(kind)) for kind in (zmq.ROUTER, zmq.DEALER, zmq.XPUB)
        )
        capture.sndhwm = 0  # without limit: nothing is dropped on its way to the monitor
        to_clients, to_workers, to_monitor = (
            f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}"
            for socket in (frontend, backend, capture)
        )
        copies = pool.submit(monitor, context, to_monitor)
        # An XPUB is a PUB that is told of its subscribers: this is the monitor's subscription, and
        # from here on it misses nothing.
        while not capture.poll(BRIEFLY):
            signals.deliver()
        capture.recv()

        relay = zdev.Relay(frontend, backend, capture, in_prefix=b"in", out_prefix=b"out")
        queue = pool.submit(relay.run)
        stack.callback(wait, [queue])
        stack.callback(relay.stop)

        print(
            f"A monitored queue on the {_engines.current().name} engine\n"
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
            signals.deliver()
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
