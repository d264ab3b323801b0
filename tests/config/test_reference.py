"""The reference pages are what the schema says today."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

REFERENCE = Path(__file__).resolve().parents[2] / "docs/reference"


@pytest.mark.parametrize("name", ["config.md", "cli.md", "limits.md"])
def test_page_is_current(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    spec = importlib.util.spec_from_file_location("generate", REFERENCE / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (REFERENCE / name).read_text() == module.PAGES[name](), (
        "run: uv run python docs/reference/generate.py"
    )
