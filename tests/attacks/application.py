"""What the attacks are aimed at; runs in a process of its own."""

from __future__ import annotations

from typing import Any

PIECE = bytes(2**18)


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Say hello, take uploads, send much or without end."""
    if scope["path"] == "/upload":
        while True:
            event = await receive()
            if event["type"] == "http.disconnect":
                return
            if not event["more_body"]:
                break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/flood":
        try:
            while True:
                await send({"type": "http.response.body", "body": PIECE, "more_body": True})
        except OSError:
            return
    if scope["path"] == "/wait":
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    body = PIECE if scope["path"] == "/large" else b"hello"
    await send({"type": "http.response.body", "body": body})
