"""The parser of one command: options from the environment, and words that were nearly right."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import shlex
from typing import Any, NoReturn

__all__ = ["CommandParser", "variable"]

YES, NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")


def variable(action: argparse.Action) -> str | None:
    """Name the environment variable of an option; None for a word, ``--help`` and ``--version``."""
    long = [option for option in action.option_strings if option.startswith("--")]
    if not long or isinstance(action, (argparse._HelpAction, argparse._VersionAction)):
        return None
    return "ZDEV_" + long[0][2:].replace("-", "_").upper()


class CommandParser(argparse.ArgumentParser):
    """The parser of one command, which answers a wrong argument with that command's own usage.

    argparse would hand what a command's parser does not know back to the parser of ``zdev``, whose
    usage says nothing of the command's options.

    Each long option is also read from the environment, where the command line does not have it:
    ``--io-threads`` from ``ZDEV_IO_THREADS``. An option that can be repeated takes several words
    there, divided as a shell does; a switch takes yes or no.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        # A shortened option would become ambiguous, or another's, when an option is added.
        kwargs["allow_abbrev"] = False
        super().__init__(*args, **kwargs)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse, and refuse what is unknown."""
        given = list(args or ())
        parsed, unknown = super().parse_known_args([*self._environment(given), *given], namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return parsed, unknown

    def _environment(self, given: list[str]) -> list[str]:
        """Return the options that the environment has, and the command line has not."""
        words: list[str] = []
        names = {word.partition("=")[0] for word in given}
        for action in self._actions:
            name = variable(action)
            if name is None or name not in os.environ or names.intersection(action.option_strings):
                continue
            option, value = action.option_strings[-1], os.environ[name]
            if action.nargs == 0:
                if value.lower() in YES:
                    words.append(option)
                elif value.lower() not in NO:
                    self.error(f"{name} is {value!r}; it must be one of {', '.join(YES + NO[:-1])}")
            elif isinstance(action, argparse._AppendAction):
                try:
                    words += (f"{option}={word}" for word in shlex.split(value))
                except ValueError as error:
                    self.error(f"{name} is {value!r}: {error}")
            else:
                words.append(f"{option}={value}")
        return words

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and what may have been meant; exit."""
        hint = self._hint(message)
        super().error(f"{message}; {hint}" if hint else message)

    def _hint(self, message: str) -> str:
        """Say which words are like the wrong one."""
        if message.startswith("unrecognized arguments: "):
            wrong = message.split(": ", 1)[1].split(maxsplit=1)[0].partition("=")[0]
            known = [option for action in self._actions for option in action.option_strings]
        else:
            found = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
            if found is None or "maybe you meant" in message:
                return ""
            wrong, known = found[1], re.findall(r"[\w.-]+", found[2])
        near = difflib.get_close_matches(wrong, known, 2, 0.75)
        return f"did you mean {' or '.join(near)}?" if near else ""
