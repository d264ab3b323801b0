"""Starlette, end to end."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket

from frameworks.behaviour import BODY, Trace, check_http, check_websocket
from peers.h11_client import Client


def application(trace: Trace, file: Path | None = None) -> Starlette:
    async def item(request: Request) -> Response:
        number, query = request.path_params["number"], request.query_params["q"]
        return JSONResponse({"item": number, "q": query})

    def sync(request: Request) -> Response:
        return JSONResponse({"thread": threading.current_thread().name != "server"})

    async def stream(request: Request) -> Response:
        async def lines() -> Any:
            for number in range(50):
                yield f"line {number}\n"

        return StreamingResponse(lines())

    async def upload(request: Request) -> Response:
        async with request.form() as form:
            data = await form["file"].read()  # type: ignore[union-attr]
        return JSONResponse({"size": len(data), "sha256": hashlib.sha256(data).hexdigest()})

    async def background(request: Request) -> Response:
        return JSONResponse({"accepted": True}, background=BackgroundTask(trace.work))

    async def download(request: Request) -> Response:
        assert file is not None
        return FileResponse(file)

    async def websocket(socket: WebSocket) -> None:
        await socket.accept()
        async for text in socket.iter_text():
            await socket.send_text(text + "!")

    return Starlette(
        routes=[
            Route("/items/{number:int}", item),
            Route("/sync", sync),
            Route("/stream", stream),
            Route("/upload", upload, methods=["POST"]),
            Route("/background", background, methods=["POST"]),
            Route("/file", download),
            WebSocketRoute("/ws", websocket),
        ]
    )


def test_starlette(serve: Any) -> None:
    trace = Trace()
    check_http(serve(application(trace)), trace)


def test_starlette_websocket(serve: Any) -> None:
    check_websocket(serve(application(Trace())))


def test_starlette_sends_files(serve: Any, tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(BODY)
    with Client(serve(application(Trace(), path)).connect()) as client:
        assert client.request("GET", "/file").body == BODY
        assert client.request("HEAD", "/file").header("content-length") == b"%d" % len(BODY)
        part = client.request("GET", "/file", [("range", "bytes=10-19")])
        assert (part.status, part.body) == (206, BODY[10:20])


def test_starlette_mounts_see_their_part_of_the_path(serve: Any) -> None:
    app = Starlette(routes=[Mount("/one", Starlette(routes=[Mount("/two", application(Trace()))]))])
    for root_path in ("", "/root"):
        with Client(serve(app, root_path=root_path).connect()) as client:
            assert client.request("GET", "/one/two/items/7?q=x").status == 200
            assert client.request("GET", "/two/items/7?q=x").status == 404
