"""THIRD-PARTY-LICENSES: everything of others that the wheel has is named there, with its words."""

from __future__ import annotations

import runpy
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = ROOT / "THIRD-PARTY-LICENSES"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "cmake" / "third_party.py"))


def test_file_is_what_its_command_writes(script: dict[str, Any]) -> None:
    assert COMMITTED.read_text() == script["document"](), "run python cmake/third_party.py"


def test_every_linked_crate_is_named_with_a_text(script: dict[str, Any]) -> None:
    text = COMMITTED.read_text()
    in_lock = script["names_in_lock"]()
    linked = {}
    for platform in script["PLATFORMS"]:
        linked.update(script["linked"](platform))
    assert len(linked) > 50
    for package in linked.values():
        name, version = package["name"], package["version"]
        assert (name, version) in in_lock
        entry = text.partition(f"\n{name} {version} (")[2].partition("\n")[2].splitlines()[0]
        assert entry.startswith("    ") and ": text " in entry, name


@pytest.mark.parametrize(
    ("library", "words"),
    [
        (
            "turbojpeg-sys",
            "This software is based in part on the work of the Independent JPEG Group",
        ),
        ("turbojpeg-sys", "The Modified (3-clause) BSD License"),
        ("libwebp-sys", "Google"),
        ("zstd-sys", "Meta Platforms"),
        ("aws-lc-sys", "OpenSSL"),
        ("nanobind (C++)", "Wenzel Jakob"),
        ("nanobind (C++)", "Thibaut Goetghebuer-Planchon"),
        ("xxHash (C)", "Yann Collet"),
    ],
)
def test_c_libraries_come_with_their_words(library: str, words: str) -> None:
    text = COMMITTED.read_text()
    entry = text.partition(f"\n{library} ")[2].partition("\n")[2]
    numbers = []
    for line in entry.splitlines():
        if not line.startswith("    "):
            break
        numbers.append(line.rpartition(": text ")[2])
    rule = "=" * 96
    found = [text.partition(f"\n{rule}\ntext {number}\n{rule}\n")[2] for number in numbers]
    found = [one.partition(f"\n{rule}\n")[0] for one in found]
    assert any(words in " ".join(one.split()) for one in found), numbers


def test_installed_distribution_has_the_file() -> None:
    files = distribution("framegate").files or []
    (found,) = [file for file in files if file.name == "THIRD-PARTY-LICENSES"]
    assert "licenses" in found.parts
    assert found.read_text() == COMMITTED.read_text()
