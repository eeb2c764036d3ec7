"""Uses that must not type-check: mypy calls an ignore that nothing needs an error."""

from __future__ import annotations

import zmq

import zdev


def functions(socket: zmq.Socket[bytes], context: zmq.Context[zmq.Socket[bytes]]) -> None:
    zdev.proxy(socket)  # type: ignore[call-arg]
    zdev.proxy(socket, None)  # type: ignore[arg-type]
    zdev.proxy(context, socket)  # type: ignore[arg-type]
    zdev.proxy("inproc://x", socket)  # type: ignore[arg-type]
    zdev.proxy(socket, socket, None, "drop")  # type: ignore[call-arg]
    zdev.proxy(socket, socket, capture_policy="lossless")  # type: ignore[arg-type]
    zdev.proxy(socket, socket, capture_policy=True)  # type: ignore[arg-type]
    zdev.proxy(socket, socket, overflow="block")  # type: ignore[arg-type]
    zdev.proxy(socket, socket, in_overflow=True)  # type: ignore[arg-type]
    zdev.proxy(socket, socket, burst=1.5)  # type: ignore[arg-type]
    zdev.proxy(socket, socket, burst=None)  # type: ignore[arg-type]
    zdev.proxy(socket, socket, control=socket)  # type: ignore[call-arg]
    zdev.proxy(in_socket=socket, out_socket=socket)  # type: ignore[call-arg]
    zdev.device(b"QUEUE", socket, socket)  # type: ignore[arg-type]
    zdev.device(socket, socket)  # type: ignore[call-arg, arg-type]
    zdev.proxy_steerable(socket, socket, None, 5)  # type: ignore[arg-type]
    zdev.monitored_queue(socket, socket)  # type: ignore[call-arg]
    zdev.monitored_queue(socket, socket, None)  # type: ignore[arg-type]
    zdev.monitored_queue(socket, socket, socket, 5)  # type: ignore[arg-type]
    zdev.monitored_queue(socket, socket, socket, ["in"])  # type: ignore[arg-type]
    zdev.monitored_queue(socket, socket, socket, b"in", b"out", socket)  # type: ignore[call-arg]


def relay(socket: zmq.Socket[bytes]) -> None:
    made = zdev.Relay(socket, socket, in_prefix=5)  # type: ignore[arg-type]
    zdev.Relay(socket, socket, None, b"in")  # type: ignore[call-arg]
    zdev.Relay(socket, socket, swap="yes")  # type: ignore[arg-type]
    made.run(5)  # type: ignore[call-arg]
    made.call(5)  # type: ignore[arg-type]
    made.call(lambda argument: argument)  # type: ignore[arg-type, misc]
    number: int = made.call(lambda: "x")  # type: ignore[assignment]
    text: str = made.step()  # type: ignore[assignment]
    sure: int = made.step()  # type: ignore[assignment]
    made.paused = True  # type: ignore[misc]
    made.paused()  # type: ignore[operator]
    made.stop(drain="1")  # type: ignore[arg-type]
    made.start()  # type: ignore[attr-defined]
    print(number, text, sure)


def statistics(relay: zdev.Relay) -> None:
    now = relay.statistics()
    now.capture = now.capture  # type: ignore[misc]
    now.capture.sent = 5  # type: ignore[misc]
    now.frontend_to_backend.sent  # type: ignore[attr-defined]  # noqa: B018 - it is the point
    one, two = now  # type: ignore[misc]
    text: str = now.capture.sent  # type: ignore[assignment]
    print(one, two, text)


def engine() -> None:
    zdev.engine()  # type: ignore[operator]
    zdev.engines  # type: ignore[attr-defined]  # noqa: B018 - it is the point
