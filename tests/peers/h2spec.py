"""The conformance test of HTTP/2 as a client: h2spec, a program written in Go."""

from __future__ import annotations

import asyncio
import re
import subprocess
from pathlib import Path
from typing import Any

from apps import respond

__all__ = ["answer_slowly", "run_all"]

PROGRAM = Path(__file__).resolve().parents[2] / "build/tools/h2spec"
CASES_MIN = 140


async def answer_slowly(scope: Any, receive: Any, send: Any) -> None:
    """Answer as the cases need it: one wants requests to pile up, and others want a body."""
    await asyncio.sleep(0.02)
    await respond(send, b"hello")


def run_all(host: str, port: int, *words: str) -> None:
    """Run every case, those of the priorities that RFC 9113 has dropped included; none may fail."""
    assert PROGRAM.exists(), "h2spec is missing: run `task setup`"
    out = subprocess.run(
        [str(PROGRAM), "--strict", "-h", host, "-p", str(port), "-o", "5", *words],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    found = re.search(r"(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed", out.stdout)
    assert found, out.stdout
    assert int(found[1]) > CASES_MIN
    assert found[4] == "0", out.stdout
