"""Tables and bars, made from a result file alone: a table can be written again any time."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framegate_bench.processes import BenchError
from framegate_bench.spread import Spread, ratios

BEGIN = "<!-- benchmark table: begin -->"
END = "<!-- benchmark table: end -->"
OURS = "framegate"
RATE_KEPT = 0.97
FOREIGN_LIMIT = 0.05

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


def _number(value: float) -> str:
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _values(row: Row, pick: Callable[[Sample], float | None]) -> list[float | None]:
    return [None if sample is None else pick(sample) for sample in row["samples"]]


def _spread(row: Row, pick: Callable[[Sample], float | None]) -> Spread | None:
    return Spread.of([value for value in _values(row, pick) if value is not None])


def _cell(
    row: Row,
    pick: Callable[[Sample], float | None],
    *,
    with_range: bool = False,
    scale: float = 1.0,
) -> str:
    spread = _spread(row, pick)
    if spread is None:
        return "-"
    median = _number(spread.median * scale)
    if not with_range:
        return median
    return f"{median} ({_number(spread.low * scale)}-{_number(spread.high * scale)})"


def _cpu(sample: Sample) -> float:
    cpu: float = sample["cpu_us"]
    return cpu


def _seen(sample: Sample) -> float | None:
    """The share of the frames that the consumer saw; None where there is none."""
    if sample["consumer"] is None:
        return None
    share: float = sample["consumer"]["frames"] / sample["completed"]
    return share


def _age(name: str) -> Callable[[Sample], float | None]:
    """How old the frames were when the consumer had read them."""
    return lambda sample: sample["consumer"].get(name) if sample["consumer"] else None


def _foreign(sample: Sample) -> float:
    """The share of the server's core that it did not get although somebody used it."""
    share: float = sample["foreign_share"] + sample["stolen_share"]
    return share


def _rate_kept(row: Row) -> bool:
    kept = _spread(row, lambda sample: sample["kept_rate"])
    return kept is None or kept.median >= RATE_KEPT


def _versus_ours(row: Row, ours: Row | None) -> str:
    if ours is None:
        return "-"
    spread = Spread.of(ratios(_values(row, _cpu), _values(ours, _cpu)))
    return "-" if spread is None else f"{spread.median:.2f}"


def phase_table(phase: dict[str, Any], unit: str) -> Table:
    """One phase: the cheapest server first at a fixed rate, the fastest in a closed loop."""
    columns = [
        "server", f"CPU us/{unit}", f"x {OURS}", "kernel %", f"switches/{unit}", "per s",
        "p50 us", "p99 us", "core %", "others %",
    ]  # fmt: skip
    if phase["consumer"]:
        columns += ["of it consumer us", "seen %", "age p50 us", "age p99 us"]
    rows: dict[str, Row] = phase["rows"]
    ours = rows.get(OURS)

    def place(item: tuple[str, Row]) -> float:
        if phase["rate"] is None:
            spread = _spread(item[1], lambda sample: sample["per_s"])
            return -spread.median if spread else float("inf")
        spread = _spread(item[1], _cpu)
        return spread.median if spread else float("inf")

    lines: list[tuple[str, ...]] = []
    for name, row in sorted(rows.items(), key=place):
        if not any(row["samples"]):
            lines.append((name, f"not measured: {row['error'] or 'no sample'}"))
            continue
        cells = [
            name,
            _cell(row, _cpu, with_range=True),
            _versus_ours(row, ours),
            _cell(row, lambda sample: sample["system_share"], scale=100),
            _cell(row, lambda sample: sample["switches"]),
            _cell(row, lambda sample: sample["per_s"], with_range=phase["rate"] is None)
            + ("" if _rate_kept(row) else " (!)"),
            _cell(row, lambda sample: sample["p50_us"]),
            _cell(row, lambda sample: sample["p99_us"]),
            _cell(row, lambda sample: sample["core_share"], scale=100),
            _cell(row, _foreign, scale=100),
        ]
        if phase["consumer"]:
            cells += [
                _cell(row, lambda sample: sample["consumer_cpu_us"]),
                _cell(row, _seen, scale=100),
                _cell(row, _age("p50_us")),
                _cell(row, _age("p99_us")),
            ]
        lines.append(tuple(cells))
    return Table(tuple(columns), lines)


@dataclass(frozen=True, slots=True)
class BarResult:
    """A bar and what was measured against it."""

    question: str
    text: str
    factor: float
    measured: Spread | None

    @property
    def verdict(self) -> str:
        """`met`, `MISSED` or `not measured`, by the median."""
        if self.measured is None:
            return "not measured"
        return "met" if self.measured.median >= self.factor else "MISSED"


def bars(result: dict[str, Any]) -> list[BarResult]:
    """All bars of a result: how many times less CPU framegate takes, round by round."""
    found = []
    for question in result["questions"]:
        phases = {phase["name"]: phase for phase in question["phases"]}
        for bar in question["bars"]:
            phase = phases[bar["phase"]]
            ours, other = phase["rows"].get(OURS), phase["rows"].get(bar["other"])
            measured = None
            if ours is not None and other is not None:
                measured = Spread.of(ratios(_values(other, _cpu), _values(ours, _cpu)))
            text = f"CPU of {bar['other']} / CPU of {OURS}, {phase['title']}"
            found.append(BarResult(question["name"], text, bar["factor"], measured))
    return found


def bars_table(results: Iterable[BarResult]) -> Table:
    """Bars, what was measured, and whether that is enough."""
    rows = []
    for bar in results:
        measured = "-"
        if bar.measured is not None:
            measured = f"{bar.measured.median:.2f} ({bar.measured.low:.2f}-{bar.measured.high:.2f})"
        rows.append((bar.question, bar.text, f">= {bar.factor:.2f}", measured, bar.verdict))
    return Table(("question", "quotient", "bar", "measured", "verdict"), rows)


def warnings(result: dict[str, Any]) -> list[str]:
    """What a reader must know before believing the numbers."""
    found = list(result["environment"].get("warnings", []))
    for question in result["questions"]:
        for phase in question["phases"]:
            for name, row in phase["rows"].items():
                where = f"{question['name']}, {phase['title']}, {name}"
                if any(row["samples"]) and not _rate_kept(row):
                    found.append(f"{where}: the rate was not kept, marked (!)")
                if any(row["samples"]) and not all(row["samples"]):
                    lost = sum(sample is None for sample in row["samples"])
                    found.append(
                        f"{where}: {lost} of {len(row['samples'])} rounds failed: {row['error']}"
                    )
                foreign = _spread(row, _foreign)
                if foreign is not None and foreign.median > FOREIGN_LIMIT:
                    found.append(f"{where}: others took {foreign.median:.0%} of the server's core")
                seen = _spread(row, _seen)
                if seen is not None and phase["rate"] and seen.median < RATE_KEPT:
                    found.append(f"{where}: the consumer saw only {seen.median:.0%} of the frames")
    return found


def provenance(result: dict[str, Any]) -> str:
    """Machine, date and commit in one paragraph."""
    at, settings = result["environment"], result["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(at["versions"].items()))
    commit = at["commit"] + (" with uncommitted changes" if at["uncommitted"] else "")
    kind = "virtual machine" if at["virtual_machine"] else "machine"
    quick = " **Quick run: not for quoting.**" if settings["quick"] else ""
    return (
        f"Measured {at['date']} at commit {commit}: {kind} with {at['cores']} cores, {at['cpu']}, "
        f"{at['memory_gib']} GiB, Linux {at['kernel']}, Python {at['python']}, {at['rustc']}; "
        f"{versions}. {settings['rounds']} rounds of {settings['seconds']} s windows, "
        f"median (lowest-highest).{quick}"
    )


def summary_table(result: dict[str, Any]) -> Table:
    """CPU per unit of every server in the first phase of every question."""
    servers: list[str] = []
    for question in result["questions"]:
        servers += [name for name in question["phases"][0]["rows"] if name not in servers]
    rows = []
    for question in result["questions"]:
        phase = question["phases"][0]
        cells = [
            _cell(phase["rows"][name], _cpu) if name in phase["rows"] else "" for name in servers
        ]
        rows.append((f"{question['title']}; {phase['title']}", *cells))
    return Table(("CPU us per request, message or frame", *servers), rows)


def text(result: dict[str, Any]) -> str:
    """The whole report for a terminal."""
    parts = [provenance(result)]
    for question in result["questions"]:
        parts.append(f"== {question['title']}")
        for phase in question["phases"]:
            parts.append(f"-- {phase['title']}\n{phase_table(phase, question['unit']).text()}")
    parts.append(f"== Bars\n{bars_table(bars(result)).text()}")
    notes = warnings(result)
    if notes:
        parts.append("\n".join(f"warning: {line}" for line in notes))
    return "\n\n".join(parts)


def markdown_full(result: dict[str, Any]) -> str:
    """All tables, for benchmarks/README.md."""
    parts = [provenance(result), "### Bars", bars_table(bars(result)).markdown()]
    for question in result["questions"]:
        parts.append(f"### {question['title']}")
        for phase in question["phases"]:
            parts += [
                f"{phase['title'][0].upper()}{phase['title'][1:]}:",
                phase_table(phase, question["unit"]).markdown(),
            ]
    notes = warnings(result)
    if notes:
        parts += ["### Warnings of this run", "\n".join(f"- {line}" for line in notes)]
    return "\n\n".join(parts)


def markdown_summary(result: dict[str, Any]) -> str:
    """The headline, for the README of the project."""
    return "\n\n".join(
        [summary_table(result).markdown(), bars_table(bars(result)).markdown(), provenance(result)]
    )


def write_between_markers(path: Path, content: str) -> bool:
    """Put `content` between the markers of a document; says whether that changed it."""
    before = path.read_text()
    head, begin, rest = before.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise BenchError(f"{path} has no lines {BEGIN} and {END} between which the table could go")
    after = f"{head}{BEGIN}\n{content.strip()}\n{END}{tail}"
    if after != before:
        path.write_text(after)
    return after != before


def newest(results: Sequence[Path]) -> Path:
    """The newest result; their names begin with their time."""
    if not results:
        raise BenchError("no result yet: run `uv run task bench` first")
    return max(results, key=lambda path: path.name)
