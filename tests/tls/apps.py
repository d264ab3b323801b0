"""Applications for the tests of TLS."""

from __future__ import annotations

import json
from typing import Any

Message = dict[str, Any]


async def answer(send: Any, body: bytes, status: int = 200) -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def read(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        assert message["type"] == "http.request", message
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def app(scope: Message, receive: Any, send: Any) -> None:
    """What a client may want to know: its scope, its own bytes, many bytes."""
    if scope["type"] == "lifespan":
        raise RuntimeError("no lifespan")
    if scope["type"] == "websocket":
        await websocket(scope, receive, send)
        return
    match scope["path"]:
        case "/scope":
            tls = scope["extensions"].get("tls")
            about = {"scheme": scope["scheme"], "tls": tls}
            await answer(send, json.dumps(about).encode())
        case "/echo":
            await answer(send, await read(receive))
        case path if path.startswith("/bytes/"):
            await answer(send, pattern(int(path.removeprefix("/bytes/"))))
        case "/stream":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for number in range(100):
                piece = f"{number}\n".encode() * 50
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"end"})
        case _:
            await answer(send, b"hello")


async def websocket(scope: Message, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": scope["scheme"]})
    await send({"type": "websocket.send", "text": str(scope["extensions"]["tls"]["tls_version"])})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("bytes") is not None:
            await send({"type": "websocket.send", "bytes": message["bytes"]})
        else:
            await send({"type": "websocket.send", "text": message["text"]})


def pattern(count: int) -> bytes:
    """Bytes of which none can be left out unnoticed."""
    block = b"".join(number.to_bytes(4, "big") for number in range(16384))
    return (block * (count // len(block) + 1))[:count]
