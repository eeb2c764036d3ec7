"""What a relay may be asked, from any thread, whatever it is doing."""

from __future__ import annotations

from typing import Callable, TypeVar

import zmq

from zdev._arguments import check_function
from zdev._calls import Calls
from zdev._connections import Connections, Watch
from zdev._contract import Statistics
from zdev._descriptor import Driven
from zdev._stops import StopReport
from zdev._times import DRAIN_QUIET, check_timeout
from zdev._voice import Voice

__all__ = ["Asked"]

T = TypeVar("T")


class Asked(Driven):
    """A relay, as far as other threads see it."""

    _calls: Calls
    _voice: Voice
    _watch: Watch | None

    def stop(self, drain: float | None = None, *, quiet: float | None = DRAIN_QUIET) -> None:
        """Make `run` return, now or, if it is not running, when it is next called.

        From any thread, or a signal handler; it does not wait.

        Parameters
        ----------
        drain : float, optional
            Go on for at most so many seconds, until nothing is left to relay; this ends a pause.
            Where requests and replies pass (both ends are REQ, REP, DEALER or ROUTER), that is when
            as many came back as went there. New requests are left in their socket once none is
            found, at the latest after half the time, unless both ends are of one type. It does not
            unbind: libzmq would cut the peers off, with what they have sent. By default, what is
            parked is tried once more and the rest stays in the sockets. Of several stops, the one
            that ends the relay first counts.
        quiet : float
            Seconds for which nothing must have come before a drain is over, and for which it takes
            new requests in any case: libzmq may have some in hand that no socket shows yet. `step`
            does not wait for that.

        Raises
        ------
        TypeError, ValueError
            If one of them is no number of seconds, or negative.

        See Also
        --------
        last_stop : What a drain left; if anything, the logger ``zdev`` warns of it.
        """
        self._check_process()
        self._stops.add(drain, quiet)
        self._wakeup.wake()

    @property
    def last_stop(self) -> StopReport | None:
        """What the drain left that ended the last `run`; None where none did."""
        return self._stops.last

    def pause(self) -> None:
        """Move nothing more until `resume`; control, `stop` and `call` go on.

        From any thread. When it returns, the relay is paused.
        """
        self._ask(lambda: setattr(self._loop, "paused", True))

    def resume(self) -> None:
        """End a pause, whoever began it. From any thread."""
        self._wanting(lambda: self._ask(lambda: setattr(self._loop, "paused", False)))

    @property
    def paused(self) -> bool:
        """Whether the relay is paused, by `pause` or by PAUSE."""
        return self._ask(lambda: self._loop.paused)

    @property
    def only_first_subscribe(self) -> bool:
        """Whether the XSUB sockets have ZMQ_ONLY_FIRST_SUBSCRIBE; set it where that is set."""
        return self._ask(lambda: self._loop.only_first)

    @only_first_subscribe.setter
    def only_first_subscribe(self, only_first: bool) -> None:
        self._ask(lambda: setattr(self._loop, "only_first", bool(only_first)))

    def statistics(self) -> Statistics:
        """Return a consistent snapshot of what the relay has done since it was made.

        From any thread.
        """
        return self._stops.counted(self._ask(self._loop.statistics, shared=True))

    def connections(self) -> dict[str, Connections]:
        """Return who is there: what is known of the connections of each socket, by role.

        For that, give ``watch_connections=True`` to the constructor. What had been there by then is
        not seen, nor are peers over inproc, so make the relay before you bind and connect.

        Returns
        -------
        dict of str to Connections
            With the keys "frontend", "backend", "capture" and "control", as far as there are such
            sockets.

        Raises
        ------
        RuntimeError
            If the relay does not watch its connections; also when a run has ended, until the next.

        Notes
        -----
        From any thread. The events are those of zmq_socket_monitor(3). There is none when the
        program itself disconnects a socket: the peer there still counts. Of subscriptions, the same
        holds as with a device (see `Connections`); they count from when the relay was made, and
        when they have been read, so not in a pause.
        """
        if self._watch is None:
            raise RuntimeError(
                f"{self._voice.name} does not watch its connections; make it with "
                "watch_connections=True"
            )
        held = self._subscriptions()
        if not self._watch.is_on:
            raise RuntimeError(
                f"{self._voice.name} has ended; it watches its connections again when it is run"
            )
        return self._watch.connections(held)

    def _subscriptions(self) -> dict[str, int]:
        """Return how many subscriptions the peers of each XPUB hold. From any thread."""
        # The relay's own thread may be adding to them.
        ends = {role: end for role, end in self._ends.copy().items() if end.type == zmq.XPUB}
        held = self._loop.subscriptions
        return self._ask(lambda: {role: held(end) for role, end in ends.items()}, shared=True)

    def call(self, function: Callable[[], T], timeout: float | None = None) -> T:
        """Run a function on the relay's own thread, between two messages, and return its result.

        That is how to bind, connect or set options of its sockets while it runs. A relay that is
        not running has no thread: then the function runs at once, in this one, and so does what
        others ask for meanwhile. From any thread.

        Parameters
        ----------
        function : callable
            Called without arguments. What it raises is raised here; what a signal handler raises
            that interrupts it in the main thread, there too.
        timeout : float, optional
            Seconds to wait for it.

        Raises
        ------
        TimeoutError
            If it has not been run by then; it will not be, unless it has begun.
        TypeError, ValueError
            For what cannot be called, and for a timeout that is no number of seconds, or negative.
        """
        self._check_process()
        check_function(function)
        timeout = check_timeout(timeout)
        call = self._calls.call
        return self._wanting(lambda: call(function, timeout, interruptible=True))

    def _ask(self, function: Callable[[], T], *, shared: bool = False) -> T:
        """Do something short with the loop, wherever it is."""
        self._check_process()
        return self._calls.visit(function, lambda: self._calls.call(function), shared=shared)
