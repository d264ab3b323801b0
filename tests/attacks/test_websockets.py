"""WebSockets that want memory or time: bombs, floods, crumbs, readers that do not read, and crowds.

Each test bounds what the server's memory grows by, and asks whether others are served meanwhile.
"""

from __future__ import annotations

import functools
import threading
import zlib

import pytest

from attacks.test_slow_clients import BYTES_ANYWAY, CONNECTIONS, ask, assert_served
from attacks.websocket_peers import APP, MIB, RSV1, Open, Watched
from server_process import Launch
from websocket.raw import (
    BINARY,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    frame,
)

#: Frames of a message: a tenth of a million, a million by `task test:attacks`.
CRUMBS = 2000 * CONNECTIONS


@functools.cache
def deflated_zeros(size: int) -> bytes:
    """A message of zeros, at a thousandth of its size."""
    compressor = zlib.compressobj(9, wbits=-15)
    block = bytes(MIB)
    pieces = [compressor.compress(block) for _ in range(size // MIB)]
    return b"".join([*pieces, compressor.flush(zlib.Z_SYNC_FLUSH)])[:-4]


@pytest.mark.parametrize("fragments", [1, 1000], ids=["one frame", "in fragments"])
@pytest.mark.parametrize("mode", ["shared", "context"])
def test_compression_bombs(launch: Launch, opened: Open, mode: str, fragments: int) -> None:
    """128 KiB that would become 128 MiB, from many clients at once."""
    words = ("--ws-max-size", "1MiB", "--ws-per-message-deflate", mode, "--no-access-log")
    server = launch(APP, *words).wait_ready()
    bomb = deflated_zeros(128 * MIB)
    assert len(bomb) < 0.2 * MIB
    step = -(-len(bomb) // fragments)
    pieces = [bomb[start : start + step] for start in range(0, len(bomb), step)]
    wire = frame(BINARY, pieces[0], fin=fragments == 1, rsv=RSV1)
    wire += b"".join(frame(CONTINUATION, piece, fin=False) for piece in pieces[1:])
    clients = [opened(server, "/size", deflate=True) for _ in range(20)]
    # The first bytes of all, so that all are in progress at once.
    for client in clients:
        client.send(wire[:500])
    watched = Watched(server)
    for client in clients:
        try:
            client.send(wire[500:])
        except (BrokenPipeError, ConnectionResetError):
            pass  # judged before it was sent
        watched.look()
        assert client.read_close() == (1009, "message too big")
    for client in clients:
        client.reset()
    # Twice the limit: a buffer that grows has an old and a new half.
    assert watched.grown < BYTES_ANYWAY + len(clients) * 2 * MIB
    assert_served(watched.waits)
    assert server.stop() == 0


def test_ping_floods_whose_pongs_nobody_reads(launch: Launch, opened: Open) -> None:
    server = launch(APP, "--no-access-log").wait_ready()
    clients = [opened(server, "/echo", receive_buffer=4096) for _ in range(10)]
    watched = Watched(server)
    flood = frame(PING, b"f" * 125) * 8000
    for _ in range(5):
        for client in clients:
            client.send(flood)  # it is read all the time: this does not block
        watched.look()
    # 50 MB of pings; of the pongs only the latest waits.
    assert watched.grown < 8 * MIB, watched.grown
    assert_served(watched.waits)
    client = clients[0]
    client.send(frame(PING, b"last"), frame(TEXT, b"alive"))
    # The echo does not wait for the pong of the last ping, which waits for those before it.
    awaited = {(PONG, b"last"), (TEXT, b"alive")}
    pongs = 0
    while awaited:
        got = client.read_frame()
        assert got is not None
        awaited.discard(got)
        pongs += 1
    for client in clients:
        client.reset()
    # What the kernel has in its buffers, and 2 KiB: nothing like 40,000.
    assert pongs < 20_000, pongs
    assert server.stop() == 0


@pytest.mark.parametrize("size", [0, 1])
def test_messages_in_crumbs(launch: Launch, opened: Open, size: int) -> None:
    server = launch(APP, "--no-access-log").wait_ready()
    client = opened(server, "/size")
    watched = Watched(server)
    client.send(frame(BINARY, b"", fin=False))
    crumbs = frame(CONTINUATION, b"x" * size, fin=False) * (CRUMBS // 20)
    for _ in range(20):
        client.send(crumbs)
        watched.look()
    client.send(frame(CONTINUATION))
    assert client.read_frame() == (TEXT, str(CRUMBS * size).encode())
    watched.look()
    client.reset()
    # The message itself, a buffer that grew by doubling, and the bytes object of it.
    assert watched.grown < 6 * MIB, watched.grown
    assert_served(watched.waits)
    assert server.stop() == 0


def test_messages_that_nobody_reads(launch: Launch, opened: Open) -> None:
    """`send` waits on a bound; the rest stays with the application."""
    server = launch(APP, "--no-access-log").wait_ready()
    watched = Watched(server)
    clients = [opened(server, "/flood", receive_buffer=4096) for _ in range(50)]
    pause = threading.Event()
    for _ in range(10):
        watched.look()
        pause.wait(0.05)
    # What `send` may have waiting, and the message behind it.
    assert watched.grown < BYTES_ANYWAY + len(clients) * 256 * 1024, watched.grown
    assert_served(watched.waits)
    # They are slow, not dead: who reads, gets on.
    assert clients[0].read_frame() == (BINARY, bytes(2**16))
    for client in clients:
        client.reset()
    assert_served([ask(server) for _ in range(20)])
    assert server.stop() == 0
