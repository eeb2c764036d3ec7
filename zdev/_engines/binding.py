"""How the Python loop reaches libzmq: what a binding must offer, and what several of them share."""

from __future__ import annotations

import time
from typing import Any, Protocol

from zdev._contract import End
from zdev._threads import POLLIN, poll, select

__all__ = ["Binding", "Handle", "Message", "system_clock", "system_poll"]

# A handle to a message or a socket; what it is, only its binding knows.
Message = Any
Handle = Any


class Binding(Protocol):
    """How the Python loop reaches libzmq. A message is initialised from birth to death."""

    def socket(self, end: End) -> Handle:
        """Return what the calls below take for this socket."""

    def message(self) -> Message:
        """Make an empty message."""

    def recv(self, message: Message, socket: Handle, flags: int, /) -> int:
        """zmq_msg_recv(3): the size of the frame, or -1."""

    def send(self, message: Message, socket: Handle, flags: int, /) -> int:
        """zmq_msg_send(3): leave the message empty, or return -1."""

    def more(self, message: Message, /) -> int:
        """zmq_msg_more(3)."""

    def copy(self, to: Message, message: Message, /) -> int:
        """zmq_msg_copy(3): 0 or -1."""

    def size(self, message: Message, /) -> int:
        """zmq_msg_size(3)."""

    def empty(self, message: Message, /) -> None:
        """Release what the message holds."""

    def fill(self, message: Message, data: bytes, /) -> int:
        """Put the data into an empty message: 0 or -1."""

    def data(self, message: Message, /) -> bytes:
        """Return what the message holds."""

    def events(self, socket: Handle, /) -> int:
        """ZMQ_EVENTS of zmq_getsockopt(3), or -1."""

    def errno(self) -> int:
        """zmq_errno(3): why the call before failed."""

    def poll(self, fds: list[int], timeout: int) -> list[int] | None:
        """poll(2) for POLLIN: those that are readable; None when a signal interrupted it."""

    def clock(self) -> int:
        """Milliseconds, from 1 up, of a clock that never goes back."""


def system_clock() -> int:
    """Return the milliseconds of a clock that never goes back."""
    return time.monotonic_ns() // 1_000_000 + 1


def system_poll(fds: list[int], timeout: int) -> list[int]:
    """poll(2) for POLLIN through the standard library, or select(2) where there is no poll."""
    if poll is not None:
        poller = poll()
        for fd in fds:
            poller.register(fd, POLLIN)
        return [fd for fd, _ in poller.poll(timeout)]
    ready, _, _ = select(fds, [], [], None if timeout < 0 else timeout / 1000)
    return list(ready)
