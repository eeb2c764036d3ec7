"""Keeps the devices of ``zdev run``: started, started again when they die, and changed live."""

from __future__ import annotations

import collections
import contextlib
import math
import multiprocessing.context
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, wait
from typing import Any, Callable

from zdev._devices.process import ProcessDevice
from zdev._times import PATIENCE
from zdev.cli._brokers import Broker, ThreadBroker, check_paths, make
from zdev.cli._changes import Plan, Step, planned
from zdev.cli._file import Entry
from zdev.cli._kept import FIRST_DELAY, Kept
from zdev.cli._status import statuses
from zdev.cli._workers import in_thread

__all__ = ["StartError", "Supervisor"]

LONGEST_DELAY = 30.0
"""Seconds before a device that has died is started again, at most; each time twice as many."""

STEADY = 60.0
"""Seconds that a device must have run, after which the delay begins at the shortest again."""

ANSWER = 10.0
"""Seconds for a device to change a socket, and to end, besides its drain; they take milliseconds
unless its process is halted, as by a debugger. It is killed then, and starts again."""

LOOK = 0.2
"""Seconds after which it looks, where it waits for a device, at what else there is."""


class ProcessBroker(Broker, ProcessDevice):
    """A device in a process, which is not forked: the supervisor has threads."""

    _launch_class: Any = multiprocessing.context.SpawnProcess


class StartError(Exception):
    """Devices that could not be started: what was wrong with each, by name."""

    def __init__(self, problems: Mapping[str, BaseException]) -> None:
        super().__init__("; ".join(f"{name}: {error}" for name, error in problems.items()))
        self.problems = dict(problems)


class Supervisor:
    """Keeps devices running, from one thread.

    Parameters
    ----------
    say : callable
        Told in words what happens.
    show : callable
        Told of a device that relays now.
    """

    def __init__(self, say: Callable[[str], object], show: Callable[[Kept], object]) -> None:
        self.kept: dict[str, Kept] = {}
        self._former: dict[str, Kept] = {}
        """Those that the file no longer has; if it has one again, its counts go on."""
        self.is_stopping = False
        self.was_cut_off = False
        """Whether a drain did not come to its end."""
        self.meanwhile: Callable[[], bool] = lambda: False
        """Called while it waits for a device; tells whether drains are to end at once."""
        self._leaving = 0
        """How many stops are under way of which the report is waited for."""
        self._say = say
        self._show = show
        self._events: collections.deque[Callable[[], object]] = collections.deque()
        self._bell, self._rings = os.pipe()
        for fd in (self._bell, self._rings):
            os.set_blocking(fd, False)

    def fileno(self) -> int:
        """Return a descriptor that is readable when `attend` has something to do."""
        return self._bell

    @property
    def wakeup_fd(self) -> int:
        """What ``signal.set_wakeup_fd`` takes, so that a signal meets nobody who waits for ever."""
        return self._rings

    def close(self) -> None:
        """Close the descriptors; devices that still run go on until the process ends."""
        for fd in (self._bell, self._rings):
            os.close(fd)

    def post(self, event: Callable[[], object]) -> None:
        """Have something done by `attend`; from any thread, or a signal handler."""
        self._events.append(event)
        with contextlib.suppress(OSError):  # it has been rung, or is closed
            os.write(self._rings, b"!")

    # What the one thread does

    def start(self, entries: Mapping[str, Entry]) -> None:
        """Start all devices, side by side; if one fails, none is left.

        Raises
        ------
        StartError
            With what was wrong with each.
        """
        kept = [Kept(entry) for entry in entries.values()]
        self._start(kept)
        self.kept = {one.name: one for one in kept}

    def attend(self) -> float | None:
        """Do what there is to do; return after how many seconds there is more, None: not known."""
        with contextlib.suppress(OSError):
            os.read(self._bell, 4096)
        while self._events:
            self._events.popleft()()
        due = [one for one in self.kept.values() if one.again_at is not None]
        for one in due:
            if one.again_at is not None and one.again_at <= time.monotonic():
                one.again_at = None
                self._start_again(one)
        left = [one.again_at - time.monotonic() for one in due if one.again_at is not None]
        return max(min(left), 0.0) if left else None

    @property
    def has_ended(self) -> bool:
        """Whether no device is left."""
        return not self._leaving and all(one.has_ended for one in self.kept.values())

    def stop(self, *, drain: bool) -> None:
        """Have all devices end, after a drain or at once; does not wait."""
        self.is_stopping = True
        for one in self.kept.values():
            one.again_at = None
            if one.starting is None:
                self._leave(one, drain=drain)
            elif not drain:  # else it is told when it has started
                one.has_ended = True

    def reload(self, entries: Mapping[str, Entry]) -> list[str]:
        """Change what has changed, and nothing else; tell what was done.

        Raises
        ------
        Exception
            What went wrong; then all is as it was.
        """
        plan = planned({name: one.entry for name, one in self.kept.items()}, entries)
        for one in self.kept.values():
            if one.starting is not None:
                self._has_started(one)  # waits for that
        for name in [name for name in plan.rewired if self.kept[name].device is None]:
            del plan.rewired[name]  # there is nothing to rewire
            plan.replaced.append(name)
        done: list[str] = []
        with contextlib.ExitStack() as undo:
            self._make_way(plan, undo, done)
            for name, rewiring in plan.rewired.items():
                for step in rewiring.added:
                    self._wire(name, step, undo, done)
            for name in plan.replaced:
                self._halt(name, undo)
                self._begin(name, entries[name], undo)
                done.append(f"{name}: replaced")
            for name in plan.started:
                self._begin(name, entries[name], undo)
                done.append(f"{name}: started")
            for name, lists in plan.lists.items():
                for step in lists if self.kept[name].device is not None else ():
                    self._wire(name, step, None, [])
            undo.pop_all()
        for name, rewiring in plan.rewired.items():
            for step in rewiring.removed:
                with self._going_on(name):
                    self._wire(name, step, None, done)
        for name in plan.stopped:
            self._former[name] = self.kept.pop(name)
            self._stopped(self._former[name])
            done.append(f"{name}: stopped")
        for name in (*plan.rewired, *plan.noted):
            self.kept[name].entry = entries[name]
            if self.kept[name].device is not None:
                self.kept[name].pin()
        done += (f"{name}: noted" for name in plan.noted)
        return done

    def _make_way(self, plan: Plan, undo: contextlib.ExitStack, done: list[str]) -> None:
        """Leave the addresses that another socket is to have."""
        for name in (*plan.stopped, *plan.replaced):
            if plan.is_wanted(self.kept[name].addresses(), but_by=name):
                self._halt(name, undo)
        for name, rewiring in plan.rewired.items():
            for step in rewiring.removed.copy():
                if step.verb == "unbind" and plan.is_wanted([step.what.address]):
                    self._wire(name, step, undo, done)
                    rewiring.removed.remove(step)

    def _wire(
        self, name: str, step: Step, undo: contextlib.ExitStack | None, done: list[str]
    ) -> None:
        """Do something to a live socket; note what undoes it."""
        one = self.kept[name]
        self._answered(one, step)
        done.append(f"{name}: {step}")
        back = step.undo
        if undo is not None and back is not None:
            undo.callback(self._undone, name, lambda: self._answered(one, back))

    def _answered(self, one: Kept, step: Step) -> None:
        """Do something to a live socket; what does not answer is killed, lest it does so later."""
        device = one.device
        doing = in_thread(lambda: one.wire(step))
        if not self._wait(doing, ANSWER):
            with contextlib.suppress(TimeoutError):
                device.stop(timeout=0)
            raise TimeoutError(f"{one.name} has not answered in {ANSWER:g} s")
        doing.result()

    def _halt(self, name: str, undo: contextlib.ExitStack) -> None:
        """Stop a device, which is to start again if something goes wrong later."""
        one = self.kept[name]
        was_there, again_at, had_ended = one.device is not None, one.again_at, one.has_ended

        def come_back() -> None:
            one.again_at, one.has_ended = again_at, had_ended
            if was_there:
                try:
                    self._start([one])
                except StartError:
                    self._again(one)
                    raise

        undo.callback(self._undone, name, come_back)
        self._stopped(one)

    def _begin(self, name: str, entry: Entry, undo: contextlib.ExitStack) -> None:
        """Start a device, in the place of that which had its name."""
        before = self.kept.get(name)
        one = Kept(entry)
        former = before or self._former.get(name)
        if former is not None:
            one.restarts, one.account = former.restarts, former.account
        if before is not None:
            one.pins = before.pins
            undo.callback(self.kept.__setitem__, name, before)
        else:
            undo.callback(self.kept.pop, name)
        self.kept[name] = one
        self._start([one])
        undo.callback(self._stopped, one)

    def _undone(self, name: str, function: Callable[[], object]) -> None:
        with self._going_on(name):
            function()

    @contextlib.contextmanager
    def _going_on(self, name: str) -> Iterator[None]:
        """Say what goes wrong where nothing can be done about it."""
        try:
            yield
        except Exception as error:
            self._say(f"{name}: {error}")

    def status(self) -> list[dict[str, Any]]:
        """Return what there is to know of each device; from any thread."""
        return statuses(list(self.kept.values()))

    # Lives of devices

    def _make(self, one: Kept) -> Any:
        cls = ThreadBroker if one.entry.in_thread else ProcessBroker
        spec = one.pinned()
        device = make(spec, cls)
        check_paths(spec)
        device.start()
        return device

    def _start(self, kept: Iterable[Kept]) -> None:
        """Start these, or none of them."""
        starts = {one.name: (one, in_thread(lambda one=one: self._make(one))) for one in kept}  # type: ignore[misc]
        problems: dict[str, BaseException] = {}
        for name, (one, future) in starts.items():
            self._wait(future)
            error = future.exception()
            if error is not None:
                problems[name] = error
            else:
                self._began(one, future.result())
        if problems:
            stops = [self._stop(one) for one, _ in starts.values() if one.device is not None]
            for stop in stops:
                stop.exception()
            raise StartError(problems)
        for one, _ in starts.values():
            self._show(one)

    def _began(self, one: Kept, device: Any) -> None:
        one.device, one.began, one.has_ended = device, time.monotonic(), False
        one.pin()

        def watch() -> None:
            error: BaseException | None = None
            try:
                device.join()
            except BaseException as ended_by:
                error = ended_by
            self.post(lambda: self._ended(one, device, error))

        in_thread(watch)

    def _ended(self, one: Kept, device: Any, error: BaseException | None) -> None:
        if one.device is not device:
            return  # it was replaced
        one.device = None
        self._count_last(one, device)
        if self.is_stopping or self.kept.get(one.name) is not one:
            one.has_ended = True
            return
        if error is None:
            self._say(f"{one.name}: ended, as it was told to")
            one.has_ended = True
            return
        if time.monotonic() - one.began >= STEADY:
            one.delay = FIRST_DELAY
        self._again(one)  # the log tells already what has ended it

    def _wait(self, future: Future[Any], seconds: float = math.inf) -> bool:
        """Wait for a thread, so long at most; tell whether it is done."""
        deadline = time.monotonic() + seconds
        while not future.done() and time.monotonic() < deadline:
            wait([future], LOOK)
            self.meanwhile()
        return future.done()

    def _count_last(self, one: Kept, device: Any) -> None:
        with contextlib.suppress(RuntimeError):  # its process was killed
            one.account.take(device.statistics(), one.account.life)
        one.account.end()

    def _again(self, one: Kept, words: str = "") -> None:
        self._say(f"{one.name}: {words}starts again in {one.delay:g} s")
        one.again_at = time.monotonic() + one.delay
        one.delay = min(one.delay * 2, LONGEST_DELAY)

    def _start_again(self, one: Kept) -> None:
        one.restarts += 1
        one.starting = in_thread(lambda: self._make(one))
        one.starting.add_done_callback(lambda _: self.post(lambda: self._has_started(one)))

    def _has_started(self, one: Kept) -> None:
        """Take a device that was started again; does nothing if it is taken already."""
        future, one.starting = one.starting, None
        if future is None:
            return
        self._wait(future)
        error = future.exception()
        if error is None:
            self._began(one, future.result())
            self._say(f"{one.name}: relays again")
            self._show(one)
        elif not self.is_stopping:
            self._again(one, f"did not start: {error}; ")
        if self.is_stopping:
            self._leave(one, drain=False)

    def _stop(self, one: Kept, *, drain: bool = False) -> Future[Any]:
        device, seconds = one.device, one.entry.drain if drain else 0.0
        patience = seconds + one.linger() + ANSWER if drain else PATIENCE
        return in_thread(lambda: device.stop(seconds or None, patience))

    def _leave(self, one: Kept, *, drain: bool) -> None:
        """Have a device end for good; does not wait."""
        if one.device is None:
            one.has_ended = True
            return

        def note(future: Future[Any]) -> None:
            self._leaving -= 1
            left = None if future.exception() else future.result()
            if drain and one.entry.drain and not (left is not None and left.drained):
                self.was_cut_off = True

        self._leaving += 1
        stop = self._stop(one, drain=drain)
        stop.add_done_callback(lambda future: self.post(lambda: note(future)))

    def _stopped(self, one: Kept) -> None:
        """Stop a device, after its drain, and wait for that."""
        if one.device is not None:
            stop, is_urgent = self._stop(one, drain=True), False
            while not self._wait(stop, LOOK):
                if not is_urgent and self.meanwhile():
                    is_urgent = True
                    self._stop(one)
        device, one.device, one.again_at, one.has_ended = one.device, None, None, True
        if device is not None:
            self._count_last(one, device)
