"""Bodies into shared memory through TLS: decrypted into the slot, with the same result."""

from __future__ import annotations

import json
from typing import Any

import pytest

import framegate
from tls.apps import pattern
from tls.conftest import ServeTls, exchange

pytestmark = pytest.mark.usefixtures("runtime")

TOPIC = "camera/tls"
SHAPE = (1000, 1000, 3)


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise RuntimeError
    frame = await framegate.ingest(scope, TOPIC, receive=receive, dtype="uint8", shape=SHAPE)
    body = json.dumps([frame.sequence, frame.size, frame.native]).encode()
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


def test_frames_arrive_whole(serve_tls: ServeTls) -> None:
    client = serve_tls(app)
    size = SHAPE[0] * SHAPE[1] * SHAPE[2]
    with client.connect() as connection:
        for sequence in (1, 2, 3):
            sent = bytes([sequence]) + pattern(size - 1)
            head = f"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n".encode()
            received = b""
            for chunk in exchange(connection, head + sent):
                received += chunk
                if received.endswith(b"]"):
                    break
            assert json.loads(received.partition(b"\r\n\r\n")[2]) == [sequence, size, True]
            with framegate.Subscriber(TOPIC, policy="latest") as subscriber:
                frame = subscriber.take(timeout=5)
                assert frame is not None
                with frame:
                    assert bytes(frame) == sent
