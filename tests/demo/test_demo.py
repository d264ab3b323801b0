"""`platform serve` without arguments, looked at in a real browser."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from docs_pictures import docs_picture
from framegate.demo import (
    BALL_TOPIC,
    CAMERA_TOPIC,
    CHANNELS,
    DEPTH_TOPIC,
    DETECTOR_TOPIC,
    HEIGHT,
    IMU_TOPIC,
    WIDTH,
)
from framegate.demo.camera import BALL_RADIUS, DEPTH_SCALE, DEPTH_SHAPE, Scene
from framegate.demo.detector import find_ball
from live.page import look, newer, tile
from peers.chromium import chromium


@dataclass(frozen=True)
class Demo:
    url: str
    process: subprocess.Popen[str]
    runtime: Path
    lines: list[str]

    def to_try(self) -> list[str]:
        """The live page and the lines to copy, without time and level."""
        said = [re.sub(r"^\S+ info +", "", line.rstrip()) for line in self.lines]
        (page,) = [line.removeprefix("live page: ") for line in said if "live page: " in line]
        first = said.index("try, in another terminal:") + 1
        return [page, *said[first : said.index(next(it for it in said if "ready" in it))]]


@pytest.fixture
def start() -> Iterator[Callable[..., Demo]]:
    """Start the demo with more options: `start("--live", "/look")`."""
    with ExitStack() as stack:

        def begin(*options: str) -> Demo:
            runtime = Path(tempfile.mkdtemp(prefix="framegate-demo-", dir="/dev/shm"))
            stack.callback(shutil.rmtree, runtime, ignore_errors=True)
            process = subprocess.Popen(
                [sys.executable, "-m", "framegate", "serve", "--port", "0", *options],
                env={**os.environ, "FRAMEGATE_RUNTIME_DIR": str(runtime), "NO_COLOR": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            stack.callback(end, process)
            assert process.stdout is not None
            seen: list[str] = []
            for line in process.stdout:
                seen.append(line)
                if "ready: pid" in line:
                    break
            else:
                pytest.fail("it did not start:\n" + "".join(seen))
            found = re.search(r"http://127\.0\.0\.1:\d+", "".join(seen))
            assert found
            return Demo(found[0], process, runtime, seen)

        yield begin


def end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


@pytest.fixture
def demo(start: Callable[..., Demo]) -> Demo:
    return start()


@pytest.fixture
def page() -> Iterator[Page]:
    with chromium() as browser:
        yield browser.new_page(viewport={"width": 1100, "height": 860})


def test_page_shows_topics_that_move(demo: Demo, page: Page) -> None:
    problems: list[str] = []
    page.on(
        "console",
        lambda message: problems.append(message.text) if message.type == "error" else None,
    )
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(demo.url)
    assert page.url.startswith(f"{demo.url}/live/")
    expect(page.locator("#link")).to_have_attribute("data-state", "live", timeout=30_000)
    for topic in (CAMERA_TOPIC, DEPTH_TOPIC, IMU_TOPIC, BALL_TOPIC):
        expect(tile(page, topic)).to_have_attribute("data-state", "live", timeout=30_000)
        selector = f'.tile[data-topic="{topic}"]'
        newer(page, selector, 0)
        first, values = look(page, f"{selector} canvas")
        assert values > 2, f"{topic} is blank"
        newer(page, selector, int(tile(page, topic).get_attribute("data-sequence")) + 3)
        assert look(page, f"{selector} canvas")[0] != first, f"{topic} stands still"
    docs_picture(page, "demo", height=720)
    assert not problems

    demo.process.send_signal(signal.SIGTERM)
    expect(page.locator("#link")).to_have_attribute("data-state", "lost", timeout=30_000)
    assert demo.process.wait(timeout=30) == 0
    # Cameras and detector ended with the server, and left no topic behind.
    assert not list(demo.runtime.glob("*.ctl"))
    alive = [
        path.parent.name
        for path in Path("/proc").glob("[0-9]*/environ")
        if str(demo.runtime).encode() in _read(path)
    ]
    assert alive == []


def test_lines_to_try_do_what_they_promise(demo: Demo, tmp_path: Path) -> None:
    """Those that the start prints, run as they stand."""
    page, picture, ask, consumer = demo.to_try()
    with httpx.Client(base_url=demo.url) as client:
        while BALL_TOPIC not in client.get("/topics").text:
            pass  # the detector has seen a picture
    path = ["bash", "-euo", "pipefail", "-c"]
    environment = {
        **os.environ,
        "FRAMEGATE_RUNTIME_DIR": str(demo.runtime),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }

    def run(line: str) -> str:
        return subprocess.run(
            [*path, line],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout

    assert page == f"{demo.url}/live/"
    run(picture)
    assert (tmp_path / "camera.jpg").read_bytes()[:3] == b"\xff\xd8\xff"
    place = json.loads(run(ask))
    assert 0 < place["x"] < WIDTH and 0 < place["y"] < HEIGHT
    assert len(run(consumer).strip("[]\n").split()) == 6


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it ended meanwhile
        return b""


def test_unknown_paths_and_methods_are_refused(demo: Demo) -> None:
    with httpx.Client(base_url=demo.url) as client:
        assert client.get("/nothing").status_code == 404
        refused = client.post("/")
        assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")
        assert client.head("/").headers["location"] == "/live/"
        code = "no-responder"
        while code in ("topic-unknown", "no-responder"):  # until the detector is there
            answer = client.post(f"/call/{DETECTOR_TOPIC}", content=b"no picture")
            code = answer.json()["code"]
        assert (answer.status_code, code) == (502, "call-failed")


def test_paths_can_be_others(start: Callable[..., Demo]) -> None:
    demo = start("--topics", "/t", "--live", "/look", "--topics-calls", "")
    page, picture, _ = demo.to_try()
    assert page == f"{demo.url}/look/"
    assert f"{demo.url}/t/{CAMERA_TOPIC}" in picture
    with httpx.Client(base_url=demo.url, follow_redirects=True) as client:
        assert client.get("/").url.path == "/look/"
        assert client.get("/t").status_code == 200


def test_depth_has_the_ball_in_front() -> None:
    scene = Scene()
    for number in (0, 57, 400):
        depth = scene.depth(number)
        rows, columns = DEPTH_SHAPE
        assert len(depth) == rows * columns
        x, y = scene.ball(number)
        assert depth[y // DEPTH_SCALE * columns + x // DEPTH_SCALE] == 1.0
        assert min(depth) == 1.0 and max(depth) == 4.0


def test_detector_finds_the_ball_where_the_camera_drew_it() -> None:
    scene = Scene()
    for number in (0, 1, 57, 400, 5000):
        pixels = bytearray(WIDTH * HEIGHT * CHANNELS)
        scene.draw(number, memoryview(pixels))
        x, y = scene.ball(number)
        found_x, found_y = find_ball(memoryview(pixels))
        assert abs(found_x - x) <= BALL_RADIUS // 2
        assert abs(found_y - y) <= BALL_RADIUS // 2


def test_detector_says_when_there_is_no_ball() -> None:
    assert find_ball(memoryview(bytes(WIDTH * HEIGHT * CHANNELS))) == (-1, -1)
