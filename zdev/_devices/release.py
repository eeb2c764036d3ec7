"""What closed sockets leave behind for a moment, and when it is gone.

zmq_close(3) returns at once. A socket's listeners, the connections that they have accepted, and its
names of inproc live on until libzmq's threads come to them. Meanwhile a peer that is still
connected loses what it sends, and a start at the same address may fail.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import Counter
from typing import Any

import zmq

from zdev._times import milliseconds

__all__ = ["await_release", "await_unbound"]

# A socket monitor would say when a socket is no more. But one that still has messages to send may
# live for ever; its last event then meets a monitor that nobody reads any more, and with that
# libzmq's reaper waits for ever, and nothing of that context is ever closed again.
#
# So it is not the sockets that are watched, but the threads. A closed socket is taken apart by
# commands that the reaper and the I/O threads send each other, and each thread obeys its commands
# in the order in which they came. When all have obeyed one of ours, they have obeyed what came
# before. `test_nothing_is_lost` has peers that would lose messages.

ROUNDS = 3
"""How often all threads must be heard of: the reaper ends a socket's pipes and listeners; what the
I/O threads reply comes back to the reaper; and with its last word they close the connections. The
third is for epoll(7), which may show the reaper the older of two commands a round later."""

TURNS = 3
"""How often an I/O thread must come to its timers until it has looked at all descriptors: those of
peers in the same context show that their connections are closed, and it would have them send
first. The first time, it may still be at the commands; the second, it has yet to look."""

MAX_AFFINITY = 64
"""How many I/O threads ZMQ_AFFINITY can tell apart."""

_numbers = itertools.count()


def await_release(context: zmq.Context[Any], seconds: float, *, is_local: bool) -> None:
    """Wait until libzmq has let go of what the closed sockets of a context had, at most so long.

    Of sockets that were local, and had none but names of inproc, only the reaper knows: it takes
    the names away when it first hears of the socket.
    Not of connections over which messages are still to be sent: those last as ZMQ_LINGER lets them.
    If others terminate the context, this does not wait; they are told when all is gone.
    """
    # There may be no descriptor left, or the context may be terminated.
    with contextlib.suppress(zmq.ZMQError), contextlib.closing(_Probe(context, seconds)) as probe:
        for _ in range(1 if is_local else ROUNDS):
            if not (probe.hear_reaper() and (is_local or probe.hear_threads())):
                return
        if not is_local:
            probe.hear_threads(TURNS)


def await_unbound(context: zmq.Context[Any], seconds: float) -> None:
    """Wait until libzmq has closed the listeners that sockets have given up, at most so long.

    zmq_unbind(3) leaves that to an I/O thread. Whoever binds there at once would find it taken.
    """
    with contextlib.suppress(zmq.ZMQError), contextlib.closing(_Probe(context, seconds)) as probe:
        probe.hear_threads()


class _Probe:
    """Hears of libzmq's threads when they have obeyed all commands that they had by then."""

    def __init__(self, context: zmq.Context[Any], seconds: float) -> None:
        self._context = context
        self._deadline = time.monotonic() + seconds
        self._name = f"inproc://zdev-release-{next(_numbers)}"
        self._threads = min(context.get(zmq.IO_THREADS), MAX_AFFINITY)
        self._sockets: list[zmq.Socket[Any]] = []
        try:
            self._probe = self._socket(zmq.XPUB)
            self._probe.bind(self._name)
            self._monitor = self._socket(zmq.PAIR)
            # First, since libzmq's threads would wait for a monitor that is not yet connected.
            self._monitor.connect(f"{self._name}-monitor")
            self._probe.monitor(f"{self._name}-monitor", zmq.EVENT_CONNECT_RETRIED)
        except BaseException:
            self.close()
            raise

    def _socket(self, kind: int) -> zmq.Socket[Any]:
        made: zmq.Socket[Any] = zmq.Socket(self._context, kind)  # the context's own may be any
        self._sockets.append(made)
        made.linger = 0
        return made

    def hear_reaper(self) -> bool:
        """Close a subscriber, and be told of its end: the reaper has ended it."""
        subscriber = self._socket(zmq.SUB)
        subscriber.connect(self._name)
        subscriber.subscribe(b"")
        subscribed = self._hear(self._probe) is not None
        subscriber.close()
        return subscribed and self._hear(self._probe) is not None

    def hear_threads(self, turns: int = 1) -> bool:
        """Connect to where nobody can be, below what is no directory, and be told so by each.

        The first time is when it obeys; each other, when it has waited for a millisecond.
        """
        self._probe.reconnect_ivl = 1 if turns > 1 else 60_000
        for number in range(self._threads):
            self._probe.affinity = 1 << number
            self._probe.connect(f"ipc:///dev/null/{next(_numbers)}")
        heard: Counter[bytes] = Counter()
        while sum(times >= turns for times in heard.values()) < self._threads:
            event = self._hear(self._monitor)
            if event is None:
                return False
            heard[event[1]] += 1  # by the address
        return True

    def _hear(self, target: zmq.Socket[Any]) -> list[bytes] | None:
        """Return one message, if it comes in time."""
        left = max(self._deadline - time.monotonic(), 0)
        return target.recv_multipart() if target.poll(milliseconds(left)) else None

    def close(self) -> None:
        """Close all sockets; first the monitor's sending end, while somebody receives from it."""
        with contextlib.suppress(zmq.ZMQError, IndexError):
            self._sockets[0].monitor(None, 0)
        for target in self._sockets:
            target.close()
