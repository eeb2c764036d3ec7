"""The keys of CURVE, and their files, which are those of pyzmq (`zmq.auth`) and of czmq.

A file has lines such as ``public-key = "..."``. ``NAME.key`` has the public key, to be given to
others; ``NAME.key_secret`` has the secret one, too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
from typing import Any, NamedTuple, Union

import zmq
from zmq.utils import z85

from zdev._secrets import Secret

__all__ = [
    "Key",
    "KeyPair",
    "Keys",
    "PathLike",
    "decoded",
    "has_curve",
    "lines",
    "load_keys",
    "load_public_key",
    "write_keys",
]

PathLike = Union[str, "os.PathLike[str]"]
Key = Union[str, bytes]
"""A key as text: 40 characters of Z85, as `zmq.curve_keypair` makes them."""

SIZE = 40
OTHERS = stat.S_IRGRP | stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH


class KeyPair(NamedTuple):
    """A public key and its secret one."""

    public: bytes
    secret: Secret


Keys = Union[PathLike, tuple[Key, Key]]
"""The path of a secret certificate, or a public key and its secret one."""


def has_curve(what: str) -> None:
    """Raise if this libzmq has no CURVE.

    Raises
    ------
    NotImplementedError
        That ``what`` cannot be had.
    """
    if not zmq.has("curve"):
        raise NotImplementedError(
            f"{what}: libzmq {zmq.zmq_version()} was built without CURVE; the wheels of pyzmq have "
            "it, and a libzmq of your own if it is built with libsodium"
        )


def decoded(key: Any) -> bytes | None:
    """Return the 32 bytes that a key stands for; None if that is no key."""
    if isinstance(key, str) and key.isascii():
        key = Secret(key.encode())
    if not isinstance(key, bytes) or len(key) != SIZE:
        return None
    with contextlib.suppress(KeyError, struct.error):
        return Secret(z85.decode(bytes(key)))
    return None


# Read


def load_keys(keys: Keys, name: str = "keys") -> KeyPair:
    """Return the pair of keys of a certificate, or one that is given as it is.

    Parameters
    ----------
    keys : str, path, or tuple of a public key and its secret key
        The path is that of a secret certificate, ``NAME.key_secret``, which its owner alone may
        read and change.
    name : str
        What errors call it.

    Raises
    ------
    OSError
        If the file cannot be read; PermissionError also if others could.
    TypeError, ValueError
        For what is no pair of keys.
    """
    if isinstance(keys, (str, os.PathLike)):
        return _read_pair(os.fspath(keys))
    if not isinstance(keys, tuple) or len(keys) != 2:
        raise TypeError(
            f"{name} must be the path of a secret certificate, or a tuple of a public key and its "
            "secret key, each of 40 characters"
        )
    for which, key in zip(("public", "secret"), keys):
        if decoded(key) is None:
            raise ValueError(f"{name}: the {which} key is no key: it must be 40 characters of Z85")
    public, secret = (Secret(key.encode() if isinstance(key, str) else key) for key in keys)
    return _matching(public, secret, name)


def _matching(public: bytes, secret: Secret, where: str) -> KeyPair:
    has_curve(where)
    if zmq.curve_public(secret) != bytes(public):
        raise ValueError(
            f"{where}: the public key is not that of the secret key; the public one comes first"
        )
    return KeyPair(bytes(public), secret)


def _read_pair(path: str) -> KeyPair:
    if path.endswith(".key") and os.path.exists(f"{path}_secret"):
        raise ValueError(f"{path} has the public key; the secret one is in {path}_secret")
    fields = _fields(path, is_secret=True)
    secret = fields.get("secret-key")
    if secret is None:
        raise ValueError(
            f"{path} has no secret-key; it must be a secret certificate, such as NAME.key_secret"
        )
    if decoded(secret) is None:
        raise ValueError(f"{path}: the secret-key is no key: it must be 40 characters of Z85")
    return _matching(_public(fields, path), secret, path)


def _public(fields: dict[str, Secret], path: str) -> bytes:
    public = fields.get("public-key")
    if public is None:
        raise ValueError(f"{path} has no public-key; it must be a certificate, such as NAME.key")
    if decoded(public) is None:
        raise ValueError(f"{path}: the public-key is no key: it must be 40 characters of Z85")
    return bytes(public)


def load_public_key(key: Key | PathLike, name: str = "key") -> bytes:
    """Return a public key: that of a certificate, or one that is given as it is.

    Text is a path if there is a file of that name.

    Raises
    ------
    OSError
        If the file cannot be read.
    TypeError, ValueError
        For what is neither a key nor a path.
    """
    if not isinstance(key, (str, bytes, os.PathLike)):
        raise TypeError(
            f"{name} must be a public key of 40 characters, or the path of a certificate, "
            f"not {type(key).__name__}"
        )
    is_path = not isinstance(key, bytes) and os.path.exists(key)
    if not is_path and not isinstance(key, os.PathLike):
        if decoded(key) is not None:
            return key.encode() if isinstance(key, str) else key
        if isinstance(key, bytes) or os.sep not in key:
            # Not shown: somebody may have taken the secret key for it.
            raise ValueError(f"{name}: there is no such file, and a key has 40 characters of Z85")
    path = os.fspath(key)
    return _public(_fields(str(path), is_secret=False), str(path))


def _fields(path: str, *, is_secret: bool) -> dict[str, Secret]:
    """Read a certificate; one with a secret must be its owner's alone."""
    found = {}
    for line in lines(path, is_secret=is_secret):
        name, equals, value = map(bytes.strip, line.partition(b"="))
        if equals and name in (b"public-key", b"secret-key"):
            found[name.decode()] = Secret(value.strip(b"'\""))
    return found


def lines(path: str, *, is_secret: bool) -> list[bytes]:
    """Return the lines of a file.

    Raises
    ------
    OSError
        If it cannot be read; PermissionError also if it is secret, and others than its owner could.
    """
    with open(path, "rb") as file:
        mode = os.fstat(file.fileno()).st_mode  # of the file that is open, whatever the path is now
        others = OTHERS & ~stat.S_IRGRP if _is_credential(path) else OTHERS
        if is_secret and os.name == "posix" and mode & others:
            raise PermissionError(
                errno.EACCES,
                f"not its owner alone may read and change it, its mode is {mode & 0o777:04o}; "
                "chmod 600 it, and make new keys if somebody has read it",
                path,
            )
        return file.readlines()


def _is_credential(path: str) -> bool:
    """Tell whether systemd keeps the file for this service.

    It lets the service's user in by an access control list, and what this allows at most shows as
    the group's rights: the mode is 0440, though no group may read the file.
    """
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    # The file's own folder: a link there may lead to any file.
    return bool(folder) and os.path.dirname(os.path.realpath(path)) == os.path.realpath(str(folder))


# Write

PUBLIC = b"""\
# A public certificate of ZeroMQ's CURVE: for everybody who is to know its owner.

curve
    public-key = "%s"
"""

SECRET = b"""\
# A SECRET certificate of ZeroMQ's CURVE: show it to nobody, and leave its mode as it is.

curve
    public-key = "%s"
    secret-key = "%s"
"""


def write_keys(directory: PathLike, name: str, *, replace: bool = False) -> tuple[str, str, bytes]:
    """Make a pair of keys, and write ``NAME.key`` and ``NAME.key_secret``.

    Nobody but the owner can read the secret one, at no moment.

    Parameters
    ----------
    directory : path
        Where to; it must exist.
    name : str
        The name of both files without their ends.
    replace : bool
        Whether files of these names may be replaced; each then is, in one step.

    Returns
    -------
    tuple
        The two paths, and the public key.

    Raises
    ------
    OSError
        If they cannot be written; FileExistsError if one of them is there.
    ValueError
        If the name is none.
    """
    has_curve("keygen")
    if not name or name in (os.curdir, os.pardir) or {"/", os.sep, "\0"} & set(name):
        raise ValueError(f"{name!r} is no name for a file")
    public_path, secret_path = (os.path.join(directory, name + end) for end in ENDS)
    public, secret = map(Secret, zmq.curve_keypair())
    files = [
        (secret_path, Secret(SECRET % (bytes(public), bytes(secret))), 0o600),
        (public_path, PUBLIC % bytes(public), 0o644),
    ]
    written: dict[str, str] = {}
    try:
        for path, text, mode in files:
            new = f"{path}.{os.getpid()}" if replace else path  # what is there stays until then
            _write(new, text, mode)
            written[new] = path
        if replace:
            for new, path in written.items():
                os.replace(new, path)
    except BaseException:
        for new in written:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(new)
        raise
    return public_path, secret_path, bytes(public)


ENDS = ".key", ".key_secret"


def _write(path: str, text: bytes, mode: int) -> None:
    """Write a new file, which until it is whole is its owner's alone."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            if os.name == "posix":
                os.fchmod(file.fileno(), mode)  # which the umask may have narrowed
    except BaseException:
        os.unlink(path)
        raise
