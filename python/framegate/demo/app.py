"""The demo's ASGI app: the page, and a WebSocket that shows it the camera's frames out of shared
memory.

A viewer acknowledges each picture and gets the newest one then: a slow viewer skips pictures, it
never queues them, and it cannot slow the camera.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import time
from importlib.resources import files
from typing import Any

from framegate.demo import BALL_TOPIC, CAMERA_TOPIC, HEIGHT, WIDTH
from framegate.demo.detector import BALL
from framegate.errors import TopicNotFound
from framegate.shm import Subscriber

__all__ = ["PICTURE", "app"]

PICTURE = struct.Struct("<QIIHHhh")
"""Header of a message to the page, 24 bytes: sequence; age of the picture when it was sent and age
when the detector had finished with one, in microseconds; width, height; ball x, y (-1, -1: not
seen). The RGBA bytes follow.
"""

_CONTENT = {
    "/": ("page.html", b"text/html; charset=utf-8"),
    "/page.css": ("page.css", b"text/css; charset=utf-8"),
    "/page.js": ("page.js", b"text/javascript; charset=utf-8"),
}
_HEADERS = [
    (b"cache-control", b"no-cache"),
    (b"x-content-type-options", b"nosniff"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'",
    ),
]


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The ASGI application."""
    if scope["type"] == "websocket":
        await _watch(receive, send)
    elif scope["type"] == "http":
        await _answer(scope, send)
    else:
        raise NotImplementedError(
            scope["type"]
        )  # lifespan: nothing to do, and the server is told so


async def _answer(scope: dict[str, Any], send: Any) -> None:
    if scope["method"] not in ("GET", "HEAD"):
        status, kind, body = 405, b"text/plain", b"Method Not Allowed\n"
    elif scope["path"] in _CONTENT:
        name, kind = _CONTENT[scope["path"]]
        status, body = 200, files("framegate.demo").joinpath(name).read_bytes()
    elif scope["path"] == "/status":
        status, kind, body = 200, b"application/json", json.dumps(_status()).encode()
    else:
        status, kind, body = 404, b"text/plain", b"Not Found\n"
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *_HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _status() -> dict[str, Any]:
    """The newest picture's sequence and age, read as any process on this machine could read it."""
    try:
        with (
            Subscriber(CAMERA_TOPIC, policy="latest") as subscriber,
            contextlib.ExitStack() as stack,
        ):
            frame = subscriber.take(timeout=0)
            if frame is None:
                return {"state": "waiting for the camera"}
            stack.enter_context(frame)
            age_ms = (time.monotonic_ns() - frame.published_ns) / 1e6
            return {"state": "live", "sequence": frame.sequence, "age_ms": round(age_ms, 3)}
    except TopicNotFound:
        return {"state": "waiting for the camera"}


async def _subscribe(topic: str) -> Subscriber:
    while True:
        try:
            return Subscriber(topic, policy="latest")
        except TopicNotFound:
            await asyncio.sleep(0.05)


async def _watch(receive: Any, send: Any) -> None:
    if (await receive())["type"] != "websocket.connect":
        return
    await send({"type": "websocket.accept"})
    await _show(receive, send)


async def _show(receive: Any, send: Any) -> None:
    camera = await _subscribe(CAMERA_TOPIC)
    ball = await _subscribe(BALL_TOPIC)
    found, found_age_us = (-1, -1), 0
    with camera, ball:
        while True:
            frame = await camera.take_async(timeout=5)
            if frame is None:
                await send({"type": "websocket.send", "text": "the camera stands still"})
                continue
            with frame:
                seen = ball.try_take()
                if seen is not None:
                    with seen:
                        _, x, y, found_age_us = BALL.unpack(bytes(seen))
                        found = (x, y)
                age_us = min((time.monotonic_ns() - frame.published_ns) // 1000, 0xFFFFFFFF)
                header = PICTURE.pack(frame.sequence, age_us, found_age_us, WIDTH, HEIGHT, *found)
                message = b"".join((header, memoryview(frame)))
            await send({"type": "websocket.send", "bytes": message})
            if (await receive())["type"] == "websocket.disconnect":
                return
