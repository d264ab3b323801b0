"""Applications and clients for WebSocket tests."""

from __future__ import annotations

import asyncio
import queue
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from websockets.sync.client import ClientConnection, connect

from peers.h2_websocket import TunnelSocket
from peers.tls_threads import for_threads
from server_thread import Serve, Server
from websocket.raw import RawWebSocket, RawWebSocketOverHttp2

if TYPE_CHECKING:
    from tls.authority import Authority

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


OVER_HTTP2_TOO = {
    "test_backpressure", "test_close", "test_deflate", "test_framing", "test_messages", "test_ping",
}  # fmt: skip
"""Modules whose tests with raw connections run over HTTP/1.1 and 2, and over each in TLS."""

IN_TLS_TOO = {"test_handshake"}
"""Modules whose tests with raw connections run over HTTP/1.1, and in TLS."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Choose what raw connections speak, where the test does not choose itself."""
    if "http" not in metafunc.fixturenames:
        return
    module = metafunc.module.__name__.rpartition(".")[2]
    markers = metafunc.definition.iter_markers("parametrize")
    if any("http" in mark.args[0] for mark in markers):
        return
    if module in OVER_HTTP2_TOO:
        metafunc.parametrize("http", ["h1", "h2", "h1-tls", "h2-tls"])
    elif module in IN_TLS_TOO:
        metafunc.parametrize("http", ["h1", "h1-tls"])
    else:
        metafunc.parametrize("http", ["h1"])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what shows nothing more: TLS makes no difference to tasks."""
    superfluous = {("h1-tls", "plain"), ("h2-tls", "lazy")}

    def modes(item: pytest.Item) -> tuple[str, str]:
        parameters = (
            item.callspec.params
            if isinstance(item, pytest.Function) and hasattr(item, "callspec")
            else {}
        )
        return parameters.get("http", ""), parameters.get("task_mode", "")

    items[:] = [item for item in items if modes(item) not in superfluous]


@pytest.fixture(scope="session")
def authority() -> Authority:
    """One that everybody trusts; making keys takes a while."""
    reason = "cryptography is not published for this Python (a free-threaded 3.13)"
    made: Authority = pytest.importorskip("tls.authority", reason=reason).Authority()
    return made


@pytest.fixture
def serve(request: pytest.FixtureRequest, serve: Serve, tmp_path: Path) -> Serve:
    """Start servers as everywhere, with TLS where the test's raw connections want it."""
    http = request.node.callspec.params.get("http", "") if hasattr(request.node, "callspec") else ""
    if not http.endswith("-tls"):
        return serve
    issued = request.getfixturevalue("authority").issue("localhost").write(tmp_path)
    return lambda app, **options: serve(app, **issued, **options)


@pytest.fixture
def tls_context(http: str, request: pytest.FixtureRequest) -> ssl.SSLContext | None:
    """What a client needs for TLS, where raw connections have it."""
    if not http.endswith("-tls"):
        return None
    context: ssl.SSLContext = request.getfixturevalue("authority").client_context()
    if http == "h2-tls":
        context.set_alpn_protocols(["h2"])
    return context


@pytest.fixture
def dial(tls_context: ssl.SSLContext | None) -> Callable[..., ClientConnection]:
    """Connect by the library `websockets`, as raw connections would: `dial(server)`."""
    scheme = "ws" if tls_context is None else "wss"

    def connecting(server: Server, **options: Any) -> ClientConnection:
        context = tls_context and for_threads(tls_context)
        return connect(f"{scheme}://localhost:{server.port}/", ssl=context, **options)

    return connecting


@pytest.fixture
def raw(
    http: str, tls_context: ssl.SSLContext | None
) -> Iterator[Callable[[Server], RawWebSocket]]:
    """Open raw connections: `raw(server)`; they are closed at the end of the test."""

    def opening(server: Server) -> RawWebSocket:
        connection = server.connect()
        if tls_context is not None:
            connection = tls_context.wrap_socket(connection, server_hostname="localhost")
        if http.startswith("h2"):
            return RawWebSocketOverHttp2(TunnelSocket(connection))
        return RawWebSocket(connection)

    with ExitStack() as stack:
        yield lambda server: stack.enter_context(opening(server))


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


@pytest.fixture
def until_told(saw: Recorder) -> Callable[[], Awaitable[None]]:
    """`await until_told()` in an application: `saw` gives the test what tells it to go on."""

    async def wait() -> None:
        go = asyncio.Event()
        loop = asyncio.get_running_loop()
        saw(lambda: loop.call_soon_threadsafe(go.set))
        await go.wait()

    return wait


@pytest.fixture
def counting(saw: Recorder, until_told: Callable[[], Awaitable[None]]) -> Application:
    """An application that accepts, waits until it is told, and counts messages to the end."""

    async def count(scope: Any, receive: Any, send: Any) -> None:
        await until_told()
        number = 0
        while (await receive())["type"] == "websocket.receive":
            number += 1
        saw(number)

    return accepting(count)


@pytest.fixture(name="accepting")
def accepting_fixture() -> Callable[[Application], Application]:
    """Make an application that accepts first."""
    return accepting
