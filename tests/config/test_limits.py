"""Every limit of the core has a reason, an answer, and tests that exist; its setting agrees."""

from __future__ import annotations

import functools
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from framegate.config import Config
from framegate.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
LIMITS: Any = runpy.run_path(str(ROOT / "docs/reference/limits.py"))


@functools.cache
def known_tests() -> set[str]:
    files = [*ROOT.glob("rust/http/**/*.rs"), *ROOT.glob("tests/**/*.py")]
    names: set[str] = set()
    for file in files:
        names.update(re.findall(r"(?:fn|def) (\w+)\(", file.read_text()))
    return names


@pytest.mark.parametrize("limit", LIMITS["limits"](), ids=lambda limit: limit.name)
def test_a_limit_says_everything(limit: Any) -> None:
    assert tuple(limit.parts) == LIMITS["PARTS"]
    assert limit.what.endswith(".")
    assert limit.tests
    assert set(limit.tests) <= known_tests()


@pytest.mark.parametrize("limit", LIMITS["limits"](), ids=lambda limit: limit.name)
def test_a_limit_and_its_setting_have_the_same_default(limit: Any) -> None:
    if limit.setting is not None:
        assert limit.setting.default == limit.default


def test_what_a_limit_is_over_http2_is_in_the_table() -> None:
    page = LIMITS["page"]()
    for limit in LIMITS["limits"]():
        assert f"- over HTTP/2: {limit.parts['over HTTP/2']}\n" in page


def test_all_limits_are_found() -> None:
    found = {limit.name for limit in LIMITS["limits"]()}
    source = (ROOT / "rust/http/src/config.rs").read_text()
    for struct in LIMITS["STRUCTS"]:
        body = source.split(f"pub struct {struct} {{", 1)[1].split("\n}\n", 1)[0]
        assert set(re.findall(r"^    pub (\w+):", body, re.MULTILINE)) <= found


def test_a_target_larger_than_the_head_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="raise header_bytes_max"):
        Config(target_bytes_max=20_000, header_bytes_max=8192)
    assert Config(header_bytes_max=8192).target_bytes_max == 16_384
