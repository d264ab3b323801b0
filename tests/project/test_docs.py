"""Every code block in README and docs runs; every path and verb that pages name exists.

A Python block runs as a program of its own in an empty directory. A console block runs line by line
(lines that begin with `$ `). What cannot run as it stands says why in an HTML comment above the
block: `<!-- not run: REASON -->`, and a block that another test covers names it: `<!-- run by:
tests/... -->`.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from docs_pictures import BYTES_MAX
from framegate import errors
from framegate.config import SETTINGS

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(
    r"(?:<!-- (?P<mark>not run|run by): (?P<why>[^>]*?) -->\n+)?"
    r"^```(?P<language>\w+)\n(?P<code>.*?)^```",
    re.M | re.S,
)
LANGUAGES_RUN = {"python", "console", "bash", "sh"}


@dataclass(frozen=True)
class Block:
    file: str
    line: int
    language: str
    code: str
    mark: str | None
    why: str | None


def blocks() -> list[Block]:
    files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    found = []
    for file in files:
        text = file.read_text()
        for match in BLOCK.finditer(text):
            found.append(
                Block(
                    file=str(file.relative_to(ROOT)),
                    line=text.count("\n", 0, match.start("code")),
                    language=match["language"],
                    code=match["code"],
                    mark=match["mark"],
                    why=match["why"],
                )
            )
    return found


def runnable() -> list[Block]:
    return [block for block in blocks() if block.language in LANGUAGES_RUN and block.mark is None]


@pytest.mark.parametrize("block", runnable(), ids=lambda block: f"{block.file}:{block.line}")
def test_block_runs(block: Block, tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "FRAMEGATE_RUNTIME_DIR": str(tmp_path / "run"),
        "PYTHONWARNINGS": "error",
    }
    if block.language == "python":
        commands = [[sys.executable, "-c", block.code]]
    else:
        lines = [line[2:] for line in block.code.splitlines() if line.startswith("$ ")]
        commands = [["bash", "-euo", "pipefail", "-c", line] for line in lines or [block.code]]
    for command in commands:
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}{done.stderr}"


def test_blocks_that_another_test_covers_name_a_test_that_exists() -> None:
    for block in blocks():
        if block.mark == "run by":
            assert block.why is not None
            assert (ROOT / block.why.split("::")[0]).exists(), (
                f"{block.file}:{block.line} names {block.why}"
            )


def test_each_picture_is_made_by_a_test_shown_by_a_page_and_small() -> None:
    there = {path.stem: path for path in (ROOT / "docs").rglob("*.png")}
    assert there
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    made = set(re.findall(r"\bdocs_picture\(\s*page,\s*\"([\w-]+)\"", sources))
    assert set(there) == made
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    shown = {
        (page.parent / target).resolve()
        for page in pages
        for target in re.findall(r"!\[[^\]]+\]\(([\w./-]+\.(?:png|svg))\)", page.read_text())
    }
    assert {path.suffix for path in shown} == {".png", ".svg"}
    assert [path for path in shown if not path.exists()] == []
    pictures = {*there.values(), *(ROOT / "docs").rglob("*.svg")}
    assert pictures - shown == set()
    large = {path.name: path.stat().st_size for path in pictures}
    assert {name: size for name, size in large.items() if size > BYTES_MAX} == {}
    others = {".md", ".png", ".svg", ".py", ".json"}
    assert {path.suffix for path in (ROOT / "docs").rglob("*.*")} <= others | {".pyc"}


def test_options_and_errors_named_in_troubleshooting_exist() -> None:
    text = (ROOT / "docs/guide/troubleshooting.md").read_text()
    options = {name for item in SETTINGS for name in item.command_line} | {"--shm-size", "--ipc"}
    named = set(re.findall(r"`(--[a-z-]+)", text))
    assert named
    assert named - options == set()
    kinds = [value for value in vars(errors).values() if isinstance(value, type)]
    codes = {value.code for value in kinds if issubclass(value, errors.FramegateError)}
    named = set(re.findall(r"FG-[A-Z]+-\d+", text))
    assert named
    assert named - codes == set()
    names = {value.__name__ for value in kinds}
    named = set(re.findall(r"^\| `([A-Z]\w+)`", text, re.MULTILINE))
    assert named
    assert named - names == set()


PATH = re.compile(
    r"`((?:rust|cpp|python|tests|docs|benchmarks|examples|cmake|deploy|web|\.ci)/[\w./-]*)`"
)


def test_paths_named_in_docs_exist() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/README.md")]
    pages.remove(ROOT / "CHANGELOG.md")  # speaks of what was, too
    named = {(page.name, path) for page in pages for path in PATH.findall(page.read_text())}
    assert {name for name, _ in named} > {"ARCHITECTURE.md", "README.md", "crash-safety.md"}
    # Results of the benchmarks, and what a build makes, are not in git.
    made = ("benchmarks/results/",)
    missing = [
        (name, path)
        for name, path in sorted(named)
        if not path.startswith(made) and not (ROOT / path).exists()
    ]
    assert not missing, missing


def test_verbs_named_in_docs_exist() -> None:
    verbs = set(yaml.safe_load((ROOT / "Taskfile.yml").read_text())["tasks"])
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/README.md")]
    named = {
        (page.name, verb)
        for page in pages
        for verb in re.findall(r"(?:`|uv run )task ([a-z:]+)", page.read_text())
    }
    assert len(named) > 15
    assert {verb for _, verb in named} - verbs == set(), sorted(named)
