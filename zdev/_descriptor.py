"""One descriptor, and one time, that tell an event loop of the user's when a relay wants a step.

An event loop that watches the ``ZMQ_FD`` of each socket itself meets these traps:

- A ``ZMQ_FD`` is readable only until the socket's commands are processed, which whatever uses the
  socket does: a step that ends while there is more may have taken the sign of that. So when a step
  has moved something, it looks whether more can move, and writes to the wake-up descriptor then.
  The same is done where others have used the sockets, or may have: behind a `call`, a run, a step
  that raised.
- Nothing becomes readable when what holds a message back has no sign: another thread resumes the
  relay or stops it, a destination has room whose descriptor does not tell (see ``doubtful`` in
  `zdev._engines.direction`), a warning is due. The first writes to the wake-up descriptor, too; for
  the others there is a time, with a timer.
- A descriptor stays readable whose commands nobody processes. That of a capture socket that has
  failed, and does not matter, is watched no more.

The descriptors in the set are watched for what they are, not for what they become: a set is
readable as long as one of them is. So it does not matter who looks at it, nor how often.

In tests/relay/test_own_loop.py, test_nothing_is_lost_and_nothing_spins drives relays that way.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import time
from collections.abc import Iterable
from typing import Any, Callable, Protocol, TypeVar

from zdev._contract import End, Loop
from zdev._limits import says_limits
from zdev._notices import Notices
from zdev._stops import Stops
from zdev._tasks import original
from zdev._wakeup import Wakeup

__all__ = ["Descriptor", "Driven"]

# Of what the system has; type checkers know that of one system only.
_system: Any = select

NEVER = math.inf

T = TypeVar("T")


class DescriptorSet(Protocol):
    """Descriptors and a timer, watched by way of one descriptor."""

    def fileno(self) -> int:
        """Return the descriptor, which is readable when one of them is, or the time is up."""

    def forget(self, fd: int) -> None:
        """Watch one of them no more."""

    def alarm(self, seconds: float) -> None:
        """Be readable after so many seconds, and not for an earlier alarm; `NEVER`: for none."""

    def close(self) -> None:
        """Close what was opened."""


class Epoll:
    """A set in Linux, with a timerfd, which Python has from 3.13 on only.

    Parameters
    ----------
    fds
        What to watch.
    """

    def __init__(self, fds: Iterable[int]) -> None:
        import ctypes

        system = ctypes.CDLL(None, use_errno=True)
        self._settime, self._times = system.timerfd_settime, ctypes.c_long * 4
        self._timer = system.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._timer < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        try:
            self._epoll = original("select", "epoll")()
            for fd in (*fds, self._timer):
                self._epoll.register(fd, _system.EPOLLIN)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor; see `DescriptorSet`."""
        return int(self._epoll.fileno())

    def forget(self, fd: int) -> None:
        """Watch one of them no more."""
        self._epoll.unregister(fd)

    def alarm(self, seconds: float) -> None:
        """Be readable after so many seconds; see `DescriptorSet`."""
        nanoseconds = 0 if seconds == NEVER else max(int(seconds * 1e9), 1)
        self._settime(self._timer, 0, self._times(0, 0, *divmod(nanoseconds, 10**9)), None)

    def close(self) -> None:
        """Close what was opened."""
        timer, self._timer = self._timer, -1
        if timer >= 0:
            os.close(timer)
        if hasattr(self, "_epoll"):
            self._epoll.close()


class Kqueue:
    """A set in macOS and BSD.

    Parameters
    ----------
    fds
        What to watch.
    """

    def __init__(self, fds: Iterable[int]) -> None:
        self._queue = original("select", "kqueue")()
        for fd in fds:
            self._change(fd, _system.KQ_FILTER_READ, _system.KQ_EV_ADD)

    def _change(self, what: int, kind: int, flags: int, data: int = 0) -> None:
        kevent = original("select", "kevent")
        self._queue.control([kevent(what, kind, flags, 0, data)], 0)

    def fileno(self) -> int:
        """Return the descriptor; see `DescriptorSet`."""
        return int(self._queue.fileno())

    def forget(self, fd: int) -> None:
        """Watch one of them no more."""
        self._change(fd, _system.KQ_FILTER_READ, _system.KQ_EV_DELETE)

    def alarm(self, seconds: float) -> None:
        """Be readable after so many seconds; see `DescriptorSet`."""
        kind = _system.KQ_FILTER_TIMER
        with contextlib.suppress(FileNotFoundError):  # there is none yet
            self._change(0, kind, _system.KQ_EV_DELETE)
        if seconds != NEVER:
            flags = _system.KQ_EV_ADD | _system.KQ_EV_ONESHOT
            self._change(0, kind, flags, math.ceil(seconds * 1000))

    def close(self) -> None:
        """Close what was opened."""
        self._queue.close()


def descriptor_set(fds: Iterable[int]) -> DescriptorSet:
    """Make a set of what this system has; ``NotImplementedError`` if it has none."""
    # Not what `select` has by now: gevent takes them out of it.
    if original("select", "epoll") is not None:
        with contextlib.suppress(ImportError, AttributeError):  # no ctypes, or no timerfd
            return Epoll(fds)
    elif original("select", "kqueue") is not None:
        return Kqueue(fds)
    raise NotImplementedError(
        "here is neither epoll with timerfd nor kqueue, so there is no single descriptor of a "
        "relay; watch all of Relay.descriptors(), and heed Relay.deadline()"
    )


class Descriptor:
    """What tells an event loop when a relay wants a step.

    Parameters
    ----------
    wakeup, loop, notices, stops
        The relay's.
    ends : iterable of End
        Its sockets.
    capture : End or None
        The one of these that may fail.
    """

    def __init__(
        self,
        wakeup: Wakeup,
        *,
        loop: Loop,
        notices: Notices,
        stops: Stops,
        ends: Iterable[End],
        capture: End | None,
    ) -> None:
        self._wakeup = wakeup
        self._loop = loop
        self._notices = notices
        self._stops = stops
        self._fds = list(dict.fromkeys([wakeup.waited_fd, *(end.fd for end in ends)]))
        self._capture_fd = -1 if capture is None else capture.fd
        self._set: DescriptorSet | None = None
        self._due = NEVER
        wakeup.wake()  # nobody knows what is there

    def fileno(self) -> int:
        """Return the set's descriptor, which is made when it is first wanted."""
        if self._set is None:
            with says_limits():
                self._set = descriptor_set(self._fds)
            self._set.alarm(self._left())
        return self._set.fileno()

    def descriptors(self) -> list[int]:
        """Return the descriptors in the set."""
        return list(self._fds)

    def deadline(self) -> float | None:
        """Return the seconds until a step is wanted anyway; None if none is."""
        if self._wakeup.is_rung:
            return 0.0
        left = self._left()
        return None if left == NEVER else left

    def is_due(self) -> bool:
        """Tell whether a step is wanted though no socket may have anything."""
        return self._wakeup.is_rung or (self._due != NEVER and self._left() == 0)

    def _left(self) -> float:
        return max(self._due - time.monotonic(), 0.0)

    def rest(self, moved: int) -> None:
        """Know that a step ends that moved so much; on the thread that has the loop.

        When something moved, the next step may well find nothing. To look for more costs a tenth of
        a step, and saves it.
        """
        if self._loop.capture_failed and self._capture_fd in self._fds:
            self._fds.remove(self._capture_fd)
            if self._set is not None:
                self._set.forget(self._capture_fd)
        bound = 0
        if moved == 0 or self._loop.look() == 0:
            bound = self._notices.bound(self._loop.patience(), paused=self._loop.paused)
            bound = self._stops.wait(bound)
        if bound == 0:
            self._wakeup.wake()
            return
        due = NEVER if bound < 0 else time.monotonic() + bound / 1000
        if due != self._due:
            self._due = due
            if self._set is not None:
                self._set.alarm(self._left())

    def close(self) -> None:
        """Close what was opened."""
        if self._set is not None:
            self._set.close()

    def __del__(self) -> None:
        self.close()


class Driven:
    """A relay, as far as an event loop sees it that drives it by `Relay.step`."""

    _descriptor: Descriptor | None = None
    _pid: int
    _ends: dict[str, End]
    _roles: tuple[str, ...]
    _loop: Loop
    _notices: Notices
    _stops: Stops
    _wakeup: Wakeup

    def fileno(self) -> int:
        """Return a descriptor that is readable whenever `step` has something to do.

        Watch it for reading in an event loop, or give the relay itself to ``selectors``,
        ``select.select``, asyncio's ``add_reader``, ``zmq.Poller`` or tkinter's
        ``createfilehandler``, and call `step` once each time that it is readable. That is all:
        messages, room for what is parked, `resume`, `stop`, the end of a drain and the times of
        `deadline` make it readable. At first it is, and while there is more to do, it stays so:
        watch its level, not its edges (EPOLLET).

        Returns
        -------
        int
            An epoll or kqueue of the relay's, always the same, which is closed with the relay's
            last reference. Take it out of the event loop when `step` has returned None.

        Raises
        ------
        NotImplementedError
            Where neither epoll with timerfd (Linux) nor kqueue (macOS, BSD) exists. See
            `descriptors`.
        RuntimeError
            In a process that was forked: the relay is not of this one.

        Notes
        -----
        From any thread, but the first time on the thread that steps. If you use a socket of the
        relay's yourself, other than by `call`, call `step` once afterwards: what you do may take
        the sign of a message that has come (ZMQ_FD of zmq_getsockopt(3)). It tells nothing while
        `run` has the relay.
        """
        return self._described().fileno()

    def descriptors(self) -> list[int]:
        """Return the descriptors that `fileno` stands for, for systems where that raises.

        When any of them is readable, or the time of `deadline` is up, call `step` once.

        Returns
        -------
        list of int
            The relay's own, which `stop`, `resume` and more work left make readable, and the
            ``ZMQ_FD`` of each socket. One is missing when a capture socket has failed and
            ``capture_policy`` is "drop": unless you watch what is returned now, that socket's
            descriptor may be readable for ever.

        Raises
        ------
        RuntimeError
            In a process that was forked.

        Notes
        -----
        As with `fileno`.
        """
        return self._described().descriptors()

    def deadline(self) -> float | None:
        """Return in how many seconds `step` wants to be called, whatever is readable by then.

        That is when a parked message is to be tried again whose destination may have room without
        telling, a drain is to be looked after or is over, or the log is to be told of what waits or
        overflows. For those who watch `descriptors`; `fileno` is readable by then.

        Returns
        -------
        float or None
            0.0 if that is now; None if only a descriptor matters.

        Raises
        ------
        RuntimeError
            In a process that was forked.

        Notes
        -----
        From any thread; ask anew behind each `step`.
        """
        return self._described().deadline()

    def _described(self) -> Descriptor:
        self._check_process()
        if self._descriptor is None:
            capture = self._ends.get(self._roles[2])
            self._descriptor = Descriptor(
                self._wakeup,
                loop=self._loop,
                notices=self._notices,
                stops=self._stops,
                ends=self._ends.values(),
                capture=capture,
            )
        return self._descriptor

    def _wanting(self, function: Callable[[], T]) -> T:
        """Do what may use the sockets, and have a step wanted behind it, also if it raises."""
        try:
            result = function()
            self._want_step()
        except BaseException:  # perhaps a handler's, just before that
            self._want_step()
            raise
        return result

    def _want_step(self) -> None:
        """Have a step wanted, if anybody watches the descriptor; in the relay's process."""
        if self._descriptor is not None and os.getpid() == self._pid:
            self._wakeup.wake()

    def _check_process(self) -> None:
        """Raise if this is not the process of the relay."""
        if os.getpid() != self._pid:
            raise RuntimeError(
                "this relay was made in another process; "
                "a ZeroMQ socket does not survive fork, make both anew"
            )
