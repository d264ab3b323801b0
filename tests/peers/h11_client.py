"""A client on h11: a second opinion about framing."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass, field

import h11

__all__ = ["Client", "Response"]


@dataclass
class Response:
    """One response, and the informational ones before it."""

    status: int
    headers: list[tuple[bytes, bytes]]
    http_version: bytes
    body: bytes = b""
    informational: list[tuple[int, list[tuple[bytes, bytes]]]] = field(default_factory=list)

    def header(self, name: str) -> bytes | None:
        """Return the value of a field that occurs at most once."""
        values = self.all(name)
        assert len(values) <= 1, values
        return values[0] if values else None

    def all(self, name: str) -> list[bytes]:
        """Return all values of a field."""
        return [value for key, value in self.headers if key == name.encode()]


class Client:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.h11 = h11.Connection(h11.CLIENT)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def request(
        self,
        method: str,
        target: str = "/",
        headers: Iterable[tuple[str, str]] = (),
        body: bytes | Iterable[bytes] = b"",
        http_version: bytes = b"1.1",
    ) -> Response:
        """Send a request and read its response."""
        self.send(method, target, headers, body)
        return self.response()

    def send(
        self,
        method: str,
        target: str = "/",
        headers: Iterable[tuple[str, str]] = (),
        body: bytes | Iterable[bytes] = b"",
    ) -> None:
        """Send a request; an iterable body is chunked."""
        if self.h11.our_state is h11.DONE:
            self.h11.start_next_cycle()
        fields = [("host", "example"), *headers]
        if not isinstance(body, bytes):
            fields.append(("transfer-encoding", "chunked"))
        elif body:
            fields.append(("content-length", str(len(body))))
        self._send(h11.Request(method=method, target=target, headers=fields))
        for piece in [body] if isinstance(body, bytes) else body:
            if piece:
                self._send(h11.Data(data=piece))
        self._send(h11.EndOfMessage())

    def response(self) -> Response:
        """Read a response to its end; raises `h11.RemoteProtocolError` when it is cut."""
        informational = []
        while True:
            event = self._next()
            if isinstance(event, h11.InformationalResponse):
                informational.append((event.status_code, list(event.headers)))
            elif isinstance(event, h11.Response):
                break
            else:
                raise AssertionError(event)
        response = Response(
            event.status_code, list(event.headers), event.http_version, b"", informational
        )
        body = bytearray()
        while not isinstance(event := self._next(), h11.EndOfMessage):
            assert isinstance(event, h11.Data), event
            body += event.data
        response.body = bytes(body)
        return response

    def is_closed(self) -> bool:
        """Return whether the server closes now."""
        return self.socket.recv(1) == b""

    def _send(self, event: object) -> None:
        data = self.h11.send(event)  # type: ignore[arg-type]
        if data:
            self.socket.sendall(data)

    def _next(self) -> object:
        while (event := self.h11.next_event()) is h11.NEED_DATA:
            self.h11.receive_data(self.socket.recv(1 << 16))
        return event
