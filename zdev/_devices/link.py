"""What parent and child say to each other, over a socketpair.

The parent asks: a number, a verb and its arguments, which are those of `Progress.ask`, or "stop".
The child says, each in a tuple behind its name:

- "stage": the stage that its run has reached, where its sockets are bound, and what has ended it,
  if it was an error;
- "reply": the number of what was asked, how that went, and where its sockets are bound;
- "log": a record for the parent's log, which is set up as the child's is not;
- "end": what ended it, what it counted and what it left; then it goes.

How it went is a pair: true and the result, or false and the error on its way (`to_parent`).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
from collections import deque
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, Callable, Optional

from zdev._limits import says_limits
from zdev._secrets import dumps_for_child
from zdev._threads import RLock, Thread, allocate_lock, close, get_ident, socketpair
from zdev._times import PATIENCE

from .stages import Stages

__all__ = ["Link", "Reply", "Sent", "from_child", "hand_over", "has_inherited", "tell", "to_parent"]

Sent = tuple[Optional[bytes], str]
"""An error on its way: pickled, if that can be, and in words."""

NOBODY = -1  # no thread's identity

_ends: dict[Connection, int] = {}
"""The ends of links that are open here, with the thread whose fork is to keep one, or `NOBODY`.

All other forks close what they inherit. While they held an end, the other one would not be told
when its process is gone, and an orphan would live on: `test_its_parent_is_killed` forks a lot.
"""

handing_over = RLock()
"""Held while both ends of a link are here, lest the next process inherits them."""


_telling = RLock()


def _after_fork() -> None:
    global handing_over, _telling  # their owners are not here
    handing_over, _telling = RLock(), RLock()
    for end, thread in list(_ends.items()):
        if thread != get_ident():
            del _ends[end]
            _close(end)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def hand_over(launch: Callable[[Connection], None]) -> Link:
    """Launch a process that gets the other end of a link."""
    with handing_over, says_limits():
        ours, theirs = _pipe()
        _ends[ours], _ends[theirs] = NOBODY, get_ident()
        try:
            launch(theirs)
        except BaseException:
            del _ends[ours]
            _close(ours)
            raise
        finally:
            del _ends[theirs]
            _close(theirs)
    return Link(ours)


def _pipe() -> tuple[Connection, Connection]:
    """Make what `multiprocessing.Pipe` does; that uses `socket` and `os`, which may be patched."""
    if os.name != "posix":
        return Pipe()
    pair = socketpair()
    for end in pair:
        end.setblocking(True)  # whatever the default timeout is
    one, other = (Connection(end.detach()) for end in pair)
    return one, other


def _close(end: Connection) -> None:
    """Close an end at once, so that the other is told; a patched `os.close` leaves it to a hub."""
    if os.name != "posix":
        end.close()
    elif not end.closed:
        fd, end._handle = end.fileno(), None  # type: ignore[attr-defined]
        close(fd)


def has_inherited(end: Connection) -> bool:
    """Tell, once, in a child, whether its end has come by a fork."""
    return _ends.pop(end, None) is not None


class Reply(Stages):
    """What the child replies; or that it has ended, if there is no outcome."""

    outcome: tuple[bool, Any] | None = None
    THERE = 1

    def __init__(self) -> None:
        super().__init__(0)


class Link:
    """The parent's end: asks, and tells the replies apart by their numbers.

    A thread of its own sends what is asked. Else a stop with a timeout could wait for ever, where
    the link is full and the child does not read, as when it is stopped by SIGSTOP; and a signal
    handler could ask for something in the middle of what its own thread sends.
    `test_a_stop_does_not_wait_for_the_link` fills one.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._replies: dict[int, Reply] = {}
        self._numbers = itertools.count()
        self._outbox: deque[bytes] = deque()
        # Taken while there is nothing to send. A queue of `queue` would not do: it has locks that a
        # signal handler may find taken by the very thread that it interrupts.
        self._is_empty = allocate_lock()
        self._is_closed = False
        self._sender = Thread(target=self._send, name="zdev-link", daemon=True)

    def open(self) -> None:
        """Begin to send."""
        self._sender.start()

    def ask(self, verb: str, args: tuple[Any, ...]) -> Reply:
        """Ask for something, without waiting; the reply comes in time, or the link's end."""
        number = next(self._numbers)
        message = dumps_for_child((number, verb, args))
        reply = self._replies[number] = Reply()
        self._outbox.append(message)
        self._wake_sender()
        if self._is_closed:  # perhaps before it could see this reply
            reply.reach(Reply.THERE)
        return reply

    def _wake_sender(self) -> None:
        with contextlib.suppress(RuntimeError):  # it is awake
            self._is_empty.release()

    def _send(self) -> None:
        """Send what is asked, until the end of the link or of the child."""
        with contextlib.suppress(OSError):
            while not self._is_closed:
                self._is_empty.acquire()
                while self._outbox:
                    self.connection.send_bytes(self._outbox.popleft())

    def take(self, number: int, outcome: tuple[bool, Any]) -> None:
        """Take a reply, unless nobody waits for it any more."""
        reply = self._replies.pop(number, None)
        if reply is not None:
            reply.outcome = outcome
            reply.reach(Reply.THERE)

    def close(self) -> None:
        """Close it, when the child is gone; there will be no more replies."""
        self._is_closed = True
        self._wake_sender()
        if self._sender.ident is not None:
            self._sender.join(PATIENCE)
        _ends.pop(self.connection, None)
        try:
            _close(self.connection)
        finally:
            for reply in list(self._replies.values()):
                reply.reach(Reply.THERE)


def tell(link: Connection, *message: Any) -> None:
    """Tell the parent, which may be gone."""
    # Several threads of the child do, and a long message is written in two pieces.
    with _telling, contextlib.suppress(OSError, ValueError):
        link.send(message)


def to_parent(error: BaseException) -> Sent:
    """Prepare an error for the way to another process, which some cannot take."""
    likeness = f"{type(error).__name__}: {error}"
    try:
        pickled = pickle.dumps(error)
        pickle.loads(pickled)  # noqa: S301 - our own
    except Exception:
        return None, likeness
    return pickled, likeness


def from_child(sent: Sent) -> BaseException:
    """Return the error, or its likeness if it cannot be had here."""
    pickled, likeness = sent
    if pickled is not None:
        with contextlib.suppress(Exception):
            error: BaseException = pickle.loads(pickled)  # noqa: S301 - from our own child
            return error
    return RuntimeError(likeness)
