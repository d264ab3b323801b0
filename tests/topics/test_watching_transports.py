"""Viewers over HTTP/2 and TLS get the same frames as those over HTTP/1.1 in the clear."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import BytesMessage

import framegate
from conformance.process import certificate
from peers.h2_client import Client, Exchange
from peers.h2_websocket import TunnelSocket
from server_thread import Serve, Server
from topics.test_watching import SHAPE, ack, frame_of, picture

TOKEN = "viewer-viewer-viewer"
FIELDS = (("authorization", f"Bearer {TOKEN}"),)
VERSION = ("sec-websocket-version", "13")


async def app(scope: Any, receive: Any, send: Any) -> None:
    raise NotImplementedError


@pytest.fixture
def camera() -> Iterator[framegate.Publisher]:
    with framegate.Publisher("cam", dtype="uint8", shape=SHAPE, slots=8) as publisher:
        yield publisher


Open = Callable[[], socket.socket]


@pytest.fixture(params=["clear", "tls"])
def connect(serve: Serve, request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Open connections for HTTP/2."""
    options: dict[str, Any] = {
        "topics": "/topics",
        "topics_tokens": {"viewer": {"token": TOKEN, "read": ["**"]}},
    }
    if request.param == "clear":
        server: Server = serve(app, **options)
        return server.connect
    cert, key = certificate(tmp_path)
    server = serve(app, ssl_certfile=str(cert), ssl_keyfile=str(key), **options)
    context = ssl.create_default_context(cafile=str(cert))
    context.set_alpn_protocols(["h2"])
    return lambda: context.wrap_socket(server.connect(), server_hostname="localhost")


def ask(client: Client, rest: str) -> Exchange:
    exchange = client.exchanges[client.request(f"/topics/cam{rest}", fields=FIELDS)]
    while exchange.status is None:
        assert client.read()
    return exchange


def until(client: Client, exchange: Exchange, mark: bytes) -> bytes:
    while mark not in exchange.body:
        assert client.read() and not exchange.is_over
    found, exchange.body = exchange.body.split(mark, 1)
    return found


def test_newest_frame(connect: Open, camera: framegate.Publisher) -> None:
    with Client(connect()) as client:
        for value in (1, 2):
            sequence = camera.send(picture(value))
            exchange = ask(client, "?view=latest")
            while not exchange.is_over:
                assert client.read()
            assert exchange.headers["frame-sequence"] == str(sequence)
            array = np.frombuffer(exchange.body, np.uint8).reshape(SHAPE)
            assert (array == picture(value)).all()


def test_pictures_and_events_beside_each_other(connect: Open, camera: framegate.Publisher) -> None:
    with Client(connect()) as client:
        pictures, events = ask(client, "?view=mjpeg"), ask(client, "?view=sse")
        assert (pictures.status, events.status) == (200, 200)
        for value in (10, 20, 200):
            sequence = camera.send(picture(value))
            head = until(client, pictures, b"\r\n\r\n").decode()
            fields = dict(line.split(": ") for line in head.split("\r\n") if ": " in line)
            assert int(fields["Frame-Sequence"]) == sequence
            size = int(fields["Content-Length"])
            while len(pictures.body) < size:
                assert client.read()
            assert pictures.body.startswith(b"\xff\xd8")
            pictures.body = pictures.body[size:]
            until(client, events, b"data: ")
            assert json.loads(until(client, events, b"\n\n"))["sequence"] == sequence


def test_viewer_whose_window_stays_shut_for_the_write_timeout_is_reset(
    serve: Serve, camera: framegate.Publisher
) -> None:
    """Its stream is, and nothing else of its connection."""
    server = serve(app, topics="/topics", timeout_write=0.3)
    with (
        framegate.Publisher("files", slots=8, slot_bytes=1 << 20) as files,
        Client(server.connect(), reads=False) as client,
    ):
        # The connection's window is open, those of the streams hold 64 KiB.
        client.state.increment_flow_control_window(1 << 24)
        client.flush()
        target = ["/topics/files?view=mjpeg", "/topics/cam?view=sse"]
        pictures, events = (
            client.exchanges[client.request(path, authority="localhost")] for path in target
        )
        while pictures.status is None or events.status is None:
            assert client.read()
        files.send(b"\xff\xd8" + bytes(1 << 19), content_type="image/jpeg")
        while pictures.reset is None:
            assert client.read()
        assert len(pictures.body) == 65_535
        sequence = camera.send(picture(7))
        until(client, events, b"data: ")
        assert json.loads(until(client, events, b"\n\n"))["sequence"] == sequence
        assert not events.is_over


def test_websocket_over_an_extended_connect(connect: Open, camera: framegate.Publisher) -> None:
    tunnel = TunnelSocket(connect())
    assert tunnel.connect("/topics/cam", [VERSION, *FIELDS]).status == 200
    peer = Connection(ConnectionType.CLIENT)
    for value in range(5):
        sequence = camera.send(picture(value))
        message, is_whole = b"", False
        while not is_whole:
            peer.receive_data(tunnel.recv(1 << 16))
            for event in peer.events():
                assert isinstance(event, BytesMessage), event
                message += bytes(event.data)
                is_whole = event.message_finished
        _, shown, _, _, got = frame_of(message)
        assert (shown, got) == (sequence, picture(value).tobytes())
        tunnel.sendall(peer.send(BytesMessage(ack(shown))))
    tunnel.close()


def test_websocket_over_http2_needs_a_token_as_others_do(
    connect: Open, camera: framegate.Publisher
) -> None:
    tunnel = TunnelSocket(connect())
    assert tunnel.connect("/topics/cam", [VERSION]).status == 401
    tunnel.close()
