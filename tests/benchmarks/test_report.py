"""Statistics and tables of the benchmarks: a document says what follows from the result file."""

import json
from pathlib import Path
from typing import Any

import pytest
from framegate_bench import __main__ as driver
from framegate_bench import question, report
from framegate_bench.__main__ import DOCUMENTS
from framegate_bench.processes import BenchError
from framegate_bench.spread import Spread, ratios


def sample(cpu_us: float, **changes: Any) -> dict[str, Any]:
    return {
        "completed": 1000, "elapsed_s": 1.0, "per_s": 1000.0, "p50_us": 50.0, "p99_us": 99.0,
        "max_us": 120.0, "cpu_us": cpu_us, "consumer_cpu_us": None, "system_share": 0.5,
        "switches": 0.25, "core_share": 0.5, "foreign_share": 0.0, "stolen_share": 0.0,
        "kept_rate": 1.0, "consumer": None, **changes,
    }  # fmt: skip


def markers(group: str) -> tuple[str, str]:
    return report.BEGIN.format(group=group), report.END.format(group=group)


def row(*samples: dict[str, Any] | None, error: str | None = None) -> dict[str, Any]:
    return {"samples": list(samples), "error": error}


def result(rows: dict[str, dict[str, Any]], **phase: Any) -> dict[str, Any]:
    return {
        "format": 1,
        "environment": {
            "date": "2026-01-02T03:04:05+00:00", "commit": "abc", "uncommitted": False, "cpu": "C",
            "cores": 2, "memory_gib": 4.0, "virtual_machine": True, "kernel": "6.1",
            "python": "3.11.7", "rustc": "rustc 1.88.0", "versions": {"granian": "2.8.7"},
        },
        "settings": {"rounds": 3, "seconds": 3.0, "quick": False},
        "questions": [{
            "name": "hello", "title": "Hello", "unit": "request",
            "phases": [{
                "name": "fixed", "title": "10 requests/s", "rate": 10.0, "consumer": None,
                "rows": rows, **phase,
            }],
            "bars": [{"other": "granian", "phase": "fixed", "factor": 1.7}],
        }],
    }  # fmt: skip


def test_spread_is_the_median_and_the_extremes() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert Spread.of([1.0, 2.0]) == Spread(1.5, 1.0, 2.0)
    assert Spread.of([]) is None


def test_ratios_are_formed_inside_a_round_and_skip_what_is_missing() -> None:
    assert ratios([10.0, None, 30.0, 5.0], [5.0, 1.0, 10.0, None]) == [2.0, 3.0]


@pytest.mark.parametrize(
    ("theirs", "verdict"),
    [((18.0, 36.0, 17.0), "met"), ((16.0, 32.0, 17.0), "MISSED")],
)
def test_a_bar_is_judged_by_the_median_of_the_rounds(
    theirs: tuple[float, ...], verdict: str
) -> None:
    # The host was half as fast in the second round: its quotient is as good as the others.
    rows = {
        "framegate": row(sample(10.0), sample(20.0), sample(10.0)),
        "granian": row(*(sample(value) for value in theirs)),
    }
    (bar,) = report.bars(result(rows))
    assert bar.verdict == verdict


def test_a_bar_without_a_measurement_says_so() -> None:
    rows = {"framegate": row(None, error="did not start"), "granian": row(sample(1.0))}
    (bar,) = report.bars(result(rows))
    assert (bar.measured, bar.verdict) == (None, "not measured")


def test_tables_hold_every_server_cheapest_first_and_the_reason_of_those_without_numbers() -> None:
    rows = {
        "granian": row(sample(20.0), sample(22.0)),
        "broken": row(None, None, error="not installed: no wheel"),
        "framegate": row(sample(10.0), sample(11.0)),
    }
    one = result(rows)
    table = report.phase_table(one["questions"][0]["phases"][0], "request")
    assert [line[0] for line in table.rows] == ["framegate", "granian", "broken"]
    assert table.rows[1][1:3] == ("21.0 (20.0-22.0)", "2.00")
    assert table.rows[2] == ("broken", "not measured: not installed: no wheel")
    text, markdown = report.text(one), report.markdown_full(one)
    for words in ("not installed: no wheel", "commit abc", "2026-01-02", "Linux 6.1", "granian"):
        assert words in text
        assert words in markdown
    assert "| framegate | 10.5 (10.0-11.0) | 1.00 |" in markdown


def test_the_summary_keeps_those_that_compete_apart_from_limits_the_least_first() -> None:
    rows = {
        "hyper": row(sample(5.0)),
        "uvicorn, ring": row(sample(30.0)),
        "broken": row(None, error="did not start"),
        "framegate": row(sample(10.0)),
        "granian": row(sample(20.0)),
    }
    assert report.summary_table(result(rows)).rows == [
        ("Hello; 10 requests/s", "10.0", "granian 20.0; uvicorn, ring 30.0; broken -", "hyper 5.00")
    ]


def test_a_closed_loop_is_sorted_by_speed() -> None:
    rows = {
        "slow": row(sample(1.0, per_s=10.0, kept_rate=None)),
        "fast": row(sample(2.0, per_s=20.0, kept_rate=None)),
    }
    phase = result(rows, rate=None)["questions"][0]["phases"][0]
    assert [line[0] for line in report.phase_table(phase, "request").rows] == ["fast", "slow"]


def test_what_spoils_a_measurement_is_said() -> None:
    rows = {
        "framegate": row(sample(1.0, kept_rate=0.5, foreign_share=0.2)),
        "granian": row(sample(1.0), None, error="the server closed a connection"),
        "ring": row(sample(1.0, consumer={"frames": 100})),
    }
    said = "\n".join(report.warnings(result(rows)))
    assert "framegate: the rate was not kept" in said
    assert "framegate: others took 20% of the server's core" in said
    assert "granian: 1 of 2 rounds failed: the server closed a connection" in said
    assert "ring: the consumer saw only 10% of the frames" in said


def test_the_table_goes_between_the_markers_and_nowhere_else(tmp_path: Path) -> None:
    document = tmp_path / "README.md"
    (begin, end), (other, other_end) = markers("http"), markers("shm")
    document.write_text(f"before\n{begin}\nold\n{end}\nafter\n{other}\nkept\n{other_end}\n")
    assert report.write_between_markers(document, "new\n", "http")
    expected = f"before\n{begin}\nnew\n{end}\nafter\n{other}\nkept\n{other_end}\n"
    assert document.read_text() == expected
    assert not report.write_between_markers(document, "new\n", "http")


def test_the_documents_have_their_markers() -> None:
    for document in DOCUMENTS:
        for group in question.GROUPS:
            for marker in markers(group):
                assert document.read_text().count(f"{marker}\n") == 1


def test_a_document_without_markers_is_refused(tmp_path: Path) -> None:
    document = tmp_path / "README.md"
    document.write_text("nothing here\n")
    with pytest.raises(BenchError, match="has no lines"):
        report.write_between_markers(document, "new", "http")
    assert document.read_text() == "nothing here\n"


def write_result(folder: Path, name: str, questions: list[str], *, quick: bool) -> None:
    one = result({"framegate": row(sample(10.0))})
    (asked,) = one["questions"]
    one["questions"] = [{**asked, "name": which} for which in questions]
    one["settings"]["quick"] = quick
    (folder / name).write_text(json.dumps(one))


@pytest.fixture
def documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results and documents of our own; answers the folder of the results."""
    text = "".join(f"{first}\n{last}\n" for first, last in map(markers, question.GROUPS))
    for name in ("full.md", "summary.md"):
        (tmp_path / name).write_text(text)
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(driver, "DOCUMENTS", (tmp_path / "full.md", tmp_path / "summary.md"))
    monkeypatch.setattr(driver, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(driver, "DOCS", tmp_path / "docs")
    return tmp_path / "results"


def test_each_group_is_written_from_the_newest_result_that_has_it(
    documents: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_result(documents, "2026-01-01T00-00-00Z-a.json", ["hello"], quick=False)
    write_result(documents, "2026-01-02T00-00-00Z-b.json", ["hello", "shm_idle"], quick=False)
    write_result(documents, "2026-01-03T00-00-00Z-c.json", ["shm_idle"], quick=False)
    write_result(documents, "2026-01-04T00-00-00Z-d.json", ["hello"], quick=True)
    assert driver.main(["table"]) == 0
    full = f"{documents.parent / 'full.md'}: written from"
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith(full)]
    assert said == [
        f"{full} 2026-01-02T00-00-00Z-b.json",
        f"{full} 2026-01-03T00-00-00Z-c.json",
    ]


def test_no_result_is_an_error_and_so_is_nothing_but_a_quick_one(
    documents: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert driver.main(["table"]) == 1
    assert "no result yet" in capsys.readouterr().err
    write_result(documents, "2026-01-04T00-00-00Z-d.json", ["hello"], quick=True)
    assert driver.main(["table"]) == 1
    assert "do not belong in a document" in capsys.readouterr().err
    assert driver.main(["table", "--allow-quick"]) == 0
