"""What is known of a run of a device, here or in another process: how far it is, and its outcome.

`run.Run` relays here; `process.RemoteRun` is the parent's view of one in a process of its own. A
device asks both the same things.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import Any, Callable, ClassVar

from zdev import _tasks
from zdev._contract import Statistics
from zdev._stops import StopReport
from zdev._threads import RLock, allocate_lock, is_current
from zdev._times import GRACE
from zdev._voice import write

from .plan import Plans
from .ports import HeldPorts
from .stages import Stage, Stages

__all__ = ["OverError", "Progress"]


class OverError(RuntimeError):
    """A device could not be asked: its run is over, or about to be."""


class Progress:
    """One run of a device, from its start to its end.

    Parameters
    ----------
    name : str
        That of the device, for the log.
    plans : Plans
        What the sockets are to be: a copy, which the run may change.
    held : HeldPorts
        Ports that are held for its sockets; the run's from now on.
    in_background : bool
        Whether somebody else than the caller of `start` sees its errors.
    on_stage : callable
        Called with each stage, before those who wait for it are woken.
    start : object
        Which start has begun it: that one ends it if it is interrupted.
    """

    STEPS: ClassVar[tuple[str, ...]]
    """The methods that lead to the end, one after the other."""

    def __init__(
        self,
        name: str,
        plans: Plans,
        held: HeldPorts,
        *,
        in_background: bool,
        on_stage: Callable[[Stage], None],
        start: object = None,
    ) -> None:
        self.name = name
        self.start = start
        self.plans = plans
        self.held = held
        self.stages = Stages()
        self.exception: BaseException | None = None
        """What ended it, if it was an error: the first."""
        self.counts: Statistics | None = None
        """The final ones."""
        self.unattached: list[str] = []
        """The roles that were neither bound nor connected when it came to relay."""
        self.waits: tuple[str, ...] = ()
        """Who waits for whom, such as "in waits for mon"."""
        self.last_stop: StopReport | None = None
        """What it left, once it has ended; None if no relay of zdev's did."""
        self.is_awaited = False
        """Whether a start will raise what goes wrong."""
        self.worker: Any = None
        """To be joined once the run has ended."""
        self.log: Callable[..., None] = write
        self.on_note: Callable[[str, Any], None] = lambda _what, _value: None
        self._in_background = in_background
        self._on_stage = on_stage
        self._lock = RLock()  # a signal handler may come to a thread that has it
        self._claim = allocate_lock()
        self._steps = deque((*self.STEPS, "_tell"))
        self._joining = RLock()
        self._is_joining = False  # just now, by the holder of that lock

    # What a run is, besides

    def endpoints(self) -> dict[str, list[str]]:
        """Return where each socket is really bound, by role."""
        raise NotImplementedError

    def forget_endpoints(self) -> None:
        """Be bound nowhere, as a run that has failed to start."""
        raise NotImplementedError

    def asked_as(self, role: str, addr: Any) -> str:
        """Return the address by which a bind was asked for, which may have been a wildcard."""
        raise NotImplementedError

    def is_setting_up(self) -> bool:
        """Tell whether a subclass calls this from its set-up, before there is a relay."""
        return False

    def is_current_thread(self) -> bool:
        """Tell whether this thread is the one that the run is in."""
        return False

    def stop(self, drain: float | None, quiet: float | None = None) -> None:
        """Have it end, now or when it has drained; does not wait."""
        raise NotImplementedError

    def ask(self, verb: str, *args: Any) -> Any:
        """Have it do something while it relays: pause, resume, statistics, call or wire."""
        raise NotImplementedError

    def note(self, what: str, value: Any) -> None:
        """Have something known of the run, by the name of its attribute; in the parent too."""
        setattr(self, what, value)
        self.on_note(what, value)

    # Begin

    def claim(self) -> bool:
        """Be the one who runs it, or who forestalls that: tell whether nobody else is."""
        return bool(self._claim.acquire(blocking=False))

    def await_ready(self) -> None:
        """Return when it relays, or has ended; what does not relay gets a moment to fail."""
        self.stages.wait(Stage.READY)
        self.stages.wait(Stage.RELAYING, GRACE)

    def started(self) -> BaseException | None:
        """Return what went wrong with the start; from here on, an error is not raised but shown."""
        with self._lock:
            self.is_awaited = False
            return self.exception

    def reach(self, stage: Stage) -> None:
        """Be at that stage."""
        before = self.stages.now
        if before < stage:
            if before < Stage.READY <= stage < Stage.ENDING:
                self.log(logging.INFO, "%s relays, %s", self.name, self._whereabouts())
            self._on_stage(stage)
            self.stages.reach(stage)

    def _whereabouts(self) -> str:
        bound = {role: addresses for role, addresses in self.endpoints().items() if addresses}
        told = f"bound to {bound}"
        if self.unattached:
            told += f"; neither bound nor connected: {', '.join(self.unattached)}"
        return told

    # End

    def fail(self, error: BaseException) -> None:
        """Keep what ended it, the first error. What `start` raises need not be shown besides."""
        with self._lock:
            if self.exception is not None:
                return
            self.exception = error
            is_early = self.stages.now < Stage.READY
            is_seen = self.is_awaited or is_early or not self._in_background
        level = logging.INFO if is_seen else logging.ERROR
        self.log(level, "%s failed: %s: %s", self.name, type(error).__name__, error)

    def end(self) -> None:
        """Go through all steps to the end, once; raise what goes wrong in one, if it is the first.

        Whatever a step raises, those behind it are gone through and the end is reached: else a stop
        or join would wait for ever. `test_an_end_that_fails_is_an_end` fails each step in turn.
        """
        if self.stages.now == Stage.ENDED:
            return
        before = self.exception
        try:
            self._go_through(self._steps)
        finally:
            # A signal handler may have raised just when what another had raised was kept.
            self._go_through(self._steps)
            self.stages.reach(Stage.ENDED)
        if self.exception is not None and self.exception is not before:
            raise self.exception

    def _go_through(self, steps: deque[str]) -> None:
        """Take each step, whatever the others raise, or a signal handler in the midst of them."""
        while steps:
            try:
                while steps:
                    getattr(self, steps.popleft())()
            except BaseException as error:
                self.fail(error)

    def _tell(self) -> None:
        self.log(logging.INFO, "%s has ended", self.name)
        self._on_stage(Stage.ENDED)

    def _release_ports(self) -> None:
        self.held.release()

    def final_counts(self) -> Statistics:
        """Return what it has counted, once it has ended."""
        if self.counts is None:
            raise RuntimeError(
                f"{self.name} has no counts: it did not come to relay, or not by a relay of zdev's"
            )
        return self.counts

    def over(self) -> OverError:
        """Make the error for what is asked too late."""
        if self.stages.now == Stage.ENDED:
            return OverError(f"{self.name} has ended; start it again first")
        return OverError(f"{self.name} is ending; wait for that, and start it again first")

    def wait(self, timeout: float | None, patience: float) -> bool:
        """Wait for the end, then a little for its thread's; tell whether the end came.

        The thread may need a lock of `threading` that this one holds: a signal handler may be
        waiting here, in the midst of the start of another thread. So it is not waited for long.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self.stages.wait(Stage.ENDED, timeout):
            return False
        left = patience if deadline is None else max(deadline - time.monotonic(), 0)
        self.join_worker(min(left, patience))
        _tasks.do_what_is_left()  # the rest of what it has logged
        return True

    def join_worker(self, patience: float) -> None:
        """Wait until no thread is left of this run, which is over.

        Before Python 3.13, and on PyPy, a thread can be joined by one other at a time; nor can it
        be by a signal handler in the midst of a join, which leaves it to what it interrupts.
        """
        deadline = time.monotonic() + patience
        worker = self.worker
        if worker is None or is_current(worker):
            return
        if not self._joining.acquire(timeout=patience):
            return
        interrupted, self._is_joining = self._is_joining, True
        try:
            if not interrupted:
                worker.join(max(deadline - time.monotonic(), 0))
        finally:
            self._is_joining = interrupted
            self._joining.release()
