"""What cannot work is refused where it is given, in words that say which argument, and what to do."""

from __future__ import annotations

import errno
import gc
import math
import multiprocessing
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

import zdev

from .background import Devices
from .classes import ROLES, arguments, kind_of

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

TYPES = {"in": zmq.PULL, "out": zmq.PUSH, "mon": zmq.PUB, "ctrl": zmq.REP}


@pytest.fixture
def device() -> Iterator[zdev.ThreadProxySteerable]:
    device = zdev.ThreadProxySteerable(zmq.PULL, zmq.PUSH)
    yield device
    device.stop()


def made(of: str, **types: Any) -> Any:
    """Make a device of that class, of good types but for those that are given."""
    roles = ROLES[kind_of(of)]
    given = {f"{role}_type": TYPES[role] for role in roles}
    return getattr(zdev, of)(**{**given, **types})


# Socket types


@pytest.mark.parametrize("spell", [str.upper, str.lower, str.title])
def test_socket_types_by_name(name: str, spell: Any) -> None:
    roles = ROLES[kind_of(name)]
    device = made(name, **{f"{role}_type": spell(TYPES[role].name) for role in roles})
    for role in roles:
        assert getattr(device, f"{role}_type") is TYPES[role]
    assert "PULL to PUSH" in repr(device)


def test_a_device_of_named_types_relays(engine: str, devices: Devices) -> None:
    device = devices("Proxy", "router", "DEALER", "pub")
    device.bind_in("tcp://127.0.0.1:*")
    device.in_type = "ROUTER"  # also later
    device.start()
    assert len(device.endpoints["in"]) == 1


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (999, ValueError, "{} 999 is no socket type; a device takes DEALER"),
        (2**70, ValueError, "is no socket type"),
        (zmq.SERVER, ValueError, "{} is of socket type 12, which libzmq offers as a draft only"),
        ("ROUTRE", ValueError, "{}: there is no socket type 'ROUTRE'; did you mean 'ROUTER'?"),
        ("", ValueError, "{}: there is no socket type ''; one is 'ROUTER'"),
        (
            b"ROUTER",
            TypeError,
            '{} must be a socket type such as zmq.ROUTER or "ROUTER", not bytes',
        ),
        (6.0, TypeError, "{} must be a socket type such as zmq.ROUTER"),
        ([], TypeError, "{} must be a socket type such as zmq.ROUTER"),
    ],
)
def test_what_is_no_socket_type(name: str, value: Any, error: Any, words: str) -> None:
    for role in ROLES[kind_of(name)]:
        with pytest.raises(error, match=re.escape(words.format(f"{role}_type"))):
            made(name, **{f"{role}_type": value})


def test_a_socket_is_no_socket_type() -> None:
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        one: Any = socket
        words = "in_type must be a socket type such as"
        with pytest.raises(TypeError, match=f"{words}.* not a socket; a device makes its sockets"):
            zdev.ThreadProxy(one, zmq.PUSH)


@pytest.mark.parametrize(("types", "words"), [
    ({"in_type": -1}, "in_type -1 is no socket type"),
    ({"mon_type": -1}, "mon_type -1 is no socket type"),
    ({"mon_type": "SUB"}, "mon_type is a SUB socket, which cannot serve as one; use DEALER"),
    ({"ctrl_type": "PUB"}, "ctrl_type is a PUB socket, which cannot serve as one; use DEALER"),
])  # fmt: skip
def test_types_that_cannot_serve(types: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        made("ThreadProxySteerable", **types)


@pytest.mark.parametrize(
    ("types", "words"),
    [
        ((zmq.PULL, zmq.SUB), "in_type and out_type are PULL and SUB: no message can go"),
        (("PUSH", -1), "a PUSH socket cannot be both in_type and out_type"),
    ],
)
def test_types_that_cannot_go_together(devices: Devices, types: Any, words: str) -> None:
    """Told by start() only: a program may have such a device and never start it."""
    device = devices("Device", zmq.PULL, *types)  # which is no type of device either
    assert 5000 <= device.bind_out_to_random_port("tcp://127.0.0.1", 5000, 5500) < 5500
    with pytest.raises(ValueError, match=words):
        device.start()
    assert device.done


# What pyzmq could not make has a finalizer all the same, which fails on PyPy.
@pytest.mark.filterwarnings("ignore:.*Socket.__del__:pytest.PytestUnraisableExceptionWarning")
def test_types_set_too_late_for_the_constructor(devices: Devices) -> None:
    device = devices("Proxy", zmq.PULL, zmq.PUSH)
    device.mon_type = "PUBLISHER"
    with pytest.raises(ValueError, match="mon_type: there is no socket type 'PUBLISHER'"):
        device.start()
    for number in (999, -1, 2**70):
        device.mon_type = number
        with pytest.raises(zmq.ZMQError, match=f"mon_type {number} is no socket type") as caught:
            device.start()
        assert caught.value.errno == errno.EINVAL
    del caught
    gc.collect()
    gc.collect()  # PyPy runs finalizers behind the first


def own_run(base: Any) -> Any:
    class Device(base):  # type: ignore[misc]
        def run_device(self) -> None:
            pass

    return Device


def own_sockets(base: Any) -> Any:
    class Device(base):  # type: ignore[misc]
        def _setup_sockets(self) -> Any:
            return ()

    return Device


@pytest.mark.parametrize("derive", [own_run, own_sockets])
def test_a_subclass_may_have_types_of_its_own(name: str, derive: Any) -> None:
    """As pyzmq's may, whose constructors look at no type."""
    whole = derive(getattr(zdev, name))
    first = (zmq.QUEUE,) if kind_of(name) == "Device" else ()
    device = whole(*first, zmq.PULL, "sub")
    assert (device.in_type, device.out_type) == (zmq.PULL, zmq.SUB)
    device = whole(*first, "in my way", zmq.SERVER)
    assert (device.in_type, device.out_type) == ("in my way", zmq.SERVER)
    device.bind_in("inproc://mine")  # from a thread of its own process, say


@pytest.mark.parametrize("value", [5, b"x", ["x"]])
def test_names_are_text(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"name must be a str, not {type(value).__name__}"):
        made(name, name=value)


@pytest.mark.parametrize("side", ["in_prefix", "out_prefix"])
def test_prefixes_are_checked_at_once(side: str) -> None:
    for value in (5, 1.5, ["in"]):
        with pytest.raises(TypeError, match=f"{side} must be bytes, another buffer, str"):
            zdev.ThreadMonitoredQueue(zmq.PULL, zmq.PUSH, **{side: value})
    with pytest.raises(ValueError, match="surrogates not allowed"):
        zdev.ThreadMonitoredQueue(zmq.PULL, zmq.PUSH, **{side: "\udc80"})  # type: ignore[arg-type]


# Calls


@pytest.mark.parametrize("verb", ["bind", "connect", "unbind", "disconnect", "setsockopt"])
def test_calls_that_lack_an_argument(device: Any, verb: str) -> None:
    missing = "opt" if verb == "setsockopt" else "addr"
    with pytest.raises(TypeError, match=rf"{verb}_in\(\): missing a required .*'{missing}'"):
        getattr(device, f"{verb}_in")()
    with pytest.raises(TypeError, match=rf"{verb}_in\(\): got an unexpected .*'port'"):
        getattr(device, f"{verb}_in")(*"xx"[: 1 + (verb == "setsockopt")], port=5)


# Options


@pytest.mark.parametrize("name", ["SNDHWM", "sndhwm", "SndHwm"])
@pytest.mark.parametrize("live", [False, True])
def test_options_by_name(engine: str, devices: Devices, name: str, live: bool) -> None:
    device = devices("Proxy", zmq.PULL, zmq.PUSH)
    if live:
        device.start()
    device.setsockopt_out(name, 7)
    device.setsockopt_out(opt="identity", value="me")
    assert device._out_sockopts == [(zmq.SNDHWM, 7), (zmq.ROUTING_ID, "me")]
    if not live:
        device.start()
    if devices.in_this_process:
        out = device._run.wiring.sockets["out"]
        assert device._run.relay.call(lambda: (out.sndhwm, out.routing_id)) == (7, b"me")


SECRET = "too \udc80 secret"


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize(
    ("option", "value", "error", "words"),
    [
        (
            "SNDHMW",
            5,
            ValueError,
            "opt: there is no socket option 'SNDHMW'; did you mean 'SNDHWM'?",
        ),
        (1.5, 5, TypeError, 'opt must be a socket option such as zmq.ROUTING_ID or "ROUTING_ID"'),
        (None, 5, TypeError, "opt must be a socket option such as zmq.ROUTING_ID"),
        (2**70, 5, ValueError, "opt: there is no socket option 1180591620717411303424"),
        (
            99999,
            b"x",
            TypeError,
            "the value must be an int (option 99999, value bytes of length 1)",
        ),
        (
            zmq.SNDHWM,
            "5",
            TypeError,
            "the value must be an int (option SNDHWM, value str of length 1)",
        ),
        (zmq.SNDHWM, 1.5, TypeError, "the value must be an int (option SNDHWM, value float)"),
        (zmq.SNDHWM, None, TypeError, "the value must be an int (option SNDHWM, value NoneType)"),
        (
            zmq.SNDHWM,
            2**40,
            ValueError,
            "the value must fit into 32 bits (option SNDHWM, value 1099",
        ),
        (zmq.MAXMSGSIZE, 2**63, ValueError, "the value must fit into 64 bits (option MAXMSGSIZE,"),
        (
            zmq.ROUTING_ID,
            5,
            TypeError,
            "the value must be bytes or str (option ROUTING_ID, value 5)",
        ),
        (
            zmq.PLAIN_PASSWORD,
            SECRET,
            ValueError,
            "the value is text that UTF-8 cannot hold (option PL",
        ),
        (zmq.LAST_ENDPOINT, b"x", zmq.ZMQError, "an option to read only (option LAST_ENDPOINT,"),
        (zmq.HWM, 5, zmq.ZMQError, "libzmq has no HWM any more; set SNDHWM and RCVHWM"),
    ],
)
def test_what_is_no_option(
    device: Any, option: Any, value: Any, error: Any, words: str, live: bool
) -> None:
    if live:
        device.start()
    with pytest.raises(error, match=re.escape(f"setsockopt_mon: {words}")) as caught:
        device.setsockopt_mon(option, value)
    assert "secret" not in str(caught.value)
    assert device._mon_sockopts == []


@pytest.mark.parametrize(
    ("option", "value"),
    [(zmq.MAXMSGSIZE, 2**40), (zmq.SNDHWM, True), (zmq.SUBSCRIBE, b""), (99999, 1)],
)
def test_what_the_socket_may_take_is_planned(device: Any, option: int, value: Any) -> None:
    device.setsockopt_in(option, value)
    assert device._in_sockopts == [(option, value)]


# What a process cannot get


class Holder(zdev.ProcessProxy):
    """Has something that no other process can have."""

    lock: Any = None


def local() -> Any:
    class Local(zdev.ProcessProxy):
        pass

    return Local(zmq.PULL, zmq.PUSH, name="mill")


def with_lambda() -> Any:
    device = zdev.ProcessProxy(zmq.PULL, zmq.PUSH, name="mill")
    device.context_factory = lambda: zmq.Context()
    return device


def with_lock() -> Any:
    device = Holder(zmq.PULL, zmq.PUSH, name="mill")
    device.lock = threading.Lock()
    return device


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            with_lambda,
            "^context_factory, a function, of mill cannot be pickled.*; use one of a mod",
        ),
        (
            local,
            "^the class of mill cannot be pickled, as it must be for a process.*; use one of a",
        ),
        (with_lock, "^lock, a lock, of mill cannot be pickled.*; leave it out in __getstate__"),
    ],
)
def test_what_cannot_go_into_a_process(make: Any, words: str, method: Any) -> None:
    device = make()
    device._launch_class = multiprocessing.get_context(method).Process
    port = device.bind_in_to_random_port("tcp://127.0.0.1")
    for _ in range(2):
        with pytest.raises(TypeError, match=words):
            device.start()
        assert device.done
    device._launch_class = multiprocessing.get_context("fork").Process
    with device:
        assert device.endpoints["in"] == [f"tcp://127.0.0.1:{port}"]


# Times


@pytest.mark.parametrize("value", ["1", b"1", [], 1j, math.nan, -1, -0.001, -math.inf])
def test_times_are_numbers_of_seconds(devices: Devices, value: Any) -> None:
    error = ValueError if isinstance(value, (int, float)) else TypeError
    device = devices("Proxy", zmq.PULL, zmq.PUSH)
    for is_started in (False, True):
        if is_started:
            device.start()
        for method, argument in (("stop", "drain"), ("stop", "timeout"), ("join", "timeout")):
            with pytest.raises(error, match=f"{argument} must be a number of seconds or None, not"):
                getattr(device, method)(**{argument: value})
    assert device.statistics()
    assert not device.done


@pytest.mark.parametrize("value", [1e300, math.inf, 10**400])
def test_a_time_may_be_too_long_for_anything(devices: Devices, value: Any) -> None:
    device = devices("Proxy", zmq.PULL, zmq.PUSH)
    with device:
        device.stop(drain=value, timeout=value)
    device.join(value)
    assert device.done


def test_constructors_take_what_is_good(name: str) -> None:
    assert repr(getattr(zdev, name)(*arguments(name)))
