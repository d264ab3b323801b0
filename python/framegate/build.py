"""How the installed package was built, and on what it runs."""

from __future__ import annotations

import platform
import sys
import sysconfig
from importlib.metadata import version
from typing import Any

__all__ = ["build_info", "python_info"]


def build_info() -> dict[str, Any]:
    """Return facts about the build.

    Returns:
        `version`; `profile`: `release`, or `debug` for a build that must not be measured;
        `commit`; `rustc`; `cxx`, the C++ compiler; `segment_layout`; `python`, `implementation`
        and `gil` of this process.
    """
    from framegate import _http, _shm

    return {
        "version": version("framegate"),
        "profile": _http.PROFILE,
        "commit": _http.COMMIT,
        "rustc": _http.RUSTC,
        "cxx": _shm.COMPILER,
        "segment_layout": _shm.LAYOUT_VERSION,
        **python_info(),
    }


def python_info() -> dict[str, Any]:
    """Return `python`, its version, and `gil`, whether it is on in this process."""
    enabled = getattr(sys, "_is_gil_enabled", None)
    gil = (
        bool(enabled()) if enabled is not None else not sysconfig.get_config_var("Py_GIL_DISABLED")
    )
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "gil": gil,
    }
