"""One stream of HTTP/2 that looks like a socket, opened by an extended CONNECT (RFC 8441).

`TunnelSocket` has the methods of a socket that WebSocket clients in tests use, so that what is
shown over HTTP/1.1 can be shown over HTTP/2 with the same lines.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Iterable
from typing import Any

import h2.errors
from h2.events import RemoteSettingsChanged

from peers.h2_client import Client, Exchange

__all__ = ["TunnelSocket"]


class TunnelSocket:
    """A stream that is opened by `connect`, and then sends and receives bytes.

    `tunnel.client` is the connection, for requests beside it.
    """

    def __init__(self, connection: socket.socket | Client) -> None:
        self.client = connection if isinstance(connection, Client) else Client(connection)
        self.stream = 0

    def connect(
        self,
        path: str = "/",
        fields: Iterable[tuple[str, str]] = (("sec-websocket-version", "13"),),
        *,
        protocol: str = "websocket",
    ) -> Exchange:
        """Send the request, read the head of the response."""
        while not any(isinstance(event, RemoteSettingsChanged) for event in self.client.events):
            assert self.client.read(), "the connection ended before the server's settings came"
        assert self.client.state.remote_settings.enable_connect_protocol == 1
        state = self.client.state
        self.stream = state.get_next_available_stream_id()
        head = [
            (":method", "CONNECT"),
            (":scheme", "https" if isinstance(self.client.socket, ssl.SSLSocket) else "http"),
            (":authority", "example.com"),
            (":path", path),
            (":protocol", protocol),
        ]
        state.send_headers(self.stream, [*head, *fields])
        self.client.exchanges[self.stream] = Exchange()
        self.client.flush()
        while self.exchange.status is None and not self.exchange.is_over:
            assert self.client.read(), f"no response, GOAWAY {self.client.goaway}"
        return self.exchange

    @property
    def exchange(self) -> Exchange:
        """What came back."""
        return self.client.exchanges[self.stream]

    def recv(self, size: int) -> bytes:
        """As a socket: at least a byte, unless the stream has ended."""
        while not self.exchange.body:
            if self.exchange.reset is not None:
                raise ConnectionResetError(f"RST_STREAM {self.exchange.reset}")
            if self.exchange.ended or not self.client.read():
                return b""
        body = self.exchange.body
        self.exchange.body = body[size:]
        return body[:size]

    def send(self, data: bytes) -> int:
        """As a socket: at least a byte, as soon as there is room."""
        state = self.client.state
        while True:
            window = state.local_flow_control_window(self.stream)
            room = min(len(data), window, state.max_outbound_frame_size)
            if room:
                break
            if not self.client.read():
                raise BrokenPipeError
        state.send_data(self.stream, data[:room])
        self.client.socket.sendall(state.data_to_send())
        return room

    def sendall(self, data: bytes) -> None:
        """As a socket."""
        while data:
            data = data[self.send(data) :]

    def shutdown(self, _how: int) -> None:
        """End our side of the stream."""
        self.client.state.end_stream(self.stream)
        self.client.flush()

    def cancel(self) -> None:
        """Reset the stream; the connection stays."""
        self.client.state.reset_stream(self.stream, h2.errors.ErrorCodes.CANCEL)
        self.client.flush()

    def reset(self) -> None:
        """Cut the connection with a reset."""
        linger = struct.pack("ii", 1, 0)
        self.client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.client.socket.close()

    def close(self) -> None:
        """Close the connection."""
        self.client.socket.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client.socket, name)
