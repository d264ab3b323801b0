"""A collector that a worker process makes for itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from framegate.events import Event


class Printing:
    """Writes the name of each event to stderr."""

    def record_batch(self, events: Sequence[Event]) -> None:
        """Write them."""
        for event in events:
            sys.stderr.write(f"event {type(event).__name__}\n")
        sys.stderr.flush()
