"""What of a device cannot go into a process that is not forked."""

from __future__ import annotations

import pickle
from typing import Any

from zdev._secrets import dumps_for_child

__all__ = ["PROBLEMS", "explain"]

PROBLEMS = (pickle.PicklingError, TypeError, AttributeError)
"""What Python raises for what cannot be pickled."""


def explain(device: Any, error: BaseException) -> None:
    """Raise a TypeError that names what does not pickle, if that was what an error came of."""
    parts = {"class": type(device), **device.__getstate__()}
    parts.pop("_held", None)  # ports, which only `multiprocessing` can hand over
    for name, part in parts.items():
        try:
            dumps_for_child(part)
        except Exception:
            what = f"the {name}" if name == "class" else f"{name}, a {type(part).__name__},"
            hint = "leave it out in __getstate__"
            if callable(part):
                hint = "use one of a module, neither a lambda nor one that is made in a function"
            raise TypeError(
                f"{what} of {device.name} cannot be pickled, as it must be for a process that is "
                f"not forked; {hint}"
            ) from error
