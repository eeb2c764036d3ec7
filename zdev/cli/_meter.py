"""The option ``--metrics``: the server, where it is wanted; it is loaded for those alone."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    from zdev.cli._http import Server, Site

__all__ = ["Meter", "MeterError", "add_metrics_to", "need_metrics", "opened"]


class MeterError(Exception):
    """What keeps the server from being there."""


def add_metrics_to(parser: argparse._ActionsContainer) -> None:
    """Add the option."""
    parser.add_argument(
        "--metrics",
        metavar="HOST:PORT",
        help="be measured there, such as 127.0.0.1:9464: /metrics for Prometheus, /healthz and "
        "/readyz for probes, and / for people (needs zmq-devices[metrics])",
    )


def opened(place: str, *, insecure: bool) -> Server:
    """Return a server that is bound there.

    Raises
    ------
    MeterError
        If that cannot be.
    """
    from zdev.cli._http import Server

    try:
        return Server(place, insecure=insecure)
    except OSError as error:
        words = f"cannot be measured at {place}: {error.strerror or error}"
    except ValueError as error:
        words = f"metrics: {error}"
    raise MeterError(words)


def need_metrics() -> None:
    """Raise if what measures is not installed."""
    try:
        from zdev.cli import _metrics  # noqa: F401
    except ImportError as error:
        words = f"metrics need prometheus_client ({error}): pip install 'zmq-devices[metrics]'"
        raise MeterError(words) from None


class Meter:
    """The server and what it serves, where that is wanted; it may be moved.

    Parameters
    ----------
    ask : callable
        Returns ``problem``, ``ending`` and ``devices``; called once a second, in a thread.
    title : str
        Of the status page.
    say : callable
        Told where it is.
    """

    def __init__(
        self, ask: Callable[[], dict[str, Any]], title: str, say: Callable[[str], object]
    ) -> None:
        self._ask = ask
        self._title = title
        self._say = say
        self._place: str | None = None
        self._site: Site | None = None
        self._server: Server | None = None

    @contextlib.contextmanager
    def moving(self, place: str | None, *, insecure: bool) -> Iterator[bool]:
        """Have it at another place once the block is through, and stay if that raises.

        Raises
        ------
        MeterError
            If it cannot be there.
        """
        moves = place != self._place
        site, server = self._site, None
        if moves and place is not None:
            site = site or self._made()
            server = opened(place, insecure=insecure)
        try:
            yield moves
        except BaseException:
            if server is not None:
                server.end()
            raise
        if moves:
            self._move(place, site, server)

    def _made(self) -> Site:
        from zdev.cli._http import Site

        need_metrics()
        return Site(self._ask, self._title)

    def _move(self, place: str | None, site: Site | None, server: Server | None) -> None:
        if self._server is not None:
            self._server.end()
        if server is None or site is None:
            if self._site is not None:
                self._site.sampler.close()
            self._site = self._server = None
        else:
            if self._site is None:
                site.sampler.start()
            server.begin(site)
            self._site, self._server = site, server
            self._say(f"metrics at {server.url}")
        self._place = place

    def close(self) -> None:
        """Leave, for good."""
        self._move(None, None, None)
