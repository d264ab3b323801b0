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


@pytest.mark.parametrize("name", generator().PAGES)
def test_page_is_current(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert (REFERENCE / name).read_text() == generator().PAGES[name](), (
        "run: uv run python docs/reference/generate.py"
    )


def test_no_two_errors_share_a_code() -> None:
    page = (REFERENCE / "errors.md").read_text()
    codes = re.findall(r"^## (FG-.*)", page, re.MULTILINE)
    assert len(codes) > 40
    assert len(codes) == len(set(codes))


def test_the_python_page_has_a_text_for_every_public_name() -> None:
    page = (REFERENCE / "python.md").read_text()
    parts = re.split(r"^###+ (.*)\n", page, flags=re.MULTILINE)
    empty = [
        heading
        for heading, text in zip(parts[1::2], parts[2::2], strict=True)
        if not re.sub(r"```.*?```", "", text, flags=re.DOTALL).strip()
    ]
    assert len(parts) > 100
    assert empty == []


def test_the_c_page_has_every_function_type_and_constant_of_the_header() -> None:
    page = (REFERENCE / "c-abi.md").read_text()
    code = "\n".join(re.findall(r"```c\n(.*?)```", page, re.DOTALL))
    header = (REFERENCE.parents[1] / "cpp/include/framegate/shm.h").read_text()
    header = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    names = set(re.findall(r"\b(?:fg_|FG_)\w+", header)) - {"FG_FRAMEGATE_SHM_H"}
    assert len(names) > 150
    assert {name for name in names if not re.search(rf"\b{name}\b", code)} == set()
