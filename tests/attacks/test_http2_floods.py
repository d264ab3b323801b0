"""Floods of HTTP/2 frames: what they cost in memory while they last, and who is served meanwhile.

Each flood goes on, on several connections at once, until the server ends it or has taken a fixed
amount.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from attacks.test_slow_clients import APP, ask, assert_served, connect, resident_bytes
from peers.h2_client import Client
from server_process import Launch, ServerProcess

CONNECTIONS = 8
FLOOD_BYTES = 8 * 2**20
FLOOD_SECONDS = 2.0
# What each connection may hold at most: its window of bodies, what waits to be written, a header
# list, tables.
BYTES_PER_CONNECTION = 512 * 1024
# And the entries of frames so small that they weigh more than their payload: twice the window of a
# connection, counted at 256 bytes each, which take a little more.
BYTES_OF_TINY_FRAMES = 5 * 2**19
# The interpreter's own growth, of objects that it keeps for the next requests.
BYTES_ANYWAY = 4 * 2**20


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one frame."""
    head = len(payload).to_bytes(3, "big") + bytes([kind, flags])
    return head + stream.to_bytes(4, "big") + payload


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0)


def get(path: bytes) -> bytes:
    """Return a request's header block: GET http://t."""
    return b"\x82\x86\x41\x01t\x04" + bytes([len(path)]) + path


def rapid_reset() -> Iterator[bytes]:
    for stream in range(1, 2**31, 2):
        yield frame(1, 5, stream, get(b"/wait")) + frame(3, 0, stream, b"\0\0\0\x08")


def continuation() -> Iterator[bytes]:
    # A field without end, in frames of the usual size, none of which is the last.
    yield frame(1, 1, 1, get(b"/") + b"\x00\x01x\x7f\x81\x80\x80\x04" + b"y" * 1000)
    while True:
        yield frame(9, 0, 1, b"y" * 16_000)


def repeated(data: bytes, begin: bytes = b"") -> Iterator[bytes]:
    yield begin
    while True:
        yield data * 100


READ = frame(1, 4, 1, b"\x83\x86\x41\x01t\x04\x05/wait")
UNREAD = frame(1, 4, 1, b"\x83\x86\x41\x01t\x04\x06/flood")

FLOODS: dict[str, Callable[[], Iterator[bytes]]] = {
    "rapid reset": rapid_reset,
    "continuation": continuation,
    "settings": lambda: repeated(frame(4, 0, 0, b"\0\x04\0\0\xff\xff")),
    "ping": lambda: repeated(frame(6, 0, 0, b"12345678")),
    "tiny data": lambda: repeated(frame(0, 0, 1, b"x"), READ),
    "tiny data that nobody reads": lambda: repeated(frame(0, 0, 1, b"x"), UNREAD),
    "padding": lambda: repeated(frame(0, 8, 1, b"\xfe" + bytes(254)), READ),
    "priority update": lambda: repeated(frame(16, 0, 0, b"\0\0\0\x65u=1")),
}


def flood(peer: socket.socket, frames: Iterator[bytes], reads: bool) -> None:
    """Send until the server has had enough, or takes no more."""
    deadline = time.monotonic() + FLOOD_SECONDS
    peer.setblocking(False)
    left, sent = memoryview(PREFACE), 0
    with contextlib.suppress(OSError):
        while sent < FLOOD_BYTES and time.monotonic() < deadline:
            if not left:
                left = memoryview(next(frames))
            readable, writable, _ = select.select([peer] if reads else [], [peer], [], 0.1)
            if readable and not peer.recv(65536):
                return
            if writable:
                taken = peer.send(left)
                left, sent = left[taken:], sent + taken


def attack(server: ServerProcess, name: str, reads: bool) -> tuple[int, list[float]]:
    """Return by how much the server grew at most, and how long each of the others waited."""
    for _ in range(20):
        ask(server)
    before, most = resident_bytes(server), 0
    peers = [connect(server) for _ in range(CONNECTIONS)]
    threads = [threading.Thread(target=flood, args=(peer, FLOODS[name](), reads)) for peer in peers]
    for thread in threads:
        thread.start()
    pause = threading.Event()
    waits: list[float] = []
    while not waits or any(thread.is_alive() for thread in threads):
        waits.append(ask(server))
        most = max(most, resident_bytes(server) - before)
        pause.wait(0.02)
    # They are still connected: what is held for them is held now.
    most = max(most, resident_bytes(server) - before)
    for thread, peer in zip(threads, peers, strict=True):
        thread.join()
        peer.close()
    return most, waits


@pytest.mark.parametrize("reads", [True, False], ids=["reads", "deaf"])
@pytest.mark.parametrize("name", FLOODS)
def test_memory_under_a_flood_is_bounded(launch: Launch, name: str, reads: bool) -> None:
    server = launch(APP, "--no-access-log").wait_ready()
    most, waits = attack(server, name, reads)
    print(f"{name}: {most / 2**20:.1f} MiB, others waited {max(waits):.3f} s at most")
    each = BYTES_PER_CONNECTION + (BYTES_OF_TINY_FRAMES if name.startswith("tiny") else 0)
    assert most < BYTES_ANYWAY + CONNECTIONS * each
    assert_served(waits)
    assert server.stop() == 0


def test_the_measure_sees_memory_that_is_held(launch: Launch) -> None:
    """A connection that may hold more than the bound, and does, is found out."""
    size = 16 * 2**20
    words = ["--http2-initial-stream-window-size", str(size)]
    words += ["--http2-initial-connection-window-size", str(size), "--no-access-log"]
    server = launch(APP, *words).wait_ready()
    ask(server)
    before = resident_bytes(server)
    with Client(connect(server)) as client:
        assert client.settle()
        # Its handler sends without end and reads nothing.
        stream = client.request("/flood", method="POST", ends=False)
        client.reads = False
        client.send(stream, b"x" * (size - 2**20), ends=False)
        assert client.settle()
        assert resident_bytes(server) - before > BYTES_PER_CONNECTION * 8
