"""Blocks the whole interpreter on request: C code that sleeps and holds the lock of Python."""

from __future__ import annotations

import ctypes
import os
from collections.abc import MutableMapping
from typing import Any

# Unlike CDLL it does not let go of the lock.
LIBC = ctypes.PyDLL(None)


def note(event: str) -> None:
    with open(os.environ["EVENTS"], "a") as file:
        file.write(f"{event} {os.getpid()}\n")


async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise NotImplementedError
    if scope["path"] == "/block":
        seconds = int(scope["query_string"] or b"60")
        note("blocks")
        LIBC.sleep(seconds)
        note("goes-on")
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"the application"})
