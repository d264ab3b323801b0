"""Servers of several makes that send back what comes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import aiohttp.web
import pytest
import uvloop
import websockets.asyncio.server
import wsproto
import wsproto.events

from framegate.loop import new_event_loop
from server_thread import Serve

if TYPE_CHECKING:
    from tls.authority import Authority

PROXY_VARIABLES = [
    name for base in ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
    for name in (base, base.upper())
]  # fmt: skip


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine has."""
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)


async def echo_app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Send back what comes; answer `close CODE REASON` by closing so."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 404, "headers": [(b"x-why", b"x")]})
        await send({"type": "http.response.body", "body": b"nothing here"})
        return
    assert scope["type"] == "websocket"
    await receive()
    if scope["path"] == "/refused":
        await send({"type": "websocket.close"})
        return
    protocols = scope["subprotocols"]
    await send({"type": "websocket.accept", "subprotocol": protocols[-1] if protocols else None})
    while (message := await receive())["type"] == "websocket.receive":
        text = message.get("text")
        if text is not None and text.startswith("close "):
            code, _, reason = text.removeprefix("close ").partition(" ")
            await send({"type": "websocket.close", "code": int(code), "reason": reason})
            return
        await send(message | {"type": "websocket.send"})


class LoopThread:
    """An event loop on a thread, for servers that need one."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="peer")
        self.thread.start()

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(30)
        assert not self.thread.is_alive()
        self.loop.close()


@contextlib.contextmanager
def websockets_server(tls: ssl.SSLContext | None = None) -> Iterator[str]:
    async def echo(connection: websockets.asyncio.server.ServerConnection) -> None:
        async for message in connection:
            if isinstance(message, str) and message.startswith("close "):
                code, _, reason = message.removeprefix("close ").partition(" ")
                await connection.close(int(code), reason)
                return
            await connection.send(message)

    thread = LoopThread()

    async def start() -> Any:
        return await websockets.asyncio.server.serve(
            echo, "127.0.0.1", 0, ssl=tls, max_size=None,
            select_subprotocol=lambda _, names: names[-1] if names else None,
        )  # fmt: skip

    async def stop() -> None:
        server.close()
        await server.wait_closed()

    try:
        server = thread.run(start())
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        thread.run(stop())
    finally:
        thread.stop()


@contextlib.contextmanager
def aiohttp_server() -> Iterator[str]:
    async def echo(request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
        names = request.headers.get("sec-websocket-protocol", "").split(", ")
        connection = aiohttp.web.WebSocketResponse(protocols=names[-1:], max_msg_size=0)
        await connection.prepare(request)
        async for message in connection:
            if message.type == aiohttp.WSMsgType.TEXT and message.data.startswith("close "):
                code, _, reason = message.data.removeprefix("close ").partition(" ")
                await connection.close(code=int(code), message=reason.encode())
            elif message.type == aiohttp.WSMsgType.TEXT:
                await connection.send_str(message.data)
            else:
                await connection.send_bytes(message.data)
        return connection

    thread = LoopThread()

    async def start() -> tuple[aiohttp.web.AppRunner, int]:
        app = aiohttp.web.Application()
        app.router.add_get("/{path:.*}", echo)
        runner = aiohttp.web.AppRunner(app)
        await runner.setup()
        site = aiohttp.web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return runner, runner.addresses[0][1]

    try:
        runner, port = thread.run(start())
        yield f"127.0.0.1:{port}"
        thread.run(runner.cleanup())
    finally:
        thread.stop()


@contextlib.contextmanager
def wsproto_server() -> Iterator[str]:
    """One thread for each connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def serve(connection: socket.socket) -> None:
        with connection:
            _wsproto_echo(connection)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=serve, args=(connection,), name="peer"))
            threads[-1].start()

    accepting = threading.Thread(target=accept, name="accepting")
    accepting.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for thread in [accepting, *threads]:
            thread.join(30)
            assert not thread.is_alive()


def _wsproto_echo(connection: socket.socket) -> None:
    state = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
    deflate = wsproto.extensions.PerMessageDeflate()
    while True:
        data = connection.recv(65536)
        state.receive_data(data or None)
        for event in state.events():
            match event:
                case wsproto.events.Request():
                    chosen = event.subprotocols[-1] if event.subprotocols else None
                    answer: Any = wsproto.events.AcceptConnection(chosen, [deflate])
                case wsproto.events.TextMessage() if event.data.startswith("close "):
                    code, _, reason = event.data.removeprefix("close ").partition(" ")
                    answer = wsproto.events.CloseConnection(int(code), reason)
                case wsproto.events.Message():
                    kind = type(event)
                    answer = kind(event.data, message_finished=event.message_finished)
                case wsproto.events.Ping():
                    answer = event.response()
                case wsproto.events.CloseConnection():
                    with contextlib.suppress(wsproto.utilities.LocalProtocolError, OSError):
                        connection.sendall(state.send(event.response()))
                    return
                case _:
                    continue
            connection.sendall(state.send(answer))
        if not data:
            return


PEERS = ("framegate", "websockets", "aiohttp", "wsproto")


@pytest.fixture(params=PEERS)
def echo(request: pytest.FixtureRequest, serve: Serve) -> Iterator[str]:
    """The URL of an echo."""
    if request.param == "framegate":
        yield f"ws://127.0.0.1:{serve(echo_app).port}/"
        return
    servers = {
        "websockets": websockets_server, "aiohttp": aiohttp_server, "wsproto": wsproto_server,
    }  # fmt: skip
    with servers[request.param]() as place:
        yield f"ws://{place}/"


@pytest.fixture
def own_echo(serve: Serve) -> str:
    """The URL of framegate's own echo."""
    return f"ws://127.0.0.1:{serve(echo_app).port}/"


@pytest.fixture
def task_mode() -> str:
    """How the server makes tasks is no concern of its clients."""
    return "plain"


@pytest.fixture(params=["asyncio", "uvloop", "framegate"])
def run(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """Run a coroutine on a loop of each make; nothing may reach the loop's exception handler."""
    factories: dict[str, Any] = {
        "asyncio": asyncio.new_event_loop,
        "uvloop": uvloop.new_event_loop,
        "framegate": new_event_loop,
    }
    return functools.partial(run_on, factories[request.param])


def run_on(factory: Any, coroutine: Any) -> Any:
    """Run a coroutine on a loop."""
    unhandled: list[Any] = []

    async def guarded() -> Any:
        asyncio.get_running_loop().set_exception_handler(lambda _, about: unhandled.append(about))
        async with asyncio.timeout(60):
            return await coroutine

    with asyncio.Runner(loop_factory=factory) as runner:
        result = runner.run(guarded())
    assert unhandled == []
    return result


@pytest.fixture(scope="session")
def authority() -> Authority:
    """Who certifies servers and clients."""
    from tls.authority import Authority

    return Authority()
