"""FastAPI, end to end."""

import hashlib
import threading
from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import BackgroundTasks, Depends, FastAPI, File, UploadFile, WebSocket
from fastapi.responses import StreamingResponse
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.websockets import WebSocketDisconnect

from frameworks.behaviour import Trace, check_http, check_websocket


def dependency() -> Iterator[str]:
    yield threading.current_thread().name


def application(trace: Trace) -> Any:
    app = FastAPI()

    @app.head("/items/{number}", include_in_schema=False)
    @app.get("/items/{number}")
    async def item(number: int, q: str) -> dict[str, Any]:
        return {"item": number, "q": q}

    @app.get("/sync")
    def sync(name: Annotated[str, Depends(dependency)]) -> dict[str, Any]:
        return {"thread": threading.current_thread().name != "server" and name != "server"}

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(f"line {number}\n" for number in range(50))

    @app.post("/upload")
    async def upload(file: Annotated[UploadFile, File()]) -> dict[str, Any]:
        data = await file.read()
        return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    @app.post("/background")
    async def background(tasks: BackgroundTasks) -> dict[str, Any]:
        tasks.add_task(trace.work)
        return {"accepted": True}

    @app.websocket("/ws")
    async def websocket(socket: WebSocket) -> None:
        await socket.accept()
        try:
            while True:
                await socket.send_text(await socket.receive_text() + "!")
        except WebSocketDisconnect:
            pass

    return app


def test_fastapi(serve: Any) -> None:
    trace = Trace()
    check_http(serve(application(trace)), trace)


def test_fastapi_websocket(serve: Any) -> None:
    check_websocket(serve(application(Trace())))


def test_fastapi_behind_base_http_middleware(serve: Any) -> None:
    trace = Trace()
    app = application(trace)

    async def dispatch(request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["x-middleware"] = "1"
        return response

    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    check_http(serve(app), trace)


def test_fastapi_behind_a_root_path(serve: Any) -> None:
    trace = Trace()
    outer = FastAPI()
    outer.mount("/inner", application(trace))
    from peers.h11_client import Client

    server = serve(outer, root_path="/prefix")
    with Client(server.connect()) as client:
        # The proxy has taken /prefix off.
        assert client.request("GET", "/inner/items/7?q=x").status == 200
        assert client.request("GET", "/items/7?q=x").status == 404
        schema = client.request("GET", "/inner/openapi.json")
        assert b'"url":"/prefix/inner"' in schema.body
