"""What the strategies draw shrinks to little, and what an inbox makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import zmq
from hypothesis import find, given, settings

from zdev.testing import (
    DeviceError,
    Inbox,
    Send,
    Traffic,
    harness,
    identities,
    messages,
    prefixes,
    socket_pairs,
    traffic,
)

from ..fuzzing import examples
from .brokers import Broker, Message, Spoil, check, splits

SMALL = settings(database=None, deadline=None)


@pytest.mark.parametrize(
    ("strategy", "condition", "smallest"),
    [
        (messages(), lambda _: True, [b""]),
        (messages(), lambda m: len(m) > 2, [b"", b"", b""]),
        (messages(), lambda m: any(len(frame) > 33 for frame in m), [(b"0.0 " * 9)[:34]]),
        (identities(), lambda _: True, b"a"),
        (prefixes(), lambda p: p is not None, b"in"),
        (socket_pairs(), lambda _: True, (zmq.PULL, zmq.PUSH)),
        (traffic(), lambda _: True, Traffic(zmq.PULL, zmq.PUSH, [])),
    ],
)
def test_shrinking(strategy: Any, condition: Any, smallest: Any) -> None:
    assert find(strategy, condition, settings=SMALL) == smallest


def drops_three_frames(source: Iterator[Message]) -> Iterator[Message]:
    return (message for message in source if len(message) != 3)


def merges_what_is_empty(source: Iterator[Message]) -> Iterator[Message]:
    for message in source:
        yield [*message, *next(source)] if message == [b""] else message


@pytest.mark.parametrize(
    ("spoil", "smallest"),
    [
        (splits, [Send("c0", [b"", b""])]),
        (drops_three_frames, [Send("c0", [b"", b"", b""])]),
        (merges_what_is_empty, [Send("c0", [b""])]),
    ],
)
def test_what_is_found_is_short(
    spoil: Spoil, smallest: list[Send], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "MOMENT", 0)  # that there is a difference matters, not which

    def fails(sent: Traffic) -> bool:
        try:
            check(Broker(spoil), sent, capture=False)
        except DeviceError:
            return True
        return False

    assert find(traffic(zmq.PULL, zmq.PUSH), fails, settings=SMALL).sends == smallest


@given(traffic())
@examples(50)
def test_traffic_can_be_pasted(sent: Traffic) -> None:
    assert eval(repr(sent), {"zmq": zmq, "Send": Send, "Traffic": Traffic}) == sent


def test_an_inbox_keeps_each_order() -> None:
    def takes(*messages: bytes, gaps: bool = False) -> bool:
        inbox = Inbox("w0", gaps=gaps)
        for sender, frame in (("c0", b"a"), ("c0", b"b"), ("c1", b"c")):
            inbox.expect(sender, [frame])
        try:
            for message in messages:
                inbox.receive([message])
        except DeviceError:
            return False
        return inbox.has_all()

    assert takes(b"a", b"c", b"b")
    assert not takes(b"b", b"c", b"a")
    assert not takes(b"a", b"b")
    assert not takes(b"a", b"b", b"c", b"c")
    assert takes(b"c", b"b", gaps=True)
    assert not takes(b"b", b"a", gaps=True)


def test_an_inbox_bears_messages_that_are_alike() -> None:
    inbox = Inbox("w0")
    for sender, last in (("c0", b"0"), ("c1", b"1")):
        inbox.expect(sender, [b""])
        inbox.expect(sender, [last])
    for frame in (b"", b"1", b""):
        inbox.receive([frame])
    assert inbox.has_all("c1")
    assert not inbox.has_all("c0")
    assert inbox.missing() == "  w0 from c0: [b'0']"
