"""The launcher of processes: a link to the parent, and what either end does with it.

Parent and child talk over a socketpair. The child says "begun", then "ready" when it relays and
"end" when it has ended, and in between replies to what the parent asks, which is what
`Device._perform` takes. "settled" says that a relay has come to a subclass's sockets, and "log" has
something for the parent's log.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import itertools
import logging
import multiprocessing
import os
import pickle
import re
import signal
import socket
import sys
import threading
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any

import zmq
import zmq.devices

from zdev._relay import LOOK

from .base import Device, OverError, Run
from .latch import Latch
from .launchers import PATIENCE, BackgroundDevice, _of_parents
from .plan import held_ports

__all__ = ["ProcessDevice"]

# Which thread forks to hand the end of a link over. All other forks close what they inherit: while
# they held an end, the other one would not be told when its process is gone.
_ends: dict[Connection, int] = {}

_launching = threading.RLock()
"""Held while both ends of a link are here, lest the next process inherits them."""


_UNGUARDED = (
    " as it imported what it needs; if the main script starts the device, it must do so under "
    'if __name__ == "__main__":'
)
"""What is most likely to have kept a process from the device's own code, which tells its errors."""


def _after_fork() -> None:
    global _launching  # noqa: PLW0603 - its owner is not here
    _launching = threading.RLock()
    for end, thread in list(_ends.items()):
        if thread != threading.get_ident():
            del _ends[end]
            end.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Reply(Latch):
    """What the child replies: whether it did as asked, and the result or the error."""

    outcome: tuple[bool, Any] | None = None  # None: it has ended


class Link:
    """The parent's end: asks, and tells the replies apart by their numbers."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._replies: dict[int, Reply] = {}
        self._numbers = itertools.count()
        self._sending = threading.RLock()

    def ask(self, verb: str, args: tuple[Any, ...]) -> Reply:
        """Ask for something; the reply comes in time, or the link's end."""
        number = next(self._numbers)
        reply = self._replies[number] = Reply()
        try:
            with self._sending:
                self.connection.send((number, verb, args))
        except OSError:
            reply.set()
        except BaseException:
            del self._replies[number]
            raise
        return reply

    def take(self, number: int, outcome: tuple[bool, Any]) -> None:
        """Take a reply."""
        reply = self._replies.pop(number)
        reply.outcome = outcome
        reply.set()

    def close(self) -> None:
        """Close it; there will be no more replies."""
        _ends.pop(self.connection, None)
        with self._sending:
            self.connection.close()
        for reply in list(self._replies.values()):
            reply.set()


class ProcessDevice(BackgroundDevice, zmq.devices.ProcessDevice):
    """A `Device` that runs in a process of its own, with a context of its own.

    It ends on SIGTERM and SIGINT, and when its parent ends, however that happens. The exit code of
    ``launcher`` is 0 unless it failed.

    A forked process lets go of what the parent's libzmq listens on. It keeps the other listening
    sockets of the parent, such as one for ``ZMQ_USE_FD``; where libzmq's cannot be told apart,
    which they can on Linux, those only whose descriptors are set by that option before the start.
    """

    _launch_class = multiprocessing.Process
    context_factory = zmq.Context

    def _never_started(self) -> None:
        super()._never_started()
        self._link: Link | None = None

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        state.pop("launcher", None)
        return state

    # The parent's end

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
        self._begin()
        run = self._run
        run.is_awaited = True
        link: Link | None = None

        def undo() -> None:
            self._link = None
            if link is not None:
                link.close()
            with contextlib.suppress(AttributeError):  # it has not come to be launched
                self.launcher.kill()
                _bury(self.launcher)
            self._release_held()
            self._finish()

        try:
            link = self._launch_process()
            with self._lock:
                self._link = link
                for drain in run.stops:
                    link.ask("stop", (drain,))
            heard = (run, link, self.launcher)
            run.worker = threading.Thread(target=self._listen, args=heard, name=self.name)
            run.worker.daemon = True
            run.worker.start()
        except BaseException as error:
            self._give_up(error, undo)
            raise
        run.thread = -1  # none of this process
        self._await_ready(run)
        self._release_held()  # the child has its own

    def _launch_process(self) -> Link:
        with _launching:
            ours, theirs = multiprocessing.Pipe()
            _ends[ours], _ends[theirs] = -1, threading.get_ident()
            try:
                self._make_launcher(functools.partial(_child, self, theirs, os.getpid()))
                self.launcher.start()
            except BaseException:
                del _ends[ours]
                ours.close()
                raise
            finally:
                del _ends[theirs]
                theirs.close()
        return Link(ours)

    def _listen(self, run: Run, link: Link, launcher: Any) -> None:
        """Take in what the child says, until it has ended. Runs in a thread of the parent."""
        if not run.claim.acquire(blocking=False):
            return
        began = told = False
        error: BaseException | None = None
        try:
            while not told:
                ready = wait([link.connection, launcher.sentinel])
                if link.connection not in ready and not link.connection.poll():
                    break
                tag, *rest = link.connection.recv()
                began = True
                if tag == "end":
                    told = True
                    error, self._last = _from_child(rest[0]), rest[1]
                elif tag == "ready":
                    run.bound = rest[0]
                    if rest[1]:
                        run.settled.set()
                    self._say_ready()
                elif tag == "settled":
                    run.settled.set()
                elif tag == "log":
                    run.log(*rest)
                elif tag == "reply":
                    number, outcome, run.bound = rest
                    done, value = outcome
                    link.take(number, (done, value if done else _from_child(value)))
        except (EOFError, OSError):
            pass
        finally:
            if not told:
                launcher.join(PATIENCE)
                launcher.kill()
            _bury(launcher)
            if not told:
                died = f"the process of {self.name} died with exit code {launcher.exitcode}"
                run.lost_counts = run.ready.is_set()
                if launcher.exitcode == 1 and not began:
                    died += _UNGUARDED
                error = RuntimeError(died)
            if error is not None:
                self._fail(error)
            with self._lock:
                self._link = None
            link.close()
            self._release_held()
            self._finish()

    def _ask(self, verb: str, *args: Any) -> Any:
        """Have the child do something; its error is raised here."""
        run = self._run
        if run.has_process:  # we are the child, and a subclass asks
            return super()._ask(verb, *args)
        if verb != "stop":
            run.ready.wait()
        with self._lock:
            run, link = self._run, self._link
            if link is None and verb == "stop":
                run.stops.append(*args)
        reply = Reply() if link is None else link.ask(verb, args)
        if verb == "stop":
            return run
        if link is not None:
            reply.wait()
        if reply.outcome is None:
            raise OverError(f"{self.name} has ended; start it again first")
        done, value = reply.outcome
        if not done:
            raise value
        return value

    def stop(self, drain: float | None = None, timeout: float | None = None) -> None:
        try:
            super().stop(drain, timeout)
        except TimeoutError:
            with _launching, contextlib.suppress(AttributeError):  # as above
                self.launcher.kill()
            self._await_end(PATIENCE, self._run)
            raise

    stop.__doc__ = (Device.stop.__doc__ or "").replace(
        "If it has not ended by then.", "If it has not ended by then; its process is killed."
    )


def _bury(launcher: Any) -> None:
    """Wait for the end of a process, and close the descriptor that tells of it."""
    launcher.join()
    with contextlib.suppress(AttributeError):
        launcher._popen.close()


def _to_parent(error: BaseException | None) -> tuple[bytes | None, str] | None:
    """Prepare an error for the way to another process, which some cannot take."""
    if error is None:
        return None
    likeness = f"{type(error).__name__}: {error}"
    try:
        pickled = pickle.dumps(error)
        pickle.loads(pickled)  # noqa: S301 - our own
    except Exception:
        return None, likeness
    return pickled, likeness


def _from_child(sent: tuple[bytes | None, str] | None) -> BaseException | None:
    """Return the error, or its likeness if it cannot be had here."""
    if sent is None:
        return None
    pickled, likeness = sent
    if pickled is not None:
        with contextlib.suppress(Exception):
            error: BaseException = pickle.loads(pickled)  # noqa: S301 - from our own child
            return error
    return RuntimeError(likeness)


# The child's end


class Stopped(BaseException):
    """Ends what a subclass runs instead of one of zdev's relays."""


# The signals that end a device
ENDING = {signal.SIGTERM, signal.SIGINT}


class Ending:
    """Ends the device when a signal comes, or the parent says so."""

    def __init__(self, device: ProcessDevice) -> None:
        self._device = device
        self._interrupted = False
        self.signals, self._noted = socket.socketpair()
        self.signals.setblocking(False)
        self._noted.setblocking(False)
        # Where the parent's event loop would hear of our signals
        signal.set_wakeup_fd(-1)
        for number in ENDING:
            signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._device._perform("stop", None)
        if self._goes_its_own_way() and not self._interrupted:
            self._interrupted = True
            raise Stopped

    def _goes_its_own_way(self) -> bool:
        """Tell whether a subclass runs something that a relay's stop cannot end."""
        run = self._device._run
        return run.ready.is_set() and not run.makes_relay and not run.has_relay.is_set()

    def heed_signals(self) -> None:
        """Be told of signals at once where they might meet no Python for a long time."""
        if self._goes_its_own_way() and threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(self._noted.fileno(), warn_on_full_buffer=False)

    def was_signalled(self) -> bool:
        """Tell whether it was a signal that should end the device."""
        return not ENDING.isdisjoint(self.signals.recv(4096))

    def insist(self) -> None:
        """Interrupt what a subclass runs, until it notices: it may just be about to wait."""
        main = threading.main_thread().ident
        while self._goes_its_own_way() and not self._interrupted and main is not None:
            signal.pthread_kill(main, signal.SIGTERM)
            self._device._run.ended.wait(LOOK)


def _child(device: ProcessDevice, link: Connection, parent: int) -> None:
    """Run a device in its own process."""
    _tell(link, "begun")
    is_fork = _ends.pop(link, None) is not None
    if is_fork:
        sockopts = itertools.chain(*(plan.sockopts for plan in device._plans.values()))
        given = [value for option, value in sockopts if option == zmq.USE_FD]
        held = [held.fileno() for held in device._held.values()]
        _forget_listeners({link.fileno(), *held, *given})
    device._never_started()
    device.launcher = multiprocessing.current_process()
    device._begin()
    run = device._run
    run.has_process = True
    if is_fork and not isinstance(device.context_factory, type):
        # pyzmq does not tell which process has made a context.
        contexts = (thing for thing in gc.get_objects() if issubclass(type(thing), zmq.Context))
        run.of_parent.update(contexts)

    def log(level: int, *message: Any) -> None:
        """Leave it to the parent, whose log is set up, and who knows all but this."""
        if level == logging.WARNING:
            _tell(link, "log", level, *message)

    run.log = log
    ending = Ending(device)

    def on_ready() -> None:
        ending.heed_signals()
        _tell(link, "ready", run.bound, run.settled.is_set())

    run.on_ready = on_ready
    run.on_settled = lambda: _tell(link, "settled")
    threading.Thread(
        target=_obey, args=(device, ending, link, parent), name="zdev-parent", daemon=True
    ).start()
    with contextlib.suppress(BaseException):  # it is in device.exception
        device._launch()
    error = None if isinstance(device.exception, Stopped) else device.exception
    _tell(link, "end", _to_parent(error), device._last)
    sys.exit(0 if error is None else 1)


def _forget_listeners(kept: set[int]) -> None:
    """Let the parent's listening sockets go, lest their ports stay taken when it closes them.

    These are libzmq's, and the ports that devices hold. On what else the parent listens, the child
    has too, as after any fork. Where libzmq's cannot be told apart, as they can on Linux, all go
    but those given to the device by ZMQ_USE_FD.

    A null device takes their places: descriptors do not change their meaning under their owners.
    """
    with contextlib.suppress(OSError):
        default, null = socket.getdefaulttimeout(), os.open(os.devnull, os.O_RDWR)
        try:
            inherited = {int(name) for name in os.listdir("/dev/fd")}
            polled, bound = _polled_by_libzmq(inherited), _bound_by_parent()
            held = {held.fileno() for held in held_ports}
            for fd in inherited - kept:
                with contextlib.suppress(OSError):
                    name = _listens_at(fd)
                    if name is None:
                        continue
                    if polled is None or fd in polled or fd in held or name in bound:
                        os.dup2(null, fd)
        finally:
            socket.setdefaulttimeout(default)
            os.close(null)


def _listens_at(fd: int) -> int | str | None:
    """Return the port or the path at which a socket listens, if it is one and does."""
    # To look at a socket must not change it, since the parent has it too. A new object makes it
    # block or not as the default is; on PyPy always, on CPython if there is a timeout.
    socket.setdefaulttimeout(None if os.get_blocking(fd) else 0.0)
    looked_at = socket.socket(fileno=fd)
    try:
        if not looked_at.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return None
        name = looked_at.getsockname()
    finally:
        looked_at.detach()
    return int(name[1]) if isinstance(name, tuple) else os.fsdecode(name).replace("\0", "@", 1)


def _bound_by_parent() -> set[int | str]:
    """Return the ports and paths of the devices that ran; libzmq may not have polled them yet."""
    names: set[int | str] = set()
    for run, *_ in _of_parents:
        for address in itertools.chain(*run.endpoints().values()):
            if address.startswith("tcp:"):
                names.add(int(address.rpartition(":")[2]))
            elif address.startswith("ipc://"):
                names.add(address[len("ipc://") :])
    return names


_POLLED = re.compile(r"^tfd: *(\d+) .*? data: *([0-9a-f]+)(?:.* ino:([0-9a-f]+))?", re.MULTILINE)


def _polled_by_libzmq(inherited: set[int]) -> set[int] | None:
    """Return the descriptors that the parent's libzmq polls; None where that is not to be learnt.

    With a descriptor libzmq registers a pointer at epoll_ctl(2), others the descriptor itself.
    """
    if not os.path.isdir("/proc/self/fdinfo"):
        return None
    polls, polled = [], set()
    for fd in inherited:
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{fd}") == "anon_inode:[eventpoll]":
                with open(f"/proc/self/fdinfo/{fd}") as info:
                    polls.append(_POLLED.findall(info.read()))
    for target, data, inode in itertools.chain(*polls):
        with contextlib.suppress(OSError):
            same = not inode or os.fstat(int(target)).st_ino == int(inode, 16)
            if same and int(data, 16) & 0xFFFFFFFF != int(target):
                polled.add(int(target))
    return polled if any(polls) or not polls else None


def _tell(link: Connection, *message: Any) -> None:
    """Tell the parent, which may be gone."""
    with contextlib.suppress(OSError, ValueError):
        link.send(message)


def _obey(device: ProcessDevice, ending: Ending, link: Connection, parent: int) -> None:
    """Do what the parent asks, until it ends; then end too. Runs in a thread of the child."""
    ends: list[Any] = [link, ending.signals]
    # Where a process can be waited for, its end is seen even if another process holds our link.
    with contextlib.suppress(AttributeError, OSError):
        ends.append(os.pidfd_open(parent))
    while True:
        ready = wait(ends)
        if ending.signals in ready:
            if ending.was_signalled():
                ending.insist()
            continue
        if link not in ready:
            break
        try:
            number, verb, args = link.recv()
        except (EOFError, OSError):
            break
        try:
            outcome = True, device._perform(verb, *args)
        except Exception as error:
            outcome = False, _to_parent(error)
        _tell(link, "reply", number, outcome, device._run.bound)
        if verb == "stop":
            ending.insist()
    with contextlib.suppress(Exception):
        device._perform("stop", None)
    # Nothing may hold an orphan up: neither what a subclass runs nor what is still to be sent.
    threading.Event().wait(PATIENCE / 4)
    os._exit(1)
