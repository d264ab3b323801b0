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
from peers import h2_client
from peers.h11_client import Client
from peers.raw import head, read_head, reset

ROUNDS = int(os.environ.get("FRAMEGATE_SOAK_REQUESTS", "5000")) // 8
"""Eight requests or connections each. `task test:soak` makes 100,000 of them."""

WEBSOCKET = head(
    "GET",
    "/",
    "upgrade: websocket",
    "connection: upgrade",
    "sec-websocket-version: 13",
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
)


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


async def echo(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "bytes": message.get("bytes") or b""})


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await echo(receive, send)
        return
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
        leave(client, generator)


def leave(client: socket.socket, generator: random.Random) -> None:
    """Go without a word, in one of two ways."""
    if generator.random() < 0.5:
        reset(client)
    else:
        client.close()


def misbehave_over_http2(server: Any, generator: random.Random) -> None:
    """Leave streams in every state, and a frame in the middle."""
    client = h2_client.Client(server.connect())
    streams = [
        client.request("/wait"),
        client.request("/stream"),
        client.request("/fail"),
        client.request("/upload", b"part", method="POST", ends=False),
    ]
    for stream in streams:
        if generator.random() < 0.5:
            client.state.reset_stream(stream)
    client.flush()
    if generator.random() < 0.5:
        client.socket.sendall(b"\x00\x10\x00\x00\x00\x00\x00\x00\x01half of a frame")
    leave(client.socket, generator)


def frame(first: int, payload: bytes) -> bytes:
    """A frame of WebSocket, masked with a key that changes nothing."""
    return bytes([first, 0x80 | len(payload)]) + bytes(4) + payload


def misbehave_over_websocket(server: Any, generator: random.Random) -> None:
    """Leave at any moment of a session, with or without its end."""
    client = server.connect()
    client.sendall(WEBSOCKET)
    match generator.randrange(5):
        case 0:  # before the answer
            pass
        case 1:  # messages whose echo nobody reads
            client.sendall(frame(0x82, b"x" * 100) * 20)
        case 2:  # half of a frame
            client.sendall(frame(0x82, b"x" * 100)[:50])
        case 3:  # no frame at all
            client.sendall(b"\xff" * 50)
        case _:  # an orderly end
            read_head(client)
            client.sendall(frame(0x82, b"hello") + frame(0x88, b"\x03\xe8"))
            received = b""
            while piece := client.recv(100):
                received += piece
            assert received == b"\x82\x05hello\x88\x02\x03\xe8"
    leave(client, generator)


def behave(client: Client, generator: random.Random) -> None:
    path = generator.choice(["/", "/stream", "/upload", "/touch", "/fail"])
    body = b"x" * generator.randrange(2000) if path == "/upload" else b""
    client.request("POST" if body else "GET", path, body=body)


def behave_over_http2(client: h2_client.Client, generator: random.Random) -> None:
    body = b"x" * generator.randrange(2000)
    streams = [
        client.request("/stream"),
        client.request("/upload", body, method="POST"),
        client.request("/touch"),
    ]
    for stream in streams:
        while not client.exchanges[stream].is_over:
            assert client.read()
        assert client.exchanges.pop(stream).status == 200
    client.events.clear()


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
        client, client2 = Client(server.connect()), h2_client.Client(server.connect())
        for number in range(count):
            misbehave(server, generator)
            behave(client, generator)
            # A tenth of each: these clients are slow, being written in Python.
            if number % 10 == 0:
                misbehave_over_http2(server, generator)
                misbehave_over_websocket(server, generator)
                behave_over_http2(client2, generator)
        client.socket.close()
        client2.socket.close()
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
