"""`--reload` as whoever develops sees it: a browser, a file that is saved, a page that follows."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from peers.chromium import chromium
from server_process import Launch, ServerProcess

PATIENCE_MS = 60_000

SOURCE = """
import os, pathlib
HERE = pathlib.Path(__file__).parent

async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
    elif scope["type"] == "http":
        template = (HERE / "page.html").read_text()
        text = template.replace("CODE", "VERSION").replace("PID", str(os.getpid())).encode()
        headers = [(b"content-type", b"text/html"), (b"content-length", b"%d" % len(text))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})
    else:
        raise RuntimeError("no lifespan")
"""
TEMPLATE = """<!doctype html><title>t</title><h1>CODE</h1><p>TEXT</p><em>PID</em>
<script>window.chat = new WebSocket(`ws://${location.host}/chat`);</script>"""


class Project:
    """The files that somebody edits."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()
        self.save_code("code 1")
        self.save_template("text 1")

    def save_code(self, version: str) -> None:
        (self.directory / "live_app.py").write_text(SOURCE.replace("VERSION", version))

    def break_code(self) -> None:
        (self.directory / "live_app.py").write_text("def broken(:\n")

    def save_template(self, text: str) -> None:
        (self.directory / "page.html").write_text(TEMPLATE.replace("TEXT", text))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


@pytest.fixture
def server(launch: Launch, project: Project) -> Iterator[ServerProcess]:
    where = ("--app-dir", str(project.directory), "--reload")
    server = launch("live_app:app", *where).wait_ready()
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, server: ServerProcess) -> Iterator[Page]:
    """The page of the application, connected: it hears of what happens from now on."""
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    watch_live(page)
    page.goto(f"http://127.0.0.1:{server.port}/")
    expect(page.locator("h1")).to_have_text("code 1")
    wait_connected(page)
    yield page
    context.close()


def watch_live(page: Page) -> None:
    """Count what the script of the page has heard, where the page itself can tell."""
    page.add_init_script(
        """
        const Real = WebSocket;
        window.heard = 0;
        window.WebSocket = class extends Real {
            constructor(...words) {
                super(...words);
                if (String(words[0]).includes("/.framegate/live"))
                    this.addEventListener("message", () => { window.heard += 1; });
            }
        };
        """
    )


def wait_connected(page: Page) -> None:
    page.wait_for_function("() => window.heard >= 1 && window.chat.readyState === 1")


def mark(page: Page) -> None:
    """What is gone when the page is loaded again."""
    page.evaluate("() => { window.marked = true; }")


def test_page_follows_the_code(page: Page, project: Project) -> None:
    for number in (2, 3):
        mark(page)
        project.save_code(f"code {number}")
        expect(page.locator("h1")).to_have_text(f"code {number}", timeout=PATIENCE_MS)
        assert page.evaluate("() => window.marked") is None
        wait_connected(page)


def test_mistake_is_shown_and_goes_away(page: Page, project: Project) -> None:
    project.break_code()
    expect(page.locator("h1")).to_have_text("The application does not start", timeout=PATIENCE_MS)
    expect(page.locator("pre")).to_have_text(
        re.compile(r"live_app\.py.*def broken\(:.*SyntaxError", re.S)
    )
    page.wait_for_function("() => window.heard >= 1")
    project.save_code("code 2")
    expect(page.locator("h1")).to_have_text("code 2", timeout=PATIENCE_MS)


def test_template_only_refreshes(page: Page, project: Project, server: ServerProcess) -> None:
    pid = page.locator("em").text_content()
    mark(page)
    ended = threading.Event()

    def save() -> None:
        # Again and again until it is seen: when the watching has begun, nobody can see.
        while not ended.wait(0.5):
            project.save_template("text 2")

    saver = threading.Thread(target=save)
    saver.start()
    try:
        expect(page.locator("p")).to_have_text("text 2", timeout=PATIENCE_MS)
    finally:
        ended.set()
        saver.join()
    assert page.evaluate("() => window.marked") is None
    assert page.locator("em").text_content() == pid  # the same worker
    assert "starting the worker anew" not in server.text


def test_open_websocket_is_closed(page: Page, project: Project) -> None:
    page.evaluate("() => { window.chat.onclose = () => sessionStorage.setItem('closed', 'yes'); }")
    project.save_code("code 2")
    expect(page.locator("h1")).to_have_text("code 2", timeout=PATIENCE_MS)
    assert page.evaluate("() => sessionStorage.getItem('closed')") == "yes"
    wait_connected(page)  # and the page has a new one
