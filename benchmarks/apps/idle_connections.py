"""What an idle connection holds: of HTTP, and a WebSocket that has used deflate.

A server is started anew for each kind; it has answered a request, or echoed a compressed message,
on every connection before all of them fall silent. Memory is the growth of the server's PSS.
"""

import argparse
import json
import os
import re
import resource
import socket
import subprocess
import sys
import time
import zlib
from pathlib import Path

from framegate_bench.own_server import pss
from framegate_bench.processes import free_port

COMMANDS = {
    "framegate": (
        "platform", "serve", "websocket_app:app", "--workers", "1", "--no-access-log",
        "--timeout-keep-alive", "600",
    ),
    "uvicorn": (
        "uvicorn", "websocket_app:app", "--log-level", "error", "--no-access-log", "--http",
        "httptools", "--loop", "uvloop", "--ws", "websockets", "--timeout-keep-alive", "600",
    ),
}  # fmt: skip
WARM_UP = 100
SETTLE_S = 3.0
PATIENCE_S = 60.0
REQUEST = b"GET / HTTP/1.1\r\nhost: example.com\r\n\r\n"
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nhost: example.com\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"sec-websocket-extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
)


def read_until(peer: socket.socket, end: bytes) -> bytes:
    """Read at least up to `end`."""
    data = b""
    while end not in data:
        piece = peer.recv(65536)
        assert piece, data
        data += piece
    return data


def request(peer: socket.socket) -> None:
    """One request with its response."""
    peer.sendall(REQUEST)
    head, _, body = read_until(peer, b"\r\n\r\n").partition(b"\r\n\r\n")
    size = int(re.search(rb"content-length: (\d+)", head, re.I)[1])
    while len(body) < size:
        body += peer.recv(65536)


def message() -> bytes:
    """A compressed binary message of 200 bytes, masked with zeros."""
    state = zlib.compressobj(wbits=-15)
    payload = state.compress(b"some words that compress " * 8) + state.flush(zlib.Z_SYNC_FLUSH)
    payload = payload[:-4]
    assert len(payload) < 126
    return bytes([0xC2, 0x80 | len(payload)]) + bytes(4) + payload


def websocket(peer: socket.socket) -> None:
    """The handshake, and a message there and back."""
    peer.sendall(HANDSHAKE)
    head = read_until(peer, b"\r\n\r\n").lower()
    assert b" 101 " in head and b"permessage-deflate" in head, head
    peer.sendall(message())
    data = b""
    while len(data) < 2 or len(data) < 2 + data[1]:
        data += peer.recv(65536)
    assert data[0] == 0xC2, data


USES = {"http": request, "websocket": websocket}


def measure(server: str, kind: str, count: int, core: int) -> float:
    """Bytes per connection of a kind."""
    port = free_port()
    command = [
        Path(sys.executable).parent / COMMANDS[server][0],
        *COMMANDS[server][1:], "--host", "127.0.0.1", "--port", str(port),
    ]  # fmt: skip
    process = subprocess.Popen(
        ["taskset", "-c", str(core), *map(str, command)],
        cwd=Path(__file__).parent,
        stdout=sys.stderr,
    )
    peers: list[socket.socket] = []

    def one() -> socket.socket:
        peer = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        USES[kind](peer)
        return peer

    try:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S).close()
                break
            except OSError:
                assert time.monotonic() < deadline and process.poll() is None, "no server"
                time.sleep(0.05)
        for _ in range(WARM_UP):
            one().close()
        time.sleep(SETTLE_S)
        before = pss(process.pid)
        peers = [one() for _ in range(count)]
        time.sleep(SETTLE_S)
        return (pss(process.pid) - before) / count
    finally:
        for peer in peers:
            peer.close()
        process.terminate()
        process.wait(PATIENCE_S)


def main() -> None:
    """Measure, print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("server", choices=COMMANDS)
    parser.add_argument("--connections", type=int, default=5000)
    parser.add_argument("--cores", default="0,0")
    parser.add_argument("--seconds", type=float, help="has no meaning here")
    words = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    server_core, load_core = map(int, words.cores.split(","))
    os.sched_setaffinity(0, {load_core})
    found = {kind: measure(words.server, kind, words.connections, server_core) for kind in USES}
    print(json.dumps(found | {"beyond": found["websocket"] - found["http"]}))


if __name__ == "__main__":
    main()
