"""Patterns of topic names, as the configuration has them everywhere: `camera/*`, `camera/**`.

`*` is one whole segment of a name, `**`, at the end, all that are left, at least one. What they fit
is decided in `rust/http/src/topics/access/pattern.rs`; here is only which texts are patterns.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["PATTERN", "PATTERN_HELP"]

_WORD: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"

PATTERN: Final = re.compile(rf"\*\*|(\*|{_WORD})(/(\*|{_WORD}))*(/\*\*)?")
"""Every pattern, and nothing else."""

PATTERN_HELP: Final = "* is one whole segment, ** at the end all that are left"
"""What an error says of them."""
