"""Event loops of users that drive a relay by its descriptor, each until `step` returns None."""

from __future__ import annotations

import asyncio
import contextlib
import select
import selectors
from typing import Any, Callable

import pytest
import zmq

import zdev

from ..support import DEADLINE, Network

needs_set = pytest.mark.skipif(
    not (hasattr(select, "epoll") or hasattr(select, "kqueue")),
    reason="this system has neither epoll nor kqueue",
)


def has_tkinter() -> bool:
    try:
        import tkinter  # noqa: F401 - pyenv and PyPy may have it in Python, but not in C
    except ImportError:
        return False
    return True


class Driver:
    """Steps a relay when its descriptor is readable, and counts.

    Parameters
    ----------
    relay : Relay
        What is driven.
    """

    def __init__(self, relay: zdev.Relay) -> None:
        self.relay = relay
        self.steps = self.idle = 0
        self.over = False

    def step(self, *_: object) -> None:
        moved = self.relay.step()
        self.steps += 1
        self.idle += moved == 0
        self.over = moved is None

    def run(self) -> Driver:
        """Drive it until it is over."""
        raise NotImplementedError


class WithSelectors(Driver):
    selector: type[selectors.BaseSelector] = selectors.DefaultSelector

    def run(self) -> Driver:
        with self.selector() as selector:
            selector.register(self.relay, selectors.EVENT_READ)
            while not self.over:
                assert selector.select(DEADLINE), "nothing is readable, yet it is not over"
                self.step()
            selector.unregister(self.relay)
        return self


class WithSelect(WithSelectors):
    selector = selectors.SelectSelector


class WithAsyncio(Driver):
    def run(self) -> Driver:
        asyncio.run(self.main())
        return self

    async def main(self) -> None:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def read() -> None:
            try:
                self.step()
            except BaseException:
                self.over = True
                raise
            finally:
                if self.over:
                    loop.remove_reader(self.relay)
                    ended.set()

        loop.add_reader(self.relay, read)
        await asyncio.wait_for(ended.wait(), 3 * DEADLINE)


class WithPoller(Driver):
    def run(self) -> Driver:
        poller = zmq.Poller()
        poller.register(self.relay, zmq.POLLIN)
        while not self.over:
            ready = poller.poll(int(DEADLINE * 1000))
            assert ready, "nothing is readable, yet it is not over"
            self.step()
        return self


class WithTkinter(Driver):
    def run(self) -> Driver:
        import tkinter

        tcl: Any = tkinter.Tcl()
        tcl.createfilehandler(self.relay, tkinter.READABLE, self.step)
        late: list[bool] = []
        tcl.after(int(3 * DEADLINE * 1000), lambda: late.append(True))
        while not (self.over or late):
            tcl.dooneevent(0)
        tcl.deletefilehandler(self.relay)
        assert not late, "nothing is readable, yet it is not over"
        return self


class WithDescriptors(Driver):
    """As where there is neither epoll nor kqueue."""

    def run(self) -> Driver:
        while not self.over:
            timeout = self.relay.deadline()
            bound = DEADLINE if timeout is None else timeout
            ready, _, _ = select.select(self.relay.descriptors(), [], [], bound)
            assert ready or timeout is not None, "nothing is readable, yet it is not over"
            self.step()
        return self


DRIVERS: dict[str, Callable[[zdev.Relay], Driver]] = {
    "selectors": WithSelectors,
    "select": WithSelect,
    "asyncio": WithAsyncio,
    "zmq.Poller": WithPoller,
    "tkinter": WithTkinter,
    "descriptors": WithDescriptors,
}


# So narrow that tcp's buffers hold little, too.
NARROW: dict[str, Any] = {"sndhwm": 3, "rcvhwm": 3, "sndbuf": 4096, "rcvbuf": 4096}


def publishers(net: Network, transport: str) -> tuple[zdev.Relay, Any, Any]:
    """A relay whose XPUB tells by EAGAIN alone that it is full."""
    frontend = net.bound(zmq.PULL, transport)
    backend = net.bound(zmq.XPUB, transport, xpub_nodrop=1, **NARROW)
    source, sink = net.peer(frontend, zmq.PUSH), net.peer(backend, zmq.SUB, **NARROW)
    relay = zdev.Relay(frontend, backend, warn_after=None)
    return relay, source, sink


def subscribed(relay: zdev.Relay) -> bool:
    return relay.statistics().backend_to_frontend.dropped > 0


def settle(relay: zdev.Relay) -> int:
    """Step as long as a step is wanted at once; return how often that was."""
    steps = 0
    while select.select([relay], [], [], 0)[0]:
        relay.step()
        steps += 1
        assert steps < 1000, "it spins"
    return steps


def readable(relay: zdev.Relay, timeout: float = DEADLINE) -> bool:
    """Tell whether a step is wanted within so many seconds."""
    return bool(select.select([relay], [], [], timeout)[0])


@contextlib.contextmanager
def no_alarms(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let no timer save what was lost."""
    from zdev import _descriptor

    for each in (_descriptor.Epoll, _descriptor.Kqueue):
        monkeypatch.setattr(each, "alarm", lambda *_: None)
    yield
