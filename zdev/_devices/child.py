"""A process device in its own process: it runs the device, and obeys the parent."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import zmq

from zdev import _tasks
from zdev._seed import seed
from zdev._threads import Thread, await_readable, sleep
from zdev._times import SHORT_PATIENCE

from . import fork
from .launchers import BackgroundDevice
from .link import Sent, has_inherited, tell, to_parent
from .ports import HeldPorts
from .run import Run
from .signals import Interrupter, Stopped, Unheeded
from .stages import Stage

__all__ = ["Inheritance", "live"]


@dataclass
class Inheritance:
    """What a child is given to know of its parent."""

    process: int
    unheeded: Unheeded
    held: HeldPorts
    """The ports that the parent holds for this device."""
    addresses: Iterable[str] = ()
    """Where the devices of the parent are bound."""
    all_held: set[int] = field(default_factory=set)
    """Descriptors of the ports that they hold."""


def live(device: BackgroundDevice, link: Connection, inheritance: Inheritance) -> None:
    """Run a device in its own process, and leave the process."""
    _tasks.leave_tasks()
    # From here on the parent knows that the process has come to our code.
    tell(link, "stage", Stage.BEGUN, {}, None)
    is_fork = has_inherited(link)
    if is_fork:
        _leave_behind(device, link, inheritance)
    seed()
    device._forget_run()
    device._held = inheritance.held
    device.launcher = multiprocessing.current_process()

    # Called by `run.execute`, when `run` and `interrupter` are there.
    def on_stage(stage: Stage) -> None:
        # A run that is only ready does not relay with zdev, or not yet.
        if stage == Stage.READY:
            interrupter.heed_signals()
        if stage < Stage.ENDED:  # which the parent is told with the outcome
            tell(link, "stage", stage, run.wiring.snapshot(), _error(run))

    run = device._begin_here(has_process=True, on_stage=on_stage)
    run.log = lambda level, *words: _log(link, level, *words)
    run.on_note = lambda what, value: tell(link, "note", what, value)
    if is_fork and not isinstance(device.context_factory, type):
        run.inherited.update(fork.inherited_contexts())
    interrupter = Interrupter(run, inheritance.unheeded)
    Thread(
        target=_obey,
        args=(run, interrupter, link, inheritance.process),
        name="zdev-parent",
        daemon=True,
    ).start()
    with contextlib.suppress(BaseException):  # it is in run.exception
        run.execute()
    error = _error(run)
    tell(link, "end", error, run.counts, run.last_stop)
    sys.exit(0 if error is None else 1)


def _error(run: Run) -> Sent | None:
    """Return what ended a run, if it was an error, for the parent."""
    return None if isinstance(run.exception, (Stopped, type(None))) else to_parent(run.exception)


def _leave_behind(device: BackgroundDevice, link: Connection, inheritance: Inheritance) -> None:
    """Let go of what the parent listens on, but for what is meant for this device."""
    sockopts = [pair for plan in device._plans.values() for pair in plan.sockopts]
    given = {value for option, value in sockopts if option == zmq.USE_FD}
    held = {held.fileno() for held in inheritance.held.values()}
    fork.let_go(inheritance.addresses, inheritance.all_held, {link.fileno()} | held | given)


def _log(link: Connection, level: int, *words: Any) -> None:
    """Leave it to the parent, whose log is set up, and who knows all but warnings."""
    if level == logging.WARNING:
        tell(link, "log", level, *words)


def _do(run: Run, verb: str, args: tuple[Any, ...]) -> Any:
    if verb == "stop":
        run.stop(*args)
        return None
    result = run.ask(verb, *args)
    if verb == "call":  # what it returns may be anything
        try:
            pickle.dumps(result)
        except Exception as error:
            raise TypeError(
                f"what the function returned cannot come from the device's process: {error}"
            ) from None
    return result


def _obey(run: Run, interrupter: Interrupter, link: Connection, parent: int) -> None:
    """Do what the parent asks, until it ends; then end too. Runs in a thread of the child."""
    ends: list[Any] = [link, interrupter.signals]
    # Where a process can be waited for, its end is seen even if another process holds our link.
    with contextlib.suppress(AttributeError, OSError):
        ends.append(os.pidfd_open(parent))
    grace: float | None = run.grace
    while True:
        ready = await_readable(ends, grace)
        if not ready:
            run.end_grace()
            grace = None
            continue
        if interrupter.signals in ready:
            if interrupter.was_signalled():
                interrupter.insist()
            continue
        if link not in ready:
            break
        try:
            number, verb, args = link.recv()
        except (EOFError, OSError):
            break
        try:
            outcome = True, _do(run, verb, args)
        except BaseException as error:  # of a call, it may be any
            outcome = False, to_parent(error)
        tell(link, "reply", number, outcome, run.wiring.snapshot())
        if verb == "stop":
            interrupter.insist()
    with contextlib.suppress(Exception):
        run.stop(None)
    # Nothing may hold an orphan up: neither what a subclass runs nor what is still to be sent.
    sleep(SHORT_PATIENCE)
    os._exit(1)
