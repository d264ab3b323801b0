"""The WebSockets that are attacked; runs in a process of its own."""

from __future__ import annotations

import time
from typing import Any

from attacks import application

PIECE = bytes(2**16)


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Echo, take without a word, send without end, block the loop."""
    if scope["type"] == "http":
        return await application.app(scope, receive, send)
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    if scope["path"] == "/flood":
        try:
            while True:
                await send({"type": "websocket.send", "bytes": PIECE})
        except OSError:
            return None
    while (message := await receive())["type"] == "websocket.receive":
        match scope["path"]:
            case "/echo":
                await send(message | {"type": "websocket.send"})
            case "/size":
                size = len(message["bytes"])
                await send({"type": "websocket.send", "text": str(size)})
            case "/block":
                time.sleep(float(message["text"]))
                await send({"type": "websocket.send", "text": "slept"})
    return None
