"""`framegate.client` as the client of Autobahn's fuzzing server: an echo, in both forms."""

from __future__ import annotations

import asyncio
import contextlib

from framegate.client import ConnectionClosed, ConnectOptions, connect, connect_async

from .suite import AGENT

__all__ = ["PLAYERS"]

PATIENCE_SECONDS = 120.0
#: The largest messages of group 9 have 16 MiB.
OPTIONS: ConnectOptions = {"proxy": None, "open_timeout": 60.0, "message_bytes_max": 16 << 20}


def in_a_thread(url: str) -> None:
    """Play all cases of a server with the form for threads."""
    with connect(f"{url}/getCaseCount", **OPTIONS) as websocket:
        count = int(websocket.recv(PATIENCE_SECONDS))
    for case in range(1, count + 1):
        try:
            with connect(f"{url}/runCase?case={case}&agent={AGENT}", **OPTIONS) as websocket:
                while True:
                    websocket.send(websocket.recv(PATIENCE_SECONDS))
        except ConnectionClosed:
            pass
    # It closes without a code.
    with (
        connect(f"{url}/updateReports?agent={AGENT}", **OPTIONS) as websocket,
        contextlib.suppress(ConnectionClosed),
    ):
        raise AssertionError(websocket.recv(PATIENCE_SECONDS))


def on_a_loop(url: str) -> None:
    """Play all cases of a server with the form for asyncio."""
    asyncio.run(_on_a_loop(url))


async def _on_a_loop(url: str) -> None:
    async with connect_async(f"{url}/getCaseCount", **OPTIONS) as websocket:
        count = int(await websocket.recv())
    for case in range(1, count + 1):
        try:
            async with (
                asyncio.timeout(PATIENCE_SECONDS),
                connect_async(f"{url}/runCase?case={case}&agent={AGENT}", **OPTIONS) as websocket,
            ):
                async for message in websocket:
                    await websocket.send(message)
        except ConnectionClosed:
            pass
    async with connect_async(f"{url}/updateReports?agent={AGENT}", **OPTIONS) as websocket:
        with contextlib.suppress(ConnectionClosed):
            raise AssertionError(await websocket.recv())


PLAYERS = {"threads": in_a_thread, "asyncio": on_a_loop}
