"""The committed stub of the native module is what its generator makes of the binary."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_stub_is_current(tmp_path: Path) -> None:
    stub = tmp_path / "_shm.pyi"
    generate = [sys.executable, "-m", "nanobind.stubgen", "--quiet", "--module", "framegate._shm"]
    patterns = ["--pattern-file", str(ROOT / "cpp/python/_shm.pat"), "--output-file", str(stub)]
    subprocess.run([*generate, *patterns], check=True, timeout=60)
    config = ["--config", str(ROOT / "pyproject.toml")]
    ruff = [sys.executable, "-m", "ruff", "format", "--quiet", *config]
    subprocess.run([*ruff, str(stub)], check=True, timeout=60)
    committed = (ROOT / "python/framegate/_shm.pyi").read_text()
    assert stub.read_text() == committed, "run the commands of this test and commit the result"
