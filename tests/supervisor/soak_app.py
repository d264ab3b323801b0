"""What the soak asks for: answers, streams, uploads, WebSockets, frames; and what is alive."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import threading
from typing import Any

import framegate
from supervised_apps import answer, note

CHUNK = b"x" * 16384
STREAM_CHUNKS = 16
TOPIC = "soak/frames"
TOPICS = 4


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    match scope["type"]:
        case "lifespan":
            await receive()
            note("startup")
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        case "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            while (event := await receive())["type"] == "websocket.receive":
                await send({"type": "websocket.send", "bytes": event["bytes"]})
        case "http":
            await request(scope["path"], receive, send)


async def request(path: str, receive: Any, send: Any) -> None:
    match path:
        case "/stream":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(STREAM_CHUNKS):
                await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
                await asyncio.sleep(0)
            await send({"type": "http.response.body"})
        case "/upload":
            count = 0
            while (event := await receive())["type"] == "http.request":
                count += len(event["body"])
                if not event["more_body"]:
                    break
            await answer(send, str(count))
        case "/frame":
            # Several processes want the same few: whoever is later is told so, and a topic whose
            # publisher was killed has to be as good as new.
            try:
                with framegate.Publisher(f"{TOPIC}-{os.getpid() % TOPICS}", slot_bytes=4096) as one:
                    one.send(b"frame")
            except framegate.FramegateError as error:
                return await answer(send, type(error).__name__)
            await answer(send, "sent")
        case "/census":
            for _ in range(3):
                await asyncio.sleep(0)
                gc.collect()
            found = {
                "pid": os.getpid(),
                "objects": len(gc.get_objects()),
                "tasks": len(asyncio.all_tasks()),
                "threads": threading.active_count(),
            }
            await answer(send, json.dumps(found))
        case _:
            await answer(send, str(os.getpid()))
    return None
