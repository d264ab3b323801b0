"""Flame graphs of a server under load, with the tools themselves; nothing here looks at speed."""

import os
import re
import sys
from pathlib import Path

import pytest
from framegate_bench import environments, measure, profiling, question
from framegate_bench.loadgen import Times
from framegate_bench.question import Question

# The first run compiles the load generator.
pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("kind", profiling.KINDS)
def test_flame_graphs_name_what_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(measure, "LOGS", tmp_path)
    cores = sorted(os.sched_getaffinity(0))
    # The development build in the place of the release wheel.
    bench = measure.Bench(
        {"framegate": Path(sys.prefix)},
        environments.native("dev"),
        measure.Cores(cores[0], cores[-1]),
        Times(3.0, 0.1),
        rounds=1,
    )
    (asked,) = question.load(environments.HOME, ["json_echo"])
    assert isinstance(asked, Question)
    picture = profiling.profile(kind, bench, asked, tmp_path / "profiles")
    text = picture.read_text()
    assert "bodies_app.py" in text
    if kind == "cpu":
        # Which of them are met is up to chance: on a busy machine there are few samples.
        assert re.search(r"\b(?:hyper|tokio|pyo3|_http)::", text), "frames of Rust"
