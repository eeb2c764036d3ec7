"""The scripted libzmq itself: a loop goes on over it, whatever fails, and loses nothing unseen."""

from __future__ import annotations

import doctest
import errno
from functools import partial
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import find, given, settings

from zdev._contract import WOKEN
from zdev.testing import messages
from zdev.testing.model import Type

from ..fuzzing import examples
from .faults import faults
from .schedules import ENGINES
from .scripted import ScriptedLibzmq


@pytest.mark.parametrize(
    ("strategy", "condition", "smallest"),
    [
        (faults(), lambda f: len(f) > 1, {0: errno.EINTR, 1: errno.EINTR}),
        (faults(errors=[errno.ENOMEM]), lambda f: f, {0: errno.ENOMEM}),
    ],
)
def test_shrinking(strategy: Any, condition: Any, smallest: Any) -> None:
    assert find(strategy, condition, settings=settings(database=None, deadline=None)) == smallest


def test_misuse() -> None:
    with pytest.raises(ValueError, match="no engine that calls libzmq"):
        ScriptedLibzmq().engine("pyzmq")


@given(failing=faults(), messages=st.lists(messages(), max_size=3))
@examples(20)
def test_a_scripted_libzmq(
    scripted_engine: str, failing: dict[int, int], messages: list[list[bytes]]
) -> None:
    libzmq = ScriptedLibzmq()
    frontend = libzmq.socket(Type.PULL, "frontend")
    backend = libzmq.socket(Type.PUSH, "backend")
    for message in messages:
        libzmq.script.append(partial(frontend.deliver, message))
    libzmq.faults.update(failing)
    loop = libzmq.loop(scripted_engine, frontend, backend)
    assert libzmq.run(loop) == WOKEN
    libzmq.check()
    lost = loop.statistics().frontend_to_backend.dropped
    assert len(backend.arrived) == len(messages) - lost
    assert lost or backend.arrived == messages


@pytest.mark.skipif("ctypes" not in ENGINES, reason="the example names the engine ctypes")
def test_the_example_of_the_scripted_libzmq() -> None:
    names = {"ScriptedLibzmq": ScriptedLibzmq}
    (example,) = doctest.DocTestFinder(recurse=False).find(ScriptedLibzmq, "it", globs=names)
    assert doctest.DocTestRunner().run(example) == (0, 9)
