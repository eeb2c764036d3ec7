"""What commands write for programs: one JSON object a line."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["json_line"]

VERSION = 1
"""Of all schemas; it grows when a field goes or changes its meaning, not when one is added."""


def json_line(kind: str, /, **fields: Any) -> str:
    """Return a line for ``--json``.

    Parameters
    ----------
    kind : str
        What it tells of; with the version, it is the field ``schema``, such as ``"tap/1"``.
    **fields : Any
        The rest, in this order.

    Returns
    -------
    str
        In ASCII: what a peer has sent may hold what a terminal obeys, such as U+009B, and standard
        output may have an encoding in which the rest could not be shown but by breaking the JSON.
    """
    return json.dumps({"schema": f"{kind}/{VERSION}", **fields})
