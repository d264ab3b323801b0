"""Applications and clients for WebSocket tests."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from peers.h2_websocket import TunnelSocket
from websocket.raw import RawWebSocket, RawWebSocketOverHttp2

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


OVER_BOTH = {"test_backpressure", "test_close", "test_framing", "test_messages", "test_ping"}
"""Modules whose tests with raw connections run over HTTP/1.1 and over HTTP/2."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Choose what raw connections speak, where the test does not choose itself."""
    markers = metafunc.definition.iter_markers("parametrize")
    if "raw" in metafunc.fixturenames and not any("http" in mark.args[0] for mark in markers):
        over_both = metafunc.module.__name__.rpartition(".")[2] in OVER_BOTH
        metafunc.parametrize("http", ["h1", "h2"] if over_both else ["h1"])


@pytest.fixture
def raw(http: str) -> Iterator[Callable[[Any], RawWebSocket]]:
    """Open raw connections: `raw(server)`; they are closed at the end of the test."""

    def connect(server: Any) -> RawWebSocket:
        if http == "h2":
            return RawWebSocketOverHttp2(TunnelSocket(server.connect()))
        return RawWebSocket(server.connect())

    with ExitStack() as stack:
        yield lambda server: stack.enter_context(connect(server))


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
