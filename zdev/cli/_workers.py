"""Threads that heed no signals, nor do the processes that they start."""

from __future__ import annotations

import signal
from concurrent.futures import Future
from threading import Thread
from typing import Callable, TypeVar

from zdev._devices.signals import END_SIGNALS

__all__ = ["in_thread"]

T = TypeVar("T")


def in_thread(function: Callable[[], T]) -> Future[T]:
    """Call something in a thread of its own.

    Ctrl-C and a terminal's hangup go to all processes of a terminal, and SIGTERM may go to all of a
    service: it is the supervisor who reloads then, or has the devices drained. And the main thread
    has to be the one that wakes by a signal, or it sleeps on.
    """
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*END_SIGNALS, signal.SIGHUP})
    try:
        Thread(target=work, daemon=True).start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return future
