"""Litestar, end to end."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import AsyncIterator
from typing import Annotated, Any

from litestar import Litestar, WebSocket, get, head, post, websocket
from litestar.background_tasks import BackgroundTask
from litestar.datastructures import UploadFile
from litestar.enums import RequestEncodingType
from litestar.exceptions import WebSocketDisconnect
from litestar.params import Body, FromPath, FromQuery
from litestar.response import Response, Stream

from frameworks.behaviour import Trace, check_http, check_websocket


def application(trace: Trace) -> Litestar:
    @get("/items/{number:int}")
    async def item(number: FromPath[int], q: FromQuery[str]) -> dict[str, Any]:
        return {"item": number, "q": q}

    @head("/items/{number:int}")
    async def item_head(number: FromPath[int], q: FromQuery[str]) -> None:
        return None

    @get("/sync", sync_to_thread=True)
    def sync() -> dict[str, Any]:
        return {"thread": threading.current_thread().name != "server"}

    @get("/stream")
    async def stream() -> Stream:
        async def lines() -> AsyncIterator[str]:
            for number in range(50):
                yield f"line {number}\n"

        return Stream(lines())

    @post("/upload")
    async def upload(
        data: Annotated[dict[str, UploadFile], Body(media_type=RequestEncodingType.MULTI_PART)],
    ) -> dict[str, Any]:
        content = await data["file"].read()
        return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    @post("/background")
    async def background() -> Response[dict[str, Any]]:
        work = BackgroundTask(trace.work)
        return Response({"accepted": True}, background=work)

    @websocket("/ws")
    async def echo(socket: WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        try:
            while True:
                await socket.send_text(await socket.receive_text() + "!")
        except WebSocketDisconnect:
            pass

    handlers = [item, item_head, sync, stream, upload, background, echo]
    return Litestar(route_handlers=handlers, openapi_config=None, logging_config=None)


def test_litestar(serve: Any) -> None:
    trace = Trace()
    check_http(serve(application(trace)), trace)


def test_litestar_websocket(serve: Any) -> None:
    check_websocket(serve(application(Trace())))
