"""The reference pages are what the schema says today."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

REFERENCE = Path(__file__).resolve().parents[2] / "docs/reference"


def generator() -> Any:
    spec = importlib.util.spec_from_file_location("generate", REFERENCE / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name", ["config.md", "config.schema.json", "cli.md", "limits.md", "c-abi.md"]
)
def test_page_is_current(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert (REFERENCE / name).read_text() == generator().PAGES[name](), (
        "run: uv run python docs/reference/generate.py"
    )


def test_the_c_page_has_every_function_type_and_constant_of_the_header() -> None:
    page = (REFERENCE / "c-abi.md").read_text()
    code = "\n".join(re.findall(r"```c\n(.*?)```", page, re.DOTALL))
    header = (REFERENCE.parents[1] / "cpp/include/framegate/shm.h").read_text()
    header = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    names = set(re.findall(r"\b(?:fg_|FG_)\w+", header)) - {"FG_FRAMEGATE_SHM_H"}
    assert len(names) > 150
    assert {name for name in names if not re.search(rf"\b{name}\b", code)} == set()
