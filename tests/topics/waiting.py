"""Waiting for what a server does, and looking at it from outside."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from framegate.shm import Inspector


def loaned(topic: str) -> int:
    """Slots that are being written."""
    with Inspector(topic) as inspector:
        return sum(slot.state == "loaned" for slot in inspector.slots())


def wait_until(condition: Callable[[], bool]) -> None:
    """The watchdog of the test ends what never comes."""
    while not condition():
        os.sched_yield()


def threads_named(name: str, pid: int | str = "self") -> list[Path]:
    """The threads of a process that have a name, of which the kernel keeps 15 bytes."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # it ended just now
            if (task / "comm").read_text() == f"{name[:15]}\n":
                found.append(task)
    return found


def asleep(pid: int) -> bool:
    """Whether all threads of a process wait for something."""
    stats = Path(f"/proc/{pid}/task").glob("*/stat")
    return all(stat.read_text().rpartition(") ")[2].startswith("S") for stat in stats)


def traced(path: Path) -> list[str]:
    """Put this in front of a command: its system calls, of all threads, go to `path`."""
    names = "futex,recvfrom,recvmmsg,sendto,write,epoll_wait"
    # Not between the process and who started it.
    return ["strace", "-D", "-f", "-o", str(path), "-e", f"trace={names}", "-e", "signal=none"]
