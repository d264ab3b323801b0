"""Waiting for what a server does with slots."""

from __future__ import annotations

import os
from collections.abc import Callable

from framegate.shm import Inspector


def loaned(topic: str) -> int:
    """Slots that are being written."""
    with Inspector(topic) as inspector:
        return sum(slot.state == "loaned" for slot in inspector.slots())


def wait_until(condition: Callable[[], bool]) -> None:
    """The watchdog of the test ends what never comes."""
    while not condition():
        os.sched_yield()
