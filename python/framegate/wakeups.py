"""Signals as bytes: what a parent process waits for beside its workers.

A handler runs between any two steps of the main thread, so it only counts; the byte that the
interpreter writes for each signal (`signal.set_wakeup_fd`) is what ends the waiting.
"""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

__all__ = ["drain", "signals_as_bytes"]

Handler = Callable[[int, FrameType | None], None]


@contextlib.contextmanager
def signals_as_bytes(
    selector: selectors.BaseSelector, handlers: Mapping[signal.Signals, Handler]
) -> Iterator[socket.socket]:
    """Have these signals, and the death of a child, make a socket readable that `selector` has.

    Its key has no data; call `drain` with its `fileobj`. The former handlers come back at the end.

    Yields:
        The other end: a byte from any thread wakes the selector as well.
    """
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        selector.register(reader, selectors.EVENT_READ)
        calls = {**handlers, signal.SIGCHLD: lambda number, frame: None}  # the byte is what matters
        before = {number: signal.signal(number, call) for number, call in calls.items()}
        wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield writer
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)


def drain(reader: Any) -> None:
    """Take the bytes that have come."""
    with contextlib.suppress(BlockingIOError):
        while reader.recv(4096):
            pass
