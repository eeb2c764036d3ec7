"""Builds load.c when it is first wanted, and runs its jobs."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pathlib
import sys
import sysconfig
import tempfile
from typing import Any

from zdev import _libzmq

__all__ = ["Load"]

SOURCE = pathlib.Path(__file__).with_name("load.c")
BUILT = pathlib.Path(__file__).with_name("_build")


def _compile(source: str, target: pathlib.Path) -> None:
    missing = [name for name in ("cffi", "setuptools") if not importlib.util.find_spec(name)]
    if missing:
        raise SystemExit(f"{' and '.join(missing)} missing: pip install -e '.[bench]'")
    import cffi

    ffi = cffi.FFI()
    ffi.cdef(source.partition("/* cdef: begin */")[2].partition("/* cdef: end */")[0])
    ffi.set_source("_load", source, extra_compile_args=["-O2", "-pthread"])
    BUILT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILT) as directory:
        try:
            built = ffi.compile(tmpdir=directory)
        except cffi.VerificationError as error:
            raise SystemExit(
                f"{SOURCE.name} cannot be compiled ({error}); the benchmarks need a C compiler"
            ) from error
        os.replace(built, target)  # whole, or not at all


def _module() -> Any:
    """Return the compiled module, built unless it is there already."""
    source = SOURCE.read_text(encoding="utf-8")
    digest = hashlib.sha256(source.encode()).hexdigest()[:12]
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    target = BUILT / f"_load-{digest}{suffix}"
    if not target.exists():
        print("building", target.name, file=sys.stderr)
        _compile(source, target)
    spec = importlib.util.spec_from_file_location("_load", target)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Load:
    """Runs jobs on threads in C, over the libzmq that pyzmq has loaded."""

    def __init__(self) -> None:
        module = _module()
        self.ffi, self.lib = module.ffi, module.lib
        addresses = _libzmq.find().addresses
        self._table = self.ffi.new("load_libzmq *")
        for field, member in self.ffi.typeof("load_libzmq").fields:
            setattr(self._table, field, self.ffi.cast(member.type, addresses[field]))

    def _handle(self, socket: Any) -> Any:
        return self.ffi.cast("void *", int(socket.underlying))

    def run(self, jobs: list[dict[str, Any]]) -> tuple[int, list[list[int]]]:
        """Run the jobs to their end.

        Parameters
        ----------
        jobs
            The fields of ``load_job``, with ``kind`` as in ``"PRODUCE"``, ``sockets`` a list of
            ``zmq.Socket`` and ``latency`` a bool.

        Returns
        -------
        int
            Nanoseconds from the start to the last message.
        list of list of int
            Nanoseconds of each message, for each job that notes them.

        Raises
        ------
        OSError
            If a job could not go on, such as ETIMEDOUT when messages are lost.
        """
        table = self.ffi.new("load_job[]", len(jobs))
        noted, alive = [], []
        for job, given in zip(table, jobs):
            fields = {"frames": 1, "window": 1, **given}
            handles = self.ffi.new("void *[]", [self._handle(s) for s in fields.pop("sockets")])
            job.sockets, job.count = handles, len(handles)
            job.kind = getattr(self.lib, f"LOAD_{fields.pop('kind')}")
            alive.append(handles)
            if fields.pop("latency", False):
                noted.append(self.ffi.new("int64_t[]", fields["messages"]))
                job.latency = noted[-1]
            if "address" in fields:
                alive.append(self.ffi.new("char[]", fields.pop("address")))
                job.address = alive[-1]
            for name, value in fields.items():
                setattr(job, name, value)
        elapsed = self.ffi.new("int64_t *")
        error = self.lib.load_run(self._table, table, len(jobs), elapsed)
        if error:
            raise OSError(
                error, f"{os.strerror(error)}: {[(j['kind'], t.done) for j, t in zip(jobs, table)]}"
            )
        return elapsed[0], [list(latency) for latency in noted]

    def floor(self, source: Any, destination: Any) -> int:
        """Relay what is there with the bare minimum of calls."""
        return int(
            self.lib.load_floor(self._table, self._handle(source), self._handle(destination))
        )

    def thread_clock(self) -> int:
        """Return the id of the calling thread's CPU clock."""
        return int(self.lib.load_thread_clock())
