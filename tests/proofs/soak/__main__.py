"""Devices under everything that may happen to them, at random, for as long as is asked.

    python -m tests.proofs.soak --seconds N [--seed S] [--round R]

Round by round, two or three devices relay at the same time: Relays in threads and in the main
thread, thread and process devices, on every engine, over inproc, ipc and tcp. Their peers come, go,
stall, and are killed in the midst of a message; their sockets are bound, connected, unbound and
disconnected; they are paused, stopped, started, drained and steered; signals hit the process and
its threads. Checked throughout (`stage`, `messages`): a device accounts for every message; messages
come whole, once and in order; where nothing can be lost, nothing is. Behind each round everything
is closed: descriptors and threads must be as few as before, and memory as little.

What is done is the seed's choice alone; when it happens is not. The exit status is 0 if all went
well. Otherwise the account names seed and round; --round begins with that one.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import faulthandler
import gc
import logging
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
import traceback
from multiprocessing import resource_tracker
from types import FrameType

import zdev
from zdev._signals import DeferredSignals

from ...support import Background, descriptors, wait_until
from .hosts import HOSTS, Interrupted, main_thread, threads
from .messages import Violation, tally
from .stage import FLOWS, Stage

SIGNALS = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGINT]

# How much more memory the process may have at the end than behind the warm-up, in MiB and as a
# part: the allocator's holes, and what PyPy compiles meanwhile.
MEMORY_MORE, MEMORY_PART = (64, 0.25) if sys.implementation.name == "pypy" else (16, 0.15)

# Seconds that a round may take; none comes near.
ROUND_LIMIT = 120


def on_signal(number: int, frame: FrameType | None) -> None:
    """Note a signal; interrupt a relay in the main thread now and then.

    Only where it lets handlers run: a function can be interrupted just as it returns, too, and
    whether it had come to its end then, nobody could tell.
    """
    tally("signals handled")
    if frame is None or frame.f_code is not DeferredSignals.deliver.__code__:
        return
    while frame is not None:
        if frame.f_code is zdev.Relay.run.__code__ and random.random() < 0.2:
            raise Interrupted
        frame = frame.f_back


class Signals:
    """Sends signals at random, to the process and to the threads that relay."""

    def __init__(self, seed: str) -> None:
        self._rng = random.Random(seed)
        self._over = threading.Event()
        self._sender = Background(self._run)

    def _run(self) -> None:
        rng = self._rng
        while not self._over.wait(rng.expovariate(40)):
            number = rng.choice(SIGNALS)
            if rng.random() < 0.5:
                os.kill(os.getpid(), number)
            elif not threads.signal(rng, number):
                continue
            tally("signals")

    def end(self) -> None:
        self._over.set()
        self._sender.join()


class Resources:
    """What the process has while no device is there."""

    def __init__(self) -> None:
        self.memory: list[float] = []
        self.first: tuple[int, int] | None = None

    def look(self) -> None:
        gc.collect()
        with contextlib.suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)
        self.memory.append(resident())

    def take_as_base(self) -> None:
        self.first = (descriptors(), running_threads())
        self.memory.clear()

    def check(self) -> str:
        """Compare with the base; return the figures."""
        assert self.first is not None
        fds, tasks = self.first
        # libzmq's reaper has the last word of a socket, and nothing tells when it has said it.
        with contextlib.suppress(AssertionError):
            wait_until(lambda: descriptors() <= fds and running_threads() <= tasks, 5)
        if descriptors() > fds or running_threads() > tasks:
            raise Violation(
                f"{descriptors()} descriptors and {running_threads()} threads are left;"
                f" there were {fds} and {tasks}: {[t.name for t in threading.enumerate()]}"
            )
        half = len(self.memory) // 2
        if half < 3:
            return f"{fds} descriptors, {tasks} threads; too few rounds to tell of memory"
        before, after = statistics.median(self.memory[:half]), statistics.median(self.memory[half:])
        bound = before * (1 + MEMORY_PART) + MEMORY_MORE
        figures = f"memory {before:.0f} MiB, then {after:.0f} MiB, bound {bound:.0f} MiB"
        if after > bound:
            raise Violation(f"{figures}: {[round(m) for m in self.memory]}")
        return f"{fds} descriptors, {tasks} threads, {figures}"


def resident() -> float:
    """Return the resident memory in MiB."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def running_threads() -> int:
    """Count the threads, libzmq's among them."""
    return len(os.listdir("/proc/self/task"))


def play(seed: str, directory: str) -> None:
    """Play a round; sockets of ipc go into that directory."""
    rng = random.Random(seed)
    hosts = [name for name in HOSTS if name != "relay in the main thread"]
    chosen = [rng.choice(hosts) for _ in range(rng.randrange(1, 3))]
    chosen.append("relay in the main thread" if rng.random() < 0.5 else rng.choice(hosts))
    stages = [
        Stage(f"{seed}/{place}", host, rng.choice([*FLOWS]), directory)
        for place, host in enumerate(chosen)
    ]
    players = [Background(stage.play) for stage in stages]
    while any(player.alive for player in players):
        main_thread.serve(0.02)
    for stage, player in zip(stages, players):
        if player.error is not None:
            error = player.error
            lines = traceback.format_exception(type(error), error, error.__traceback__)
            raise Violation(f"{''.join(lines)}\n{stage}") from None


def main() -> int:
    """Play rounds until the time is up."""
    parser = argparse.ArgumentParser(prog="python -m tests.proofs.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(10**9))
    parser.add_argument("--round", type=int, default=0, help="the one to begin with")
    options = parser.parse_args()
    print(f"seed {options.seed}, {sys.implementation.name}, {options.seconds:.0f} s", flush=True)
    logging.getLogger("zdev").setLevel(logging.ERROR)  # that messages were cut off is no news here
    # What the standard library starts once and keeps is there before anything is counted.
    resource_tracker.ensure_running()
    for number in SIGNALS:
        signal.signal(number, on_signal)
    resources = Resources()
    signals = Signals(f"{options.seed}: signals")
    began = said = time.monotonic()
    number = options.round
    try:
        while time.monotonic() < began + options.seconds:
            faulthandler.dump_traceback_later(ROUND_LIMIT, exit=True)
            with tempfile.TemporaryDirectory() as directory:
                play(f"{options.seed}/{number}", directory)
            number += 1
            resources.look()
            if resources.first is None and time.monotonic() > began + min(options.seconds / 4, 60):
                resources.take_as_base()
            if time.monotonic() > said + 10:
                said = time.monotonic()
                print(f"{said - began:6.0f} s, round {number}: {tally}", flush=True)
        signals.end()
        figures = resources.check() if resources.first else "too short to tell of resources"
    except BaseException as error:
        print(
            f"FAILED, with --seed {options.seed} --round {number}: {type(error).__name__}: {error}"
        )
        print(f"so far: {tally}", flush=True)
        os._exit(1)  # whatever else may still run
    print(f"well: {number - options.round} rounds, {tally}\n{figures}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
