"""The functions that block: drop-in for those of pyzmq."""

from __future__ import annotations

import logging
from typing import Any

import zmq

from zdev import _names
from zdev._relay import DEFAULT_BURST, WARN_AFTER, CapturePolicy, Overflow, Prefix, Relay
from zdev._voice import write

__all__ = ["device", "monitored_queue", "proxy", "proxy_steerable"]


class _MonitoredQueue(Relay):
    """A relay whose errors speak of `monitored_queue`'s parameters."""

    _roles = ("in_socket", "out_socket", "mon_socket", "control")


def _run(name: str, relay: Relay, capture_socket: zmq.Socket[Any] | None = None) -> int:
    # A closed socket has no type any more.
    capture_type = capture_socket.type if capture_socket else None
    relay._voice.name = name
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
        if left and relay.last_stop is None:  # a drain has told of it
            write(
                logging.WARNING,
                "%s ended with %s undelivered: no peer took it in time",
                name,
                " and ".join(left),
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
    overflow: Overflow = "park",
    in_overflow: Overflow | None = None,
    out_overflow: Overflow | None = None,
    burst: int = DEFAULT_BURST,
    warn_after: float | None = WARN_AFTER,
    only_first_subscribe: bool = False,
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
    overflow : {"park", "drop"}
        What becomes of a message that its destination refuses, which is full or has no peer:
        whether it is kept and its source waits ("park"), or it is dropped whole, and the source
        read on ("drop"), with a warning in the log when that begins and when it has ended.
    in_overflow, out_overflow : {"park", "drop"}, optional
        The same for messages from the frontend, which the backend refuses, and for messages from
        the backend, which the frontend refuses. By default (None) as `overflow` says.
    burst : int
        Messages that one direction may relay before it is the other's turn, up to 10000.
    warn_after : float or None
        Seconds that a direction may wait for its destination or for the capture until the logger
        ``zdev`` warns of it. None: never.
    only_first_subscribe : bool
        Whether an XSUB among the two has ZMQ_ONLY_FIRST_SUBSCRIBE, which libzmq does not tell. Of a
        message for an XSUB, no frame may subscribe to more than 2048 bytes; with this, that goes
        for messages only whose first frame subscribes.

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
        frontend,
        backend,
        capture,
        capture_policy=capture_policy,
        overflow=overflow,
        in_overflow=in_overflow,
        out_overflow=out_overflow,
        burst=burst,
        warn_after=warn_after,
        only_first_subscribe=only_first_subscribe,
        swap=False,
    )
    return _run("proxy", relay, capture)


def device(
    device_type: _names.Named,
    frontend: zmq.Socket[Any],
    backend: zmq.Socket[Any],
    *,
    overflow: Overflow = "park",
    in_overflow: Overflow | None = None,
    out_overflow: Overflow | None = None,
    warn_after: float | None = WARN_AFTER,
    only_first_subscribe: bool = False,
) -> int:
    """Relay between two sockets; drop-in for ``zmq.device``, the old name of `proxy`.

    Parameters
    ----------
    device_type : zmq.DeviceType, int or str
        ``zmq.QUEUE``, ``zmq.FORWARDER`` or ``zmq.STREAMER``, or such a name. It changes nothing:
        the sockets' types make the device.
    frontend, backend, overflow, in_overflow, out_overflow, warn_after, only_first_subscribe
        As for `proxy`.

    Raises
    ------
    TypeError, ValueError
        For any other device type.
    zmq.ZMQError, TypeError, RuntimeError, KeyboardInterrupt
        As for `proxy`.

    References
    ----------
    zmq_device(3) of libzmq 2.2
    """
    _names.device_type(device_type, "device_type")
    relay = Relay(
        frontend,
        backend,
        overflow=overflow,
        in_overflow=in_overflow,
        out_overflow=out_overflow,
        warn_after=warn_after,
        only_first_subscribe=only_first_subscribe,
        swap=False,
    )
    return _run("device", relay)


def proxy_steerable(
    frontend: zmq.Socket[Any],
    backend: zmq.Socket[Any],
    capture: zmq.Socket[Any] | None = None,
    control: zmq.Socket[Any] | None = None,
    *,
    capture_policy: CapturePolicy = "block",
    overflow: Overflow = "park",
    in_overflow: Overflow | None = None,
    out_overflow: Overflow | None = None,
    burst: int = DEFAULT_BURST,
    warn_after: float | None = WARN_AFTER,
    only_first_subscribe: bool = False,
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
    frontend, backend, capture
        As for `proxy`.
    control : zmq.Socket, optional
        PAIR, REP, ROUTER, DEALER, PULL, SUB, XSUB or XPUB.
    capture_policy, overflow, in_overflow, out_overflow, burst, warn_after, only_first_subscribe
        As for `proxy`.

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
        overflow=overflow,
        in_overflow=in_overflow,
        out_overflow=out_overflow,
        burst=burst,
        warn_after=warn_after,
        only_first_subscribe=only_first_subscribe,
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
    overflow: Overflow = "park",
    in_overflow: Overflow | None = None,
    out_overflow: Overflow | None = None,
    burst: int = DEFAULT_BURST,
    warn_after: float | None = WARN_AFTER,
    only_first_subscribe: bool = False,
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
    capture_policy, overflow, in_overflow, out_overflow, burst, warn_after, only_first_subscribe
        As for `proxy`, with ``in_socket`` for the frontend and ``out_socket`` for the backend.

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
        overflow=overflow,
        in_overflow=in_overflow,
        out_overflow=out_overflow,
        burst=burst,
        warn_after=warn_after,
        only_first_subscribe=only_first_subscribe,
    )
    return _run("monitored_queue", relay, mon_socket)
