"""The short way of a short message: straight from one call into the next. As in csrc/turn.c.

Without it, short messages take 1.4 to 2.1 times as long: the time goes into keeping account of what
is received, held and sent, though for most messages nothing of this matters, since their
destination takes them at once. All that is to be done with such a message is known before it comes:
which slot each frame goes into, which copies are made, with which flags each is sent. So it is
written down beforehand for each number of frames (`ShortWay.ways`). A turn follows that, and counts
in local variables.

Where anything goes another way than usual, the message leaves this one for good. Its frames are in
the slots of `held` and `copy` already, just as direction.py would have put them there, so that only
their number is to be written down, and direction.py goes on from there.

Without this file the rest is a complete relay: loop.py works with a plain `Direction` as well, only
slower. tests/loops/test_injection.py lets every call fail in both, and sees that they make the same
calls.
"""

from __future__ import annotations

from typing import Any

from .binding import Binding, Message
from .direction import COPY, ROUTER, STREAM, XSUB, Capture, Direction
from .frames import DONTWAIT, INT_MAX, NONE, SNDMORE, XPUB, Socket, insist

__all__ = ["ShortWay"]

# Frames of the longest message that is a short one; its copy may have a prefix more.
MAX_SHORT = 6

Flagged = list[tuple[Message, int]]


def flagged(messages: list[Message]) -> Flagged:
    """Give each frame the flags that it is sent with."""
    last = len(messages) - 1
    return [
        (m, DONTWAIT | SNDMORE if place < last else DONTWAIT) for place, m in enumerate(messages)
    ]


class ShortWay(Direction):
    """A direction whose turns take the short way where they can."""

    __slots__ = ("ways",)

    def __init__(
        self,
        binding: Binding,
        source: Socket,
        destination: Socket,
        capture: Capture,
        prefix: Message | None = None,
        **options: Any,
    ) -> None:
        super().__init__(binding, source, destination, capture, prefix, **options)
        # By the number of frames: each with its flags; each copy with its original; each copy with
        # its flags. What has to be looked at, or goes nowhere, has no short way.
        self.ways: list[tuple[Flagged, list[tuple[Message, Message]], Flagged]] = []
        self.prepare()

    def prepare(self) -> None:
        """Know what to do with so many frames, for each number of them."""
        self.ways.clear()
        if self.destination is NONE or self.destination.type in (XSUB, STREAM):
            return
        if self.source.type == XPUB:
            return
        held, copy = self.held, self.copy
        held.reserve(MAX_SHORT + 1)  # what comes into the last belongs to a longer message
        prefixes = [] if self.prefix is None else [self.prefix]
        for count in range(MAX_SHORT + 1):
            frames = held.slots[:count]
            originals = [*prefixes, *frames] if self.capture.socket is not NONE else []
            copy.reserve(len(originals))
            copies = copy.slots[: len(originals)]
            self.ways.append((flagged(frames), list(zip(copies, originals)), flagged(copies)))

    def step(self, most: int) -> int:
        """Relay messages, short ones straight; return as `Direction.step` does."""
        # What is held here is the beginning of a message.
        if self.ways and self.held.count == 0 and not self.capture.dead:
            return self.turn_short(most)
        return super().step(most)

    def turn_short(self, most: int) -> int:
        """Relay so many short messages at most, or until one does not go straight through."""
        binding = self.binding
        recv, more, send, copy = binding.recv, binding.more, binding.send, binding.copy
        to, capture = self.destination, self.capture.socket
        source, destination, watcher = self.source.handle, to.handle, capture.handle
        slots, swap, ways = self.held.slots, self.held.swap, self.ways
        # With swap, the first two frames are received into each other's places.
        first, *others = [*slots[1::-1], *slots[2:]] if swap else slots
        addressed = swap or to.type == ROUTER
        messages = frames = size = 0

        try:
            while messages < most:
                count = 1
                total = address = recv(first, source, DONTWAIT)
                if total < 0 or total == INT_MAX:
                    return self.turn_any(0, 0, total)
                if more(first):
                    for message in others:
                        got = recv(message, source, DONTWAIT)
                        if got < 0 or got == INT_MAX or count == MAX_SHORT:
                            return self.turn_any(count, total, got)
                        if swap and count == 1:
                            address = got
                        total += got
                        count += 1
                        if not more(message):
                            break

                if addressed and not self.straight(count, address):
                    return self.short_detour(count, total, 0)
                sending, copying, sending_copies = ways[count]
                for message, original in copying:
                    if copy(message, original) < 0:
                        copied = self.copy.slots.index(message) + 1
                        return self.short_detour(count, total, copied)
                to.settled = False
                for message, flags in sending:
                    if send(message, destination, flags) < 0:
                        error = insist(binding, message, to, flags)
                        if error:
                            return self.short_refused(count, total, message, error)
                messages += 1
                frames += count
                size += total
                if sending_copies:
                    capture.settled = False
                    for message, flags in sending_copies:
                        if send(message, watcher, flags) < 0:
                            error = insist(binding, message, capture, flags)
                            if error:
                                return self.short_copy_refused(count, message, error)
                    self.capture.sent += 1
            return 1
        finally:
            self.short_count(messages, frames, size)

    def short_count(self, messages: int, frames: int, size: int) -> None:
        """Count what has gone straight through."""
        self.moved += messages
        self.messages_sent += messages
        self.frames_sent += frames
        self.bytes_sent += size

    def straight(self, count: int, address: int) -> bool:
        """Tell whether a short message may go straight on; `Direction.routable` in short."""
        return count >= 2 and (address > 0 or self.destination.type != ROUTER)

    # What becomes of a short message that does not go straight through. All return as `step` does.

    def turn_any(self, count: int, size: int, got: int) -> int:
        """Go on where the frame behind `count` others was not received as usual."""
        held = self.held
        held.count, held.bytes = count, size
        result = held.take(self.source, got)
        if result <= 0:
            return result
        self.enter(held.count, held.bytes)
        return self.deliver()

    def short_detour(self, count: int, size: int, copied: int) -> int:
        """Go on with what may not go straight on, or what memory is short to copy."""
        self.held.count, self.held.bytes = count, size
        self.enter(count, size)
        if copied:
            self.copied = True
            self.copy.count = copied
            self.copy.empty()
        return self.deliver()

    def short_refused(self, count: int, size: int, frame: Message, error: int) -> int:
        """Go on where the destination did not take a frame."""
        held = self.held
        held.count, held.bytes = count, size
        self.enter(count, size)
        copies = len(self.ways[count][2])
        if copies:
            self.copied = True
            self.copy.count = copies
        return self.conclude(held.refused(held.slots.index(frame), self.destination, error))

    def short_copy_refused(self, count: int, frame: Message, error: int) -> int:
        """Go on where the capture socket did not take a frame of the copy."""
        copy = self.copy
        copy.count = len(self.ways[count][2])
        self.copied = True
        self.stage = COPY
        result = copy.refused(copy.slots.index(frame), self.capture.socket, error)
        return self.copy_conclude(result)
