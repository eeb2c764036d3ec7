"""A pytest plugin: of the tests that run once on each engine, keep those on the C loop."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what runs on another engine; tests that name no engine stay."""

    def engine(item: pytest.Item) -> str:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        return str(params.get("engine") or params.get("engine_name") or "cffi")

    others = [item for item in items if engine(item) != "cffi"]
    items[:] = [item for item in items if engine(item) == "cffi"]
    config.hook.pytest_deselected(items=others)
