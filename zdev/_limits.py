"""What to do when descriptors or sockets run out: two limits, of which neither error tells."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import Any

import zmq

__all__ = ["says_limits"]


@contextlib.contextmanager
def says_limits(context: zmq.Context[Any] | None = None) -> Iterator[None]:
    """Let an EMFILE that is raised within say which limit was met, and how to raise it.

    Parameters
    ----------
    context : zmq.Context, optional
        Whose socket is made within: zmq_socket(3) has the same error for one socket too many.
    """
    try:
        yield
    except zmq.ContextTerminated:
        raise
    except (OSError, zmq.ZMQError) as error:
        if error.errno != errno.EMFILE:
            raise
        raise type(error)(error.errno, f"{os.strerror(errno.EMFILE)}: {_limit(context)}") from error


def _limit(context: zmq.Context[Any] | None) -> str:
    if context is not None and _has_descriptors():
        most = context.get(zmq.MAX_SOCKETS)
        return (
            f"the context has its {most} sockets (ZMQ_MAX_SOCKETS); make fewer, or raise that "
            "before its first socket, by context.max_sockets = ..."
        )
    try:
        import resource  # not on Windows
    except ImportError:
        return "this process has no descriptor left"
    most, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (
        f"this process has its {most} descriptors (RLIMIT_NOFILE); close some, or raise that, up "
        f"to {hard}, by resource.setrlimit or, before it starts, ulimit -n"
    )


def _has_descriptors() -> bool:
    """Tell whether a descriptor is to be had."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))  # of a number there may be no file to copy
    except OSError as error:
        return error.errno != errno.EMFILE
    return True
