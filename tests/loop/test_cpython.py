"""CPython's own asyncio tests, on framegate's loop; see `cpython_exclusions.txt`."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
ENTRY = re.compile(r"(?P<name>[\w.]+)(?: \[(?P<versions>[\d., ]+)\])?: (?P<reason>\S.*)")

pytest.importorskip("test.test_asyncio", reason="this Python comes without its own tests")


def exclusions() -> dict[str, str]:
    """What is listed for this version of Python: name and reason."""
    found = {}
    for line in (HERE / "cpython_exclusions.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            entry = ENTRY.fullmatch(line)
            assert entry is not None, f"not an entry with a reason: {line!r}"
            versions = entry["versions"]
            if versions is None or VERSION in versions.replace(",", " ").split():
                found[entry["name"]] = entry["reason"]
    return found


def modules() -> list[str]:
    """All modules of CPython's asyncio tests."""
    spec = importlib.util.find_spec("test.test_asyncio")
    assert spec is not None and spec.submodule_search_locations is not None
    (folder,) = spec.submodule_search_locations
    return sorted(path.stem for path in Path(folder).glob("test_*.py"))


def test_every_listed_module_exists() -> None:
    listed = {name.partition(".")[0] for name in exclusions()}
    assert listed <= set(modules())


@pytest.mark.timeout(300)
@pytest.mark.parametrize("module", [name for name in modules() if name not in exclusions()])
def test_cpythons_own_tests_pass(module: str) -> None:
    process = subprocess.run(
        [sys.executable, str(HERE / "cpython_runner.py"), module],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert process.stdout, process.stderr
    result = json.loads(process.stdout.splitlines()[-1])
    assert result["loops"] > 0, "the module makes no loop of ours: list it"
    outcomes = {f"{module}.{name}": outcome for name, outcome in result["outcomes"].items()}
    assert "passed" in outcomes.values()
    listed = {name for name in exclusions() if name.startswith(f"{module}.")}
    assert listed <= outcomes.keys(), "listed, but there is no such test"
    failed = {name for name, outcome in outcomes.items() if outcome == "failed"}
    assert failed - listed == set(), process.stderr
    passed = {name for name, outcome in outcomes.items() if outcome == "passed"}
    assert passed & listed == set(), "listed, but these pass"
