"""Uses that type-check, with the types that come out. Checked by mypy, never run."""

from __future__ import annotations

import selectors
import threading
from typing import TYPE_CHECKING

import zmq
import zmq.asyncio

import zdev

if TYPE_CHECKING:
    from typing_extensions import assert_type


def functions(
    plain: zmq.Socket[bytes], asynchronous: zmq.asyncio.Socket, shadowed: zmq.SyncSocket
) -> None:
    assert_type(zdev.proxy(plain, asynchronous), int)
    assert_type(zdev.proxy(plain, shadowed, plain, capture_policy="drop", burst=1), int)
    assert_type(zdev.proxy(frontend=plain, backend=plain, capture=None), int)
    assert_type(zdev.proxy(plain, plain, overflow="drop", in_overflow="park"), int)
    assert_type(zdev.device(1, plain, plain, out_overflow="drop"), int)
    assert_type(zdev.device(zmq.QUEUE, plain, plain), int)
    assert_type(zdev.device("queue", plain, plain), int)
    assert_type(zdev.device(1, frontend=plain, backend=plain), int)
    assert_type(zdev.proxy_steerable(plain, plain, None, plain), int)
    assert_type(zdev.proxy_steerable(plain, plain, control=plain, capture_policy="block"), int)
    assert_type(zdev.monitored_queue(plain, plain, plain), int)
    assert_type(zdev.monitored_queue(plain, plain, plain, b"in", "out"), int)
    zdev.monitored_queue(plain, plain, plain, bytearray(b"in"), memoryview(b"out"))
    zdev.monitored_queue(plain, plain, plain, None, out_prefix=None, control=plain)


def relay(frontend: zmq.Socket[bytes], backend: zmq.Socket[bytes]) -> None:
    made = zdev.Relay(frontend, backend, None, in_prefix="in", out_prefix=None, swap=False)
    assert_type(made, zdev.Relay)
    threading.Thread(target=made.run).start()
    assert_type(made.step(), "int | None")
    assert_type(made.fileno(), int)
    assert_type(made.descriptors(), "list[int]")
    assert_type(made.deadline(), "float | None")
    selectors.DefaultSelector().register(made, selectors.EVENT_READ)
    assert_type(made.paused, bool)
    made.pause()
    made.resume()
    made.stop()
    made.stop(drain=1.5, quiet=0.5)
    assert_type(made.last_stop, "zdev.StopReport | None")
    assert_type(made.call(threading.get_ident), int)
    assert_type(made.call(lambda: b"x", timeout=1.5), bytes)
    assert_type(made.call(lambda: frontend.bind_to_random_port("tcp://*"), 2), int)


def statistics(relay: zdev.Relay) -> None:
    now = relay.statistics()
    assert_type(now, zdev.Statistics)
    assert_type(now.frontend_to_backend, zdev.DirectionStatistics)
    assert_type(now.backend_to_frontend.messages_received, int)
    there, back, capture = now
    assert_type(now.unanswered, int)
    assert_type(there, zdev.DirectionStatistics)
    assert_type(back.parked + capture.parked, int)
    assert_type(capture, zdev.CaptureStatistics)


def engine(plain: zmq.Socket[bytes]) -> None:
    assert_type(zdev.engine, str)
    try:
        zdev.Relay(plain, plain)
    except zdev.EngineUnavailableError as error:
        caught: ImportError = error
        print(caught)
