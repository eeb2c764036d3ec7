"""What the systems are put to, and the sockets for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import zmq

__all__ = ["PACED", "WORKLOADS", "Bench", "Workload"]

# Messages under way between all clients and the workers; no high-water mark is ever reached, since
# a ROUTER drops what it cannot send.
UNDER_WAY = 500

# Bytes that may wait in a socket: so many 1 MiB messages as a usual high-water mark allows would
# not fit into memory.
WAITING = 32 << 20

TIMEOUT = 20  # milliseconds between a job's looks whether all is over

# Frontend, backend, and the types of their peers.
DEVICES = {
    "PULL-PUSH": (zmq.PULL, zmq.PUSH, zmq.PUSH, zmq.PULL),
    "XSUB-XPUB": (zmq.XSUB, zmq.XPUB, zmq.XPUB, zmq.SUB),
    "ROUTER-DEALER": (zmq.ROUTER, zmq.DEALER, zmq.DEALER, zmq.DEALER),
    "ROUTER-ROUTER": (zmq.ROUTER, zmq.ROUTER, zmq.DEALER, zmq.DEALER),
}
ONE_WAY = {"PULL-PUSH", "XSUB-XPUB"}

# Shapes in which messages are paced; nanoseconds that the reader of the flood takes for each.
PACED = {"reverse": 0, "blocked": 100_000}
PACE = 200_000


@dataclass(frozen=True)
class Workload:
    """One thing to measure."""

    group: str
    device: str = "PULL-PUSH"
    transport: str = "inproc"
    size: int = 100
    """Bytes of a frame."""
    frames: int = 1
    monitor: str | None = None
    """PUB (without a subscriber), PUB+SUB, PUSH, or None."""
    prefixed: bool = True
    """Whether copies name the side: monitored_queue's do, those of a proxy's capture do not."""
    shape: str = "flood"
    """flood: one way or, where there are clients, with many requests under way; ping-pong: one
    request at a time; reverse: paced messages from the backend, against a flood from the frontend;
    blocked: the same, with a reader so slow that the device cannot get rid of the flood."""
    clients: int = 1

    @property
    def name(self) -> str:
        """Return what tells it from all others."""
        parts = [self.device, self.transport]
        parts.append(
            f"{self.frames} x {_bytes(self.size)}" if self.frames > 1 else _bytes(self.size)
        )
        if self.shape != "flood":
            parts.append(self.shape)
        if self.clients > 1:
            parts.append(f"{self.clients} clients")
        if self.monitor:
            parts.append(f"+ {self.monitor}" if self.prefixed else f"+ capture {self.monitor}")
        return " ".join(parts)


def _bytes(size: int) -> str:
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} B"


def _workloads() -> list[Workload]:
    devices = list(DEVICES)
    clients = ("ROUTER-DEALER", "ROUTER-ROUTER")
    return [
        *(Workload("main", device) for device in devices),
        *(Workload("main", device, monitor="PUB") for device in devices),
        *(Workload("tcp", device, "tcp") for device in devices),
        Workload("tcp", transport="tcp", size=8),
        *(Workload("size", size=size) for size in (8, 1 << 10, 64 << 10, 1 << 20)),
        *(Workload("frames", frames=frames) for frames in (2, 4, 16)),
        *(Workload("frames", "ROUTER-DEALER", frames=frames) for frames in (4, 16)),
        *(Workload("monitor", device, monitor="PUB+SUB") for device in devices),
        *(Workload("monitor", device, monitor="PUSH") for device in devices),
        *(Workload("latency", device, shape="ping-pong") for device in clients),
        *(Workload("latency", device, shape="ping-pong", monitor="PUB") for device in clients),
        *(
            Workload("capture", device, monitor=monitor, prefixed=False)
            for device in ("PULL-PUSH", "ROUTER-DEALER")
            for monitor in ("PUB", "PUB+SUB", "PUSH")
        ),
        Workload("latency", "ROUTER-DEALER", "tcp", shape="ping-pong"),
        *(
            Workload("latency", "ROUTER-DEALER", shape=shape, monitor=monitor)
            for shape in PACED
            for monitor in ("PUB", None)
        ),
        *(
            Workload("clients", "ROUTER-DEALER", transport, clients=number)
            for transport in ("inproc", "tcp")
            for number in (10, 100, 1000)
        ),
    ]


WORKLOADS = {workload.name: workload for workload in _workloads()}


class Bench:
    """The sockets of one workload: those of the device, and its peers.

    Where the transport is tcp, the device has a context of its own, as it has in a process of its
    own. The two peers of a ROUTER-ROUTER device go by the same routing id, so that a device that
    does not swap ids delivers to the same peer as one that does.

    Parameters
    ----------
    workload : Workload
        What it is for.
    direct : bool
        Connect the peers with each other, without a device.
    endless : bool
        Have no high-water marks.
    """

    def __init__(self, workload: Workload, direct: bool = False, endless: bool = False) -> None:
        self.workload = workload
        hwm = WAITING // (workload.size * workload.frames)
        self._hwm = 0 if endless else min(max(hwm, 16), 100 if workload.shape in PACED else 1000)
        self._inner = self._context()
        self._outer = self._inner if workload.transport == "inproc" else self._context()
        self.frontend: Any = None
        self.backend: Any = None
        self.monitor: Any = None
        self.watcher: Any = None
        ids = [""]
        if workload.shape in PACED:
            ids = ["flood", "probe"]
        elif workload.device == "ROUTER-ROUTER":
            ids = ["peer"]
        if direct:
            self._connect_directly(ids)
        else:
            self._connect(ids)

    @staticmethod
    def _context() -> zmq.Context[Any]:
        context = zmq.Context()
        context.set(zmq.MAX_SOCKETS, 4096)
        return context

    def _socket(self, kind: int, *, name: str = "", inner: bool = False) -> Any:
        socket = (self._inner if inner else self._outer).socket(kind)
        socket.linger = 0
        # What a PUB or XPUB cannot send at once is lost.
        lossy = kind in (zmq.SUB, zmq.PUB) or (inner and kind == zmq.XPUB)
        socket.set_hwm(0 if lossy else self._hwm)
        if kind == zmq.SUB:
            socket.subscribe(b"")
        if kind == zmq.XPUB and not inner:
            socket.setsockopt(zmq.XPUB_NODROP, 1)
        if name:
            socket.setsockopt(zmq.ROUTING_ID, name.encode())
        return socket

    def _bind(self, socket: Any, name: str) -> str:
        tcp = self.workload.transport == "tcp" and name != "monitor"
        socket.bind("tcp://127.0.0.1:*" if tcp else f"inproc://{name}")
        return str(socket.last_endpoint.decode())

    def _connect(self, ids: list[str]) -> None:
        front, back, source, sink = DEVICES[self.workload.device]
        self.frontend = self._socket(front, inner=True)
        self.backend = self._socket(back, inner=True)
        inside, outside = self._bind(self.frontend, "front"), self._bind(self.backend, "back")
        self.sources = [
            self._socket(source, name=name) for name in ids for _ in range(self.workload.clients)
        ]
        if self.workload.shape in PACED:
            for socket in self.sources:
                socket.rcvhwm = (
                    0  # a ROUTER would drop what a receiver that waits for a CPU is sent
                )
        self.sinks = [self._socket(sink, name=name) for name in ids]
        for socket in self.sources:
            socket.connect(inside)
        for socket in self.sinks:
            socket.connect(outside)
        if ids != [""]:
            for end, peers in ((self.frontend, self.sources), (self.backend, self.sinks)):
                if end.type == zmq.ROUTER:
                    self._meet(end, peers, ids)
        self._make_monitor()

    @staticmethod
    def _meet(router: Any, peers: list[Any], ids: list[str]) -> None:
        """Wait until a ROUTER knows its peers; until then it drops what is for them."""
        router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        for peer, name in zip(peers, ids):
            while True:
                try:
                    router.send_multipart([name.encode(), b"hello"])
                    break
                except zmq.ZMQError as error:
                    if error.errno != zmq.EHOSTUNREACH:
                        raise
                    router.poll(1)
            assert peer.recv() == b"hello"
        router.setsockopt(zmq.ROUTER_MANDATORY, 0)

    def _make_monitor(self) -> None:
        if not self.workload.monitor:
            return
        kind, _, peer = self.workload.monitor.partition("+")
        self.monitor = self._socket(getattr(zmq, kind), inner=True)
        endpoint = self._bind(self.monitor, "monitor")
        if peer or kind == "PUSH":
            self.watcher = self._socket(getattr(zmq, peer or "PULL"), inner=True)
            self.watcher.connect(endpoint)
            self.monitor.getsockopt(zmq.EVENTS)  # takes note of the subscription

    def _connect_directly(self, ids: list[str]) -> None:
        _, _, source, sink = DEVICES[self.workload.device]
        if self.workload.device == "ROUTER-DEALER":
            sink = zmq.ROUTER  # one for all clients
        self.sources, self.sinks = [], []
        for name in ids:
            self.sinks.append(self._socket(sink))
            endpoint = self._bind(self.sinks[-1], f"back {name}")
            for _ in range(self.workload.clients):
                self.sources.append(self._socket(source))
                self.sources[-1].connect(endpoint)

    def ready(self) -> None:
        """Wait until what is sent arrives; the device runs by now. Peers have timeouts from now."""
        if self.workload.device == "XSUB-XPUB":
            self.sinks[0].getsockopt(zmq.EVENTS)  # takes note of who has connected
            assert self.sources[0].poll(20_000), "no subscription came"
            self.sources[0].recv()
        for socket in [*self.sources, *self.sinks, *([self.watcher] if self.watcher else [])]:
            socket.sndtimeo = socket.rcvtimeo = TIMEOUT

    def jobs(self, number: int) -> tuple[int, list[dict[str, Any]]]:
        """Return how many messages that number of units are, and the jobs (see `Load.run`)."""
        work = self.workload
        message: dict[str, Any] = {"frames": work.frames, "size": work.size, "messages": number}
        if work.device == "ROUTER-ROUTER":
            message["address"] = b"peer"
        if work.shape in PACED:
            # The prober's own share of the flood fills its pipe; from then on the sink gets all.
            flood, receiver = self.sources
            sink, prober = self.sinks
            probe = {"address": b"probe", "interval": PACE}
            return number, [
                {"kind": "CONSUME", "sockets": [receiver], "messages": number, "latency": True},
                {"kind": "PROBE", "sockets": [prober], **message, **probe},
                {"kind": "PRODUCE", "sockets": [flood], **message, "background": 1},
                {
                    "kind": "CONSUME",
                    "sockets": [sink],
                    "background": 1,
                    "interval": PACED[work.shape],
                },
            ]
        if work.device in ONE_WAY:
            messages = number
            jobs = [
                {"kind": "CONSUME", "sockets": self.sinks, "messages": number},
                {"kind": "PRODUCE", "sockets": self.sources, **message},
            ]
        else:
            messages = 2 * number
            latency = work.shape == "ping-pong"
            window = 1 if latency else max(UNDER_WAY // work.clients, 1)
            jobs = [
                {
                    "kind": "CLIENT",
                    "sockets": self.sources,
                    **message,
                    "window": window,
                    "latency": latency,
                },
                {"kind": "ECHO", "sockets": self.sinks, "background": 1},
            ]
        if self.watcher:
            jobs.append({"kind": "CONSUME", "sockets": [self.watcher], "messages": messages})
        return messages, jobs
