"""Signals and the process of a device: what it keeps of its parent's, and how they end its run."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

from zdev._threads import in_main_thread, main_ident, socketpair
from zdev._times import STOP_AGAIN

from .run import Run
from .stages import Stage

__all__ = ["END_SIGNALS", "Interrupter", "Stopped", "Unheeded", "held_back"]

END_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})


@dataclass(frozen=True)
class Unheeded:
    """The signals that the parent does not heed on purpose; neither does the child."""

    ignored: frozenset[int]
    """Those of END_SIGNALS that it ignores."""
    blocked: frozenset[int]
    """All that the thread blocks which starts the device."""


@contextlib.contextmanager
def held_back(launcher: Any) -> Iterator[Unheeded]:
    """Let no signal meet a process that is not yet ready to end by it; tell what the parent heeds.

    Ctrl-C goes to all processes of a terminal. A process inherits what the thread blocks that makes
    it, and `Interrupter` lets in what has come meanwhile. The processes of a fork server inherit
    from that server: it must not itself be launched here with anything blocked, nor do they wait.
    """
    method = getattr(launcher, "_start_method", None) or multiprocessing.get_start_method()
    ignored = frozenset(n for n in END_SIGNALS if signal.getsignal(n) == signal.SIG_IGN)
    if not hasattr(signal, "pthread_sigmask"):  # on Windows
        yield Unheeded(ignored, frozenset())
        return
    kept = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        if method == "spawn":
            from multiprocessing import resource_tracker  # which Windows does not have

            resource_tracker.ensure_running()  # else it begins below, and unblocks them
        if method != "forkserver":
            signal.pthread_sigmask(signal.SIG_BLOCK, END_SIGNALS)
        yield Unheeded(ignored, frozenset(kept))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, kept)


class Stopped(SystemExit):
    """Ends what a subclass runs instead of one of zdev's relays.

    A `SystemExit`, since what else a handler raises while gevent's hub has the thread would be
    printed, and not be raised where the subclass waits.
    """


class Interrupter:
    """Ends the run when a signal comes, or the parent says so."""

    def __init__(self, run: Run, unheeded: Unheeded) -> None:
        self._run = run
        self._interrupted = False
        self.signals, self._noted = socketpair()
        self.signals.setblocking(False)
        self._noted.setblocking(False)
        # A fork has inherited it: the parent's event loop would be told of our signals.
        signal.set_wakeup_fd(-1)
        for number in END_SIGNALS:
            is_ignored = number in unheeded.ignored
            signal.signal(number, signal.SIG_IGN if is_ignored else self._on_signal)
        self._insisting: int = signal.SIGTERM
        if signal.SIGTERM in unheeded.ignored | unheeded.blocked:
            self._insisting = _unused_signal()
            signal.signal(self._insisting, self._on_signal)
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_SETMASK, unheeded.blocked - {self._insisting})

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._run.stop(None)
        if self._run.goes_its_own_way() and not self._interrupted:
            self._interrupted = True
            raise Stopped

    def heed_signals(self) -> None:
        """Be told of signals at once where they might meet no Python for a long time."""
        if in_main_thread():
            signal.set_wakeup_fd(self._noted.fileno(), warn_on_full_buffer=False)

    def was_signalled(self) -> bool:
        """Tell whether it was a signal that should end the device."""
        return not END_SIGNALS.isdisjoint(self.signals.recv(4096))

    def insist(self) -> None:
        """Interrupt what a subclass runs, until it notices: it may just be about to wait."""
        while self._run.goes_its_own_way() and not self._interrupted:
            signal.pthread_kill(main_ident(), self._insisting)
            self._run.stages.wait(Stage.ENDED, STOP_AGAIN)


def _unused_signal() -> int:
    """Return a signal for which nobody has a handler; a real-time one where there are such."""
    numbers = sorted(signal.valid_signals(), reverse=True)
    return next(n for n in numbers if signal.getsignal(n) == signal.SIG_DFL)
