"""`uv build` makes one sdist and one wheel, and the wheel works in an empty environment."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str, cwd: Path, **environment: str) -> str:
    clean = {
        key: value for key, value in os.environ.items() if key not in {"VIRTUAL_ENV", "PYTHONPATH"}
    }
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.timeout(1200)
def test_wheel_works_in_an_empty_environment(tmp_path: Path) -> None:
    # What users get has the release profile (`task test:wheel`), which takes minutes to link.
    # --no-build-isolation: the build's tools are those of this environment.
    profile = os.environ.get("FRAMEGATE_TESTS_CARGO_PROFILE", "dev")
    settings = []
    if profile != "release":
        # In a directory of its own: CMake remembers the profile, and the next `uv build` may be
        # for users.
        settings = ["-C", f"cmake.define.FRAMEGATE_CARGO_PROFILE={profile}"]
        settings += ["-C", f"build-dir={tmp_path / 'build'}"]
    run(
        "uv",
        "build",
        "--sdist",
        "--wheel",
        "--no-build-isolation",
        *settings,
        "-o",
        str(tmp_path),
        "--python",
        sys.executable,
        cwd=ROOT,
    )
    (sdist,) = tmp_path.glob("*.tar.gz")
    (wheel,) = tmp_path.glob("*.whl")
    with tarfile.open(sdist) as archive:
        names = [name.split("/", 1)[1] for name in archive.getnames() if "/" in name]
    assert {
        "pyproject.toml",
        "Cargo.lock",
        "rust/py/src/lib.rs",
        "cpp/include/framegate/shm.h",
        "LICENSE",
    } <= set(names)
    assert not [
        name
        for name in names
        if name.endswith((".so", ".whl")) or name.startswith(("target/", "build/"))
    ]
    with zipfile.ZipFile(wheel) as archive:
        packed = archive.namelist()
    assert {"framegate/_http.pyi", "framegate/_shm.pyi", "framegate/py.typed"} <= set(packed)
    assert len([name for name in packed if name.endswith(".so")]) == 2
    # For C++ and C programs; test_cmake.py builds some.
    assert {
        "framegate/include/framegate/shm.h",
        "framegate/lib/libframegate_shm.a",
        "framegate/lib/cmake/framegate/framegateConfig.cmake",
        "framegate/include/framegate/gc.hpp",
        # For `platform docs`.
        "framegate/docs/guide/frames.md",
        "framegate/docs/reference/errors.md",
        # For Rust programs; test_cargo.py builds one.
        "framegate/rust/framegate-shm/Cargo.toml",
        "framegate/rust/framegate-shm/build.rs",
        "framegate/rust/framegate-shm/src/lib.rs",
    } <= set(packed)

    run("uv", "venv", "--python", sys.executable, str(tmp_path / "venv"), cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    run("uv", "pip", "install", "--no-index", "--python", str(python), str(wheel), cwd=tmp_path)
    code = (
        "import framegate, json, platform, sys\n"
        "assert 'numpy' not in sys.modules\n"
        "assert platform.python_version()\n"
        "print(framegate.build_info()['profile'])\n"
    )
    expected = "release" if profile == "release" else "debug"
    assert run(str(python), "-c", code, cwd=tmp_path).strip() == expected
    program = (
        "import framegate\n"
        "with framegate.Publisher('wheel/check', slot_bytes=64) as publisher:\n"
        "    with framegate.Subscriber('wheel/check') as subscriber:\n"
        "        publisher.send(b'hello')\n"
        "        with subscriber.take(timeout=5) as frame:\n"
        "            print(bytes(frame).decode())\n"
    )
    assert (
        run(
            str(python), "-c", program, cwd=tmp_path, FRAMEGATE_RUNTIME_DIR=str(tmp_path / "run")
        ).strip()
        == "hello"
    )
    explained = run(str(python.with_name("platform")), "docs", "FG-SHM-005", cwd=tmp_path)
    assert explained.startswith("## FG-SHM-005\n\n`TopicFull`")
    for command in ("platform", "framegate"):
        assert "framegate" in run(str(python.with_name(command)), "--version", cwd=tmp_path)
