"""A handler that blocks the event loop for long: no peer that lives is given up.

The ordinary tests block for three seconds, with pings to match. `task test:soak` blocks for a
minute, with the pings that everybody has.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from websockets.sync.client import connect

from attacks.websocket_peers import APP
from peers.h2_websocket import TunnelSocket
from peers.tls_threads import for_threads
from server_process import Launch, launch
from tls.authority import Authority
from websocket.raw import PING, PONG, TEXT, RawWebSocketOverHttp2, frame

__all__ = ["launch"]

BLOCKED_SECONDS = float(os.environ.get("FRAMEGATE_BLOCKED_SECONDS", "3"))
#: Of a minute the default of both settings.
PING_SECONDS = BLOCKED_SECONDS / 3
PATIENCE_SECONDS = BLOCKED_SECONDS + 60
CLIENTS = 10


@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_no_live_peer_is_lost(
    launch: Launch, authority: Authority, tmp_path: Path, scheme: str
) -> None:
    words = ["--no-access-log", "--ws-ping-interval", str(PING_SECONDS)]
    words += ["--ws-ping-timeout", str(PING_SECONDS)]
    context = None
    if scheme == "wss":
        context = for_threads(authority.client_context())
        for name, path in authority.issue("localhost").write(tmp_path).items():
            words += ["--" + name.replace("_", "-"), path]
    server = launch(APP, *words).wait_ready()
    url = f"{scheme}://localhost:{server.port}"
    unblocked = threading.Event()
    with ExitStack() as stack:
        peers = [open_over_http2(server.port, authority, scheme) for _ in range(CLIENTS)]
        pool = stack.enter_context(ThreadPoolExecutor(CLIENTS))
        for peer in peers:
            stack.enter_context(peer)
        answers = [pool.submit(live, peer, unblocked) for peer in peers]
        # These answer pings from threads of their own.
        clients = [
            stack.enter_context(connect(url + path, ssl=context, ping_interval=None))
            for path in ("/block", *["/echo"] * CLIENTS)
        ]
        start = time.monotonic()
        clients[0].send(str(BLOCKED_SECONDS))
        assert clients[0].recv(PATIENCE_SECONDS) == "slept"
        assert time.monotonic() - start >= BLOCKED_SECONDS
        # Whoever is judged by the time that has passed is gone a few sweeps later.
        time.sleep(1.5)
        unblocked.set()
        for client in clients[1:]:
            client.send("hello")
            assert client.recv(PATIENCE_SECONDS) == "hello"
        assert [answer.result(PATIENCE_SECONDS) for answer in answers] == [b"hello"] * CLIENTS
    assert server.stop() == 0


def open_over_http2(port: int, authority: Authority, scheme: str) -> RawWebSocketOverHttp2:
    """Open a WebSocket on a stream."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
    if scheme == "wss":
        context = authority.client_context()
        context.set_alpn_protocols(["h2"])
        connection = context.wrap_socket(connection, server_hostname="localhost")
    peer = RawWebSocketOverHttp2(TunnelSocket(connection))
    peer.open(target="/echo")
    return peer


def live(peer: RawWebSocketOverHttp2, unblocked: threading.Event) -> bytes:
    """Answer pings; at the end say hello and return what comes back."""
    peer.socket.settimeout(0.1)
    said = False
    while True:
        try:
            got = peer.read_frame()
        except TimeoutError:
            if unblocked.is_set() and not said:
                said = True
                peer.send(frame(TEXT, b"hello"))
            continue
        assert got is not None, "the stream has ended"
        opcode, payload = got
        if opcode == TEXT:
            return payload
        assert opcode == PING, got
        peer.send(frame(PONG, payload))
