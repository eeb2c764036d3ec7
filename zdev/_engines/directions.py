"""One direction of the Python loop: take, send, park, swap, copy. Its twin is csrc/relay.c.

Where the comments here are short, those there tell the rest. What a device does is told by
`_receive`, `_deliver` and what they call; `_turn_short` does the same for a short message that goes
straight through, without their bookkeeping, and leaves the rest to them.
"""

from __future__ import annotations

import errno

import zmq

from zdev._contract import CaptureStatistics, DirectionStatistics, End, Settings, Statistics

from .binding import Binding, Handle, Message

__all__ = ["NONE", "Direction", "Directions", "Frames", "Socket"]

DONTWAIT = int(zmq.DONTWAIT)
SNDMORE = int(zmq.SNDMORE)
DONTWAIT_SNDMORE = DONTWAIT | SNDMORE
POLLIN = int(zmq.POLLIN)
POLLOUT = int(zmq.POLLOUT)
EAGAIN, EINTR, EFSM, EHOSTUNREACH = errno.EAGAIN, errno.EINTR, int(zmq.EFSM), errno.EHOSTUNREACH

PAIR, REP, DEALER, ROUTER = int(zmq.PAIR), int(zmq.REP), int(zmq.DEALER), int(zmq.ROUTER)
XPUB, XSUB, STREAM = int(zmq.XPUB), int(zmq.XSUB), int(zmq.STREAM)
CANNOT_SEND = (int(zmq.SUB), int(zmq.PULL))
CANNOT_RECEIVE = (int(zmq.PUB), int(zmq.PUSH))
# What goes there is looked at more closely.
LOOKED_AT = (STREAM, XSUB)

# What zmq_msg_recv(3) returns at most.
INT_MAX = 2**31 - 1
# Bytes of the longest topic that an XSUB is given.
MAX_SUBSCRIPTION = 1024
# What a frame begins with that makes or cancels a subscription: a byte, or a command of ZMTP, which
# libzmq lets through.
SUBSCRIBES = (b"\0", b"\1", b"\6CANCEL", b"\11SUBSCRIBE")
# Messages kept for reuse.
MAX_SPARE = 64
# Frames of the longest message that is a short one; its copy may have a prefix more.
MAX_SHORT = 6

# What became of a message that was handed to a socket; a failure is its negated errno.
REFUSED, DONE, UNROUTABLE, LOST = 0, 1, 2, 3
# Where the message of a direction is.
TAKING, HELD, COPY = 0, 1, 2


class Socket:
    """A socket and what is known of its descriptor; see zdev_socket in csrc/relay.h."""

    __slots__ = ("fd", "handle", "settled", "type")

    def __init__(self, handle: Handle, type_: int, fd: int) -> None:
        self.handle = handle
        self.type = type_
        self.fd = fd
        self.settled = False


NONE = Socket(None, -1, -1)
"""Stands for the capture or control socket that a relay does not have."""


class Frames:
    """The frames of one message; with swap, a whole one has the second before the first."""

    __slots__ = ("bytes", "head", "lent", "list", "swap")

    def __init__(self, swap: bool = False) -> None:
        self.list: list[Message] = []
        self.head = [0, 0]  # the sizes of the first two
        self.bytes = 0
        self.swap = swap
        self.lent = False  # they are those of a lane, which keeps them

    def lend(self, messages: list[Message], head: tuple[int, int] = (0, 0), size: int = 0) -> None:
        """Begin with messages of a lane, in the order in which they were received."""
        self.list = messages
        self.head[:] = head
        self.bytes = size
        self.lent = bool(messages)

    def complete(self) -> None:
        """Put the frames, now that all are there, into the order in which they are sent on."""
        if self.swap:
            self.list[:2] = self.list[1::-1]
            self.head.reverse()


class Direction:
    """One way through the device; the two ways differ in data alone."""

    __slots__ = (
        "bytes_received",
        "bytes_sent",
        "copied",
        "copy",
        "destination",
        "doubtful",
        "dropped",
        "frames_received",
        "frames_sent",
        "held",
        "lane",
        "messages_received",
        "messages_sent",
        "prefix",
        "source",
        "stage",
        "unroutable",
    )

    def __init__(
        self,
        source: Socket,
        destination: Socket | None,
        prefix: Message | None = None,
        swap: bool = False,
    ) -> None:
        self.source = source
        self.destination = destination  # None: a sink, what it takes is counted dropped
        self.prefix = prefix
        self.stage = TAKING
        self.held = Frames(swap)
        self.copy = Frames()
        self.copied = False
        self.doubtful = False  # POLLOUT was shown, yet the send refused
        self.lane: Lane | None = None
        self.messages_received = self.frames_received = self.bytes_received = 0
        self.messages_sent = self.frames_sent = self.bytes_sent = 0
        self.dropped = self.unroutable = 0

    def statistics(self) -> DirectionStatistics:
        return DirectionStatistics(
            self.messages_received,
            self.frames_received,
            self.bytes_received,
            self.messages_sent,
            self.frames_sent,
            self.bytes_sent,
            self.dropped,
            self.unroutable,
            int(self.stage == HELD),
        )


class Lane:
    """Empty messages for a short message and its copy."""

    __slots__ = ("copies", "frames", "received", "ways")

    def __init__(
        self, binding: Binding, swap: bool, captures: bool, prefix: Message | None
    ) -> None:
        # In the order in which they are sent on, and received. What comes into the last belongs to
        # a message that is not short.
        self.frames = [binding.message() for _ in range(MAX_SHORT + 1)]
        self.received = [*self.frames[1::-1], *self.frames[2:]] if swap else self.frames
        prefixes = [] if prefix is None else [prefix]
        originals = [*prefixes, *self.frames[:MAX_SHORT]] if captures else []
        self.copies = [binding.message() for _ in originals]
        # By the number of frames: each with the flags to send it; each copy with its original, and
        # with the flags to send it.
        self.ways = []
        for count in range(MAX_SHORT + 1):
            copies = self.copies[: len(prefixes) + count]
            way = flagged(self.frames[:count]), list(zip(copies, originals)), flagged(copies)
            self.ways.append(way)


def flagged(messages: list[Message]) -> list[tuple[Message, int]]:
    """Give each frame the flags that it is sent with."""
    last = len(messages) - 1
    return [(m, DONTWAIT_SNDMORE if place < last else DONTWAIT) for place, m in enumerate(messages)]


def peer_error(error: int) -> bool:
    """Tell whether the error speaks of the peer, not of the socket."""
    return error in (EAGAIN, EHOSTUNREACH)


class Directions:
    """The sockets of one relay, and what moves messages between them."""

    def __init__(self, binding: Binding, settings: Settings) -> None:
        self._binding = binding
        self._burst = settings.burst
        self._capture_drop = settings.capture_drop
        self._capture_dead = False
        self._capture_sent = self._capture_dropped = 0
        self._spare: list[Message] = []
        self._sockets: list[Socket] = []

        source, destination = self._enter(settings.frontend), self._enter(settings.backend)
        self._capture = self._enter(settings.capture) if settings.capture else NONE

        # Both ways are kept for their counters; those that cannot be have no turn.
        self._in_out = self._way(source, destination, settings.in_prefix, settings.swap)
        self._out_in = self._way(destination, source, settings.out_prefix, settings.swap)
        self._directions = [self._in_out, self._out_in]
        if source is destination:
            self._directions.pop()
        elif source.type == REP:
            # What nobody asked a REP for goes before it takes a request, lest it becomes the reply.
            self._directions.reverse()
        self._directions = [d for d in self._directions if d.source.type not in CANNOT_RECEIVE]
        if self._capture.type == XPUB:
            # its peers' subscriptions would pile up unread
            self._directions.append(Direction(self._capture, None))

    def _enter(self, end: End) -> Socket:
        """Enter a socket once; two ends may be the same socket."""
        handle = self._binding.socket(end)
        for socket in self._sockets:
            if socket.fd == end.fd:
                return socket
        self._sockets.append(Socket(handle, end.type, end.fd))
        return self._sockets[-1]

    def _way(self, source: Socket, to: Socket, prefix: bytes | None, swap: bool) -> Direction:
        message = None
        if prefix is not None:
            message = self._binding.message()
            if self._binding.fill(message, prefix) < 0:
                raise MemoryError("no memory for a prefix")
        direction = Direction(source, None if to.type in CANNOT_SEND else to, message, swap)
        if direction.destination is not None and to.type not in LOOKED_AT:
            direction.lane = Lane(self._binding, swap, self._capture is not NONE, message)
        return direction

    # Messages

    def _message(self) -> Message:
        return self._spare.pop() if self._spare else self._binding.message()

    def _forget(self, frames: Frames) -> None:
        """Forget a message whose frames are empty."""
        if len(self._spare) < MAX_SPARE and not frames.lent:
            self._spare += frames.list[:MAX_SPARE]
        frames.lent = False
        frames.list = []
        frames.bytes = 0

    def _empty(self, frames: Frames) -> None:
        """Discard a message."""
        for message in frames.list:
            self._binding.empty(message)
        self._forget(frames)

    def _receive(self, frames: Frames, source: Socket) -> int:
        """Receive the frames of one message, or the rest of them; 1 when it is whole, 0 if not."""
        message = self._message()
        size = self._binding.recv(message, source.handle, DONTWAIT)
        return self._take(frames, source, message, size)

    def _take(self, frames: Frames, source: Socket, message: Message, size: int) -> int:
        """Go on with a message as `_receive`, after the receive of this frame."""
        binding = self._binding
        while True:
            if size < 0:
                error = binding.errno()
                if error != EINTR:
                    if not frames.lent:
                        self._spare.append(message)
                    if error == EAGAIN:
                        source.settled = True
                        return 0
                    return 0 if error == EFSM else -error  # REQ, REP: not its turn
            else:
                if size == INT_MAX:  # zmq_msg_recv(3) gives no more than an int holds
                    size = binding.size(message)
                if len(frames.list) < 2:
                    frames.head[len(frames.list)] = size
                frames.list.append(message)
                frames.bytes += size
                if not binding.more(message):
                    frames.complete()
                    return 1
                message = self._message()
            size = binding.recv(message, source.handle, DONTWAIT)

    def _send_frame(self, message: Message, to: Socket, flags: int) -> int:
        """Send one frame, again if a signal came in between; 0 or the errno."""
        if self._binding.send(message, to.handle, flags | DONTWAIT) < 0:
            return self._insist(message, to, flags | DONTWAIT)
        return 0

    def _insist(self, message: Message, to: Socket, flags: int) -> int:
        """Go on with a frame as `_send_frame`, after a send of it has failed."""
        binding = self._binding
        while True:
            error = binding.errno()
            if error != EINTR:
                return error
            if binding.send(message, to.handle, flags) >= 0:
                return 0

    def _send(self, frames: Frames, to: Socket) -> int:
        """Send the frames as one message.

        Unless it is REFUSED or fails at the first frame, none is left. The high-water mark counts
        messages, so only the first frame can meet it; after that only a vanishing peer refuses.
        """
        to.settled = False
        error = self._send_frame(frames.list[0], to, SNDMORE if len(frames.list) > 1 else 0)
        return self._sent(frames, to, 0, error)

    def _sent(self, frames: Frames, to: Socket, place: int, error: int) -> int:
        """Go on with a message as `_send`, after the send of this frame."""
        if error and place == 0:
            # Out of turn, a REQ will take it later; a REP never: what nobody asked for must not
            # become the reply to the next request.
            if error == EAGAIN or (error == EFSM and to.type != REP):
                return REFUSED
            return UNROUTABLE if error in (EHOSTUNREACH, EFSM) else -error
        order = frames.list
        last = len(order) - 1
        result = DONE
        while True:
            if error:
                self._binding.empty(order[place])
                result = LOST if peer_error(error) else -error
                error = 0
            if place == last:
                break
            place += 1
            if result < 0 or (result == LOST and to.type == PAIR):
                # A PAIR's next peer would take the rest for a message of its own.
                self._binding.empty(order[place])
            else:
                # The others wait for the message's end, and swallow what comes until then.
                error = self._send_frame(order[place], to, SNDMORE if place < last else 0)
        self._forget(frames)
        return result

    # Directions

    def _routable(self, direction: Direction, kind: int) -> bool:
        """Tell whether a destination of this type can route the message at all."""
        held = direction.held
        count = len(held.list)
        if kind == ROUTER:
            return count >= 2 and held.head[0] > 0
        if kind == STREAM:
            return count == 2 and held.head[0] > 0
        return count >= 2 or not held.swap

    def _harmful(self, frames: Frames, kind: int) -> bool:
        """Tell whether it would harm a destination of this type.

        An XSUB keeps subscriptions in a tree with a level for each byte, which libzmq descends by
        recursion: it overflows the stack for one of 100 KB, which any subscriber behind an XPUB can
        send.
        """
        if kind != XSUB or frames.bytes <= 1 + MAX_SUBSCRIPTION:
            return False
        binding = self._binding
        return any(
            binding.size(message) > 1 + MAX_SUBSCRIPTION
            and binding.data(message).startswith(SUBSCRIBES)
            for message in frames.list
        )

    def _make_copy(self, direction: Direction) -> None:
        """Copy `[prefix, frames as sent on]`."""
        direction.copied = True
        if self._capture_dead:
            return
        originals = direction.held.list
        if direction.prefix is not None:
            originals = [direction.prefix, *originals]
        copies = direction.copy.list
        for original in originals:
            message = self._message()
            copies.append(message)
            if self._binding.copy(message, original) < 0:
                self._empty(direction.copy)
                return

    def _send_copy(self, direction: Direction) -> int:
        """Give the capture socket its copy; 1 when the direction is free, 0 when it waits."""
        result = LOST
        if direction.copy.list and not self._capture_dead:
            result = self._send(direction.copy, self._capture)
        return self._copy_sent(direction, result)

    def _copy_sent(self, direction: Direction, result: int) -> int:
        """Account for a copy after its `_send`, and return as `_send_copy`."""
        if result < 0 and self._capture_drop:
            self._capture_dead = True
        elif result < 0 or (result == REFUSED and not self._capture_drop):
            return result
        if result == DONE:
            self._capture_sent += 1
        else:
            self._capture_dropped += 1
            self._empty(direction.copy)
        direction.copied = False
        direction.stage = TAKING
        return 1

    def _discard(self, direction: Direction) -> int:
        """Let the held message go nowhere; the caller has counted it. Return 1 or a negated errno.

        To a REP it was a request, and it takes no other before it has replied: with an empty frame,
        since nobody else will.
        """
        self._empty(direction.held)
        if direction.copied:
            self._empty(direction.copy)
            direction.copied = False
        direction.stage = TAKING
        source = direction.source
        if source.type == REP:
            source.settled = False
            reply = self._message()
            error = self._send_frame(reply, source, 0)
            self._spare.append(reply)
            if error and error != EFSM and not peer_error(error):
                return -error
        return 1

    def _deliver(self, direction: Direction) -> int:
        """Take what is held a step further; 1 when the direction is free, 0 when it waits."""
        if direction.stage == HELD:
            held = direction.held
            destination = direction.destination
            if destination is None:
                direction.dropped += 1
                return self._discard(direction)
            if not self._routable(direction, destination.type):
                direction.unroutable += 1
                return self._discard(direction)
            if self._harmful(held, destination.type):
                direction.dropped += 1
                return self._discard(direction)
            if self._capture is not NONE and not direction.copied:
                self._make_copy(direction)
            frames, size = len(held.list), held.bytes
            return self._delivered(direction, self._send(held, destination), frames, size)
        return self._send_copy(direction)

    def _delivered(self, direction: Direction, result: int, frames: int, size: int) -> int:
        """Account for a message after its `_send`, and go on as `_deliver`."""
        if result == REFUSED:
            return 0
        if result == UNROUTABLE:
            direction.unroutable += 1
            return self._discard(direction)
        if result == LOST:
            direction.dropped += 1
            return self._discard(direction)
        if result < 0:
            if not direction.held.list:
                direction.dropped += 1
                self._discard(direction)
            return result
        direction.messages_sent += 1
        direction.frames_sent += frames
        direction.bytes_sent += size
        if self._capture is NONE:
            direction.stage = TAKING
            return 1
        direction.stage = COPY
        return self._send_copy(direction)

    def _awaits(self, direction: Direction) -> Socket:
        """Return the socket that a parked direction waits for."""
        if direction.stage == HELD and direction.destination is not None:
            return direction.destination
        return self._capture if direction.stage == COPY else NONE

    def _retry(self, direction: Direction) -> int:
        """Try what is parked again; 1 when the direction is free, else 0."""
        stage = direction.stage
        awaited = self._awaits(direction)
        events = self._events(awaited)
        if events < 0:
            return events
        shown = bool(events & POLLOUT)
        if not shown and awaited.type != ROUTER:  # which shows none for a peer that is gone
            return 0
        result = self._deliver(direction)
        direction.doubtful = shown and result == 0 and direction.stage == stage
        if result == 1:
            direction.source.settled = False
        return result

    def _turn(self, direction: Direction) -> int:
        """Relay a burst at most; return how many messages moved."""
        source = direction.source
        moved = 0
        if direction.stage != TAKING:
            stage = direction.stage
            result = self._retry(direction)
            if result < 0:
                return result
            moved = int(direction.stage != stage)
            if result == 0:
                return moved
        while not source.settled and moved < self._burst:
            lane, to = direction.lane, direction.destination
            # What is held here is the beginning of a message.
            if lane and to and not direction.held.list and not self._capture_dead:
                before = direction.messages_received
                result = self._turn_short(direction, lane, to, self._burst - moved)
                moved += direction.messages_received - before
            else:
                result = self._receive(direction.held, source)
                if result == 1:
                    self._hold(direction)
                    moved += 1
                    result = self._deliver(direction)
            if result <= 0:
                return result or moved
        return moved

    def _turn_short(self, direction: Direction, lane: Lane, to: Socket, most: int) -> int:
        """Relay short messages straight from one call into the next.

        What does not go straight through is left to one of the functions that follow, with what is
        known of it by then. All return 1 if the direction is free for another message, else 0 or a
        negated errno.
        """
        binding = self._binding
        recv, more, send, copy = binding.recv, binding.more, binding.send, binding.copy
        capture = self._capture
        source, destination, watcher = direction.source.handle, to.handle, capture.handle
        held, frames, received = direction.held, lane.frames, lane.received
        ways = lane.ways
        first, second = received[:2]
        router, swap = to.type == ROUTER, held.swap
        addressed = router or swap
        messages = all_frames = all_bytes = 0

        while messages < most:
            count, two = 1, 0
            one = size = recv(first, source, DONTWAIT)
            if one < 0 or one == INT_MAX:
                self._pass(direction, messages, all_frames, all_bytes)
                held.lend([])
                return self._leave_taking(direction, first, one)
            if more(first):
                two = recv(second, source, DONTWAIT)
                if two < 0 or two == INT_MAX:
                    self._pass(direction, messages, all_frames, all_bytes)
                    held.lend(received[:1], (one, 0), one)
                    return self._leave_taking(direction, second, two)
                count = 2
                size += two
                message = second
                while more(message):
                    message = frames[count]
                    got = recv(message, source, DONTWAIT)
                    if got < 0 or got == INT_MAX or count == MAX_SHORT:
                        self._pass(direction, messages, all_frames, all_bytes)
                        held.lend(received[:count], (one, two), size)
                        return self._leave_taking(direction, message, got)
                    count += 1
                    size += got

            if addressed and (count < 2 or (router and not (two if swap else one))):
                self._pass(direction, messages, all_frames, all_bytes)
                held.lend(received[:count], (one, two), size)
                return self._leave_whole(direction, [])
            sending, copying, sending_copies = ways[count]
            for target, original in copying:
                if copy(target, original) < 0:
                    self._pass(direction, messages, all_frames, all_bytes)
                    held.lend(received[:count], (one, two), size)
                    return self._leave_whole(
                        direction, lane.copies[: lane.copies.index(target) + 1]
                    )

            to.settled = False
            for message, flags in sending:
                if send(message, destination, flags) < 0:
                    error = self._insist(message, to, flags)
                    if error:
                        self._pass(direction, messages, all_frames, all_bytes)
                        held.lend(received[:count], (one, two), size)
                        place = frames.index(message)
                        copies = lane.copies[: len(copying)]
                        return self._leave_sending(direction, to, copies, place, error)
            messages += 1
            all_frames += count
            all_bytes += size
            if sending_copies:
                capture.settled = False
                for message, flags in sending_copies:
                    if send(message, watcher, flags) < 0:
                        error = self._insist(message, capture, flags)
                        if error:
                            self._pass(direction, messages, all_frames, all_bytes)
                            place = lane.copies.index(message)
                            copies = lane.copies[: len(copying)]
                            return self._leave_copy(direction, copies, place, error)
                self._capture_sent += 1
        self._pass(direction, messages, all_frames, all_bytes)
        return 1

    def _pass(self, direction: Direction, messages: int, frames: int, size: int) -> None:
        """Count what has gone straight through."""
        direction.messages_received += messages
        direction.frames_received += frames
        direction.bytes_received += size
        direction.messages_sent += messages
        direction.frames_sent += frames
        direction.bytes_sent += size

    def _leave_taking(self, direction: Direction, message: Message, size: int) -> int:
        """Go on where the next frame of a message was not received as usual."""
        held = direction.held
        held.lent = True
        result = self._take(held, direction.source, message, size)
        if result == 1:
            self._hold(direction)
            return self._deliver(direction)
        held.lent = bool(held.list)
        return result

    def _leave_whole(self, direction: Direction, copies: list[Message]) -> int:
        """Go on with what may not go straight on, or what memory is short to copy."""
        direction.held.complete()
        self._hold(direction)
        if copies:
            self._lend_copy(direction, copies)
            self._empty(direction.copy)
        return self._deliver(direction)

    def _leave_sending(
        self, direction: Direction, to: Socket, copies: list[Message], place: int, error: int
    ) -> int:
        """Go on where the destination did not take a frame."""
        held = direction.held
        held.complete()
        self._hold(direction)
        if copies:
            self._lend_copy(direction, copies)
        frames, size = len(held.list), held.bytes
        return self._delivered(direction, self._sent(held, to, place, error), frames, size)

    def _leave_copy(
        self, direction: Direction, copies: list[Message], place: int, error: int
    ) -> int:
        """Go on where the capture socket did not take a frame of the copy."""
        self._lend_copy(direction, copies)
        direction.stage = COPY
        return self._copy_sent(direction, self._sent(direction.copy, self._capture, place, error))

    def _lend_copy(self, direction: Direction, copies: list[Message]) -> None:
        """Let what is in the lane be the copy."""
        direction.copied = True
        direction.copy.lend(copies)

    def _hold(self, direction: Direction) -> None:
        """Count what has been received as held."""
        direction.messages_received += 1
        direction.frames_received += len(direction.held.list)
        direction.bytes_received += direction.held.bytes
        direction.stage = HELD

    def _events(self, socket: Socket) -> int:
        """Process the socket's commands and return its ZMQ_EVENTS.

        It stays unsettled if it can be read, for whoever reads it.
        """
        while True:
            events = self._binding.events(socket.handle)
            if events >= 0:
                socket.settled = not events & POLLIN
                return events
            error = self._binding.errno()
            if error != EINTR:
                return -error

    def statistics(self) -> Statistics:
        """Return the counters."""
        ways = (self._in_out, self._out_in)
        return Statistics(
            self._in_out.statistics(),
            self._out_in.statistics(),
            CaptureStatistics(
                self._capture_sent, self._capture_dropped, sum(w.stage == COPY for w in ways)
            ),
        )
