"""A collector that a worker process makes for itself."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence

from framegate.events import Event, ResponseCompleted


class Printing:
    """Writes the name of each event to stderr."""

    def record_batch(self, events: Sequence[Event]) -> None:
        """Write them."""
        for event in events:
            sys.stderr.write(f"event {type(event).__name__}\n")
        sys.stderr.flush()


class Alone:
    """Says how many events it has, and when it has two callers at once."""

    def __init__(self) -> None:
        self.callers = 0
        self.completed = 0

    def record_batch(self, events: Sequence[Event]) -> None:
        """Take long enough for another caller to come."""
        self.callers += 1
        if self.callers > 1:
            sys.stderr.write("two callers at once\n")
        threading.Event().wait(0.05)
        self.callers -= 1
        self.completed += sum(isinstance(event, ResponseCompleted) for event in events)
        sys.stderr.write(f"completed {self.completed}\n")
        sys.stderr.flush()
