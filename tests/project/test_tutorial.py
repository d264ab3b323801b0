"""docs/tutorial.md, done as a new user would: its files, its commands, its processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from playwright.sync_api import expect

from docs_pictures import docs_picture
from live.page import newer
from peers.chromium import chromium
from server_process import Launch, launch

__all__ = ["launch"]

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"
MARK = r"<!-- run by: tests/project/test_tutorial\.py -->\n"


def blocks() -> list[tuple[str, str]]:
    """Kind and text of each block, in the order of the page."""
    return re.findall(rf"{MARK}```(\w+)\n(.*?)```", TUTORIAL.read_text(), re.DOTALL)


def files() -> dict[str, str]:
    found: dict[str, str] = {}
    for kind, text in blocks():
        if kind != "console":
            name = text.split("\n")[0].removeprefix("# ")
            # "app.py, below" goes on with app.py.
            name = name.removesuffix(", below")
            found[name] = found.get(name, "") + "\n" + text
    return found


def commands() -> list[str]:
    lines = "".join(text for kind, text in blocks() if kind == "console").splitlines()
    return [line[2:] for line in lines if line.startswith("$ ")]


def look_at_the_live_page(address: str) -> None:
    """There it is, the page says."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 900, "height": 700})
        page.goto(address)
        tile = page.locator('.tile[data-topic="camera/front"]')
        expect(tile).to_have_attribute("data-state", "live", timeout=30_000)
        selector = '.tile[data-topic="camera/front"]'
        newer(page, selector, 0)
        newer(page, selector, int(str(tile.get_attribute("data-sequence"))) + 30)
        docs_picture(page, "tutorial", height=360)


def test_the_tutorial_from_camera_to_browser_to_answer(launch: Launch, tmp_path: Path) -> None:
    # Port 8000, which the page says, may be taken on this machine.
    for name, text in files().items():
        (tmp_path / name).write_text(text)
    assert commands()[0] == "platform serve"
    server = launch("app:app", f"--app-dir={tmp_path}").wait_ready()
    environment = {
        **os.environ,
        "FRAMEGATE_RUNTIME_DIR": str(server.runtime_directory),
        "PYTHONUNBUFFERED": "1",
    }
    here = f"127.0.0.1:{server.port}"
    camera = (tmp_path / "camera.py").read_text()
    assert '"127.0.0.1", 8000' in camera
    (tmp_path / "camera.py").write_text(camera.replace("8000", str(server.port)))

    def start(name: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, name],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    with ExitStack() as stack:
        sender = stack.enter_context(start("camera.py"))
        stack.callback(sender.kill)
        look_at_the_live_page(f"http://{here}/live/")
        finder = stack.enter_context(start("finder.py"))
        stack.callback(finder.kill)
        assert finder.stdout is not None
        said = finder.stdout.readline()
        assert re.fullmatch(r"frame \d+: x \d+, y 240\n", said), said
        for command in commands()[1:]:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", command.replace("127.0.0.1:8000", here)],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
            assert done.returncode == 0, (command, done.stdout, done.stderr)
            if command.endswith("/where"):
                place = json.loads(done.stdout)
                assert place["y"] == 239.5
                assert 39 <= place["x"] <= 600
            if command.endswith("topic list"):
                assert "camera/front" in done.stdout
        assert (tmp_path / "picture.jpg").read_bytes().startswith(b"\xff\xd8\xff")
        assert sender.poll() is None, sender.communicate()[0]
    assert server.stop() == 0
