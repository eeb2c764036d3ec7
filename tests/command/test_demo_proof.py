"""The demo's proof: a right record stands, and whatever is wrong in one is found."""

from __future__ import annotations

import dataclasses
import io
import itertools
import re
from typing import Callable

import pytest

from zdev.cli import demo, demo_proof
from zdev.cli.demo_proof import Record

ONCE, ORDERED, SEEN_IN, SEEN_OUT, COUNTED = range(5)
C = demo.CLIENTS


def refuted(record: Record) -> dict[int, str]:
    """Return the claims that do not hold, each with what is said against it."""
    out = io.StringIO()
    claims = list(demo_proof.prove(record))
    proven = demo_proof.report(record, out)
    assert proven == (not any(differences for _, differences in claims))
    assert proven == ("FAIL" not in out.getvalue())
    for _, differences in claims:
        assert all(difference in out.getvalue() for difference in differences[:3])
    return {at: "; ".join(said) for at, (_, said) in enumerate(claims) if said}


def test_a_right_record_is_proven(record: Record) -> None:
    assert refuted(record) == {}


def first(record: Record, prefix: bytes, at: int = 0) -> int:
    """Return which copy is the first, second ... of the first client."""
    return [n for n, copy in enumerate(record.copies) if copy[:2] == [prefix, C[0]]][at]


def lose_an_answer(record: Record) -> None:
    del record.answers[C[0]][5]


def double_an_answer(record: Record) -> None:
    record.answers[C[0]].insert(6, record.answers[C[0]][5])


def change_an_answer(record: Record) -> None:
    record.answers[C[0]][5][2] = b"some words"


def change_a_digest(record: Record) -> None:
    record.answers[C[0]][5][3] = b"0" * 64


def swap_answers_of_two_clients(record: Record) -> None:
    one, other = record.answers[C[0]], record.answers[C[1]]
    one[5], other[5] = other[5], one[5]


def turn_answers_round(record: Record) -> None:
    record.answers[C[0]].reverse()


def hide_a_request(record: Record) -> None:
    del record.copies[first(record, b"in")]


def hide_the_last_answer(record: Record) -> None:
    del record.copies[first(record, b"out", -1)]


def show_a_request_twice(record: Record) -> None:
    at = first(record, b"in")
    record.copies.insert(at, record.copies[at])


def show_requests_in_the_wrong_order(record: Record) -> None:
    one, other = first(record, b"in"), first(record, b"in", 1)
    copies = record.copies
    copies[one], copies[other] = copies[other], copies[one]


def show_a_request_as_an_answer(record: Record) -> None:
    record.copies[first(record, b"in")][0] = b"out"


def show_another_text(record: Record) -> None:
    record.copies[first(record, b"in")][-1] += b"!"


def show_no_delimiter(record: Record) -> None:
    del record.copies[first(record, b"in")][2]


def show_another_delimiter(record: Record) -> None:
    record.copies[first(record, b"in")][2] = b"-"


def show_a_stranger(record: Record) -> None:
    record.copies.append([b"in", b"stranger", b"", b"file", b"1", b"text"])


def show_a_prefix_alone(record: Record) -> None:
    record.copies.append([b"out"])


def show_another_prefix(record: Record) -> None:
    record.copies.append([b"up", *record.copies[0][1:]])


@pytest.mark.parametrize(
    ("change", "claims", "said"),
    [
        (lose_an_answer, {ONCE, SEEN_OUT, COUNTED}, "no answer"),
        (double_an_answer, {ONCE, ORDERED, SEEN_OUT, COUNTED}, "answered twice"),
        (change_an_answer, {ONCE, SEEN_OUT}, "a wrong answer, .* some words"),
        (change_a_digest, {ONCE, SEEN_OUT}, "a wrong answer, .* 000000"),
        (swap_answers_of_two_clients, {ONCE, ORDERED, SEEN_OUT}, "did not ask for"),
        (turn_answers_round, {ORDERED, SEEN_OUT}, "client-1, .*: late, from worker-"),
        (hide_a_request, {SEEN_IN, COUNTED}, "client-1, number 1: .* was seen"),
        (hide_the_last_answer, {SEEN_OUT, COUNTED}, "client-1, number 15: .* nothing was seen"),
        (show_a_request_twice, {SEEN_IN, COUNTED}, "client-1, number 2: "),
        (show_requests_in_the_wrong_order, {SEEN_IN}, "client-1, number 1: "),
        (show_a_request_as_an_answer, {SEEN_IN, SEEN_OUT}, "client-1, number 1: "),
        (show_another_text, {SEEN_IN}, "client-1, number 1: .*! was seen"),
        (show_no_delimiter, {SEEN_IN}, "client-1, number 1: "),
        (show_another_delimiter, {SEEN_IN}, "client-1, number 1: "),
        (show_a_stranger, {SEEN_IN, COUNTED}, "stranger, number 1: nothing passed"),
        (show_a_prefix_alone, {SEEN_OUT, COUNTED}, "number 1: nothing passed"),
        (show_another_prefix, {COUNTED}, "copies seen: 121 instead of 120"),
    ],
)
def test_a_wrong_record_is_refuted(
    change: Callable[[Record], None], claims: set[int], said: str, record: Record
) -> None:
    change(record)
    found = refuted(record)
    assert set(found) == claims
    assert re.search(said, "; ".join(found.values()))


@pytest.mark.parametrize(
    ("way", "field"),
    [
        *itertools.product(
            ("frontend_to_backend", "backend_to_frontend"),
            ("messages_received", "messages_sent", "dropped", "unroutable", "overflowed", "parked"),
        ),
        *itertools.product(("capture",), ("sent", "dropped", "parked")),
    ],
)
def test_wrong_statistics_are_refuted(way: str, field: str, record: Record) -> None:
    counts = getattr(record.statistics, way)
    wrong = counts._replace(**{field: getattr(counts, field) + 1})
    statistics = record.statistics._replace(**{way: wrong})
    assert set(refuted(dataclasses.replace(record, statistics=statistics))) == {COUNTED}
