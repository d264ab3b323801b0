"""WebSocket handlers: messages both ways, refusals before and after, ends of every kind."""

from __future__ import annotations

import json
import logging
import threading
from typing import Annotated, Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from framegate import App, Problem
from framegate.app import Query, Router, WebSocket
from framegate.errors import RouteError
from routes.conftest import Client


def open_socket(client: Client, app: App, path: str, **options: Any) -> ClientConnection:
    url = str(client(app).base_url).replace("http", "ws", 1).rstrip("/")
    return connect(url + path, open_timeout=20, close_timeout=20, **options)


def test_messages_go_both_ways(client: Client) -> None:
    app = App()

    @app.websocket("/echo/{room:int}")
    async def echo(socket: WebSocket, room: int, word: str = "none") -> None:
        await socket.send(f"{room} {word} {socket.request.path}")
        await socket.send_json({"got": await socket.receive_json()})
        async for message in socket:
            await socket.send(message)

    with open_socket(client, app, "/echo/7?word=w") as socket:
        assert socket.recv(20) == "7 w /echo/7"
        socket.send('{"a": [1]}')
        assert json.loads(socket.recv(20)) == {"got": {"a": [1]}}
        socket.send("text ü")
        assert socket.recv(20) == "text ü"
        socket.send(b"\x00bytes")
        assert socket.recv(20) == b"\x00bytes"


def test_a_handler_may_say_more_when_it_accepts(client: Client) -> None:
    app = App()

    @app.websocket("/")
    async def handler(socket: WebSocket) -> None:
        await socket.accept(subprotocol="b", headers={"x-a": "c"})
        await socket.close(4000, "enough")
        await socket.close()
        with pytest.raises(ConnectionError):
            await socket.send("behind")

    with open_socket(client, app, "/", subprotocols=["a", "b"]) as socket:
        assert socket.subprotocol == "b"
        assert socket.response is not None
        assert socket.response.headers["x-a"] == "c"
        with pytest.raises(ConnectionClosed) as closed:
            socket.recv(20)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4000, "enough")


def test_what_is_wrong_is_refused_before_the_handshake(client: Client) -> None:
    app = App()

    @app.websocket("/{room:int}")
    async def handler(socket: WebSocket, limit: Annotated[int, Query(ge=1)], room: int) -> None:
        if room == 0:
            raise Problem(409, "this room is closed")
        await socket.send("in")

    @app.get("/page")
    async def page() -> str:
        return "page"

    session = client(app)
    url = str(session.base_url).replace("http", "ws", 1).rstrip("/")
    for target, status, words in [
        ("/1?limit=0", 422, "must be 1 or more"),
        ("/1", 422, "is required"),
        ("/0?limit=1", 409, "this room is closed"),
    ]:
        with pytest.raises(InvalidStatus) as refused:
            connect(url + target, open_timeout=20)
        assert refused.value.response.status_code == status
        body = refused.value.response.body or b""
        assert words in body.decode(), target
    for target in ("/page", "/none"):
        with pytest.raises(InvalidStatus):
            connect(url + target, open_timeout=20)
    assert session.get("/page").text == "page"


def test_handlers_that_raise_close_it(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    app = App()

    @app.websocket("/problem")
    async def problem(socket: WebSocket) -> None:
        await socket.send("x")
        raise Problem(403, "no more")

    @app.websocket("/bug")
    async def bug(socket: WebSocket) -> None:
        await socket.send("x")
        raise ValueError("a bug of the socket")

    session = client(app)
    url = str(session.base_url).replace("http", "ws", 1).rstrip("/")
    for target, code, reason in [("/problem", 1008, "no more"), ("/bug", 1011, "")]:
        with caplog.at_level(logging.ERROR), connect(url + target, open_timeout=20) as socket:
            assert socket.recv(20) == "x"
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv(20)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (code, reason)
    assert "a bug of the socket" in caplog.text


def test_a_client_that_goes_is_no_error(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    app = App()
    router = Router("/v1")
    ended = threading.Event()

    @router.websocket("/wait")
    async def wait(socket: WebSocket) -> None:
        try:
            await socket.receive()
        finally:
            ended.set()

    app.include(router)
    with caplog.at_level(logging.ERROR):
        with open_socket(client, app, "/v1/wait"):
            pass
        assert ended.wait(20)
    assert caplog.text == ""


def test_middleware_stands_around_sockets_in_order(client: Client) -> None:
    app = App()
    seen: list[str] = []
    over = threading.Event()

    @app.websocket_middleware
    async def outer(socket: WebSocket, following: Any) -> None:
        if socket.request.headers.get("x-token") != "t":
            raise Problem(401, "a token is missing")
        seen.append("outer")
        try:
            await following(socket)
        finally:
            seen.append("gone")
            over.set()

    @app.websocket_middleware
    async def inner(socket: WebSocket, following: Any) -> None:
        seen.append(f"inner {socket.request.route}")
        if socket.request.path == "/short/1":
            await socket.send("no handler")
            return
        await following(socket)

    @app.websocket("/echo/{n:int}")
    async def echo(socket: WebSocket, n: int) -> None:
        async for message in socket:
            await socket.send(f"{n} {message!s}")

    @app.websocket("/short/{n:int}")
    async def never(socket: WebSocket, n: int) -> None:
        seen.append("never")

    with pytest.raises(InvalidStatus) as refused:
        open_socket(client, app, "/echo/1")
    assert refused.value.response.status_code == 401
    assert seen == []
    with open_socket(client, app, "/echo/1", additional_headers={"x-token": "t"}) as socket:
        socket.send("a")
        assert socket.recv(20) == "1 a"
    assert over.wait(20)
    assert seen == ["outer", "inner /echo/{n:int}", "gone"]
    seen.clear()
    with open_socket(client, app, "/short/1", additional_headers={"x-token": "t"}) as socket:
        assert socket.recv(20) == "no handler"
        with pytest.raises(ConnectionClosed):
            socket.recv(20)
    assert "never" not in seen


def test_handlers_that_serve_no_socket_say_so() -> None:
    app = App()

    async def none(room: str) -> None: ...

    def blocking(socket: WebSocket) -> None: ...

    async def body(socket: WebSocket, body: bytes) -> None: ...

    for handler, why in [
        (none, "has no WebSocket"),
        (blocking, "no `async def`"),
        (body, "wants a body"),
    ]:
        with pytest.raises(RouteError, match=why):
            app.websocket("/")(handler)  # type: ignore[type-var]
