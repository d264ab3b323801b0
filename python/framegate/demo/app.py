"""The demo's ASGI app: `/` leads to the live page; everything else is the server's own."""

from __future__ import annotations

import os
from typing import Any

__all__ = ["app"]


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """The ASGI application."""
    if scope["type"] != "http":
        # Lifespan: nothing to do, and the server is told so.
        raise NotImplementedError(scope["type"])
    status, body, headers = 404, b"Not Found\n", []
    if scope["path"] == "/":
        if scope["method"] in ("GET", "HEAD"):
            where = f"{scope['root_path']}{os.environ['FRAMEGATE_LIVE']}/"
            status, body, headers = 307, b"", [(b"location", where.encode())]
        else:
            status, body, headers = 405, b"Method Not Allowed\n", [(b"allow", b"GET, HEAD")]
    headers += [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
