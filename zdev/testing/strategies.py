"""What Hypothesis draws: messages whose sizes matter, peers' traffic, prefixes.

Everything shrinks towards little: few messages, of few and short frames, from the first peer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import hypothesis.strategies as st

from zdev._names import Named, socket_type
from zdev.testing.model import Type

__all__ = [
    "PAIRS",
    "Pair",
    "Send",
    "Traffic",
    "content",
    "identities",
    "messages",
    "prefixes",
    "show",
    "sizes",
    "socket_pairs",
    "traffic",
]

# Up to 29 bytes (libzmq 4.1) or 33, a zmq_msg_t holds its data itself; from 256 on, a frame's
# length takes more than a byte on the wire. One in thirty is large.
SIZES = 3 * [0, 1, 2, 29, 30, 33, 34, 255, 256, 8192] + [2**20]

STRANGER = b"stranger"  # a routing id that no peer has


class Pair(NamedTuple):
    """Who talks through a device whose ends are of two certain types."""

    client: Type
    """The type of the frontend's peers."""
    worker: Type
    """The type of the backend's peers."""
    clients: int = 1
    """How many there are: one, where the device would have to choose among them."""
    workers: int = 1
    upstream: bool = False
    """Whether the workers send, too."""
    lossy: bool = False
    """Whether a full queue loses messages, so that there must be no limit."""


_P, _D, _R = Type.PAIR, Type.DEALER, Type.ROUTER
PAIRS: Mapping[tuple[Type, Type], Pair] = {
    (Type.PULL, Type.PUSH): Pair(Type.PUSH, Type.PULL, clients=2),
    (_P, _P): Pair(_P, _P, upstream=True),
    (_D, _D): Pair(_D, _D, upstream=True),
    (_R, _D): Pair(_D, _D, clients=2, upstream=True),
    (_D, _R): Pair(_D, _D, workers=2, upstream=True),
    (_R, _R): Pair(_D, _D, clients=2, workers=2, upstream=True),
    (Type.SUB, Type.PUB): Pair(Type.XPUB, Type.SUB, clients=2, lossy=True),
    (Type.XSUB, Type.XPUB): Pair(Type.XPUB, Type.SUB, clients=2, lossy=True),
    (Type.PULL, Type.XPUB): Pair(Type.PUSH, Type.SUB, clients=2, lossy=True),
}
"""What a `DeviceHarness` can drive: the types of frontend and backend, and their peers."""


def show(frame: bytes) -> str:
    """Return a frame as an expression, which is short even if the frame is not."""
    if len(frame) <= 40:
        return repr(frame)
    token = frame[: frame.find(b" ") + 1] or frame[:1]
    times = -(-len(frame) // len(token))
    if len(token) <= 40 and frame == (token * times)[: len(frame)]:
        return f"({token!r} * {times})[:{len(frame)}]"
    return f"{frame[:20]!r}... ({len(frame)} bytes)"


class Send(NamedTuple):
    """A message, and the peer that sends it: ``c0``, ``c1``... are clients, ``w0``... workers."""

    sender: str
    frames: Sequence[bytes]

    def __repr__(self) -> str:
        return f"Send({self.sender!r}, [{', '.join(map(show, self.frames))}])"


@dataclass(frozen=True, repr=False)
class Traffic:
    """Peers and what they send, in this order; its repr may be pasted into ``@example(...)``.

    Parameters
    ----------
    frontend, backend : int
        The socket types of the device: a key of `PAIRS`.
    sends : sequence of Send
        Who sends what: one frame or more, each of them bytes.
    clients, workers : sequence of bytes
        Their routing ids; by default ``c0``, ``c1``, ``w0``...
    single : bool
        Whether one socket is both ends; its peers are the clients.

    Raises
    ------
    TypeError, ValueError
        For what no peer of such a device could send.
    """

    frontend: int
    backend: int
    sends: Sequence[Send]
    clients: Sequence[bytes] = ()
    workers: Sequence[bytes] = ()
    single: bool = False

    def __post_init__(self) -> None:
        ends = (_type(self.frontend, "frontend"), _type(self.backend, "backend"))
        for end, kind in zip(("frontend", "backend"), ends):
            object.__setattr__(self, end, kind)
        if ends not in PAIRS:
            known = ", ".join("-".join(end.name for end in pair) for pair in PAIRS)
            raise ValueError(f"no traffic for {ends[0].name}-{ends[1].name}, but for {known}")
        if self.single and ends != (_R, _R):
            raise ValueError("one socket as both ends must be a ROUTER")
        for field, names in zip(("clients", "workers"), default_names(ends, self.single)):
            given = tuple(getattr(self, field)) or names
            object.__setattr__(self, field, given)
            if len(given) != len(names):
                raise ValueError(f"{field}: {len(names)} are wanted, not {len(given)}")
            if not all(isinstance(each, bytes) and each for each in given):
                raise TypeError(f"{field} must be routing ids, bytes that are not empty: {given!r}")
        if len({*self.clients, *self.workers}) < len(self.clients) + len(self.workers):
            raise ValueError("clients and workers: each must have a routing id of its own")
        self._check_sends()

    def _check_sends(self) -> None:
        if isinstance(self.sends, (str, bytes)) or not isinstance(self.sends, Iterable):
            kind = type(self.sends).__name__
            raise TypeError(f"sends must be a sequence of Send, not {kind}")
        senders = self.senders
        for number, send in enumerate(self.sends):
            if not isinstance(send, tuple) or len(send) != 2:
                raise TypeError(f"sends[{number}] must be a Send, not {send!r}")
            sender, frames = send
            if sender not in senders:
                known = ", ".join(map(repr, senders))
                raise ValueError(f"sends[{number}]: {sender!r} sends nothing; these do: {known}")
            if isinstance(frames, (str, bytes)) or not isinstance(frames, Sequence) or not frames:
                raise TypeError(f"sends[{number}]: a message is a list of frames, not {frames!r}")
            for frame in frames:
                if not isinstance(frame, bytes):
                    raise TypeError(f"sends[{number}]: a frame must be bytes, not {frame!r}")

    @property
    def senders(self) -> list[str]:
        """Names of those who may send, as `Send` has them."""
        workers = self.workers if self.pair.upstream else ()
        names = {"c": self.clients, "w": workers}
        return [f"{letter}{n}" for letter, ids in names.items() for n in range(len(ids))]

    @property
    def pair(self) -> Pair:
        """What is known of sockets of these types."""
        return PAIRS[Type(self.frontend), Type(self.backend)]

    def __repr__(self) -> str:
        ends = [f"zmq.{Type(kind).name}" for kind in (self.frontend, self.backend)]
        names = default_names((Type(self.frontend), Type(self.backend)), self.single)
        parts = [*ends, repr([*self.sends])]
        if (self.clients, self.workers) != names:
            parts += [f"clients={self.clients!r}", f"workers={self.workers!r}"]
        if self.single:
            parts.append("single=True")
        return f"Traffic({', '.join(parts)})"

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        """Let Hypothesis show it so, too, and not as the dataclass that it is."""
        printer.text(repr(self))


def _type(given: Named, name: str) -> Type:
    """Return a socket type that is given by number or name."""
    number = socket_type(given, name)
    try:
        return Type(number)
    except ValueError:
        raise ValueError(f"{name} {number} is no socket type") from None


def _check_range(least: int, **numbers: Any) -> None:
    """Raise if these are not numbers from so much on, in this order."""
    for name, number in numbers.items():
        if not isinstance(number, int):
            raise TypeError(f"{name} must be an int, not {type(number).__name__}")
        if number < least:
            raise ValueError(f"{name} must be at least {least}, not {number}")
        least = number


def default_names(
    ends: tuple[Type, Type], single: bool
) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Return the routing ids of clients and workers."""
    pair = PAIRS[ends]
    workers = 0 if single else pair.workers
    return (
        tuple(b"c%d" % number for number in range(pair.clients)),
        tuple(b"w%d" % number for number in range(workers)),
    )


def sizes(min_frames: int = 1, max_frames: int = 4) -> st.SearchStrategy[list[int]]:
    """Draw the sizes of a message's frames; `content` fills them."""
    return st.lists(st.sampled_from(SIZES), min_size=min_frames, max_size=max_frames)


def content(number: int, sizes: Sequence[int]) -> list[bytes]:
    """Return frames of these sizes, which tell the messages apart as far as their sizes allow."""
    return [
        (b"%d.%d " % (number, place) * (size // 4 + 1))[:size] for place, size in enumerate(sizes)
    ]


def messages(min_frames: int = 1, max_frames: int = 4) -> st.SearchStrategy[list[bytes]]:
    """Draw a message: a list of frames, of 0, 1, 29, 30, 33, 255, 256 bytes... up to 1 MiB."""
    _check_range(1, min_frames=min_frames, max_frames=max_frames)
    return sizes(min_frames, max_frames).map(lambda drawn: content(0, drawn))


def identities() -> st.SearchStrategy[bytes]:
    """Draw a routing id: 1 to 255 bytes, the first of which is not 0, as libzmq keeps those."""
    return st.one_of(
        st.sampled_from([b"a", b"b", *(b"z" * size for size in (5, 29, 30, 33, 34, 255))]),
        st.tuples(st.sampled_from([b"\1", b"\xff"]), st.binary(max_size=254)).map(
            lambda parts: parts[0] + parts[1]
        ),
    )


def prefixes() -> st.SearchStrategy[bytes | str | None]:
    """Draw what goes in front of a capture message."""
    return st.sampled_from([None, b"in", b"", "ü", b"\0" * 40])


def socket_pairs() -> st.SearchStrategy[tuple[Type, Type]]:
    """Draw the types of a device's frontend and backend.

    PULL-PUSH, PAIR-PAIR, DEALER-DEALER, ROUTER-DEALER, DEALER-ROUTER, ROUTER-ROUTER, SUB-PUB,
    XSUB-XPUB and PULL-XPUB.
    """
    return st.sampled_from([*PAIRS])


@st.composite
def _traffic(draw: Any, ends: Any, max_messages: int, single: bool, strange: bool) -> Traffic:
    frontend, backend = draw(ends)
    clients, workers = default_names((frontend, backend), single)
    many = len(clients + workers)
    drawn = st.lists(identities(), min_size=many, max_size=many, unique=True)
    names = draw(st.just(clients + workers) | drawn.map(tuple))
    clients, workers = names[: len(clients)], names[len(clients) :]
    labels = Traffic(frontend, backend, (), clients, workers, single).senders
    sends = []
    message = st.tuples(st.sampled_from(labels), st.integers(0, 3), sizes(0))
    for number, (sender, to, frame_sizes) in enumerate(
        draw(st.lists(message, max_size=max_messages))
    ):
        frames = content(number, frame_sizes)
        forth = sender.startswith("c")
        if (backend if forth else frontend) == Type.ROUTER:
            others = workers if forth and not single else clients
            addresses = [*others, STRANGER, b""] if strange else others
            frames.insert(0, addresses[to % len(addresses)])
        sends.append(Send(sender, frames or [b""]))
    return Traffic(frontend, backend, sends, clients, workers, single)


def traffic(
    frontend: Named | None = None,
    backend: Named | None = None,
    *,
    max_messages: int = 24,
    single: bool = False,
    strange: bool = True,
) -> st.SearchStrategy[Traffic]:
    """Draw what the peers of a device send: several senders, mixed, both ways if possible.

    Parameters
    ----------
    frontend, backend : int or str, optional
        The types of the device's sockets; without them, any `socket_pairs`.
    max_messages : int
        How many messages there are at the most.
    single : bool
        Whether one ROUTER is both ends.
    strange : bool
        Whether a message for a ROUTER's peer may be for one that does not exist.
    """
    if (frontend is None) != (backend is None):
        raise TypeError("give both frontend and backend, or neither")
    _check_range(0, max_messages=max_messages)
    if single and frontend is None:
        frontend = backend = Type.ROUTER
    ends = socket_pairs()
    if frontend is not None and backend is not None:
        kinds = _type(frontend, "frontend"), _type(backend, "backend")
        Traffic(*kinds, (), single=single)  # or it raises
        ends = st.just(kinds)
    return _traffic(ends, max_messages, single, strange)
