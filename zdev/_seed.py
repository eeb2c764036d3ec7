"""Has libzmq's random numbers be other ones in each process.

A ROUTER counts its peers from a number of the C library's ``rand``, which libzmq does not seed: in
each new process it begins with the same number. So a broker that is started again would call its
peers what their predecessors were called, and a late reply to a request of its former life would
reach whoever has come back in that place: a wrong client.
"""

from __future__ import annotations

import contextlib
import ctypes
import os

__all__ = ["seed"]


def seed() -> None:
    """Seed the C library's ``rand``, in a process that is zdev's own; before sockets are made."""
    # Where it is not to be had, all is as libzmq has it.
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).srand(ctypes.c_uint(int.from_bytes(os.urandom(4), "big")))
