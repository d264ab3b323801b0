"""Names and functions that the tests of the event loop share."""

from __future__ import annotations

import gc
import os
import subprocess
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from framegate.threading_model import runs_without_lock

T = TypeVar("T")


class Run(Protocol):
    """The fixture `run`."""

    def __call__(self, main: Coroutine[Any, Any, T], *, debug: bool = False) -> T: ...


class Script(Protocol):
    """The fixture `script`."""

    def __call__(self, source: str, *arguments: str) -> subprocess.Popen[str]: ...


def open_descriptors() -> set[tuple[str, str]]:
    """What this process has open: (number, target)."""
    gc.collect()
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add((name, os.readlink(f"/proc/self/fd/{name}")))
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    return found


def drop_elsewhere(objects: list[Any]) -> None:
    """Drop what another thread's loop made, whose thread may be asleep.

    Without the lock an object dies where it was made, when that thread runs Python next (PEP 703,
    biased reference counting): then the loop gets something to do.
    """
    loop = objects.pop()
    objects.clear()
    if runs_without_lock():
        loop.call_soon_threadsafe(lambda: None)


def in_thread(function: Callable[[], T]) -> T:
    """The result of a function, run in a new thread that has ended when this returns."""
    results: list[T] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
