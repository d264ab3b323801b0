"""Comparisons: programs that measure themselves, from the first process to the table."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from framegate_bench import comparison, comparison_report, report
from framegate_bench.comparison import Case, Comparison, Contestant, count_syscalls
from framegate_bench.environments import HOME
from framegate_bench.processes import BenchError

# What the programs themselves wait for has its own limits.
pytestmark = pytest.mark.timeout(300)

TRACE = """\
10 write(1, "before", 6) = 6
10 getppid() = 9
10 futex(0x1, FUTEX_WAKE, 1) = 0
11 read(5,  <unfinished ...>
10 write(900, "g", 1) = 1
10 clock_nanosleep(CLOCK_REALTIME, 0, {tv_sec=0}, NULL) = 0
11 <... read resumed>"x", 1) = 1
10 --- SIGCHLD {si_signo=SIGCHLD} ---
10 getppid() = 9
10 write(1, "after", 5) = 5
"""


def test_system_calls_between_the_marks_count_but_for_the_pace() -> None:
    assert count_syscalls(TRACE) == 2
    with pytest.raises(BenchError, match="no two marks"):
        count_syscalls(TRACE.partition("futex")[0])


def answer(**numbers: list[float | None]) -> dict[str, Any]:
    """A result as `ask` gives it, of one case."""
    rows = {
        name: {"samples": [None if one is None else {"ns": one} for one in some], "error": None}
        for name, some in numbers.items()
    }
    return {
        "kind": "comparison", "name": "q", "title": "Q", "unit": "Nanoseconds",
        "limits_of_the_machine": ["floor"],
        "cases": [{"name": "c", "title": "cycle", "metrics": ["ns"], "rows": rows}],
        "limits": [],
    }  # fmt: skip


def bar(**changes: Any) -> dict[str, Any]:
    number = ("rival", "c", "ns")
    per = ("framegate", "c", "ns")
    return {
        "text": "t",
        "number": number,
        "per": per,
        "bound": 2.0,
        "at_most": False,
        "floor": (),
        **changes,
    }


@pytest.mark.parametrize(
    ("limit", "verdict"),
    [
        (bar(), "met"),
        (bar(bound=4.0), "MISSED"),
        (bar(at_most=True), "MISSED"),
        (bar(number=("framegate", "c", "ns"), per=None, bound=9.0, at_most=True), "MISSED"),
        (bar(number=("framegate", "c", "ns"), per=None, bound=10.0, at_most=True), "met"),
        (bar(number=("absent", "c", "ns")), "not measured"),
    ],
)
def test_a_bar_is_a_number_or_a_quotient_inside_a_round(
    limit: dict[str, Any], verdict: str
) -> None:
    # The host was half as fast in the second round.
    one = answer(framegate=[10.0, 20.0, 10.0], rival=[30.0, 60.0, 31.0])
    (found,) = comparison_report.bars({**one, "limits": [limit]})
    assert found.verdict == verdict


def test_a_bar_says_what_it_would_be_with_nothing_but_the_machine() -> None:
    one = answer(framegate=[10.0, 20.0], rival=[40.0, 80.0], floor=[2.0, 4.0])
    floor = (("floor", "c", "ns"), ("framegate", "c", "ns"))
    (found,) = comparison_report.bars({**one, "limits": [bar(floor=floor)]})
    assert found.text == "t (the machine alone: 1.20)"
    (absent,) = comparison_report.bars({**one, "limits": [bar(floor=(("no", "c", "ns"),))]})
    assert absent.text == "t"


def test_a_table_has_ours_first_the_machine_last_and_says_who_was_not_measured() -> None:
    one = answer(floor=[1.0], rival=[30.0, 40.0], framegate=[10.0, 10.0], broken=[None, None])
    one["cases"][0]["rows"]["broken"]["error"] = "not installed: no wheel"
    table = comparison_report.table(one)
    assert table.columns == ("", "cycle")
    assert list(table.rows) == [
        ("framegate", "10.0"),
        ("rival", "35.0 (30.0-40.0)"),
        ("broken", "not measured: not installed: no wheel"),
        ("limit: floor", "1.00"),
    ]
    assert comparison_report.warnings(one) == [
        "q, cycle, broken: not measured: not installed: no wheel"
    ]


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The environment of the tests as if it were a venv of the driver."""
    monkeypatch.setattr(comparison, "LOGS", tmp_path / "logs")
    return {"own": Path(sys.prefix)}


def cores() -> tuple[int, int]:
    found = sorted(os.sched_getaffinity(0))
    return found[0], found[-1]


def ask(
    environment: dict[str, Path], cases: tuple[Case, ...], *contestants: Contestant, rounds: int = 1
) -> dict[str, Any]:
    asked = Comparison("smoke", "Smoke", "Things", contestants, cases, ())
    return comparison.ask(
        asked,
        folders=environment,
        missing={},
        tools=Path("nowhere"),
        cores=cores(),
        seconds=0.05,
        rounds=rounds,
    )


def test_programs_run_in_every_round_and_one_run_serves_all_cases_like_it(
    environment: dict[str, Path], tmp_path: Path
) -> None:
    log = tmp_path / "runs"
    program = f"print(open({str(log)!r}, 'a').write('x') and '{{\"a\": 1, \"b\": 2}}')"
    echo = Contestant(
        "echo", "own", (sys.executable, "-c", program.replace("{", "{{").replace("}", "}}"))
    )
    broken = Contestant(
        "broken", "own", (sys.executable, "-c", "raise SystemExit('no such thing')")
    )
    cases = (Case("a", "a", ("x",), ("a",)), Case("b", "b", ("x",), ("b",)))
    found = ask(environment, cases, echo, broken, rounds=3)
    assert log.read_text() == "xxx"
    first, second = found["cases"]
    assert first["rows"]["echo"]["samples"] == second["rows"]["echo"]["samples"]
    assert "no such thing" in first["rows"]["broken"]["error"]
    assert first["rows"]["broken"]["samples"] == [None] * 3
    assert json.dumps(found) in json.dumps({"questions": [found]})
    assert "no such thing" in report.text(
        {
            "environment": {
                "date": "d", "commit": "c", "uncommitted": False, "cpu": "C", "cores": 2,
                "memory_gib": 4.0, "virtual_machine": True, "kernel": "6.1", "python": "3.11",
                "rustc": "r", "versions": {},
            },
            "settings": {"rounds": 3, "seconds": 1.0, "quick": False},
            "questions": [found],
        }
    )  # fmt: skip


TRANSPORTS = ("framegate", "framegate-spin", "socket", "pipe", "pickled", "shared-memory")


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_our_program_measures_a_transport(environment: dict[str, Path], transport: str) -> None:
    script = str(HOME / "apps/shm_measure.py")
    one = Contestant(transport, "own", (sys.executable, script, transport))
    cases = (
        Case("latency", "latency", ("latency", "--size", "70000"), ("p50_us", "p99_us")),
        Case("throughput", "throughput", ("throughput", "--size", "4096"), ("frames_per_s",)),
    )
    latency, throughput = ask(environment, cases, one)["cases"]
    (sample,) = latency["rows"][transport]["samples"]
    assert sample is not None, latency["rows"][transport]["error"]
    assert 0 < sample["p50_us"] <= sample["p99_us"]
    (sample,) = throughput["rows"][transport]["samples"]
    assert sample is not None, throughput["rows"][transport]["error"]
    assert sample["frames_per_s"] > 0


def test_a_send_that_nobody_waits_for_makes_no_system_call(environment: dict[str, Path]) -> None:
    command = (sys.executable, str(HOME / "apps/shm_measure.py"))
    ours = Contestant("framegate", "own", (*command, "framegate"))
    other = Contestant("socket", "own", (*command, "socket"))
    case = Case("send", "send", ("cycle", "--kind", "cycle"), ("syscalls",), count="syscalls")
    (counted,) = ask(environment, (case,), ours, other)["cases"]
    rows = counted["rows"]
    assert rows["framegate"]["samples"][0] is not None, rows["framegate"]["error"]
    assert rows["framegate"]["samples"][0]["syscalls"] == 0
    assert rows["socket"]["samples"][0]["syscalls"] == 2
