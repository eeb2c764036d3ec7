"""A loop without its short way is a whole relay: slower, but with the same calls.

Short messages go through csrc/turn.c without the account that the rest keeps of a message; what the
rest does must not need it. So the small schedules are run on a C loop that was compiled without it,
call for call beside the Python loop that goes without it, too.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from .schedules import (
    CASES,
    ENGINES,
    PLAIN,
    THROTTLED,
    Bench,
    assert_same_calls,
    check_freed,
    predict,
)
from .schedules import compare as compare_with_model
from .test_injection import check_every_error
from .test_interleaving import TIMELESS, check_every_moment

ROOT = Path(__file__).resolve().parents[2]
COMPILER = shlex.split(sysconfig.get_config_var("CC") or "cc")

pytestmark = [
    pytest.mark.skipif("cffi" not in ENGINES, reason="there is no C loop"),
    pytest.mark.skipif(
        not (shutil.which(COMPILER[0]) or os.environ.get("CI")), reason="there is no C compiler"
    ),
]


def build(directory: Path, *flags: str) -> Path:
    """Compile csrc/ to a library."""
    library = directory / "loop.so"
    sources = sorted(str(path) for path in (ROOT / "csrc").glob("*.c"))
    environment = {name: text for name, text in os.environ.items() if name != "LD_PRELOAD"}
    command = [*COMPILER, "-shared", "-fPIC", *flags, "-o", str(library), *sources]
    subprocess.run(command, env=environment, check=True)
    return library


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("without"), "-DZDEV_NO_SHORT_WAY")


@pytest.fixture
def _without(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the engine cffi be the C loop without its short way."""
    import cffi

    from build_ffi import declarations
    from zdev._engines import compiled

    ffi = cffi.FFI()
    ffi.cdef(declarations())
    monkeypatch.setattr(compiled, "ffi", ffi)
    monkeypatch.setattr(compiled, "lib", ffi.dlopen(str(library)))


def test_it_is_left_out(library: Path, tmp_path: Path) -> None:
    assert b"turn_captured" in build(tmp_path).read_bytes()
    assert b"turn_captured" not in library.read_bytes()


@THROTTLED
@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("_without")
def test_all_is_relayed_without_it(name: str, throttled: bool) -> None:
    case = CASES[name]
    benches = [Bench(case, engine, throttled=throttled) for engine in (*ENGINES[:2], PLAIN)]
    for bench in benches:
        bench.run()
        compare_with_model(bench, *predict(case))
    assert_same_calls(benches)
    check_freed(benches)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("_without")
def test_every_error_without_it(name: str) -> None:
    check_every_error(CASES[name], [ENGINES[0], PLAIN], throttled=False)


@pytest.mark.parametrize("name", TIMELESS)
@pytest.mark.usefixtures("_without")
def test_every_step_at_every_moment_without_it(name: str) -> None:
    assert check_every_moment(Bench(TIMELESS[name], ENGINES[0]), ENGINES[:2])
