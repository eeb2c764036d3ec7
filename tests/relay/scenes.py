"""A relay in a state in which signals come, and the handler of these."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from types import FrameType
from typing import Callable

import pytest
import zmq

import zdev

from ..support import Background, Network, wait_until

STATES = ["idle", "parked", "capture", "paused", "flooded"]


# More frames than the C loop keeps in one piece, among others.
MESSAGES = [
    [b"%d" % number, *(b"%d" % frame * frame for frame in range(frames)), b""][: frames or None]
    for number, frames in zip(range(30), itertools.cycle([1, 2, 17, 0, 40]))
]


class Interruption(Exception):
    """What a handler raises."""


class Handler:
    """A handler that counts, and raises once each time that it is armed."""

    def __init__(self) -> None:
        self.count = 0
        self.armed = False
        self.tame = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self.armed and not self.tame:
            self.armed = False
            raise Interruption

    def wait(self, send: Callable[[], object]) -> None:
        """Send a signal and wait until it was handled."""
        before = self.count
        send()
        wait_until(lambda: self.count > before)


# What a handler raises in a finalizer is lost, and pytest would tell of it.
raises = pytest.mark.filterwarnings("ignore:.*__del__:pytest.PytestUnraisableExceptionWarning")


SENDERS = [
    lambda: os.kill(os.getpid(), signal.SIGUSR1),
    lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1),
    lambda: signal.raise_signal(signal.SIGUSR1),
]


class Scene:
    """A relay that the main thread runs, and the state that it is brought into."""

    def __init__(self, net: Network, state: str) -> None:
        self.state = state
        if state == "flooded":
            # Either end is the other's peer: what is in it goes round and round.
            self.ends = [net.bound(zmq.DEALER)]
            self.ends.append(net.peer(self.ends[0], zmq.DEALER))
            for end in self.ends:
                for message in MESSAGES:
                    end.send_multipart(message)
            self.relay = zdev.Relay(*self.ends)
            return
        frontend, self.control = net.bound(zmq.PULL), net.bound(zmq.REP)
        narrow = {"sndhwm": 1}
        backend = net.bound(zmq.PUSH, **(narrow if state == "parked" else {}))
        capture = net.bound(zmq.PUSH, **(narrow if state == "capture" else {}))
        self.source = net.peer(frontend, zmq.PUSH)
        self.operator = net.peer(self.control, zmq.REQ)
        self.sink = net.peer(backend, zmq.PULL, rcvhwm=1 if state == "parked" else 1000)
        self.watcher = net.peer(capture, zmq.PULL, rcvhwm=1 if state == "capture" else 1000)
        self.relay = zdev.Relay(frontend, backend, capture, in_prefix="in", control=self.control)

    def await_run(self) -> None:
        """Wait until the main thread runs the relay."""
        main = threading.main_thread().ident
        wait_until(lambda: self.relay.call(threading.get_ident) == main)

    def enter(self) -> None:
        """Bring the relay into its state, and wait until it is there."""
        if self.state == "flooded":
            wait_until(lambda: self.relay.statistics()[0].messages_sent > 3 * len(MESSAGES))
            return
        if self.state == "paused":
            self.operator.send(b"PAUSE")
            assert self.operator.recv() == b""
        if self.state != "idle":
            for message in MESSAGES:
                self.source.send_multipart(message)
        if self.state == "parked":
            wait_until(lambda: self.relay.statistics()[0].parked)
        elif self.state == "capture":
            wait_until(lambda: self.relay.statistics()[2].parked)

    def check_stays(self, before: zdev.Statistics) -> None:
        """Check that the relay is where it was."""
        now = self.relay.statistics()
        if self.state == "flooded":
            wait_until(lambda: self.relay.statistics()[0].messages_sent > now[0].messages_sent)
            return
        assert now == before
        assert self.relay.paused == (self.state == "paused")

    def finish(self) -> None:
        """Let everything flow, and check that all of it comes, once, in order and in one piece."""
        if self.state == "flooded":
            return
        if self.state == "paused":
            self.operator.send(b"RESUME")
            assert self.operator.recv() == b""
        if self.state == "idle":
            for message in MESSAGES:
                self.source.send_multipart(message)
        if self.state == "capture":
            copies = [self.watcher.recv_multipart() for _ in MESSAGES]
            seen = [self.sink.recv_multipart() for _ in MESSAGES]
        else:
            seen = [self.sink.recv_multipart() for _ in MESSAGES]
            copies = [self.watcher.recv_multipart() for _ in MESSAGES]
        assert seen == MESSAGES
        assert copies == [[b"in", *message] for message in MESSAGES]

    def check_end(self) -> None:
        """Check the end result, when nobody runs the relay any more."""
        there, back, capture = self.relay.statistics()
        if self.state == "flooded":
            assert (there.messages_received, there.dropped) == (there.messages_sent, 0)
            assert (back.messages_received, back.dropped) == (back.messages_sent, 0)
            for end in self.ends:
                seen = [end.recv_multipart() for _ in MESSAGES]
                first = seen.index(MESSAGES[0])
                assert [*seen[first:], *seen[:first]] == MESSAGES
                assert not end.poll(0)
            return
        count, frames = len(MESSAGES), sum(map(len, MESSAGES))
        size = sum(len(frame) for message in MESSAGES for frame in message)
        assert there == (count, frames, size, count, frames, size, 0, 0, 0, 0)
        assert capture == (count, 0, 0)
        assert not self.sink.poll(0)
        assert not self.watcher.poll(0)


def run_here(relay: zdev.Relay, handler: Handler, script: Callable[[], object]) -> int:
    """Run the relay in the main thread, again behind every interruption, while a script runs.

    Return how often it was interrupted.
    """

    def play() -> None:
        try:
            script()
        finally:
            handler.tame = True  # or the run that honours the stop may be interrupted
            relay.stop()

    handler.tame = False
    raising = handler.armed
    interruptions = 0
    background = Background(play)
    ended = False
    while not ended:
        try:
            handler.armed = raising
            relay.run()
            ended = True
        except Interruption:
            interruptions += 1
    handler.armed = False
    background.join()
    return interruptions
