"""What is counted: the least that an application can do with a request, a message, a frame."""

from __future__ import annotations

from typing import Any

import msgspec

import framegate
from framegate import App

HEADERS = [(b"content-type", b"text/plain"), (b"content-length", b"13")]
FRAME_BYTES = 65536


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Greet; take frames at /frames; send WebSocket messages back."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "bytes": message["bytes"]})
        return
    if scope["path"] == "/read":
        while (await receive())["more_body"]:
            pass
    if scope["path"] == "/frames":
        await framegate.ingest(scope, "counted", slot_bytes=FRAME_BYTES)
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    await send({"type": "http.response.body", "body": b"Hello, world!"})


routes = App()


@routes.get("/items/{item:int}")
async def item(item: int, word: str = "none") -> dict[str, Any]:
    """A native route with a parameter of each kind."""
    return {"item": item, "word": word}


class Reading(msgspec.Struct):
    """What /readings takes and gives."""

    sensor: str
    value: float
    count: int


@routes.post("/readings")
async def read(reading: Reading) -> Reading:
    """A body that is validated, and made an object and JSON again."""
    return reading
