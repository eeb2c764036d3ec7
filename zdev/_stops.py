"""How a relay stops: at once, or once it has drained; and what it leaves then.

A stop is a moment: now, or as long from now as a drain may take. The earliest counts. Until it
comes, the relay drains: it takes steps, each of which tells whether it has found anything, and
between them waits for what is parked, and for the replies to requests that have gone on. When
neither is left, and no step has found anything for a while, the drain is over, and "now" is added
to the moments.

Two things cannot be known, since libzmq does not tell. Which reply belongs to which request: so
they are counted, and a worker that sends several for one request hides that another still works.
And what of the requests at a socket came after the drain began: so they are taken for as long as
what was under way may need, and then until none is found once, or half of the time is over. From
then on the socket is left unread. Nobody is cut off by that, as by unbinding: the clients get the
replies that they wait for, and what they send besides stays where it is. Without it a busy broker
would never be drained. A REP shows one request at a time, so that it seems empty before it is: it
is left unread when half of the time is over, not before.
"""

from __future__ import annotations

import logging
import math
import time
from typing import Any, Callable, NamedTuple, cast

import zmq

from zdev._contract import DirectionStatistics, End, Loop, Statistics, raise_for
from zdev._sockets import CANNOT_RECEIVE, CANNOT_SEND
from zdev._times import DRAIN_LOOK, DRAIN_QUIET, check_seconds, milliseconds

__all__ = ["StopReport", "Stops"]

NOW = -math.inf

# Requests come from the one of two such sockets that is further to the right.
_ASKED = (zmq.REQ, zmq.DEALER, zmq.ROUTER, zmq.REP)


class StopReport(NamedTuple):
    """What a relay or a device left when it was stopped."""

    drained: bool
    """Whether a drain came to its end; false if it was cut off, by its time or by another stop, or
    if none was asked for."""
    unanswered: int
    """Requests that had gone on and for which nothing had come back, by the counters: see
    `Statistics`."""
    parked: int
    """Messages, and copies for the capture, that waited in the relay."""
    unread: bool | None
    """Whether its sources had more: what a drain did not come to, and requests that came while it
    waited for replies. None if that was not looked at, as where no drain was asked for."""

    @classmethod
    def of(
        cls, statistics: Statistics, *, drained: bool = False, unread: bool | None = None
    ) -> StopReport:
        """Make one of the last counts."""
        parked = sum(each.parked for each in statistics)
        return cls(drained, statistics.unanswered, parked, unread)

    def warn(self, log: Callable[..., Any], name: str) -> None:
        """Log what a drain has left, if it has left anything that is known of."""
        left = [
            _count(self.parked, "parked message", "parked messages"),
            _count(self.unanswered, "unanswered request", "unanswered requests"),
            "more in its sources" if self.unread else "",
        ]
        told = " and ".join(filter(None, left))
        if told and self.drained:
            log(logging.WARNING, "%s has drained, but leaves %s, which came meanwhile", name, told)
        elif told:
            log(logging.WARNING, "%s was cut off as it drained, and leaves %s", name, told)


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}" if number else ""


class Stop(NamedTuple):
    """One that was asked for; all times are of time.monotonic."""

    at: float
    asked: float = NOW
    quiet: float = 0


AT_ONCE = Stop(NOW)
DRAINED = Stop(NOW)


class Stops:
    """The stops that one relay was asked for, and how far its drain is.

    Parameters
    ----------
    frontend, backend : End
        The relay's.
    """

    def __init__(self, frontend: End, backend: End) -> None:
        self.last: StopReport | None = None
        """What the last drain left; None if the last stop was none, or is yet to come."""
        self._ends = (frontend, backend)
        self._ways = _ways_of_requests(frontend, backend)
        self._asked: list[Stop] = []
        self._taken = self._requests = -1  # messages, and those that ask, by the last look
        self._dry_since = NOW  # when the drain last found something
        self._patience = 0.0  # seconds that the loop may wait until the next look
        self._is_shut = False  # the source of requests

    def __bool__(self) -> bool:
        """Tell whether there is one."""
        return bool(self._asked)

    def add(self, drain: float | None, quiet: float | None = None) -> None:
        """Stop now, or after such a drain. From any thread, or a signal handler."""
        stop = AT_ONCE
        quiet = DRAIN_QUIET if quiet is None else check_seconds(quiet, "quiet")
        if drain is not None:
            now = time.monotonic()
            stop = Stop(now + check_seconds(drain, "drain"), now, quiet)
        self._taken = self._requests = -1
        self._patience = 0
        self._asked.append(stop)

    def counted(self, statistics: Statistics) -> Statistics:
        """Fill in how many requests went on for which nothing has come back, by the counters."""
        (front, rear), (there, back, _) = self._ends, statistics
        counts = [0]
        if self._ways[0]:
            counts.append(_unanswered(front, there, back))
        if self._ways[1]:
            counts.append(_unanswered(rear, back, there))
        statistics.unanswered = max(counts)
        return statistics

    # On the thread that has the loop

    def obey(self, loop: Loop) -> bool:
        """Tell whether to stop now; what has been asked by then is forgotten with that."""
        asked = self._asked[:]
        if not asked:
            return False
        if self._left() > 0:
            loop.paused = False  # a drain ends a pause
            return False
        raise_for(loop.flush())
        self.last = None
        if any(stop is not AT_ONCE for stop in asked):
            self.last = self._report(loop, drained=any(stop is DRAINED for stop in asked))
        self._shut(loop, False, False)
        del self._asked[: len(asked)]
        return True

    def wait(self, timeout: int) -> int:
        """Return how many milliseconds the loop may take now; -1 is for ever."""
        if not self._asked:
            return timeout
        longest = milliseconds(max(min(self._left(), self._patience), 0))
        return longest if timeout < 0 else min(longest, timeout)

    def look(self, loop: Loop, *, is_dry: bool, waits: bool = True) -> None:
        """See how far a drain is, behind a run of the loop, which is dry if it found nothing.

        If its caller does not wait, the drain is over, or the source of requests shut, when it is
        dry once.
        """
        if not self._asked or self._left() <= 0:
            return
        asked, now = self._asked[:], time.monotonic()
        quiet = min(stop.quiet for stop in asked) if waits else 0
        statistics = self.counted(loop.statistics())
        there, back, _ = statistics
        taken = there.messages_received + back.messages_received
        parked = any(each.parked for each in statistics)
        if taken != self._taken or parked or statistics.unanswered:
            self._taken, self._dry_since = taken, now
        if self._ways[0] != self._ways[1] and not self._is_shut:
            is_due = now >= min(stop.asked for stop in asked) + quiet
            is_late = now >= min((stop.asked + stop.at) / 2 for stop in asked)
            self._shut_requests(loop, statistics, is_due=is_due, is_late=is_late)
        self._patience = 0  # a step tells whether anything is left; what is parked wants a wait
        if parked or (is_dry and statistics.unanswered):
            # The loop may move a message and then wait, so it is looked after soon.
            self._patience = DRAIN_LOOK
        elif is_dry:
            self._patience = self._dry_since + quiet - now
            if self._patience <= 0:
                self._asked.append(DRAINED)

    def _left(self) -> float:
        """Return the seconds until it is time to stop."""
        return min(stop.at for stop in self._asked) - time.monotonic()

    def _shut_requests(
        self, loop: Loop, statistics: Statistics, *, is_due: bool, is_late: bool
    ) -> None:
        """Leave new requests unread if that is due, and none was found now; or if it is late."""
        side = self._ways.index(True)
        way = statistics[:2][side]
        found, self._requests = way.messages_received != self._requests, way.messages_received
        shows_all = self._ends[side].type != zmq.REP
        if is_late or (is_due and shows_all and not found and not way.parked):
            self._shut(loop, *self._ways)

    def _shut(self, loop: Loop, there: bool, back: bool) -> None:
        """Leave the requests that go one way unread, or read them again."""
        if self._is_shut != (there or back):
            self._is_shut = there or back
            loop.shut(there=there, back=back)

    def _report(self, loop: Loop, *, drained: bool) -> StopReport:
        front, rear = self._ends
        unread = _has_more(front, rear) or _has_more(rear, front)
        return StopReport.of(self.counted(loop.statistics()), drained=drained, unread=unread)


def _ways_of_requests(frontend: End, backend: End) -> tuple[bool, bool]:
    """Tell whether requests may go there, and whether back; where types do not tell, either."""
    kinds = (frontend.type, backend.type)
    if frontend.handle == backend.handle or any(kind not in _ASKED for kind in kinds):
        return False, False
    front, rear = (_ASKED.index(kind) for kind in kinds)
    return front >= rear, rear >= front


def _unanswered(asked: End, there: DirectionStatistics, back: DirectionStatistics) -> int:
    """Return how many messages went there and did not come back, to the socket that was asked."""
    answered = back.messages_received
    if asked.type == zmq.REP:
        answered -= back.unroutable  # nobody asked for those
    return there.messages_sent - answered


def _has_more(source: End, destination: End) -> bool:
    """Tell whether a source has messages for the destination."""
    if source.type in CANNOT_RECEIVE or destination.type in CANNOT_SEND:
        return False
    # A plain socket over the same handle: asyncio's would look after its own futures.
    events = cast("int", zmq.Socket.shadow(source.handle).getsockopt(zmq.EVENTS))
    return bool(events & zmq.POLLIN)
