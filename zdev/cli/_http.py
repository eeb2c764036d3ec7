"""The server at ``--metrics``: what devices do, for Prometheus, for probes and for people.

It answers from what was sampled last, and asks no device: who comes, and how often, does not matter
to them. It is made for few readers, and lets nobody hold it up.
"""

from __future__ import annotations

import http.server
import io
import ipaddress
import json
import socket
import socketserver
import threading
import time
from typing import Any, Callable, NamedTuple

import zdev
from zdev.cli._output import json_line
from zdev.cli._page import POLICY, page
from zdev.cli._sampler import Sampler, StaleError
from zdev.cli._spec import http_place
from zdev.cli._workers import in_thread

__all__ = ["Server", "Site"]

PATIENCE = 1.0
"""Seconds in which a client must have asked, and in which it must take the answer."""

CLIENTS = 32
"""At a time; others are turned away."""

ROOM = 1 << 18  # bytes of an answer that the kernel takes at once, also for a slow network


class Answer(NamedTuple):
    """What a client gets."""

    status: int
    kind: str
    body: bytes


TEXT, JSON, HTML = (
    f"{kind}; charset=utf-8" for kind in ("text/plain", "application/json", "text/html")
)


class Site:
    """What there is to read.

    Parameters
    ----------
    ask : callable
        Returns ``problem``, ``ending`` and ``devices``; called once a second, in a thread.
    title : str
        Of the status page.

    Raises
    ------
    ImportError
        If prometheus_client is missing.
    """

    def __init__(self, ask: Callable[[], dict[str, Any]], title: str) -> None:
        from zdev.cli import _metrics

        self._exposition = _metrics.exposition
        self._title = title
        self.sampler = Sampler(ask)

    def answer(self, path: str, accept: str) -> Answer:
        """Return what is at a path."""
        found = {
            "/": self._page,
            "/metrics": lambda: self._metrics(accept),
            "/healthz": self._health,
            "/readyz": self._readiness,
            "/status.json": self._status,
        }.get(path.partition("?")[0])
        if found is None:
            return Answer(404, TEXT, b"there is nothing here\n")
        try:
            return found()
        except StaleError as error:
            return Answer(503, TEXT, f"{error}\n".encode())

    def _metrics(self, accept: str) -> Answer:
        body, kind = self._exposition(self.sampler.latest(), accept)
        return Answer(200, kind, body)

    def _page(self) -> Answer:
        text = page(self.sampler.latest(), self.sampler.trends(), self._title)
        return Answer(200, HTML, _encoded(text))

    def _status(self) -> Answer:
        sample = self.sampler.latest()
        text = json_line("status", **{key: getattr(sample, key) for key in FIELDS})
        return Answer(200, JSON, _encoded(f"{text}\n"))

    def _health(self) -> Answer:
        # One that was told to end is not ill.
        return self._verdict({"relays", "ended"}, needs_one=False)

    def _readiness(self) -> Answer:
        return self._verdict({"relays"}, needs_one=True)

    def _verdict(self, good: set[str], *, needs_one: bool) -> Answer:
        """Tell whether all devices are in a state that is good, and which are not."""
        sample = self.sampler.latest()
        states = {device["name"]: device["state"] for device in sample.devices}
        wrong = [name for name, state in states.items() if state not in good]
        is_good = not wrong and (not needs_one or (bool(states) and not sample.ending))
        verdict = {"ok": is_good, "wrong": wrong, "ending": sample.ending, "devices": states}
        text = json.dumps(verdict)
        return Answer(200 if is_good else 503, JSON, _encoded(f"{text}\n"))


FIELDS = ("problem", "ending", "devices")


def _encoded(text: str) -> bytes:
    """Encode; a name given as an argument may hold bytes that are no text."""
    return text.encode("utf-8", "backslashreplace")


class Server(http.server.ThreadingHTTPServer):
    """Listens from the first, and answers from `begin` to `end`.

    Parameters
    ----------
    place : str
        HOST:PORT.
    insecure : bool
        Whether it may be beyond this machine.

    Raises
    ------
    ValueError, OSError
        If it cannot be there.
    """

    daemon_threads = True
    block_on_close = False
    allow_reuse_port = False
    request_queue_size = CLIENTS

    def __init__(self, place: str, *, insecure: bool) -> None:
        self.site: Site | None = None
        self._is_serving = False
        self._seats = threading.BoundedSemaphore(CLIENTS)
        host, port = http_place(place, insecure=insecure)
        self.address_family, address = _resolved(host, port)
        # What a name stands for is only known now.
        if not (insecure or ipaddress.ip_address(address[0].partition("%")[0]).is_loopback):
            raise ValueError(f"{place} is {address[0]}, which is beyond this machine")
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind, and look up no name for the address, as http.server would."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    @property
    def url(self) -> str:
        """Where the status page is."""
        host = f"[{self.server_name}]" if ":" in self.server_name else self.server_name
        return f"http://{host}:{self.server_port}/"

    def begin(self, site: Site) -> None:
        """Answer from now on."""
        self.site = site
        self._is_serving = True
        in_thread(lambda: self.serve_forever(0.25))

    def end(self) -> None:
        """Answer no more."""
        if self._is_serving:
            self.shutdown()
        self.server_close()

    def get_request(self) -> tuple[Any, Any]:
        """Accept a client."""
        client, address = super().get_request()
        client.settimeout(PATIENCE)
        return client, address

    def process_request(self, request: Any, client_address: Any) -> None:
        """Have a client served, if there is a seat."""
        if not self._seats.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._seats.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a client, in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._seats.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Write nothing of a client that went, or of threads that are not to be had."""


def _resolved(host: str, port: int) -> tuple[socket.AddressFamily, Any]:
    """Return the address of a place; of several, IPv4 first, which is everywhere."""
    flags = socket.AI_PASSIVE
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    return family, address


class _Hasty(io.RawIOBase):
    """Reads from a client that has so long for all that it says, not for each piece of it."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client
        self._end = time.monotonic() + PATIENCE

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._end - time.monotonic()
        if left <= 0:
            raise socket.timeout("too slow")
        self._client.settimeout(left)
        return self._client.recv_into(buffer)


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers one request."""

    server: Server
    error_message_format = "%(code)d %(message)s\n"
    error_content_type = TEXT

    def setup(self) -> None:
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_Hasty(self.request))

    def version_string(self) -> str:
        """Return what serves."""
        return f"zdev/{zdev.__version__}"

    def __getattr__(self, name: str) -> Any:
        # http.server looks up a method for each verb, and would answer 501 where there is none.
        if name.startswith("do_"):
            return self._refuse
        raise AttributeError(name)

    def do_GET(self) -> None:
        """Answer."""
        site = self.server.site
        if site is None:
            return
        accept = ",".join(self.headers.get_all("Accept", []))
        self._send(site.answer(self.path, accept))

    do_HEAD = do_GET  # noqa: N815 - http.server's

    def _refuse(self) -> None:
        self._send(Answer(405, TEXT, b"only GET and HEAD\n"))

    def _send(self, answer: Answer) -> None:
        self.request.settimeout(PATIENCE)
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        if answer.status == 405:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def log_message(self, *_: Any) -> None:
        """Write nothing: probes come every few seconds."""
