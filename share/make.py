"""Make the man page and the completions that are installed with zdev, from the parser of ``zdev``.

``python share/make.py`` writes them beside this file, where they lie as they do below a prefix such
as ``/usr``; ``python share/make.py FOLDER`` writes them elsewhere. They are kept in git, so that
nothing but setuptools is needed to install zdev; tests/command/test_share.py sees that they fit the
parser. CPython 3.13 makes them: another version's argparse may write usages in another way.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import shtab
from argparse_manpage.manpage import Manpage

import zdev
from zdev.cli import parser

SHELLS = {
    "bash": "bash-completion/completions/zdev",
    "zsh": "zsh/site-functions/_zdev",
    "fish": "fish/vendor_completions.d/zdev.fish",
}
PAGE = "man/man1/zdev.1"

# What is completed where the parser does not say it, by what the help calls it.
FILES = {"FILE": shtab.FILE, "SCRIPT": shtab.FILE, "DIR": shtab.DIRECTORY}
TYPES = [
    "PAIR", "PUB", "SUB", "REQ", "REP", "DEALER", "ROUTER", "PULL", "PUSH", "XPUB", "XSUB",
    "STREAM",
]  # fmt: skip


def commands(root: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Give the words that say in short what a command does, and its parser."""
    for action in root._actions:
        if isinstance(action, argparse._SubParsersAction):
            for told in action._choices_actions:
                yield str(told.help), action.choices[told.dest]


def completion(shell: str) -> str:
    """Return the completions for a shell."""
    root = parser()
    for words, command in commands(root):
        command.description = words  # of longer ones, shtab takes the first line
        for action in command._actions:
            if action.metavar in FILES:
                action.complete = FILES[action.metavar]  # type: ignore[attr-defined]
            elif action.metavar == "TYPE":
                action.choices = TYPES
            elif (command.prog, action.dest) == ("zdev top", "address"):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    return shtab.complete(root, shell).rstrip() + "\n"


def page() -> str:
    """Return the man page, which has no date, so that it changes with the parser alone."""
    root = parser()
    for _, command in commands(root):
        # What --help has behind the options, the page would not have at all.
        command.description = f"{command.description}\n\n{command.epilog or ''}".strip()
        for group in command._action_groups[2:]:  # those of argparse itself get a colon there
            group.title = f"{group.title}:"
    about = {
        "description": str(root.description).rstrip("."),
        "project_name": "zdev",
        "version": zdev.__version__,
        "manual_title": "zdev",
    }
    made = Manpage(root, about, format="single-commands-section")
    made.date = ""
    # What is to be typed has straight quotes, which troff would make round.
    text = str(made).replace("'", r"\(aq").replace(".SH COMMENTS\nexamples:", ".SH EXAMPLES")
    # Usages and examples stay in their lines, which are those that troff is not to fill.
    return re.sub(r"((?:^(?:usage:| ).*\n)+)", r".nf\n\1.fi\n", text, flags=re.MULTILINE)


def main() -> None:
    """Write all of them."""
    os.environ["COLUMNS"] = "73"  # for usages, which the page indents
    folder = Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent
    made = {PAGE: page(), **{path: completion(shell) for shell, path in SHELLS.items()}}
    for path, text in made.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
