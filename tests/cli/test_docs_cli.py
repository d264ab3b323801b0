"""`platform docs`: every page, the codes of errors, searching; and who points there."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from framegate import docs_cli, errors
from framegate.cli import main
from framegate.errors import FramegateError, TopicFull, describe

ROOT = Path(__file__).resolve().parents[2]
CODES = {
    value.code: value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, FramegateError)
}


def test_every_page_is_listed_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    names = {path.stem for path in (ROOT / "docs/guide").glob("*.md")}
    names |= {path.stem for path in (ROOT / "docs").glob("*.md")}
    names |= {f"reference/{path.stem}" for path in (ROOT / "docs/reference").glob("*.md")}
    assert set(docs_cli.pages()) == names
    assert main(["docs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["PAGE", "TITLE"]
    assert {line.split()[0] for line in lines[1:]} == names
    assert "Frames between processes" in "".join(lines)
    for name in ("frames", "docs/guide/frames.md", "guide/frames"):
        assert main(["docs", name]) == 0
        assert capsys.readouterr().out == (ROOT / "docs/guide/frames.md").read_text()
    assert main(["docs", "reference/limits"]) == 0
    assert capsys.readouterr().out == (ROOT / "docs/reference/limits.md").read_text()


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_code_is_explained_where_its_error_points(
    code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cls = CODES[code]
    *_, pointer = describe(cls("x")).splitlines()
    program, *words = pointer.removeprefix("  more: ").split()
    assert program == "platform"
    assert main(words) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"## {code}\n\n`{cls.__name__}`.")
    assert out.count("## ") == 1
    assert cls.__doc__ is not None and cls.__doc__.splitlines()[0] in out


def test_a_command_that_fails_says_problem_cause_fix_code_and_where_to_read(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = TopicFull("no slot of cam is free", cause="4 are held", fix="more slots")
    assert describe(error).splitlines() == [
        "error: FG-SHM-005 no slot of cam is free",
        "  cause: 4 are held",
        "  fix: more slots",
        "  more: platform docs FG-SHM-005",
    ]
    assert main(["topic", "info", "no/such/topic"]) == 1
    assert capsys.readouterr().err.endswith("\n  more: platform docs FG-SHM-002\n")


def test_words_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["docs", "--find", "ETAG if-none-match"]) == 0
    found = capsys.readouterr().out.splitlines()
    assert found
    for line in found:
        name, number, text = line.split(":", 2)
        there = docs_cli.pages()[name].read_text().splitlines()[int(number) - 1]
        assert text.strip() == there.strip()
        assert "etag" in text.lower() and "if-none-match" in text.lower()
    assert main(["docs", "tls", "--find", "certificate"]) == 0
    assert {line.split(":")[0] for line in capsys.readouterr().out.splitlines()} == {"tls"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["frmes"], 'there is no page "frmes"; did you mean frames?'),
        (["qqqqqqqq"], 'there is no page "qqqqqqqq"; platform docs lists them'),
        (["../../pyproject"], "there is no page"),
        (["FG-SHM-999"], 'there is no error "FG-SHM-999"'),
        (["--find", "no page says this of itself"], "no page has a line with"),
    ],
)
def test_what_is_not_there(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["docs", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err


def test_an_installation_without_pages_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(docs_cli, "__file__", str(tmp_path / "framegate/docs_cli.py"))
    assert main(["docs"]) == 1
    assert "built without it" in capsys.readouterr().err
    (tmp_path / "framegate/docs/guide").mkdir(parents=True)
    (tmp_path / "framegate/docs/guide/one.md").write_text("# The one\n")
    assert main(["docs"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["one", "The", "one"]
