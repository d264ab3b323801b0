"""Patterns of topic names, as the configuration has them everywhere: `camera/*`, `camera/**`.

`*` is one whole segment of a name, `**`, at the end, all that are left, at least one. What they fit
is decided for the server in `rust/http/src/topics/access/pattern.rs`, and here for what is Python.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["PATTERN", "PATTERN_HELP", "fits"]

_WORD: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"

PATTERN: Final = re.compile(rf"\*\*|(\*|{_WORD})(/(\*|{_WORD}))*(/\*\*)?")
"""Every pattern, and nothing else."""

PATTERN_HELP: Final = "* is one whole segment, ** at the end all that are left"
"""What an error says of them."""


def fits(pattern: str, name: str) -> bool:
    """Whether a name is one of those that a pattern means."""
    words, parts = pattern.split("/"), name.split("/")
    if words[-1] == "**":
        words.pop()
        if len(parts) <= len(words):
            return False
        parts = parts[: len(words)]
    return len(words) == len(parts) and all(
        word in ("*", part) for word, part in zip(words, parts, strict=True)
    )
