"""The configuration file of ``zdev run``: TOML with a table for each device.

Its keys are the words of ``zdev queue`` and its kin, so that whoever knows the one knows the other.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from zdev.cli._brokers import make
from zdev.cli._spec import DRAIN, KINDS, ROLES, Spec, SpecError, Wanted, endpoint, http_place

if sys.version_info >= (3, 11):
    import tomllib
else:
    try:
        import tomli as tomllib
    except ImportError:  # told by `parsed`
        tomllib = None

__all__ = ["Entry", "General", "Places", "Problem", "general_of", "read", "read_text"]

SETTINGS = {
    "overflow": str,
    "in-overflow": str,
    "out-overflow": str,
    "capture-policy": str,
    "burst": int,
    "io-threads": int,
}
SECURITY = ("curve-server", "curve-client", "allow", "plain-server", "plain-client")
CURVE = {"server": "curve-server", "client": "curve-client", "allow": "allow"}
"""The keys of [curve], and what they are in a device."""
KEYS = [
    "kind",
    *ROLES,
    *(f"{role}-type" for role in ROLES),
    *("set", *SECURITY, "insecure", "in-prefix", "out-prefix", *SETTINGS, "drain", "thread"),
]


@dataclass
class Entry:
    """A device of a file."""

    spec: Spec
    drain: float = DRAIN
    in_thread: bool = False


@dataclass(frozen=True)
class General:
    """What a file says of the run itself."""

    metrics: str | None = None
    """Where it is measured, as HOST:PORT."""
    insecure: bool = False
    """Whether that may be beyond this machine."""


TOP_KEYS = ["device", "curve", *(f.name for f in fields(General))]


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file, and where: line and column from 1; 0 where that is not known."""

    line: int
    column: int
    words: str
    device: str | None = None
    key: str | None = None
    is_error: bool = True


def read_text(path: str) -> str:
    """Read a file; ``-`` is standard input.

    Raises
    ------
    OSError, UnicodeDecodeError
        If that cannot be.
    """
    text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    return text.removeprefix("\ufeff")  # some editors put it first


def read(text: str, file: str = "-") -> tuple[dict[str, Entry], list[Problem]]:
    """Read the devices of a file, and all that is wrong with it; these that are right."""
    base = os.path.dirname(os.path.abspath(file))
    table, problems = parsed(text)
    places = Places(text)
    entries: dict[str, Entry] = {}
    for key in table:
        if key not in TOP_KEYS:
            words = f"there is no {key!r}{like(key, TOP_KEYS)}"
            problems.append(places.problem(words, None, key))
    _, wrong = _general(table)
    problems += (places.problem(words, None, key) for key, _, words in wrong)
    curve, unfit = _curve(table, base)
    problems += (places.problem(words, None, key, item) for key, item, words in unfit)
    devices = table.get("device", {})
    if not isinstance(devices, dict) or not all(isinstance(d, dict) for d in devices.values()):
        problems.append(places.problem("write [device.NAME] for each device", None, "device"))
        devices = {}
    elif not devices and not problems:
        problems.append(Problem(1, 1, "there is no device in it; write [device.NAME] for each"))
    for name, given in devices.items():
        found = []
        try:
            entry = entry_of(name, given, base, curve)
            make(entry.spec)
        except _WrongError as wrong:
            found = wrong.problems
        except SpecError as error:
            found = [(error.key, error.item, str(error))]
        else:
            entries[name] = entry
        problems += (places.problem(words, name, key, item) for key, item, words in found)
    problems += _taken_twice(entries, places)
    return entries, problems


def _taken_twice(entries: dict[str, Entry], places: Places) -> Iterator[Problem]:
    """Tell of addresses at which two sockets are to be bound; over ipc, one would rob the other."""
    has: dict[str, str] = {}
    for name, entry in entries.items():
        for role, wanted in entry.spec.wired():
            for place in wanted.endpoints:
                if place.verb == "bind" and not place.is_wildcard():
                    if place.address in has:
                        words = f"{place.address} is where {has[place.address]} is bound, too"
                        yield places.problem(words, name, role, place.address)
                    has.setdefault(place.address, f"{role} of {name}")


def general_of(text: str) -> General:
    """Return what a file, in which nothing is wrong, says of the run itself."""
    return _general(parsed(text)[0])[0]


def _curve(
    table: dict[str, Any], base: str
) -> tuple[Mapping[str, Wanted], list[tuple[str, str | None, str]]]:
    """Return what [curve] says of the sockets of all devices, and what is wrong there."""
    top = _Reader(table)
    given = top.take("curve", dict, {})
    for key in given.keys() - CURVE.keys():
        top.wrong(key, f"there is no {key!r} in it{like(key, list(CURVE))}")
    shared = Spec("proxy", "")
    reader = _Reader({CURVE[key]: value for key, value in given.items() if key in CURVE})
    _read_security(reader, shared, base)
    back = {of: key for key, of in CURVE.items()}
    wrong = [(back[key], item, words) for key, item, words in reader.problems]
    return shared.sockets, top.problems + wrong


def _general(table: dict[str, Any]) -> tuple[General, list[tuple[str, str | None, str]]]:
    reader = _Reader(table)
    metrics = reader.take("metrics", str, None)
    insecure = reader.take("insecure", bool, False)
    if metrics is not None:
        try:
            http_place(metrics, insecure=insecure)
        except ValueError as error:
            reader.wrong("metrics", str(error))
    return General(metrics, insecure), reader.problems


def parsed(text: str) -> tuple[dict[str, Any], list[Problem]]:
    """Read TOML."""
    if tomllib is None:
        words = "Python before 3.11 needs tomli to read it: pip install 'zmq-devices[cli]'"
        return {}, [Problem(0, 0, words)]
    try:
        return tomllib.loads(text), []
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        words = str(error).split(" (at ")[0]
        where = (int(at[1]), int(at[2])) if at else (len(text.splitlines()), 1)
        return {}, [Problem(*where, words[0].lower() + words[1:])]
    except RecursionError:
        return {}, [Problem(0, 0, "there are too many brackets within brackets")]


class _WrongError(Exception):
    """All that is wrong with the types and names of a device's keys."""

    def __init__(self, problems: list[tuple[str, str | None, str]]) -> None:
        super().__init__(problems)
        self.problems = problems


def entry_of(
    name: str, given: dict[str, Any], base: str, curve: Mapping[str, Wanted] | None = None
) -> Entry:
    """Make what a table says of a device. Paths may be relative to ``base``.

    A socket of which it says nothing about security has what `curve` has for its role.
    """
    reader = _Reader(given)
    for key in given:
        if key not in KEYS:
            reader.wrong(key, f"there is no {key!r}{like(key, KEYS)}")
    spec = Spec(reader.take("kind", str, ""), name, insecure=reader.take("insecure", bool, False))
    if "kind" not in given or (spec.kind and spec.kind not in KINDS):
        words = f"say what it is: kind = {' or '.join(KINDS)}"
        reader.wrong("kind", f"{words}{like(spec.kind, list(KINDS))}")
    for role, wanted in spec.sockets.items():
        wanted.type = reader.take(f"{role}-type", str, None)
        for text in reader.texts(role):
            try:
                place = endpoint(text)
            except ValueError as error:
                reader.wrong(role, str(error), text)
                continue
            there = [(each.verb, each.address) for each in wanted.endpoints]
            # A reload could not tell which of them has left.
            if (place.verb, place.address) in there:
                reader.wrong(role, f"{place.address} is there twice", text)
            wanted.endpoints.append(place)
    for place, value in reader.take("set", dict, {}).items():
        role, dot, option = place.partition(".")
        if role not in ROLES or not dot or isinstance(value, (dict, list, float)):
            words = f'{place!r} sets no option; write "ROLE.NAME" = a number or text'
            reader.wrong("set", words, place)
        else:
            spec.sockets[role].options[option.lower()] = value
    _read_security(reader, spec, base)
    for role, wanted in spec.wired():
        if curve is not None and not wanted.proofs and wanted.allow is None:
            for of in CURVE.values():
                attribute = of.replace("-", "_")
                setattr(wanted, attribute, getattr(curve[role], attribute))
    spec.prefixes = {r: reader.take(f"{r}-prefix", str, r) for r in ROLES if f"{r}-prefix" in given}
    for key, kind in SETTINGS.items():
        if key in given:
            spec.settings[key.replace("-", "_")] = reader.take(key, kind, None)
    drain = reader.take("drain", (int, float), DRAIN)
    if not 0 <= drain < float("inf"):
        reader.wrong("drain", f"must be a number of seconds, not {drain!r}")
    entry = Entry(spec, float(drain), reader.take("thread", bool, False))
    if reader.problems:
        raise _WrongError(reader.problems)
    return entry


def _read_security(reader: _Reader, spec: Spec, base: str) -> None:
    """Take the paths of keys; those that are relative are so to the file."""
    for key in SECURITY:
        for role, given in reader.take(key, dict, {}).items():
            paths = [given] if isinstance(given, str) else given
            wanted = 2 if key == "curve-client" else 1
            if role not in ROLES:
                reader.wrong(key, f"there is no socket {role!r}{like(role, list(ROLES))}", role)
            elif not _are_texts(paths) or len(paths) != wanted:
                must = "the paths of its own secret certificate and the server's public one"
                must = must if wanted == 2 else "a path"
                reader.wrong(key, f"{role} must be {must}, not {given!r}", role)
            else:
                paths = [os.path.join(base, os.path.expanduser(path)) for path in paths]
                value = tuple(paths) if wanted == 2 else paths[0]
                setattr(spec.sockets[role], key.replace("-", "_"), value)


def _are_texts(given: Any) -> bool:
    return isinstance(given, list) and all(isinstance(each, str) for each in given)


class _Reader:
    """Takes values out of a table, and notes those that are of a wrong type."""

    def __init__(self, given: dict[str, Any]) -> None:
        self._given = given
        self.problems: list[tuple[str, str | None, str]] = []

    def wrong(self, key: str, words: str, item: str | None = None) -> None:
        """Note what is wrong."""
        self.problems.append((key, item, words))

    def take(self, key: str, kind: Any, default: Any) -> Any:
        """Return a value of that type."""
        value = self._given.get(key, default)
        if value is default or (isinstance(value, kind) and not _is_other(value, kind)):
            return value
        names = {str: "text", bool: "true or false", int: "a whole number", dict: "a table"}
        self.wrong(key, f"must be {names.get(kind, 'a number')}, not {value!r}")
        return default

    def texts(self, key: str) -> list[str]:
        """Return a text, or each of a list of texts."""
        value = self._given.get(key, [])
        texts = [value] if isinstance(value, str) else value
        if isinstance(texts, list) and _are_texts(texts):
            return texts
        self.wrong(key, f"must be text such as bind:tcp://127.0.0.1:5559, or a list, not {value!r}")
        return []


def _is_other(value: Any, kind: Any) -> bool:
    """Tell whether a value is no number: Python takes true for one."""
    return isinstance(value, bool) and kind is not bool


def like(word: str, known: list[str]) -> str:
    """Say which word may be meant."""
    near = difflib.get_close_matches(word.replace("_", "-"), known, 1, 0.7)
    return f"; did you mean {near[0]}?" if near and near[0] != word else ""


class Places:
    """Finds the keys of a file again, of which the reader of TOML tells no places."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()

    def problem(
        self, words: str, device: str | None, key: str | None = None, item: str | None = None
    ) -> Problem:
        """Make a problem with the place of a device's key, or of an item of its value."""
        return Problem(*self.find(device, key, item), words, device, key)

    def find(self, device: str | None, key: str | None, item: str | None) -> tuple[int, int]:
        """Return line and column; those of the device, or of the file, where it is not found."""
        first, last, place = 0, len(self._lines), (1, 1)
        if device is not None:
            name = rf"(?:{re.escape(device)}|\"{re.escape(device)}\"|'{re.escape(device)}')"
            header = re.compile(rf"\s*\[\s*device\s*\.\s*{name}\s*[\].]")
            heads = [at for at, line in enumerate(self._lines) if header.match(line)]
            if not heads:
                return self._after(0, last, device) or place
            first, place = heads[0], (heads[0] + 1, self._lines[heads[0]].index("[") + 1)
            after = range(first + 1, last)
            last = next((at for at in after if self._is_other(at, header)), last)
        if key is None:
            return place
        found = self._key(first, last, key) or place
        if item is None or found == place:
            return found
        return self._after(found[0] - 1, last, item) or found

    def _is_other(self, at: int, header: re.Pattern[str]) -> bool:
        return bool(re.match(r"\s*\[\s*[\w\"']", self._lines[at])) and not header.match(
            self._lines[at]
        )

    def _key(self, first: int, last: int, key: str) -> tuple[int, int] | None:
        own = re.compile(rf"\s*\[?.*?(?P<key>[\"']?{re.escape(key)}[\"']?)\s*[.=\]]")
        for at in range(first, last):
            match = own.match(self._lines[at])
            if match and "#" not in self._lines[at][: match.start("key")]:
                return at + 1, match.start("key") + 1
        return None

    def _after(self, first: int, last: int, item: str) -> tuple[int, int] | None:
        for at in range(first, last):
            column = self._lines[at].find(item)
            if column >= 0:
                return at + 1, column + 1
        return None
