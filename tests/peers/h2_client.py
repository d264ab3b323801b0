"""A client of HTTP/2 made of a socket and hyper-h2, which shares no code with the server."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions

__all__ = ["Client", "Exchange"]

Fields = Iterable[tuple[str, str]]


@dataclass
class Exchange:
    """What came back on one stream."""

    status: int | None = None
    hints: list[dict[str, str]] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    trailers: dict[str, str] | None = None
    ended: bool = False
    reset: int | None = None

    @property
    def is_over(self) -> bool:
        """Nothing more will come."""
        return self.ended or self.reset is not None


class Client:
    """One connection; `exchanges` has what came, by stream.

    With `reads=False` no credit is given back for what arrives.
    """

    def __init__(self, connection: socket.socket, *, reads: bool = True) -> None:
        self.socket = connection
        self.reads = reads
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.state = h2.connection.H2Connection(config)
        self.exchanges: dict[int, Exchange] = {}
        self.events: list[h2.events.Event] = []
        self.goaway: int | None = None
        self.closed = False
        self.state.initiate_connection()
        self.flush()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def flush(self) -> None:
        """Write what the state machine has to say."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(self.state.data_to_send())

    def request(
        self,
        path: str = "/",
        body: bytes | None = None,
        *,
        method: str = "GET",
        authority: str = "t",
        fields: Fields = (),
        ends: bool = True,
    ) -> int:
        """Send a request, return its stream. `ends=False` leaves the body open."""
        stream = self.state.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "http"), (":authority", authority)]
        head.append((":path", path))
        self.state.send_headers(stream, [*head, *fields], end_stream=ends and body is None)
        self.exchanges[stream] = Exchange()
        if body is not None:
            self.send(stream, body, ends=ends)
        self.flush()
        return stream

    def send(self, stream: int, body: bytes, *, ends: bool = True) -> None:
        """Send a body, as far as the windows let it; reads while they do not."""
        while body:
            window = self.state.local_flow_control_window(stream)
            size = min(len(body), window, self.state.max_outbound_frame_size)
            if size == 0:
                self.read()
                continue
            self.state.send_data(stream, body[:size])
            self.flush()
            body = body[size:]
        if ends:
            self.state.end_stream(stream)
        self.flush()

    def read(self) -> bool:
        """Read once; false at the end of the connection."""
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        if not data:
            self.closed = True
            return False
        for event in self.state.receive_data(data):
            self.events.append(event)
            self.take(event)
        self.flush()
        return True

    def take(self, event: Any) -> None:
        """Note one event."""
        if isinstance(event, h2.events.ConnectionTerminated):
            self.goaway = event.error_code
            return
        exchange = self.exchanges.get(getattr(event, "stream_id", 0) or 0)
        if exchange is None:
            return
        match event:
            case h2.events.InformationalResponseReceived():
                exchange.hints.append(dict(event.headers))
            case h2.events.ResponseReceived():
                exchange.headers = dict(event.headers)
                exchange.status = int(exchange.headers.pop(":status"))
            case h2.events.DataReceived():
                exchange.body += event.data
                if self.reads and event.flow_controlled_length:
                    self.state.acknowledge_received_data(
                        event.flow_controlled_length, event.stream_id
                    )
            case h2.events.TrailersReceived():
                exchange.trailers = dict(event.headers)
            case h2.events.StreamEnded():
                exchange.ended = True
            case h2.events.StreamReset():
                exchange.reset = event.error_code

    def answer(self, stream: int) -> Exchange:
        """Read until the stream is over."""
        exchange = self.exchanges[stream]
        while not exchange.is_over and self.read():
            pass
        assert exchange.is_over, f"the connection ended first, GOAWAY {self.goaway}"
        return exchange

    def settle(self) -> bool:
        """Wait until the server has seen everything that was sent; false if it closes first."""

        def count() -> int:
            return sum(isinstance(event, h2.events.PingAckReceived) for event in self.events)

        before = count()
        self.state.ping(before.to_bytes(8, "big"))
        self.flush()
        while count() == before:
            if not self.read() or self.goaway is not None:
                return False
        return True

    def read_to_end(self) -> None:
        """Read until the server closes."""
        while self.read():
            pass
