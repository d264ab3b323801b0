"""WebSockets of attackers, and what the server that they attack is seen with."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from attacks.test_slow_clients import ask, resident_bytes
from server_process import ServerProcess
from websocket.raw import HANDSHAKE, RawWebSocket

APP = "attacks.websocket_application:app"
MIB = 2**20
DEFLATE = ("sec-websocket-extensions", "permessage-deflate")
RSV1 = 4
PATIENCE_SECONDS = 60.0


class Watched:
    """A server, the most memory that it was seen with, and how long others waited for it."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        for _ in range(20):  # what a server allocates once, it has now
            ask(server)
        self.before = resident_bytes(server)
        self.most = self.before
        self.waits: list[float] = []

    def look(self, others: bool = True) -> None:
        self.most = max(self.most, resident_bytes(self.server))
        if others:
            self.waits.append(ask(self.server))

    @property
    def grown(self) -> int:
        return self.most - self.before


Open = Callable[..., RawWebSocket]


@pytest.fixture
def opened() -> Iterator[Open]:
    """Open WebSockets: `opened(server, "/echo", deflate=True)`."""
    with ExitStack() as stack:

        def start(
            server: ServerProcess,
            target: str,
            *,
            deflate: bool = False,
            receive_buffer: int | None = None,
        ) -> RawWebSocket:
            peer = socket.socket()
            if receive_buffer is not None:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            peer.settimeout(PATIENCE_SECONDS)
            peer.connect(("127.0.0.1", server.port))
            client = stack.enter_context(RawWebSocket(peer))
            headers = [*HANDSHAKE, DEFLATE] if deflate else HANDSHAKE
            client.open(headers=headers, target=target)
            agreed = client.response.all("sec-websocket-extensions")
            assert bool(agreed) == deflate, client.response
            return client

        yield start
