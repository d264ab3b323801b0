"""What it takes to make a topic again, elsewhere or later: as plain data, which JSON can say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framegate import records, shm

__all__ = ["of", "options", "plain", "values"]


def of(report: shm.TopicReport) -> dict[str, Any]:
    """What it takes to make such a topic again."""
    return {
        "slots": report.slots,
        "slot_bytes": report.slot_bytes,
        "keep": report.keep,
        "checksum": report.checksum,
        "metadata_bytes": report.metadata_bytes,
        "metadata": plain(report.metadata),
        "arrays": [
            [name, spec.dtype, list(spec.shape), spec.units, plain(spec.metadata)]
            for name, spec in report.schema.items()
        ],
    }


def options(
    likeness: Mapping[str, Any], *, slots: int | None = None, slot_bytes: int | None = None
) -> shm.TopicOptions:
    """The options of `Topic.create` for such a topic.

    Args:
        likeness: What `of` returned; `records`, if it is there, the rows of a topic of records.
        slots: Another number of slots.
        slot_bytes: Other payload bytes of a slot.

    Raises:
        ValueError: It makes no sense; also KeyError, TypeError, AttributeError.
    """
    found: shm.TopicOptions = {
        "slots": slots or likeness["slots"],
        "slot_bytes": slot_bytes or likeness["slot_bytes"],
        "keep": likeness["keep"] if slots is None else 1,
        "checksum": likeness["checksum"],
        "metadata": values(likeness["metadata"]),
        "metadata_bytes": likeness["metadata_bytes"],
    }
    if rows := likeness.get("records"):
        lengths = [
            (name, dtype, tuple(None if length < 0 else length for length in shape), tuple(place))
            for name, dtype, shape, place in rows
        ]
        found["dtype"] = records.dtype_of(lengths)
        found["shape"] = lengths[0][2][: lengths[0][3][2]]
        return found
    arrays = {
        array: shm.ArraySpec(dtype, tuple(shape), units=units, metadata=values(metadata))
        for array, dtype, shape, units, metadata in likeness["arrays"]
    }
    found["arrays"] = arrays or None
    return found


def plain(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Values as JSON can say them and give them back."""
    return {
        key: {"hex": value.hex()} if isinstance(value, bytes) else value
        for key, value in metadata.items()
    }


def values(plain: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse."""
    return {
        key: bytes.fromhex(value["hex"]) if isinstance(value, dict) else value
        for key, value in plain.items()
    }
