"""Finds what a test has left behind: sockets, threads and descriptors."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import zmq
from zmq.utils import garbage

from zdev._times import check_seconds

__all__ = ["LeakError", "TrackedContext", "no_leaks", "tracked_context"]


class LeakError(AssertionError):
    """Something was left behind; the message says what."""


class TrackedContext(zmq.Context[zmq.Socket[bytes]]):
    """A context that knows which of its sockets are open. They do not linger, unless told to."""

    # pyzmq sets what a class has as an attribute, and takes all else for socket options.
    _open: list[zmq.Socket[bytes]] = []  # noqa: RUF012 - each has its own
    _ending: threading.Thread | None = None
    _lock: threading.Lock = threading.Lock()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._open = []
        self._lock = threading.Lock()
        self.setsockopt(zmq.LINGER, 0)

    def socket(self, *args: Any, **kwargs: Any) -> zmq.Socket[bytes]:
        """Make a socket; the parameters are those of ``zmq.Context.socket``."""
        socket = super().socket(*args, **kwargs)
        with self._lock:
            self._open = [*self.open_sockets, socket]
        return socket

    def end(self) -> threading.Thread:
        """Begin to terminate it, if that has not begun, and return the thread that does it."""
        with self._lock:
            if self._ending is None:
                self._ending = threading.Thread(target=super().term, daemon=True)
                self._ending.start()
        return self._ending

    def term(self) -> None:
        """Terminate it, as ``zmq.Context.term`` does; also if another thread does so already."""
        self.end().join()

    @property
    def open_sockets(self) -> list[zmq.Socket[bytes]]:
        """Those that are not closed yet, oldest first."""
        return [socket for socket in self._open if not socket.closed]


@functools.lru_cache(None)
def _warm_up() -> None:
    """Let libzmq open what it opens once for the whole process."""
    with zmq.Context() as context:
        context.socket(zmq.PAIR).close()


def _descriptors() -> dict[int, str]:
    """Return what is open in this process, and what it is where that can be told."""
    found = {}
    for name in os.listdir("/dev/fd"):
        with contextlib.suppress(OSError):  # that of the directory itself, which is closed by now
            os.fstat(int(name))
            found[int(name)] = ""
            found[int(name)] = os.readlink(f"/dev/fd/{name}")
    return found


@contextlib.contextmanager
def no_leaks(patience: float = 5.0) -> Iterator[None]:
    """Raise `LeakError` if there are more threads or descriptors behind the block than before it.

    Parameters
    ----------
    patience : float
        Seconds within which what is just ending must have ended.
    """
    patience = check_seconds(patience, "patience", "a number of seconds")
    _warm_up()
    zero_copy = garbage.gc.is_alive()
    threads, descriptors = set(threading.enumerate()), _descriptors()
    yield
    end = time.monotonic() + patience
    while True:
        late = time.monotonic() > end
        if not zero_copy and garbage.gc.is_alive() and (late or not garbage.gc.refs):
            garbage.gc.stop()  # pyzmq's thread for messages sent without a copy
        left = [f"thread {thread}" for thread in threading.enumerate() if thread not in threads]
        left += [
            f"descriptor {number} {what}"
            for number, what in _descriptors().items()
            if descriptors.get(number) != what
        ]
        if not left:
            return
        if late:
            raise LeakError("left behind:\n  " + "\n  ".join(left))
        gc.collect()
        time.sleep(0.005)


@contextlib.contextmanager
def tracked_context(patience: float = 5.0) -> Iterator[TrackedContext]:
    """Make a context, and raise `LeakError` for each socket, thread and descriptor left of its use.

    What is left is ended as far as that can be done: the context is terminated, threads that end by
    it are waited for, and then the sockets are closed.
    """
    with no_leaks(patience):
        threads = set(threading.enumerate())
        context = TrackedContext()
        try:
            yield context
        finally:
            # pyzmq's own thread ends when there is nothing more for it to do.
            new = set(threading.enumerate()) - threads - {garbage.gc.thread, context._ending}
            _join(new, patience)
            left = [f"socket {socket!r}" for socket in context.open_sockets]
            left += [f"thread {thread}" for thread in new if thread.is_alive()]
            ended = end_context(context, new, patience)
        if left or not ended:
            raise LeakError("left behind:\n  " + "\n  ".join(left or ["a socket of the context"]))


def _join(threads: set[threading.Thread], patience: float) -> None:
    """Wait until threads have ended, but not for ever."""
    end = time.monotonic() + patience
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))


def end_context(
    context: TrackedContext, threads: set[threading.Thread], patience: float = 5.0
) -> bool:
    """Terminate a context that threads may still use, and say whether that is done.

    Its sockets are closed when the threads have ended, since a socket belongs to one thread at a
    time. If they don't, nothing more can be done; nothing waits for ever.
    """
    ending = context.end()
    _join(threads, patience)
    if any(thread.is_alive() for thread in threads):
        return False
    for socket in context.open_sockets:
        socket.close()
    ending.join(patience)
    return not ending.is_alive()
