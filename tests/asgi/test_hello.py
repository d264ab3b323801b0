"""The shortest application, end to end."""

from __future__ import annotations

from typing import Any


async def hello(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise RuntimeError(scope["type"])
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"Hello, world!"})


def test_hello_over_a_raw_socket(serve: Any) -> None:
    server = serve(hello, lifespan="off")
    with server.connect() as client:
        for _ in range(3):
            client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            data = b""
            while not data.endswith(b"Hello, world!"):
                data += client.recv(4096)
            assert data.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"content-length: 13\r\n" in data
            assert b"server: framegate\r\n" in data
