"""Secret keys and passwords: bytes that show themselves nowhere."""

from __future__ import annotations

import copyreg
import io
import pickle
from collections import ChainMap
from multiprocessing.context import get_spawning_popen
from typing import Any

__all__ = ["Secret", "dumps_for_child"]


class Secret(bytes):
    """Bytes that are in no ``repr``, and in no pickle but one for a process that zdev starts."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Tell no more than what it is."""
        return "<secret>"

    __str__ = __repr__

    def __copy__(self) -> Secret:
        """Be one's own copy, for which `copy` would pickle."""
        return self

    def __deepcopy__(self, _memo: Any) -> Secret:
        """Be one's own copy."""
        return self

    def __reduce_ex__(self, _protocol: Any) -> tuple[Any, ...]:
        """Go into a process that is being made, whose pickle nobody else sees."""
        if get_spawning_popen() is None:
            raise TypeError(
                "secret keys and passwords are not pickled: the pickle would show them to whoever "
                "has it; make the device where it runs, and let it read its keys there"
            )
        return _reduced(self)


def _reduced(secret: Secret) -> tuple[Any, ...]:
    return Secret, (bytes(secret),)


class _ForChild(pickle.Pickler):
    dispatch_table: Any = ChainMap({Secret: _reduced}, copyreg.dispatch_table)  # noqa: RUF012


def dumps_for_child(thing: object) -> bytes:
    """Pickle something, with its secrets, for a process of zdev's own."""
    pickled = io.BytesIO()
    _ForChild(pickled).dump(thing)
    return pickled.getvalue()
