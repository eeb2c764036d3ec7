"""``zdev run``: the devices of a file, kept running."""

from __future__ import annotations

import argparse
import contextlib
import os
import selectors
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import zdev
from zdev import _engines
from zdev._seed import seed
from zdev.cli._control import ControlError, Listener
from zdev.cli._ends import DONE, INTERRUPTED, LATE, printing, refuse, say, tell
from zdev.cli._file import Entry, General, general_of, read, read_text
from zdev.cli._kept import Kept
from zdev.cli._meter import Meter, MeterError, add_metrics_to
from zdev.cli._notify import notify, reloading, watchdog_interval
from zdev.cli._supervisor import StartError, Supervisor
from zdev.cli._telling import (
    logging_to_stderr,
    problem_line,
    show_problems,
    sockets_of,
    told,
)

if TYPE_CHECKING:
    from zdev.cli._ends import Commands

__all__ = ["add_to", "run"]

WHO = "zdev run"

DESCRIPTION = """\
Run the devices of a file, each in a process of its own (or, with thread = true, in a thread of this
one), and start those again that die. For example:

  [device.depot]
  kind = "queue"
  in = ["bind:tcp://127.0.0.1:5559"]
  out = ["bind:tcp://127.0.0.1:5560"]
  set = { "in.rcvhwm" = 10000 }
  overflow = "park"

The keys are the options of zdev queue and its kin, and kind and thread. Above the devices, metrics
and insecure are as the options here: that insecure is for the metrics, and a device has its own.
SIGHUP, or zdev reload FILE, has the file read again: what has changed is changed live, and the rest
goes on. SIGINT and SIGTERM drain the devices; a second one ends them at once.
"""

ENDING = """\
exit status: 0 ended and drained, 2 the file is wrong or a device could not be started, 3 a drain's
time ran out, 130 ended at once

example:
  zdev run zdev.toml
"""


def add_to(commands: Commands) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "run", help="run the devices of a file", description=DESCRIPTION, epilog=ENDING
    )
    parser.add_argument("file", metavar="FILE", help="the file; - is standard input")
    parser.add_argument("--json", action="store_true", help="print JSON, an object a line")
    add_metrics_to(parser)
    parser.add_argument(
        "--insecure", action="store_true", help="allow --metrics beyond this machine"
    )
    parser.set_defaults(command=run)


@printing
def run(arguments: argparse.Namespace) -> int:
    """Run ``zdev run``."""
    try:
        _engines.current()
        seed()
        loaded = load(arguments.file)
    except zdev.EngineUnavailableError as error:
        return refuse("zdev", error)
    except (OSError, UnicodeDecodeError) as error:
        words = getattr(error, "strerror", None) or error
        return refuse(WHO, f"{arguments.file}: {words}")
    if loaded is None:
        return refuse(WHO, f"{arguments.file} is wrong")
    with contextlib.ExitStack() as stack:
        stack.enter_context(logging_to_stderr(WHO))
        try:
            listener = None
            if arguments.file != "-":
                listener = Listener(arguments.file)
                stack.callback(listener.close)
        except ControlError as error:
            status = refuse(WHO, error)
        else:
            status = _run(arguments, *loaded, listener, stack)
    return status


def load(file: str) -> tuple[dict[str, Entry], General] | None:
    """Read a file; None if it is wrong, which is said."""
    text = read_text(file)
    entries, problems = read(text, file)
    show_problems(problems, file)
    return None if problems else (entries, general_of(text))


def _run(
    arguments: argparse.Namespace,
    entries: dict[str, Entry],
    general: General,
    listener: Listener | None,
    stack: contextlib.ExitStack,
) -> int:
    def show(one: Kept) -> None:
        spec, device = one.entry.spec, one.device
        for line in told(spec, sockets_of(device, spec), as_json=arguments.json, is_one=False):
            tell(line)

    supervisor = Supervisor(lambda words: say(WHO, words), show)
    stack.callback(supervisor.close)
    service = Service(arguments, supervisor, listener)
    stack.callback(service.meter.close)
    stack.enter_context(service.heeding())
    try:
        with service.measured(general):
            pass
        supervisor.start(entries)
    except StartError as error:
        for name, problem in error.problems.items():
            say(WHO, f"error: {name}: {problem}")
        return refuse(WHO, "not all devices could be started, so none is")
    except MeterError as error:
        return refuse(WHO, error)
    service.tell_ready()
    service.serve()
    return service.status()


class Service:
    """What goes on around the devices: signals, requests, and what the service manager is told."""

    def __init__(
        self, arguments: argparse.Namespace, supervisor: Supervisor, listener: Listener | None
    ) -> None:
        self.file: str = arguments.file
        title = "zdev run" if self.file == "-" else f"zdev run {os.path.basename(self.file)}"
        self.meter = Meter(self.tell, title, lambda words: say(WHO, words))
        self._arguments = arguments
        self.problem: str | None = None
        """What was wrong when the file was last read."""
        self._supervisor = supervisor
        self._listener = listener
        self._heard = self._signals = 0  # the signals that have come, and those that were heeded
        self._interval = watchdog_interval()
        supervisor.meanwhile = self._meanwhile

    @contextlib.contextmanager
    def heeding(self) -> Iterator[None]:
        """Heed signals meanwhile."""
        kept: dict[int, Any] = {}
        number: int
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # a background job's, or nohup's
                kept[number] = signal.signal(number, self._heed)
        # Another thread may take the signal, or it may come just before the main thread waits; what
        # Python does for it then waits for that, too.
        before = signal.set_wakeup_fd(self._supervisor.wakeup_fd, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            for number, handler in kept.items():
                signal.signal(number, handler)

    def _heed(self, number: int, _frame: Any) -> None:
        if number == signal.SIGHUP:
            self._supervisor.post(self.reload)
        else:
            self._heard += 1
            self._supervisor.post(self._stop)

    def _stop(self) -> None:
        self._signals += 1
        if self._signals == 1:
            notify("STOPPING=1", "STATUS=Draining")
            say(WHO, "drains; a second signal ends it at once")
        self._supervisor.stop(drain=self._signals == 1)

    def _meanwhile(self) -> bool:
        """Feed the watchdog while a reload waits; tell whether a second signal wants an end."""
        if self._interval is not None:
            notify("WATCHDOG=1")
        return self._heard > 1

    def serve(self) -> None:
        """Go on until no device is left."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._supervisor, selectors.EVENT_READ)
            if self._listener is not None:
                selector.register(self._listener, selectors.EVENT_READ)
            while True:
                soon = self._supervisor.attend()
                if self._supervisor.has_ended:
                    break
                times = [time for time in (soon, self._interval) if time is not None]
                for key, _ in selector.select(min(times) if times else None):
                    if key.fileobj is self._listener and self._listener is not None:
                        self._listener.serve(self._answer)
                if self._interval is not None:
                    notify("WATCHDOG=1")

    def tell_ready(self) -> None:
        """Tell the service manager that all devices relay, or still do."""
        if self._supervisor.is_stopping:  # that is what it knows
            return
        count = len(self._supervisor.kept)
        words = f"{count} device{'s' if count != 1 else ''}"
        notify("READY=1", f"STATUS={words}{f'; {self.problem}' if self.problem else ''}")

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        verb = request.get("verb")
        if verb == "reload":
            return self.reload()
        if verb == "file":
            # By this it is found, whatever a link in it says.
            return {"file": os.path.abspath(self.file)}
        if verb == "status":
            return self.tell()
        return {"errors": [f"there is no {verb!r}"]}

    def tell(self) -> dict[str, Any]:
        """Return what there is to know; from any thread."""
        devices = self._supervisor.status()
        return {
            "problem": self.problem,
            "ending": self._supervisor.is_stopping,
            "devices": devices,
        }

    def measured(self, general: General) -> contextlib.AbstractContextManager[bool]:
        """Be measured where the file has it, or the option, which wins."""
        return self.meter.moving(
            self._arguments.metrics or general.metrics,
            insecure=self._arguments.insecure or general.insecure,
        )

    def reload(self) -> dict[str, Any]:
        """Read the file again, and change what has changed; return what was done."""
        if self.file == "-":
            return self._failed(["standard input cannot be read again"])
        if self._supervisor.is_stopping:
            return self._failed(["it is ending"])
        reloading()
        try:
            text = read_text(self.file)
            entries, problems = read(text, self.file)
        except Exception as error:  # whatever is in it, the devices go on
            return self._failed([f"{self.file}: {error}"])
        if problems:
            return self._failed([problem_line(problem, self.file) for problem in problems])
        try:
            with self.measured(general_of(text)) as moves:
                changes = self._supervisor.reload(entries)
            changes += ["metrics: moved"] if moves else []
        except Exception as error:  # whatever a socket says
            return self._failed([str(error)])
        self.problem = None
        for words in changes:
            say(WHO, words)
        say(WHO, "read again" if changes else "read again; nothing has changed")
        self.tell_ready()
        return {"changes": changes}

    def _failed(self, problems: list[str]) -> dict[str, Any]:
        self.problem = f"the last reload failed: {problems[0]}"
        for words in problems:
            say(WHO, words)
        say(WHO, "not read again: all is as it was")
        self.tell_ready()
        return {"errors": problems}

    def status(self) -> int:
        """Return the exit status."""
        if self._signals > 1:
            return INTERRUPTED
        return LATE if self._supervisor.was_cut_off else DONE
