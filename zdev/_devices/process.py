"""Devices in processes of their own: the parent's end."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import time
from multiprocessing.connection import Connection
from typing import Any, Callable

import zmq
import zmq.devices

from zdev import _tasks
from zdev._contract import NOTHING, Statistics
from zdev._signals import DeferredSignals
from zdev._stops import StopReport
from zdev._threads import Thread, await_readable, sleep
from zdev._times import DRAIN_QUIET, GRACE, PATIENCE, REAPED_LOOK

from . import link as links  # whose locks are made anew after a fork, so they are looked up there
from . import running, wiring
from .child import Inheritance, live
from .device import Device
from .explained import explained
from .launchers import BackgroundDevice
from .link import Link, Reply, Sent, from_child, hand_over
from .pickles import PROBLEMS, explain
from .ports import held_descriptors
from .progress import Progress
from .signals import held_back
from .stages import Stage

__all__ = ["ProcessDevice", "RemoteRun"]

_UNGUARDED = (
    " as it imported what it needs; if the main script starts the device, it must do so under "
    'if __name__ == "__main__":'
)
"""What is most likely to have kept a process from the device's own code, which tells its errors."""

UNKNOWN = 255
"""The exit code of a process for which something else has waited; `multiprocessing` has it so."""


class RemoteRun(Progress):
    """The parent's view of a run in a process of its own, which says what it does over a link."""

    def __init__(self, *progress: Any, **others: Any) -> None:
        super().__init__(*progress, **others)
        self._bound: dict[str, list[tuple[str, str]]] = {}
        self._link: Link | None = None
        self._launcher: Any = None
        self._stops: list[tuple[float | None, float | None]] = []  # before there was a link
        self._has_begun = False
        self._may_have_relayed = False
        self._was_told = False  # the outcome
        self._code_is_lost = False  # to something else that has waited for the process

    def attach(self, link: Link, launcher: Any) -> None:
        """Listen to the process from now on, in a thread."""
        with self._lock:
            self._link, self._launcher = link, launcher
            for stop in self._stops:
                link.ask("stop", stop)
        self.worker = Thread(target=self._listen, args=(link,), name=self.name)
        self.worker.daemon = True
        self.worker.start()
        self.claim()

    def launched(self, launcher: Any) -> None:
        """Know the process, which may not come to be listened to."""
        self._launcher = launcher

    # What it may be asked

    def endpoints(self) -> dict[str, list[str]]:
        """Return where each socket is really bound, by role."""
        return {role: [real for _, real in pairs] for role, pairs in self._bound.items()}

    def forget_endpoints(self) -> None:
        """Be bound nowhere, as a run that has failed to start."""
        self._bound = {}

    def asked_as(self, role: str, addr: Any) -> str:
        """Return the address by which a bind was asked for, which may have been a wildcard."""
        pairs = self._bound.get(role, ())
        return next((asked for asked, real in pairs if addr in (asked, real)), addr)

    def stop(self, drain: float | None, quiet: float | None = None) -> None:
        """Have it end, now or when it has drained; does not wait."""
        with self._lock:
            link = self._link
            if link is None:
                self._stops.append((drain, quiet))
        if link is not None:
            link.ask("stop", (drain, quiet))

    def ask(self, verb: str, *args: Any) -> Any:
        """Have it do something while it relays: pause, resume, statistics, call or wire."""
        self.stages.wait(Stage.READY)
        with self._lock:
            link = self._link
        if link is None:
            raise self.over()
        reply = link.ask(verb, args)
        reply.wait(Reply.THERE)
        if reply.outcome is None:
            raise self.over()
        done, value = reply.outcome
        if not done:
            raise value
        return value

    def final_counts(self) -> Statistics:
        """Return what it has counted, once it has ended."""
        if self.counts is None and not self._was_told:
            if not self._may_have_relayed:
                return NOTHING
            raise RuntimeError(f"{self.name} has ended, and its counts died with its process")
        return super().final_counts()

    def kill(self) -> None:
        """End the process, whatever it is doing."""
        # Wait for its launch, which may be under way; but not for long, since the lock is also held
        # for the launches of other devices. The process may never have come to be launched. A
        # handler that raises in between would keep the lock.
        with DeferredSignals():
            is_ours = links.handing_over.acquire(timeout=PATIENCE)
            try:
                with contextlib.suppress(AttributeError):
                    self._launcher.kill()
            finally:
                if is_ours:
                    links.handing_over.release()

    # What it says

    def _listen(self, link: Link) -> None:
        """Take in what the child says, until it has ended. Runs in a thread of the parent."""
        hear: dict[str, Callable[..., None]] = {
            "stage": self._hear_stage,
            "reply": self._hear_reply,
            "log": self.log,
            "note": self.note,
            "end": self._hear_end,
        }
        try:
            link.open()
            while not self._was_told:
                ready = await_readable([link.connection, self._launcher.sentinel])
                if link.connection not in ready and not await_readable([link.connection], 0):
                    break
                tag, *rest = link.connection.recv()
                self._has_begun = True
                hear[tag](*rest)
        except (EOFError, OSError):
            pass
        except BaseException as error:
            self.fail(error)
        finally:
            with contextlib.suppress(BaseException):  # it is in self.exception
                self.end()

    def _hear_stage(self, stage: Stage, bound: Any, error: Sent | None) -> None:
        self._bound = bound
        self._may_have_relayed |= Stage.READY <= stage < Stage.ENDING
        if error is not None:  # first, for a start that waits for the stage
            self.fail(from_child(error))
        self.reach(stage)

    def _hear_reply(self, number: int, outcome: tuple[bool, Any], bound: Any) -> None:
        self._bound = bound
        done, value = outcome
        if self._link is not None:
            self._link.take(number, (done, value if done else from_child(value)))

    def _hear_end(
        self, error: Sent | None, counts: Statistics | None, last_stop: StopReport | None
    ) -> None:
        self._was_told = True
        self.counts, self.last_stop = counts, last_stop
        if error is not None:
            self.fail(from_child(error))

    # The end

    STEPS = ("_end_process", "_bury", "_tell_of_death", "_close_link", "_release_ports")

    def _end_process(self) -> None:
        """Wait for the end of a process that has said nothing of it, but not for ever."""
        if not self._was_told and self._link is not None:
            await_readable([self._launcher.sentinel], PATIENCE)
        if not self._was_told:
            self.kill()

    def _bury(self) -> None:
        """Wait for the end of the process, and close the descriptor that tells of it."""
        if getattr(self._launcher, "_popen", None) is not None:
            code = int(self.exception is not None) if self._was_told else UNKNOWN
            self._code_is_lost = not _reap(self._launcher, code)
            self._launcher._popen.close()

    def _tell_of_death(self) -> None:
        """If the process has not told what ended it, that is the error."""
        if not self._was_told and self._link is not None:
            code = self._launcher.exitcode
            died = f"the process of {self.name} died with exit code {code}"
            if self._code_is_lost:
                died = f"the process of {self.name} died, and something else has its exit code"
            if code == 1 and not self._has_begun:
                died += _UNGUARDED
            self.fail(RuntimeError(died))

    def _close_link(self) -> None:
        with self._lock:
            link, self._link = self._link, None
        if link is not None:
            link.close()


def _reap(launcher: Any, otherwise: int) -> bool:
    """Wait for the end of a process, and tell whether its exit code is known.

    A child of ours is not waited for by `join`, which uses os.waitpid: gevent's waits for the event
    loop of the main thread, which may itself be waiting for the end of the device. It leaves
    waitid(2) as it is. `test_the_end_of_a_process_is_seen` has such programs.

    Parameters
    ----------
    otherwise : int
        What the code is taken for where something else has waited for the process, and kept it.
    """
    if launcher._popen.method == "forkserver" or not hasattr(os, "waitid"):
        launcher.join()
        return True
    popen, deadline = launcher._popen, time.monotonic() + GRACE
    try:
        ended = os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOWAIT)
        if ended is not None:
            is_exit = ended.si_code == os.CLD_EXITED
            popen.returncode = ended.si_status if is_exit else -ended.si_status
        # Left to an event loop that watches for it: a task may wait for it by that.
        while _tasks.watches_child(popen.pid) and time.monotonic() < deadline:
            sleep(REAPED_LOOK)
        os.waitid(os.P_PID, popen.pid, os.WEXITED)
    except ChildProcessError:
        # Somebody else was first, such as that event loop, and may be about to tell.
        while popen.poll() is None and time.monotonic() < deadline:
            sleep(REAPED_LOOK)
    is_known = popen.returncode is not None
    if not is_known:
        popen.returncode = otherwise
    launcher.join(0)  # `multiprocessing` need not look after it any more
    return is_known


@explained
class ProcessDevice(BackgroundDevice, zmq.devices.ProcessDevice):
    """A `Device` that runs in a process of its own, with a context of its own.

    Notes
    -----
    It ends on SIGTERM and SIGINT, unless the program ignores or blocks them when it starts it; and
    when its parent ends, however that happens. The exit code of ``launcher`` is 0 unless it failed.

    A forked process lets go of the ports and paths at which the parent's devices are bound, and of
    those that they hold. It keeps the other listening sockets of the parent, as any fork does: a
    port of a socket that you have made yourself stays taken as long as the process lives.
    """

    _launch_class = multiprocessing.Process
    _has_own_context = True
    context_factory = zmq.Context

    def start(self) -> None:
        """Start the process, and return when the device relays.

        Raises
        ------
        zmq.ZMQError, ValueError, TypeError
            What went wrong; then there is no process. `zdev.BindError` if an address was not to be
            had.
        RuntimeError
            If the device is running already.
        """
        run = self._launch(functools.partial(self._begin, RemoteRun), self._launch_process)
        run.held.release()  # the child has its own

    def _launch_process(self, run: RemoteRun) -> None:
        def launch(end: Connection) -> None:
            with held_back(self._launch_class) as unheeded:
                inheritance = Inheritance(
                    os.getpid(), unheeded, run.held, running.addresses(), held_descriptors()
                )
                self._make_launcher(functools.partial(live, self, end, inheritance))
                run.launched(self.launcher)
                try:
                    with _tasks.unwatched_forks():
                        self.launcher.start()
                except PROBLEMS as error:
                    explain(self, error)
                    raise

        # A handler that raises within a fork would leave a process that nobody knows, and locks
        # that Python takes for it: `test_ctrl_c_at_any_moment`.
        with DeferredSignals():
            with wiring.bind_lock:  # so that the child knows of what it inherits
                link = hand_over(launch)
            run.attach(link, self.launcher)

    def stop(
        self,
        drain: float | None = None,
        timeout: float | None = None,
        *,
        quiet: float | None = DRAIN_QUIET,
    ) -> StopReport | None:
        run = self._run
        try:
            return super().stop(drain, timeout, quiet=quiet)
        except TimeoutError:
            if isinstance(run, RemoteRun):
                run.kill()
                run.wait(PATIENCE, PATIENCE)
            raise

    stop.__doc__ = (Device.stop.__doc__ or "").replace(
        "If it has not ended by then.", "If it has not ended by then; its process is killed."
    )
