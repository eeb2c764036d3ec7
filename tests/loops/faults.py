"""What Hypothesis draws for a scripted libzmq: which of its calls fail, and how."""

from __future__ import annotations

import errno
from collections.abc import Sequence

import hypothesis.strategies as st
import zmq


def faults(
    max_faults: int = 8, calls: int = 80, errors: Sequence[int] = ()
) -> st.SearchStrategy[dict[int, int]]:
    """Draw which calls of libzmq fail, and with which error number: see ScriptedLibzmq.faults.

    Parameters
    ----------
    max_faults : int
        How many calls fail at the most.
    calls : int
        The last call that may fail.
    errors : sequence of int
        The error numbers; by default those after which a relay that has been made goes on. To
        make one with a prefix raises MemoryError where memory is short.
    """
    usual = [errno.EINTR, errno.EAGAIN, int(zmq.EFSM), errno.EHOSTUNREACH, errno.ENOMEM]
    return st.dictionaries(
        st.integers(0, calls), st.sampled_from([*errors] or usual), max_size=max_faults
    )
