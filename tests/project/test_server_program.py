"""`cargo run -p framegate-server`: the server as one program, with the core linked in."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[2]
APP = """
import framegate._http
from framegate import App

api = App()


@api.get("/")
async def where() -> dict[str, str]:
    return {"core": framegate._http.__spec__.origin}
"""


@pytest.fixture(scope="module")
def program() -> Path:
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    # As the module is built (Taskfile.yml): what they share is there already.
    module = {
        "PYO3_PYTHON": getattr(sys, "_base_executable", sys.executable),
        "PYO3_ENVIRONMENT_SIGNATURE": f"cpython-{version}-64bit",
        "PYO3_BUILD_EXTENSION_MODULE": "1",
    }
    command = ["cargo", "build", "--quiet", "--locked", "-p", "framegate-server"]
    subprocess.run(command, cwd=ROOT, env={**os.environ, **module}, check=True, timeout=900)
    return ROOT / "target/debug/framegate-server"


@pytest.mark.timeout(1000)
def test_it_serves_a_file_and_ends_with_ctrl_c(program: Path, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(APP)
    command = [program, tmp_path / "one.py:api", "--port", "0", "--no-access-log"]
    environment = {**os.environ, "VIRTUAL_ENV": sys.prefix, "FRAMEGATE_RUNTIME_DIR": str(tmp_path)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line)
                if "ready" in line:
                    break
            address = re.search(r"http://127\.0\.0\.1:\d+", "".join(lines))
            assert address is not None, lines
            # The core is the one that is linked in, not the one that the package has.
            assert httpx.get(address[0]).json() == {"core": "built-in"}
            assert "_http." not in Path(f"/proc/{process.pid}/maps").read_text()
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
        finally:
            process.kill()


@pytest.mark.timeout(1000)
def test_without_an_application_it_says_what_it_wants(program: Path) -> None:
    done = subprocess.run([program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "framegate-server app.py --port 8000" in done.stderr
