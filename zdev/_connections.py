"""Who is there: connections, as libzmq's socket monitors tell of them."""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
import traceback
import weakref
from collections import Counter
from collections.abc import Mapping
from typing import Any, Callable, NamedTuple, Optional, Protocol

import zmq

from zdev._contract import End
from zdev._threads import RLock, Thread, is_current
from zdev._times import COMPLAINTS, COMPLAINTS_EVERY, GRACE

__all__ = ["Complaints", "Connections", "Count", "OnConnection", "Speaker", "Watch"]

OnConnection = Optional[Callable[[str, zmq.Event, str], object]]
"""Called with the role of a socket, what has happened, and the address."""

CREDENTIALS = {0x11000001, 0x11000002}
"""ZMQ_PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC and _MECHANISM_MISMATCH, which pyzmq does not name."""

DISAGREE = "has no security, another mechanism, or not the server's key"

_numbers = itertools.count()


class Connections(NamedTuple):
    """What is known of the connections of one socket; those of inproc make no events.

    libzmq's events do not say whose handshake has succeeded. Where one peer among several that come
    at once breaks off without a word, ``peers`` may be one too many or too few until they leave.
    Nor do they tell of one with ZMTP 1 or 2, as libzmq had before 4.0, or at a ROUTER with
    ZMQ_ROUTER_RAW: such peers are not in ``peers``, and count as "broken off" when they leave. At a
    STREAM, there are no handshakes, and each connection is a peer.
    """

    peers: int
    """Connected now, and through with the handshake."""
    accepted: int
    """Connections that came in, so far."""
    connected: int
    """Connections that were made, so far."""
    disconnected: int
    """Peers that were there and are gone."""
    failed: dict[str, int]
    """Handshakes that failed, by cause: "protocol"; "credentials" (none, other or wrong ones);
    "refused" (by the ZAP handler); "broken off" (also by a peer that saw the cause first)."""
    retries: int
    """Attempts to connect that were put off to try again."""
    listeners: list[str]
    """Where it listens now."""
    subscriptions: int | None = None
    """Of an XPUB, how many its peers hold: made less cancelled, by what it has told so far. These
    are topics, each once, however many peers have subscribed to it. But an XPUB with
    ZMQ_XPUB_VERBOSE tells of every peer's subscription, and of a topic's last cancellation only;
    with ZMQ_XPUB_VERBOSER, of every cancellation, too. None for other sockets."""


class Count:
    """The account of one socket, in its descriptors of connections."""

    def __init__(self, kind: int) -> None:
        self._tells = kind == zmq.XPUB  # of subscriptions
        self._shakes_hands = kind != zmq.STREAM
        self._new: dict[int, str] = {}  # not yet through with the handshake, by address
        self._peers: dict[int, str] = {}
        self._failing = 0  # have failed, and are about to be disconnected
        self._seen: Counter[zmq.Event] = Counter()
        self._disconnected = 0
        self._failed: Counter[str] = Counter()
        self._listeners: list[str] = []

    def hear(self, event: zmq.Event, value: int, address: str) -> None:
        """Take in an event."""
        self._seen[event] += 1
        if event in (zmq.EVENT_ACCEPTED, zmq.EVENT_CONNECTED):
            self._leave(value)  # it has ended without a word, and its descriptor is another's
            (self._new if self._shakes_hands else self._peers)[value] = address
        elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            if self._new:  # most likely the last that came; the others take their time
                fd, address = self._new.popitem()
                self._peers[fd] = address
        elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            self._fail("credentials" if value in CREDENTIALS else "protocol")
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._fail("refused")
        elif event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            self._fail("broken off")
        elif event == zmq.EVENT_DISCONNECTED:
            self._disconnect(value)
        elif event == zmq.EVENT_LISTENING:
            self._listeners.append(address)
        elif event == zmq.EVENT_CLOSED and address in self._listeners:
            self._listeners.remove(address)
            self.leave(address)  # an unbind cuts off who came there, and tells of none

    def _fail(self, cause: str) -> None:
        if self._failing < len(self._new):  # else it has been told of already
            self._failed[cause] += 1
            self._failing += 1

    def _disconnect(self, fd: int) -> None:
        if fd in self._new:
            if not self._failing:
                self._failed["broken off"] += 1
        elif fd in self._peers and self._failing and self._new:
            # It has failed, and that which seems to be new has been taken for it.
            other, address = self._new.popitem()
            self._peers[other] = address
            del self._peers[fd]
        else:
            self._leave(fd)
            return
        self._new.pop(fd, None)
        self._failing = max(self._failing - 1, 0)

    def _leave(self, fd: int) -> None:
        self._disconnected += self._peers.pop(fd, None) is not None
        self._new.pop(fd, None)

    def leave(self, address: str) -> None:
        """Know that the socket has left that address: there is no event for each peer there."""
        for fd in [fd for fd, at in (*self._peers.items(), *self._new.items()) if at == address]:
            self._leave(fd)

    def now(self, subscriptions: int = 0) -> Connections:
        """Return what is known by now."""
        return Connections(
            peers=len(self._peers),
            accepted=self._seen[zmq.EVENT_ACCEPTED],
            connected=self._seen[zmq.EVENT_CONNECTED],
            disconnected=self._disconnected,
            failed=dict(self._failed),
            retries=self._seen[zmq.EVENT_CONNECT_RETRIED],
            listeners=self._listeners.copy(),
            subscriptions=subscriptions if self._tells else None,
        )


class Speaker(Protocol):
    """Says whose connections are counted, and writes; neither need be settled from the start."""

    name: str
    log: Callable[..., None]


class Complaints:
    """Warnings of what peers bring about, who may be many: so many in a time, and no more.

    How many were held back is told with the next one, or at the end.
    """

    def __init__(self, speaker: Speaker) -> None:
        self._speaker = speaker
        self._since = -COMPLAINTS_EVERY
        self._told = self._held = 0

    def warn(self, words: str) -> None:
        """Warn, unless there were too many."""
        now = time.monotonic()
        if now - self._since >= COMPLAINTS_EVERY:
            self._since, self._told = now, 0
        if self._told == COMPLAINTS:
            self._held += 1
            return
        self._told += 1
        self.end()
        self._speaker.log(logging.WARNING, "%s: %s", self._speaker.name, words)

    def end(self) -> None:
        """Tell what was held back."""
        held, self._held = self._held, 0
        if held:
            words = "%s: as before, %d times more, which were too many to tell of each"
            self._speaker.log(logging.WARNING, words, self._speaker.name, held)


class Watch:
    """Counts the connections of sockets, each in a thread that reads its monitor.

    A monitor must be read as long as its socket lives, else libzmq's threads wait for that: no loop
    that may be paused or ended does it. Each thread ends with its socket's monitor or its context.

    Parameters
    ----------
    speaker : Speaker
        Whose sockets these are.
    tell : callable, optional
        Called in one of these threads with each event; what it raises is logged.
    """

    def __init__(self, speaker: Speaker, tell: OnConnection) -> None:
        # It imports asyncio, which takes as long as all of zdev, and few programs watch.
        from zmq.utils.monitor import recv_monitor_message

        self._receive = recv_monitor_message
        self._speaker = speaker
        self._tell = tell
        self._lock = RLock()
        self._counts: dict[str, Count] = {}
        self._targets: dict[str, tuple[int, zmq.Socket[Any]]] = {}  # with their handles
        self._threads: list[Thread] = []
        self._ending: list[Thread] = []

    def begin(self, ends: Mapping[str, End]) -> None:
        """Watch these sockets, by their roles, unless it is on; on their own thread."""
        if not self.is_on:
            for role, end in ends.items():
                self.add(role, end.socket)

    def add(self, role: str, target: zmq.Socket[Any]) -> None:
        """Watch a socket, on its own thread; one that is watched in another role, in both.

        Raises
        ------
        RuntimeError
            If it has a monitor already, as far as pyzmq or zdev know: libzmq would end that one.
        """
        if role in self._targets:
            return
        handle = int(target.underlying)
        same = next((known for known, (its, _) in self._targets.items() if its == handle), None)
        if same is not None:
            with self._lock:
                self._counts[role], self._targets[role] = self._counts[same], (handle, target)
            return
        _check_unwatched(role, target)
        count = Count(int(target.getsockopt(zmq.TYPE)))
        monitor: zmq.Socket[Any] = zmq.Socket(target.context, zmq.PAIR)
        reader = _Reader(role, count, self._lock, self._speaker, self._tell)
        thread = Thread(
            target=reader.read,
            args=(monitor, self._receive),
            name=f"{self._speaker.name}, {role}",
            daemon=True,
        )
        try:
            monitor.linger = 0
            monitor.rcvhwm = 0  # libzmq's threads would wait if it was full
            address = f"inproc://zdev-connections-{next(_numbers)}"
            monitor.connect(address)  # first, since they would wait for that, too
            target.monitor(address, zmq.EVENT_ALL)
            try:
                thread.start()
            except BaseException:
                target.monitor(None, 0)
                raise
        except BaseException:
            monitor.close()
            raise
        with self._lock:
            self._counts[role], self._targets[role] = count, (handle, target)
        self._threads.append(thread)
        for other in [other for other, (its, _) in _readers.items() if not its.is_alive()]:
            _readers.pop(other, None)
        _readers[handle] = thread, weakref.ref(target)

    @property
    def is_on(self) -> bool:
        """Whether it watches any socket now."""
        return bool(self._targets)

    def connections(self, subscriptions: Mapping[str, int]) -> dict[str, Connections]:
        """Return what is known now, and how many subscriptions are held, by role.

        From any thread.
        """
        with self._lock:
            counts = self._counts.items()
            return {role: count.now(subscriptions.get(role, 0)) for role, count in counts}

    def leave(self, role: str, address: str) -> None:
        """Know that the socket of that role was disconnected from there."""
        with self._lock:
            if role in self._counts:
                self._counts[role].leave(address)

    def stop(self) -> None:
        """Watch no more, and leave the sockets without monitors; on their own thread."""
        for handle, target in self._targets.values():
            with contextlib.suppress(zmq.ZMQError):  # of what is closed, the monitor ends too
                target.monitor(None, 0)
            # Who is told may keep the thread from its end; the socket can be watched again already.
            thread, _ = _readers.get(handle, (None, None))
            if thread in self._threads:
                _readers.pop(handle, None)
        self._targets.clear()
        self._ending += self._threads
        self._threads.clear()

    def join(self, seconds: float) -> None:
        """Wait for the ends of the threads that have been stopped: for each, so long at most."""
        while self._ending:
            thread = self._ending.pop()
            if not is_current(thread):
                thread.join(seconds)


class _Reader:
    """Reads the monitor of one socket, which it does not know: one that is dropped gets closed."""

    def __init__(
        self,
        role: str,
        count: Count,
        lock: Any,
        speaker: Speaker,
        tell: OnConnection,
    ) -> None:
        self._role = role
        self._count = count
        self._lock = lock
        self._speaker = speaker
        self._complaints = Complaints(speaker)
        self._tell = tell

    def read(self, monitor: zmq.Socket[Any], receive: Callable[..., Any]) -> None:
        """Read it until it ends, or its context does."""
        with contextlib.closing(monitor), contextlib.suppress(zmq.ContextTerminated):
            while True:
                message = receive(monitor)
                event, value = zmq.Event(message["event"]), int(message["value"])
                if event == zmq.EVENT_MONITOR_STOPPED:
                    break
                address = message["endpoint"].decode(errors="replace")
                with self._lock:
                    self._count.hear(event, value, address)
                if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL and value in CREDENTIALS:
                    who = f"{self._role}: who came to {address}, or is there,"
                    self._complaints.warn(f"{who} {DISAGREE}")
                if self._tell is not None:
                    try:
                        self._tell(self._role, event, address)
                    except BaseException as error:  # or sys.exit() would end this thread
                        self._complain(error)
        self._complaints.end()

    def _complain(self, error: BaseException) -> None:
        # In words, since not every error can be sent to another process, or be made into text.
        words = "".join(traceback.format_exception_only(type(error), error)).strip()
        self._speaker.log(logging.WARNING, "%s: on_connection: %s", self._speaker.name, words)


_readers: dict[int, tuple[Thread, weakref.ref[zmq.Socket[Any]]]] = {}
"""Who reads the monitor of which socket, by its handle; or has read it, and may have ended."""


def _check_unwatched(role: str, target: zmq.Socket[Any]) -> None:
    """Raise if a socket cannot be watched, since it has a monitor or its context is unknown."""
    if target.context is None:
        raise RuntimeError(
            f"{role} was made by zmq.Socket.shadow() of a number, and knows no context, which "
            "watch_connections needs; give the socket itself"
        )
    theirs = getattr(target, "_monitor_socket", None)  # pyzmq's; if it is closed, libzmq may wait
    if theirs is not None or _is_watched(target):
        raise RuntimeError(
            f"{role} has a monitor, which libzmq would end for that of watch_connections; "
            "call its disable_monitor() first, or leave watch_connections out"
        )


def _is_watched(target: zmq.Socket[Any]) -> bool:
    """Tell whether zdev reads the monitor of a socket."""
    thread, known = _readers.get(int(target.underlying), (None, None))
    watched = None if known is None else known()
    # The handle of a socket that is closed may be another's by now.
    if thread is None or watched is None or watched.closed:
        return False
    if not is_current(thread):
        thread.join(GRACE)  # it may be about to end
    return thread.is_alive()
