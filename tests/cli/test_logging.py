"""What the server says about itself: one line per event, coloured on a terminal only."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator

import pytest

from framegate.logging import banner, configure, logger


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def untouched_logger(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    before = (logger.handlers[:], logger.level, logger.propagate)
    logger.handlers[:] = []
    yield
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


def test_event_is_one_aligned_line() -> None:
    stream = io.StringIO()
    configure("info", prefix="worker 1: ", stream=stream)
    logger.info("ready")
    logger.warning("a %s", "word")
    logger.debug("not shown")
    first, second = stream.getvalue().splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d info     worker 1: ready", first)
    assert re.fullmatch(r"\d\d:\d\d:\d\d warning  worker 1: a word", second)


def test_traceback_follows_its_line() -> None:
    stream = io.StringIO()
    configure("info", stream=stream)
    try:
        raise LookupError("no such thing")
    except LookupError:
        logger.exception("failed")
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith("failed")
    assert lines[1].startswith("Traceback")
    assert lines[-1] == "LookupError: no such thing"


@pytest.mark.parametrize(
    ("stream", "variables", "coloured"),
    [
        (io.StringIO, {}, False),
        (Terminal, {}, True),
        (Terminal, {"NO_COLOR": "1"}, False),
        (io.StringIO, {"FORCE_COLOR": "1"}, True),
        (io.StringIO, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_level_is_coloured_on_a_terminal_only(
    stream: type[io.StringIO],
    variables: dict[str, str],
    coloured: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    target = stream()
    configure("info", stream=target)
    logger.error("bad")
    assert ("\x1b[31merror   \x1b[0m bad" in target.getvalue()) is coloured


def test_handler_of_the_program_is_left_alone() -> None:
    records: list[logging.LogRecord] = []

    class Collecting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    logger.addHandler(Collecting())
    configure("info")
    logger.info("ready")
    assert [record.getMessage() for record in records] == ["ready"]
    assert len(logger.handlers) == 1


def test_banner_says_what_runs_and_warns_of_a_development_build() -> None:
    build = {"python": "3.13.0", "gil": False, "profile": "debug"}
    lines = banner("0.1.0", ["http://127.0.0.1:8000", "http://[::1]:8000"], 2, build, "main:app")
    assert lines[0] == "framegate 0.1.0 serves main:app on http://127.0.0.1:8000 http://[::1]:8000"
    assert lines[1] == "2 worker processes, Python 3.13.0 (no GIL)"
    assert "development build" in lines[2]
    assert len(banner("0.1.0", [], 1, {**build, "profile": "release"}, "main:app")) == 2
