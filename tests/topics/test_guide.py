"""What docs/guide/topics.md says, done: its configuration, its commands, its consumer."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from server_process import Launch, launch

__all__ = ["launch"]

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "topics.md"


def block(kind: str) -> str:
    """All blocks of the kind that name this test, one after the other."""
    mark = r"<!-- run by: tests/topics/test_guide\.py -->\n"
    found = re.findall(rf"{mark}```{kind}\n(.*?)```", GUIDE.read_text(), re.S)
    assert found
    return "".join(found)


def test_guide_of_topics(launch: Launch, runtime: Path, tmp_path: Path) -> None:
    settings = tmp_path / "framegate.toml"
    settings.write_text(block("toml"))
    environment = {"FRAMEGATE_RUNTIME_DIR": str(runtime)}
    server = launch("supervised_apps:app", f"--config={settings}", extra=environment).wait_ready()
    command, said = "", ""

    def run() -> None:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), command
        if said:
            expected = re.escape(said.strip()).replace(re.escape("..."), "[0-9]+")
            assert re.fullmatch(expected, done.stdout.strip()), (command, done.stdout)

    for line in block("console").replace(":8000/", f":{server.port}/").splitlines():
        if line.startswith("$ "):
            if command:
                run()
            command, said = line[2:], ""
        else:
            said += line
    run()
    assert (tmp_path / "frame.jpg").read_bytes().startswith(b"\xff\xd8\xff")

    done = subprocess.run(
        [sys.executable, "-c", block("python")],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "(480, 640, 3) uint8 4"
