"""The build that counts and the build through zig, which uses the counts, name crates alike."""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

# Instead of a build it writes down what it would have been.
CARGO = """#!{python}
import json, os, sys
if sys.argv[1] != "rustc":
    os.execv({cargo!r}, [{cargo!r}, *sys.argv[1:]])
with open({said!r}, "w") as file:
    json.dump([sys.argv[1:], dict(os.environ)], file)
sys.exit(1)
"""
ZIG = r"""#!/bin/sh
case "$1" in
  version) echo 0.16.0 ;;
  cc | c++) printf '#include <...> search starts here:\n\nEnd of search list.\n' >&2 ;;
esac
"""


def asked_of_cargo(folder: Path, **environment: str) -> tuple[list[str], dict[str, str]]:
    """Arguments and settings of cargo for a build of the module."""
    folder.mkdir()
    cargo, said = shutil.which("cargo"), folder / "said.json"
    for name, text in {
        "cargo": CARGO.format(python=sys.executable, cargo=cargo, said=str(said)),
        "zig": ZIG,
    }.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("CARGO", "FRAMEGATE_PGO", "FRAMEGATE_ZIG")) or name == "CARGO_HOME"
    }
    path = os.pathsep.join((str(folder), str(Path(sys.executable).parent), os.environ["PATH"]))
    command = [sys.executable, "cmake/build_http.py", "--profile", "release"]
    command += ["--target-dir", str(ROOT / "build"), "--out", str(folder / "out")]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**inherited, **environment, "PATH": path, "XDG_CACHE_HOME": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert said.exists(), done.stderr
    found: Any = json.loads(said.read_text())
    words, settings = found
    at = words.index("--target-dir")
    del words[at : at + 2]
    return words, settings


def test_profile_of_a_build_by_gcc_fits_a_build_through_zig(tmp_path: Path) -> None:
    # It did not: maturin sets three variables with --zig, cargo names crates by them, and a profile
    # knows functions by the names of their crates. Nothing failed; a hello took 17,648 user
    # instructions instead of 14,875.
    zig = {
        "FRAMEGATE_ZIG_TARGET": f"{platform.machine()}-linux-gnu.2.28",
        "CARGO_ZIGBUILD_ZIG_PATH": str(tmp_path / "use/zig"),
    }
    profile = tmp_path / "profile"
    profile.touch()  # rustc asks for it, and cargo for rustc
    counting = asked_of_cargo(tmp_path / "count", FRAMEGATE_PGO="generate=counts")
    using = asked_of_cargo(tmp_path / "use", FRAMEGATE_PGO=f"use={profile}", **zig)
    assert counting[0] == using[0]

    def naming(settings: dict[str, str]) -> dict[str, str]:
        """What cargo reads, but for the compilers and linkers that zig is instead."""
        return {
            name: value
            for name, value in settings.items()
            if name.startswith(("CARGO_", "__CARGO"))
            and not name.endswith(("_LINKER", "_RUSTFLAGS"))
            and "ZIGBUILD" not in name
        }

    assert naming(counting[1]) == naming(using[1])
    assert naming(using[1])["CARGO_TARGET_APPLIES_TO_HOST"] == "false"
    assert "-Cprofile-generate=counts" in counting[1]["RUSTFLAGS"]
    assert f"-Cprofile-use={profile}" in using[1]["RUSTFLAGS"]
