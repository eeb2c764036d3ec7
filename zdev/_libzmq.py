"""Finds the libzmq that pyzmq has loaded, and the addresses of its functions.

A socket works only with the very libzmq that made it, so zdev never loads one of its own: the
dynamic linker resolves ``zmq_*`` through the dependencies of pyzmq's own extension module.
"""

from __future__ import annotations

import ctypes
import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import zmq

__all__ = ["FUNCTIONS", "Libzmq", "LibzmqUnreachableError", "find"]

# The fields of zdev_libzmq (csrc/zdev.h) that libzmq fills, in its order.
FUNCTIONS = {
    "get_errno": "zmq_errno",
    "msg_init": "zmq_msg_init",
    "msg_init_size": "zmq_msg_init_size",
    "msg_data": "zmq_msg_data",
    "msg_size": "zmq_msg_size",
    "msg_more": "zmq_msg_more",
    "msg_copy": "zmq_msg_copy",
    "msg_close": "zmq_msg_close",
    "msg_recv": "zmq_msg_recv",
    "msg_send": "zmq_msg_send",
    "getsockopt": "zmq_getsockopt",
}

# zmq_msg_t has had its 64 bytes since then.
OLDEST = (4, 1, 0)


class LibzmqUnreachableError(ImportError):
    """pyzmq's libzmq cannot be called directly; the message says why."""


@dataclass(frozen=True)
class Libzmq:
    """A loaded libzmq: its file, its version and its functions' addresses by table field."""

    path: str
    version: tuple[int, int, int]
    addresses: Mapping[str, int]


class _DlInfo(ctypes.Structure):
    """The Dl_info of dladdr(3)."""

    _fields_ = [
        ("dli_fname", ctypes.c_char_p),
        ("dli_fbase", ctypes.c_void_p),
        ("dli_sname", ctypes.c_char_p),
        ("dli_saddr", ctypes.c_void_p),
    ]


def _file_of(address: int) -> str:
    """Return the file that the code at an address was loaded from, as far as it can be told."""
    try:
        dladdr = ctypes.CDLL(None).dladdr
    except (AttributeError, TypeError, OSError):
        return "unknown"
    info = _DlInfo()
    dladdr.argtypes = [ctypes.c_void_p, ctypes.POINTER(_DlInfo)]
    if not dladdr(address, ctypes.byref(info)) or not info.dli_fname:
        return "unknown"
    return str(info.dli_fname.decode(errors="replace"))


def _extension() -> str:
    """Return the file of pyzmq's extension module, the one that depends on libzmq."""
    import zmq.backend

    name = zmq.backend.Socket.__module__
    if name.startswith("zmq.backend.cffi"):
        name = "zmq.backend.cffi._cffi"
    module = sys.modules.get(name) or importlib.import_module(name)
    path = getattr(module, "__file__", None)
    if not path:
        raise LibzmqUnreachableError(f"pyzmq's extension module {name} names no file")
    return str(path)


def find() -> Libzmq:
    """Find pyzmq's libzmq.

    Raises
    ------
    LibzmqUnreachableError
        If its symbols cannot be reached, as with pyzmq's Windows wheels.
    """
    version = zmq.zmq_version_info()
    if version < OLDEST:
        raise LibzmqUnreachableError(
            f"libzmq {zmq.zmq_version()} is too old: the loop needs 4.1; upgrade pyzmq"
        )
    path = _extension()
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        raise LibzmqUnreachableError(
            f"pyzmq's extension {path} cannot be opened: {error}"
        ) from error
    addresses = {}
    for field, symbol in FUNCTIONS.items():
        try:
            function = getattr(library, symbol)
        except AttributeError:
            raise LibzmqUnreachableError(
                f"pyzmq's extension {path} does not lead to {symbol}: its libzmq hides it"
            ) from None
        address = ctypes.cast(function, ctypes.c_void_p).value
        assert address is not None  # noqa: S101 - a resolved symbol is not NULL
        addresses[field] = address
    return Libzmq(_file_of(addresses["msg_recv"]), version, addresses)
