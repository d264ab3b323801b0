"""Questions without a server: programs that measure themselves, compared case by case.

A contestant is a program that is started anew for every case of every round, measures the case and
prints its numbers as one line of JSON. If the case needs two processes, the program starts the
second one itself; it is told which cores are theirs. The words are above, the runner below.
"""

import json
import os
import re
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from framegate_bench.environments import HOME, LOGS, allocation_counter
from framegate_bench.processes import BenchError, read_line, running
from framegate_bench.scratch import scratch

START_TIMEOUT_S = 60.0
FAILURES_BEFORE_GIVING_UP = 2
MARK_CALL = "getppid"
"""The system call between two of which the counted operations are; nobody else makes it."""
PACE_FD = 900
"""The descriptor by which the two processes of a program pace each other; not counted."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way of doing it.

    `{bin}` is replaced in the command by the folder of its environment's programs, `{apps}` by
    the folder of ours, `{tools}` by that of the load programs.
    """

    name: str
    venv: str
    command: tuple[str, ...]
    is_limit: bool = False
    """What the machine allows at best; below the line in the tables."""


def program(
    script: str,
    name: str,
    venv: str | None = None,
    *,
    word: str | None = None,
    is_limit: bool = False,
) -> Contestant:
    """One of ours that starts the server of that name, or word, itself: `own_server.read_words`."""
    programs = ("--bin", "{bin}", "--tools", "{tools}")
    command = (sys.executable, f"{{apps}}/{script}.py", word or name, *programs)
    return Contestant(name, venv or name, command, is_limit)


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that is measured, the same way on every contestant: a column of the table."""

    name: str
    title: str
    arguments: tuple[str, ...]
    metrics: tuple[str, ...]
    """Which of the printed numbers make the cell."""
    contestants: tuple[str, ...] | None = None
    """Those that take part; None is all."""
    count: str | None = None
    """`syscalls` or `allocations`: run it under a counter instead of a clock."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What our number, or its quotient with another one, is held to."""

    text: str
    number: tuple[str, str, str]
    """Contestant, case, metric."""
    per: tuple[str, str, str] | None
    """The same of what it is divided by."""
    bound: float
    at_most: bool
    floor: tuple[tuple[str, str, str], ...] = ()
    """Numbers whose sum nobody can get below: what the quotient would be with nothing else."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Contestants, cases, and what we want to be the answer."""

    name: str
    title: str
    unit: str
    """What the numbers of a cell are, in words."""
    contestants: tuple[Contestant, ...]
    cases: tuple[Case, ...]
    limits: tuple[Limit, ...]
    rounds_max: int | None = None
    """Fewer rounds than asked for, where the numbers do not vary."""
    has_tools: bool = False
    """Its programs use the load programs of `native/`."""


def with_contestants(question: Comparison, names: set[str]) -> Comparison:
    """The same question to fewer contestants."""
    kept = tuple(one for one in question.contestants if one.name in names)
    present = {one.name for one in kept}
    cases = tuple(
        case
        for case in question.cases
        if case.contestants is None or present & set(case.contestants)
    )
    left = {case.name for case in cases}
    limits = tuple(limit for limit in question.limits if limit.number[1] in left)
    return replace(question, contestants=kept, cases=cases, limits=limits)


def count_syscalls(trace: str) -> int:
    """System calls in a log of `strace -f` from the first mark to the second, of all threads.

    A call that another thread interrupted has two lines, of which one counts.
    """
    inside = False
    calls = 0
    for line in trace.splitlines():
        call = re.match(r"\d+ +(\w+)\((\d+)?", line)
        if call is None:
            continue  # a signal, an exit, or the second half of a call
        if call[1] == MARK_CALL:
            if inside:
                return calls
            inside = True
        elif inside and call[2] != str(PACE_FD) and call[1] != "clock_nanosleep":
            calls += 1
    raise BenchError("the trace has no two marks")


def _sample(
    question: Comparison,
    one: Contestant,
    case: Case,
    folder: Path,
    tools: Path,
    cores: str,
    seconds: float,
) -> dict[str, float]:
    """Run a program once; its numbers."""
    log = LOGS / f"{question.name}-{one.name.replace(' ', '-')}.log"
    with scratch() as private:
        trace = private / "trace"
        environment = {
            "PYTHONPATH": f"{HOME / 'apps'}{os.pathsep}{HOME}",
            "FRAMEGATE_RUNTIME_DIR": str(private / "framegate"),
            "BENCH_FOLDER": str(private),
        }
        (private / "framegate").mkdir(mode=0o700)
        apps = HOME / "apps"
        places = {"bin": str(folder / "bin"), "apps": str(apps), "tools": str(tools)}
        command = [word.format(**places) for word in (*one.command, *case.arguments)]
        command += ["--cores", cores, "--seconds", str(seconds)]
        if case.count == "syscalls":
            command = ["strace", "-f", "-qq", "-o", str(trace), *command, "--count"]
        elif case.count == "allocations":
            environment["LD_PRELOAD"] = str(allocation_counter())
            # Objects of Python count as well, but for those that it keeps on free lists.
            environment["PYTHONMALLOC"] = "malloc"
            command += ["--count"]
        with ExitStack() as stack:
            core = int(cores.split(",")[0])
            process = stack.enter_context(
                running(command, core=core, log=log, environment=environment, piped=True)
            )
            line = read_line(process, START_TIMEOUT_S + 10 * seconds, log)
            # The driver must not end it: rivals would leave files behind.
            try:
                process.wait(START_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                raise BenchError(f"{one.name} did not end after {case.name}") from None
            numbers: dict[str, float] = json.loads(line)
            if process.returncode != 0:
                raise BenchError(f"{one.name} ended with {process.returncode} (log: {log})")
        if case.count == "syscalls":
            numbers["syscalls"] = count_syscalls(trace.read_text()) / numbers["operations"]
        return numbers


def ask(
    question: Comparison,
    *,
    folders: dict[str, Path],
    missing: dict[str, str],
    tools: Path,
    cores: tuple[int, int],
    seconds: float,
    rounds: int,
) -> dict[str, Any]:
    """Measure a question; `missing` are environments that could not be made, and why."""
    rounds = min(rounds, question.rounds_max or rounds)
    pair = ",".join(map(str, cores))
    rows: dict[str, dict[str, dict[str, Any]]] = {
        case.name: {
            one.name: {"samples": [], "error": missing.get(one.venv)}
            for one in question.contestants
            if case.contestants is None or one.name in case.contestants
        }
        for case in question.cases
    }
    failures: dict[tuple[str, str], int] = {}
    for turn in range(rounds):
        print(f"  {question.name} round {turn + 1}/{rounds}", file=sys.stderr, flush=True)
        # Cases with the same arguments are several numbers of one run.
        runs: dict[tuple[str, tuple[str, ...], str | None], dict[str, float]] = {}
        for case in question.cases:
            # Rotated, so that nobody always runs behind the same one; inside a case, so that what
            # is compared is close in time.
            taking_part = [one for one in question.contestants if one.name in rows[case.name]]
            shift = turn % len(taking_part)
            for one in taking_part[shift:] + taking_part[:shift]:
                row = rows[case.name][one.name]
                key = (one.name, case.name)
                if one.venv in missing or failures.get(key, 0) >= FAILURES_BEFORE_GIVING_UP:
                    row["samples"].append(None)
                    continue
                run = (one.name, case.arguments, case.count)
                try:
                    sample = runs.get(run) or _sample(
                        question, one, case, folders[one.venv], tools, pair, seconds
                    )
                    runs[run] = sample
                except BenchError as error:
                    failures[key] = failures.get(key, 0) + 1
                    row["error"] = str(error)
                    row["samples"].append(None)
                    print(f"    {one.name}, {case.title}: {error}", file=sys.stderr)
                else:
                    row["samples"].append(sample)
    return {
        "kind": "comparison",
        "name": question.name,
        "title": question.title,
        "unit": question.unit,
        "limits_of_the_machine": [one.name for one in question.contestants if one.is_limit],
        "cases": [
            {
                "name": case.name,
                "title": case.title,
                "metrics": list(case.metrics),
                "rows": rows[case.name],
            }
            for case in question.cases
        ],
        "limits": [asdict(limit) for limit in question.limits],
    }
