"""The end of a run is reached, whatever goes wrong on the way to it."""

from __future__ import annotations

import multiprocessing
from typing import Any

import pytest
import zmq

import zdev
from zdev._devices.process import RemoteRun
from zdev._devices.run import Run

from ..support import DEADLINE, Background, Network, wait_until
from .background import Devices
from .census import can_bind
from .faulty import Trouble

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

ANY = "tcp://127.0.0.1:*"
RUN = [*Run.STEPS, *Run.CLOSING]


def spoil(monkeypatch: pytest.MonkeyPatch, kind: type, step: str) -> None:
    """Let a step to the end of such runs fail, when it has closed what it has to close."""
    if step == "_close_sockets":  # which the run is given
        kind = zdev.Device
    take = getattr(kind, step)

    def fail(self: Any) -> None:
        take(self)
        raise Trouble(step)

    monkeypatch.setattr(kind, step, fail)


def ends_all_the_same(device: Any, net: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """Start a device whose end fails, and see that it has ended for all who wait for it."""
    device.bind_in(ANY)
    device.start()
    users = [
        Background(device.join),
        Background(device.stop, timeout=DEADLINE),
        Background(device.stop, drain=0.01),
    ]
    device.stop(timeout=DEADLINE)
    assert device.done
    with pytest.raises(Trouble):
        users[0].join()
    for user in users[1:]:
        user.join()
    assert isinstance(device.exception, Trouble)
    device.stop()
    monkeypatch.undo()
    with device:
        source = net.socket(zmq.PUSH)
        source.connect(device.endpoints["in"][0])
        source.send(b"x")
        wait_until(lambda: device.statistics().frontend_to_backend.messages_received)
    assert device.exception is None


@pytest.mark.parametrize("step", RUN)
def test_an_end_that_fails_is_an_end(
    engine: str, net: Network, threads: Devices, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    spoil(monkeypatch, Run, step)
    device = threads("Proxy", zmq.PULL, zmq.PUSH)
    device.context_factory = zmq.Context
    ends_all_the_same(device, net, monkeypatch)


@pytest.mark.parametrize("step", RUN)
def test_an_end_that_fails_in_the_child(
    engine: str, net: Network, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    spoil(monkeypatch, Run, step)
    device = Devices("Process")("Proxy", zmq.PULL, zmq.PUSH)
    ends_all_the_same(device, net, monkeypatch)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("step", RemoteRun.STEPS)
def test_an_end_that_fails_in_the_parent(
    engine: str, net: Network, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    spoil(monkeypatch, RemoteRun, step)
    device = Devices("Process")("Proxy", zmq.PULL, zmq.PUSH)
    ends_all_the_same(device, net, monkeypatch)
    wait_until(lambda: not multiprocessing.active_children())


@pytest.mark.parametrize("step", RUN)
def test_an_end_that_fails_in_the_foreground(
    engine: str, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """It is raised where the device was started."""
    spoil(monkeypatch, Run, step)
    device = zdev.Proxy(zmq.PULL, zmq.PUSH)
    device.context_factory = zmq.Context
    device.bind_in(ANY)
    start = Background(device.start)
    wait_until(lambda: device.endpoints)
    device.stop(timeout=DEADLINE)
    with pytest.raises(Trouble, match=step):
        start.join()
    assert device.done


def test_the_first_error_is_kept(
    engine: str, threads: Devices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That which ended the device, though its end fails too."""
    spoil(monkeypatch, Run, "_count")
    spoil(monkeypatch, Run, "_end_context")

    def failing(base: Any) -> Any:
        class Device(base):  # type: ignore[misc]
            def run_device(self) -> None:
                self._setup_sockets()
                raise LookupError("the first")

        return Device

    device = threads.of(failing, "Proxy", zmq.PULL, zmq.PUSH)
    with pytest.raises(LookupError, match="the first"):
        device.start()
    assert device.done
    with pytest.raises(LookupError, match="the first"):
        device.join()


def test_sockets_that_a_subclass_does_not_close_are_closed(
    engine: str, net: Network, threads: Devices
) -> None:
    """Because what it does instead fails: its port is free, and its context ends."""

    def failing(base: Any) -> Any:
        class Device(base):  # type: ignore[misc]
            def _close_sockets(self) -> None:
                raise Trouble("not closed")

        return Device

    device = threads.of(failing, "Proxy", zmq.PULL, zmq.PUSH)
    device.context_factory = zmq.Context
    device._sockets.append(None)
    device.bind_in(ANY)
    device.start()
    (address,) = device.endpoints["in"]
    device.stop(timeout=DEADLINE)
    with pytest.raises(Trouble, match="not closed"):
        device.join()
    assert device._sockets == []
    assert device._context.closed
    assert can_bind(net, address)
