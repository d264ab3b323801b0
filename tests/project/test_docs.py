"""Every code block in README and docs runs; every path that ARCHITECTURE.md names exists.

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


def test_paths_named_in_architecture_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    named = re.findall(
        r"`((?:rust|cpp|python|tests|docs|benchmarks|examples|cmake|\.ci)/[\w./-]*)`", text
    )
    assert named, "ARCHITECTURE.md names no path"
    missing = [path for path in named if not (ROOT / path).exists()]
    assert not missing, missing
