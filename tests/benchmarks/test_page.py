"""The benchmarks page of the docs says what the tables say, and its plots are to scale."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from framegate_bench import page, report
from framegate_bench.page import Figure, Plot
from framegate_bench.processes import BenchError

ROOT = Path(__file__).resolve().parents[2]
SVG = "{http://www.w3.org/2000/svg}"

TABLES = """\
Measured on a day.

### Bars

| question | quotient | bar | measured | verdict |
| --- | ---: | ---: | ---: | ---: |
| hello | CPU of granian / CPU of framegate | >= 1.70 | 1.83 (1.71-1.94) | met |
| hello | CPU of hyper / CPU of framegate | >= 0.75 | 0.70 (0.69-0.74) | MISSED |

### Hello: raw ASGI

20,000 requests/s:

| server | CPU us/request | x framegate | kernel % | switches/request | per s |
| --- | ---: | ---: | ---: | ---: | ---: |
| hyper | 10.0 (9.00-11.0) | 0.50 | 79.3 | 0.97 | 20,000 |
| framegate | 20.0 (18.0-22.0) | 1.00 | 50.0 | 0.95 | 20,000 (!) |
| robyn | not measured: it did not start |

Closed loop:

| server | CPU us/request | x framegate | kernel % | switches/request | per s |
| --- | ---: | ---: | ---: | ---: | ---: |
| framegate | 5.90 (5.67-6.14) | 1.00 | 65.7 | 0.00 | 168,086 (160,410-173,264) |
"""
TRANSPORTS = """\
Measured on another day.

### Shared memory from Python: one-way latency

Microseconds, median / 99th percentile:

|  | 64 B | 4 KiB |
| --- | ---: | ---: |
| framegate | 42.6 / 69.9 | 40.0 / 60.0 |
| limit: futex wake alone | 41.6 / 61.6 | - |
"""


def document(http: str = TABLES, shm: str = TRANSPORTS) -> str:
    parts = []
    for group, text in (("http", http), ("shm", shm)):
        parts += [report.BEGIN.format(group=group), text, report.END.format(group=group)]
    return "\n".join(parts)


def test_page_and_plots_are_what_the_tables_in_git_make() -> None:
    text, plots = page.page((ROOT / "benchmarks/README.md").read_text())
    assert (ROOT / "docs/benchmarks.md").read_text() == text, "run: uv run task bench:table"
    folder = ROOT / "docs/images/benchmarks"
    assert {path.name: path.read_text() for path in folder.iterdir()} == plots
    assert len(plots) > 10


@pytest.mark.parametrize(
    ("cell", "meant"),
    [
        ("17.8 (17.5-18.5)", Figure(17.8, 17.5, 18.5, "17.8")),
        ("239,366 (229,500-249,574)", Figure(239366, 229500, 249574, "239,366")),
        ("42.6 / 69.9", Figure(42.6, 42.6, 69.9, "42.6")),
        ("2,135,432 / 0.14", Figure(2135432, 2135432, 2135432, "2,135,432")),
        ("59,999 (!)", Figure(59999, 59999, 59999, "59,999")),
        ("0.00", Figure(0, 0, 0, "0.00")),
        ("-", None),
        ("", None),
        ("not measured: it did not start", None),
    ],
)
def test_a_cell_is_a_figure_with_its_range_or_none(cell: str, meant: Figure | None) -> None:
    assert page.figure(cell) == meant


def test_a_question_has_a_plot_of_the_fixed_rate_and_one_of_the_closed_loop() -> None:
    text, plots = page.page(document())
    assert sorted(plots) == [
        "hello-raw-asgi-cpu.svg",
        "hello-raw-asgi-rate.svg",
        "python-one-way-latency-4-kib.svg",
    ]
    for name in plots:
        assert f"](images/benchmarks/{name})" in text
    assert "hyper 10.0; framegate 20.0 (!)](" in text
    assert "Measured on a day." in text and "Measured on another day." in text


def test_plots_of_questions_that_are_called_alike_have_different_names() -> None:
    question = TABLES.partition("### Hello: raw ASGI")[2]
    text, plots = page.page(document(f"{TABLES}\n### Hello: raw ASGI{question}"))
    assert {"hello-raw-asgi-cpu.svg", "hello-raw-asgi-cpu-2.svg"} <= set(plots)
    assert all(text.count(f"/{name})") == 1 for name in plots)


def test_bars_that_were_missed_stand_on_the_page_and_those_that_were_met_do_not() -> None:
    text, _ = page.page(document())
    assert "here 1 of 2" in text
    assert "| hello | CPU of hyper / CPU of framegate | >= 0.75 | 0.70 (0.69-0.74) |" in text
    assert "1.83" not in text
    assert "None of 0." in text  # of shared memory


def test_bars_of_a_plot_are_to_scale_ours_marked_and_limits_drawn_apart() -> None:
    bars = (
        ("framegate", Figure(20.0, 15.0, 30.0, "20.0")),
        ("granian <2>", Figure(40.0, 40.0, 40.0, "40.0")),
        ("hyper", Figure(10.0, 10.0, 90.0, "10.0")),
    )
    root = ElementTree.fromstring(page.svg(Plot("name", "Title & more", "us", bars)))
    drawn = [one for one in root.iter(f"{SVG}rect") if one.get("class") in {"f", "b", "l"}]
    assert [one.get("class") for one in drawn] == ["f", "b", "l"]
    widths = [float(one.get("width", "")) for one in drawn]
    assert widths == pytest.approx([widths[1] / 2, widths[1], widths[1] / 4])
    assert widths[1] == page.WIDTH - page.LABEL - page.VALUE
    texts = [one.text for one in root.iter(f"{SVG}text")]
    assert texts[:4] == ["Title & more", "us", "framegate", "20.0"]
    # The range from 15 to 30; that of hyper ends where the room does.
    ranges = [one.get("d", "") for one in root.iter(f"{SVG}path")]
    ends = [tuple(map(float, re.findall(r"[MH]([\d.]+)", one))) for one in ranges]
    unit = widths[1] / 40
    assert ends[0] == pytest.approx((page.LABEL + 15 * unit, page.LABEL + 30 * unit), abs=0.1)
    assert ends[1][1] == page.LABEL + widths[1]
    assert len(ends) == 2


def test_a_limit_that_is_far_away_is_cut_and_presses_nobody_together() -> None:
    bars = (
        ("hyper", Figure(229_687.0, 200_000.0, 240_000.0, "229,687")),
        ("framegate", Figure(10_000.0, 10_000.0, 10_000.0, "10,000")),
    )
    root = ElementTree.fromstring(page.svg(Plot("name", "Title", "us", bars)))
    drawn = [one for one in root.iter(f"{SVG}rect") if one.get("class") in {"f", "l"}]
    room = page.WIDTH - page.LABEL - page.VALUE
    assert [float(one.get("width", "")) for one in drawn] == [room, room / 2]
    assert [one.get("class") for one in root.iter(f"{SVG}path")] == ["g"]  # the cut, and no range


def test_writing_is_done_once_and_removes_plots_of_questions_that_are_gone(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(document())
    stale = tmp_path / "images/benchmarks/gone.svg"
    stale.parent.mkdir(parents=True)
    stale.write_text("<svg/>")
    assert page.write(readme, tmp_path)
    assert not stale.exists()
    assert not page.write(readme, tmp_path)
    assert (tmp_path / "benchmarks.md").read_text().startswith("<!-- Generated")


def test_a_document_without_the_markers_is_refused() -> None:
    with pytest.raises(BenchError, match="no group shm"):
        page.page(document().replace("benchmark shm: end", ""))
