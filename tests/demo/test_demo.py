"""`platform serve` without arguments, looked at in a real browser."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from framegate.demo import CHANNELS, HEIGHT, WIDTH
from framegate.demo.camera import BALL_RADIUS, Scene
from framegate.demo.detector import find_ball
from peers.chromium import chromium


@dataclass(frozen=True)
class Demo:
    url: str
    process: subprocess.Popen[str]
    runtime: Path


@pytest.fixture
def demo() -> Iterator[Demo]:
    runtime = Path(tempfile.mkdtemp(prefix="framegate-demo-", dir="/dev/shm"))
    process = subprocess.Popen(
        [sys.executable, "-m", "framegate", "serve", "--port", "0"],
        env={**os.environ, "FRAMEGATE_RUNTIME_DIR": str(runtime), "NO_COLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                break
        else:
            pytest.fail("no URL in the banner:\n" + "".join(seen))
        yield Demo(found[0], process, runtime)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        shutil.rmtree(runtime, ignore_errors=True)


@pytest.fixture
def page() -> Iterator[Page]:
    with chromium() as browser:
        yield browser.new_page(viewport={"width": 1100, "height": 860})


def test_page_shows_the_moving_picture_its_rate_and_latency(
    demo: Demo, page: Page, tmp_path: Path
) -> None:
    problems: list[str] = []
    page.on(
        "console",
        lambda message: problems.append(message.text) if message.type == "error" else None,
    )
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(demo.url)
    state = page.locator("#state")
    expect(state).to_have_attribute("data-state", "live", timeout=30_000)
    expect(page.locator("#rate")).to_have_text(re.compile(r"^\d+\.\d frames/s$"), timeout=30_000)
    expect(page.locator("#latency")).to_have_text(re.compile(r"^[\d.]+ (µs|ms)$"))
    expect(page.locator("#detector")).to_have_text(re.compile(r"^[\d.]+ (µs|ms)$"))

    pixels = (
        "() => Array.from(document.getElementById('picture').getContext('2d')"
        ".getImageData(0, 0, 480, 270).data)"
    )
    first = page.evaluate(pixels)
    assert len(first) == WIDTH * HEIGHT * CHANNELS
    assert len(set(first)) > 50, "the picture is blank"
    sequence = int(page.locator("#sequence").inner_text())
    page.wait_for_function(
        f"() => Number(document.getElementById('sequence').textContent) > {sequence + 5}"
    )
    assert page.evaluate(pixels) != first, "the picture stands still"

    screenshot = Path(os.environ.get("FRAMEGATE_SCREENSHOTS", tmp_path)) / "demo.png"
    page.screenshot(path=screenshot)
    assert screenshot.stat().st_size > 10_000
    assert not [problem for problem in problems if "favicon" not in problem]

    page.get_by_role("button", name="Pause").click()
    expect(state).to_have_text("paused")
    page.get_by_role("button", name="Go on").click()
    expect(state).to_have_text("live")

    demo.process.send_signal(signal.SIGTERM)
    expect(state).to_have_attribute("data-state", "lost", timeout=30_000)
    assert demo.process.wait(timeout=30) == 0
    # Camera and detector ended with the server, and left no topic behind.
    assert not list(demo.runtime.glob("*.ctl"))
    alive = [
        path.parent.name
        for path in Path("/proc").glob("[0-9]*/environ")
        if str(demo.runtime).encode() in _read(path)
    ]
    assert alive == []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it ended meanwhile
        return b""


def test_unknown_paths_and_methods_are_refused(demo: Demo) -> None:
    for path, method, status in (
        ("/nothing", "GET", 404),
        ("/", "POST", 405),
        ("/status", "GET", 200),
    ):
        request = urllib.request.Request(demo.url + path, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                assert response.status == status
        except urllib.error.HTTPError as error:
            assert error.code == status
            error.close()


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
