"""Handlers that raise, at any moment: everything is put back, and nobody loses a turn."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any

import pytest
import zmq

import zdev

from ..support import DEADLINE, Background, Network
from .scenes import Handler, Interruption, Scene, raises, run_here


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
        deadline = time.monotonic() + 3 * DEADLINE
        while run < runs and time.monotonic() < deadline:
            for number in numbers:
                os.kill(os.getpid(), number)
            time.sleep(0.0002)  # bursts, not a stream that leaves no time to run
        calm.set()  # or the run that honours the stop may be interrupted
        scene.relay.stop()

    def unraisable(lost: Any) -> None:
        if lost.exc_type is not Interruption:
            hook(lost)

    gc.collect()
    gc.disable()  # for its finalizers
    hook, sys.unraisablehook = sys.unraisablehook, unraisable  # for what dies without it
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
        sys.unraisablehook = hook
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
            script = Background(lambda: (scene.await_run(), scene.relay._calls.call(both)))
            with pytest.raises(Interruption):
                scene.relay.run()
            script.join()
            assert handler.count == count
    finally:
        signal.signal(signal.SIGUSR2, previous)


@raises
def test_a_handler_that_raises_whenever_it_is_put_back_does_not_hold_up_the_end(
    engine: str, net: Network, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not tried for ever. What stays in its place passes signals on, until the next run."""
    scene = Scene(net, "idle")
    tries = []

    def raising(signals: zdev._signals.DeferredSignals) -> None:
        tries.append(signals)
        raise Interruption

    monkeypatch.setattr(zdev._signals.DeferredSignals, "_put_back", raising)
    scene.relay.stop()
    with pytest.raises(Interruption):
        scene.relay.run()
    assert len(tries) == zdev._signals.TRIES
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGUSR1) is not handler
    handler.wait(lambda: signal.raise_signal(signal.SIGUSR1))
    run_here(scene.relay, handler, lambda: None)
    assert signal.getsignal(signal.SIGUSR1) is handler


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
            assert relay._calls._owner is None
            assert signal.getsignal(signal.SIGVTALRM) is interrupt
    finally:
        gc.enable()
        signal.signal(signal.SIGVTALRM, previous)
    assert Background(relay.step).join() == 0
