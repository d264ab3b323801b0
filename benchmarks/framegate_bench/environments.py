"""Everything that is measured, installed where it cannot disturb anything else.

framegate: the release wheel of this tree, built once per state of the sources, in
`.venvs/framegate`; through zig, and profile-guided where `train` was run before, as `task wheel`
does. A rival: `rivals/NAME.txt`, pinned with hashes, in `.venvs/NAME`. The native programs:
`native/`, built into `.build/`.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from framegate_bench.processes import BenchError

HOME = Path(__file__).resolve().parent.parent
ROOT = HOME.parent
BUILD = HOME / ".build"
VENVS = HOME / ".venvs"
RIVALS = HOME / "rivals"
LOGS = HOME / "results" / "logs"
TRAINED = BUILD / "pgo"
"""Profiles that `train` has made; the newest is what framegate is built with."""

# One interpreter for all that is measured: that of the driver (`uv run --python 3.13 task bench`).
PYTHON: str = getattr(sys, "_base_executable", sys.executable)

# Rivals that are published for one Python only.
ONLY_PYTHON = {"shmx": "3.13"}

BUILD_TIMEOUT_S = 3600.0
INSTALL_TIMEOUT_S = 600.0

# What ends up in the wheel; the same list as `cache-keys` in the root pyproject.toml, plus the
# Python sources.
WHEEL_SOURCES = (
    "pyproject.toml", "Cargo.toml", "Cargo.lock", "CMakeLists.txt", "cmake/*",
    "rust/**/*", "cpp/**/*", "python/framegate/**/*", "web/src/*", "web/*.json", "web/*.mjs",
    ".ci/zig*",
)  # fmt: skip


def _uv() -> str:
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        raise BenchError("uv was not found; the benchmarks build and install with it")
    return uv


def _run(
    command: Sequence[str | Path],
    what: str,
    timeout_s: float,
    folder: Path = ROOT,
    **environment: str,
) -> None:
    """Run a command quietly; what it said goes into the error, and all of it into a log."""
    log = LOGS / "build.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    # framegate is built with the tools of the driver's environment: uv.lock pins them.
    tools = {
        "VIRTUAL_ENV": sys.prefix,
        "PATH": f"{Path(sys.prefix, 'bin')}{os.pathsep}{os.environ['PATH']}",
    }
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with log.open("a") as output:
        output.write(f"$ {' '.join(map(str, command))}\n")
        output.flush()
        try:
            code = subprocess.run(
                [str(word) for word in command],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={**clean, **tools, **environment},
                timeout=timeout_s,
            ).returncode
        except subprocess.TimeoutExpired:
            raise BenchError(f"{what} took more than {timeout_s:.0f} s (log: {log})") from None
    if code != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-8:])
        raise BenchError(f"{what} failed (log: {log}):\n{tail}")


def _digest(paths: Sequence[Path], *words: str) -> str:
    digest = hashlib.sha256("\0".join(words).encode())
    for path in paths:
        digest.update(str(path).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _python_for(name: str) -> str:
    """The interpreter of an environment: the driver's, unless the rival exists for another only."""
    version = ONLY_PYTHON.get(name)
    if version is None or f"{sys.version_info.major}.{sys.version_info.minor}" == version:
        return PYTHON
    # pyenv keeps versions that its shims hide.
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for found in sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}")):
        return str(found)
    for folder in os.environ["PATH"].split(os.pathsep):
        program = Path(folder, f"python{version}")
        if program.exists() and "shims" not in program.parts:
            return str(program)
    raise BenchError(f"{name} is published for Python {version} only, which is not installed")


def _make_venv(name: str, wheel: Path | None, pinned: str | None = None) -> Path:
    """A venv with `rivals/NAME.txt` (and a wheel), made again only when one of these changed."""
    venv = VENVS / name
    pins = RIVALS / f"{pinned or name}.txt"
    python = _python_for(name)
    key = _digest([pins, *([wheel] if wheel else [])], python)
    stamp = venv / "framegate-bench.key"
    if stamp.exists() and stamp.read_text() == key:
        return venv
    if venv.exists():
        shutil.rmtree(venv)
    _run([_uv(), "venv", "--quiet", "--python", python, venv], f"making {venv}", INSTALL_TIMEOUT_S)
    install: list[str | Path] = [
        _uv(),
        "pip",
        "install",
        "--quiet",
        "--python",
        venv / "bin/python",
    ]
    _run([*install, "--require-hashes", "-r", pins], f"installing {pins.name}", INSTALL_TIMEOUT_S)
    if wheel is not None:
        _run([*install, "--no-deps", wheel], f"installing {wheel.name}", INSTALL_TIMEOUT_S)
    stamp.write_text(key)
    return venv


def rival(name: str) -> Path:
    """The venv of a rival."""
    return _make_venv(name, None)


def _wheel(pgo: str) -> Path:
    """The release wheel of the sources as they are now; `pgo` as in cmake/build_http.py."""
    sources = sorted(
        path
        for pattern in WHEEL_SOURCES
        for path in ROOT.glob(pattern)
        if path.is_file() and path.suffix not in {".so", ".pyc"}
    )
    folder = BUILD / "wheel" / _digest(sources, PYTHON, pgo)
    found = sorted(folder.glob("framegate-*.whl"))
    if not found:
        print("building the release wheel of framegate (minutes the first time)", file=sys.stderr)
        command: list[str | Path] = ["bash", ROOT / ".ci/zig-wheel", platform.machine(), folder]
        if pgo.startswith("generate="):  # zig cannot link it
            command = [_uv(), "build", "--wheel", "--out-dir", folder, ROOT]
        python = sys.executable
        _run(command, "building the wheel", BUILD_TIMEOUT_S, FRAMEGATE_PGO=pgo, UV_PYTHON=python)
        found = sorted(folder.glob("framegate-*.whl"))
    if len(found) != 1:
        raise BenchError(f"expected one wheel in {folder}, found {len(found)}")
    return found[0]


def instrumented(counts: Path) -> Path:
    """The venv of a framegate that writes into a folder how often what ran."""
    return _make_venv("framegate-instrumented", _wheel(f"generate={counts}"), "framegate")


def framegate() -> tuple[Path, dict[str, Any]]:
    """The venv of framegate and its build information; refuses anything but a release build."""
    profiles = sorted(TRAINED.glob("http-*.profdata"), key=lambda path: path.stat().st_mtime)
    venv = _make_venv("framegate", _wheel(f"use={profiles[-1]}" if profiles else ""))
    ask = "import framegate, json; print(json.dumps(framegate.build_info(), default=str))"
    command = [str(venv / "bin/python"), "-c", ask]
    # From another folder, so that the package that answers is the installed one.
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=60)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BenchError(f"framegate.build_info() of the built wheel failed: {last}")
    info: dict[str, Any] = json.loads(done.stdout)
    if info.get("profile") != "release":
        raise BenchError(
            f"refusing to measure a build with profile {info.get('profile')!r}: "
            "only release builds are measured"
        )
    return venv, info


def native(profile: str = "release") -> Path:
    """The folder with `loadgen`, `limit` and `receive`; the tests build them in profile `dev`."""
    target = BUILD / "native"
    command: list[str | Path] = [
        "cargo", "build", "--profile", profile, "--locked", "--jobs", "2", "--target-dir", target,
        "--manifest-path", HOME / "native/Cargo.toml",
    ]  # fmt: skip
    if shutil.which("cargo") is None:
        raise BenchError("cargo was not found; the load generator is written in Rust")
    _run(command, "building benchmarks/native", BUILD_TIMEOUT_S)
    return target / ("debug" if profile == "dev" else profile)


def native_iceoryx2() -> Path:
    """The folder of iceoryx2's program; its crate is built for nothing else."""
    return _native_crate("iceoryx2")


def native_websocket() -> Path:
    """The folder of the program with the WebSocket codecs."""
    return _native_crate("websocket")


def _native_crate(name: str) -> Path:
    target = BUILD / "native"
    command: list[str | Path] = [
        "cargo", "build", "--release", "--locked", "--jobs", "2", "--target-dir", target,
        "--manifest-path", HOME / "native/Cargo.toml", "--package", f"framegate-bench-{name}",
    ]  # fmt: skip
    if shutil.which("cargo") is None:
        raise BenchError(f"cargo was not found; benchmarks/native/{name} is written in Rust")
    _run(command, f"building benchmarks/native/{name}", BUILD_TIMEOUT_S)
    return _as_environment(f"native-{name}", target / "release")


def native_framegate() -> Path:
    """The folder of framegate's C++ program and of the allocation counter, release build."""
    build = BUILD / "native-framegate"
    source = HOME / "native/framegate"
    configure: list[str | Path] = [
        "cmake",
        "-S",
        source,
        "-B",
        build,
        "-G",
        "Ninja",
        "-DCMAKE_BUILD_TYPE=Release",
    ]
    _run(configure, "configuring benchmarks/native/framegate", BUILD_TIMEOUT_S)
    _run(["cmake", "--build", build], "building benchmarks/native/framegate", BUILD_TIMEOUT_S)
    return build


def _as_environment(name: str, programs: Path) -> Path:
    """A folder whose `bin` is the folder of these programs, like that of a venv."""
    folder = BUILD / name
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / "bin"
    if not link.is_symlink():
        link.symlink_to(programs)
    return folder


NATIVE = {
    "native-iceoryx2": native_iceoryx2,
    "native-framegate": native_framegate,
    "native-websocket": native_websocket,
}
"""Environments that are built and not installed."""


def allocation_counter() -> Path:
    """The library that counts allocations when it is preloaded."""
    return BUILD / "native-framegate/bin/libcount_allocations.so"


def pin() -> None:
    """Write `rivals/NAME.txt` from `rivals/NAME.in`: the newest versions, with hashes."""
    for source in sorted(RIVALS.glob("*.in")):
        command = [
            _uv(), "pip", "compile", "--quiet", "--upgrade", "--universal",
            "--python-version", ONLY_PYTHON.get(source.stem, "3.11"), "--generate-hashes",
            "--custom-compile-command", "task bench:pin",
            f"rivals/{source.name}", "--output-file", f"rivals/{source.stem}.txt",
        ]  # fmt: skip
        _run(command, f"pinning {source.name}", INSTALL_TIMEOUT_S, HOME)


def versions(venv: Path) -> dict[str, str]:
    """All that is installed in a venv."""
    command = [_uv(), "pip", "list", "--format", "json", "--python", str(venv / "bin/python")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        return {}
    return {entry["name"]: entry["version"] for entry in json.loads(done.stdout)}


def locked_crates(*names: str) -> dict[str, str]:
    """Versions of crates that `native/` is built with."""
    import tomllib

    lock = tomllib.loads((HOME / "native/Cargo.lock").read_text())
    return {one["name"]: one["version"] for one in lock["package"] if one["name"] in names}
