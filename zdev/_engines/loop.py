"""The Python loop: turns, waiting and control. The Python twin of csrc/loop.c and csrc/life.c.

It reaches libzmq through a `Binding`, a handful of libzmq's own calls with libzmq's own manners:
-1 means failure, and ``errno()`` says which. frames.py, direction.py, turn.py and this file are cut
as the C loop is, with the same names, and are its readable specification: the two make the same
calls in the same order.
"""

from __future__ import annotations

import itertools
import struct

import zmq

from zdev._contract import (
    FINISHED,
    STEPPED,
    WOKEN,
    CaptureStatistics,
    End,
    Settings,
    Statistics,
    timed,
)

from .binding import Binding, Message
from .direction import COPY, ROUTER, TAKING, Capture, Direction
from .frames import (
    NONE,
    POLLOUT,
    REP,
    XPUB,
    Frames,
    Socket,
    can_receive,
    can_send,
    count_subscription,
    socket_events,
    unsettle,
)
from .turn import ShortWay

__all__ = ["PythonLoop"]

DEALER = int(zmq.DEALER)

# Milliseconds after which a doubtful direction is tried again. POLLOUT tells it nothing, and the
# sign that its descriptor gives may be taken by any other call on that socket, such as a receive of
# the other direction. Without this bound it may wait for ever for a peer that has room: the loop
# `Untimed` of tests/loops/test_interleaving.py does.
DOUBT_TIMEOUT = 50
# While its time away is bounded, a busy loop returns after so many rounds.
BOUNDED_ROUNDS = 64
# Commands served between two rounds: a flood of them must not stop traffic.
MAX_COMMANDS = 16


class PythonLoop:
    """One relay's loop in Python, over a binding."""

    direction: type[Direction] = ShortWay
    """What a direction is made of. A plain `Direction` will do, but is slower."""

    # Life

    def __init__(self, binding: Binding, settings: Settings) -> None:
        self._binding = binding
        self._burst = settings.burst
        self._wakeup_fd = settings.wakeup_fd
        self.paused = False  # it serves its control socket then, and moves nothing
        self._terminated = False
        self._since_look = 0  # messages since wake-up and control were looked at
        self._broken = False
        self._long_wait = settings.long_wait
        self._command = Frames(binding)  # what the control socket says

        self._sockets: dict[int, Socket] = {}
        front, back = self.socket_enter(settings.frontend), self.socket_enter(settings.backend)
        self._control = NONE
        self._capture = Capture(drop=settings.capture_drop)

        # Both ways are kept for their counters; those that cannot be have no turn.
        swap = settings.swap
        self._there = self.direction_open(front, back, settings.in_prefix, swap, settings.in_drop)
        self._back = self.direction_open(back, front, settings.out_prefix, swap, settings.out_drop)
        ways = [self._there]
        if front is not back:
            # What nobody asked a REP for goes before it takes a request, lest it becomes the reply.
            ways.insert(0 if front.type == REP else 1, self._back)
        self._directions = [way for way in ways if can_receive(way.source.type)]
        self.join(settings.capture, settings.control)

    def join(self, capture: End | None, control: End | None) -> None:
        """Take in a capture and a control socket; see ``Loop.join``."""
        if control is not None:
            self._control = self.socket_enter(control)
        if capture is None:
            return
        self._capture.given = self.socket_enter(capture)
        self.copies(True)
        if capture.type == XPUB:
            # its peers' subscriptions would pile up unread
            aside = self.direction(self._binding, self._capture.given, NONE, self._capture)
            self._directions.append(aside)

    def socket_enter(self, end: End) -> Socket:
        """Enter a socket once; two ends may be the same socket."""
        if end.handle not in self._sockets:
            self._sockets[end.handle] = Socket(self._binding.socket(end), end.type, end.fd)
        return self._sockets[end.handle]

    def direction_open(
        self, source: Socket, to: Socket, prefix: bytes | None, swap: bool, drop: bool
    ) -> Direction:
        """Open one of the two ways; it is a sink where the other end's type cannot send."""
        message: Message | None = None
        if prefix is not None:
            message = self._binding.message()
            if self._binding.fill(message, prefix) < 0:
                raise MemoryError("no memory for a prefix")
        destination = to if can_send(to.type) else NONE
        return self.direction(
            self._binding,
            source,
            destination,
            self._capture,
            message,
            swap=swap,
            drop=drop,
            long_wait=self._long_wait,
        )

    def copies(self, wanted: bool) -> None:
        """Give the capture socket copies, or do without it; see ``Loop.copies``."""
        if not wanted and any(direction.stage != TAKING for direction in self._directions):
            return  # what is parked may have a copy already, which must go there
        self._capture.socket = self._capture.given if wanted else NONE
        for direction in self._directions:
            direction.prepare()

    @property
    def only_first(self) -> bool:
        """Whether ZMQ_ONLY_FIRST_SUBSCRIBE is set; see ``Loop.only_first``."""
        return self._there.only_first

    @only_first.setter
    def only_first(self, only_first: bool) -> None:
        self._there.only_first = self._back.only_first = only_first

    def shut(self, *, there: bool, back: bool) -> None:
        """Leave unread what comes to either end; see ``Loop.shut``."""
        self._there.shut, self._back.shut = there, back

    def subscriptions(self, end: End) -> int:
        """Tell how many subscriptions are held at a socket; see ``Loop.subscriptions``."""
        return self._sockets[end.handle].subscriptions

    def statistics(self) -> Statistics:
        """Return the counters."""
        there, back, capture = self._there.statistics(), self._back.statistics(), self._capture
        waits = [
            counts.parked_seconds
            for way, counts in ((self._there, there), (self._back, back))
            if way.stage == COPY
        ]
        copies = CaptureStatistics(capture.sent, capture.dropped, len(waits))
        return Statistics(there, back, timed(copies, max(waits, default=0.0)))

    # Control

    def answer(self, envelope: int, body: list[bytes]) -> int:
        """Answer on the control socket: so many frames of the command, then the body.

        A peer that does not take its answer goes without: control must not wait for anyone.
        """
        command = self._command
        for frame in command.slots[envelope : command.count]:
            self._binding.empty(frame)
        command.count = envelope
        for data in body:
            slot = command.slot()
            command.count += 1
            if data and self._binding.fill(slot, data) < 0:
                return 0
        return min(command.send(self._control), 0)

    def answer_statistics(self, envelope: int) -> int:
        """Answer STATISTICS as libzmq orders them: frames, then bytes, of each side."""
        there, back = self._there.statistics(), self._back.statistics()
        counts = (
            (there.frames_received, there.bytes_received),
            (back.frames_sent, back.bytes_sent),
            (back.frames_received, back.bytes_received),
            (there.frames_sent, there.bytes_sent),
        )
        body = [struct.pack("=Q", count) for pair in counts for count in pair]
        return self.answer(envelope, body)

    def serve_control(self) -> int:
        """Serve one message of the control socket, as zmq_proxy_steerable(3) has it.

        Only its first frame counts, after the envelope that ROUTER and DEALER see. Whoever sent a
        request (REP's peer, or a REQ behind a ROUTER) is answered even when the command is
        unknown, or it could never ask again.
        """
        frames, kind = self._command, self._control.type
        result = frames.receive(self._control)
        if result <= 0:
            return result
        result = 0
        if kind == XPUB:
            count_subscription(self._control, frames, only_first=self.only_first)
        count = frames.count
        envelope = 1 if kind == ROUTER else 0
        asked = kind == REP
        if (
            kind in (ROUTER, DEALER)
            and count > envelope + 1
            and self._binding.data(frames.slots[envelope]) == b""
        ):
            envelope += 1
            asked = True
        if count > envelope:
            command = self._binding.data(frames.slots[envelope])
            if command == b"STATISTICS" and can_send(kind):
                asked = False
                result = self.answer_statistics(envelope)
            elif command == b"PAUSE":
                self.paused = True
            elif command == b"RESUME":
                self.paused = False
                unsettle(self._sockets.values())
            elif command == b"TERMINATE":
                self._terminated = True
        if asked and result == 0:
            result = self.answer(envelope, [b""])
        frames.empty()
        return result if result < 0 else 1

    # Waiting

    def is_read(self, socket: Socket) -> bool:
        """Tell whether somebody reads the socket now."""
        return socket is self._control or (
            not self.paused
            and any(
                d.source is socket and not d.shut and d.stage == TAKING for d in self._directions
            )
        )

    def longest_block(self, direction: Direction, awaited: Socket) -> int:
        """Return for how many milliseconds the loop may block beside what a direction has parked.

        Not at all if the caller is wanted; -1: for ever.
        """
        if self.has_news():
            return 0
        if direction.doubtful or awaited.type == ROUTER:
            return DOUBT_TIMEOUT
        return self._long_wait if self._long_wait and not direction.waits_long else -1

    def patience(self) -> int:
        """Tell when it has to be run again; see ``Loop.patience``."""
        bounds = [
            self.longest_block(direction, awaited)
            for direction in self._directions
            if not self.paused and (awaited := direction.awaits()) is not NONE
        ]
        return min((bound for bound in bounds if bound >= 0), default=-1)

    @property
    def capture_failed(self) -> bool:
        """Whether the capture socket has failed; see ``Loop.capture_failed``."""
        return self._capture.dead

    def settle(self, timeout: int) -> tuple[int, int]:
        """Settle every socket before blocking: process its commands, see what they have brought.

        Without it the loop would sleep beside what came since it last tried (see `Socket`).
        Return 1 if something can move after all, 0 if the loop may block, or a negated errno; and
        the timeout, shortened for what is parked.
        """
        waiting = []
        for direction in self._directions:
            awaited = NONE if self.paused else direction.awaits()
            if awaited is NONE:
                continue
            # A receive may have taken the edge of its POLLOUT.
            awaited.settled = False
            longest = self.longest_block(direction, awaited)
            if longest >= 0 and not 0 <= timeout <= longest:
                timeout = longest
            if not direction.doubtful:
                waiting.append(awaited)
        movable = 0
        for socket in self._sockets.values():
            if socket.settled or self.is_dead(socket):
                continue
            events = socket_events(self._binding, socket)
            if events < 0:
                if socket is not self._capture.given or not self._capture.drop:
                    return events, timeout
                self._capture.dead = True
                movable = 1  # the caller of `look` has to know
                continue
            if not socket.settled and self.is_read(socket):
                movable = 1
            else:
                socket.settled = True
            if events & POLLOUT and socket in waiting:
                movable = 1
        return movable, timeout

    def is_dead(self, socket: Socket) -> bool:
        """Tell whether it is the capture socket, and has failed."""
        return socket is self._capture.given and self._capture.dead

    def await_(self, timeout: int) -> int:
        """Wait until a socket or the wake-up descriptor is readable; with timeout 0, only look."""
        fds = [self._wakeup_fd]
        fds += [socket.fd for socket in self._sockets.values() if not self.is_dead(socket)]
        self._since_look = 0
        ready = self._binding.poll(fds, timeout)
        if ready is None:
            return WOKEN
        unsettle(socket for socket in self._sockets.values() if socket.fd in ready)
        return WOKEN if self._wakeup_fd in ready else 0

    # The loop

    def round_of_turns(self) -> int:
        """Give each direction a turn, then control; return how much moved, or a negated errno."""
        moved = 0
        for direction in self._directions:
            if self.paused:
                break
            optional = direction.source is self._capture.given and self._capture.drop
            if optional and self._capture.dead:
                continue
            result = direction.turn(self._burst)
            if result >= 0:
                moved += result
            elif optional:
                self._capture.dead = True
            else:
                return result
        if self._control is not NONE:
            for _ in range(MAX_COMMANDS):
                if self._control.settled or self._terminated:
                    break
                result = self.serve_control()
                if result < 0:
                    return result
                if result == 0:
                    break
                moved += 1
        self._since_look += moved
        return moved

    def run(self, timeout: int) -> int:
        """Relay; see ``Loop.run``.

        Nothing is expected to raise in here, but memory may run out, and a debugger or a program
        may raise something in any thread. What was in hand is uncertain then.
        """
        if self._broken:
            raise RuntimeError(
                "this relay cannot go on: an exception has ended it in the middle of a message; "
                "make another"
            )
        self._broken = True
        result = self._run(timeout)
        self._broken = False
        return result

    def has_news(self) -> bool:
        """Tell whether the caller is wanted, to be told."""
        return self._there.news or self._back.news

    def _run(self, timeout: int) -> int:
        self._there.news = self._back.news = False
        unsettle(self._sockets.values())
        for rounds in itertools.count():
            result = 0
            moved = self.round_of_turns()
            if moved < 0:
                return moved
            if self._terminated:
                self._terminated = False
                return self.flush() or FINISHED
            if moved:
                if timeout == 0:
                    return STEPPED + moved
                if self._since_look >= self._burst:
                    result = self.await_(0)
            else:
                result, blocking = self.settle(timeout)
                if result > 0:
                    continue  # something can move after all
                if result == 0:
                    if timeout == 0:
                        return STEPPED
                    result = self.await_(blocking)
                    if result == 0 and timeout > 0:
                        result = WOKEN
            if result == 0 and (rounds >= BOUNDED_ROUNDS if timeout > 0 else self.has_news()):
                result = WOKEN
            if result:
                return result
        raise AssertionError  # rounds have no end

    def look(self) -> int:
        """Tell whether something may move; see ``Loop.look``."""
        if self._broken:
            return 1  # `run` has to say so
        if not self.paused and any(d.stage != TAKING for d in self._directions):
            return 1  # what is parked may: only a send tells
        unsettle(self._sockets.values())
        return self.settle(0)[0]

    def flush(self) -> int:
        """Try once more to send what is parked; see ``Loop.flush``."""
        for direction in self._directions:
            if direction.stage != TAKING:
                result = direction.retry()
                if result < 0:
                    return result
        return 0
