"""What ``zdev tap`` says of its connection: that it is there, is lost, or never comes."""

from __future__ import annotations

import math
import time

from zdev._connections import Connections
from zdev.cli._client import Client
from zdev.cli._ends import say

__all__ = ["Connection"]

WHO = "zdev tap"

WANTS_SECURITY = (
    "the other end wants CURVE or PLAIN, which this command has not; give it a socket without, on "
    "ipc or 127.0.0.1"
)

QUIET = 5.0  # seconds without any message, after which it says what may be wrong

FAILURES = {
    "protocol": "what is there does not speak ZeroMQ's protocol",
    "broken off": "the other end broke it off, as one does that is no PUB or XPUB",
    "credentials": "the other end has other security (CURVE, PLAIN), or other keys",
    "refused": "the other end does not let it in",
}
"""What is said of each, once."""


class Connection:
    """The connection to the monitor: what is said when it is there, lost, or never comes."""

    def __init__(self, client: Client, *, bound: bool) -> None:
        self._client = client
        self._bound = bound
        self._heard = 0
        self._known = client.connections
        self._since: float | None = None  # when the last peer was lost
        self._losses, self._away = 0, 0.0
        self._complaints: set[str] = set()
        self.speak_at = time.monotonic() + QUIET
        if bound:
            say(WHO, f"bound to {client.address}")

    def attend(self, now: float, *, silent: bool) -> str | None:
        """Say what is new; return why it is in vain, if it is."""
        if self._client.heard != self._heard:
            self._heard = self._client.heard
            before, self._known = self._known, self._client.connections
            self._compare(before, self._known, now)
            if "credentials" in self._known.failed and not self._bound:
                return WANTS_SECURITY
        if silent and now >= self.speak_at:
            self.speak_at = math.inf
            say(WHO, f"nothing has come for {QUIET:g} s: {self._what_may_be_wrong()}")
        return None

    def has_come(self) -> bool:
        """Tell whether anybody has listened where it was to connect."""
        self._client.hear()
        return self._bound or self._client.connections.connected > 0

    def _compare(self, before: Connections, known: Connections, now: float) -> None:
        lost = known.disconnected - before.disconnected
        self._losses += lost
        if lost:
            say(WHO, "a connection was lost; what passes until it is back is missed")
        if known.peers and self._since is not None:
            away = now - self._since
            self._away, self._since = self._away + away, None
            say(WHO, f"connected again, after {away:.1f} s")
        elif known.peers and not before.peers:
            say(WHO, "connected" if self._bound else f"connected to {self._client.address}")
        elif before.peers and not known.peers:
            self._since = now
        for cause in known.failed.keys() - self._complaints:
            self._complaints.add(cause)
            say(WHO, f"a handshake failed: {FAILURES.get(cause, cause)}")

    def _what_may_be_wrong(self) -> str:
        known = self._known
        if known.peers:
            return "it is connected; perhaps nothing passes the device, or this is no monitor"
        if self._bound:
            return "nobody has connected"
        if known.connected:
            return "what listens there lets nobody in; is it the address of a PUB or XPUB?"
        return "nothing listens there, so far; is the address right?"

    def sum_up(self, now: float, *, silent: bool) -> None:
        """Say at the end for how long nobody was there, or that nobody ever was."""
        if silent and not self.has_come():
            say(WHO, f"it was never connected: nothing listens at {self._client.address}")
        if self._losses:
            away = self._away + (0.0 if self._since is None else now - self._since)
            times = "once" if self._losses == 1 else f"{self._losses:,} times"
            say(
                WHO,
                f"the connection was lost {times}, for {away:.1f} s; what passed then was missed",
            )
