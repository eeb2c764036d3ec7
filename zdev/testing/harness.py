"""Runs a device of any kind among peers, and compares what comes out of it with the model.

Everything happens within the ``with`` block: a `DeviceHarness` makes a context of its own, runs the
device in a thread, and ends both. Every wait has an end, whatever the device does.
"""

from __future__ import annotations

import inspect
import itertools
import pkgutil
import threading
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Callable, NoReturn

import zmq

from zdev._times import check_seconds
from zdev.testing.inbox import Frames, Inbox, fail
from zdev.testing.leaks import TrackedContext, end_context, no_leaks
from zdev.testing.model import Device, Fate, Type, ordered
from zdev.testing.strategies import Traffic

__all__ = ["DeviceHarness", "check_device"]


# Seconds that messages get before the closing messages, and these before the next sender's, so that
# a device that mixes two up does it the same way each time. It delays devices that are wrong only.
MOMENT = 0.05


class _Peer:
    """A socket that talks to the device."""

    def __init__(self, name: str, identity: bytes, socket: zmq.Socket[bytes], gaps: bool) -> None:
        self.name = name
        self.identity = identity
        self.socket = socket
        self.inbox = Inbox(name, gaps=gaps)

    @property
    def is_client(self) -> bool:
        return self.name.startswith("c")


class _Thread(threading.Thread):
    """A function that runs in a thread, and what it raised, unless its context was terminated."""

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__(name="device under test", daemon=True, target=function)
        self.error: BaseException | None = None
        self.ready = threading.Event()
        self.start()

    def run(self) -> None:
        try:
            super().run()
        except BaseException as error:
            if getattr(error, "errno", None) != zmq.ETERM:
                self.error = error
        finally:
            self.ready.set()


class DeviceHarness:
    """A device among its peers, all over inproc, in a context of their own.

    Parameters
    ----------
    device : callable, class or str
        What is tested: a function that is called with frontend, backend and capture and blocks
        until their context is terminated; a class of ``zdev`` or ``zmq.devices`` or derived from
        one, but for those with processes, which inproc does not reach; `zdev.Relay`; or the name of
        such an object, as in ``"zmq.devices.ThreadProxy"``. Names without a dot are zdev's.
    traffic : Traffic
        The sockets' types, and what is sent.
    capture : bool
        Whether the device has a capture socket, and shows it what it sends on.
    prefixes : pair of bytes, str or None, optional
        What goes in front of a capture message from the frontend, from the backend. By default
        none, and ``(b"in", b"out")`` for a monitored queue of zdev or pyzmq.
    swap : bool, optional
        Whether ``[from, to, ...]`` goes on as ``[to, from, ...]`` between two ROUTER sockets. By
        default it does in monitored queues and `zdev.Relay`, and not elsewhere.
    hwms : sequence of int
        High-water marks, for one socket after the other, again and again: the device's, then the
        peers'. They do not apply where a full queue loses messages: to PUB and XPUB, and to ROUTER
        unless it is ``mandatory``.
    mandatory : bool
        Whether the device's ROUTER sockets have ZMQ_ROUTER_MANDATORY.
    capture_gaps : bool
        Whether the capture may miss messages, as with ``capture_policy="drop"``.
    timeout : float
        Seconds after which a device that does nothing counts as stuck.

    Attributes
    ----------
    model : zdev.testing.model.Device
        What the device must have done; ``model.statistics()`` is what zdev's devices must count.
    context : TrackedContext
        The context of the sockets.

    Notes
    -----
    Each sender ends with closing messages of the harness's own, one for each possible receiver.
    They show what was lost before them at once, without a wait.

    On PyPy 7.3.11, ``sys.setrecursionlimit``, which Hypothesis calls around each example, crashes
    a process that has a thread waiting in C. No thread outlives the ``with`` block, so open and
    close it within the example, not in a fixture around it. Only a device that the end of its
    context does not end stays behind, as no thread can be killed.
    """

    def __init__(
        self,
        device: Callable[..., Any] | str,
        traffic: Traffic,
        *,
        capture: bool = True,
        prefixes: tuple[Any, Any] | None = None,
        swap: bool | None = None,
        hwms: Sequence[int] = (0,),
        mandatory: bool = False,
        capture_gaps: bool = False,
        timeout: float = 5.0,
    ) -> None:
        if isinstance(device, str):
            device = pkgutil.resolve_name(device if "." in device else f"zdev.{device}")
        self._device: Any = device
        self._kind = kind_of(device)
        if not isinstance(traffic, Traffic):
            raise TypeError(f"traffic must be a Traffic, not {type(traffic).__name__}")
        monitored = self._kind == "monitored"
        if prefixes is None:
            prefixes = (b"in", b"out") if monitored else (None, None)
        hwms = tuple(hwms) if isinstance(hwms, Iterable) else ()
        if not hwms or not all(isinstance(hwm, int) and hwm >= 0 for hwm in hwms):
            raise ValueError("hwms must be a sequence of high-water marks, whole numbers from 0 on")
        timeout = check_seconds(timeout, "timeout", "a number of seconds")
        if swap is None:
            swap = monitored or self._kind == "relay"
        self.traffic = traffic
        self.timeout = timeout
        self._thread: _Thread | None = None
        self._prefixes = prefixes
        self._mandatory = mandatory
        self._capture = capture and self._kind != "bare"
        frontend, backend = Type(traffic.frontend), Type(traffic.backend)
        self._types = {"in": frontend, "out": backend, "mon": Type.PUSH}
        if traffic.single:
            del self._types["out"]
        if not self._capture:
            del self._types["mon"]
        limits = not traffic.pair.lossy and (mandatory or Type.ROUTER not in (frontend, backend))
        self._hwms = itertools.cycle(hwms if limits else [0])
        self._capture_gaps = capture_gaps
        self._swap = swap and frontend == backend == Type.ROUTER
        if not isinstance(prefixes, (tuple, list)) or len(prefixes) != 2:
            raise TypeError(f"prefixes must be a pair, not {prefixes!r}")
        first, second = as_bytes(prefixes[0]), as_bytes(prefixes[1])
        self.model = Device(
            frontend,
            backend,
            capture=self._capture,
            in_prefix=first,
            out_prefix=second,
            swap=self._swap,
            single=traffic.single,
        )

    # The device

    @property
    def inboxes(self) -> dict[str, Inbox]:
        """What each peer has received and is to receive; the capture's is "the capture"."""
        return {peer.name: peer.inbox for peer in self._peers + self._monitors}

    def __enter__(self) -> DeviceHarness:
        self.context = TrackedContext()
        # The same context as a second object, whose sockets `context.destroy()` does not close: a
        # device that calls that closed the peers' sockets in its thread while this one polled
        # them, and libzmq crashed.
        self._peers_context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(shadow=self.context)
        self._peers_context.setsockopt(zmq.LINGER, 0)
        self._peers: list[_Peer] = []
        self._monitors: list[_Peer] = []
        self._thread = None
        self._subscribed = False
        try:
            options = {role: self._options(kind) for role, kind in self._types.items()}
            for number, name in enumerate(self.traffic.clients):
                self._peers.append(self._peer(f"c{number}", name, self.traffic.pair.client, "in"))
            for number, name in enumerate(self.traffic.workers):
                self._peers.append(self._peer(f"w{number}", name, self.traffic.pair.worker, "out"))
            if self._capture:
                gaps = self._capture_gaps
                self._monitors = [self._peer("the capture", b"", Type.PULL, "mon", gaps=gaps)]
            if isinstance(self._device, type) and self._kind != "relay":
                self._thread = _Thread(lambda: self._run_class(options))
                # Else the end could come before the beginning.
                self._thread.ready.wait(self.timeout)
            else:
                ends = {role: self._end(role, options[role]) for role in self._types}
                self._thread = _Thread(lambda: self._run_function(ends))
        except BaseException:
            self._stop()
            raise
        return self

    def _options(self, kind: Type) -> list[tuple[int, Any]]:
        hwm = next(self._hwms)
        options: list[tuple[int, Any]] = [(zmq.SNDHWM, hwm), (zmq.RCVHWM, hwm)]
        if kind == Type.ROUTER and self._mandatory:
            options.append((zmq.ROUTER_MANDATORY, 1))
        if kind == Type.SUB:
            options.append((zmq.SUBSCRIBE, b""))
        return options

    def _peer(self, name: str, identity: bytes, kind: Type, role: str, gaps: bool = False) -> _Peer:
        """Make a peer, which connects before the device binds: so it is heard of from the start."""
        socket = self._peers_context.socket(kind)
        for option, value in self._options(kind):
            socket.setsockopt(option, value)
        if kind == Type.DEALER:
            socket.setsockopt(zmq.ROUTING_ID, identity)
        socket.connect(f"inproc://{role}")
        return _Peer(name, identity, socket, gaps)

    def _end(self, role: str, options: list[tuple[int, Any]]) -> zmq.Socket[bytes]:
        """Make a socket of the device."""
        socket = self.context.socket(self._types[role])
        for option, value in options:
            socket.setsockopt(option, value)
        socket.bind(f"inproc://{role}")
        socket.getsockopt(zmq.EVENTS)  # now it has heard of its peers and what they subscribe to
        return socket

    def _run_function(self, ends: dict[str, zmq.Socket[bytes]]) -> None:
        """Call the function, in its thread."""
        sockets = (ends["in"], ends.get("out", ends["in"]), ends.get("mon"))
        if self._kind == "bare":
            self._device(zmq.QUEUE, *sockets[:2])
        elif self._kind == "monitored":
            self._device(*sockets, *self._prefixes)
        elif self._kind == "relay":
            first, second = self._prefixes
            relay = self._device(*sockets, in_prefix=first, out_prefix=second, swap=self._swap)
            relay.run()
        else:
            self._device(*sockets)

    def _run_class(self, options: dict[str, list[tuple[int, Any]]]) -> None:
        """Start a device of the class, in a thread, and wait for its end."""
        ready = threading.current_thread().ready  # type: ignore[attr-defined]

        class Device(self._device):  # type: ignore[misc, name-defined]
            def _setup_sockets(self) -> Any:
                sockets = super()._setup_sockets()
                for socket in sockets:
                    socket.getsockopt(zmq.EVENTS)
                ready.set()
                return sockets

        first, second = self._prefixes
        offered = {
            "device_type": zmq.QUEUE,
            "in_type": int(self._types["in"]),
            "out_type": int(self._types.get("out", -1)),
            "mon_type": int(Type.PUSH),
            "ctrl_type": int(Type.PAIR),
            "in_prefix": first,
            "out_prefix": second,
        }
        wanted = inspect.signature(self._device).parameters
        device = Device(**{name: offered[name] for name in offered if name in wanted})
        device.context_factory = lambda: self.context
        for role in self._types:
            for option, value in options[role]:
                getattr(device, f"setsockopt_{role}")(option, value)
            getattr(device, f"bind_{role}")(f"inproc://{role}")
        device.start()
        device.join()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        early = self._thread is not None and not self._thread.is_alive()
        ended = self._stop()
        if isinstance(error, zmq.ZMQError) and error.errno in (zmq.ETERM, zmq.ENOTSOCK):
            self._ended_early(by_itself=True)
        if error is not None:
            return
        if early:
            self._ended_early()
        if not ended:
            fail(
                f"the device did not end within {self.timeout:g} s after its context was "
                "terminated, or it left a thread with a socket; it stays behind"
            )
        if self._thread and self._thread.error:
            self._ended_early()

    def _stop(self) -> bool:
        """End everything, and say whether it has ended."""
        for peer in self._peers + self._monitors:
            peer.socket.close()
        threads: set[threading.Thread] = {self._thread} if self._thread else set()
        return end_context(self.context, threads, self.timeout)

    def _ended_early(self, *, by_itself: bool = False) -> NoReturn:
        error = self._thread.error if self._thread else None
        how = f"raised {type(error).__name__}: {error}" if error else "returned"
        if not by_itself:
            how += " before its context was terminated"
        elif error:
            how += " and terminated its context"
        else:
            how = "terminated its context"
        fail(f"the device {how}{self._missing()}", error)

    # The traffic

    def check(self) -> None:
        """Send the traffic; raise `DeviceError` at the first message that is not the model's."""
        __tracebackhide__ = True
        if self._thread is None:
            raise RuntimeError("nothing runs yet: with DeviceHarness(...) as harness: ...")
        if not self._subscribed:
            self._subscribe()
        by_name = {peer.name: peer for peer in self._peers}
        for sender, frames in self.traffic.sends:
            self._send(by_name[sender], [*frames])
        self._receive_all(MOMENT)
        for peer in reversed(self._peers):
            if peer.is_client or self.traffic.pair.upstream:
                self._send_closing(peer)
        if not self._receive_all(self.timeout):
            self._stuck("the device does not go on")
        self.receive_rest()

    def receive_rest(self) -> None:
        """Receive what is there now, and raise `DeviceError` if the model has no such message."""
        __tracebackhide__ = True
        while self._receive(0):
            pass

    def _subscribe(self) -> None:
        """Let publishers hear of the subscription, which may come through the device."""
        self._subscribed = True
        if self.traffic.pair.worker != Type.SUB:
            return
        if self.traffic.backend == Type.XPUB:
            self._plan(self._peers[-1], [b"\x01"])
        elif self.traffic.pair.client == Type.XPUB:
            for peer in self._peers[:-1]:
                peer.inbox.expect("the device", [b"\x01"])
        if not self._receive_all(self.timeout):
            self._stuck("the subscription does not arrive")

    def _plan(self, sender: _Peer, frames: Frames) -> None:
        """Tell the model of a message, and those who are to get it."""
        forth = sender.is_client
        way = self.model.there if forth else self.model.back
        source = self._types["in"] if forth else self._types.get("out")
        receivers = [p for p in self._peers if p.is_client != forth or self.traffic.single]
        arriving = [sender.identity, *frames] if source == Type.ROUTER else frames
        leaving = ordered(arriving, way.swap)
        if way.destination == Type.ROUTER:
            receivers = [peer for peer in receivers if peer.identity == leaving[0]]
        sent = way.messages_sent
        way.arrive(arriving, None if receivers or not self._mandatory else Fate.UNROUTABLE)
        way.flow()
        gone = way.messages_sent > sent
        for peer in receivers:
            if gone:
                peer.inbox.expect(sender.name, leaving[way.destination == Type.ROUTER :])
        prefix = [] if way.prefix is None else [way.prefix]
        for monitor in self._monitors:
            # Whether devices show what goes nowhere is their affair.
            lost = not (gone and receivers)
            monitor.inbox.expect(sender.name, prefix + leaving, optional=lost)

    def _send(self, sender: _Peer, frames: Frames) -> None:
        """Send a message, and receive only when it cannot be sent, so that queues fill."""
        self._plan(sender, frames)
        while True:
            try:
                sender.socket.send_multipart(frames, zmq.DONTWAIT)
            except zmq.Again:
                if not self._receive(self.timeout, writer=sender):
                    self._stuck(f"{sender.name} cannot send")
            else:
                return

    def _send_closing(self, sender: _Peer) -> None:
        """Send the last messages of one peer, and give them a moment to arrive."""
        __tracebackhide__ = True
        closing = b"the end of %s" % sender.name.encode()
        way = self.model.there if sender.is_client else self.model.back
        if way.destination == Type.ROUTER:
            others = [p for p in self._peers if p.is_client != sender.is_client]
            for peer in self._peers if self.traffic.single else others:
                self._send(sender, [peer.identity, closing])
        else:
            self._send(sender, [closing])
        self._receive_all(MOMENT, sender.name)

    def _receive_all(self, patience: float, sender: str | None = None) -> bool:
        """Receive until nothing is missing, of one sender or any; False if nothing comes."""
        __tracebackhide__ = True
        while not all(peer.inbox.has_all(sender) for peer in self._peers + self._monitors):
            if not self._receive(patience):
                return False
        return True

    def _receive(self, patience: float, writer: _Peer | None = None) -> bool:
        """Receive what comes next, or wait until a peer can send; False if nothing happens."""
        __tracebackhide__ = True
        poller = zmq.Poller()
        receivers = [p for p in self._peers + self._monitors if p.socket.type not in SENDERS]
        for peer in receivers:
            poller.register(peer.socket, zmq.POLLIN)
        if writer:
            both = zmq.POLLIN | zmq.POLLOUT if writer in receivers else zmq.POLLOUT
            poller.register(writer.socket, both)
        end = time.monotonic() + patience
        while True:
            over = self._thread is None or not self._thread.is_alive()
            late = time.monotonic() >= end
            ready = dict(poller.poll(0 if over or late else 20))
            for peer in receivers:
                if ready.get(peer.socket, 0) & zmq.POLLIN:
                    peer.inbox.receive(peer.socket.recv_multipart(zmq.DONTWAIT))
            if ready:
                return True
            if over:
                self._ended_early()
            if late:
                return False

    def _stuck(self, what: str) -> NoReturn:
        fail(f"{what}: nothing has come for {self.timeout:g} s{self._missing()}")

    def _missing(self) -> str:
        missing = [p.inbox.missing() for p in self._peers + self._monitors if not p.inbox.has_all()]
        return "\nNot received:\n" + "\n".join(missing) if missing else ""


SENDERS = {int(Type.PUSH), int(Type.PUB)}


def as_bytes(prefix: bytes | str | None) -> bytes | None:
    """Return a prefix as it is sent."""
    if not isinstance(prefix, (bytes, str, type(None))):
        raise TypeError(f"prefixes must be bytes, str or None, not {type(prefix).__name__}")
    return prefix.encode() if isinstance(prefix, str) else prefix


def kind_of(device: Any) -> str:
    """Say how a device is called: as a monitored queue, a bare device, a relay or any function."""
    if not callable(device):
        raise TypeError(f"{device!r} cannot be called; a device is a class, a function or a name")
    bases = device.__mro__ if isinstance(device, type) else [device]
    names = {
        getattr(base, "__name__", "").lower().replace("_", "")
        for base in bases
        if str(getattr(base, "__module__", "")).partition(".")[0] in ("zdev", "zmq")
    }
    if any("process" in name for name in names):
        raise ValueError(f"{device} runs in a process, which inproc does not reach")
    is_class = isinstance(device, type) and "relay" not in names
    if is_class and not (names and hasattr(device, "_setup_sockets")):
        raise TypeError(f"{device} is neither a class of devices nor a function")
    if any("monitoredqueue" in name for name in names):
        return "monitored"
    if "relay" in names:
        return "relay"
    if "device" in names and not any("proxy" in name for name in names):
        return "bare"
    return "function"


def check_device(device: Callable[..., Any] | str, traffic: Traffic, **options: Any) -> None:
    """Check a device in a harness, and that it leaves no socket, thread or descriptor behind.

    Parameters
    ----------
    device, traffic, **options
        As for `DeviceHarness`.
    """
    __tracebackhide__ = True
    with no_leaks(), DeviceHarness(device, traffic, **options) as harness:
        harness.check()
