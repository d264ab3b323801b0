"""What every framework has to do here; each test file only writes the same application anew.

An application has: `GET /items/{number}?q=`, `POST /upload` (multipart, field `file`),
`GET /stream`, `POST /background`, `GET /sync` (a plain function) and, where the framework has it,
`/ws`.
"""

from __future__ import annotations

import hashlib
import json
import threading
from typing import Any

from peers.h11_client import Client

__all__ = ["BODY", "Trace", "check_http", "check_websocket"]

BODY = bytes(range(256)) * 8192


class Trace:
    """What the handlers of one application tell the test."""

    def __init__(self) -> None:
        self.background = threading.Event()
        self.release = threading.Event()

    def work(self) -> None:
        """Be the background task: it ends when the test has its response."""
        assert self.release.wait(10)
        self.background.set()


def check_http(server: Any, trace: Trace) -> None:
    """Ask for everything, twice over one connection."""
    with Client(server.connect()) as client:
        for _ in range(2):
            response = client.request("GET", "/items/7?q=caf%C3%A9")
            assert (response.status, json.loads(response.body)) == (200, {"item": 7, "q": "café"})
            assert client.request("GET", "/missing").status == 404
            assert client.request("GET", "/items/x").status in (400, 404, 422)

            response = client.request("GET", "/sync")
            seen = json.loads(response.body)
            assert seen["thread"] is True, "the plain function ran on the loop's thread"

            response = client.request("GET", "/stream")
            assert response.body == b"".join(b"line %d\n" % number for number in range(50))
            assert response.header("transfer-encoding") == b"chunked"

            response = upload(client)
            digest = hashlib.sha256(BODY).hexdigest()
            assert json.loads(response.body) == {"size": len(BODY), "sha256": digest}

            response = client.request("HEAD", "/items/7?q=x")
            assert response.body == b""

            response = client.request("POST", "/background")
            assert json.loads(response.body) == {"accepted": True}
            assert not trace.background.is_set()
            trace.release.set()
            assert trace.background.wait(10)
            trace.release.clear()
            trace.background.clear()


def upload(client: Client) -> Any:
    """Send a file as browsers do."""
    boundary = "frontier"
    form = (
        (
            f"--{boundary}\r\n"
            'content-disposition: form-data; name="file"; filename="f.bin"\r\n'
            "content-type: application/octet-stream\r\n\r\n"
        ).encode()
        + BODY
        + f"\r\n--{boundary}--\r\n".encode()
    )
    headers = [("content-type", f"multipart/form-data; boundary={boundary}")]
    response = client.request("POST", "/upload", headers, form)
    assert response.status in (200, 201), response.body
    return response


def check_websocket(server: Any) -> None:
    """Echo text and binary, then close from the client."""
    from websockets.sync.client import connect

    with connect(f"ws://{server.host}:{server.port}/ws") as socket:
        for text in ("hello", "x" * 100_000, "é"):
            socket.send(text)
            assert socket.recv(timeout=10) == text + "!"
