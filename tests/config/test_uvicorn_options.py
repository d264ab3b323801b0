"""Whoever comes from uvicorn: each of its options works by its name, or an answer says what to do.

The list is read from the installed uvicorn, so a new option there fails here.
"""

from __future__ import annotations

import click
import pytest
from uvicorn.main import main as uvicorn_command

from framegate.cli import main
from framegate.config import SETTINGS, Config
from framegate.errors import ConfigError
from framegate.uvicorn_options import INSTEAD

OURS = {spelling for item in SETTINGS for spelling in item.command_line}
# Options of the command itself, not of serve.
ELSEWHERE = {"--version", "--help"}


def options() -> list[click.Option]:
    return [item for item in uvicorn_command.params if isinstance(item, click.Option)]


def spellings() -> list[str]:
    return [text for item in options() for text in (*item.opts, *item.secondary_opts)]


def test_the_list_is_read() -> None:
    assert {"--port", "--reload", "--no-access-log"} <= set(spellings())
    assert len(spellings()) > 50


@pytest.mark.parametrize("spelling", sorted(set(spellings()) - OURS - ELSEWHERE))
def test_option_that_does_not_exist_here_says_what_to_do_instead(
    spelling: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "main:app", spelling, "1"]) == 2
    text = capsys.readouterr().err
    assert text.startswith(f"error: unknown option {spelling} (of uvicorn): ")
    assert text.count("\n") == 1
    assert len(text) > 60


def test_the_answer_is_the_same_in_code_and_in_a_file() -> None:
    with pytest.raises(ConfigError, match=r"unknown option loop \(of uvicorn\): leave it out"):
        Config.load({"loop": "uvloop"}, environment={}, search=False)


def test_no_answer_is_left_for_an_option_that_works() -> None:
    assert not {item.name for item in SETTINGS} & INSTEAD.keys()


def test_every_answer_is_for_an_option_that_uvicorn_has() -> None:
    assert {item.name for item in options()} >= INSTEAD.keys()


@pytest.mark.parametrize("item", options(), ids=lambda item: item.name)
def test_the_name_in_code_is_uvicorns(item: click.Option) -> None:
    ours = {setting.name: setting for setting in SETTINGS}
    if item.opts[0] in OURS:
        assert item.name in ours
        assert item.opts[0] in ours[str(item.name)].command_line


@pytest.mark.parametrize("item", options(), ids=lambda item: item.name)
def test_what_is_valid_for_uvicorn_is_valid_here(item: click.Option) -> None:
    """Its default value, where it is one that says something, is understood."""
    ours = {setting.name: setting for setting in SETTINGS}
    if item.name not in ours or item.default == "" or type(item.default) not in (str, int, float):
        return
    assert Config.load(
        command_line={str(item.name): str(item.default)}, environment={}, search=False
    )
