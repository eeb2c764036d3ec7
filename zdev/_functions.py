"""The functions that block: drop-in for those of pyzmq."""

from __future__ import annotations

import logging
from typing import Any

import zmq

from zdev._relay import DEFAULT_BURST, CapturePolicy, Prefix, Relay

__all__ = ["device", "monitored_queue", "proxy", "proxy_steerable"]

logger = logging.getLogger("zdev")


class _MonitoredQueue(Relay):
    """A relay whose errors speak of `monitored_queue`'s parameters."""

    _roles = ("in_socket", "out_socket", "mon_socket", "control")


def _run(name: str, relay: Relay, capture_socket: zmq.Socket[Any] | None = None) -> int:
    # A closed socket has no type any more.
    capture_type = capture_socket.type if capture_socket else None
    try:
        relay.run()
    finally:
        there, back, capture = relay.statistics()
        left = []
        if there.parked + back.parked:
            left.append(_count(there.parked + back.parked, "message", "messages"))
        # A publisher waits for nobody: the end of the context came before the copy, no more.
        if capture.parked and capture_type not in (zmq.PUB, zmq.XPUB):
            left.append(_count(capture.parked, "copy", "copies") + " for the capture")
        if left:
            logger.warning(
                "%s ended with %s undelivered: no peer took it in time", name, " and ".join(left)
            )
    return 0


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def proxy(
    frontend: zmq.Socket[Any],
    backend: zmq.Socket[Any],
    capture: zmq.Socket[Any] | None = None,
    *,
    capture_policy: CapturePolicy = "block",
    burst: int = DEFAULT_BURST,
) -> int:
    """Relay between two sockets until their context is terminated; drop-in for ``zmq.proxy``.

    The types of the sockets make the device: a queue of ROUTER and DEALER, a forwarder of XSUB (or
    SUB) and XPUB (or PUB), a streamer of PULL and PUSH.

    Parameters
    ----------
    frontend, backend : zmq.Socket
        The two ends; they may be one and the same socket.
    capture : zmq.Socket, optional
        Gets a copy of every message that is sent on: PUB, XPUB, PUSH, PAIR, DEALER or ROUTER.
    capture_policy : {"block", "drop"}
        Whether traffic waits for a full capture socket, or goes on and the copy is dropped.
    burst : int
        Messages that one direction may relay before it is the other's turn, up to 10000.

    Returns
    -------
    int
        Never, but by raising: an error, or what a signal handler raises.

    Raises
    ------
    zmq.ContextTerminated
        When the context of a socket is terminated.
    zmq.ZMQError
        When a socket is closed (ENOTSOCK) or fails.
    TypeError, ValueError, RuntimeError
        For arguments that cannot work, before anything is relayed; see `Relay`.
    KeyboardInterrupt
        On Ctrl-C, at once, in the main thread.

    Notes
    -----
    While it runs, the calling thread alone may use the sockets. Python runs signal handlers in the
    main thread only: in another thread, it ends with its context, or is a daemon. What is still
    undelivered when it ends, since no peer took it in time, is told by a warning of the logger
    ``zdev`` and by nothing else; a `Relay` has it in its statistics.

    References
    ----------
    zmq_proxy(3)
    """
    relay = Relay(
        frontend, backend, capture, capture_policy=capture_policy, burst=burst, swap=False
    )
    return _run("proxy", relay, capture)


def device(device_type: int, frontend: zmq.Socket[Any], backend: zmq.Socket[Any]) -> int:
    """Relay between two sockets; drop-in for ``zmq.device``, the old name of `proxy`.

    Parameters
    ----------
    device_type : zmq.DeviceType or int
        ``zmq.QUEUE``, ``zmq.FORWARDER`` or ``zmq.STREAMER``. It changes nothing: the sockets' types
        make the device.
    frontend, backend : zmq.Socket
        As for `proxy`.

    Raises
    ------
    ValueError
        For any other device type.
    zmq.ZMQError, TypeError, RuntimeError, KeyboardInterrupt
        As for `proxy`.

    References
    ----------
    zmq_device(3) of libzmq 2.2
    """
    zmq.DeviceType(device_type)
    return _run("device", Relay(frontend, backend, swap=False))


def proxy_steerable(
    frontend: zmq.Socket[Any],
    backend: zmq.Socket[Any],
    capture: zmq.Socket[Any] | None = None,
    control: zmq.Socket[Any] | None = None,
    *,
    capture_policy: CapturePolicy = "block",
    burst: int = DEFAULT_BURST,
) -> int:
    """Relay as `proxy` does, under the commands of a control socket.

    Drop-in for ``zmq.proxy_steerable``, on every libzmq. The commands are single frames:

    - PAUSE: relay nothing more, and use no CPU.
    - RESUME: go on.
    - TERMINATE: return.
    - STATISTICS: reply with eight frames, each an unsigned 64-bit integer in native byte order:
      frames and bytes received by the frontend, sent by the frontend, received by the backend, sent
      by the backend. A control socket that cannot send (SUB, PULL) gives no reply.

    A REP control socket, or the ROUTER that a REQ talks to, replies to every other command with an
    empty frame. Unknown commands, and frames behind the first, are ignored.

    Parameters
    ----------
    frontend, backend, capture, capture_policy, burst
        As for `proxy`.
    control : zmq.Socket, optional
        PAIR, REP, ROUTER, DEALER, PULL, SUB, XSUB or XPUB.

    Returns
    -------
    int
        0 after TERMINATE.

    Raises
    ------
    zmq.ContextTerminated, zmq.ZMQError, TypeError, ValueError, RuntimeError, KeyboardInterrupt
        As for `proxy`.

    References
    ----------
    zmq_proxy_steerable(3)
    """
    relay = Relay(
        frontend,
        backend,
        capture,
        control=control,
        capture_policy=capture_policy,
        burst=burst,
        swap=False,
    )
    return _run("proxy_steerable", relay, capture)


def monitored_queue(
    in_socket: zmq.Socket[Any],
    out_socket: zmq.Socket[Any],
    mon_socket: zmq.Socket[Any],
    in_prefix: Prefix = b"in",
    out_prefix: Prefix = b"out",
    *,
    control: zmq.Socket[Any] | None = None,
    capture_policy: CapturePolicy = "block",
    burst: int = DEFAULT_BURST,
) -> int:
    """Relay between two sockets and show a third every message, with the side it came from.

    Drop-in for ``zmq.devices.monitored_queue``. Where both sockets are ROUTER, ``[from, to, ...]``
    goes on as ``[to, from, ...]``, so that their peers can address each other.

    Parameters
    ----------
    in_socket, out_socket : zmq.Socket
        The two ends; they may be one and the same socket.
    mon_socket : zmq.Socket
        Gets ``[prefix, *frames]`` of every message, with its frames as they are sent on.
    in_prefix, out_prefix : bytes, buffer, str or None
        The prefix of what came from ``in_socket``, from ``out_socket``. ``str`` is sent as UTF-8;
        None means that there is no prefix frame.
    control : zmq.Socket, optional
        Takes commands as for `proxy_steerable`.
    capture_policy, burst
        As for `proxy`.

    Returns
    -------
    int
        0 after TERMINATE.

    Raises
    ------
    zmq.ContextTerminated, zmq.ZMQError, TypeError, ValueError, RuntimeError, KeyboardInterrupt
        As for `proxy`.
    """
    if mon_socket is None:
        raise TypeError("mon_socket must be a zmq.Socket, not None; to do without one, use proxy")
    relay = _MonitoredQueue(
        in_socket,
        out_socket,
        mon_socket,
        in_prefix=in_prefix,
        out_prefix=out_prefix,
        control=control,
        capture_policy=capture_policy,
        burst=burst,
    )
    return _run("monitored_queue", relay, mon_socket)
