"""Signals: a relay defers them, so that no handler runs in the middle of a message."""

from __future__ import annotations

import os
import signal
import socket as sockets
import subprocess
import sys
import threading
import time
from types import FrameType
from typing import Any, Callable

import pytest
import zmq

import zdev

from ..support import DEADLINE, Background, Network, wait_until
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


def test_a_signal_that_waits_counts_once(engine: str, net: Network, handler: Handler) -> None:
    """As the system has it: else a flood of them would take as long to handle, one by one."""
    scene = Scene(net, "idle")

    def many() -> None:
        for _ in range(50):
            signal.raise_signal(signal.SIGUSR1)

    run_here(scene.relay, handler, lambda: (scene.await_run(), scene.relay._calls.call(many)))
    assert handler.count == 1


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
