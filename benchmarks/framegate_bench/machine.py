"""What a table must say about where its numbers are from."""

import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from framegate_bench.procfs import core_time


def _first_value(path: str, key: str) -> str:
    for line in Path(path).read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return "unknown"


def _said(command: list[str], folder: Path) -> str:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def busy_shares(cores: tuple[int, ...], seconds: float) -> list[float]:
    """How busy each core is while nothing is measured."""
    before = [core_time(core).busy_s for core in cores]
    time.sleep(seconds)
    after = [core_time(core).busy_s for core in cores]
    return [(late - early) / seconds for early, late in zip(before, after, strict=True)]


def describe(root: Path) -> dict[str, Any]:
    """Machine, kernel, compilers, commit and date, for the result file."""
    memory_kib = int(_first_value("/proc/meminfo", "MemTotal").split()[0])
    cpu = _first_value("/proc/cpuinfo", "model name")
    family, model = (_first_value("/proc/cpuinfo", key) for key in ("cpu family", "model"))
    is_virtual = "hypervisor" in _first_value("/proc/cpuinfo", "flags").split()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _said(["git", "rev-parse", "--short=12", "HEAD"], root),
        # Tables written into the documents by an earlier run do not change what is measured.
        "uncommitted": bool(
            _said(
                [
                    "git",
                    "status",
                    "--porcelain",
                    "--",
                    ".",
                    ":!README.md",
                    ":!benchmarks/README.md",
                ],
                root,
            )
        ),
        "cpu": f"{cpu} (family {family} model {model})",
        "cores": os.cpu_count(),
        "memory_gib": round(memory_kib / 2**20, 1),
        "virtual_machine": is_virtual,
        "kernel": platform.release(),
        "rustc": _said(["rustc", "--version"], root),
    }
