"""A libzmq in memory, whose every call can be made to fail.

`ScriptedLibzmq` fills the function table that a relay loop is given (`zdev_libzmq` in csrc/zdev.h)
with sockets in memory. Time passes only while the loop blocks in poll(2): each time that it would,
the next entry of `script` happens. Entries of `before` happen at a certain call, entries of
`faults` make it fail.

What a loop must never do is a violation: to touch a `zmq_msg_t` that is not initialised or was
moved, to close one twice or never, to send a frame before its message is whole, to receive or send
without DONTWAIT, to ask a socket what its type cannot do, to block in the middle of a message,
and to poll again and again while nothing moves. After the first one every call fails, so that the
loop ends; `check` and `check_closed` report it.
"""

from __future__ import annotations

import ctypes
import functools
import select
from typing import Any, Callable, NamedTuple

from zdev._contract import WOKEN, Loop, Settings
from zdev.testing.model import Type

from .scripted_sockets import (
    EINTR,
    ENOMEM,
    ENOTSOCK,
    ETERM,
    Failure,
    Incoming,
    Socket,
    Violation,
    World,
)

DONTWAIT, SNDMORE = 1, 2
EVENTS = 15

MESSAGE_SIZE = 64
# Polls in a row that may return without anything having moved since the first.
MAX_IDLE_POLLS = 4
# Calls after which a schedule of a handful of messages has gone astray.
MAX_CALLS = 5000

WAKEUP_FD = 1

# Tables that may still be called: PyPy frees a loop when it likes, and the table must outlive it.
_callable: set[ScriptedLibzmq] = set()
# Those whose messages were all closed. They go a little later: the last close must return first.
_closed: list[ScriptedLibzmq] = []

# Up to this size, a zmq_msg_t holds its data itself: 29 in libzmq 4.1, 33 since.
INLINE_SIZE = 29


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


class PollFd(ctypes.Structure):
    """The struct pollfd of poll(2)."""

    _fields_ = [
        ("fd", ctypes.c_int),
        ("events", ctypes.c_short),
        ("revents", ctypes.c_short),
    ]


class ScriptedLibzmq(World):
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
        super().__init__(throttled)
        self.trace: list[Call] = []
        """The calls that can fail, in order; what `faults` and `before` count."""
        self.faults: dict[int, int] = {}
        """Error numbers by the number of the call that fails, where libzmq can give that error."""
        self.before: dict[int, Callable[[], None]] = {}
        """What happens just before the call of that number."""
        self.on_block: Callable[[bool], None] = lambda _bounded: None
        """Called when the loop blocks, perhaps for a bounded time; what it raises violates."""
        self.over = False
        """Whether the loop blocked when nothing was left in the script; it was woken then."""
        self.woken = False
        """Whether the wake-up descriptor is readable."""
        self.now = 1
        """Milliseconds, which pass in bounded waits for nothing, and while `busy`."""
        self.busy = 0
        """How long it takes until the clock is looked at again."""
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
        while _closed:
            table = _closed.pop()
            if table.all_closed:
                _callable.discard(table)
        _callable.add(self)
        if name == "cffi":
            from zdev._engines.compiled import CompiledEngine

            return CompiledEngine(self.addresses)
        if name == "ctypes":
            from zdev._engines.via_ctypes import CtypesEngine as PythonEngine
        else:
            from zdev._engines.via_cffi import CffiEngine as PythonEngine  # type: ignore[assignment]
        engine: Any = PythonEngine(self.addresses)
        engine.poll, engine.clock = self.poll, self.clock
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
        overflow = settings.pop("overflow", "park")
        in_overflow = settings.pop("in_overflow", None) or overflow
        out_overflow = settings.pop("out_overflow", None) or overflow
        chosen = {"in_prefix": None, "out_prefix": None, "swap": False, "burst": 64, **settings}
        made: Loop = self.engine(engine).loop(
            Settings(
                frontend=frontend.end,
                backend=backend.end,
                capture=capture.end if capture else None,
                control=control.end if control else None,
                in_drop=in_overflow == "drop",
                out_drop=out_overflow == "drop",
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
            "clock": callback(self.clock, 0, ctypes.c_uint64),
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
    @functools.lru_cache(1000)
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
            _closed.append(self)
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

    def clock(self) -> int:
        """Return the milliseconds."""
        self.now += self.busy
        return self.now

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
                self.now += timeout
                break
            else:
                self.over = self.woken = True
        return readable()
