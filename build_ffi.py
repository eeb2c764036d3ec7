"""Builds the C loop as a CFFI extension; setup.py runs it.

The declarations are read from csrc/zdev.h, so that they cannot drift from the C.
ZDEV_CFLAGS adds compiler flags: CI runs the tests under sanitizers with it.
"""

import os
import pathlib
import shlex

import cffi

ROOT = pathlib.Path(__file__).resolve().parent
BEGIN, END = "/* cdef: begin */", "/* cdef: end */"


def declarations() -> str:
    """Return the part of csrc/zdev.h that CFFI is to know."""
    header = (ROOT / "csrc" / "zdev.h").read_text(encoding="utf-8")
    return header.partition(BEGIN)[2].partition(END)[0]


ffi = cffi.FFI()
ffi.cdef(declarations())
ffi.set_source(
    "zdev._engines._c",
    '#include "zdev.h"',
    sources=[f"csrc/{name}.c" for name in ("frames", "direction", "turn", "loop", "life")],
    depends=["csrc/zdev.h", "csrc/internal.h"],
    include_dirs=["csrc"],
    extra_compile_args=shlex.split(os.environ.get("ZDEV_CFLAGS", "")),
    # Without a compiler the installation goes on, and zdev uses ctypes or cffi's ABI mode.
    optional=True,
)

if __name__ == "__main__":
    ffi.compile(verbose=True)
