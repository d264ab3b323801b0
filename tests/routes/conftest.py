"""An app in both lanes: the worker's own, and ASGI behind a middleware."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from framegate import App
from server_thread import Serve

Client = Callable[[App], httpx.Client]


def as_asgi(app: App) -> Any:
    """The app as somebody's middleware sees it."""

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)

    return middleware


@pytest.fixture(params=["native", "asgi"])
def lane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(serve: Serve, lane: str) -> Iterator[Client]:
    """Serve an app and give a client of it; everything has to be the same in both lanes."""
    with contextlib.ExitStack() as stack:

        def start(app: App) -> httpx.Client:
            server = serve(app if lane == "native" else as_asgi(app))
            return stack.enter_context(httpx.Client(base_url=server.url, timeout=20))

        yield start
