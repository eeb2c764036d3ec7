"""The help of each class of devices, put together from what its bases say.

A class is a kind and a launcher put together (see `__init__`), and so is its help: whoever asks for
it need not look for the rest in other classes, and nothing is written twice.
"""

from __future__ import annotations

import inspect
import re
from typing import TypeVar

from .device import Device
from .settings import RelaySettings

__all__ = ["explained"]

T = TypeVar("T", bound=Device)

SECTIONS = ("Parameters", "Other Parameters", "Attributes", "Raises", "Notes")

_own: dict[type, dict[str, str]] = {}
"""What each class said itself, before it was completed."""


def explained(cls: type[T]) -> type[T]:
    """Complete the docstring of a class: its parameters are its kind's, the rest that of all."""
    _own[cls] = divided(cls)
    bases = [_own.get(base) or divided(base) for base in cls.__mro__ if issubclass(base, Device)]
    bases.append({**divided(RelaySettings), "": ""})
    kind = next((base for base in bases if "Parameters" in base), {})
    texts = dict.fromkeys(base.get("", "") for base in (bases[0], kind))
    parts = ["\n\n".join(filter(None, texts))]
    for title in SECTIONS:
        said = [kind] if title == "Parameters" else bases[::-1]
        between = "\n\n" if title == "Notes" else "\n"
        text = between.join(base[title] for base in said if title in base)
        if text:
            parts.append(f"{title}\n{'-' * len(title)}\n{text}")
    cls.__doc__ = "\n\n".join(parts)
    return cls


def divided(cls: type) -> dict[str, str]:
    """Divide a class's own docstring by its headings; what comes before them has none."""
    doc = inspect.cleandoc(vars(cls).get("__doc__") or "")
    text, *rest = re.split(r"^([A-Z][\w ]+)\n-+\n", doc, flags=re.MULTILINE)
    titles, texts = rest[::2], rest[1::2]
    return {"": text.strip(), **{title: text.strip() for title, text in zip(titles, texts)}}


explained(Device)
