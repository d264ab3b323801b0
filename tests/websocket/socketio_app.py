"""Socket.IO: acknowledgements, binary events, rooms, refusals."""

from __future__ import annotations

from typing import Any

import socketio

sio = socketio.AsyncServer(async_mode="asgi", ping_interval=0.5, ping_timeout=20)


@sio.event
async def connect(sid: str, environ: dict[str, Any], auth: Any) -> None:
    if auth == {"token": "wrong"}:
        raise socketio.exceptions.ConnectionRefusedError("wrong token")
    await sio.enter_room(sid, "everybody")


@sio.event
async def shout(sid: str, text: str) -> dict[str, str]:
    await sio.emit("shouted", text.upper(), room="everybody")
    return {"transport": sio.transport(sid), "text": text.upper()}


@sio.event
async def reverse(sid: str, data: bytes) -> bytes:
    return data[::-1]


@sio.event
async def leave(sid: str) -> None:
    await sio.disconnect(sid)


@sio.event
async def disconnect(sid: str, reason: str) -> None:
    await sio.emit("left", reason, room="everybody")


app = socketio.ASGIApp(sio)
