"""The C loop, through CFFI: the ``cffi`` engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zdev._contract import (
    CaptureStatistics,
    DirectionStatistics,
    End,
    Settings,
    Statistics,
    timed,
)

from ._c import ffi, lib

__all__ = ["CompiledEngine", "CompiledLoop"]


class CompiledEngine:
    """Makes C loops over one table of libzmq's functions.

    Parameters
    ----------
    addresses
        The functions' addresses by field of ``zdev_libzmq``; one that is missing is NULL.
    """

    name = "cffi"

    def __init__(self, addresses: Mapping[str, int]) -> None:
        self._table = ffi.new("zdev_libzmq *")
        for field, member in ffi.typeof("zdev_libzmq").fields:
            setattr(self._table, field, ffi.cast(member.type, addresses.get(field, 0)))

    def loop(self, settings: Settings) -> CompiledLoop:
        """Make the loop of a relay; ``MemoryError`` if there is no room for it."""
        return CompiledLoop(self._table, settings)


def _fill(end: Any, given: End | None) -> None:
    if given is not None:
        end.handle = ffi.cast("void *", given.handle)
        end.type = given.type
        end.fd = given.fd


def _direction(counters: Any) -> DirectionStatistics:
    counts = (getattr(counters, field) for field in DirectionStatistics._fields)
    return timed(DirectionStatistics(*counts), counters.parked_seconds)


class CompiledLoop:
    """One relay's loop in C. The GIL is dropped for the whole of ``run``."""

    def __init__(self, table: Any, settings: Settings) -> None:
        c = ffi.new("zdev_settings *")
        _fill(c.frontend, settings.frontend)
        _fill(c.backend, settings.backend)
        _fill(c.capture, settings.capture)
        _fill(c.control, settings.control)
        buffers = []  # the relay copies them, so they need live no longer than this call
        if settings.in_prefix is not None:
            buffers.append(ffi.new("char[]", settings.in_prefix))
            c.in_prefix, c.in_prefix_size = buffers[-1], len(settings.in_prefix)
        if settings.out_prefix is not None:
            buffers.append(ffi.new("char[]", settings.out_prefix))
            c.out_prefix, c.out_prefix_size = buffers[-1], len(settings.out_prefix)
        c.swap = settings.swap
        c.in_drop = settings.in_drop
        c.out_drop = settings.out_drop
        c.capture_drop = settings.capture_drop
        c.burst = settings.burst
        c.wakeup_fd = settings.wakeup_fd
        c.long_wait = settings.long_wait
        relay = lib.zdev_relay_new(table, c)
        if relay == ffi.NULL:
            raise MemoryError("no memory for a relay")
        self._relay = ffi.gc(relay, lib.zdev_relay_free)
        self._only_first = False

    def run(self, timeout: int) -> int:
        """Relay; see ``Loop.run``."""
        return int(lib.zdev_relay_run(self._relay, timeout))

    def look(self) -> int:
        """Tell whether something may move; see ``Loop.look``."""
        return int(lib.zdev_relay_look(self._relay))

    def patience(self) -> int:
        """Tell when it has to be run again; see ``Loop.patience``."""
        return int(lib.zdev_relay_patience(self._relay))

    @property
    def capture_failed(self) -> bool:
        """Whether the capture socket has failed; see ``Loop.capture_failed``."""
        return bool(lib.zdev_relay_capture_failed(self._relay))

    def flush(self) -> int:
        """Try once more to send what is parked; see ``Loop.flush``."""
        return int(lib.zdev_relay_flush(self._relay))

    def join(self, capture: End | None, control: End | None) -> None:
        """Take in a capture or a control socket; see ``Loop.join``."""
        ends = ffi.new("zdev_end[2]")
        _fill(ends[0], capture)
        _fill(ends[1], control)
        lib.zdev_relay_join(self._relay, ends, ends + 1)

    def copies(self, wanted: bool) -> None:
        """Give the capture socket copies, or do without it; see ``Loop.copies``."""
        lib.zdev_relay_copies(self._relay, wanted)

    @property
    def paused(self) -> bool:
        """Whether traffic is paused."""
        return bool(lib.zdev_relay_paused(self._relay))

    @paused.setter
    def paused(self, paused: bool) -> None:
        lib.zdev_relay_pause(self._relay, paused)

    def shut(self, *, there: bool, back: bool) -> None:
        """Leave unread what comes to either end; see ``Loop.shut``."""
        lib.zdev_relay_shut(self._relay, there, back)

    @property
    def only_first(self) -> bool:
        """Whether ZMQ_ONLY_FIRST_SUBSCRIBE is set; see ``Loop.only_first``."""
        return self._only_first

    @only_first.setter
    def only_first(self, only_first: bool) -> None:
        self._only_first = only_first
        lib.zdev_relay_only_first(self._relay, only_first)

    def subscriptions(self, end: End) -> int:
        """Tell how many subscriptions are held at a socket; see ``Loop.subscriptions``."""
        handle = ffi.cast("void *", end.handle)
        return int(lib.zdev_relay_subscriptions(self._relay, handle))

    def statistics(self) -> Statistics:
        """Return the counters."""
        c = ffi.new("zdev_statistics *")
        lib.zdev_relay_statistics(self._relay, c)
        return Statistics(
            _direction(c.there),
            _direction(c.back),
            timed(
                CaptureStatistics(c.capture_sent, c.capture_dropped, c.capture_parked),
                c.capture_parked_seconds,
            ),
        )
