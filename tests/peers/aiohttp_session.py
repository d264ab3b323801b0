"""Sessions of aiohttp that are over when they end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

PATIENCE_SECONDS = 30.0


@asynccontextmanager
async def session(
    *words: Any, ssl: Any = True, **options: Any
) -> AsyncIterator[aiohttp.ClientSession]:
    """A session as `aiohttp.ClientSession`; its sockets are closed when it ends.

    aiohttp itself does not wait until the other side has ended TLS, too ("Graceful shutdown" of its
    documentation): a loop that ends before leaves a transport to the garbage collector.
    """
    sockets = []

    def make(address: Any) -> socket.socket:
        family, kind, protocol, *_ = address
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        sockets.append(made)
        return made

    connector = aiohttp.TCPConnector(ssl=ssl, socket_factory=make)
    async with aiohttp.ClientSession(*words, connector=connector, **options) as opened:
        yield opened
    async with asyncio.timeout(PATIENCE_SECONDS):
        while any(one.fileno() >= 0 for one in sockets):
            await asyncio.sleep(0.001)
