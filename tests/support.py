"""What the tests share: sockets with deadlines, and relays that run in the background."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable

import zmq

from zdev import _engines
from zdev._engines import EngineUnavailableError

# Seconds within which anything that should happen has happened, also on a busy machine.
DEADLINE = 60.0

# Seconds within which what waits for nothing has ended.
PROMPT = 10.0

_numbers = itertools.count()


def available_engines() -> list[str]:
    """Return the engines that this interpreter has."""
    names = []
    for name in _engines.NAMES:
        with contextlib.suppress(EngineUnavailableError):
            _engines.load(name)
            names.append(name)
    return names


def endpoint(transport: str = "inproc") -> str:
    """Return an address to bind that nothing else uses."""
    if transport == "inproc":
        return f"inproc://{next(_numbers)}"
    return {"ipc": "ipc://*", "tcp": "tcp://127.0.0.1:*"}[transport]


class Network:
    """Makes sockets whose sends and receives fail at a deadline instead of hanging."""

    def __init__(self) -> None:
        self.context = zmq.Context()
        self._sockets: list[zmq.Socket[bytes]] = []

    def socket(
        self, kind: int, *, socket_class: type[zmq.Socket[Any]] | None = None, **options: Any
    ) -> zmq.Socket[bytes]:
        """Make a socket; options are names of socket options in lower case."""
        socket = self.context.socket(kind, socket_class)
        self._sockets.append(socket)
        socket.linger = 0
        socket.rcvtimeo = socket.sndtimeo = int(DEADLINE * 1000)
        for name, value in options.items():
            setattr(socket, name, value)
        return socket

    def bound(self, kind: int, transport: str = "inproc", **options: Any) -> zmq.Socket[bytes]:
        """Make a socket and bind it; `peer` connects to it."""
        socket = self.socket(kind, **options)
        socket.bind(endpoint(transport))
        return socket

    def peer(self, of: zmq.Socket[Any], kind: int, **options: Any) -> zmq.Socket[bytes]:
        """Make a socket that is connected to a bound one."""
        socket = self.socket(kind, **options)
        socket.connect(of.getsockopt_string(zmq.LAST_ENDPOINT))
        return socket

    def terminate(self, device: Background, *users: Background) -> BaseException:
        """Terminate the context under a device, and return what that made it raise.

        The users of its sockets must end by it too, before the sockets can be closed.
        """
        term = Background(self.context.term)
        for background in (device, *users):
            with contextlib.suppress(zmq.ContextTerminated):
                background.join()
        assert device.error is not None, "nothing was raised"
        for socket in self._sockets:
            socket.close()
        term.join()
        return device.error

    def close(self) -> None:
        self.context.destroy(linger=0)


class Background:
    """A function that runs in a thread, and what became of it."""

    def __init__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self.result: Any = None
        self.error: BaseException | None = None

        def run() -> None:
            try:
                self.result = function(*args, **kwargs)
            except BaseException as error:
                self.error = error

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    @property
    def alive(self) -> bool:
        return self.thread.is_alive()

    def join(self, timeout: float = DEADLINE) -> Any:
        """Wait for the end, and return or raise what the function did."""
        self.thread.join(timeout)
        assert not self.thread.is_alive(), f"still running after {timeout} s"
        if self.error is not None:
            raise self.error
        return self.result


@contextlib.contextmanager
def running(relay: Any) -> Iterator[Background]:
    """Run a relay in the background, and stop it."""
    background = Background(relay.run)
    try:
        yield background
    finally:
        relay.stop()
        background.join()


def wait_until(condition: Callable[[], Any], timeout: float = DEADLINE) -> Any:
    """Wait for what has no event to wait for, such as a counter."""
    end = time.monotonic() + timeout
    while True:
        late = time.monotonic() > end  # before the look: this thread may have been kept from it
        value = condition()
        if value:
            return value
        assert not late, f"not true after {timeout} s: {condition}"
        time.sleep(0.001)


def fill(socket: zmq.Socket[bytes], message: bytes = b"full") -> int:
    """Send until the socket takes no more; return how many it took."""
    sent = 0
    while socket.poll(0, zmq.POLLOUT):
        socket.send(message, zmq.DONTWAIT)
        sent += 1
    return sent


def descriptors() -> int:
    """Count the open descriptors of this process, those of garbage not."""
    gc.collect()
    gc.collect()  # PyPy runs destructors behind the first
    return len(os.listdir("/dev/fd"))


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in an interpreter of its own, where every warning is an error."""
    ours = {key: value for key, value in os.environ.items() if key != "ZDEV_ENGINE"}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**ours, **environment},
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE,
        check=False,
    )
