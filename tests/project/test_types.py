"""Users' type checkers know the type of everything that the package shows, and all has a docstring.

mypy (`task check`) reads the package from inside; this is how pyright sees it from outside.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from framegate import _http

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def seen_by_pyright() -> dict[str, Any]:
    command = [sys.executable, "-m", "pyright", "--verifytypes", "framegate", "--ignoreexternal"]
    # Pyright looks for the package in the environment that is active.
    environment = {**os.environ, "VIRTUAL_ENV": sys.prefix}
    environment["PATH"] = os.pathsep.join((f"{sys.prefix}/bin", os.environ.get("PATH", "")))
    done = subprocess.run(
        [*command, "--outputjson"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, 1}, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)["typeCompleteness"]
    assert found["packageName"] == "framegate"
    return found


@pytest.mark.timeout(300)
def test_every_public_symbol_has_a_known_type(seen_by_pyright: dict[str, Any]) -> None:
    unknown = [
        f"{symbol['name']}: {diagnostic['message']}"
        for symbol in seen_by_pyright["symbols"]
        if symbol["isExported"] and not symbol["isTypeKnown"]
        for diagnostic in symbol["diagnostics"]
    ]
    assert not unknown, "\n".join(unknown)
    assert seen_by_pyright["exportedSymbolCounts"]["withKnownType"] > 2000
    assert seen_by_pyright["completenessScore"] == 1


@pytest.mark.timeout(300)
def test_every_public_function_and_class_has_a_docstring(seen_by_pyright: dict[str, Any]) -> None:
    # Methods of native classes that public classes inherit are among them.
    bare = {
        symbol["name"]
        for symbol in seen_by_pyright["symbols"]
        for diagnostic in symbol["diagnostics"]
        if diagnostic["message"].startswith("No docstring found")
    }
    assert bare == set()
    assert seen_by_pyright["missingFunctionDocStringCount"] == 0
    assert seen_by_pyright["missingClassDocStringCount"] == 0


def test_the_stub_of_the_http_core_says_what_the_binary_says() -> None:
    stub = ast.parse((ROOT / "python/framegate/_http.pyi").read_text())
    compared = 0
    differing = []

    def compare(owner: Any, body: list[ast.stmt], prefix: str = "") -> None:
        nonlocal compared
        for node in body:
            if isinstance(node, ast.ClassDef) and hasattr(owner, node.name):
                compare(getattr(owner, node.name), node.body, f"{node.name}.")
            # The texts of methods that Python itself calls are Python's.
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("__"):
                continue
            # What is for tests is in builds with debug assertions only.
            native = getattr(owner, node.name, None)
            if native is None or any(
                isinstance(one, ast.Name) and one.id == "overload"
                for one in getattr(node, "decorator_list", [])
            ):
                continue
            compared += 1
            said = (ast.get_docstring(node) or "").split()
            if said != inspect.cleandoc(native.__doc__ or "").split():
                differing.append(prefix + node.name)

    compare(_http, stub.body)
    assert differing == []
    assert compared > 120
