"""Applications and clients for WebSocket tests."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from websocket.raw import RawWebSocket

Application = Callable[[Any, Any, Any], Any]


class Recorder:
    """What an application saw, for the thread of the test."""

    def __init__(self) -> None:
        self._queue: queue.Queue[Any] = queue.Queue()

    def __call__(self, value: Any) -> None:
        self._queue.put(value)

    def next(self) -> Any:
        """The next value; waits for it."""
        return self._queue.get(timeout=30)

    @property
    def empty(self) -> bool:
        """True when nothing waits."""
        return self._queue.empty()


@pytest.fixture
def saw() -> Recorder:
    """A recorder."""
    return Recorder()


@pytest.fixture
def raw() -> Iterator[Callable[[Any], RawWebSocket]]:
    """Open raw connections: `raw(server)`; they are closed at the end of the test."""
    with ExitStack() as stack:
        yield lambda server: stack.enter_context(RawWebSocket(server.connect()))


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Send back what comes."""
    assert scope["type"] == "websocket"
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send(message | {"type": "websocket.send"})


@pytest.fixture
def echo_app() -> Application:
    """An application that sends back what comes."""
    return echo


def accepting(then: Application) -> Application:
    """An application that accepts, and goes on with `then`."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        await then(scope, receive, send)

    return app


@pytest.fixture(name="accepting")
def accepting_fixture() -> Callable[[Application], Application]:
    """Make an application that accepts first."""
    return accepting
