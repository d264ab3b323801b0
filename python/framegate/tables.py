"""Plain tables and short numbers for a terminal or a pipe."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["age_text", "bytes_text", "number_text", "table"]


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: str = "") -> list[str]:
    """Lines of a table: columns as wide as their content, two spaces apart.

    Args:
        header: Titles of the columns.
        rows: Their cells.
        right: One letter per column: `>` aligns it right, anything else left.
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for row in (header, *rows):
        cells = [
            cell.rjust(width) if right[i : i + 1] == ">" else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def number_text(value: float | None, digits: int = 1) -> str:
    """A number with so many decimals; `-` for None."""
    return "-" if value is None else f"{value:.{digits}f}"


def bytes_text(count: float | None) -> str:
    """Bytes in three digits and a decimal unit: `921.6 kB`."""
    if count is None:
        return "-"
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def age_text(seconds: float | None) -> str:
    """A time span in the unit that suits it: `12.1 ms`, `3.4 s`, `5 min`."""
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds * 1000:.0f} ms"
    for unit, length, limit in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172800)):
        if seconds < limit:
            return f"{seconds / length:.1f} s" if unit == "s" else f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"
