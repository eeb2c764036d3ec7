"""What several commands say of devices and files, and where the log goes meanwhile."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import Any

from zdev.cli._file import Problem
from zdev.cli._output import json_line
from zdev.cli._spec import Spec

__all__ = ["logging_to_stderr", "problem_line", "show_problems", "sockets_of", "told"]


@contextlib.contextmanager
def logging_to_stderr(who: str) -> Iterator[None]:
    """Have the logger of zdev write to standard error meanwhile."""

    class Format(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return f"{who}: {record.levelname.lower()}: {record.getMessage()}"

    handler = logging.StreamHandler()
    handler.setFormatter(Format())
    logger = logging.getLogger("zdev")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def sockets_of(device: Any, spec: Spec) -> dict[str, dict[str, Any]]:
    """Return where a device's sockets really are."""
    return {
        role: {
            "type": spec.type_of(role).upper(),
            "bound": device.endpoints.get(role, []),
            "connected": [str(p) for p in wanted.endpoints if p.verb == "connect"],
        }
        for role, wanted in spec.wired()
    }


def told(
    spec: Spec, sockets: dict[str, dict[str, Any]], *, as_json: bool, is_one: bool = True
) -> Iterator[str]:
    """Return what is printed of a device that relays: of one, or of one of several."""
    if as_json:
        head = {"event": "relaying", "name": spec.name, "kind": spec.kind}
        yield json_line("device", **head, sockets=sockets)
        return
    name = "" if is_one else f"{spec.name} "
    for role, of in sockets.items():
        # libzmq says of no connect whether anybody is there.
        for key, verb in (("bound", "bound to"), ("connected", "connects to")):
            for address in of[key]:
                yield f"{name}{role:5}{of['type']:7} {verb:12}{address}"


def show_problems(problems: list[Problem], file: str, *, as_json: bool = False) -> None:
    """Print problems, in the way of compilers; editors find the places."""
    for problem in problems:
        severity = "error" if problem.is_error else "warning"
        if as_json:
            fields = {"file": file, "line": problem.line, "column": problem.column}
            fields |= {"device": problem.device, "key": problem.key, "message": problem.words}
            print(json_line("check", severity=severity, **fields))
            continue
        print(problem_line(problem, file), file=sys.stderr)


def problem_line(problem: Problem, file: str) -> str:
    """Return a line for a problem."""
    where = f"{file}:{problem.line}:{problem.column}" if problem.line else file
    what = f"{problem.device}: " if problem.device else ""
    what += f"{problem.key}: " if problem.key else ""
    return f"{where}: {'error' if problem.is_error else 'warning'}: {what}{problem.words}"
