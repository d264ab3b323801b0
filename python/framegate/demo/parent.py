"""Ends a demo process with the server that started it."""

from __future__ import annotations

import os
import signal
import sys
import threading

__all__ = ["Stop"]


class Stop(threading.Event):
    """Set by SIGTERM, by SIGINT, or when standard input ends: the parent is gone."""

    def __init__(self) -> None:
        super().__init__()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.set())
        threading.Thread(target=self._watch, name="framegate-demo-parent", daemon=True).start()

    def _watch(self) -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        self.set()
