"""A libzmq in memory, whose every call can be made to fail.

`ScriptedLibzmq` fills the function table that a relay loop is given (`zdev_libzmq` in csrc/zdev.h)
with sockets that do what libzmq's do, the awkward parts above all:

- A peer never touches a socket: it posts a command, which takes effect when the socket processes
  it. ZMQ_FD is readable while commands wait, and whatever processes them takes that away: a
  receive that finds nothing, a look at ZMQ_EVENTS, and now and then a send (libzmq throttles it;
  here `throttled` says whether sends do it never or always).
- A message that comes before its reader has found the pipe empty posts no command at all.
- Time passes only while the loop blocks in poll(2): each time that it would, the next entry of
  `script` happens. Entries of `before` happen at a certain call, entries of `faults` make it fail.

What a loop must never do is a violation: to touch a `zmq_msg_t` that is not initialised or was
moved, to close one twice or never, to send a frame before its message is whole, to receive or send
without DONTWAIT, to ask a socket what its type cannot do, to block in the middle of a message,
and to poll again and again while nothing moves. After the first one every call fails, so that the
loop ends; `check` and `check_closed` report it.
"""

from __future__ import annotations

import ctypes
import errno
import select
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Callable, NamedTuple

import zmq

from zdev._contract import WOKEN, End, Loop, Settings
from zdev.testing.model import CANNOT_RECEIVE, CANNOT_SEND, Type

EAGAIN, EINTR, ENOMEM, EHOSTUNREACH = errno.EAGAIN, errno.EINTR, errno.ENOMEM, errno.EHOSTUNREACH
EFSM, ETERM, ENOTSOCK = int(zmq.EFSM), int(zmq.ETERM), errno.ENOTSOCK

DONTWAIT, SNDMORE = 1, 2
POLLIN, POLLOUT = 1, 2
EVENTS = 15

MESSAGE_SIZE = 64
# Polls in a row that may return without anything having moved since the first.
MAX_IDLE_POLLS = 4
# Calls after which a schedule of a handful of messages has gone astray.
MAX_CALLS = 5000

WAKEUP_FD = 1

# Tables that may still be called: PyPy frees a loop when it likes, and the table must outlive it.
_in_use: set[ScriptedLibzmq] = set()
# Those whose messages were all closed. They go a little later: the last close must return first.
_done: list[ScriptedLibzmq] = []

# Types that lose a message rather than refuse it, and types whose first frame is an address.
LOSSY = {Type.ROUTER, Type.REP, Type.PUB, Type.XPUB, Type.XSUB}
ADDRESSED = {Type.ROUTER, Type.STREAM}

# Up to this size, a zmq_msg_t holds its data itself: 29 in libzmq 4.1, 33 since.
INLINE_SIZE = 29


def errno_name(number: int) -> str:
    """Return the name of an error number."""
    names = {EFSM: "EFSM", ETERM: "ETERM", **errno.errorcode}
    return names.get(number, str(number))


class Failure(Exception):
    """A call fails with this error number."""

    def __init__(self, number: int) -> None:
        super().__init__(errno_name(number))
        self.number = number


class Violation(Exception):
    """The loop did what it must never do."""


class Call(NamedTuple):
    """A call that can fail, and how it went."""

    name: str
    socket: str
    asked: Any
    result: Any
    errors: tuple[int, ...]
    """The error numbers that libzmq could have given."""

    def __str__(self) -> str:
        return f"{self.name} {self.socket} {self.asked} -> {self.result}"


class Incoming:
    """A message on its way into the device."""

    def __init__(self, frames: Iterable[bytes]) -> None:
        self.left = deque(frames)


class Message:
    """The content of a zmq_msg_t."""

    def __init__(self, data: bytes = b"", origin: Incoming | None = None) -> None:
        self.size = len(data)
        self.origin = origin
        self.more = bool(origin and origin.left)
        self._data = data
        self._buffer: ctypes.Array[ctypes.c_char] | None = None

    @property
    def data(self) -> bytes:
        """Its bytes, also those that the loop has written."""
        return self._buffer.raw[: self.size] if self._buffer else self._data

    @property
    def address(self) -> int:
        """Where the loop may read and write it."""
        if self._buffer is None:
            self._buffer = ctypes.create_string_buffer(self._data, self.size + 1)
        return ctypes.addressof(self._buffer)


class Socket:
    """A socket of the device. Peers use `deliver` and `make_room`, and see what `arrived`.

    Parameters
    ----------
    room
        How many messages it takes until its peers are full; None for no limit.
    peers
        For a ROUTER or STREAM, the routing ids that exist; None for every one.
    mandatory
        ZMQ_ROUTER_MANDATORY, or for XPUB and PUB ZMQ_XPUB_NODROP.
    """

    def __init__(
        self,
        libzmq: ScriptedLibzmq,
        kind: Type,
        name: str,
        *,
        room: int | None = None,
        peers: set[bytes] | None = None,
        mandatory: bool = False,
    ) -> None:
        number = len(libzmq.sockets) + 1
        self.handle = number * 0x1000
        self.fd = 1000 + number
        self.kind = kind
        self.name = name
        self.arrived: list[list[bytes]] = []
        self.closed = False
        self.told = False  # that the context was terminated
        self._libzmq = libzmq
        self._room = room
        self._peers = peers
        self._mandatory = mandatory or kind == Type.STREAM
        self._commands: deque[Callable[[], None]] = deque()
        self._inbox: deque[Incoming] = deque()
        self._awake = True  # has not found the inbox empty since the last command
        self._late = False  # what is in the inbox is still on its way
        self._full = False  # whatever the room
        self._reading = False  # in the middle of a message
        self._partial: list[bytes] = []  # the beginning of a message
        self._dropping = False  # swallowing the rest of a message whose peer is gone
        self._answering = False  # REP: a request was received; REQ: one was sent

    @property
    def end(self) -> End:
        """What a loop is told of it."""
        return End(None, self.handle, int(self.kind), self.fd)  # type: ignore[arg-type]

    # What peers do

    def deliver(self, frames: Iterable[bytes]) -> None:
        """Let a peer send a message."""
        self._inbox.append(Incoming(frames))
        if not self._awake:
            self._commands.append(self._wake)

    def make_room(self, messages: int = 1) -> None:
        """Let a peer receive messages."""

        def add() -> None:
            assert self._room is not None
            self._room += messages

        self._commands.append(add)

    # What is true of it, whether or not it has processed its commands

    @property
    def signalled(self) -> bool:
        """Whether its ZMQ_FD is readable."""
        return bool(self._commands) or (self._libzmq.terminated and not self.told)

    @property
    def left(self) -> int:
        """How many messages are not or not wholly received."""
        return len(self._inbox)

    def readable(self) -> bool:
        """Tell whether a receive would succeed."""
        return bool(self._inbox) and not self._late and self._may_receive()

    def writable(self) -> bool:
        """Tell whether a message would be accepted."""
        refuses = self._room == 0 and (self._mandatory or self.kind not in LOSSY)
        return not (self._full or refuses) and self._may_send()

    @property
    def mid_message(self) -> bool:
        """Whether a message has begun to be sent and has not ended."""
        return bool(self._partial)

    def _may_receive(self) -> bool:
        return {Type.REP: not self._answering, Type.REQ: self._answering}.get(self.kind, True)

    def _may_send(self) -> bool:
        return {Type.REP: self._answering, Type.REQ: not self._answering}.get(self.kind, True)

    # What libzmq does

    def _wake(self) -> None:
        self._awake = True

    def _process_commands(self) -> None:
        while self._commands:
            self._commands.popleft()()

    def _has_message(self) -> bool:
        if not self._may_receive():
            return False
        if not self.readable():
            self._awake = False
        return self._awake

    def receive(self) -> tuple[bytes, Incoming]:
        """zmq_msg_recv(3)."""
        if self.kind in CANNOT_RECEIVE:
            raise Violation(f"receive on {self.name}, whose type cannot")
        if not self._may_receive():
            raise Failure(EFSM)
        if not self._has_message():
            self._process_commands()
            if not self._has_message():
                raise Failure(EAGAIN)
        incoming = self._inbox[0]
        frame = incoming.left.popleft()
        self._reading = bool(incoming.left)
        if not self._reading:
            self._inbox.popleft()
            if self.kind in (Type.REP, Type.REQ):
                self._answering = self.kind == Type.REP
        return frame, incoming

    def send(self, frame: bytes, more: bool) -> None:
        """zmq_msg_send(3)."""
        if self.kind in CANNOT_SEND:
            raise Violation(f"send on {self.name}, whose type cannot")
        if not self._libzmq.throttled:
            self._process_commands()
        if self._dropping:
            self._dropping = more
            return
        if not self._partial:
            self._begin(frame)
            if not more and self.kind in ADDRESSED:
                return  # an address and nothing to send there
        self._partial.append(frame)
        if not more or (self.kind == Type.STREAM and len(self._partial) == 2):
            message, self._partial = self._partial, []
            if self._room != 0:
                self.arrived.append(message)
                if self._room is not None:
                    self._room -= 1
            if self.kind in (Type.REP, Type.REQ):
                self._answering = self.kind == Type.REQ

    def _knows(self, peer: bytes) -> bool:
        return self._peers is None or peer in self._peers

    def _begin(self, frame: bytes) -> None:
        """Refuse a message, by its first frame."""
        if not self._may_send():
            raise Failure(EFSM)
        if self._mandatory and not self._knows(frame):
            raise Failure(EHOSTUNREACH)
        if not self.writable():
            raise Failure(EAGAIN)

    def events(self) -> int:
        """ZMQ_EVENTS of zmq_getsockopt(3)."""
        self._process_commands()
        events = 0
        if self.kind not in CANNOT_RECEIVE and self._has_message():
            events |= POLLIN
        # PUB and XPUB always show it, whatever XPUB_NODROP says
        shown = self.kind in (Type.PUB, Type.XPUB)
        if shown or (self.kind not in CANNOT_SEND and self.writable()):
            events |= POLLOUT
        return events

    # Errors

    def errors(self, call: str, frame: bytes = b"") -> Iterator[int]:
        """Say which errors this call could give instead of what it will give."""
        yield from (EINTR, ETERM, ENOTSOCK)
        turns = self.kind in (Type.REQ, Type.REP)
        if call == "recv" and self.readable():
            yield EAGAIN
            if turns and not self._reading:
                yield EFSM
        if call == "send" and self._partial:
            # The peer vanishes. (A REQ that loses a request so is stuck for good, in libzmq.)
            if self.kind in (Type.PUSH, Type.DEALER, Type.PAIR):
                yield EAGAIN
        elif call == "send" and not self._dropping and self.writable():
            if self._mandatory or self.kind not in LOSSY:
                yield EAGAIN
            if self._mandatory and self.kind in ADDRESSED and self._knows(frame):
                yield EHOSTUNREACH
            if self.kind == Type.REQ:
                yield EFSM

    def suffer(self, call: str, number: int) -> None:
        """Be in the state in which libzmq gives this error."""
        if number == ETERM:
            self._libzmq.terminated = self.told = True
        elif number == ENOTSOCK:
            self.closed = True
        elif number == EAGAIN and call == "recv":
            # The message is on its way, and comes when the loop blocks.
            self._process_commands()
            self._late, self._awake = True, False
            self._libzmq.script.appendleft(self._come)
        elif number == EAGAIN and self._partial:
            # The peer vanished: libzmq takes back what it had of the message. A PAIR may have the
            # next peer already; the others swallow what is left.
            self._dropping = self._libzmq.sending_more and self.kind != Type.PAIR
            self._partial = []
        elif number == EAGAIN and call == "send":
            # The peer is full, until the loop blocks.
            self._full = True
            self._libzmq.script.appendleft(lambda: self._commands.append(self._unfill))

    def _come(self) -> None:
        self._late = False
        self._commands.append(self._wake)

    def _unfill(self) -> None:
        self._full = False


class PollFd(ctypes.Structure):
    """The struct pollfd of poll(2)."""

    _fields_ = [
        ("fd", ctypes.c_int),
        ("events", ctypes.c_short),
        ("revents", ctypes.c_short),
    ]


class ScriptedLibzmq:
    """The table, and the world behind it. Make a new one for each schedule.

    Parameters
    ----------
    throttled : bool
        Whether a send leaves the socket's commands alone, as libzmq's mostly does.

    Examples
    --------
    A receive that is interrupted does a relay no harm. Calls count from 0, in the order that
    ``trace`` has:

    >>> import errno, zmq
    >>> libzmq = ScriptedLibzmq()
    >>> frontend = libzmq.socket(zmq.PULL, "frontend")
    >>> backend = libzmq.socket(zmq.PUSH, "backend")
    >>> libzmq.script.append(lambda: frontend.deliver([b"two", b"frames"]))
    >>> libzmq.faults[4] = errno.EINTR
    >>> code = libzmq.run(libzmq.loop("ctypes", frontend, backend))
    >>> backend.arrived
    [[b'two', b'frames']]
    >>> libzmq.check()
    """

    def __init__(self, *, throttled: bool = False) -> None:
        self.throttled = throttled
        self.sockets: dict[int, Socket] = {}
        self.trace: list[Call] = []
        """The calls that can fail, in order; what `faults` and `before` count."""
        self.faults: dict[int, int] = {}
        """Error numbers by the number of the call that fails, where libzmq can give that error."""
        self.before: dict[int, Callable[[], None]] = {}
        """What happens just before the call of that number."""
        self.script: deque[Callable[[], None]] = deque()
        """What happens while the loop blocks."""
        self.on_block: Callable[[bool], None] = lambda _bounded: None
        """Called when the loop blocks, perhaps for a bounded time; what it raises violates."""
        self.over = False
        """Whether the loop blocked when nothing was left in the script; it was woken then."""
        self.woken = False
        """Whether the wake-up descriptor is readable."""
        self.terminated = False
        """Whether the context was terminated: every call on a socket gives ETERM."""
        self.sending_more = False
        """Whether the frame being sent has SNDMORE."""
        self.violations: list[str] = []
        self._errno = 0
        self._idle_polls = 0
        self._messages: dict[int, Message] = {}
        self._scratch = ctypes.create_string_buffer(4096)
        self._callbacks = self._make_callbacks()
        self.addresses: dict[str, int] = {
            name: ctypes.cast(callback, ctypes.c_void_p).value or 0
            for name, callback in self._callbacks.items()
        }

    def socket(self, kind: Type, name: str, **options: Any) -> Socket:
        """Make a socket for the device."""
        socket = Socket(self, kind, name, **options)
        self.sockets[socket.handle] = socket
        return socket

    def engine(self, name: str) -> Any:
        """Return the engine of that name, over this table: cffi, ctypes or cffi-abi."""
        if name not in ("cffi", "ctypes", "cffi-abi"):
            raise ValueError(
                f"{name!r} is no engine that calls libzmq's functions: cffi, ctypes or cffi-abi"
            )
        while _done:
            table = _done.pop()
            if table.all_closed:
                _in_use.discard(table)
        _in_use.add(self)
        if name == "cffi":
            from zdev._engines.compiled import CompiledEngine

            return CompiledEngine(self.addresses)
        if name == "ctypes":
            from zdev._engines.via_ctypes import CtypesEngine as PythonEngine
        else:
            from zdev._engines.via_cffi import CffiEngine as PythonEngine  # type: ignore[assignment]
        engine: Any = PythonEngine(self.addresses)
        engine.poll = self.poll
        return engine

    def loop(
        self,
        engine: str,
        frontend: Socket,
        backend: Socket,
        capture: Socket | None = None,
        control: Socket | None = None,
        **settings: Any,
    ) -> Loop:
        """Make an engine's relay loop over these sockets; settings are those of `zdev.Relay`."""
        policy = settings.pop("capture_policy", "block")
        chosen = {"in_prefix": None, "out_prefix": None, "swap": False, "burst": 64, **settings}
        made: Loop = self.engine(engine).loop(
            Settings(
                frontend=frontend.end,
                backend=backend.end,
                capture=capture.end if capture else None,
                control=control.end if control else None,
                capture_drop=policy == "drop",
                wakeup_fd=WAKEUP_FD,
                **chosen,
            )
        )
        return made

    def run(self, loop: Loop) -> int:
        """Run a loop until the script is over or the loop has ended; return what it returned."""
        while True:
            self.woken = False
            code = loop.run(-1)
            if code != WOKEN or self.over:
                return code

    # Reports

    def check(self) -> None:
        """Raise AssertionError for the first violation."""
        assert not self.violations, f"{self.violations[0]}\nafter\n{self.story()}"

    @property
    def all_closed(self) -> bool:
        """Whether no message is initialised."""
        return not self._messages

    def check_closed(self) -> None:
        """Raise AssertionError if a message is not closed, once the loop is gone."""
        self.check()
        held = [message.data for message in self._messages.values()]
        assert not held, f"never closed: {held}\nafter\n{self.story()}"

    def story(self) -> str:
        """Return the calls, a line each."""
        return "\n".join(f"{number:4} {call}" for number, call in enumerate(self.trace))

    # The table

    def _make_callbacks(self) -> dict[str, Any]:
        pointer, number, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t

        def callback(function: Callable[..., Any], failure: Any, *types: Any) -> Any:
            def call(*arguments: Any) -> Any:
                try:
                    return function(*arguments)
                except Failure as error:
                    self._errno = error.number
                except BaseException as error:
                    self.violations.append(f"{type(error).__name__}: {error}")
                    self._errno = ENOTSOCK
                return failure

            return ctypes.CFUNCTYPE(*types)(call)

        scratch = ctypes.addressof(self._scratch)
        return {
            "get_errno": callback(lambda: self._errno, 0, number),
            "msg_init": callback(self._msg_init, -1, number, pointer),
            "msg_init_size": callback(self._msg_init_size, -1, number, pointer, size),
            "msg_data": callback(self._msg_data, scratch, pointer, pointer),
            "msg_size": callback(self._msg_size, 0, size, pointer),
            "msg_more": callback(self._msg_more, 0, number, pointer),
            "msg_copy": callback(self._msg_copy, -1, number, pointer, pointer),
            "msg_close": callback(self._msg_close, -1, number, pointer),
            "msg_recv": callback(self._msg_recv, -1, number, pointer, pointer, number),
            "msg_send": callback(self._msg_send, -1, number, pointer, pointer, number),
            "getsockopt": callback(self._getsockopt, -1, number, pointer, number, pointer, pointer),
            "poll": callback(self._poll, -1, number, pointer, ctypes.c_ulong, number),
        }

    def _call(
        self,
        name: str,
        socket: Socket | None,
        asked: Any,
        action: Callable[[], Any],
        errors: tuple[int, ...] = (),
    ) -> Any:
        """Make a call that can fail; `errors` are those that a call about no socket can give."""
        number = len(self.trace)
        where = socket.name if socket else ""
        if number in self.before:
            self.before.pop(number)()
        if socket:
            errors = tuple(socket.errors(name, *asked[:1]))
        try:
            if self.violations:
                raise Failure(ENOTSOCK)
            if number > MAX_CALLS:
                raise Violation(f"no end after {MAX_CALLS} calls")
            error = self.faults.pop(number, 0)
            if error in errors:
                if socket:
                    socket.suffer(name, error)
                raise Failure(error)
            if self.terminated and socket:
                socket.told = True
                raise Failure(ETERM)
            if socket and socket.closed:
                raise Failure(ENOTSOCK)
            result = action()
        except Failure as failure:
            self.trace.append(Call(name, where, asked, str(failure), errors))
            raise
        self.trace.append(Call(name, where, asked, result, errors))
        return result

    def _socket(self, handle: int) -> Socket:
        if handle not in self.sockets:
            raise Violation(f"no socket {handle}")
        return self.sockets[handle]

    # Messages: each carries its own address, so that one which was moved is found out

    def _message(self, address: int) -> Message:
        if address not in self._messages:
            raise Violation("a message is used that is not initialised")
        if ctypes.string_at(address, MESSAGE_SIZE) != self._mark(address):
            raise Violation("a message was moved or overwritten")
        return self._messages[address]

    @staticmethod
    def _mark(address: int) -> bytes:
        return address.to_bytes(8, "little") * (MESSAGE_SIZE // 8)

    def _msg_init(self, address: int) -> int:
        if address in self._messages:
            raise Violation("a message is initialised twice")
        self._messages[address] = Message()
        ctypes.memmove(address, self._mark(address), MESSAGE_SIZE)
        return 0

    def _msg_init_size(self, address: int, size: int) -> int:
        def allocate() -> int:
            self._msg_init(address)
            self._messages[address] = Message(bytes(size))
            return 0

        errors = (ENOMEM,) if size > INLINE_SIZE else ()
        return int(self._call("msg_init_size", None, size, allocate, errors))

    def _msg_data(self, address: int) -> int:
        return self._message(address).address

    def _msg_size(self, address: int) -> int:
        return self._message(address).size

    def _msg_more(self, address: int) -> int:
        return int(self._message(address).more)

    def _msg_copy(self, to: int, address: int) -> int:
        def copy() -> int:
            self._message(to)
            original = self._message(address)
            self._messages[to] = Message(original.data, original.origin)
            return 0

        data = self._message(address).data
        return int(self._call("msg_copy", None, data, copy, (ENOMEM,)))

    def _msg_close(self, address: int) -> int:
        self._message(address)
        del self._messages[address]
        if not self._messages:
            _done.append(self)
        ctypes.memset(address, 0xFF, MESSAGE_SIZE)
        return 0

    # Sockets

    def _msg_recv(self, address: int, handle: int, flags: int) -> int:
        self._message(address)
        socket = self._socket(handle)
        if flags != DONTWAIT:
            raise Violation(f"receive with flags {flags}")

        def receive() -> tuple[Any, ...]:
            frame, incoming = socket.receive()
            self._messages[address] = message = Message(frame, incoming)
            return (frame, "more") if message.more else (frame,)

        frame, *_ = self._call("recv", socket, (), receive)
        self._idle_polls = 0
        return len(frame)

    def _msg_send(self, address: int, handle: int, flags: int) -> int:
        message, socket = self._message(address), self._socket(handle)
        if flags & ~SNDMORE != DONTWAIT:
            raise Violation(f"send with flags {flags}")
        if message.origin and message.origin.left:
            raise Violation("a frame is sent before its message is whole")
        self.sending_more = bool(flags & SNDMORE)
        asked = (message.data, "more") if self.sending_more else (message.data,)
        self._call("send", socket, asked, lambda: socket.send(message.data, self.sending_more))
        self._idle_polls = 0
        self._messages[address] = Message()
        return message.size

    def _getsockopt(self, handle: int, option: int, value: int, size: int) -> int:
        socket = self._socket(handle)
        if option != EVENTS or ctypes.c_size_t.from_address(size).value != 4:
            raise Violation(f"getsockopt of option {option}")
        events = self._call("events", socket, (), socket.events)
        ctypes.c_int.from_address(value).value = events
        return 0

    # Waiting

    def _poll(self, items: int, count: int, timeout: int) -> int:
        """poll(2), for the C loop."""
        fds = (PollFd * count).from_address(items)
        ready = self._call_poll([item.fd for item in fds if item.fd >= 0], timeout)
        for item in fds:
            item.revents = select.POLLIN if item.fd in ready else 0
        return len(ready)

    def poll(self, fds: list[int], timeout: int) -> list[int] | None:
        """poll(2), for the Python loop."""
        try:
            return self._call_poll(fds, timeout)
        except Failure:
            return None
        except BaseException as error:
            self.violations.append(f"{type(error).__name__}: {error}")
            return None

    def _call_poll(self, fds: list[int], timeout: int) -> list[int]:
        names = {socket.fd: socket.name for socket in self.sockets.values()}
        asked = ([names.get(fd, "wake-up") for fd in fds], timeout)
        ready: list[int] = []

        def wait() -> list[str]:
            ready[:] = self._wait(fds, timeout)
            return [names.get(fd, "wake-up") for fd in ready]

        self._call("poll", None, asked, wait, (EINTR,))
        return ready

    def _wait(self, fds: list[int], timeout: int) -> list[int]:
        def readable() -> list[int]:
            signalled = {s.fd for s in self.sockets.values() if s.signalled}
            return [fd for fd in fds if fd in signalled or (fd == WAKEUP_FD and self.woken)]

        if timeout == 0:
            return readable()
        self._idle_polls += 1
        if self._idle_polls > MAX_IDLE_POLLS:
            raise Violation("poll returns again and again, and nothing moves")
        while not readable():
            self.on_block(timeout > 0)
            for socket in self.sockets.values():
                if socket.mid_message and not (socket.closed or self.terminated):
                    raise Violation(f"blocked in the middle of a message to {socket.name}")
            if self.script:
                self._idle_polls = 0
                self.script.popleft()()
                if timeout > 0:
                    break
            elif timeout > 0 and self._idle_polls < MAX_IDLE_POLLS:
                break
            else:
                self.over = self.woken = True
        return readable()
