"""The demo's proof: what everybody sent, held against what everybody saw."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

import zdev
from zdev.cli.demo_requests import Message, answer, place, readable, readable_message

__all__ = ["Record", "prove", "report"]


@dataclass(frozen=True)
class Record:
    """What everybody sent and saw."""

    requests: dict[bytes, Sequence[Message]]
    answers: dict[bytes, list[Message]]
    copies: list[Message]
    statistics: zdev.Statistics


def report(record: Record, out: TextIO) -> bool:
    """Print what is proven and what is not; return whether all is."""
    proven = True
    print("What everybody sent, held against what everybody saw:", file=out)
    for claim, differences in prove(record):
        print(f"{'FAIL' if differences else 'ok  '} {claim}", file=out)
        for difference in differences[:3]:
            print(f"       {difference}", file=out)
        if len(differences) > 3:
            print(f"       and {len(differences) - 3:,} more such", file=out)
        proven = proven and not differences
    requests, answers, capture = record.statistics
    passed = (
        f"{requests.messages_sent:,} requests, {answers.messages_sent:,} answers,"
        f" {capture.sent:,} copies for the monitor"
    )
    print(f"{'Proven' if proven else 'NOT proven, see FAIL'}: {passed}.", file=out, flush=True)
    return proven


def prove(record: Record) -> Iterator[tuple[str, list[str]]]:
    """Yield claims, each with what contradicts it."""
    yield "each request was answered once, rightly, to the client that sent it", once(record)
    yield "each client got each worker's answers in the order of its requests", ordered(record)
    yield (
        "the monitor saw each request under `in`, in the order its client sent it",
        seen(record.copies, b"in", record.requests),
    )
    yield (
        "the monitor saw each answer under `out`, in the order its client got it",
        seen(record.copies, b"out", record.answers),
    )
    yield "the queue's own statistics agree: nothing was dropped or left over", counted(record)


def once(record: Record) -> list[str]:
    """Hold the answers against the requests: one to each, and the right one."""
    differences = []
    for name, requests in record.requests.items():
        asked = {place(request): request for request in requests}
        missing = dict(asked)
        for reply in record.answers[name]:
            where = f"{readable(name)}, {place(reply)}"
            if place(reply) not in asked:
                differences.append(f"{where}: an answer that it did not ask for")
            elif place(reply) not in missing:
                differences.append(f"{where}: answered twice")
            elif reply[:-1] != answer(missing.pop(place(reply))):
                differences.append(f"{where}: a wrong answer, {readable_message(reply)}")
        differences += [f"{readable(name)}, {where}: no answer" for where in missing]
    return differences


def ordered(record: Record) -> list[str]:
    """Hold the order of one worker's answers to one client against that of the requests."""
    differences = []
    for name, requests in record.requests.items():
        number = {place(request): at for at, request in enumerate(requests)}
        last: dict[bytes, int] = {}
        for reply in record.answers[name]:
            at, by = number.get(place(reply), -1), b"".join(reply[-1:])
            if at <= last.get(by, -1):
                differences.append(f"{readable(name)}, {place(reply)}: late, from {readable(by)}")
            last[by] = max(at, last.get(by, -1))
    return differences


def seen(
    copies: Sequence[Message], prefix: bytes, expected: Mapping[bytes, Sequence[Message]]
) -> list[str]:
    """Hold what the monitor saw under a prefix against what passed, client by client."""
    shown: dict[bytes, list[Message]] = {name: [] for name in expected}
    for copy in copies:
        if copy[0] == prefix:
            shown.setdefault(b"".join(copy[1:2]), []).append(copy[2:])
    differences = []
    for name, messages in shown.items():
        wanted = [[b"", *message] for message in expected.get(name, [])]
        for at, (one, other) in enumerate(itertools.zip_longest(wanted, messages), 1):
            if one != other:
                differences.append(
                    f"{readable(name)}, number {at}: {readable_message(one)} passed,"
                    f" {readable_message(other)} was seen"
                )
                break
    return differences


def counted(record: Record) -> list[str]:
    """Hold the relay's own counts against everybody else's."""
    asked = sum(map(len, record.requests.values()))
    answered = sum(map(len, record.answers.values()))
    requests, answers, capture = record.statistics
    rows = [("copies for the monitor", capture.sent, asked + answered)]
    rows += [("copies seen", len(record.copies), asked + answered)]
    rows += [("copies lost", capture.dropped + capture.parked, 0)]
    for name, way, due in (("requests", requests, asked), ("answers", answers, answered)):
        rows += [(f"{name} taken", way.messages_received, due)]
        rows += [(f"{name} passed on", way.messages_sent, due)]
        lost = way.dropped + way.unroutable + way.overflowed + way.parked
        rows += [(f"{name} lost", lost, 0)]
    return [f"{what}: {count:,} instead of {due:,}" for what, count, due in rows if count != due]
