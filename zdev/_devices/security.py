"""Keys, passwords and lists of who is let in: as they are given, and as the options they become."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from typing import Any, Callable, Union

import zmq

from zdev._certificates import (
    Key,
    KeyPair,
    Keys,
    PathLike,
    decoded,
    has_curve,
    load_keys,
    load_public_key,
)
from zdev._secrets import Secret
from zdev._zap import Allowed

__all__ = ["CHECKS", "SECRETS", "Options", "Passwords", "Who", "mechanism", "options_of", "renewed"]

Options = list[tuple[int, Any]]

Passwords = Mapping[str, str]
"""By user names."""

Who = Union[PathLike, Iterable[Union[Key, PathLike]], Passwords]
"""A directory of public certificates, public keys or certificates, or passwords by user names."""

SECRETS = {
    int(getattr(zmq.SocketOption, name, -1))  # some are drafts, which not every pyzmq knows
    for name in ("CURVE_SECRETKEY", "PLAIN_PASSWORD", "SOCKS_PASSWORD", "WSS_KEY_PEM")
} - {-1}
"""Options whose value nobody else may see."""
CURVE = {zmq.CURVE_SERVER, zmq.CURVE_PUBLICKEY, zmq.CURVE_SECRETKEY, zmq.CURVE_SERVERKEY}
PLAIN = {zmq.PLAIN_SERVER, zmq.PLAIN_USERNAME, zmq.PLAIN_PASSWORD}
SERVERS = {zmq.CURVE_SERVER, zmq.PLAIN_SERVER}

MAX_PLAIN = 255
"""Bytes of a name or password of PLAIN, whose length has one byte."""


# As they are given


def _curve_server(method: str, keys: Keys) -> tuple[KeyPair]:
    has_curve(method)
    return (load_keys(keys, f"{method}: keys"),)


def _curve_client(method: str, keys: Keys, server_key: Key | PathLike) -> tuple[KeyPair, bytes]:
    has_curve(method)
    return load_keys(keys, f"{method}: keys"), load_public_key(server_key, f"{method}: server_key")


def _plain_server(method: str, passwords: Passwords) -> tuple[Allowed]:
    if not isinstance(passwords, Mapping):
        raise TypeError(
            f"{method}: passwords must be a mapping of user names to passwords, "
            f"not {type(passwords).__name__}"
        )
    return (_of_passwords(method, passwords),)


def _plain_client(method: str, username: str, password: str) -> tuple[bytes, Secret]:
    name = bytes(_plain(method, "username", username))
    return name, _plain(method, "password", password)


def _allow(method: str, who: Who) -> tuple[Allowed]:
    _has_domains(method)
    if isinstance(who, Mapping):
        return (_of_passwords(method, who),)
    has_curve(method)
    if isinstance(who, (str, os.PathLike)):
        known: Iterable[Any] = _certificates(method, os.fspath(who))
    elif isinstance(who, bytes) or not isinstance(who, Iterable):
        raise TypeError(
            f"{method}: who must be a directory of certificates, a list of public keys, or a "
            f"mapping of user names to passwords, not {type(who).__name__}"
        )
    else:
        known = who
    keys = (decoded(load_public_key(key, f"{method}: a key")) for key in known)
    return (Allowed("CURVE", frozenset(bytes(key) for key in keys if key is not None)),)


def _of_passwords(method: str, passwords: Passwords) -> Allowed:
    _has_domains(method)
    known = {
        bytes(_plain(method, "a username", name)): _plain(method, "a password", password)
        for name, password in passwords.items()
    }
    return Allowed("PLAIN", passwords=known)


def _plain(method: str, what: str, given: Any) -> Secret:
    """Return a name or password as it is sent. It is not shown: they may have changed places."""
    if not isinstance(given, (str, bytes)):
        raise TypeError(f"{method}: {what} must be a str, not {type(given).__name__}")
    sent = Secret(given.encode(errors="surrogateescape") if isinstance(given, str) else given)
    if not 0 < len(sent) <= MAX_PLAIN:
        raise ValueError(f"{method}: {what} must have 1 to {MAX_PLAIN} bytes, not {len(sent)}")
    return sent


def _certificates(method: str, directory: str) -> list[str]:
    """Return the paths of the public certificates in a directory."""
    try:
        names = os.listdir(directory)
    except NotADirectoryError as error:
        raise NotADirectoryError(
            errno.ENOTDIR,
            f"{method} takes a directory of public certificates; give one of them in a list",
            directory,
        ) from error
    return [os.path.join(directory, name) for name in sorted(names) if name.endswith(".key")]


def _has_domains(method: str) -> None:
    if zmq.zmq_version_info() < (4, 3):
        raise NotImplementedError(
            f"{method}: libzmq {zmq.zmq_version()} may let in whom nobody is asked about; it takes "
            "4.3 (ZMQ_ZAP_ENFORCE_DOMAIN), which the wheels of pyzmq have"
        )


CHECKS: dict[str, Callable[..., tuple[Any, ...]]] = {
    "curve_server": _curve_server,
    "curve_client": _curve_client,
    "plain_server": _plain_server,
    "plain_client": _plain_client,
    "allow": _allow,
}
"""What takes the arguments of a verb of `SocketPlan`, and returns them as the verb wants them.

Files are read there, where they are named, and what is wrong is raised.
"""


# As libzmq takes them


def options_of(verb: str, *args: Any) -> tuple[Options, Allowed | None]:
    """Return what a verb sets, in libzmq's order: the last option says who is the server.

    And who is let in, if it says so.
    """
    options: Options = []
    allowed = None
    if verb in ("curve_server", "curve_client"):
        keys, *server_key = args
        options = [(zmq.CURVE_PUBLICKEY, keys.public), (zmq.CURVE_SECRETKEY, keys.secret)]
        options += [(zmq.CURVE_SERVERKEY, key) for key in server_key] or [(zmq.CURVE_SERVER, 1)]
    elif verb == "plain_client":
        options = [(zmq.PLAIN_PASSWORD, args[1]), (zmq.PLAIN_USERNAME, args[0])]
    elif verb == "plain_server":
        options = [(zmq.PLAIN_SERVER, 1)]
    if verb in ("plain_server", "allow"):
        (allowed,) = args
    return options, allowed


def renewed(before: Options, options: Options) -> Options:
    """Return the options of a socket with these of security in the place of others."""
    if not options:
        return before
    return [pair for pair in before if pair[0] not in CURVE | PLAIN] + options


def mechanism(options: Options) -> str:
    """Return which mechanism a socket with these options has: "CURVE", "PLAIN" or "NULL"."""
    for opt, value in reversed(options):
        if opt in CURVE | PLAIN:
            is_none = not value and (opt in SERVERS or isinstance(value, bytes))
            return "NULL" if is_none else "CURVE" if opt in CURVE else "PLAIN"
    return "NULL"
