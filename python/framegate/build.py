"""How the installed package was built, and on what it runs."""

from __future__ import annotations

import sys
from typing import Any

from framegate.threading_model import runs_without_lock

__all__ = ["build_info", "python_info"]


def build_info() -> dict[str, Any]:
    """Return facts about the build.

    Returns:
        `version`; `profile`: `release`, or `debug` for a build that must not be measured;
        `pgo`: whether the compiler knew how often what runs under load (`task wheel`); `commit`;
        `rustc`; `cxx`, the C++ compiler; `segment_layout`; `python`, `implementation` and `gil` of
        this process.
    """
    from framegate import _http, _shm

    return {
        "version": _http.VERSION,
        "profile": _http.PROFILE,
        "pgo": _http.PGO,
        "commit": _http.COMMIT,
        "rustc": _http.RUSTC,
        "cxx": _shm.COMPILER,
        "segment_layout": _shm.LAYOUT_VERSION,
        **python_info(),
    }


def python_info() -> dict[str, Any]:
    """Return `python`, its version, and `gil`, whether it is on in this process."""
    # Every worker says this as it starts: `platform` and `importlib.metadata` would take 20 ms.
    implementation = sys.implementation.name
    return {
        "python": sys.version.split()[0],
        "implementation": "CPython" if implementation == "cpython" else implementation,
        "gil": not runs_without_lock(),
    }
