"""Clients that behave badly leave nothing behind.

What broke in other servers: keep-alive timers that hold the whole request after a reset, TCP probes
that count as connections for ever, a task per lost client.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import resource
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from apps import read_body, respond
from peers.h11_client import Client
from peers.raw import head, reset

ROUNDS = int(os.environ.get("FRAMEGATE_SOAK_REQUESTS", "10000")) // 8
"""Eight requests or connections each. `task test:soak` makes 100,000 of them."""


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


async def application(scope: Any, receive: Any, send: Any) -> None:
    match scope["path"]:
        case "/upload":
            await respond(send, str(len(await read_body(receive))).encode())
        case "/stream":
            await send({"type": "http.response.start", "status": 200})
            for _ in range(4):
                await send({"type": "http.response.body", "body": b"x" * 500, "more_body": True})
                await asyncio.sleep(0)
            await send({"type": "http.response.body"})
        case "/wait":
            await receive()
            while (await receive())["type"] != "http.disconnect":
                pass
        case "/touch":
            repr(asyncio.current_task())
            await respond(send)
        case "/fail":
            raise ValueError("on purpose")
        case _:
            await respond(send)


def misbehave(server: Any, generator: random.Random) -> None:
    """Be one bad client of each kind, in any order."""
    kinds = [
        # A probe: connects and leaves.
        lambda client: None,
        # Half a head.
        lambda client: client.sendall(b"GET / HTTP/1.1\r\nho"),
        # A request whose answer nobody reads.
        lambda client: client.sendall(head("GET", "/stream")),
        # Half a body.
        lambda client: client.sendall(head("POST", "/upload", "content-length: 1000") + b"part"),
        # A handler that waits for its client.
        lambda client: client.sendall(head("GET", "/wait")),
        # Half-open: no more requests will come, the answer is still wanted.
        lambda client: (client.sendall(head("GET", "/")), client.shutdown(socket.SHUT_WR)),
        # Rubbish.
        lambda client: client.sendall(b"\x16\x03\x01 not http\r\n\r\n"),
    ]
    generator.shuffle(kinds)
    for kind in kinds:
        client = server.connect()
        kind(client)
        if generator.random() < 0.5:
            reset(client)
        else:
            client.close()


def behave(client: Client, generator: random.Random) -> None:
    path = generator.choice(["/", "/stream", "/upload", "/touch", "/fail"])
    body = b"x" * generator.randrange(2000) if path == "/upload" else b""
    client.request("POST" if body else "GET", path, body=body)


def settle(server: Any) -> None:
    """Until every connection and every call has ended."""
    while server.submit(lambda: server.worker.connections):
        server.submit(lambda: asyncio.sleep(0.01))
    for _ in range(3):
        server.submit(lambda: asyncio.sleep(0))
    server.submit(gc.collect)


def native_objects() -> Counter[str]:
    return Counter(
        type(item).__name__
        for item in gc.get_objects()
        # Not isinstance: lazy objects of frameworks answer that by loading themselves.
        if type(item).__module__ == "framegate._http" or issubclass(type(item), asyncio.Task)
    )


@pytest.fixture
def silence() -> Iterator[None]:
    """No log records: pytest keeps them, and with them tracebacks, frames and exchanges."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_thousands_of_bad_clients_leave_nothing_behind(serve: Any, silence: None) -> None:
    server = serve(application, lifespan="off")
    generator = random.Random(7)

    def round_of(count: int) -> None:
        client = Client(server.connect())
        for _ in range(count):
            misbehave(server, generator)
            behave(client, generator)
        client.socket.close()
        settle(server)

    round_of(ROUNDS // 5)
    objects, memory = native_objects(), resident_bytes()
    tasks = server.submit(lambda: len(asyncio.all_tasks()))
    threads = threading.active_count()
    round_of(ROUNDS - ROUNDS // 5)
    assert server.submit(lambda: len(asyncio.all_tasks())) == tasks
    assert threading.active_count() == threads
    # Finished requests are kept for the next ones: a few, however many there were.
    assert (native_objects() - objects).total() <= 32
    assert resident_bytes() - memory < 16 * 2**20
