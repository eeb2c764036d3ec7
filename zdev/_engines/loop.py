"""The Python loop: the readable specification of the C loop in csrc/.

It reaches libzmq through a `Binding`, a handful of libzmq's own calls with libzmq's own manners:
-1 means failure, and ``errno()`` says which. The two make the same calls in the same order. Here
are turns, control and waiting, as in csrc/loop.c, whose comments tell what these leave out; what a
turn does is in directions.py.
"""

from __future__ import annotations

import struct

from zdev._contract import FINISHED, STEPPED, WOKEN, Settings

from .binding import Binding
from .directions import (
    CANNOT_SEND,
    DEALER,
    NONE,
    POLLOUT,
    REP,
    ROUTER,
    TAKING,
    Directions,
    Frames,
    Socket,
)

__all__ = ["PythonLoop"]

# Milliseconds after which a doubtful direction is tried again, should its wake-up be lost.
DOUBT_TIMEOUT = 50
# While its time away is bounded, a busy loop returns after so many rounds.
BOUNDED_ROUNDS = 64
# Commands served between two rounds: a flood of them must not stop traffic.
MAX_COMMANDS = 16


class PythonLoop(Directions):
    """One relay's loop in Python, over a binding."""

    def __init__(self, binding: Binding, settings: Settings) -> None:
        super().__init__(binding, settings)
        self._control = self._enter(settings.control) if settings.control else NONE
        self._wakeup_fd = settings.wakeup_fd
        self._terminated = False
        self._since_look = 0
        self._command = Frames()
        self._paused = False
        self._broken = False

    # Control

    @property
    def paused(self) -> bool:
        """Whether traffic is paused."""
        return self._paused

    @paused.setter
    def paused(self, paused: bool) -> None:
        self._paused = paused

    def _answer(self, envelope: int, body: list[bytes]) -> int:
        """Answer on the control socket. A peer that does not take its answer goes without."""
        frames = self._command
        for message in frames.list[envelope:]:
            self._binding.empty(message)
        del frames.list[envelope:]
        for data in body:
            frames.list.append(self._message())
            if data and self._binding.fill(frames.list[-1], data) < 0:
                return 0
        return min(self._send(frames, self._control), 0)

    def _answer_statistics(self, envelope: int) -> int:
        """Answer STATISTICS as libzmq orders them: frames, then bytes."""
        there, back = self._in_out, self._out_in
        counts = (
            (there.frames_received, there.bytes_received),
            (back.frames_sent, back.bytes_sent),
            (back.frames_received, back.bytes_received),
            (there.frames_sent, there.bytes_sent),
        )
        body = [struct.pack("=Q", count) for pair in counts for count in pair]
        return self._answer(envelope, body)

    def _serve_control(self) -> int:
        """Serve one message of the control socket, as zmq_proxy_steerable(3) has it.

        Only its first frame counts, after the envelope that ROUTER and DEALER see. Whoever sent a
        request (REP's peer, or a REQ behind a ROUTER) is answered even when the command is
        unknown, or it could never ask again.
        """
        frames, kind = self._command, self._control.type
        result = self._receive(frames, self._control)
        if result <= 0:
            return result
        result = 0
        count = len(frames.list)
        envelope = 1 if kind == ROUTER else 0
        asked = kind == REP
        if (
            kind in (ROUTER, DEALER)
            and count > envelope + 1
            and self._binding.data(frames.list[envelope]) == b""
        ):
            envelope += 1
            asked = True
        if count > envelope:
            command = self._binding.data(frames.list[envelope])
            if command == b"STATISTICS" and kind not in CANNOT_SEND:
                asked = False
                result = self._answer_statistics(envelope)
            elif command == b"PAUSE":
                self._paused = True
            elif command == b"RESUME":
                self._paused = False
                self._unsettle()
            elif command == b"TERMINATE":
                self._terminated = True
        if asked and result == 0:
            result = self._answer(envelope, [b""])
        self._empty(frames)
        return result if result < 0 else 1

    # Waiting

    def _unsettle(self) -> None:
        for socket in self._sockets:
            socket.settled = False

    def _is_read(self, socket: Socket) -> bool:
        """Tell whether somebody reads the socket now."""
        return socket is self._control or (
            not self._paused
            and any(d.source is socket and d.stage == TAKING for d in self._directions)
        )

    def _settle(self) -> tuple[int, bool]:
        """Settle every socket before blocking.

        Return 1 if something can move after all, 0 if the loop may block, or a negated errno; and
        whether a direction is doubtful.
        """
        waiting = []
        doubtful = False
        for direction in self._directions:
            awaited = NONE if self._paused else self._awaits(direction)
            if awaited is NONE:
                continue
            # A receive may have taken the edge of its POLLOUT.
            awaited.settled = False
            if direction.doubtful or awaited.type == ROUTER:
                doubtful = True
            if not direction.doubtful:
                waiting.append(awaited)
        movable = 0
        for socket in self._sockets:
            if socket.settled or (socket is self._capture and self._capture_dead):
                continue
            events = self._events(socket)
            if events < 0:
                if socket is not self._capture or not self._capture_drop:
                    return events, False
                self._capture_dead = True
                continue
            if not socket.settled and self._is_read(socket):
                movable = 1
            else:
                socket.settled = True
            if events & POLLOUT and socket in waiting:
                movable = 1
        return movable, doubtful

    def _await(self, timeout: int) -> int:
        """Wait until a socket or the wake-up descriptor is readable; with timeout 0, only look."""
        fds = [self._wakeup_fd]
        for socket in self._sockets:
            if not (socket is self._capture and self._capture_dead):
                fds.append(socket.fd)
        self._since_look = 0
        ready = self._binding.poll(fds, timeout)
        if ready is None:
            return WOKEN
        for socket in self._sockets:
            if socket.fd in ready:
                socket.settled = False
        return WOKEN if self._wakeup_fd in ready else 0

    # The loop

    def _round(self) -> int:
        """Give each direction a turn, then control; return how much moved, or a negated errno."""
        moved = 0
        for direction in self._directions:
            if self._paused:
                break
            optional = direction.source is self._capture and self._capture_drop
            if optional and self._capture_dead:
                continue
            result = self._turn(direction)
            if result >= 0:
                moved += result
            elif optional:
                self._capture_dead = True
            else:
                return result
        if self._control is not NONE:
            for _ in range(MAX_COMMANDS):
                if self._control.settled or self._terminated:
                    break
                result = self._serve_control()
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

    def _run(self, timeout: int) -> int:
        self._unsettle()
        rounds = 0
        while True:
            result = 0
            moved = self._round()
            if moved < 0:
                return moved
            if self._terminated:
                self._terminated = False
                return self.flush() or FINISHED
            if moved:
                if timeout == 0:
                    return STEPPED + moved
                if self._since_look >= self._burst:
                    result = self._await(0)
            else:
                result, doubtful = self._settle()
                if result > 0:
                    continue  # something can move after all
                if result == 0:
                    if timeout == 0:
                        return STEPPED
                    blocking = timeout
                    if doubtful and not 0 < timeout < DOUBT_TIMEOUT:
                        blocking = DOUBT_TIMEOUT
                    result = self._await(blocking)
                    if result == 0 and timeout > 0:
                        result = WOKEN
            rounds += 1
            if result == 0 and timeout > 0 and rounds > BOUNDED_ROUNDS:
                result = WOKEN
            if result:
                return result

    def flush(self) -> int:
        """Try once more to send what is parked; see ``Loop.flush``."""
        for direction in self._directions:
            if direction.stage != TAKING:
                result = self._retry(direction)
                if result < 0:
                    return result
        return 0
