"""What goes wrong in the wiring is told with the option or the address that it is about."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from typing import Any

import pytest
import zmq

import zdev

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")

SECRET = "x" * 300  # too long for a routing id

OPTIONS = [
    (zmq.SNDHWM, -5, zmq.ZMQError, "(option SNDHWM, value -5)"),
    (99999, 1, zmq.ZMQError, "(option 99999, value 1)"),
    (zmq.ROUTING_ID, SECRET, zmq.ZMQError, "(option ROUTING_ID, value str of length 300)"),
    (zmq.SNDHWM, b"x", TypeError, "(option SNDHWM, value bytes of length 1)"),
]


@pytest.fixture
def device() -> Iterator[zdev.ThreadProxy]:
    device = zdev.ThreadProxy(zmq.PULL, zmq.PUSH)
    yield device
    device.stop()


def do_and_start(device: Any, name: str, *arguments: Any) -> None:
    getattr(device, name)(*arguments)
    device.start()


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize(("option", "value", "kind", "words"), OPTIONS)
def test_an_option(device: Any, option: int, value: Any, kind: Any, words: str, live: bool) -> None:
    if live:
        device.start()
    with pytest.raises(kind, match=re.escape(words)) as caught:
        do_and_start(device, "setsockopt_in", option, value)
    assert type(caught.value) is kind
    assert SECRET not in str(caught.value)
    if kind is zmq.ZMQError:
        assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("verb", ["unbind", "disconnect"])
def test_an_address_that_is_not_planned(device: Any, verb: str) -> None:
    device.bind_in("inproc://one")
    device.connect_in("inproc://other")
    with pytest.raises(zmq.ZMQError, match="'inproc://none'; those planned: 'inproc://o") as caught:
        getattr(device, f"{verb}_in")("inproc://none")
    assert caught.value.errno == errno.ENOENT
    with pytest.raises(zmq.ZMQError, match="'inproc://none'; those planned: none"):
        getattr(device, f"{verb}_out")("inproc://none")


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("verb", ["bind", "connect"])
def test_an_address(device: Any, verb: str, live: bool) -> None:
    if live:
        device.start()
    with pytest.raises(zmq.ZMQError, match="'nonsense'") as caught:
        do_and_start(device, f"{verb}_in", "nonsense")
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("verb", ["unbind", "disconnect"])
def test_an_address_that_a_running_device_does_not_have(device: Any, verb: str) -> None:
    device.start()
    for address in ("tcp://127.0.0.1:1", "nonsense"):
        with pytest.raises(zmq.ZMQError, match=re.escape(repr(address))) as caught:
            getattr(device, f"{verb}_in")(address)
        assert caught.value.errno in (errno.ENOENT, errno.EINVAL)


def test_from_another_process() -> None:
    with zdev.ProcessProxy(zmq.PULL, zmq.PUSH) as device:
        for option, value, kind, words in OPTIONS:
            with pytest.raises(kind, match=re.escape(words)):
                device.setsockopt_in(option, value)
        with pytest.raises(zmq.ZMQError, match="'nonsense'") as caught:
            device.connect_in("nonsense")
    assert caught.value.errno == errno.EINVAL
