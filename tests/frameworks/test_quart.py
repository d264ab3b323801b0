"""Quart, end to end."""

from __future__ import annotations

import hashlib
import threading
from typing import Any

from quart import Quart, request, websocket

from frameworks.behaviour import Trace, check_http, check_websocket


def application(trace: Trace) -> Quart:
    app = Quart(__name__)

    @app.get("/items/<int:number>")
    async def item(number: int) -> dict[str, Any]:
        return {"item": number, "q": request.args["q"]}

    @app.get("/sync")
    def sync() -> dict[str, Any]:
        return {"thread": threading.current_thread().name != "server"}

    @app.get("/stream")
    async def stream() -> Any:
        async def lines() -> Any:
            for number in range(50):
                yield f"line {number}\n".encode()

        return lines()

    @app.post("/upload")
    async def upload() -> dict[str, Any]:
        data = (await request.files)["file"].read()
        return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    @app.post("/background")
    async def background() -> dict[str, Any]:
        app.add_background_task(trace.work)
        return {"accepted": True}

    @app.websocket("/ws")
    async def echo() -> None:
        while True:
            await websocket.send(await websocket.receive() + "!")

    return app


def test_quart(serve: Any) -> None:
    trace = Trace()
    check_http(serve(application(trace)), trace)


def test_quart_websocket(serve: Any) -> None:
    check_websocket(serve(application(Trace())))
