"""The live page in Chromium: `start` until a picture moves, `scroll` over 50 topics.

`start` counts from the start of `platform serve` without arguments until the camera's tile has
drawn its second frame, in a browser that is open already; median of several starts. `scroll` walks
down and up the page by a step per animation frame while 50 topics publish 10 times a second, and
counts those frames, the gaps between them, and tasks of the page of over 50 ms.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from framegate_bench.processes import free_port
from playwright.sync_api import Browser, Page, sync_playwright

STARTS = 5
TOPICS = 50
PATIENCE_MS = 30_000
BROWSER = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]

PUBLISH = """
import sys, time
import framegate
publishers = [
    framegate.Publisher(f"camera/{number:02}", dtype="uint8", shape=(90, 160, 3), slots=4)
    for number in range(int(sys.argv[1]))
]
picture, due = bytearray(90 * 160 * 3), time.monotonic()
while True:
    for publisher in publishers:
        publisher.send(picture)
    picture[:] = bytes([(picture[0] + 7) % 256]) * len(picture)
    due += 0.1
    time.sleep(max(0.0, due - time.monotonic()))
"""
APP = """
async def app(scope, receive, send):
    raise NotImplementedError
"""
MOVES = """() => {
    const tile = document.querySelector('.tile[data-topic="demo/camera"]');
    const sequence = Number(tile?.dataset.sequence ?? 0);
    if (sequence > 0) window.first ??= sequence;
    return sequence > (window.first ?? Infinity);
}"""
SCROLL = """seconds => new Promise(resolve => {
    const main = document.querySelector("main");
    const gaps = [], tasks = [];
    new PerformanceObserver(list => tasks.push(...list.getEntries().map(one => one.duration)))
        .observe({ type: "longtask" });
    const began = performance.now();
    let before = began, step = 25;
    const walk = now => {
        if (now > before) gaps.push(now - before);
        before = now;
        const end = main.scrollHeight - main.clientHeight;
        if (main.scrollTop + step > end || main.scrollTop + step < 0) step = -step;
        main.scrollBy(0, step);
        if (now - began < seconds * 1000) requestAnimationFrame(walk);
        else resolve({ seconds: (now - began) / 1000, gaps, tasks });
    };
    requestAnimationFrame(walk);
})"""


@contextmanager
def runtime() -> Iterator[dict[str, str]]:
    """The environment of a runtime directory of its own."""
    folder = tempfile.mkdtemp(prefix=f"framegate-bench-{os.getpid()}-", dir="/dev/shm")
    try:
        yield {**os.environ, "FRAMEGATE_RUNTIME_DIR": folder}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running(environment: dict[str, str], *command: str) -> Iterator[None]:
    """A program, until the block ends."""
    process = subprocess.Popen(command, env=environment, stdout=sys.stderr, start_new_session=True)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def open_page(page: Page, port: int, path: str) -> None:
    """Go there as soon as somebody answers."""
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            time.sleep(0.002)
    page.goto(f"http://127.0.0.1:{port}{path}", wait_until="commit")


def start(browser: Browser, python: str) -> dict[str, float]:
    """Milliseconds from the start of the demo until its camera moves on the page."""
    found = []
    for turn in range(STARTS + 1):
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        port = free_port()
        with runtime() as environment:
            began = time.monotonic()
            with running(environment, python, "-m", "framegate", "serve", "--port", str(port)):
                open_page(page, port, "/live/")
                page.wait_for_function(MOVES, polling="raf", timeout=PATIENCE_MS)
                # The first one compiles what it imports.
                if turn:
                    found.append((time.monotonic() - began) * 1000)
        page.close()
    return {"moving_ms": statistics.median(found)}


def scroll(browser: Browser, python: str, seconds: float) -> dict[str, float]:
    """Frames per second, gaps and long tasks while somebody scrolls."""
    port = free_port()
    with runtime() as environment, tempfile.TemporaryDirectory() as folder:
        Path(folder, "scrolled_app.py").write_text(APP)
        environment["PYTHONPATH"] = folder
        words = ("--topics", "/topics", "--live", "/live", "--port", str(port), "--no-access-log")
        with (
            running(environment, python, "-c", PUBLISH, str(TOPICS)),
            running(environment, python, "-m", "framegate", "serve", "scrolled_app:app", *words),
        ):
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            open_page(page, port, "/live/")
            page.locator(".tile").nth(TOPICS - 1).wait_for(state="attached", timeout=PATIENCE_MS)
            page.wait_for_timeout(2000)
            said = page.evaluate(SCROLL, seconds)
            page.close()
    gaps = sorted(said["gaps"])
    return {
        "frames_per_s": len(gaps) / said["seconds"],
        "gap_p99_ms": gaps[int(len(gaps) * 0.99)],
        "task_max_ms": max(said["tasks"], default=0.0),
    }


def main() -> None:
    """Measure one of the two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("python", help="of the environment that is measured")
    parser.add_argument("case", choices=["start", "scroll"])
    parser.add_argument("--cores", required=True, help="all that may be used, as 0,1")
    parser.add_argument("--seconds", type=float, required=True, help="of scrolling")
    options = parser.parse_args()
    os.sched_setaffinity(0, {int(core) for core in options.cores.split(",")})
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or "/usr/bin/chromium", args=BROWSER
        )
        if options.case == "start":
            found = start(browser, options.python)
        else:
            found = scroll(browser, options.python, options.seconds)
        browser.close()
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
