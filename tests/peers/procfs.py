"""What Linux says of a process, usually a server under test."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def status(pid: int, name: str) -> int:
    """Return a number of `/proc/PID/status`; sizes are in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    raise KeyError(name)


def open_files(pid: int) -> int:
    """Return how many descriptors it has."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def children(pid: int) -> list[int]:
    """Return the processes that it started and has not waited for; none if it is gone."""
    with contextlib.suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []
