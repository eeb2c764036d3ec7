"""The device: what a user configures and asks, and what subclasses may replace."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Callable, ClassVar, TypeVar, cast

import zmq
import zmq.devices

from zdev._aside import aside
from zdev._contract import NOTHING, Statistics
from zdev._names import Named, socket_type
from zdev._relay import Relay
from zdev._sockets import check_pair
from zdev._stops import StopReport
from zdev._threads import RLock
from zdev._times import DRAIN_QUIET, PATIENCE, check_seconds, check_timeout

from .ends import Ends
from .plan import Plans, SocketPlan
from .ports import HeldPorts
from .progress import OverError, Progress
from .run import Run
from .settings import RelaySettings, check_settings
from .stages import Stage
from .types import take_type

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

__all__ = ["Device"]

R = TypeVar("R", bound=Progress)

_numbers = itertools.count(1)
"""For the names of devices that are given none."""


def _type_name(kind: Any) -> str:
    """Name a socket type, or what should be one."""
    try:
        return "itself" if kind < 0 else zmq.SocketType(kind).name
    except (TypeError, ValueError):
        return str(kind)


class Device(Ends, zmq.devices.Device):
    """A ZeroMQ device that makes its own sockets; drop-in for ``zmq.devices.Device``.

    Not sockets are passed, but their types; the sockets are made where the device runs. `Device`
    itself runs in the foreground: its `start` relays until the device is stopped. `ThreadDevice`
    and `ProcessDevice` run in the background.

    Parameters
    ----------
    device_type : int
        ``zmq.QUEUE``, ``zmq.FORWARDER`` or ``zmq.STREAMER``; it changes nothing.
    in_type, out_type : int or str
        Socket types, such as ``zmq.ROUTER`` or ``"ROUTER"``, in capital or small letters. With a
        negative ``out_type`` one socket is both ends.
    name : str, optional
        Names the thread or process, and the device in the log; by default ``ThreadProxy-1``, say.

    Attributes
    ----------
    name : str
        As given, or made up.
    daemon : bool
        Whether the thread or process is a daemon; True by default. Set it before the start.
    context_factory : callable
        Makes the context, or says which one to use; of the class or of the instance.
    done : bool
        Whether the device has ended.
    exception : BaseException or None
        What ended it, if it was an error.
    endpoints : dict of str to list of str
        Where each socket is really bound, by role: "in", "out", "mon" and "ctrl".
    last_stop : StopReport or None
        What it left when it ended.

    Raises
    ------
    TypeError, ValueError
        For what is no socket type, name or setting, and for a type that cannot serve in its role;
        of a subclass that makes the sockets or relays in a way of its own, from `start`.

    Notes
    -----
    All methods but `run` and `run_device` may be called from any thread, and from signal handlers.

    `start` raises what keeps the device from relaying: zmq.ZMQError from libzmq, `zdev.BindError`
    for an address that is not to be had, TypeError and ValueError for what cannot work. An error
    that ends it later is logged, kept in `exception` and raised by `join`. What is asked of the
    live device, such as to bind, raises its error where it is asked.
    """

    in_type: int
    out_type: int
    context_factory: Callable[[], zmq.Context[Any]] = zmq.Context.instance

    _roles: ClassVar[tuple[str, ...]] = ("in", "out")
    _in_background: ClassVar[bool] = False

    def __init__(
        self,
        device_type: int = zmq.QUEUE,
        in_type: Named | None = None,
        out_type: Named | None = None,
        *,
        name: str | None = None,
        **settings: Unpack[RelaySettings],
    ) -> None:
        self._settings = self._take_attributes(check_settings(type(self), self._roles, settings))
        for role, kind in (("in", in_type), ("out", out_type)):
            if kind is None:
                raise TypeError(f"{role}_type must be given: a socket type such as zmq.ROUTER")
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a str, not {type(name).__name__}")
        self.device_type = device_type
        take_type(self, "in_type", in_type)
        take_type(self, "out_type", out_type)
        self.name = name or f"{type(self).__name__}-{next(_numbers)}"
        self.daemon = True
        self._plans = Plans((role, SocketPlan()) for role in self._roles)
        self._held = HeldPorts()
        self._random_addrs: list[str] = []
        self._forget_run()

    def _forget_run(self) -> None:
        """Be as never started."""
        self._lock = RLock()
        self._run: Progress | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what lives in one process only, and share nothing with a copy."""
        return self._unshared({k: v for k, v in vars(self).items() if k not in ("_lock", "_run")})

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._forget_run()
        if "_plans" in state:
            self.__dict__.update(state)
            return
        # From a process where this class was derived from pyzmq's before zdev.install().
        Device.__init__(self, in_type=state["in_type"], out_type=state["out_type"])
        for key, value in state.items():
            setattr(self, key, value)

    def __repr__(self) -> str:
        """Tell name, types and state, also where a subclass has not yet come to set them."""
        its = vars(self).get
        one, other = (_type_name(its(name)) for name in ("in_type", "out_type"))
        run = its("_run")
        state = ["idle"]
        if run is not None:
            state = ["running", *run.waits] if self._is_running else ["ended"]
        return f"<{type(self).__name__} {its('name')} {one} to {other}, {', '.join(state)}>"

    # The run

    @property
    def done(self) -> bool:
        """Whether the device has ended."""
        return self._run is not None and not self._is_running

    @done.setter
    def done(self, done: bool) -> None:
        """Let subclasses that were made for pyzmq say so; it is known here without."""

    @property
    def exception(self) -> BaseException | None:
        """What ended the device, if it was an error."""
        return None if self._run is None else self._run.exception

    @property
    def endpoints(self) -> dict[str, list[str]]:
        """Where each socket is really bound, by role: wildcards and port 0 resolved.

        Keys are ``"in"``, ``"out"``, ``"mon"`` and ``"ctrl"``, as far as the device has them. Empty
        before the start; after the end, what was.
        """
        return {} if self._run is None else self._run.endpoints()

    def _begin(self, make: Callable[..., R], **options: Any) -> R:
        """Begin a run of that kind, or say that there is one already."""
        last = self._run
        if last is not None and not self._is_running:
            last.join_worker(PATIENCE)  # a subclass may still be at its end, in its own run()
        with self._lock:
            if self._is_running:
                raise RuntimeError(f"{self.name} is running already; stop it first")
            options = {"in_background": self._in_background, "on_stage": self._on_stage, **options}
            run = make(self.name, self._plans.copy(), self._held, **options)
            self._held = HeldPorts()
            self._run = run
            return run

    def _run_of(self, start: object) -> Progress | None:
        """Return the run that this start has begun, if it has come so far."""
        run = self._run
        return run if run is not None and run.start is start else None

    def _begin_here(self, **options: Any) -> Run:
        """Begin a run in this process."""
        is_own = isinstance(self.context_factory, type)  # a class makes a new one each time
        return self._begin(
            Run,
            main=self.run,
            close_sockets=self._close_sockets,
            # What a subclass does in a run() of its own, such as to heed ETERM, is not seen.
            owns_context=is_own and not self._replaces("run"),
            is_replaced=self._replaces("run") or self._replaces("run_device"),
            **{**self._run_options(), **options},
        )

    def _replaces(self, name: str) -> bool:
        """Tell whether a subclass, or somebody for this instance, has replaced a method."""
        return getattr(getattr(self, name), "__func__", None) is not getattr(Device, name)

    def _on_stage(self, stage: Stage) -> None:
        """Be told how far the run is."""

    # What subclasses use and replace, by pyzmq's names

    @property
    def _sockets(self) -> list[zmq.Socket[Any]]:
        """The sockets that the device closes at its end."""
        return self._run.wiring.made if isinstance(self._run, Run) else []

    @_sockets.setter
    def _sockets(self, sockets: list[zmq.Socket[Any]]) -> None:
        if isinstance(self._run, Run):  # else it is a subclass of pyzmq's that has none yet
            self._run.wiring.made = sockets

    @property
    def _context(self) -> Any:
        """The context of the run."""
        return self._run.context if isinstance(self._run, Run) else None

    @_context.setter
    def _context(self, context: Any) -> None:
        self._here.context = context

    def _open(self, *roles: str) -> list[zmq.Socket[Any]]:
        """Make the sockets of these roles what is planned."""
        names = {role: f"{role}_type" for role in roles}
        kinds = {role: socket_type(getattr(self, name), name) for role, name in names.items()}
        return self._here.open(kinds, self._roles)

    def _setup_sockets(self) -> Any:
        self._context = self._here.make_context(self.context_factory)
        ins, outs = self._open("in", "out")
        if self._is_plain():
            one, other = (cast("int", end.getsockopt(zmq.TYPE)) for end in (ins, outs))
            check_pair(("in_type", "out_type"), one, other, is_one=ins is outs)
        return ins, outs

    def _close_sockets(self) -> None:
        """Close the sockets that this device made."""
        self._here.wiring.close()

    def _relay_options(self) -> dict[str, Any]:
        return {"swap": False}

    def run_device(self) -> None:
        """Make the sockets and relay, in a way that subclasses may replace; `start` runs it."""
        run = self._here
        run.will_relay(is_plain=self._is_plain())
        ins, outs, *others = self._setup_sockets()
        capture = others[0] if others else None
        control = others[1] if len(others) > 1 else None
        options = {**self._settings, **self._relay_options()}
        run.relay_by(Relay(ins, outs, capture, control=control, **options))

    def run(self) -> None:
        """Run in this thread until the end. The end of the context is a clean one.

        `start` calls this where the device is to run.
        """
        run = self._here if self._is_running else self._begin_here()
        aside(lambda: run.perform(self.run_device), lambda: run.stop(None), self.name)

    # Control

    def start(self) -> None:
        """Run the device, here, until it is stopped or its context is terminated.

        Raises
        ------
        zmq.ZMQError, ValueError, TypeError
            What went wrong; `zdev.BindError` if an address was not to be had.
        RuntimeError
            If it is running already.
        """
        start = object()
        try:
            run = self._begin_here(start=start)
            aside(run.execute, lambda: run.stop(None), self.name)
        finally:
            # Ctrl-C may have come before the run was executed.
            begun = self._run_of(start)
            if begun is not None:
                begun.end()

    def _started(self) -> Progress:
        """Return the run, or say that there has been none."""
        if self._run is None:
            raise RuntimeError(f"{self.name} was not started; call start() first")
        return self._run

    def join(self, timeout: float | None = None) -> None:
        """Wait until the device has ended, and raise what ended it.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait; the device may still be running after that: see `done`.

        Raises
        ------
        RuntimeError
            If it was never started.
        TypeError, ValueError
            If the timeout is no number of seconds, or negative.
        BaseException
            The error that ended the device.
        """
        timeout = check_timeout(timeout)
        run = self._started()
        if run.wait(timeout, PATIENCE) and run.exception is not None:
            raise run.exception

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.stop()
        if kind is None:
            self.join()

    def pause(self) -> None:
        """Relay nothing until `resume`; control goes on. When this returns, it is so.

        Raises
        ------
        RuntimeError
            If the device was not started, is ending or has ended.
        """
        self._started().ask("pause")

    def resume(self) -> None:
        """End a pause.

        Raises
        ------
        RuntimeError
            As for `pause`.
        """
        self._started().ask("resume")

    def statistics(self) -> Statistics:
        """Return what the device has relayed in this run, or in the last; zeros before the first.

        Raises
        ------
        RuntimeError
            If its process was killed while it relayed, or it relays with something else than zdev.
        """
        run = self._run
        if run is None:
            return NOTHING
        try:
            counts: Statistics = run.ask("statistics")
        except OverError:
            if run.is_current_thread():
                raise
            run.stages.wait(Stage.ENDED)  # with it, the final counts come
        else:
            return counts
        return run.final_counts()

    @property
    def last_stop(self) -> StopReport | None:
        """What `stop` returned; of a device that ended otherwise, what it would have."""
        return None if self._run is None else self._run.last_stop

    def stop(
        self,
        drain: float | None = None,
        timeout: float | None = None,
        *,
        quiet: float | None = DRAIN_QUIET,
    ) -> StopReport | None:
        """End the device, whatever it is doing, and wait for its end.

        To stop a device that does not run does nothing.

        Parameters
        ----------
        drain : float, optional
            First, for at most so many seconds, relay what the device and its sockets hold. Where
            requests and replies pass, that goes on until as many came back as went there: see
            `Relay.stop`. Another stop, with less time or none, cuts it short. By default, the
            device ends at once; what is parked is tried once more. What the sockets still have to
            send then gets the socket's ZMQ_LINGER if that is finite, and the rest of the drain; at
            least half a second where it is infinite, as by default. The context of a thread device,
            which others share, lives on and goes on sending.
        timeout : float, optional
            Seconds to wait for the end.
        quiet : float
            Seconds for which nothing must have come before a drain is over.

        Returns
        -------
        StopReport or None
            What the device left; it is also kept as `last_stop`. None of a device that has not come
            to relay or is called by itself, as in a signal handler, and where its process was
            killed. If a drain has left something, the logger ``zdev`` warns of that.

        Raises
        ------
        TimeoutError
            If it has not ended by then.
        TypeError, ValueError
            If one of them is no number of seconds, or negative.
        """
        if drain is not None:
            drain = check_seconds(drain, "drain")
        if quiet is not None:
            quiet = check_seconds(quiet, "quiet")
        timeout = check_timeout(timeout)
        run = self._run
        if run is None:
            return None
        run.stop(drain, quiet)
        if run.is_current_thread() and run.stages.now < Stage.ENDED:
            return None  # a signal handler, or a call, of the device itself
        if not run.wait(timeout, PATIENCE):
            raise TimeoutError(f"{self.name} has not ended in {timeout} s")
        return run.last_stop
