"""A test that hangs ends a run of several processes, by its name and with its stack."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]

HANGS = """
import threading

def test_that_waits_for_nobody():
    threading.Event().wait()
"""
ENDS = """
def test_that_ends():
    pass
"""


def test_a_hanging_test_ends_the_run_at_once(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text((TESTS / "conftest.py").read_text())
    (tmp_path / "test_one.py").write_text(HANGS)
    (tmp_path / "test_two.py").write_text(ENDS)
    words = ["-q", "-n", "2", "--dist", "loadfile", "--max-worker-restart", "0"]
    watchdog = ["--timeout", "3", "--timeout-method", "thread", "-o", "faulthandler_timeout=1"]
    found = subprocess.run(
        [sys.executable, "-m", "pytest", *words, *watchdog, "-o", f"pythonpath={TESTS}", tmp_path],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 1
    assert "test_one.py::test_that_waits_for_nobody is lost" in found.stdout
    assert "in test_that_waits_for_nobody" in found.stderr
