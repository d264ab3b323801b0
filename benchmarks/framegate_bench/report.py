"""Tables and bars, made from a result file alone: a table can be written again any time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from framegate_bench import comparison_report
from framegate_bench.processes import BenchError
from framegate_bench.spread import Spread, ratios
from framegate_bench.tables import (
    BarResult,
    Row,
    Sample,
    Table,
    bars_table,
    cell,
    spread_of,
    values,
)

BEGIN = "<!-- benchmark {group}: begin -->"
END = "<!-- benchmark {group}: end -->"
OURS = "framegate"
# What no server can be faster than; drawn apart from those that compete.
LIMITS = (
    "hyper", "app alone", "recv() alone", "recv() and memcpy", "epoll alone", "nothing but answers",
)  # fmt: skip
RATE_KEPT = 0.97
FOREIGN_LIMIT = 0.05


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
    kept = spread_of(row, lambda sample: sample["kept_rate"])
    return kept is None or kept.median >= RATE_KEPT


def _versus_ours(row: Row, ours: Row | None) -> str:
    if ours is None:
        return "-"
    spread = Spread.of(ratios(values(row, _cpu), values(ours, _cpu)))
    return "-" if spread is None else f"{spread.median:.2f}"


def _least(row: Row) -> float:
    """The CPU time to sort by; what was not measured is last."""
    spread = spread_of(row, _cpu)
    return spread.median if spread else float("inf")


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
            spread = spread_of(item[1], lambda sample: sample["per_s"])
            return -spread.median if spread else float("inf")
        return _least(item[1])

    lines: list[tuple[str, ...]] = []
    for name, row in sorted(rows.items(), key=place):
        if not any(row["samples"]):
            lines.append((name, f"not measured: {row['error'] or 'no sample'}"))
            continue
        cells = [
            name,
            cell(row, _cpu, with_range=True),
            _versus_ours(row, ours),
            cell(row, lambda sample: sample["system_share"], scale=100),
            cell(row, lambda sample: sample["switches"]),
            cell(row, lambda sample: sample["per_s"], with_range=phase["rate"] is None)
            + ("" if _rate_kept(row) else " (!)"),
            cell(row, lambda sample: sample["p50_us"]),
            cell(row, lambda sample: sample["p99_us"]),
            cell(row, lambda sample: sample["core_share"], scale=100),
            cell(row, _foreign, scale=100),
        ]
        if phase["consumer"]:
            cells += [
                cell(row, lambda sample: sample["consumer_cpu_us"]),
                cell(row, _seen, scale=100),
                cell(row, _age("p50_us")),
                cell(row, _age("p99_us")),
            ]
        lines.append(tuple(cells))
    return Table(tuple(columns), lines)


def bars(result: dict[str, Any]) -> list[BarResult]:
    """All bars of a result: how many times less CPU framegate takes, round by round."""
    found = []
    for question in result["questions"]:
        if is_comparison(question):
            found += comparison_report.bars(question)
            continue
        phases = {phase["name"]: phase for phase in question["phases"]}
        for bar in question["bars"]:
            phase = phases[bar["phase"]]
            ours, other = phase["rows"].get(OURS), phase["rows"].get(bar["other"])
            measured = None
            if ours is not None and other is not None:
                measured = Spread.of(ratios(values(other, _cpu), values(ours, _cpu)))
            text = f"CPU of {bar['other']} / CPU of {OURS}, {phase['title']}"
            found.append(BarResult(question["name"], text, bar["factor"], measured))
    return found


def warnings(result: dict[str, Any]) -> list[str]:
    """What a reader must know before believing the numbers."""
    found = list(result["environment"].get("warnings", []))
    for question in result["questions"]:
        if is_comparison(question):
            found += comparison_report.warnings(question)
            continue
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
                foreign = spread_of(row, _foreign)
                if foreign is not None and foreign.median > FOREIGN_LIMIT:
                    found.append(f"{where}: others took {foreign.median:.0%} of the server's core")
                seen = spread_of(row, _seen)
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
    """CPU per unit in the first phase of every question, the least first."""
    rows = []
    for question in result["questions"]:
        if is_comparison(question):
            continue
        phase = question["phases"][0]
        ours, rivals, limits = "", [], []
        for name, row in sorted(phase["rows"].items(), key=lambda item: _least(item[1])):
            figure = cell(row, _cpu)
            if name == OURS:
                ours = figure
            else:
                (limits if name in LIMITS else rivals).append(f"{name} {figure}")
        title = f"{question['title']}; {phase['title']}"
        rows.append((title, ours, "; ".join(rivals), "; ".join(limits)))
    head = ("CPU us per request, message or frame", OURS, "rivals", "limits")
    return Table(head, rows)


def text(result: dict[str, Any]) -> str:
    """The whole report for a terminal."""
    parts = [provenance(result)]
    for question in result["questions"]:
        parts.append(f"== {question['title']}")
        if is_comparison(question):
            table = comparison_report.table(question)
            parts.append(f"-- {question['unit']}\n{table.text()}")
            continue
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
        if is_comparison(question):
            parts += [f"{question['unit']}:", comparison_report.table(question).markdown()]
            continue
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
    parts = [bars_table(bars(result)).markdown(), provenance(result)]
    summary = summary_table(result)
    return "\n\n".join([summary.markdown(), *parts] if summary.rows else parts)


def is_comparison(question: dict[str, Any]) -> bool:
    """Whether it is one of programs that measure themselves; older results have no kind."""
    return question.get("kind") == "comparison"


def write_between_markers(path: Path, content: str, group: str) -> bool:
    """Put `content` between the group's markers of a document; says whether that changed it."""
    before = path.read_text()
    first, last = BEGIN.format(group=group), END.format(group=group)
    head, begin, rest = before.partition(first)
    _, end, tail = rest.partition(last)
    if not begin or not end:
        raise BenchError(f"{path} has no lines {first} and {last} between which the table could go")
    after = f"{head}{first}\n{content.strip()}\n{last}{tail}"
    if after != before:
        path.write_text(after)
    return after != before
