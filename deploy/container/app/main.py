"""What the image serves: put your application in its place."""

import os
from typing import Any


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Say hello, and who answers."""
    if scope["type"] != "http":
        raise RuntimeError(f"no {scope['type']} here")
    body = f"hello from worker process {os.getpid()}\n".encode()
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
