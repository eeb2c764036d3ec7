"""The harness: it finds what is wrong with a device, says so readably, and passes what is right."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from typing import Any, Callable

import pytest
import zmq
from hypothesis import given

import zdev
from zdev.testing import (
    DeviceError,
    DeviceHarness,
    Send,
    Traffic,
    messages,
    no_leaks,
    traffic,
)
from zdev.testing.leaks import end_context

from ..fuzzing import examples
from ..support import DEADLINE
from .brokers import Broker, Message, check, splits

PULL_PUSH = Traffic(
    zmq.PULL, zmq.PUSH, [Send("c0", [b"first"]), Send("c0", [b"2a", b"2b"]), Send("c0", [b"3"])]
)


def drops(source: Iterator[Message]) -> Iterator[Message]:
    yield next(source)
    next(source)
    yield from source


def reorders(source: Iterator[Message]) -> Iterator[Message]:
    first = next(source)
    yield next(source)
    yield first
    yield from source


def merges(source: Iterator[Message]) -> Iterator[Message]:
    yield next(source) + next(source)
    yield from source


def duplicates(source: Iterator[Message]) -> Iterator[Message]:
    for message in source:
        yield message
        yield message


def alters(source: Iterator[Message]) -> Iterator[Message]:
    yield next(source)
    yield [*next(source)[:-1], b"altered" * 100]
    yield from source


def keeps(source: Iterator[Message]) -> Iterator[Message]:
    yield next(source)
    for _ in source:
        pass


def raises(source: Iterator[Message]) -> Iterator[Message]:
    yield next(source)
    raise ArithmeticError("spoilt")


def ends(source: Iterator[Message]) -> Iterator[Message]:
    yield next(source)


WRONG = {
    "drops": (
        Broker(drops),
        """\
w0 received a wrong message, first at frame 0:
           received  expected from c0
! frame 0  b'3'      b'2a'
  frame 1  -         b'2b'
It is a later one of c0: one before it was lost or overtaken.""",
    ),
    "reorders": (
        Broker(reorders),
        """\
w0 received a wrong message, first at frame 0:
           received  expected from c0
! frame 0  b'2a'     b'first'
  frame 1  b'2b'     -
It is a later one of c0: one before it was lost or overtaken.""",
    ),
    "merges": (
        Broker(merges),
        """\
w0 received a wrong message, first at frame 1:
           received  expected from c0
  frame 0  b'first'  b'first'
! frame 1  b'2a'     -
  frame 2  b'2b'     -""",
    ),
    "splits": (
        Broker(splits),
        """\
w0 received a wrong message, first at frame 1:
           received  expected from c0
  frame 0  b'2a'     b'2a'
! frame 1  -         b'2b'""",
    ),
    "duplicates": (
        Broker(duplicates),
        """\
w0 received a wrong message, first at frame 0:
           received  expected from c0
! frame 0  b'first'  b'2a'
  frame 1  -         b'2b'
The same has come before.""",
    ),
    "alters": (
        Broker(alters),
        """\
w0 received a wrong message, first at frame 1:
           received                             expected from c0
  frame 0  b'2a'                                b'2a'
! frame 1  b'alteredalteredaltere'... (700 bytes)  b'2b'""",
    ),
    "prefix": (
        Broker(prefix=b"front"),
        """\
the capture received a wrong message, first at frame 0:
           received  expected from c0
! frame 0  b'front'  b'in'
  frame 1  b'first'  b'first'""",
    ),
    "keeps": (
        Broker(keeps, prefix=b"in"),
        """\
the device does not go on: nothing has come for 0.3 s
Not received:
  w0 from c0: [b'2a', b'2b']
  w0 from c1: [b'the end of c1']
  the capture from c0: [b'in', b'2a', b'2b']
  the capture from c1: [b'in', b'the end of c1']""",
    ),
    "raises": (
        Broker(raises),
        """\
the device raised ArithmeticError: spoilt before its context was terminated
Not received:
  w0 from c0: [b'2a', b'2b']""",
    ),
    "ends": (
        Broker(ends),
        """\
the device returned before its context was terminated
Not received:
  w0 from c0: [b'2a', b'2b']""",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_reported(name: str) -> None:
    """And nothing is left behind."""
    device, report = WRONG[name]
    captured = device.prefix is not None
    with no_leaks(), pytest.raises(DeviceError) as raised:
        check(device, PULL_PUSH, capture=captured, prefixes=(b"in", None), timeout=0.3)
    assert re.sub(" +", " ", str(raised.value)).startswith(re.sub(" +", " ", report))
    assert isinstance(raised.value.__cause__, ArithmeticError) == (name == "raises")


def test_a_device_that_forgets_to_swap() -> None:
    sent = Traffic(zmq.ROUTER, zmq.ROUTER, [Send("c0", [b"w1", b"body"])])
    with no_leaks(), pytest.raises(DeviceError, match=r"\n  w1 from c0: \[b'c0', b'body'\]"):
        check(Broker(), sent, capture=False, swap=True, timeout=0.3)


def test_a_device_that_swaps_needlessly() -> None:
    with no_leaks(), pytest.raises(DeviceError, match=r"frame 0 +b'2b' +b'2a'"):
        check(Broker(swap_two), PULL_PUSH, capture=False)


def swap_two(source: Iterator[Message]) -> Iterator[Message]:
    for message in source:
        yield message[::-1]


@pytest.mark.parametrize(
    ("relays", "report"),
    [(True, "the device did not end within 0.3 s"), (False, "nothing has come for 0.3 s")],
)
def test_a_device_that_never_ends(relays: bool, report: str) -> None:
    """It cannot be ended, but it is told, and nothing waits for it."""
    gone = threading.Event()

    def device(frontend: Any, backend: Any, _: Any) -> None:
        if relays:
            with contextlib.suppress(zmq.ContextTerminated):
                Broker()(frontend, backend, None)
        gone.wait(DEADLINE)

    with no_leaks():
        made = DeviceHarness(device, PULL_PUSH, capture=False, timeout=0.3)
        with pytest.raises(DeviceError, match=re.escape(report)), made:
            made.check()
        gone.set()
        assert made._thread
        assert end_context(made.context, {made._thread}, DEADLINE)
        del made


@pytest.mark.parametrize("end", ["term", "destroy"])
def test_a_device_that_ends_its_context(end: str) -> None:
    def broker(frontend: Any, backend: Any) -> None:
        try:
            frontend.recv()
            raise ZeroDivisionError("the reason")
        finally:
            frontend.close()
            backend.close()
            getattr(frontend.context, end)()

    made = DeviceHarness(lambda f, b, _: broker(f, b), PULL_PUSH, capture=False)
    with pytest.raises(DeviceError, match="raised ZeroDivisionError: the reason"), made:
        made.check()
    made = DeviceHarness(lambda f, b, _: f.context.destroy(), PULL_PUSH, capture=False)
    with pytest.raises(DeviceError, match=r"the device (terminated|returned)"), made:
        made.check()


def test_a_failure_of_the_test_itself_comes_through() -> None:
    made = DeviceHarness(Broker(), PULL_PUSH, capture=False)
    with no_leaks(), pytest.raises(ZeroDivisionError), made:
        raise ZeroDivisionError


def test_a_harness_can_check_again(engine: str) -> None:
    with DeviceHarness("Relay", Traffic(zmq.XSUB, zmq.XPUB, [Send("c1", [b"news"])])) as made:
        made.check()
        made.check()
        assert made.inboxes["w0"].received.count([b"news"]) == 2


def sends(*given: Any, **options: Any) -> Traffic:
    return Traffic(zmq.PULL, zmq.PUSH, *given, **options)


def harness(**options: Any) -> DeviceHarness:
    return DeviceHarness("proxy", PULL_PUSH, **options)


@pytest.mark.parametrize(
    ("wrong", "error", "match"),
    [
        (lambda: DeviceHarness("ProcessProxy", PULL_PUSH), ValueError, "process"),
        (lambda: DeviceHarness("zmq.devices.ProcessDevice", PULL_PUSH), ValueError, "process"),
        (lambda: DeviceHarness(dict, PULL_PUSH), TypeError, "neither"),
        (
            lambda: DeviceHarness(zdev.ThreadProxy(zmq.PULL, zmq.PUSH), PULL_PUSH),
            TypeError,
            "called",
        ),  # type: ignore[arg-type]
        (lambda: DeviceHarness("nothing", PULL_PUSH), AttributeError, "nothing"),
        (lambda: Traffic(zmq.REQ, zmq.REP, []), ValueError, "REQ-REP, but for PULL-PUSH"),
        (lambda: Traffic(zmq.PULL, zmq.PUSH, [], clients=[b"a"]), ValueError, "2 are wanted"),
        (lambda: traffic(zmq.PULL, zmq.PUSH, single=True), ValueError, "must be a ROUTER"),
        (lambda: traffic(zmq.PULL), TypeError, "both"),
        (
            lambda: traffic("PULL", "PUSHER"),
            ValueError,
            "backend: there is no socket type 'PUSHER'",
        ),
        (lambda: traffic(99, zmq.PUSH), ValueError, "frontend 99 is no socket type"),
        (lambda: traffic(zmq.PULL, 8.0), TypeError, "backend must be a socket type"),
        (lambda: traffic(max_messages=-1), ValueError, "max_messages must be at least 0, not -1"),
        (lambda: traffic(max_messages="5"), TypeError, "max_messages must be an int, not str"),
        (lambda: messages(0), ValueError, "min_frames must be at least 1, not 0"),
        (lambda: messages(5), ValueError, "max_frames must be at least 5, not 4"),
        (lambda: sends("c0"), TypeError, "sends must be a sequence of Send, not str"),
        (lambda: sends([b"x"]), TypeError, r"sends\[0\] must be a Send, not b'x'"),
        (
            lambda: sends([Send("w0", [b"x"])]),
            ValueError,
            "'w0' sends nothing; these do: 'c0', 'c1'",
        ),
        (
            lambda: sends([Send("c0", b"x")]),
            TypeError,
            r"sends\[0\]: a message is a list of frames",
        ),
        (lambda: sends([Send("c0", [])]), TypeError, r"sends\[0\]: a message is a list of frames"),
        (lambda: sends([Send("c0", ["x"])]), TypeError, r"sends\[0\]: a frame must be bytes"),
        (lambda: sends([], clients=["a", "b"]), TypeError, "clients must be routing ids"),
        (lambda: sends([], clients=[b"a", b"w0"]), ValueError, "a routing id of its own"),
        (lambda: DeviceHarness("proxy", []), TypeError, "traffic must be a Traffic, not list"),
        (lambda: DeviceHarness(zmq.Socket, PULL_PUSH), TypeError, "neither"),
        (lambda: harness(prefixes=b"in"), TypeError, "prefixes must be a pair, not b'in'"),
        (lambda: harness(prefixes=(b"in", 5)), TypeError, "prefixes must be bytes, str or None"),
        (lambda: harness(hwms=()), ValueError, "hwms must be a sequence"),
        (lambda: harness(hwms=5), ValueError, "hwms must be a sequence"),
        (lambda: harness(hwms=["5"]), ValueError, "hwms must be a sequence"),
        (lambda: harness(timeout=None), TypeError, "timeout must be a number of seconds, not None"),
        (lambda: harness(timeout=-1), ValueError, "timeout must be a number of seconds, not -1"),
        (lambda: harness().check(), RuntimeError, "nothing runs yet: with DeviceHarness"),
        (lambda: no_leaks("x").__enter__(), TypeError, "patience must be a number of seconds"),
    ],
)
def test_misuse(wrong: Callable[[], Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        wrong()


# Devices that are right


FUNCTIONS = ["proxy", "device", "proxy_steerable", "monitored_queue", "Relay"]


CLASSES = ["Device", "Proxy", "ProxySteerable", "MonitoredQueue"]


ZDEV = [*FUNCTIONS, *CLASSES, *(f"Thread{name}" for name in CLASSES)]


@pytest.mark.parametrize("device", ZDEV)
def test_zdev(engine: str, device: str, zdev_harness: Any) -> None:
    @given(traffic())
    @examples(5)
    def run(sent: Traffic) -> None:
        zdev_harness(device, sent)

    run()


@pytest.mark.parametrize(
    "device",
    [
        *("proxy", "device", "proxy_steerable", "devices.monitored_queue", "devices.Proxy"),
        *("devices.ThreadDevice", "devices.ThreadProxy", "devices.ThreadMonitoredQueue"),
        "devices.ThreadProxySteerable",
    ],
)
@pytest.mark.parametrize("ends", [(zmq.PULL, zmq.PUSH), (zmq.ROUTER, zmq.DEALER)])
def test_pyzmq(device: str, ends: tuple[int, int], zdev_harness: Any) -> None:
    @given(traffic(*ends))
    @examples(5)
    def run(sent: Traffic) -> None:
        zdev_harness(f"zmq.{device}", sent)

    run()


@pytest.mark.parametrize("limit", [1, 2])
def test_a_users_own_broker(limit: int, zdev_harness: Any) -> None:
    """Also with queues that are full most of the time."""

    @given(traffic(zmq.PULL, zmq.PUSH))
    @examples(10)
    def run(sent: Traffic) -> None:
        zdev_harness(Broker(prefix=b"in"), sent, prefixes=(b"in", b"out"), hwms=[limit])

    run()
