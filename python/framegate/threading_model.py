"""Whether workers are processes or threads.

With the GIL a worker is a process. Without it workers are threads of one process: they share the
application, and memory is needed once. Everything else is the same, down to the words: `--workers
N`, one event loop each.

Experimental, so only for who asks for it, by PYTHON_GIL=0: without that the first module of the
application that says that it needs the lock would switch it on, and the workers would take turns.
"""

from __future__ import annotations

import sys

__all__ = ["name_of", "runs_without_lock", "stays_without_lock"]


def runs_without_lock() -> bool:
    """Whether threads of this process run Python at the same time."""
    is_enabled = getattr(sys, "_is_gil_enabled", None)
    return is_enabled is not None and not is_enabled()


def stays_without_lock() -> bool:
    """Whether that stays so, whatever the application imports."""
    return runs_without_lock() and getattr(sys.flags, "gil", None) == 0


def name_of(index: int, threads: int) -> str:
    """Return what the log calls the workers of one process."""
    if threads == 1:
        return f"worker {index + 1}"
    return f"workers {index + 1} to {index + threads}"
