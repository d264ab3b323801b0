"""What the frame routes may create, and of which sizes: `pattern -> {slots, dtype, shape, ...}`.

Sizes of shared memory come from here and never from a request. The first pattern that fits a name
counts, in the order in which they stand; patterns are those of `topic_patterns.py`.

Read only when there are any.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from framegate.topic_patterns import PATTERN, PATTERN_HELP

__all__ = ["DTYPES", "RULE_SCHEMA", "parse_rules"]

DTYPES: Final = {
    "bool": 1,
    "int8": 1,
    "int16": 2,
    "int32": 4,
    "int64": 8,
    "uint8": 1,
    "uint16": 2,
    "uint32": 4,
    "uint64": 8,
    "float16": 2,
    "float32": 4,
    "float64": 8,
    "complex64": 8,
    "complex128": 16,
    "bfloat16": 2,
}
"""Bytes of an item, by numpy's name; those of shm.h."""

_SLOTS: Final = (2, 4096)  # FG_SLOTS_MIN, FG_SLOTS_MAX
_SLOTS_DEFAULT: Final = 8
_DIMENSIONS_MAX: Final = 8
_SLOT_BYTES_MAX: Final = 2**40
_SIZE: Final = re.compile(r"\s*([0-9]+)\s*(b|kib|mib|gib|)\s*")
_FACTORS: Final = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30}

RULE_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "create": {"type": "boolean"},
        "decode": {"type": "boolean"},
        "slots": {"type": "integer", "minimum": _SLOTS[0], "maximum": _SLOTS[1]},
        "slot_bytes": {"type": ["integer", "string"]},
        "dtype": {"enum": list(DTYPES)},
        "shape": {
            "type": "array",
            "items": {"type": "integer", "minimum": 1},
            "maxItems": _DIMENSIONS_MAX,
        },
    },
    "additionalProperties": False,
}
"""JSON Schema of one rule."""


def parse_rules(items: Iterable[object]) -> tuple[tuple[str, dict[str, Any]], ...]:
    """Return pairs of pattern and rule, with every key of a rule that has a default.

    Args:
        items: Pairs of the two, or texts: a pattern, a space, and the rule as a JSON object.

    Raises:
        ValueError: What is wrong, phrased to follow the name of the setting.
    """
    found: dict[str, dict[str, Any]] = {}
    for item in items:
        pattern, rule = _pair(item)
        if not PATTERN.fullmatch(pattern):
            raise ValueError(f'"{pattern}" is no pattern of topics; {PATTERN_HELP}')
        if pattern in found:
            raise ValueError(f"the pattern {pattern} is given twice")
        try:
            found[pattern] = _rule(rule)
        except ValueError as error:
            raise ValueError(f"{pattern}: {error}") from None
    return tuple(found.items())


def _pair(item: object) -> tuple[str, Mapping[str, Any]]:
    if isinstance(item, str):
        pattern, _, text = item.strip().partition(" ")
        try:
            rule = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{pattern}: the rule {text!r} is no JSON: {error}") from None
        if isinstance(rule, dict):
            return pattern, rule
    elif isinstance(item, (list, tuple)) and len(item) == 2:
        pattern, rule = item
        if isinstance(pattern, str) and isinstance(rule, Mapping):
            return pattern, rule
    raise ValueError(f"expected a pattern and a table, got {item!r}")


def _rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    if unknown := set(rule) - set(RULE_SCHEMA["properties"]):
        known = ", ".join(RULE_SCHEMA["properties"])
        raise ValueError(f"unknown key {min(unknown)}; there are {known}")
    create, decode = rule.get("create", False), rule.get("decode", False)
    for name, value in (("create", create), ("decode", decode)):
        if not isinstance(value, bool):
            raise ValueError(f"{name} is true or false")
    slots = rule.get("slots", _SLOTS_DEFAULT)
    if not _is_integer(slots, *_SLOTS):
        raise ValueError(f"slots is a whole number from {_SLOTS[0]} to {_SLOTS[1]}")
    dtype, shape = rule.get("dtype"), rule.get("shape")
    if (dtype is None) != (shape is None):
        raise ValueError("dtype and shape go together, or neither for raw bytes")
    frame_bytes = None if dtype is None else _frame_bytes(dtype, shape)
    slot_bytes = rule.get("slot_bytes")
    if slot_bytes is None:
        slot_bytes = frame_bytes
    else:
        slot_bytes = _bytes(slot_bytes)
        if frame_bytes is not None and slot_bytes < frame_bytes:
            raise ValueError(
                f"slot_bytes is {slot_bytes}, and a frame of that dtype and shape has {frame_bytes}"
            )
    if create and slot_bytes is None:
        raise ValueError("create needs slot_bytes, or dtype and shape: requests say no sizes")
    return {
        "create": create,
        "decode": decode,
        "slots": slots,
        "slot_bytes": slot_bytes,
        "dtype": dtype,
        "shape": None if shape is None else list(shape),
    }


def _is_integer(value: object, minimum: int, maximum: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= maximum


def _frame_bytes(dtype: object, shape: object) -> int:
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"dtype is one of {', '.join(DTYPES)}")
    if (
        not isinstance(shape, (list, tuple))
        or len(shape) > _DIMENSIONS_MAX
        or not all(_is_integer(length, 1, 2**62) for length in shape)
    ):
        raise ValueError(f"shape is at most {_DIMENSIONS_MAX} whole numbers from 1 on")
    found = DTYPES[dtype] * math.prod(shape)
    if found > _SLOT_BYTES_MAX:
        raise ValueError(f"a frame of that dtype and shape has {found} bytes")
    return found


def _bytes(value: object) -> int:
    if isinstance(value, str) and (parts := _SIZE.fullmatch(value.lower())):
        value = int(parts[1]) * _FACTORS[parts[2]]
    if not _is_integer(value, 1, _SLOT_BYTES_MAX):
        raise ValueError(f"slot_bytes is 1 to {_SLOT_BYTES_MAX} bytes (64KiB, 16MiB also work)")
    assert isinstance(value, int)
    return value
