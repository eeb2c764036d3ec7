"""The launcher of processes: a link to the parent, and what either end does with it.

Parent and child talk over a socketpair. The child says "ready" when it relays and "end" when it has
ended, and in between replies to what the parent asks, which is what `Device._perform` takes.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any, Callable

import zmq
import zmq.devices

from .base import Device
from .launchers import PATIENCE, BackgroundDevice, running

__all__ = ["ProcessDevice"]

_parent_ends: set[Connection] = set()
"""What a forked child must close: while it held one, its sibling would not see our end."""


class ProcessDevice(BackgroundDevice, zmq.devices.ProcessDevice):
    """A `Device` that runs in a process of its own, with a context of its own.

    It ends on SIGTERM and SIGINT, and when its parent ends, however that happens. The exit code of
    ``launcher`` is 0 unless it failed.
    """

    _launch_class = multiprocessing.Process
    context_factory = zmq.Context

    def _never_started(self) -> None:
        super()._never_started()
        self._link: Connection | None = None
        self._ready = False
        # Whoever waits for the child reads what it says; the others wait for the reader.
        self._heard = threading.Condition(self._lock)
        self._reader: int | None = None
        self._asking = threading.RLock()
        self._reply: tuple[bool, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        for key in ("_link", "_ready", "_heard", "_reader", "_asking", "_reply", "launcher"):
            state.pop(key, None)
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
        self._notice()
        self._begin()
        self._run.thread = -1  # none of this process
        self._ready = False
        self._link, other = multiprocessing.Pipe()
        _parent_ends.add(self._link)
        running.add(self)
        try:
            self.launcher = self._launch_class(
                target=functools.partial(_child, self, other, os.getpid())
            )
            self.launcher.name = self.name
            self.launcher.daemon = self.daemon
            self.launcher.start()
        except BaseException:
            self._process_ended(None, None)
            raise
        finally:
            other.close()
        try:
            self._wait_for(lambda: self._ready)
        except BaseException:  # Ctrl-C
            self.stop()
            raise
        self._release_held()  # the child has its own
        if self.exception is not None:
            raise self.exception

    def _wait_for(self, satisfied: Callable[[], bool], timeout: float | None = None) -> bool:
        """Hear the child until this holds or the device has ended; False if time ran out."""
        deadline = None if timeout is None else time.monotonic() + timeout
        me = threading.get_ident()
        with self._heard:
            while self._running and not satisfied():
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left < 0:
                    return False
                before = self._reader
                if before not in (None, me):
                    self._heard.wait(left)
                    continue
                assert self._link is not None  # noqa: S101 - the device is running
                self._reader = me
                self._heard.release()
                try:
                    wait([self._link], left)
                finally:
                    self._heard.acquire()
                    self._reader = before
                    self._heard.notify_all()
                self._hear(0)
        return True

    def _hear(self, timeout: float | None) -> None:
        """Take in what the child has said."""
        with self._heard:
            while self._running and self._link is not None:
                try:
                    if not self._link.poll(timeout):
                        return
                    tag, *rest = self._link.recv()
                except (EOFError, OSError):
                    self.launcher.join()
                    died = f"the process of {self.name} died with exit code "
                    self._process_ended(RuntimeError(f"{died}{self.launcher.exitcode}"), None)
                    return
                if tag == "end":
                    self.launcher.join()
                    self._process_ended(*rest)
                elif tag == "ready":
                    self._run.bound, self._ready = rest[0], True
                else:
                    *self._reply, self._run.bound = rest

    def _process_ended(self, error: BaseException | None, last: Any) -> None:
        assert self._link is not None  # noqa: S101 - it was started
        _parent_ends.discard(self._link)
        self._link.close()
        self._link = None
        self._end()
        self.exception, self._last = error, last
        running.discard(self)

    def _ask(self, verb: str, *args: Any) -> Any:
        """Have the child do something; its error is raised here."""
        with self._asking:
            self._reply = None
            self._wait_for(lambda: self._ready)
            if self._link is not None:
                with contextlib.suppress(OSError):  # it has ended; that will be heard
                    self._link.send((verb, *args))
                self._wait_for(lambda: self._reply is not None)
            if self._reply is None:
                if verb == "stop":
                    return None
                raise RuntimeError(f"{self.name} has ended; start it again first")
            done, value = self._reply
            if not done:
                raise value
            return value

    def _await_end(self, timeout: float | None) -> bool:
        return self._wait_for(lambda: False, timeout)

    def stop(self, drain: float | None = None, timeout: float | None = None) -> None:
        try:
            super().stop(drain, timeout)
        except TimeoutError:
            self.launcher.kill()
            self._await_end(None)
            raise

    stop.__doc__ = (Device.stop.__doc__ or "").replace(
        "If it has not ended by then.", "If it has not ended by then; its process is killed."
    )

    def _notice(self) -> None:
        self._hear(0)

    @property
    def done(self) -> bool:
        """Whether the device has ended."""
        self._notice()
        return self._done

    @done.setter
    def done(self, done: bool) -> None:
        self._done = done

    @property
    def exception(self) -> BaseException | None:
        """What ended the device, if it was an error."""
        self._notice()
        return self._exception

    @exception.setter
    def exception(self, exception: BaseException | None) -> None:
        self._exception = exception


# The child's end


def _child(device: ProcessDevice, link: Connection, parent: int) -> None:
    """Run a device in its own process."""
    for inherited in _parent_ends:
        inherited.close()
    _parent_ends.clear()
    running.clear()
    device._never_started()
    device._begin()

    def stop(_number: int, _frame: FrameType | None) -> None:
        device._perform("stop", None)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    device._run.on_ready = lambda: _tell(link, "ready", device._run.bound)
    obey = threading.Thread(target=_obey, args=(device, link, parent), name="zdev-parent")
    obey.daemon = True
    obey.start()
    try:
        device._launch()
    except BaseException as error:  # the parent raises it
        device.exception = error
    finally:
        if device._context is not None and not device._context.closed:
            # Give what is on its way to the peers a moment, but no more.
            device._context.destroy(linger=int(PATIENCE * 500))
        _tell(link, "end", _portable(device.exception), device._last)
    sys.exit(0 if device.exception is None else 1)


def _tell(link: Connection, *message: Any) -> None:
    """Tell the parent, which may be gone."""
    with contextlib.suppress(OSError, ValueError):
        link.send(message)


def _portable(error: BaseException | None) -> BaseException | None:
    """Return the error, or its likeness if it cannot be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _obey(device: ProcessDevice, link: Connection, parent: int) -> None:
    """Do what the parent asks, until it ends; then end too. Runs in a thread of the child."""
    ends: list[Any] = [link]
    # Where a process can be waited for, its end is seen even if another process holds our link.
    with contextlib.suppress(AttributeError, OSError):
        ends.append(os.pidfd_open(parent))
    look_after = None if len(ends) > 1 else PATIENCE / 4
    while True:
        ready = wait(ends, look_after)
        if link in ready:
            try:
                verb, *args = link.recv()
            except (EOFError, OSError):
                break
            try:
                reply = (True, device._perform(verb, *args))
            except Exception as error:
                reply = (False, _portable(error))
            _tell(link, "reply", *reply, device._run.bound)
        elif ready or not _alive(parent):
            break
    with contextlib.suppress(Exception):
        device._perform("stop", None)
    # What a subclass runs may not notice; but an orphan must not live.
    if not device._ended.wait(PATIENCE / 4):
        os._exit(1)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True
