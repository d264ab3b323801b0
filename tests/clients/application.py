"""An application that does what clients ask, and remembers who left."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from typing import Any

PAGE = b"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>framegate</title>
<link rel="icon" href="/picture.svg"><link rel="stylesheet" href="/style.css">
<script src="/script.js" defer></script></head>
<body><h1>not yet</h1><img src="/picture.svg" alt="a square"></body></html>
"""
FILES = {
    "/": (b"text/html", PAGE),
    "/style.css": (b"text/css", b"h1 { color: rgb(1, 2, 3) }"),
    "/script.js": (b"text/javascript", b'document.querySelector("h1").textContent = "ran"'),
    "/picture.svg": (
        b"image/svg+xml",
        b'<svg xmlns="http://www.w3.org/2000/svg" width="7" height="7"/>',
    ),
}
PIECE = bytes(range(256)) * 64


class Application:
    """Serves the page, echoes, streams; `left` is set when a client of `/events` is gone."""

    def __init__(self) -> None:
        self.left = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One scope."""
        if scope["type"] == "lifespan":
            raise RuntimeError("no lifespan")
        if scope["type"] == "websocket":
            await self.echo(receive, send)
            return
        path = scope["path"]
        _, first, *rest = path.split("/")
        match first:
            case "about":
                about = {key: scope[key] for key in ("http_version", "scheme", "method")}
                await answer(send, json.dumps(about).encode(), b"application/json")
            case "digest":
                await answer(send, await self.digest(receive))
            case "number":
                await answer(send, rest[0].encode())
            case "stream":
                await start(send, b"application/octet-stream")
                for _ in range(int(rest[0])):
                    await send({"type": "http.response.body", "body": PIECE, "more_body": True})
                await send({"type": "http.response.body"})
            case "events":
                await self.events(receive, send, is_silent=rest == ["silent"])
            case "refused":
                await answer(send, b"too large for us", status=413)
            case _:
                kind, content = FILES[path]
                await answer(send, content, kind)

    @staticmethod
    async def digest(receive: Any) -> bytes:
        """Length and digest of the body."""
        length, digest = 0, hashlib.sha256()
        while True:
            message = await receive()
            assert message["type"] == "http.request", message
            length += len(message["body"])
            digest.update(message["body"])
            if not message["more_body"]:
                return f"{length} {digest.hexdigest()}".encode()

    async def events(self, receive: Any, send: Any, *, is_silent: bool) -> None:
        """Server-sent events: ten at once, then one each 20 ms, or none."""
        await receive()
        await start(send, b"text/event-stream")
        waiting = asyncio.ensure_future(receive())
        number = 0
        try:
            while not waiting.done():
                if number < 10 or not is_silent:
                    event = f"id: {number}\ndata: event {number}\n\n".encode()
                    await send({"type": "http.response.body", "body": event, "more_body": True})
                    number += 1
                if number >= 10:
                    await asyncio.wait([waiting], timeout=0.02)
        except OSError:
            pass
        assert (await waiting)["type"] == "http.disconnect"
        self.left.set()

    @staticmethod
    async def echo(receive: Any, send: Any) -> None:
        """Send back what comes."""
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            key = "text" if message.get("text") is not None else "bytes"
            await send({"type": "websocket.send", key: message[key]})


async def start(send: Any, kind: bytes, status: int = 200, *fields: tuple[bytes, bytes]) -> None:
    headers = [(b"content-type", kind), *fields]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def answer(send: Any, body: bytes, kind: bytes = b"text/plain", status: int = 200) -> None:
    await start(send, kind, status, (b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.body", "body": body})
