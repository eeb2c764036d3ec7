"""Where a device runs in the background: in a thread (here) or in a process (see `process`)."""

from __future__ import annotations

import contextlib
import functools
import threading
import traceback
from typing import Any, Callable, ClassVar, TypeVar

import zmq.devices
import zmq.devices.basedevice

from zdev._signals import DeferredSignals
from zdev._threads import Thread, is_current
from zdev._times import PATIENCE, check_timeout

from . import running
from .device import Device
from .explained import explained
from .progress import Progress
from .run import Run
from .stages import Stage

__all__ = ["BackgroundDevice", "ThreadDevice"]


R = TypeVar("R", bound=Progress)


class BackgroundDevice(Device, zmq.devices.basedevice.BackgroundDevice):
    """A device that runs in the background.

    Attributes
    ----------
    launcher : threading.Thread, multiprocessing.Process or None
        What it runs in, or ran in last; None before the first start.
    """

    launcher: Any = None
    _launch_class: Any = None
    _in_background: ClassVar[bool] = True

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in super().__getstate__().items() if key != "launcher"}

    def _begin(self, make: Callable[..., R], **options: Any) -> R:
        run = super()._begin(make, **options)
        running.add(self)
        return run

    def _on_stage(self, stage: Stage) -> None:
        if stage == Stage.ENDED:
            running.discard(self)

    def _launch(self, begin: Callable[..., R], launch: Callable[[R], None]) -> R:
        """Begin a run, launch it, and return it when it relays, or raise what prevented it.

        Ctrl-C may come anywhere in here. A run that has begun then ends, lest the device is running
        for ever: `test_a_start_may_be_interrupted_anywhere`.
        """
        start = object()
        try:
            run = begin(start=start)
            run.is_awaited = True
            launch(run)
            run.await_ready()
            problem = run.started()
        except BaseException as error:
            begun = self._run_of(start)
            if begun is not None:
                begun.is_awaited = False
                self._give_up(begun, error)
            raise
        if problem is not None:
            run.wait(None, PATIENCE)
            run.forget_endpoints()  # nothing came of them
            raise problem
        return run

    def _give_up(self, run: Progress, error: BaseException) -> None:
        """End a run whose start is interrupted or has failed."""
        if run.claim():
            run.worker = None  # it has not begun, and will not
            run.fail(error)
            with contextlib.suppress(BaseException):  # what is raised is this first error
                run.end()
        else:
            self._interrupt(run)

    def _interrupt(self, run: Progress) -> None:
        """Stop a device whose start Ctrl-C interrupts."""
        with contextlib.suppress(TimeoutError):
            self.stop(timeout=PATIENCE)
            run.wait(PATIENCE, PATIENCE)  # stop() has not, where the worker is not yet known

    def _make_launcher(self, target: Any) -> None:
        # That of `threading` makes tasks where gevent has replaced it.
        is_plain = self._launch_class in (threading.Thread, ThreadDevice._launch_class)
        self.launcher = (Thread if is_plain else self._launch_class)(target=target)
        self.launcher.name = self.name
        self.launcher.daemon = self.daemon

    def join(self, timeout: float | None = None) -> None:
        if self.launcher is not None and self._run is None:
            self.launcher.join(
                check_timeout(timeout)
            )  # a subclass has launched it, as pyzmq's start() does
        else:
            super().join(timeout)

    join.__doc__ = Device.join.__doc__


@explained
class ThreadDevice(BackgroundDevice, zmq.devices.ThreadDevice):
    """A `Device` that runs in a thread of its own."""

    _launch_class = threading.Thread

    def _begin_here(self, **options: Any) -> Run:
        run = super()._begin_here(**options)
        if is_current(self.launcher):  # a subclass launched it, as pyzmq's start() does
            run.worker = self.launcher
        return run

    def start(self) -> None:
        """Start the thread, and return when the device relays.

        Raises
        ------
        zmq.ZMQError, ValueError, TypeError
            What went wrong; then there is no thread, and the sockets are closed. `zdev.BindError`
            if an address was not to be had.
        RuntimeError
            If the device is running already.
        """

        def launch(run: Run) -> None:
            self._make_launcher(functools.partial(_work, run))
            run.worker = self.launcher
            if not self.daemon:
                running.watch_main_thread()
            # What a handler raises within that may find Python's lists of threads half made:
            # `test_a_start_that_is_interrupted_leaves_nothing`, on PyPy.
            with DeferredSignals():
                self.launcher.start()

        self._launch(self._begin_here, launch)


def _work(run: Run) -> None:
    """Run a device in its thread."""
    if not run.claim():
        return
    try:
        run.execute()
    except BaseException as error:  # raised by start or join
        # Nobody keeps sockets and relays by keeping the error.
        traceback.clear_frames(error.__traceback__)
