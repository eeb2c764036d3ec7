"""Who may come in: the handler of ZAP, which libzmq asks of each peer of a CURVE or PLAIN server.

That is RFC 27: libzmq sends its questions to a socket of the same context that is bound to
``inproc://zeromq.zap.01``. There can be one, so it serves all devices of a context, and tells their
sockets apart by their domains.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import zmq
from zmq.utils import z85

from zdev._connections import Complaints, Speaker
from zdev._limits import says_limits
from zdev._secrets import Secret
from zdev._threads import RLock, Thread, await_readable
from zdev._times import PATIENCE
from zdev._voice import write
from zdev._wakeup import Wakeup

__all__ = ["Allowed", "Gate", "enter"]

ENDPOINT = "inproc://zeromq.zap.01"
VERSION = b"1.0"
PREFIX = b"zdev-"
"""Of the domains of gates."""

# What comes in front of the credentials: client, nothing, version, request, domain, address,
# routing id, mechanism.
HEAD = 8

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Allowed:
    """Who is let in at a socket: by public keys, or by names and passwords."""

    mechanism: str
    """ "CURVE" or "PLAIN"; nobody comes in by another."""
    keys: frozenset[bytes] = frozenset()
    """Of 32 bytes each, as libzmq tells them."""
    passwords: Mapping[bytes, Secret] = field(default_factory=dict)

    def user(self, mechanism: bytes, credentials: Sequence[bytes]) -> bytes | None:
        """Return what somebody with these credentials is called; None if he is not let in."""
        if mechanism.decode(errors="replace") != self.mechanism:
            return None
        if self.mechanism == "CURVE":
            (key,) = credentials
            return z85.encode(key) if key in self.keys else None
        import hmac  # it takes its time, and few programs have passwords

        name, password = credentials
        known = self.passwords.get(name)
        is_right = hmac.compare_digest(bytes(known or b""), password)
        return name if is_right and known is not None else None

    def described(self, mechanism: bytes, credentials: Sequence[bytes]) -> str:
        """Say who has come with these credentials, without what may be a secret."""
        if mechanism == b"CURVE":
            return f"CURVE, public key {z85.encode(credentials[0]).decode()}"
        if mechanism == b"PLAIN" and credentials[0] in self.passwords:
            return f"PLAIN, {credentials[0].decode(errors='replace')!r} with another password"
        if mechanism == b"PLAIN":
            return "PLAIN, with a user name that is not known"  # it may be a password
        return mechanism.decode(errors="replace")


class Gate:
    """The way in at one socket: its domain of ZAP, and who is let in there.

    Attributes
    ----------
    allowed : Allowed
        May be replaced at any time, from any thread; whoever is in stays in.
    """

    def __init__(self, handler: _Handler, allowed: Allowed, speaker: Speaker, role: str) -> None:
        self.domain = PREFIX + b"%d" % next(_numbers)
        self.allowed = allowed
        self._handler = handler
        self._speaker = speaker
        self._role = role
        self._complaints = Complaints(speaker)

    def user(self, address: str, mechanism: bytes, credentials: Sequence[bytes]) -> bytes | None:
        """Return what somebody is called; None if he is not let in, which is told."""
        allowed = self.allowed
        user = allowed.user(mechanism, credentials)
        if user is None:
            who = allowed.described(mechanism, credentials)
            self._complaints.warn(f"{self._role} has refused {address or 'a local peer'}: {who}")
        return user

    def leave(self) -> None:
        """Let nobody in any more. The socket is closed: else it would not know whom to ask."""
        self._complaints.end()
        with _lock:
            self._handler.gates.pop(self.domain, None)
            if not self._handler.gates:
                self._handler.end()


def enter(context: zmq.Context[Any], allowed: Allowed, speaker: Speaker, role: str) -> Gate:
    """Make the gate of a socket, which is to have its domain, and the context's handler.

    Raises
    ------
    RuntimeError
        If the context has a handler that is not zdev's.
    zmq.ZMQError, OSError
        If there can be no handler.
    """
    with _lock:
        handler = _handlers.get(context.underlying)
        if handler is not None and handler.is_over:
            handler.end()  # it has failed, and may still be at it
            handler = None
        if handler is None:
            handler = _Handler(context)
            _handlers[context.underlying] = handler
        gate = Gate(handler, allowed, speaker, role)
        handler.gates[gate.domain] = gate
        return gate


class _Handler:
    """Answers the questions of one context, in a thread, as long as there are gates."""

    name = "the ZAP handler"
    log = staticmethod(write)  # not the logger's own, whose locks may be gevent's

    def __init__(self, context: zmq.Context[Any]) -> None:
        self.gates: dict[bytes, Gate] = {}
        self.is_over = False
        self._key = context.underlying
        self._complaints = Complaints(self)
        self._wakeup = Wakeup()
        self._thread = Thread(target=self._serve, name="zdev-zap", daemon=True)
        try:
            with says_limits(context):
                # Not by the context's own method: context.destroy() would close it too soon.
                self._socket: zmq.Socket[bytes] = zmq.Socket(context, zmq.ROUTER)
            self._socket.linger = 0
            self._bind()
            self._thread.start()
        except BaseException:
            self.is_over = True
            self._wakeup.wake()  # for a thread that has come to run all the same
            if self._thread.ident is None:
                self._close()
            raise

    def _bind(self) -> None:
        try:
            self._socket.bind(ENDPOINT)
        except zmq.ContextTerminated:
            raise
        except zmq.ZMQError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise RuntimeError(
                "the context has a ZAP handler already, such as pyzmq's ThreadAuthenticator, and "
                "can have one only: stop that; or leave the list to it, with setsockopt of "
                "ZAP_DOMAIN instead of allow; or give the device a context of its own, by "
                "context_factory = zmq.Context"
            ) from error

    def _serve(self) -> None:
        """Answer, until the last gate is left."""
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._wakeup.waited_fd, zmq.POLLIN)
        try:
            while not self.is_over:
                poller.poll()
                self._answer_all()
        except zmq.ContextTerminated:
            # The name stays taken until the devices have closed their sockets.
            while not self.is_over:
                await_readable([self._wakeup.waited_fd])
        finally:
            self.is_over = True
            self._close()

    def _close(self) -> None:
        if hasattr(self, "_socket"):
            # Its name is free at once; that of a socket that is only closed, some time after.
            with contextlib.suppress(zmq.ZMQError):  # the context is terminated, or it has none
                self._socket.unbind(ENDPOINT)
            self._socket.close()
        self._wakeup.close()

    def _answer_all(self) -> None:
        while not self.is_over:
            try:
                question = self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            answer = self._answer(question)
            if answer:
                self._socket.send_multipart(answer, zmq.DONTWAIT)

    def _answer(self, question: list[bytes]) -> list[bytes]:
        """Return the frames of an answer; none for what is no question."""
        request = question[3] if len(question) > 3 else b""
        try:
            user = self._user(question)
            status = (b"400", b"Not allowed", b"") if user is None else (b"200", b"OK", user)
        except Exception as error:  # libzmq asks rightly: somebody in this process is at it
            self._complaints.warn(f"a malformed question, {type(error).__name__}")
            status = b"500", b"Malformed", b""
        return [*question[:1], b"", VERSION, request, *status, b""] if request else []

    def _user(self, question: list[bytes]) -> bytes | None:
        head, credentials = question[:HEAD], question[HEAD:]
        _, nothing, version, _, domain, address, _, mechanism = head
        if nothing or version != VERSION:
            raise ValueError
        gate = self.gates.get(domain)
        if gate is not None:
            return gate.user(address.decode(errors="replace"), mechanism, credentials)
        if not domain and mechanism != b"PLAIN":
            return b""  # a socket without a list, where libzmq would let him in without a handler
        if not domain.startswith(PREFIX):  # else it is that of a socket that was just closed
            self._complaints.warn(
                f"the domain {domain.decode(errors='replace')!r} is nobody's here"
            )
        return None

    def end(self) -> None:
        """End the thread, and leave the context without a handler."""
        if _handlers.get(self._key) is self:
            del _handlers[self._key]
        self.is_over = True
        self._wakeup.wake()
        self._thread.join(PATIENCE)
        self._complaints.end()


_handlers: dict[int, _Handler] = {}
"""By the number of their context."""

_lock = RLock()

_of_parents: list[Any] = []
"""What a fork left here of its parent's handlers. It is never touched: it was caught in the act."""


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 - its owner is not here
    _lock = RLock()
    _of_parents.extend(_handlers.values())
    _handlers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
