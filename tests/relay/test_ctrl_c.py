"""Ctrl-C: it ends what it should end at once, whoever waits for whom."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from types import FrameType
from typing import Any, Callable

import pytest
import zmq

import zdev
from zdev import _wakeup
from zdev._wakeup import Wakeup

from ..support import DEADLINE, Background, Network, descriptors, wait_until
from .scenes import (
    MESSAGES,
    SENDERS,
    STATES,
    Handler,
    Interruption,
    Scene,
    raises,
    run_here,
)

# Seconds within which "at once" is; a lost wake-up would take for ever.
PROMPT = 1.0


@pytest.mark.alone
@pytest.mark.parametrize("state", STATES)
def test_ctrl_c_is_prompt_and_the_relay_goes_on(
    engine: str, net: Network, handler: Handler, state: str
) -> None:
    scene = Scene(net, state)
    _interrupt(scene)
    run_here(scene.relay, handler, scene.finish)
    scene.check_end()


@pytest.mark.alone
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
            if frame.f_code is zdev._signals.DeferredSignals.call.__code__:
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
        wait_until(lambda: relay._calls._requests)

    threads: list[Background] = []
    with pytest.raises(Interruption):
        relay.call(ours)
    threads[0].join()
    assert relay.statistics()[0] == (0,) * 10


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


def test_ctrl_c_while_a_relay_is_made(
    engine: str, net: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its descriptors are either not yet open, or known to be closed."""
    ends = net.bound(zmq.PULL), net.bound(zmq.PUSH)
    before = descriptors()
    theirs = _wakeup.socketpair

    def interrupted() -> Any:
        signal.raise_signal(signal.SIGINT)
        return theirs()

    with monkeypatch.context() as patched:
        patched.setattr(_wakeup, "socketpair", interrupted)
        with pytest.raises(KeyboardInterrupt):
            zdev.Relay(*ends)
    assert descriptors() == before
    del [Wakeup.__new__(Wakeup)][0]  # it came to have none
    zdev.Relay(*ends)
