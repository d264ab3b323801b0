"""Thousands of WebSockets that have used deflate and fell silent: what each of them holds."""

from __future__ import annotations

import resource
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from attacks.test_slow_clients import assert_served
from attacks.websocket_peers import APP, RSV1, Open, Watched
from peers.raw import head
from server_process import Launch, ServerProcess
from websocket.raw import (
    TEXT,
    RawWebSocket,
    frame,
)

SOCKETS = 5000
SPARE = 500
SETTLE_SECONDS = 2.0
#: What an idle connection of HTTP may hold, seen with 2,800 to 3,300 (2026-11-23) ...
BYTES_PER_CONNECTION = 4 * 1024
#: ... and a WebSocket: connection, session, and what its application sees of it; seen with 6,915.
BYTES_PER_SOCKET = 8 * 1024


@pytest.fixture
def many_files() -> Iterator[int]:
    """The limit of open files is as high as it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_five_thousand_idle_sockets(
    launch: Launch, opened: Open, many_files: int, record_property: Callable[[str, object], None]
) -> None:
    """Each has used deflate in both directions before it fell silent."""
    count = min(SOCKETS, many_files - SPARE)
    assert count >= 500, f"at most {many_files} open files: raise the hard limit for this test"
    words = (APP, "--no-access-log", "--timeout-keep-alive", "600")
    per_connection = of_idle_connections(launch(*words).wait_ready(), count)
    server = launch(*words).wait_ready()
    text = b"some words that compress, " * 8
    message = deflated_text(text)

    def use(client: RawWebSocket) -> None:
        client.send(frame(TEXT, message, rsv=RSV1))

    def used(client: RawWebSocket) -> None:
        # Compressed, so not for `read_frame`; two bytes of head and what they say.
        while len(client.buffer) < 2 or len(client.buffer) < 2 + client.buffer[1]:
            assert client._fill()
        assert client.buffer[0] == 0xC1
        client.buffer.clear()

    for _ in range(20):  # what a server allocates once, it has now
        client = opened(server, "/echo", deflate=True)
        use(client)
        used(client)
    watched = Watched(server)
    clients = []
    for _ in range(count):
        client = opened(server, "/echo", deflate=True)
        use(client)
        clients.append(client)
    for client in clients:
        used(client)
    time.sleep(SETTLE_SECONDS)
    for _ in range(20):
        watched.look()
    per_socket = watched.grown / count
    record_property("bytes_per_idle_websocket", per_socket)
    record_property("bytes_per_idle_connection", per_connection)
    print(f"{per_socket:.0f} bytes per idle WebSocket, {per_connection:.0f} per idle connection")
    assert per_connection < BYTES_PER_CONNECTION
    assert per_socket < BYTES_PER_SOCKET
    assert_served(watched.waits)
    for client in (clients[0], clients[count // 2], clients[-1]):
        use(client)
        used(client)
    for client in clients:
        client.reset()
    assert server.stop() == 0


def of_idle_connections(server: ServerProcess, count: int) -> float:
    """What a connection holds that has had its answer and waits for another request."""
    with ExitStack() as stack:

        def answered() -> None:
            peer = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            peer.sendall(head("GET", "/"))
            received = b""
            while not received.endswith(b"hello"):
                received += peer.recv(65536)

        for _ in range(20):
            answered()
        watched = Watched(server)
        for _ in range(count):
            answered()
        time.sleep(SETTLE_SECONDS)
        watched.look()
    assert server.stop() == 0
    return watched.grown / count


def deflated_text(text: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]
