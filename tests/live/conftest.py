"""A server with the live page, publishers that go on by themselves, and a browser."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

import framegate
from peers.chromium import chromium
from server_process import launch
from server_thread import Serve, Server
from topics.conftest import runtime_of_each

__all__ = ["launch", "runtime_of_each"]


@pytest.fixture
def task_mode() -> str:
    """No request of the page reaches the application."""
    return "plain"


async def untouched(scope: Any, receive: Any, send: Any) -> None:
    raise NotImplementedError


@pytest.fixture
def live(serve: Serve) -> Callable[..., Server]:
    """Start a server with the page at /live: `live(**options)`."""

    def start(**options: Any) -> Server:
        return serve(untouched, **{"topics": "/topics", "live": "/live", **options})

    return start


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


class Visit:
    """A page, what it complained about, and whom it talked to."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        self.origins: set[str] = set()
        self.sockets_opened = self.sockets_closed = 0
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self._asked(request.url))
        page.on("websocket", self._opened)

    def _opened(self, socket: Any) -> None:
        self._asked(socket.url)
        self.sockets_opened += 1
        socket.on("close", self._closed)

    def _closed(self, _: Any) -> None:
        self.sockets_closed += 1

    def wait_until_closed(self) -> None:
        """Waits until none of the page's WebSockets is open."""
        while self.sockets_closed < self.sockets_opened:
            self.page.wait_for_timeout(50)

    def _said(self, message: Any) -> None:
        if message.type == "error":
            self.errors.append(message.text)

    def _asked(self, url: str) -> None:
        scheme, _, rest = url.partition("://")
        if scheme in ("http", "https", "ws", "wss"):
            self.origins.add(rest.partition("/")[0])


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """Open the page of a server: `visit(server, "#topic=cam", width=..., script=...)`."""
    with ExitStack() as stack:

        def open_page(server: Server, rest: str = "", **options: Any) -> Visit:
            width, script = options.pop("width", 1200), options.pop("script", None)
            context = browser.new_context(
                viewport={"width": width, "height": 800}, accept_downloads=True, **options
            )
            stack.callback(context.close)
            if script is not None:
                context.add_init_script(script)
            page = context.new_page()
            seen = Visit(page)
            page.goto(f"http://127.0.0.1:{server.port}/live/{rest}")
            return seen

        yield open_page


Make = Callable[[int], "np.ndarray[Any, Any]"]


@pytest.fixture
def publish(runtime: Path) -> Iterator[Callable[..., Any]]:
    """Publish on a topic, again and again, until the block ends: `with publish(name, make):`."""

    @contextmanager
    def run(name: str, make: Make, period: float = 0.03, **options: Any) -> Iterator[None]:
        first = make(0)
        options = {"dtype": str(first.dtype), "shape": first.shape, "slots": 8, **options}
        stop = threading.Event()
        with framegate.Publisher(name, **options) as publisher:

            def go_on() -> None:
                number = 0
                while not stop.wait(period):
                    publisher.send(make(number))
                    number += 1

            thread = threading.Thread(target=go_on)
            thread.start()
            try:
                yield
            finally:
                stop.set()
                thread.join()

    yield run


def moving(number: int, shape: tuple[int, int, int] = (90, 160, 3)) -> np.ndarray[Any, Any]:
    """A bright square that walks over a dark picture."""
    picture = np.full(shape, 30, np.uint8)
    at = number * 3 % (shape[1] - 20)
    picture[30:50, at : at + 20] = (250, 200, 40)[: shape[2]]
    return picture
