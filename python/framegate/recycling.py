"""When a worker has served long enough: by requests, by memory, by time.

Against leaks of the application and of what it uses, which nobody may be able to mend today. The
supervisor asks; it replaces a worker that is due as a reload does, one at a time, with its
successor accepting before it stops.

Memory is what the process has for itself: pages of files and of shared memory (topics that it has
mapped) grow and shrink without a leak, and a successor would have them as well.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from framegate.config import Config

__all__ = ["Allotment", "Usage"]


@dataclass(frozen=True, slots=True)
class Usage:
    """What one worker has used so far.

    Attributes:
        requests: Served.
        seconds: Since it was ready.
        memory_bytes: Resident and its own; 0 if it cannot be told.
    """

    requests: int
    seconds: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Allotment:
    """What one worker may use; None is no limit."""

    requests: int | None
    seconds: float | None
    memory_bytes: int | None

    @classmethod
    def draw(cls, config: Config, chance: random.Random) -> Allotment:
        """Return what a new worker gets: with a jitter of its own."""
        requests = config.limit_max_requests
        if requests is not None and config.limit_max_requests_jitter:
            requests += chance.randint(0, config.limit_max_requests_jitter)
        return cls(requests, config.limit_max_lifetime, config.limit_max_rss)

    def spent(self, usage: Usage) -> str:
        """Return why the worker is due, or nothing."""
        if self.requests is not None and usage.requests >= self.requests:
            return f"it has served {usage.requests} requests of {self.requests}"
        if self.seconds is not None and usage.seconds >= self.seconds:
            return f"it has lived for {usage.seconds:.0f} s of {self.seconds:g}"
        if self.memory_bytes is not None and usage.memory_bytes >= self.memory_bytes:
            has, may = usage.memory_bytes >> 20, self.memory_bytes >> 20
            return f"it has {has} MiB of memory and may have {may}"
        return ""
