"""What a device runs in: a thread, the main thread, a device's own thread or process."""

from __future__ import annotations

import multiprocessing
import os
import queue
import random
import signal
import threading
from dataclasses import dataclass
from typing import Any, Callable

import zmq

import zdev
from zdev import _engines
from zdev._contract import Statistics

from ...support import DEADLINE, Background
from .messages import Violation, tally

__all__ = [
    "HOSTS",
    "Host",
    "Interrupted",
    "MainThread",
    "Plan",
    "Threads",
    "main_thread",
    "threads",
]


@dataclass
class Plan:
    """What a device is to be."""

    kinds: dict[str, int]  # socket types by role: in, out, mon, ctrl
    transport: str
    engine: str
    hwm: int
    capture_policy: str = "block"
    prefixes: tuple[bytes | None, bytes | None] = (b"in", b"out")
    mandatory: bool = False  # its ROUTER sockets tell who cannot be reached
    start_method: str = "fork"


_making = threading.Lock()
"""Held while there is something of which a process has only one: the engine that is current."""


class Threads:
    """The threads that relay, to be hit by signals."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idents: list[int] = []

    def run(self, function: Callable[[], None]) -> None:
        ident = threading.get_ident()
        with self._lock:
            self._idents.append(ident)
        try:
            function()
        finally:
            with self._lock:
                self._idents.remove(ident)

    def signal(self, rng: random.Random, number: int) -> bool:
        """Send a signal to one that lives; tell whether there was one."""
        with self._lock:
            if not self._idents:
                return False
            signal.pthread_kill(rng.choice(self._idents), number)
            return True


threads = Threads()


class Interrupted(Exception):
    """Raised by a signal handler, out of a relay's run in the main thread."""


class MainThread:
    """Lets relays run in the main thread, one at a time."""

    def __init__(self) -> None:
        self._wanted: queue.Queue[tuple[zdev.Relay, threading.Event]] = queue.Queue()
        self.error: BaseException | None = None

    def run(self, relay: zdev.Relay) -> threading.Event:
        """Have a relay run; return what is set at its end."""
        ended = threading.Event()
        self._wanted.put((relay, ended))
        return ended

    def serve(self, seconds: float) -> None:
        """Run a relay that somebody wants run within so many seconds, to its end."""
        try:
            relay, ended = self._wanted.get(timeout=seconds)
        except queue.Empty:
            return
        try:
            while not _runs_to_its_end(relay):
                tally("runs interrupted by handlers")
        except BaseException as error:
            self.error = error
        finally:
            ended.set()


def _runs_to_its_end(relay: zdev.Relay) -> bool:
    try:
        relay.run()
    except Interrupted:
        return False
    return True


main_thread = MainThread()


class Host:
    """A device under test. It may be started and stopped many times."""

    is_apart = False  # in another process: not to be reached by inproc
    keeps_counts = True  # from one start to the next, with its sockets and what they hold

    def __init__(self, plan: Plan, context: zmq.Context[Any]) -> None:
        self.plan = plan
        self.context = context

    def start(self) -> None:
        raise NotImplementedError

    def stop(self, drain: float | None = None) -> None:
        raise NotImplementedError

    def await_end(self) -> None:
        """Wait for the end of what was told to end, not by `stop`."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def statistics(self) -> Statistics:
        raise NotImplementedError

    def pause(self) -> None:
        raise NotImplementedError

    def resume(self) -> None:
        raise NotImplementedError

    def edit(self, role: str, verb: str, address: str) -> str:
        """Bind, connect, unbind or disconnect; return where that really was, if it is known."""
        raise NotImplementedError


class RelayHost(Host):
    """A Relay in a thread; its sockets are the test's."""

    def __init__(self, plan: Plan, context: zmq.Context[Any]) -> None:
        super().__init__(plan, context)
        self.sockets: dict[str, zmq.Socket[bytes]] = {}
        for role, kind in plan.kinds.items():
            socket = self.sockets[role] = context.socket(kind)
            socket.linger = 0
            socket.hwm = plan.hwm
            if plan.mandatory and kind == zmq.ROUTER:
                socket.router_mandatory = True
        copies: dict[str, Any] = {}
        if "mon" in self.sockets:
            copies.update(zip(("in_prefix", "out_prefix"), plan.prefixes))
            copies["capture_policy"] = plan.capture_policy
        with _making:
            _engines._chosen = _engines.load(plan.engine)
            self.relay = zdev.Relay(
                self.sockets["in"],
                self.sockets["out"],
                self.sockets.get("mon"),
                control=self.sockets.get("ctrl"),
                burst=1 + plan.hwm % 64,
                **copies,
            )

    def start(self) -> None:
        self._running = Background(threads.run, self.relay.run)

    def stop(self, drain: float | None = None) -> None:
        self.relay.stop(drain)
        self.await_end()

    def await_end(self) -> None:
        self._running.join()

    def close(self) -> None:
        for socket in self.sockets.values():
            socket.close()
        self.relay._retire()

    def statistics(self) -> Statistics:
        return self.relay.statistics()

    def pause(self) -> None:
        self.relay.pause()

    def resume(self) -> None:
        self.relay.resume()

    def edit(self, role: str, verb: str, address: str) -> str:
        socket = self.sockets[role]

        def do() -> str:
            getattr(socket, verb)(address)
            return socket.getsockopt_string(zmq.LAST_ENDPOINT)

        return self.relay.call(do, DEADLINE)


class MainHost(RelayHost):
    """A Relay in the main thread."""

    def start(self) -> None:
        self._ended = main_thread.run(self.relay)

    def await_end(self) -> None:
        if not self._ended.wait(DEADLINE):
            raise Violation(f"a relay has not ended {DEADLINE} s after it was stopped")
        if main_thread.error is not None:
            raise main_thread.error


class DeviceHost(Host):
    """One of the classes of devices."""

    launcher = "Thread"
    keeps_counts = False

    def __init__(self, plan: Plan, context: zmq.Context[Any]) -> None:
        super().__init__(plan, context)
        kinds = plan.kinds
        types = [kinds[role] for role in ("in", "out", "mon", "ctrl") if role in kinds]
        if "ctrl" in kinds:
            self.device = getattr(zdev, f"{self.launcher}ProxySteerable")(*types)
            plan.prefixes = (None, None)
        elif "mon" in kinds:
            made: Any = getattr(zdev, f"{self.launcher}MonitoredQueue")
            self.device = made(*types, *plan.prefixes)
        else:
            self.device = getattr(zdev, f"{self.launcher}Device")(zmq.QUEUE, *types)
        plan.capture_policy = "block"
        for role in kinds:
            for option in (zmq.SNDHWM, zmq.RCVHWM):
                getattr(self.device, f"setsockopt_{role}")(option, plan.hwm)
            if plan.mandatory and kinds[role] == zmq.ROUTER:
                getattr(self.device, f"setsockopt_{role}")(zmq.ROUTER_MANDATORY, 1)

    def start(self) -> None:
        with _making:
            _engines._chosen = _engines.load(self.plan.engine)
            self.device.start()

    def stop(self, drain: float | None = None) -> None:
        self.device.stop(drain, timeout=DEADLINE)
        self.await_end()

    def await_end(self) -> None:
        self.device.join(DEADLINE)
        if not self.device.done:
            raise Violation(f"a device has not ended {DEADLINE} s after it was told to")

    def close(self) -> None:
        pass

    def statistics(self) -> Statistics:
        counts: Statistics = self.device.statistics()
        return counts

    def pause(self) -> None:
        self.device.pause()

    def resume(self) -> None:
        self.device.resume()

    def edit(self, role: str, verb: str, address: str) -> str:
        getattr(self.device, f"{verb}_{role}")(address)
        return address


class ThreadHost(DeviceHost):
    def __init__(self, plan: Plan, context: zmq.Context[Any]) -> None:
        super().__init__(plan, context)
        self.device.context_factory = lambda: context
        for role in plan.kinds:  # else the stage's context would wait for what nobody wants
            getattr(self.device, f"setsockopt_{role}")(zmq.LINGER, 0)


class ProcessHost(DeviceHost):
    launcher = "Process"
    is_apart = True

    def __init__(self, plan: Plan, context: zmq.Context[Any]) -> None:
        super().__init__(plan, context)
        processes: Any = multiprocessing.get_context(plan.start_method)
        self.device._launch_class = processes.Process

    def start(self) -> None:
        with _making:
            os.environ["ZDEV_ENGINE"] = self.plan.engine  # for one that is spawned
            try:
                _engines._chosen = _engines.load(self.plan.engine)
                self.device.start()
            finally:
                del os.environ["ZDEV_ENGINE"]


HOSTS = {
    "relay in a thread": RelayHost,
    "relay in the main thread": MainHost,
    "thread device": ThreadHost,
    "process device": ProcessHost,
}
