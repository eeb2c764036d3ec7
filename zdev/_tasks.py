"""gevent, where a program uses it: what zdev must know of it to be at home there.

No other module knows gevent, and this one does not import it: where the program has not done so,
each question is answered by a look into `sys.modules`.

gevent runs many tasks (greenlets) in one thread, which switch to an event loop (the hub) when they
wait. `monkey.patch_all` makes what the standard library waits by do that, too. For a device, both
are harmful. What relays blocks, and must have a real thread, in which there is no hub; but
`threading.Thread` makes tasks then. And a task that waits for a device must let the others run.

So zdev's threads, locks and waits are real ones, whatever is patched (`original`). Only those
who call zdev from a task wait as a task does, by a `TaskWaiter`, and nothing else in zdev switches
to another task. In zdev's own threads nothing does, even if something makes a hub there, as a
socket of `zmq.green` does, or a gevent lock of `logging` that is taken (`without_tasks`).

tests/devices/test_gevent.py has programs of all kinds.
"""

from __future__ import annotations

import _thread
import contextlib
import functools
import gc
import importlib
import math
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Callable

from zdev._times import GRACE, MAIN_THREAD_LOOK

__all__ = [
    "TaskWaiter",
    "current_hub",
    "do_what_is_left",
    "ensure_hub",
    "has_replaced_threads",
    "hub_handler",
    "in_main_task",
    "leave_tasks",
    "leave_to_main",
    "main_thread_ident",
    "original",
    "set_hub_handler",
    "unwatched",
    "unwatched_forks",
    "watches_child",
    "without_tasks",
]


def original(module: str, name: str, default: Any = None) -> Any:
    """Return something of the standard library as it is without gevent's patches."""
    monkey: Any = sys.modules.get("gevent.monkey")
    if monkey is None:
        return getattr(importlib.import_module(module), name, default)
    try:
        return monkey.get_original(module, name)
    except AttributeError:  # this system has no such thing
        return default


def has_replaced_threads() -> bool:
    """Tell whether `threading.Thread` makes tasks, not threads."""
    monkey: Any = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


get_ident: Callable[[], int] = original("_thread", "get_ident")


def main_thread_ident() -> int:
    """Return the real identity of the main thread, of which a patched `threading` knows no more."""
    import threading

    if has_replaced_threads():
        return int(sys.modules["gevent.hub"].MAIN_THREAD_IDENT)
    return threading.main_thread().ident or get_ident()


# Who is in a task

_without: set[int] = set()
"""The threads in which nobody waits as a task does."""

_main_hub: Any = None
"""The hub of the main thread, once one of its tasks has called zdev."""

_left_to_main: deque[Callable[[], object]] = deque()
_doing = original("_thread", "allocate_lock")()
"""Taken by who does that."""


def _after_fork() -> None:
    global _main_hub, _doing  # they are the parent's
    _main_hub, _doing = None, original("_thread", "allocate_lock")()
    _without.clear()
    _left_to_main.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def current_hub() -> Any:
    """Return the hub by which the caller must wait; None where it must not, or there is none."""
    local: Any = sys.modules.get("gevent._hub_local")
    if local is None:
        return None
    hub = local.get_hub_if_exists()
    # The hub itself cannot wait. It calls us where a program has a watcher of its own call zdev.
    if hub is None or hub is sys.modules["greenlet"].getcurrent() or get_ident() in _without:
        return None
    if hub is not _main_hub and _in_main_thread():
        _know(hub)
    return hub


def in_main_task() -> bool:
    """Tell whether this is the task that the program began with in this thread."""
    return sys.modules["greenlet"].getcurrent().parent is None


def ensure_hub() -> None:
    """Be in a task from now on, in this thread."""
    importlib.import_module("gevent").get_hub()


@contextlib.contextmanager
def without_tasks() -> Iterator[None]:
    """Let nobody wait as a task does in this thread, which is about to end behind this."""
    me = get_ident()
    _without.add(me)
    try:
        yield
    finally:
        _without.discard(me)
        local: Any = sys.modules.get("gevent._hub_local")
        hub = None if local is None else local.get_hub_if_exists()
        if hub is not None:  # it would keep its descriptors, and those whose close is left to it
            hub.join(timeout=0)
            hub.destroy(destroy_loop=True)


# What needs locks that gevent has replaced


def _in_main_thread() -> bool:
    return bool(get_ident() == sys.modules["gevent.hub"].MAIN_THREAD_IDENT)


def _know(hub: Any) -> None:
    global _main_hub  # noqa: PLW0603 - there is one main thread
    _main_hub = hub


def leave_to_main(function: Callable[[], object]) -> bool:
    """Have a task of the main thread call what takes locks of `threading`; tell whether it will.

    Where `threading` is patched, those of `logging` are gevent's. One of these for which several
    real threads contend may forget to wake who waits for it, at least up to gevent 26.9: that one
    waits for ever, without a word. `test_a_log_that_everybody_writes` has such a lock.
    """
    if not has_replaced_threads() or _in_main_thread():
        return False
    loop = None if _main_hub is None else _main_hub.loop
    if loop is None:
        return False
    _left_to_main.append(function)
    with contextlib.suppress(Exception):  # that loop is just over
        loop.run_callback_threadsafe(_spawn_rest)
    return True


def _spawn_rest() -> None:
    importlib.import_module("gevent").spawn(do_what_is_left)


def do_what_is_left() -> None:
    """Do in the main thread what was left to it, in order; unless some task is at that."""
    if not _left_to_main or not _in_main_thread() or current_hub() is None:
        return
    if _doing.acquire(blocking=False):
        try:
            while _left_to_main:
                _left_to_main.popleft()()
        finally:
            _doing.release()


class TaskWaiter:
    """What a task waits by; it has a lock's methods, and is taken until somebody releases it."""

    def __init__(self, hub: Any) -> None:
        self._hub = hub
        self._bell: Any = None
        self._is_released = False

    def release(self) -> None:
        """Wake who waits; from any thread, or a signal handler."""
        self._is_released = True
        bell = self._bell
        if bell is not None:
            with contextlib.suppress(Exception):  # it has been closed, or its loop has
                bell.send()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Wait, at most so many seconds; tell whether it was released.

        Whatever is thrown into the task meanwhile, as by ``kill`` or ``Timeout``, is raised here.
        """
        deadline = time.monotonic() + timeout if 0 <= timeout < _thread.TIMEOUT_MAX else math.inf
        # It counts as something to wait for: a hub that has nothing raises LoopExit.
        bell = self._hub.loop.async_()
        waiting = sys.modules["gevent.hub"].Waiter(self._hub)
        try:
            bell.start(waiting.switch, None)
            self._bell = bell
            # Looked at now: who releases it says so first, then looks for the bell.
            while blocking and not self._is_released:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._await_switch(waiting, left)
        finally:
            self._bell = None
            bell.stop()
            bell.close()
        return self._is_released

    def _await_switch(self, waiting: Any, seconds: float) -> None:
        # A handler that raises just when the hub calls back, as that of Ctrl-C does, has the call
        # forgotten. So it is looked again in the main thread.
        look = math.inf
        if self._hub.thread_ident == sys.modules["gevent.hub"].MAIN_THREAD_IDENT:
            look = MAIN_THREAD_LOOK
        timer = None
        try:
            if min(seconds, look) < math.inf:
                timer = self._hub.loop.timer(min(seconds, look), MAIN_THREAD_LOOK)
                timer.start(waiting.switch, None, update=True)
            waiting.get()
        finally:
            waiting.clear()
            if timer is not None:
                timer.stop()
                timer.close()


# Signals


@functools.cache
def _c_handlers() -> tuple[Any, Any, int]:
    """Return what asks for and sets a signal's handler in C, and that of Python's signals."""
    import ctypes
    import signal

    get, put = ctypes.pythonapi.PyOS_getsig, ctypes.pythonapi.PyOS_setsig
    get.argtypes, get.restype = [ctypes.c_int], ctypes.c_void_p
    put.argtypes, put.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
    # Python does not tell its own. It is that of a signal which it has just been given.
    numbers = sorted(signal.valid_signals(), reverse=True)
    unused = next(n for n in numbers if signal.getsignal(n) == signal.SIG_DFL and not get(n))
    signal.signal(unused, lambda *_: None)
    try:
        return get, put, get(unused)
    finally:
        signal.signal(unused, signal.SIG_DFL)


def hub_handler(number: int) -> int | None:
    """Return the C handler of a signal that is not Python's, but gevent's; in the main thread.

    `gevent.signal_handler` has the event loop take a signal, of which `signal` does not know: to
    exchange Python's handler would take the signal from the event loop, for good.
    """
    if "gevent._hub_local" not in sys.modules:
        return None
    get, _, ours = _c_handlers()
    handler: int | None = get(number)
    return None if handler == ours else handler


def set_hub_handler(number: int, handler: int) -> None:
    """Give the event loop its signal back."""
    _c_handlers()[1](number, handler)


# Processes


def watches_child(pid: int) -> bool:
    """Tell whether gevent's event loop waits for the end of a process, which it has not yet seen.

    gevent has no public way to ask that; its own name for them is used here.
    """
    module: Any = sys.modules.get("gevent.os")
    watched = getattr(module, "_watched_children", {}).get(pid)
    return watched is not None and not isinstance(watched, tuple)


@contextlib.contextmanager
def unwatched_forks() -> Iterator[None]:
    """Let this thread fork as without gevent, unless it is the main thread.

    gevent has its event loop watch for each child, and raises where that is not the main thread's.
    """
    system: Any = os
    fork, real, me = getattr(os, "fork", None), original("os", "fork"), get_ident()
    if fork is None or fork is real or _in_main_thread():
        yield
        return
    system.fork = lambda: real() if get_ident() == me else fork()  # of others, as it was
    try:
        yield
    finally:
        system.fork = fork


# Forks

_left: list[Any] = []


def leave_tasks() -> None:
    """Have none of the tasks that were there before a fork; in the child, whose program is another.

    They would run again, in two processes, as soon as anything in the child waits by the hub; at
    the exit, gevent itself does. Nor may they end: what is in their ``finally`` is the parent's.
    """
    local: Any = sys.modules.get("gevent._hub_local")
    hub = None if local is None else local.get_hub_if_exists()
    if hub is None:
        return
    task = sys.modules["greenlet"].greenlet
    _left.extend(thing for thing in gc.get_objects() if issubclass(type(thing), task))
    loop = hub.loop
    _left.extend((hub, loop))
    local.set_hub(None)
    local.set_loop(None)
    if loop is not None:  # it is the process's: a new hub would have the same, with its watchers
        loop.destroy()


# Sockets of zmq.green


def unwatched(sockets: Iterable[Any]) -> contextlib.AbstractContextManager[None]:
    """Have no hub look after sockets of `zmq.green`, which a relay has for itself meanwhile.

    Such a socket has the hub of the thread that made it ask for ZMQ_EVENTS whenever its descriptor
    shows something, while a relay in another thread has it: two threads at one socket, which libzmq
    forbids. pyzmq has no public way to end that. Its own name for the watcher is used here, which
    it has had since pyzmq 2.2.
    """
    watched = [(target, getattr(target, "_state_event", None)) for target in dict.fromkeys(sockets)]
    watched = [(target, watcher) for target, watcher in watched if watcher is not None]
    # Elsewhere, no generator: a signal handler that raises may leave one to be ended by Python when
    # it is deleted, where what another one raises is lost.
    return _unwatched(watched) if watched else contextlib.nullcontext()


@contextlib.contextmanager
def _unwatched(watched: list[tuple[Any, Any]]) -> Iterator[None]:
    stopped: list[tuple[Any, Any, Any]] = []

    def stop(watched: list[tuple[Any, Any]]) -> None:
        for target, watcher in watched:
            if watcher.callback is not None:
                stopped.append((target, watcher, watcher.callback))
                watcher.stop()

    by_loop: dict[int, list[tuple[Any, Any]]] = {}
    for target, watcher in watched:
        by_loop.setdefault(id(watcher.loop), []).append((target, watcher))
    for pairs in by_loop.values():
        _in_loop(pairs[0][1].loop, functools.partial(stop, pairs))
    try:
        yield
    finally:
        for each in stopped:
            _watch_again(*each)


def _in_loop(loop: Any, function: Callable[[], object]) -> None:
    """Call a function where a loop can neither be at its watchers nor in one of their callbacks.

    It is the loop that calls it, if that is another thread's; unless it does not come to that, as
    where its thread waits for this one.
    """
    local: Any = sys.modules["gevent._hub_local"]
    hub = local.get_hub_if_exists()
    if hub is None or hub.loop is not loop:
        called = original("_thread", "allocate_lock")()
        called.acquire()

        def call() -> None:
            function()
            called.release()

        with contextlib.suppress(Exception):  # that loop may be over
            loop.run_callback_threadsafe(call)
            if called.acquire(timeout=GRACE):
                return
    function()


def _watch_again(target: Any, watcher: Any, callback: Callable[[], object]) -> None:
    """Have the hub look after a socket again, beginning with a look at what it has missed."""

    def again() -> None:
        # Of one that is closed, the descriptor is gone, and libev would end the process.
        if target._state_event is watcher and not target.closed:
            watcher.start(callback)
            callback()

    hub = current_hub()
    if hub is not None and hub.loop is watcher.loop:
        again()
    else:
        with contextlib.suppress(Exception):  # that loop may be over
            watcher.loop.run_callback_threadsafe(again)
