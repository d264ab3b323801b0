"""Medians and their spread."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some rounds, and the lowest and the highest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread | None":
        """The spread of `values`; None if there are none."""
        if not values:
            return None
        return cls(statistics.median(values), min(values), max(values))


def ratios(above: Sequence[float | None], below: Sequence[float | None]) -> list[float]:
    """Quotients round by round, where both were measured.

    The speed of a shared host drifts between rounds, so two servers are compared inside a round and
    the median is taken of the quotients, not the quotient of the medians.
    """
    pairs = zip(above, below, strict=True)
    return [a / b for a, b in pairs if a is not None and b is not None and b > 0]
