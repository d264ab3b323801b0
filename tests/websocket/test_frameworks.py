"""WebSocket endpoints of Starlette and FastAPI, as their users write them."""

from __future__ import annotations

import logging
from typing import Annotated, Any

import pytest
from fastapi import Cookie, Depends, FastAPI, WebSocket, WebSocketDisconnect, WebSocketException
from starlette.applications import Starlette
from starlette.endpoints import WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import WebSocketRoute
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from websocket.raw import TEXT, frame


async def user_of(session: Annotated[str | None, Cookie()] = None) -> str:
    if session is None:
        raise WebSocketException(code=1008, reason="no cookie")
    return session


def test_fastapi(serve: Any, saw: Any) -> None:
    app = FastAPI()

    @app.websocket("/rooms/{room}")
    async def room(
        websocket: WebSocket, room: str, user: Annotated[str, Depends(user_of)], shout: bool = False
    ) -> None:
        await websocket.accept(subprotocol="chat", headers=[(b"set-cookie", b"seen=1")])
        try:
            while True:
                text = await websocket.receive_text()
                await websocket.send_json({"room": room, "user": user, "text": text, "s": shout})
        except WebSocketDisconnect as left:
            saw((left.code, left.reason))

    server = serve(app)
    url = f"ws://127.0.0.1:{server.port}/rooms/7?shout=true"
    cookie = {"cookie": "session=ann"}
    with connect(url, subprotocols=["chat"], additional_headers=cookie) as client:
        assert client.subprotocol == "chat"
        assert client.response.headers["set-cookie"] == "seen=1"
        client.send("hello")
        assert client.recv() == '{"room":"7","user":"ann","text":"hello","s":true}'
        client.close(3001, "bye")
    assert saw.next() == (3001, "bye")
    with pytest.raises(InvalidStatus) as caught:
        connect(url)
    assert caught.value.response.status_code == 403
    # No such route; and a parameter that is not a boolean, which FastAPI tells in a list.
    for target in ["nowhere", "rooms/7?shout=perhaps"]:
        with pytest.raises(InvalidStatus) as caught:
            connect(f"ws://127.0.0.1:{server.port}/{target}", additional_headers=cookie)
        assert caught.value.response.status_code == 403


def test_fastapi_disconnect_while_sending(serve: Any, raw: Any, saw: Any) -> None:
    app = FastAPI()

    @app.websocket("/")
    async def endless(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            while True:
                await websocket.send_bytes(bytes(10_000))
        except WebSocketDisconnect as left:
            saw(left.code)

    client = raw(serve(app)).open()
    client.read_frame()
    client.reset()
    assert saw.next() == 1006


def test_fastapi_error_after_accept(serve: Any, raw: Any, caplog: pytest.LogCaptureFixture) -> None:
    app = FastAPI()

    @app.websocket("/")
    async def broken(websocket: WebSocket) -> None:
        await websocket.accept()
        raise LookupError("broken endpoint")

    with caplog.at_level(logging.ERROR, "framegate"):
        client = raw(serve(app)).open()
        assert client.read_close() == (1011, "internal error")
    assert "broken endpoint" in caplog.text


def test_starlette_endpoint_behind_middleware(serve: Any) -> None:
    class Upper(WebSocketEndpoint):
        encoding = "text"

        async def on_connect(self, websocket: Any) -> None:
            await websocket.accept()
            await websocket.send_text(f"welcome to {websocket.url.path}")

        async def on_receive(self, websocket: Any, data: Any) -> None:
            await websocket.send_text(data.upper())
            if data == "quit":
                await websocket.close(4000, "as you wish")

    async def passing(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    app = Starlette(
        routes=[WebSocketRoute("/up", Upper)],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=passing)],
    )
    server = serve(app)
    with connect(f"ws://127.0.0.1:{server.port}/up") as client:
        assert client.recv() == "welcome to /up"
        client.send("hello")
        assert client.recv() == "HELLO"
        client.send("quit")
        assert client.recv() == "QUIT"
        with pytest.raises(ConnectionClosed):
            client.recv()
        assert (client.close_code, client.close_reason) == (4000, "as you wish")


def test_starlette_denial_response(serve: Any) -> None:
    async def guarded(websocket: Any) -> None:
        response = PlainTextResponse("pay first", status_code=402, headers={"x-price": "7"})
        await websocket.send_denial_response(response)

    server = serve(Starlette(routes=[WebSocketRoute("/", guarded)]))
    with pytest.raises(InvalidStatus) as caught:
        connect(f"ws://127.0.0.1:{server.port}")
    response = caught.value.response
    assert (response.status_code, response.body) == (402, b"pay first")
    assert response.headers["x-price"] == "7"


def test_starlette_iterates_over_many_messages(serve: Any, raw: Any) -> None:
    async def total(websocket: Any) -> None:
        await websocket.accept()
        numbers = []
        async for text in websocket.iter_text():
            if text == "end":
                break
            numbers.append(int(text))
        await websocket.send_text(str(sum(numbers)))
        await websocket.close()

    client = raw(serve(Starlette(routes=[WebSocketRoute("/", total)]))).open()
    client.send(*(frame(TEXT, b"%d" % n) for n in range(2000)), frame(TEXT, b"end"))
    assert client.read_frame() == (TEXT, str(sum(range(2000))).encode())
    assert client.read_close() == (1000, "")
