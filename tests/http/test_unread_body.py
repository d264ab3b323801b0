"""A body that nobody reads costs a kept-alive client no request: it is told, or served on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import h11
import httpx
import pytest

from apps import respond
from peers.h11_client import Client
from peers.raw import head, read_head
from server_thread import Serve, Server

# What a connection drops for one more request: `unread_bytes_max` of the Rust core.
UNREAD_BYTES_MAX = 64 * 1024


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Paths say how much of the body is read before the answer."""
    if scope["path"] == "/some":
        event = await receive()
        assert event["type"] == "http.request"
    if scope["path"] == "/stream":  # as frameworks answer whose middleware wraps responses
        await send({"type": "http.response.start", "status": 401})
        await send({"type": "http.response.body", "body": b"n", "more_body": True})
        await send({"type": "http.response.body", "body": b"o"})
        return
    if scope["path"] == "/fails":
        raise ZeroDivisionError
    await respond(send, scope["path"].encode(), status=401)


TARGETS = [
    "/none",
    "/some",
    "/stream",
    "/fails",
    "/topics/unknown",  # 404 of a frame route
    "/topics/small",  # 413 of a frame route
    "/call/nobody",  # 404 of a call
]
RULES = {"small": {"create": True, "slots": 2, "slot_bytes": 9}}


@pytest.fixture
def server(serve: Serve, runtime: Any) -> Iterator[Server]:
    server = serve(application, lifespan="off", topics="/topics", topic_rules=RULES)
    yield server
    server.unhandled.clear()  # what `/fails` raised


@pytest.mark.parametrize("target", TARGETS)
def test_httpx_keeps_its_connection_where_it_may_and_loses_no_request(
    server: Server, target: str
) -> None:
    sizes = [10, 1000, UNREAD_BYTES_MAX, UNREAD_BYTES_MAX + 1, 4 * 2**20]
    with httpx.Client(base_url=server.url, timeout=30) as client:
        for size in sizes * 3:
            answer = client.post(target, content=bytes(size))
            assert answer.status_code >= 400
            assert client.get("/none").text == "/none"
            # A generator is sent in chunks.
            answer = client.post(target, content=iter([bytes(size), b"last"]))
            assert answer.status_code >= 400
            assert client.put("/none", content=b"x").text == "/none"


@pytest.mark.parametrize("target", TARGETS)
def test_h11_agrees_on_what_follows_an_unread_body(server: Server, target: str) -> None:
    early = b"x" if target == "/some" else b""
    for left in (10, UNREAD_BYTES_MAX, UNREAD_BYTES_MAX + 1):
        with Client(server.connect()) as client:
            request = h11.Request(
                method="POST",
                target=target,
                headers=[("host", "localhost"), ("content-length", str(left + len(early)))],
            )
            client._send(request)
            if early:
                client._send(h11.Data(data=early))
            # The rest comes when the answer is there.
            response = client.response()
            assert response.status >= 400
            closes = response.header("connection") == b"close"
            assert closes == (left > UNREAD_BYTES_MAX)
            if closes:
                assert client.is_closed()
                continue
            client._send(h11.Data(data=bytes(left)))
            client._send(h11.EndOfMessage())
            client.h11.start_next_cycle()
            assert client.request("GET", "/none").body == b"/none"


@pytest.mark.parametrize("target", TARGETS)
def test_next_request_may_be_in_the_same_packet(server: Server, target: str) -> None:
    chunked = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    for fields, body in (
        ("content-length: 10", b"x" * 10),
        ("transfer-encoding: chunked", chunked),
    ):
        with server.connect() as connection, connection.makefile("rb") as answers:
            connection.sendall(
                head("POST", target, fields) + body + head("GET", "/next", "connection: close")
            )
            everything = answers.read()
        assert everything.count(b"HTTP/1.1 ") == 2, everything
        assert everything.endswith(b"/next")


def test_client_that_waits_for_continue_and_is_refused_is_told_of_the_end(server: Server) -> None:
    for target in ("/none", "/stream", "/topics/unknown"):
        with server.connect() as connection:
            connection.sendall(head("POST", target, "expect: 100-continue", "content-length: 10"))
            answer = read_head(connection)
            assert b"\r\nconnection: close\r\n" in answer.lower(), answer


def test_frame_route_asks_for_what_it_takes_and_the_connection_lives_on(server: Server) -> None:
    with Client(server.connect()) as client:
        for sequence in (1, 2):
            fields = [("expect", "100-continue"), ("content-length", "3")]
            client._send(
                h11.Request(
                    method="POST", target="/topics/small", headers=[("host", "localhost"), *fields]
                )
            )
            event = client._next()
            assert isinstance(event, h11.InformationalResponse) and event.status_code == 100
            client._send(h11.Data(data=b"abc"))
            client._send(h11.EndOfMessage())
            response = client.response()
            assert json.loads(response.body)["sequence"] == sequence
            assert response.header("connection") is None
            client.h11.start_next_cycle()
