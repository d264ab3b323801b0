"""ASGI applications used by several tests."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["Application", "Scope", "echo", "read_body", "respond", "scope_as_json"]

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


async def respond(
    send: Send,
    body: bytes = b"ok",
    status: int = 200,
    headers: list[tuple[bytes, bytes]] | None = None,
) -> None:
    """Send a whole response."""
    await send({"type": "http.response.start", "status": status, "headers": headers or []})
    await send({"type": "http.response.body", "body": body})


async def read_body(receive: Receive) -> bytes:
    """Receive the whole body."""
    pieces = []
    while True:
        event = await receive()
        assert event["type"] == "http.request", event
        pieces.append(event["body"])
        if not event["more_body"]:
            return b"".join(pieces)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Send the body back when it is complete."""
    await respond(send, await read_body(receive))


async def scope_as_json(scope: Scope, receive: Receive, send: Send) -> None:
    """Send the scope."""

    def text(value: Any) -> Any:
        if isinstance(value, bytes):
            return value.decode("latin-1")
        raise TypeError(type(value))

    await respond(send, json.dumps(scope, default=text).encode())
