"""Fixtures: a configuration file, a runtime folder, and what a demo leaves to be proven."""

from __future__ import annotations

import copy
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from zdev.cli import demo
from zdev.cli.demo_proof import Record
from zdev.cli.demo_requests import read


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Have a runtime folder for the test alone; its path is short, for the sockets in it."""
    with tempfile.TemporaryDirectory(prefix="zdev-") as folder:
        monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
        monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
        yield Path(folder)


@pytest.fixture
def file(tmp_path: Path, runtime: Path) -> Path:
    """Return the path of a configuration file, which is still to be written."""
    return tmp_path / "zdev.toml"


@pytest.fixture(scope="session")
def _record(tmp_path_factory: pytest.TempPathFactory) -> Record:
    """What everybody sent and saw in a demo."""
    text = tmp_path_factory.mktemp("demo") / "text"
    text.write_text("".join(f"This is line {number}.\n" for number in range(60)))
    records: list[Record] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "report", lambda record, out: records.append(record))
        demo.run(read([text], 60), io.StringIO())
    return records[0]


@pytest.fixture
def record(_record: Record) -> Record:
    """The same, to do with it as one likes."""
    return copy.deepcopy(_record)
