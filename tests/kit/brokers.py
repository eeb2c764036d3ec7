"""A broker like those that users write, which can be spoilt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Callable

from zdev.testing import (
    DeviceHarness,
    Traffic,
)

Message = list[bytes]

Spoil = Callable[[Iterator[Message]], Iterator[Message]]


class Broker:
    """A device like those that users write, of one direction, and with a fault."""

    def __init__(
        self, spoil: Spoil = iter, prefix: bytes | None = None, swap: bool = False
    ) -> None:
        self.spoil = spoil
        self.prefix = prefix
        self.swap = swap

    def __call__(self, frontend: Any, backend: Any, capture: Any) -> None:
        def source() -> Iterator[Message]:
            while True:
                yield frontend.recv_multipart()

        for message in self.spoil(source()):
            if self.swap:
                message[:2] = message[1], message[0]
            backend.send_multipart(message)
            if capture:
                capture.send_multipart([*([] if self.prefix is None else [self.prefix]), *message])


def splits(source: Iterator[Message]) -> Iterator[Message]:
    for message in source:
        yield from ([frame] for frame in message)


def check(device: Any, sent: Traffic, **options: Any) -> None:
    with DeviceHarness(device, sent, **options) as made:
        made.check()
