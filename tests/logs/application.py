"""What the tests of logs and events ask for."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

Scope = dict[str, Any]

GO = threading.Event()
"""Ends `/hold`."""


async def answer(send: Any, body: bytes, *, status: int = 200, headers: Any = ()) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


async def read(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def app(scope: Scope, receive: Any, send: Any) -> None:
    """Echoes bodies; some paths are special."""
    if scope["type"] not in ("http", "websocket"):
        raise RuntimeError("no lifespan")
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        return
    body = await read(receive)
    match scope["path"]:
        case "/slow":
            await asyncio.sleep(0.2)
            await answer(send, b"slow")
        case "/hold":
            while not GO.is_set():
                await asyncio.sleep(0.01)
            await answer(send, b"held")
        case "/stream":
            headers = [(b"content-type", b"text/event-stream")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
            await asyncio.sleep(2.6)
            await send({"type": "http.response.body", "body": b""})
        case "/cut":
            headers = [(b"content-length", b"10")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"half", "more_body": True})
            raise RuntimeError("cut")
        case "/broken" | "/health/broken":
            raise RuntimeError("broken")
        case _:
            await answer(send, body or b"hello", headers=[(b"x-kind", b"a b")])
