"""Signals: none truncates, loses or doubles a message; Ctrl-C is prompt whatever a relay does."""

from __future__ import annotations

import asyncio
import functools
import gc
import itertools
import os
import signal
import socket as sockets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, Callable

import pytest
import zmq

import zdev

from .support import DEADLINE, Background, Network, wait_until

STATES = ["idle", "parked", "capture", "paused", "flooded"]

# Seconds within which "at once" is; a lost wake-up would take for ever.
PROMPT = 1.0

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


@pytest.fixture
def handler() -> Iterator[Handler]:
    """Handle SIGUSR1, and see that everything is put back."""
    handler = Handler()
    previous = signal.signal(signal.SIGUSR1, handler)
    interrupt = signal.getsignal(signal.SIGINT)
    yield handler
    assert signal.getsignal(signal.SIGUSR1) is handler
    assert signal.getsignal(signal.SIGINT) is interrupt
    assert signal.set_wakeup_fd(-1) == -1
    signal.signal(signal.SIGUSR1, previous)


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
        assert there == (count, frames, size, count, frames, size, 0, 0, 0)
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


@raises
@pytest.mark.parametrize("raising", [False, True], ids=["returns", "raises"])
@pytest.mark.parametrize("state", STATES)
def test_signals_lose_nothing(
    engine: str, net: Network, handler: Handler, state: str, raising: bool
) -> None:
    scene = Scene(net, state)

    def script() -> None:
        scene.await_run()
        scene.enter()
        before = scene.relay.statistics()
        for send in SENDERS:
            handler.wait(send)
        for _ in range(50):
            SENDERS[0]()
        scene.check_stays(before)

        done = threading.Event()

        def rain() -> None:
            while not done.wait(0.0005):
                SENDERS[0]()

        signals = Background(rain)
        try:
            scene.finish()
            handler.wait(lambda: None)
        finally:
            done.set()
            signals.join()

    handler.armed = raising
    interruptions = run_here(scene.relay, handler, script)
    assert handler.count > len(SENDERS)
    assert bool(interruptions) == raising
    scene.check_end()


@pytest.mark.parametrize("state", STATES)
def test_ctrl_c_is_prompt_and_the_relay_goes_on(
    engine: str, net: Network, handler: Handler, state: str
) -> None:
    scene = Scene(net, state)
    _interrupt(scene)
    run_here(scene.relay, handler, scene.finish)
    scene.check_end()


@pytest.mark.parametrize("state", STATES)
def test_ctrl_c_where_an_event_loop_owns_the_wakeup(engine: str, net: Network, state: str) -> None:
    scene = Scene(net, state)
    loop = asyncio.new_event_loop()
    called: asyncio.Future[None] = loop.create_future()
    loop.add_signal_handler(signal.SIGUSR1, called.set_result, None)

    async def main() -> None:
        _interrupt(scene)
        # A signal of the loop's own comes to it, though the relay had the thread.
        script = Background(lambda: (scene.await_run(), SENDERS[0](), scene.relay.stop()))
        scene.relay.run()
        script.join()
        await asyncio.wait_for(called, DEADLINE)

    try:
        loop.run_until_complete(main())
    finally:
        loop.close()
    run_here(scene.relay, Handler(), scene.finish)
    scene.check_end()
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


def _interrupt(scene: Scene) -> None:
    """Press Ctrl-C three times in the state."""
    delays = []
    states = iter([scene.enter])
    sent = 0.0

    def press() -> None:
        nonlocal sent
        scene.await_run()
        next(states, lambda: None)()
        sent = time.monotonic()
        os.kill(os.getpid(), signal.SIGINT)

    for _ in range(3):
        script = Background(press)
        with pytest.raises(KeyboardInterrupt):
            scene.relay.run()
        delays.append(time.monotonic() - sent)
        script.join()
    # The best of three: the machine may be busy.
    assert min(delays) < PROMPT


def _devices() -> list[Any]:
    return [
        pytest.param(lambda a, b, c: zdev.proxy(a, b, c), id="proxy"),
        pytest.param(lambda a, b, c: zdev.device(zmq.STREAMER, a, b), id="device"),
        pytest.param(lambda a, b, c: zdev.proxy_steerable(a, b, c, None), id="proxy_steerable"),
        pytest.param(lambda a, b, c: zdev.monitored_queue(a, b, c), id="monitored_queue"),
    ]


@pytest.mark.parametrize("function", _devices())
def test_functions_go_on_behind_a_signal_and_end_with_ctrl_c(
    engine: str, net: Network, handler: Handler, function: Callable[..., object]
) -> None:
    frontend, backend, capture = net.bound(zmq.PULL), net.bound(zmq.PUSH), net.bound(zmq.PUB)
    source, sink = net.peer(frontend, zmq.PUSH), net.peer(backend, zmq.PULL)

    def script() -> None:
        try:
            for message in MESSAGES:
                source.send_multipart(message)
                handler.wait(SENDERS[0])
                assert sink.recv_multipart() == message
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    background = Background(script)
    with pytest.raises(KeyboardInterrupt):
        function(frontend, backend, capture)
    background.join()


SCRIPT = """
import sys, zmq, zdev
context = zmq.Context()
sockets = [context.socket(kind) for kind in (zmq.ROUTER, zmq.DEALER, zmq.PUB)]
for socket in sockets:
    socket.bind("tcp://127.0.0.1:*")
    print(socket.last_endpoint.decode().strip(chr(0)))
print(zdev.engine, flush=True)
try:
    zdev.monitored_queue(*sockets)
except KeyboardInterrupt:
    context.destroy(linger=0)
    sys.exit(42)
"""


def test_ctrl_c_ends_a_script(engine: str, net: Network) -> None:
    environment = {**os.environ, "ZDEV_ENGINE": engine}
    command = [sys.executable, "-W", "error", "-c", SCRIPT]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as script:
        try:
            assert script.stdout is not None
            lines = [script.stdout.readline().strip() for _ in range(4)]
            assert lines[-1] == engine
            client, worker = net.socket(zmq.DEALER), net.socket(zmq.DEALER)
            client.connect(lines[0])
            worker.connect(lines[1])
            client.send(b"it runs")
            assert worker.recv_multipart()[1:] == [b"it runs"]
            script.send_signal(signal.SIGINT)
            assert script.wait(DEADLINE) == 42
        finally:
            script.kill()


def test_a_handler_may_steer_the_relay(engine: str, net: Network, handler: Handler) -> None:
    scene = Scene(net, "idle")
    relay = scene.relay
    seen: list[object] = []

    def steer(number: int, frame: FrameType | None) -> None:
        relay.pause()
        seen.append(relay.paused)
        seen.append(relay.call(threading.get_ident))
        seen.append(relay.statistics().frontend_to_backend.messages_sent)
        relay.resume()
        seen.append(relay.paused)
        with pytest.raises(RuntimeError, match="running already"):
            relay.run()
        with pytest.raises(RuntimeError, match="running already"):
            relay.step()
        relay.stop()

    signal.signal(signal.SIGUSR1, steer)

    def script() -> None:
        scene.await_run()
        scene.finish()
        SENDERS[0]()

    background = Background(script)
    relay.run()
    background.join()
    assert seen == [True, threading.get_ident(), len(MESSAGES), False]
    signal.signal(signal.SIGUSR1, handler)
    scene.check_end()


@pytest.mark.parametrize("state", ["idle", "parked", "capture", "paused"])
def test_a_handler_may_stop_the_relay(
    engine: str, net: Network, handler: Handler, state: str
) -> None:
    scene = Scene(net, state)
    signal.signal(signal.SIGUSR1, lambda *_: scene.relay.stop())

    def script() -> None:
        scene.await_run()
        scene.enter()
        SENDERS[0]()

    background = Background(script)
    scene.relay.run()
    background.join()
    assert scene.relay.paused == (state == "paused")
    signal.signal(signal.SIGUSR1, handler)
    run_here(scene.relay, handler, scene.finish)
    scene.check_end()


@raises
def test_a_call_can_be_interrupted(engine: str, net: Network, handler: Handler) -> None:
    """What runs on the main thread for another one does not keep Ctrl-C waiting."""
    scene = Scene(net, "idle")
    seen: list[str] = []

    def interrupted() -> None:
        signal.signal(signal.SIGUSR2, lambda *_: seen.append("late"))
        for end in ("tame", "raised"):
            handler.tame = end == "tame"
            signal.raise_signal(signal.SIGUSR1)
            seen.append(end)

    def script() -> None:
        scene.await_run()
        handler.armed = True
        with pytest.raises(Interruption):
            scene.relay.call(interrupted)

    previous = signal.getsignal(signal.SIGUSR2)
    try:
        background = Background(script)
        with pytest.raises(Interruption):
            scene.relay.run()
        background.join()
        assert (seen, handler.count) == (["tame"], 2)
        # A handler that it has installed waits its turn, as those do that were there before.
        background = Background(
            lambda: (
                scene.await_run(),
                scene.relay.call(lambda: signal.raise_signal(signal.SIGUSR2)),
                scene.relay.stop(),
            )
        )
        scene.relay.run()
        background.join()
        assert seen == ["tame", "late"]
    finally:
        signal.signal(signal.SIGUSR2, previous)


@pytest.mark.parametrize("nap", [time.sleep, lambda seconds: threading.Event().wait(seconds)])
def test_ctrl_c_reaches_a_call(
    engine: str, net: Network, handler: Handler, nap: Callable[[float], None]
) -> None:
    """Also in a function that is written in C."""
    scene = Scene(net, "idle")
    main = threading.main_thread().ident or 0

    def naps() -> bool:
        frame: FrameType | None = sys._current_frames()[main]
        while frame is not None:
            if frame.f_code is zdev._wakeup.DeferredSignals.call.__code__:
                return True
            frame = frame.f_back
        return False

    def interrupt() -> None:
        wait_until(naps)
        handler.armed = True
        # More than once: one that comes just before a wait of Python's own does not end it.
        wait_until(lambda: os.kill(os.getpid(), signal.SIGUSR1) or handler.count)

    def script() -> None:
        scene.await_run()
        background = Background(interrupt)
        with pytest.raises(Interruption):
            scene.relay.call(functools.partial(nap, 2 * DEADLINE))
        background.join()

    background = Background(script)
    begin = time.monotonic()
    with pytest.raises(Interruption):
        scene.relay.run()
    assert time.monotonic() - begin < DEADLINE
    background.join()
    run_here(scene.relay, handler, scene.finish)
    scene.check_end()


@raises
@pytest.mark.parametrize("function", ["run", "step"])
def test_a_handler_that_raises_leaves_a_stop_to_the_next_run(
    engine: str, net: Network, handler: Handler, function: str
) -> None:
    """The signal comes when the relay has begun to stop."""
    relay = zdev.Relay(net.bound(zmq.PULL), net.bound(zmq.PUSH))
    handler.armed = True

    class Loop:
        """Stands for the relay's own."""

        def flush(self) -> int:
            signal.raise_signal(signal.SIGUSR1)
            return int(loop.flush())

        def __getattr__(self, name: str) -> Any:
            return getattr(loop, name)

    loop, relay._loop = relay._loop, Loop()
    relay.stop()
    with pytest.raises(Interruption):
        getattr(relay, function)()
    relay._loop = loop
    relay.run()
    assert relay.step() == 0


@raises
@pytest.mark.parametrize("function", ["run", "step"])
def test_a_handler_that_raises_leaves_a_terminate_to_the_next_run(
    engine: str, net: Network, handler: Handler, function: str
) -> None:
    """The signal comes when the relay has obeyed."""
    control = net.bound(zmq.PAIR)
    relay = zdev.Relay(net.bound(zmq.PULL), net.bound(zmq.PUSH), control=control)
    handler.armed = True

    class Loop:
        """Stands for the relay's own."""

        def run(self, timeout: int) -> int:
            code = int(loop.run(timeout))
            signal.raise_signal(signal.SIGUSR1)
            return code

        def __getattr__(self, name: str) -> Any:
            return getattr(loop, name)

    loop, relay._loop = relay._loop, Loop()
    net.peer(control, zmq.PAIR).send(b"TERMINATE")
    with pytest.raises(Interruption):
        getattr(relay, function)()
    relay._loop = loop
    relay.run()
    assert relay.step() == 0


@raises
def test_a_handler_that_another_installs_stays_and_waits_its_turn(
    engine: str, net: Network, handler: Handler
) -> None:
    """System V style: each handler installs the next. One that did not wait could lose messages."""
    scene = Scene(net, "flooded")

    def install() -> Callable[[int, FrameType | None], None]:
        def handle(number: int, frame: FrameType | None) -> None:
            signal.signal(signal.SIGUSR1, install())
            handler(number, frame)

        installed.append(handle)
        return handle

    installed: list[object] = []
    signal.signal(signal.SIGUSR1, install())

    def script() -> None:
        scene.await_run()
        scene.enter()
        for _ in range(100):
            handler.wait(SENDERS[0])

    handler.armed = True
    interruptions = run_here(scene.relay, handler, script)
    assert interruptions > 50
    assert signal.getsignal(signal.SIGUSR1) is installed[-1]
    signal.signal(signal.SIGUSR1, handler)
    scene.check_end()


def test_what_a_handler_kept_works_behind_the_run(
    engine: str, net: Network, handler: Handler
) -> None:
    """A handler that chains to the one before it, as it saw it while the relay ran."""
    scene = Scene(net, "idle")
    chained: list[Any] = []

    def chain() -> None:
        before = signal.getsignal(signal.SIGUSR1)
        assert callable(before)
        chained.append(before)
        signal.signal(signal.SIGUSR1, lambda number, frame: before(number, frame))

    def script() -> None:
        scene.await_run()
        scene.relay.call(chain)
        handler.wait(SENDERS[0])

    run_here(scene.relay, handler, script)
    handler.wait(lambda: signal.raise_signal(signal.SIGUSR1))
    signal.signal(signal.SIGUSR1, handler)


def _storm(scene: Scene, numbers: list[signal.Signals], runs: int) -> dict[signal.Signals, int]:
    """Run the relay so often while signals that raise pour down; return how many came."""
    previous = {number: signal.getsignal(number) for number in numbers}
    handled = dict.fromkeys(numbers, 0)
    run = 0
    calm = threading.Event()

    def guarded() -> None:
        scene.relay.run()

    def interrupt(number: int, frame: FrameType | None) -> None:
        handled[signal.Signals(number)] += 1
        while frame is not None and not calm.is_set():
            if frame.f_code is guarded.__code__:
                raise Interruption
            frame = frame.f_back

    def script() -> None:
        scene.await_run()
        scene.enter()
        deadline = time.monotonic() + DEADLINE
        while run < runs and time.monotonic() < deadline:
            for number in numbers:
                os.kill(os.getpid(), number)
            time.sleep(0.0002)  # bursts, not a stream that leaves no time to run
        calm.set()  # or the run that honours the stop may be interrupted
        scene.relay.stop()

    gc.collect()
    gc.disable()  # for its finalizers
    for number in numbers:
        signal.signal(number, interrupt)
    ended = False
    background = Background(script)
    try:
        while not ended:
            try:
                guarded()
                ended = True
            except Interruption:
                run += 1
            assert signal.set_wakeup_fd(-1) == -1
            if len(numbers) == 1:
                assert signal.getsignal(numbers[0]) is interrupt
    finally:
        background.join()  # before signals would end the process
        kept = [signal.getsignal(number) for number in numbers]
        for number, before in previous.items():
            signal.signal(number, before)
        gc.enable()
    assert run >= runs
    assert kept == [interrupt] * len(numbers)
    return handled


@raises
def test_a_storm_of_ctrl_c(engine: str, net: Network, handler: Handler) -> None:
    """Everything is put back, though it raises while a run begins and while it ends."""
    scene = Scene(net, "flooded")
    _storm(scene, [signal.SIGINT], 50)
    scene.check_end()


@raises
def test_a_storm_of_all_kinds(engine: str, net: Network, handler: Handler) -> None:
    scene = Scene(net, "flooded")
    kinds = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGHUP]
    handled = _storm(scene, kinds, 50)
    # One that raises keeps none of the others from its turn.
    assert min(handled.values()) >= 25
    scene.check_end()


def test_every_noted_handler_runs_though_one_raises(
    engine: str, net: Network, handler: Handler
) -> None:
    scene = Scene(net, "idle")
    previous = signal.signal(signal.SIGUSR2, handler)

    def both() -> None:
        # On the relay's own thread, as its own work: both are noted before either runs.
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR2)

    try:
        for count in (2, 4, 6):
            handler.armed = True
            script = Background(lambda: (scene.await_run(), scene.relay._call(both)))
            with pytest.raises(Interruption):
                scene.relay.run()
            script.join()
            assert handler.count == count
    finally:
        signal.signal(signal.SIGUSR2, previous)


def test_a_wakeup_descriptor_of_the_users_stays(
    engine: str, net: Network, handler: Handler
) -> None:
    scene = Scene(net, "idle")
    read, write = sockets.socketpair()
    with read, write:
        read.settimeout(DEADLINE)
        write.setblocking(False)
        assert signal.set_wakeup_fd(write.fileno()) == -1
        try:
            run_here(scene.relay, handler, lambda: (scene.await_run(), handler.wait(SENDERS[0])))
            assert read.recv(1) == bytes([signal.SIGUSR1])
        finally:
            assert signal.set_wakeup_fd(-1) == write.fileno()


@raises
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers without it")
@pytest.mark.parametrize("asked", ["statistics", "step"])
def test_handlers_that_raise_at_any_moment_leave_an_idle_relay_free(
    engine: str, net: Network, asked: str
) -> None:
    relay = zdev.Relay(net.bound(zmq.PULL), net.bound(zmq.PUSH))

    def interrupt(*_: object) -> None:
        raise Interruption

    def ask_until(seconds: float) -> None:
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
        while True:
            getattr(relay, asked)()

    previous = signal.signal(signal.SIGVTALRM, interrupt)
    gc.disable()  # what is raised in a finalizer is lost
    try:
        for number in range(60):
            with pytest.raises(Interruption):
                ask_until(1e-5 * (1 + number % 40))
            assert relay._owner is None
            assert signal.getsignal(signal.SIGVTALRM) is interrupt
    finally:
        gc.enable()
        signal.signal(signal.SIGVTALRM, previous)
    assert Background(relay.step).join() == 0


def test_ctrl_c_in_a_call_of_another_thread_reaches_this_one_too(
    engine: str, net: Network, handler: Handler
) -> None:
    """The main thread that uses an idle relay does so for others who ask meanwhile."""
    relay = zdev.Relay(net.bound(zmq.PULL), net.bound(zmq.PUSH))

    def interrupted() -> None:
        handler.armed = True
        signal.raise_signal(signal.SIGUSR1)

    def other() -> None:
        with pytest.raises(Interruption):
            relay.call(interrupted)

    def ours() -> None:
        threads.append(Background(other))
        wait_until(lambda: relay._commands)

    threads: list[Background] = []
    with pytest.raises(Interruption):
        relay.call(ours)
    threads[0].join()
    assert relay.statistics()[0] == (0,) * 9


def test_a_signal_just_as_a_run_begins_is_the_event_loops(
    engine: str, net: Network, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step leaves its wake-up descriptor alone; a run can only put it back."""
    relay = zdev.Relay(net.bound(zmq.PULL), net.bound(zmq.PUSH))
    set_wakeup_fd = signal.set_wakeup_fd
    read, write = sockets.socketpair()

    def interrupted(fd: int, **options: bool) -> int:
        before = set_wakeup_fd(fd, **options)
        if fd != write.fileno():
            os.kill(os.getpid(), signal.SIGUSR1)
        return before

    with read, write:
        read.settimeout(DEADLINE)
        write.setblocking(False)
        set_wakeup_fd(write.fileno())
        try:
            monkeypatch.setattr(signal, "set_wakeup_fd", interrupted)
            assert relay.step() == 0
            assert handler.count == 0
            relay.stop()
            relay.run()
            assert handler.count == 1
            assert read.recv(10) == bytes([signal.SIGUSR1])
        finally:
            monkeypatch.undo()
            assert set_wakeup_fd(-1) == write.fileno()


def test_step_defers_signals_too(engine: str, net: Network, handler: Handler) -> None:
    """What one that comes in the middle of a step raises leaves every message whole."""
    scene = Scene(net, "flooded")
    done = threading.Event()
    rain = Background(lambda: [SENDERS[0]() for _ in iter(lambda: done.wait(0.0005), True)])
    interruptions = 0
    deadline = time.monotonic() + DEADLINE
    while interruptions < 50:
        assert time.monotonic() < deadline
        try:
            handler.armed = True
            scene.relay.step()
            handler.armed = False
        except Interruption:
            interruptions += 1
    handler.armed = False
    done.set()
    rain.join()
    scene.check_end()


def test_a_handler_that_blocks_can_be_interrupted(
    engine: str, net: Network, handler: Handler
) -> None:
    """Ctrl-C, and Ctrl-C again, since the first asks whether one is sure."""
    scene = Scene(net, "idle")
    asked = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()
        end = time.monotonic() + DEADLINE
        while time.monotonic() < end:
            time.sleep(0.01)  # a signal may just miss a long one

    def script() -> None:
        scene.await_run()
        SENDERS[0]()
        assert asked.wait(DEADLINE)
        os.kill(os.getpid(), signal.SIGINT)

    signal.signal(signal.SIGUSR1, ask)
    background = Background(script)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        scene.relay.run()
    assert time.monotonic() - began < DEADLINE
    background.join()
    signal.signal(signal.SIGUSR1, handler)
    run_here(scene.relay, handler, scene.finish)
    scene.check_end()


def test_a_handler_may_run_another_relay(engine: str, net: Network, handler: Handler) -> None:
    scene, other = Scene(net, "idle"), Scene(net, "idle")

    def nest(number: int, frame: FrameType | None) -> None:
        other.relay.run()

    def script() -> None:
        scene.await_run()
        SENDERS[0]()
        other.await_run()
        other.finish()
        other.relay.stop()
        scene.finish()

    signal.signal(signal.SIGUSR1, nest)
    assert run_here(scene.relay, handler, script) == 0
    assert signal.getsignal(signal.SIGUSR1) is nest
    signal.signal(signal.SIGUSR1, handler)
    scene.check_end()
    other.check_end()


@pytest.mark.parametrize("state", STATES)
def test_signals_to_a_relay_in_another_thread(
    engine: str, net: Network, handler: Handler, state: str
) -> None:
    """The system interrupts that thread's calls; Python's handlers run in the main thread."""
    scene = Scene(net, state)
    background = Background(scene.relay.run)
    thread = background.thread.ident
    assert thread is not None
    wait_until(lambda: scene.relay.call(threading.get_ident) == thread)
    scene.enter()
    before = scene.relay.statistics()
    for _ in range(100):
        signal.pthread_kill(thread, signal.SIGUSR1)
    wait_until(lambda: handler.count > 0)
    scene.check_stays(before)
    scene.finish()
    scene.relay.stop()
    background.join()
    scene.check_end()


def test_ctrl_c_while_another_thread_has_an_idle_relay(
    engine: str, net: Network, handler: Handler
) -> None:
    """run() waits for a call that has begun; that wait, too, can be interrupted."""
    scene = Scene(net, "idle")
    begun, end = threading.Event(), threading.Event()
    background = Background(scene.relay.call, lambda: (begun.set(), end.wait(DEADLINE)))
    assert begun.wait(DEADLINE)

    def press() -> None:
        wait_until(lambda: signal.getsignal(signal.SIGUSR1) is not handler)  # the run has begun
        os.kill(os.getpid(), signal.SIGINT)

    try:
        script = Background(press)
        with pytest.raises(KeyboardInterrupt):
            scene.relay.run()
        script.join()
        assert background.alive
    finally:
        end.set()
    background.join()
    run_here(scene.relay, handler, scene.finish)
    scene.check_end()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_that_another_thread_forks_has_its_handlers(engine: str) -> None:
    """It inherits the main thread's replaced handlers, but not the run that delivers to them."""
    script = """
import os, signal, sys, threading, time, zmq, zdev
context = zmq.Context()
frontend, backend = context.socket(zmq.PULL), context.socket(zmq.PUSH)
relay = zdev.Relay(frontend, backend)

def fork():
    relay.statistics()  # it runs
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(tell, b"!")
            while True:
                time.sleep(1)
        except KeyboardInterrupt:
            os._exit(7)
    os.read(ready, 1)
    for _ in range(200):
        os.kill(child, signal.SIGINT)
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.05)
    else:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    relay.stop()
    codes.append(status >> 8)

codes = []
thread = threading.Thread(target=fork)
thread.start()
relay.run()
thread.join()
context.destroy(linger=0)
sys.exit(codes[0])
"""
    # From 3.12 on, Python warns of any fork beside threads.
    environment = {**os.environ, "ZDEV_ENGINE": engine}
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (7, "")
