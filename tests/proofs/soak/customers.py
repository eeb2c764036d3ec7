"""Peers of a broker: they come, go and stall, and know of each message what became of it.

A message is *open* from when it is sent until it has come. While nobody kills the broker, each has
to come, whole, once and in order. When its process is killed, the open ones become *doubtful*: they
may come, or have died with it. Then each sender sends a *probe* now and then, until one has come:
what is sent from then on has to come again. So does a sender that is new, or has new receivers.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from typing import Any

import zmq

from ...support import DEADLINE, Background
from .messages import HEADER, Violation, checksum, tally, unpack

__all__ = ["HWM", "KERNEL", "KINDS", "RECEIVERS", "SETTINGS", "Customers"]

HWM = 20
KERNEL = 131_072
"""Bytes of a socket's buffer in the kernel; Linux takes twice as many for itself."""
SETTINGS: dict[str, Any] = {"sndhwm": HWM, "rcvhwm": HWM, "sndbuf": KERNEL, "rcvbuf": KERNEL}
BODIES = [b"%d" % number * size for number, size in enumerate([4000, 5000, 9000, 30_000])]
SUMS = [checksum([body]) for body in BODIES]

HELD = HWM + 4 * KERNEL // len(BODIES[0]) + 8
"""Messages that a broker and the kernel may hold of a connection, with those of its batches."""

WINDOW = 4000
"""Open messages, at most; usually the broker takes no more long before that."""

RECEIVERS = 2
TURN = 0.005  # seconds between two turns of peers
PROBE = 0.1  # between two probes
REST = 0.3  # without a message, after which doubtful ones will not come any more


class Sender:
    """One that sends, with a number in each message."""

    def __init__(self, ident: int, socket: zmq.Socket[bytes]) -> None:
        self.ident, self.socket = ident, socket
        self.number = 0
        self.leaves_at = float("inf")
        self.probes: int | None = 0
        """The first message that counts as a probe; None if one has come."""
        self.probed_by: set[object] = set()
        """Who has received one."""
        self.probe_at = 0.0


class Customers:
    """The peers of one broker, which live in a thread of their own.

    Attributes
    ----------
    sent : Counter
        How many messages were sent, each way.
    came : Counter
        How many have come; of a monitor's copies, too.
    lost : int
        How many have died.
    """

    ways: tuple[str, ...] = ("there",)
    """The ways on which messages are followed."""
    kinds: tuple[int, int] = (zmq.PUSH, zmq.PULL)
    may_overflow = False
    """Whether the broker drops what finds no room, and counts that."""

    def __init__(self, name: str, seed: str, ends: dict[str, str]) -> None:
        self.name, self.ends = name, ends
        self.rng = random.Random(seed)
        self.sent: Counter[str] = Counter()
        self.came: Counter[str] = Counter()
        self.lost = self.kills = self.probes = 0
        self._context = zmq.Context()
        self._idents = 0
        self.senders: list[Sender] = []
        self.receivers: list[zmq.Socket[bytes]] = []
        self._open: set[tuple[object, int, int]] = set()
        """By way or receiver, sender and number."""
        self._doubtful: set[tuple[object, int, int]] = set()
        self._last: dict[tuple[object, int], int] = {}
        self._stalls: dict[zmq.Socket[bytes], float] = {}
        self._moved_at = time.monotonic()
        self._lock = threading.RLock()
        self._rests, self._is_over = threading.Event(), threading.Event()
        self.set_up()
        self._thread = Background(self._run)

    # What each kind does in its own way

    def set_up(self) -> None:
        """Make the first peers."""
        for _ in range(RECEIVERS):
            self.receivers.append(self.socket(self.kinds[1], self.ends["out"]))
        for _ in range(2):
            self.add_sender()

    def takers(self) -> list[object]:
        """Return who has to receive each message of a sender: one of all, or each of these."""
        return ["there"]

    def can_take(self, receiver: zmq.Socket[bytes]) -> bool:
        """Tell whether a receiver is done with the message before."""
        return True

    def deliver(self, receiver: zmq.Socket[bytes], frames: list[bytes]) -> None:
        """Take what has come there."""
        self.take("there", receiver, frames)

    def hear(self, sender: Sender, frames: list[bytes]) -> None:
        """Take what has come back at a sender."""
        raise Violation(f"{self.name}: a sender got {len(frames)} frames")

    # What all do

    def socket(self, kind: int, address: str) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self._context.socket(kind)
        for name, value in SETTINGS.items():
            setattr(socket, name, value)
        socket.reconnect_ivl_max = 500
        if kind == zmq.XPUB:
            socket.setsockopt(zmq.XPUB_NODROP, 1)
        elif kind == zmq.SUB:
            socket.subscribe(b"")
        socket.connect(address)
        return socket

    def add_sender(self, socket: zmq.Socket[bytes] | None = None) -> None:
        self._idents += 1
        sender = Sender(self._idents, socket or self.socket(self.kinds[0], self.ends["in"]))
        if self.senders:  # the first one stays
            sender.leaves_at = time.monotonic() + self.rng.uniform(1, 8)
        self.senders.append(sender)
        tally("senders")

    def take(self, key: object, receiver: object, frames: list[bytes], way: str = "there") -> None:
        """Check a message that came, and close it; where they overtake each other, at None."""
        sender, number = unpack(f"{self.name}: {way}: ", frames)
        message = (key, sender, number)
        what = f"{self.name}: message {number} of sender {sender} ({key})"
        if receiver is not None:
            if self._last.get((receiver, sender), -1) >= number:
                raise Violation(f"{what} came behind {self._last[receiver, sender]}")
            self._last[receiver, sender] = number
        if message in self._open:
            self._open.remove(message)
        elif message in self._doubtful:
            self._doubtful.remove(message)
        else:
            raise Violation(f"{what} came twice, or was never sent")
        self.came[way] += 1
        self._moved_at = time.monotonic()
        for each in self.senders:
            if each.ident == sender and each.probes is not None and number >= each.probes:
                each.probed_by.add(key)
                if each.probed_by >= {*self.takers()}:
                    each.probes = None

    def send(self, sender: Sender) -> bool:
        """Send a message, if there is room."""
        which = self.rng.randrange(len(BODIES))
        header = HEADER.pack(sender.ident, sender.number, 1, SUMS[which])
        try:
            sender.socket.send_multipart([header, BODIES[which]], zmq.DONTWAIT)
        except zmq.Again:
            return False
        open_now = self._open if sender.probes is None else self._doubtful
        open_now.update((key, sender.ident, sender.number) for key in self.takers())
        self.sent[self.way_of(sender)] += 1
        sender.number += 1
        self._moved_at = time.monotonic()
        return True

    def way_of(self, sender: Sender) -> str:
        """Return which way its messages go."""
        return "there"

    def _run(self) -> None:
        try:
            while not self._is_over.is_set():
                with self._lock:
                    self._turn()
                self._is_over.wait(TURN)
        finally:
            self._context.destroy(linger=0)

    def _turn(self) -> None:
        """Do what is to be done now."""
        rests, now = self._rests.is_set(), time.monotonic()
        if not rests:
            self._come_and_go(now)
        for receiver in self.receivers:
            if rests or self._stalls.get(receiver, 0.0) < now:
                for _ in range(50):
                    if not (self.can_take(receiver) and receiver.poll(0)):
                        break
                    self.deliver(receiver, receiver.recv_multipart())
        for sender in self.senders:
            stalls = not rests and self._stalls.get(sender.socket, 0.0) > now
            while not stalls and sender.socket.type != zmq.PUSH and sender.socket.poll(0):
                self.hear(sender, sender.socket.recv_multipart())
            if sender.probes is not None:
                if now >= sender.probe_at:
                    sender.probe_at = now + PROBE
                    self.probes += self.send(sender)
            elif not rests and now < sender.leaves_at:
                for _ in range(self.rng.randrange(5)):
                    if len(self._open) < WINDOW:
                        self.send(sender)

    def _come_and_go(self, now: float) -> None:
        """Stall at random; senders come, and go when they have nothing open."""
        rng = self.rng
        if rng.random() < 0.001:
            sockets = [*self.receivers, *(sender.socket for sender in self.senders)]
            self._stalls[rng.choice(sockets)] = now + rng.uniform(0.1, 1.5)
            tally("stalls")
        if len(self.senders) < 3 and rng.random() < 0.01 and self.may_come():
            self.add_sender()
        for sender in [*self.senders]:
            if sender.leaves_at < now and sender.probes is None and self.may_leave(sender):
                self.senders.remove(sender)
                sender.socket.close()  # what it has sent goes on

    def may_come(self) -> bool:
        """Tell whether another sender may come."""
        return True

    def may_leave(self, sender: Sender) -> bool:
        """Tell whether all that it has sent has come everywhere.

        Over ipc, libzmq 4.3.5 loses what the kernel still has of a connection that its other end
        has closed, if the socket was full then, whatever ZMQ_LINGER that end has.
        """
        waits = (*self._open, *self._doubtful)
        return not any(message[1] == sender.ident for message in waits)

    # What the supervisor of all this calls, from another thread

    def check(self) -> None:
        """Raise what has gone wrong in the thread."""
        if not self._thread.alive:
            self._thread.join()

    def expose(self) -> None:
        """Know that the broker's process is about to be killed."""
        with self._lock:
            self._doubt()
            self.kills += 1

    def probe(self) -> None:
        """Know that it was killed, or made anew; what is sent from now on finds out."""
        with self._lock:
            self._doubt()

    def _doubt(self) -> None:
        self._doubtful |= self._open
        self._open.clear()
        for sender in self.senders:
            sender.probes, sender.probed_by = sender.number, set()

    def rest(self) -> None:
        """Send no more, and wait until all that had to come has come."""
        self._rests.set()
        deadline = time.monotonic() + DEADLINE
        while not self._is_quiet():
            self.check()
            if time.monotonic() > deadline:
                probing = [s.ident for s in self.senders if s.probes is not None]
                raise Violation(
                    f"{self.name}: {len(self._open)} messages are open, senders {probing} still "
                    f"probe: {sorted(self._open, key=str)[:5]}"
                )
            self._is_over.wait(0.01)
        with self._lock:
            died = len({message[1:] for message in self._doubtful})
            self._doubtful.clear()
            self.lost += died
            peers = len(self.senders) + len(self.receivers) + 2  # some may have gone
            bound = self.kills * peers * HELD * len(self.ways) + self.probes
            if died > bound:
                raise Violation(f"{self.name}: {died} messages died, more than {bound}")
            self.kills = self.probes = 0
            tally("messages that died", died)

    def _is_quiet(self) -> bool:
        with self._lock:
            probing = any(sender.probes is not None for sender in self.senders)
            is_calm = time.monotonic() > self._moved_at + REST
            return not self._open and not probing and (is_calm or not self._doubtful)

    def part(self) -> None:
        """Have a receiver leave; nothing is under way."""
        with self._lock:
            left = self.receivers.pop(0)
            left.close(0)
            self._stalls.pop(left, None)

    def join(self) -> None:
        """Have another one come."""
        with self._lock:
            self.receivers.insert(1, self.socket(self.kinds[1], self.ends["out"]))
            self._doubt()
        tally("receivers")

    def go_on(self) -> None:
        """Send again."""
        self._rests.clear()

    def end(self) -> None:
        """Close all."""
        self._is_over.set()
        self._thread.join()


class Spilling(Customers):
    """Of a broker that drops what finds no room, and counts it."""

    may_overflow = True

    def may_leave(self, sender: Sender) -> bool:
        return True  # it is tcp, and nobody knows what is still to come

    def _is_quiet(self) -> bool:
        with self._lock:  # nobody knows but the broker how many are still to come
            calm = time.monotonic() > self._moved_at + REST
            return calm and not any(sender.probes is not None for sender in self.senders)

    def rest(self) -> None:
        super().rest()
        with self._lock:
            self._open.clear()


class Reading(Customers):
    """Publishers and subscribers, each of whom has to get all."""

    kinds = (zmq.XPUB, zmq.SUB)

    def takers(self) -> list[object]:
        return [*self.receivers]

    def deliver(self, receiver: zmq.Socket[bytes], frames: list[bytes]) -> None:
        self.take(receiver, receiver, frames)

    def hear(self, sender: Sender, frames: list[bytes]) -> None:
        if frames not in ([b"\x01"], [b"\x00"]):
            raise Violation(f"{self.name}: a publisher got {frames}")


class Asking(Customers):
    """Clients and workers; a monitor, if there is one."""

    kinds = (zmq.DEALER, zmq.DEALER)
    ways = ("there", "back")

    def set_up(self) -> None:
        super().set_up()
        self._replies: dict[zmq.Socket[bytes], list[bytes]] = {}
        self._monitor: zmq.Socket[bytes] | None = None
        if "mon" in self.ends:
            self._monitor = self.socket(zmq.PULL, self.ends["mon"])
            self.receivers.append(self._monitor)  # the last one, which stays

    def takers(self) -> list[object]:
        copies = ["copy in", "copy out"] if "mon" in self.ends else []
        return ["there", "back", *copies]

    def deliver(self, receiver: zmq.Socket[bytes], frames: list[bytes]) -> None:
        if receiver is self._monitor:
            side = frames[0].decode()
            key = f"copy {side}"
            self.take(key, receiver if side == "in" else None, frames[2:], key)
            return
        self.take("there", receiver, frames[1:])
        self._replies[receiver] = frames

    def can_take(self, receiver: zmq.Socket[bytes]) -> bool:
        reply = self._replies.get(receiver)
        if reply is not None:
            try:
                receiver.send_multipart(reply, zmq.DONTWAIT)
            except zmq.Again:
                return False
            del self._replies[receiver]
            self.sent["back"] += 1
        return True

    def hear(self, sender: Sender, frames: list[bytes]) -> None:
        self.take("back", None, frames, "back")


class Pair(Customers):
    """Two who send to each other."""

    kinds = (zmq.PAIR, zmq.PAIR)
    ways = ("there", "back")

    def set_up(self) -> None:
        for end in ("in", "out"):
            self.add_sender(self.socket(zmq.PAIR, self.ends[end]))
            self.senders[-1].leaves_at = float("inf")

    def way_of(self, sender: Sender) -> str:
        return "there" if sender.ident == 1 else "back"

    def hear(self, sender: Sender, frames: list[bytes]) -> None:
        self.take("there", sender, frames, "back" if sender.ident == 1 else "there")

    def may_come(self) -> bool:
        return False


KINDS: dict[str, type[Customers]] = {
    "queue": Asking,
    "monitored-queue": Asking,
    "forwarder": Reading,
    "streamer": Customers,
    "proxy": Pair,
    "spill": Spilling,
}
