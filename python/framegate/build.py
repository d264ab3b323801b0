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
        `version`, `python`, `gil`, and what each native module knows of itself, among it
        `profile`: `release`, or `dev` for a build that must not be measured.
    """
    from framegate import _http, _shm

    facts: dict[str, Any] = {"version": version("framegate"), **python_info()}
    for module in (_http, _shm):
        describe = getattr(module, "build_info", None)
        if describe is not None:
            facts.update(describe())
    return facts


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
