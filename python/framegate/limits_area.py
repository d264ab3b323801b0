"""What lies behind the rows of the runtime segment: the limits of all workers together.

Layout in words (u64 in the byte order of the machine), as `rust/http/src/edge/limits.rs` has it:

    seed (8) | row of worker 0 (8) | row of worker 1 (8) | ... | buckets of clients | of keys

A row has the connections, the requests and the waiting requests that its worker holds. Only the
worker writes it; when it is dead the supervisor clears it, and what it held is free again. The seed
is random: whoever does not know it cannot choose where in a table a client or a key is counted.

There is none while nothing is limited.
"""

from __future__ import annotations

import os
from typing import Final

from framegate.config import Config

__all__ = ["ROW_BYTES", "SEED_BYTES", "area_bytes", "new_seed", "row_offset"]

SEED_BYTES: Final = 64
ROW_BYTES: Final = 64
WORD_BYTES: Final = 8
WAYS: Final = 8
"""Buckets of a set: one cache line."""


def area_bytes(config: Config, row_count: int) -> int:
    """Return how many bytes the area takes for so many workers; 0 if there is none."""
    if not config.has_shared_limits:
        return 0
    buckets = max(WAYS, -(-config.rate_limit_entries // WAYS) * WAYS)
    return SEED_BYTES + row_count * ROW_BYTES + 2 * buckets * WORD_BYTES


def row_offset(index: int) -> int:
    """Return where a worker's row begins in the area."""
    return SEED_BYTES + index * ROW_BYTES


def new_seed() -> bytes:
    """Return what the area begins with."""
    return os.urandom(SEED_BYTES)
