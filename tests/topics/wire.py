"""Requests to frame routes as bytes."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from typing import Any


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise NotImplementedError
    await send({"type": "http.response.start", "status": 418})
    await send({"type": "http.response.body"})


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> Any:
        assert self.headers["content-type"] == "application/problem+json"
        return json.loads(self.body)


class Wire:
    """One kept-alive connection."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(30)
        self.connection = connection
        self.stream = connection.makefile("rb")

    def ask(
        self,
        method: str,
        target: str,
        *lines: str,
        body: bytes = b"",
        host: str | None = "localhost",
        version: str = "1.1",
    ) -> Answer:
        head = [f"{method} {target} HTTP/{version}", *lines]
        if host is not None:
            head.append(f"host: {host}")
        if method in ("POST", "PUT"):
            head.append(f"content-length: {len(body)}")
        self.connection.sendall("\r\n".join([*head, "", ""]).encode() + body)
        return self.answer(has_body=method != "HEAD")

    def answer(self, *, has_body: bool = True) -> Answer:
        status = int(self.stream.readline().split()[1])
        headers = {}
        while line := self.stream.readline().strip():
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length", "0"))
        return Answer(status, headers, self.stream.read(length) if has_body else b"")

    def close(self) -> None:
        self.stream.close()
        self.connection.close()


def ask(server: Any, *words: Any, **options: Any) -> Answer:
    wire = Wire(server.connect())
    try:
        return wire.ask(*words, **options)
    finally:
        wire.close()


def bearer(token: str) -> str:
    return f"authorization: Bearer {token}"
