"""Threads, locks and waits that are real ones whatever gevent has replaced; see `_tasks` for why.

Where nothing is replaced, they are the standard library's. Who calls zdev from a gevent task waits
by a `waiter`.
"""

from __future__ import annotations

import _socket
import os
import socket
import sys
import threading
import time
from collections.abc import Sequence
from multiprocessing import connection
from typing import TYPE_CHECKING, Any, Callable, Protocol

from zdev import _tasks
from zdev._times import milliseconds

__all__ = [
    "POLLIN",
    "RLock",
    "Thread",
    "Waiter",
    "allocate_lock",
    "await_readable",
    "close",
    "get_ident",
    "in_main_thread",
    "is_current",
    "main_ident",
    "poll",
    "select",
    "sleep",
    "socket_class",
    "socketpair",
    "waiter",
]

# Bound now, so that they stay what they are if somebody replaces them later.
allocate_lock: Callable[[], Any] = _tasks.original("_thread", "allocate_lock")
get_ident: Callable[[], int] = _tasks.original("_thread", "get_ident")
start_new_thread: Callable[..., int] = _tasks.original("_thread", "start_new_thread")
RLock: Callable[[], Any] = _tasks.original("_thread", "RLock")
sleep: Callable[[float], None] = _tasks.original("time", "sleep")
close: Callable[[int], None] = _tasks.original("os", "close")
select: Callable[..., Any] = _tasks.original("select", "select")
poll: Any = _tasks.original("select", "poll")
"""None where the system has no poll(2)."""
if TYPE_CHECKING:
    from socket import socket as socket_class
else:
    socket_class = _tasks.original("socket", "socket")
# The function of `socket` wraps these two in whatever class that module has by now.
socketpair: Callable[[], tuple[Any, Any]] = getattr(_socket, "socketpair", socket.socketpair)

# Who is who


_main_ident = _tasks.main_thread_ident()


def _after_fork() -> None:
    global _main_ident  # noqa: PLW0603 - the thread that forks is the child's only one
    _main_ident = get_ident()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def main_ident() -> int:
    """Return the identity of the main thread."""
    return _main_ident


def in_main_thread() -> bool:
    """Tell whether this is the main thread, which runs the signal handlers."""
    return get_ident() == _main_ident


def is_current(thread: threading.Thread | None) -> bool:
    """Tell whether this thread is that one; it may be a task if it is no `Thread` of ours."""
    if thread is None or isinstance(thread, Thread):
        return thread is not None and thread.ident == get_ident()
    return thread is threading.current_thread()


# Waits


class Waiter(Protocol):
    """What a thread or task waits by: a lock, taken until somebody releases it."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Wait for that."""

    def release(self) -> None:
        """Wake who waits."""


def waiter() -> Waiter:
    """Make what the caller waits by, and nobody else."""
    hub = _tasks.current_hub()
    if hub is not None:
        return _tasks.TaskWaiter(hub)
    lock: Waiter = allocate_lock()
    lock.acquire()
    return lock


def await_readable(things: Sequence[Any], timeout: float | None = None) -> list[Any]:
    """Wait until some of these can be read, at most so many seconds; return those.

    `multiprocessing.connection.wait`, which waits by a hub where `select` is patched.

    Parameters
    ----------
    things
        Descriptors, or what has a ``fileno``.
    """
    if poll is None:
        return connection.wait(things, timeout)
    poller = poll()
    of = {thing if isinstance(thing, int) else thing.fileno(): thing for thing in things}
    for fd in of:
        poller.register(fd, POLLIN)
    return [of[fd] for fd, _ in poller.poll(None if timeout is None else milliseconds(timeout))]


POLLIN = 1  # of poll(2), on every system

# Threads


class Thread(threading.Thread):
    """A real thread; `threading.Thread` starts a task where gevent has replaced that.

    In a program that is patched `threading` does not know it: its exit does not wait for it.
    """

    _is_over = False
    _is_unknown = False  # to `threading`
    _real_ident: int | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._joining: set[Waiter] = set()
        super().__init__(*args, **kwargs)

    def start(self) -> None:
        """Start it, once."""
        if not _tasks.has_replaced_threads():
            super().start()
        elif self._real_ident is not None:
            raise RuntimeError("threads can only be started once")
        else:
            _tasks.current_hub()  # which gets known
            self._is_unknown = True
            try:
                self._real_ident = start_new_thread(self._begin, ())
            except BaseException:
                self._is_unknown = False
                raise

    def _begin(self) -> None:
        try:
            self.run()
        except BaseException:
            threading.excepthook(threading.ExceptHookArgs((*sys.exc_info(), self)))

    def run(self) -> None:
        """Call the target, where nobody waits as a task does."""
        self._real_ident = get_ident()
        try:
            with _tasks.without_tasks():
                super().run()
        finally:
            self._is_over = True
            for waiting in self._joining.copy():
                waiting.release()

    @property
    def ident(self) -> int | None:
        """Its real identity, once it was started."""
        return self._real_ident if self._is_unknown else super().ident

    def is_alive(self) -> bool:
        """Tell whether it runs."""
        if self._is_unknown:
            return not self._is_over
        return super().is_alive()

    def join(self, timeout: float | None = None) -> None:
        """Wait for its end, at most so many seconds."""
        began = time.monotonic()
        if self._is_unknown or (self.ident is not None and _tasks.current_hub() is not None):
            self._await_end(timeout)
        if not self._is_unknown:  # at its end by now, unless time is up
            left = None if timeout is None else max(timeout - (time.monotonic() - began), 0)
            super().join(left)

    def _await_end(self, timeout: float | None) -> None:
        if is_current(self):
            raise RuntimeError("cannot join current thread")
        waiting = waiter()
        self._joining.add(waiting)
        try:
            # Looked at again: who comes to the end says so first, then looks for those who wait.
            if not self._is_over:
                longest = threading.TIMEOUT_MAX
                waiting.acquire(timeout=longest if timeout is None else min(timeout, longest))
        finally:
            self._joining.discard(waiting)
