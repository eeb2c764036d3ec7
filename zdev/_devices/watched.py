"""What devices tell of their connections, if they are to watch them, and who carries these."""

from __future__ import annotations

from typing import Any, cast

from zdev._arguments import check_io_threads, check_watching
from zdev._connections import Connections, OnConnection

from .methods import Wired

__all__ = ["Watched"]


class Watched(Wired):
    """A device that may watch the connections of its sockets."""

    io_threads: int | None = None
    watch_connections: bool = False
    on_connection: OnConnection = None

    def _take_attributes(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Take these out of what the constructor is given besides; return the rest."""
        for name in ("io_threads", "watch_connections", "on_connection"):
            if name in settings:
                setattr(self, name, settings.pop(name))
        self._run_options()
        return settings

    def _run_options(self) -> dict[str, Any]:
        """Return what a run is told of that."""
        watches = check_watching(self.watch_connections, self.on_connection)
        return {
            "io_threads": check_io_threads(self.io_threads),
            "watches": watches,
            "on_connection": self.on_connection,
        }

    def connections(self) -> dict[str, Connections]:
        """Return who is there: what is known of the connections of each socket, by role.

        For that, give ``watch_connections=True`` to the constructor, or set it before the start.
        Peers over inproc are not seen.

        Returns
        -------
        dict of str to Connections
            With the keys "in", "out", "mon" and "ctrl", as far as the device has them.

        Raises
        ------
        RuntimeError
            If the device does not run, or does not watch its connections.

        Notes
        -----
        From any thread. The events are those of zmq_socket_monitor(3). Subscriptions count when the
        device has read them, so not in a pause. libzmq tells an XPUB's owner of cancellations of
        what nobody has subscribed to, too, which only peers send that are no ZeroMQ sockets: such a
        one takes another's subscription away here.
        """
        run = self._running_run
        if run is None:
            raise RuntimeError(f"{self.name} does not run; call start() first")
        return cast("dict[str, Connections]", run.ask("connections"))
