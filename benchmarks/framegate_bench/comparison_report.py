"""Tables and bars of comparisons, from their part of a result alone."""

import operator
from typing import Any

from framegate_bench.spread import Spread, ratios
from framegate_bench.tables import BarResult, Row, Table, number, spread_of, values

OURS = "framegate"


def _cell(row: Row | None, metrics: list[str]) -> str:
    """The medians; of a single number its range as well."""
    if row is None or not any(row["samples"]):
        return "-"
    spreads = [spread_of(row, operator.itemgetter(metric)) for metric in metrics]
    found = [spread for spread in spreads if spread is not None]
    text = " / ".join(number(spread.median) for spread in found)
    if len(found) == 1 and found[0].low != found[0].high:
        text += f" ({number(found[0].low)}-{number(found[0].high)})"
    return text


def table(question: dict[str, Any]) -> Table:
    """A row for each contestant, ours first and what the machine allows last."""
    cases = question["cases"]
    names: list[str] = []
    for case in cases:
        names += [name for name in case["rows"] if name not in names]
    limits = question["limits_of_the_machine"]
    names.sort(key=lambda name: (name in limits, not name.startswith(OURS)))
    lines: list[tuple[str, ...]] = []
    for name in names:
        rows = [case["rows"].get(name) for case in cases]
        shown = f"limit: {name}" if name in limits else name
        if not any(any(row["samples"]) for row in rows if row is not None):
            reason = next((row["error"] for row in rows if row and row["error"]), "no sample")
            lines.append((shown, f"not measured: {reason}"))
            continue
        cells = (_cell(row, case["metrics"]) for row, case in zip(rows, cases, strict=True))
        lines.append((shown, *cells))
    return Table(("", *(case["title"] for case in cases)), lines)


def _numbers(question: dict[str, Any], where: list[str]) -> list[float | None] | None:
    """One number of one contestant in one case, round by round; None if it did not take part."""
    contestant, case_name, metric = where
    for case in question["cases"]:
        if case["name"] == case_name and contestant in case["rows"]:
            return values(case["rows"][contestant], operator.itemgetter(metric))
    return None


def _floor(
    question: dict[str, Any], parts: list[list[str]], below: list[float | None] | None
) -> str:
    """What the quotient would be if we added nothing to what the machine takes."""
    numbers = [_numbers(question, part) for part in parts]
    found = [one for one in numbers if one is not None]
    if not found or len(found) < len(numbers) or below is None:
        return ""
    sums = [
        None if None in some else sum(value for value in some if value is not None)
        for some in zip(*found, strict=True)
    ]
    spread = Spread.of(ratios(sums, below))
    return f" (the machine alone: {number(spread.median)})" if spread else ""


def bars(question: dict[str, Any]) -> list[BarResult]:
    """What our numbers, or their quotients round by round, are held to."""
    found = []
    for limit in question["limits"]:
        above = _numbers(question, limit["number"])
        below = _numbers(question, limit["per"]) if limit["per"] else None
        measured = None
        if above is not None and limit["per"] is None:
            measured = Spread.of([value for value in above if value is not None])
        elif above is not None and below is not None:
            measured = Spread.of(ratios(above, below))
        text = limit["text"] + _floor(question, limit["floor"], below)
        found.append(BarResult(question["name"], text, limit["bound"], measured, limit["at_most"]))
    return found


def warnings(question: dict[str, Any]) -> list[str]:
    """Rounds that failed."""
    found = []
    for case in question["cases"]:
        for name, row in case["rows"].items():
            lost = sum(sample is None for sample in row["samples"])
            if lost and row["error"] and any(row["samples"]):
                where = f"{question['name']}, {case['title']}, {name}"
                found.append(
                    f"{where}: {lost} of {len(row['samples'])} rounds failed: {row['error']}"
                )
            elif lost and not any(row["samples"]):
                where = f"{question['name']}, {case['title']}, {name}"
                found.append(f"{where}: not measured: {row['error']}")
    return found
