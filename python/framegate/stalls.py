"""An event loop that stands still is logged, with the Python stack that holds it up.

The worker's native thread notices (`rust/py/src/stall.rs`, which has the protocol) and tells the
thread of this file, which takes the stack of the loop's thread. Nothing is done about it: code that
computes for ten seconds is busy, not dead. Whoever wants such workers killed sets `worker_timeout`.

Where even this thread does not get its turn, because code in C keeps the GIL, the native thread
sends a signal that `faulthandler` answers from its handler.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import traceback
from typing import Final

from framegate import system
from framegate.logging import logger

__all__ = ["StallWatch"]

FRAMES_MAX: Final = 30
"""The innermost ones; a stack of a framework has a hundred, and the log is read by people."""


class StallWatch:
    """Log stalls of the calling thread's loop, until the native thread ends.

    Args:
        seconds: How long it may stand still without being logged.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._loop_thread = threading.get_ident()
        # Of streams every system signals the end; not of datagrams, and macOS lacks what is both.
        self._ours, self._theirs = socket.socketpair()
        self._signal = _register()
        threading.Thread(target=self._wait, name="framegate stall watch", daemon=True).start()

    @property
    def terms(self) -> tuple[float, int, int]:
        """What `_http.Worker` takes; it has a copy of the socket."""
        return self._seconds, self._theirs.fileno(), self._signal

    def hand_over(self) -> None:
        """Let go of the native thread's end: it has its own."""
        self._theirs.close()

    def _wait(self) -> None:
        with self._ours, self._ours.makefile("rb") as lines, contextlib.suppress(OSError):
            for line in lines:
                kind, _, milliseconds = line.decode().partition(" ")
                seconds = int(milliseconds) / 1000
                if kind == "stalled":
                    logger.error(
                        "the event loop has stood still for %.1f s; it is here:\n%s",
                        seconds,
                        self._stack(),
                    )
                    self._ours.send(b".")
                else:
                    logger.warning("the event loop turns again after %.1f s", seconds)

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._loop_thread)
        if frame is None:
            return "  (its thread has ended)"
        return "".join(traceback.format_stack(frame)[-FRAMES_MAX:]).rstrip("\n")


def _register() -> int:
    """Have faulthandler write all stacks at a signal that nobody else uses; return it, or 0."""
    import faulthandler

    try:
        faulthandler.register(system.SPARE_SIGNAL, all_threads=True, chain=False)
    except (OSError, RuntimeError, ValueError, AttributeError):  # stderr is no file
        return 0
    return system.SPARE_SIGNAL
