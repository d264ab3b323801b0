"""The guide of moving names options that exist: ours in the schema, others in what is installed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from uvicorn.main import main as uvicorn_command

from framegate.config import SETTINGS
from framegate.uvicorn_options import INSTEAD

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide" / "moving.md"
OPTION = re.compile(r"`(--[a-z0-9-]+)")
OURS = {spelling for item in SETTINGS for spelling in item.command_line} | {"--config"}


def rows(peer: str) -> list[tuple[str, str]]:
    """Cells of the table below the heading of that peer: theirs, ours."""
    text = GUIDE.read_text().split(f"## From {peer}\n")[1].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [(cells[1].strip(), cells[2].strip()) for cells in (line.split("|") for line in lines)]


@pytest.mark.parametrize("peer", ["uvicorn", "gunicorn", "granian", "hypercorn"])
def test_options_of_ours_exist(peer: str) -> None:
    named = [
        option
        for theirs, ours in rows(peer)
        # "the same" means the name on the left.
        for option in OPTION.findall(theirs if ours.startswith("the same") else ours)
    ]
    assert len(named) > 5 or peer == "uvicorn"
    assert not [option for option in named if option not in OURS]


def test_each_option_of_uvicorn_that_is_missing_here_is_in_the_guide() -> None:
    expected = [(f"`--{name.replace('_', '-')}`", text) for name, text in INSTEAD.items()]
    assert rows("uvicorn") == expected
    theirs = {text for item in uvicorn_command.params for text in item.opts}
    assert {text.strip("`") for text, _ in expected} <= theirs


def test_options_of_hypercorn_exist() -> None:
    help_text = subprocess.run(
        [sys.executable, "-m", "hypercorn", "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    theirs = set(re.findall(r"--[a-z-]+", help_text))
    named = {option for text, _ in rows("hypercorn") for option in OPTION.findall(text)}
    assert named - theirs == set()


def test_the_guide_says_whose_headers_are_believed() -> None:
    """It is the difference that could be a hole on either side."""
    assert "**nobody is believed** until `--forwarded-allow-ips` names them" in GUIDE.read_text()
