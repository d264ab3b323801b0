"""Cells, tables and bars, whatever is measured."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from framegate_bench.spread import Spread

Sample = dict[str, Any]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """Column names and rows of cells."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    def text(self) -> str:
        """Aligned columns for a terminal; the first is on the left, numbers on the right."""
        lines = [self.columns, *self.rows]
        # A row that only says why it has no numbers does not widen the columns.
        full = [line for line in lines if len(line) == len(self.columns)]
        widths = [max(len(line[at]) for line in full) for at in range(len(self.columns))]
        widths[0] = max(len(line[0]) for line in lines)
        out = []
        for line in lines:
            if len(line) < len(self.columns):
                out.append(f"{line[0].ljust(widths[0])}  {line[1]}")
                continue
            cells = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
            cells[0] = line[0].ljust(widths[0])
            out.append("  ".join(cells).rstrip())
        return "\n".join(out)

    def markdown(self) -> str:
        """The same as a Markdown table."""
        rules = ["---"] + ["---:"] * (len(self.columns) - 1)
        out = [self.columns, tuple(rules), *self.rows]
        escaped = ([cell.replace("|", "\\|") for cell in line] for line in out)
        return "\n".join(f"| {' | '.join(line)} |" for line in escaped)


def number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def values(row: Row, pick: Callable[[Sample], float | None]) -> list[float | None]:
    return [None if sample is None else pick(sample) for sample in row["samples"]]


def spread_of(row: Row, pick: Callable[[Sample], float | None]) -> Spread | None:
    return Spread.of([value for value in values(row, pick) if value is not None])


def cell(
    row: Row,
    pick: Callable[[Sample], float | None],
    *,
    with_range: bool = False,
    scale: float = 1.0,
) -> str:
    spread = spread_of(row, pick)
    if spread is None:
        return "-"
    median = number(spread.median * scale)
    if not with_range:
        return median
    return f"{median} ({number(spread.low * scale)}-{number(spread.high * scale)})"


@dataclass(frozen=True, slots=True)
class BarResult:
    """A bar and what was measured against it."""

    question: str
    text: str
    factor: float
    measured: Spread | None
    at_most: bool = False

    @property
    def verdict(self) -> str:
        """`met`, `MISSED` or `not measured`, by the median."""
        if self.measured is None:
            return "not measured"
        median = self.measured.median
        is_met = median <= self.factor if self.at_most else median >= self.factor
        return "met" if is_met else "MISSED"


def bars_table(results: Iterable[BarResult]) -> Table:
    """Bars, what was measured, and whether that is enough."""
    rows = []
    for bar in results:
        measured = "-"
        if bar.measured is not None:
            measured = f"{bar.measured.median:.2f} ({bar.measured.low:.2f}-{bar.measured.high:.2f})"
        rows.append(
            (
                bar.question,
                bar.text,
                f"{'<=' if bar.at_most else '>='} {bar.factor:.2f}",
                measured,
                bar.verdict,
            )
        )
    return Table(("question", "quotient", "bar", "measured", "verdict"), rows)
