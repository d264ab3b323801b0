"""An application that has more to say than its clients read."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from supervised_apps import answer, lifespan, note

CHUNK = b"x" * 65536
DOWNLOAD_BYTES = 64 << 20


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    match scope["type"]:
        case "lifespan":
            await lifespan(receive, send)
        case "websocket":
            await websocket(scope["path"], receive, send)
        case "http":
            await request(scope["path"], receive, send)


async def websocket(path: str, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    note(f"ws{path}")
    try:
        if path == "/flood":
            while True:
                await send({"type": "websocket.send", "bytes": CHUNK})
        while (await receive())["type"] != "websocket.disconnect":
            pass
    finally:
        note("ws-end")


async def request(path: str, receive: Any, send: Any) -> None:
    start = {"type": "http.response.start", "status": 200, "headers": []}
    try:
        match path:
            case "/stream":  # server-sent events, say, and nobody listens
                await send(start)
                note(path)
                while True:
                    await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
            case "/download":
                await send(start)
                note(path)
                await send({"type": "http.response.body", "body": bytes(DOWNLOAD_BYTES)})
            case "/file":
                await send(start)
                note(path)
                await send({"type": "http.response.pathsend", "path": os.environ["BIG_FILE"]})
            case "/upload":
                note(path)
                while (event := await receive()).get("more_body"):
                    pass
                note("upload-" + event["type"].removeprefix("http."))
                await answer(send, "done")
            case "/stuck":
                note(path)
                await asyncio.Event().wait()
            case _:
                await answer(send, str(os.getpid()))
    finally:
        note("end")
