"""What there is to know of other processes, from /proc."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from ...support import wait_until

__all__ = ["children", "is_alive", "owner", "resident", "resources"]


def resident(process: int) -> float:
    """Return the resident memory in MiB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def resources(process: int) -> tuple[int, int]:
    """Return how many descriptors and threads it has."""
    return len(os.listdir(f"/proc/{process}/fd")), len(os.listdir(f"/proc/{process}/task"))


def children(process: int) -> list[int]:
    """Return the processes that it has started, zombies too."""
    found: list[int] = []
    for task in Path(f"/proc/{process}/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has ended
            found += map(int, (task / "children").read_text().split())
    return found


def is_alive(process: int) -> bool:
    """Tell whether it is there and no zombie."""
    with contextlib.suppress(OSError):
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    return False


def owner(parent: int, address: str) -> int:
    """Wait until a child is bound there, and return it."""

    def found() -> int | None:
        sockets = _bound_at(address)
        for process in children(parent):
            with contextlib.suppress(OSError):
                for each in Path(f"/proc/{process}/fd").iterdir():
                    if os.readlink(each) in sockets:
                        return process
        return None

    return int(wait_until(found))


def _bound_at(address: str) -> set[str]:
    """Return the sockets that listen there, as links in /proc name them."""
    transport, _, place = address.partition("://")
    tables = {"tcp": ("tcp", 9), "ipc": ("unix", 6)}
    table, inode = tables[transport]
    lines = [line.split() for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
    if transport == "tcp":
        port = f":{int(place.rpartition(':')[2]):04X}"
        lines = [fields for fields in lines if fields[1].endswith(port) and fields[3] == "0A"]
    else:
        lines = [fields for fields in lines if fields[-1] == place]
    return {f"socket:[{fields[inode]}]" for fields in lines}
