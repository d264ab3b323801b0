"""The opening handshake: what the application sees, and everything it may answer."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from websocket.raw import ACCEPT, HANDSHAKE, TEXT, frame


def without(name: str) -> list[tuple[str, str]]:
    return [field for field in HANDSHAKE if field[0] != name]


def replaced(name: str, value: str) -> list[tuple[str, str]]:
    return [*without(name), (name, value)]


def test_scope(serve: Any, saw: Any, raw: Any, http: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        saw(scope)
        saw(await receive())
        await send({"type": "websocket.accept"})

    server = serve(app, lifespan="off")
    client = raw(server)
    headers = [*HANDSHAKE, ("sec-websocket-protocol", "a, b"), ("sec-websocket-protocol", "c")]
    response = client.request(headers, target="/r%C3%BCm?x=1&y=%20")
    assert response.status == 101
    assert response.all("sec-websocket-accept") == [ACCEPT]
    assert response.all("sec-websocket-protocol") == []
    scope = saw.next()
    assert scope["type"] == "websocket"
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.5"}
    assert scope["http_version"] == "1.1"
    assert scope["scheme"] == ("wss" if http == "h1-tls" else "ws")
    assert scope["path"] == "/rüm"
    assert scope["raw_path"] == b"/r%C3%BCm"
    assert scope["query_string"] == b"x=1&y=%20"
    assert scope["root_path"] == ""
    assert scope["client"] == client.socket.getsockname()
    assert scope["server"] == ("127.0.0.1", server.port)
    assert scope["subprotocols"] == ["a", "b", "c"]
    assert scope["extensions"].pop("tls", None) is not None or http == "h1"
    assert scope["extensions"] == {"websocket.http.response": {}, "framegate.topics": {}}
    assert (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==") in scope["headers"]
    assert "method" not in scope
    assert saw.next() == {"type": "websocket.connect"}


def test_subprotocol_and_cookies(serve: Any, dial: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        headers = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2; HttpOnly"), [b"X-Name", b"v"]]
        await send({"type": "websocket.accept", "subprotocol": "chat", "headers": iter(headers)})

    server = serve(app, lifespan="off")
    with dial(server, subprotocols=["soap", "chat"]) as client:
        assert client.subprotocol == "chat"
        assert client.response.headers.get_all("set-cookie") == ["a=1", "b=2; HttpOnly"]
        assert client.response.headers["x-name"] == "v"


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({"subprotocol": "other"}, "the client offered only chat, soap"),
        ({"headers": [(b"sec-websocket-accept", b"x")]}, "is set by the server"),
        ({"headers": [(b"Sec-WebSocket-Protocol", b"chat")]}, "is set by the server"),
        ({"headers": [(b"upgrade", b"x")]}, "is set by the server"),
        ({"headers": [(b"x-a", b"split\r\nhere: 1")]}, "control character"),
        ({"headers": [(b"not a token", b"x")]}, "is not a token"),
    ],
)
def test_an_impossible_accept_raises_and_leaves_the_handshake_open(
    serve: Any, raw: Any, saw: Any, message: dict[str, Any], error: str
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        with pytest.raises(ValueError) as caught:
            await send({"type": "websocket.accept", **message})
        saw(str(caught.value))
        await send({"type": "websocket.accept", "subprotocol": "chat"})

    client = raw(serve(app, lifespan="off"))
    response = client.request([*HANDSHAKE, ("sec-websocket-protocol", "chat,soap")])
    assert response.status == 101
    assert response.all("sec-websocket-protocol") == ["chat"]
    assert error in saw.next()


def test_close_before_accept_is_403(serve: Any, saw: Any, raw: Any, dial: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.close", "code": 4001})
        saw(await receive())
        with pytest.raises(RuntimeError, match=r"websocket\.accept"):
            await send({"type": "websocket.accept"})
        saw("refused")

    server = serve(app, lifespan="off")
    with pytest.raises(InvalidStatus) as caught:
        dial(server)
    assert caught.value.response.status_code == 403
    assert saw.next() == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
    assert saw.next() == "refused"
    # The connection is an ordinary one still.
    client = raw(server)
    for _ in range(2):
        response = client.request()
        assert response.status == 403
        assert response.all("content-length") == ["0"]
        assert response.all("upgrade") == []


def test_denial_response(serve: Any, raw: Any, dial: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        headers = [
            (b"content-type", b"text/plain"),
            (b"x-why", b"teapot"),
            (b"upgrade", b"websocket"),
            (b"connection", b"upgrade"),
            (b"sec-websocket-accept", b"forged"),
        ]
        await send({"type": "websocket.http.response.start", "status": 418, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": b"no coffee"})

    server = serve(app, lifespan="off")
    with pytest.raises(InvalidStatus) as caught:
        dial(server)
    assert caught.value.response.status_code == 418
    assert caught.value.response.body == b"no coffee"
    response = raw(server).request()
    assert response.all("x-why") == ["teapot"]
    assert response.all("content-length") == ["9"]
    for name in ["upgrade", "connection", "sec-websocket-accept"]:
        assert response.all(name) == []


def test_a_denial_in_pieces_waits_for_a_slow_client(serve: Any, saw: Any, raw: Any) -> None:
    pieces = 400

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.http.response.start", "status": 403})
        for number in range(pieces):
            body = {"type": "websocket.http.response.body", "body": b"x" * 65536, "more_body": True}
            await send(body)
            saw(number)
        await send({"type": "websocket.http.response.body"})
        saw("done")

    server = serve(app, lifespan="off")
    client = raw(server)
    response = client.request()
    assert response.status == 403
    assert response.all("transfer-encoding") == ["chunked"]
    # The client reads nothing more: the application comes as far as the kernel's buffers go.
    server.submit(lambda: asyncio.sleep(0.2))
    sent = 0
    while not saw.empty:
        sent = saw.next()
    assert sent != "done" and sent < pieces - 1
    size = 0
    while not client.buffer.endswith(b"0\r\n\r\n"):
        assert client._fill()
        size += len(client.buffer) - 5
        del client.buffer[:-5]
    assert size > pieces * 65536
    while saw.next() != "done":
        pass


def test_a_denial_that_is_not_completed_is_cut(
    serve: Any, until_told: Any, raw: Any, saw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.http.response.start", "status": 403})
        await send({"type": "websocket.http.response.body", "body": b"part", "more_body": True})
        await until_told()

    with caplog.at_level(logging.ERROR, "framegate"):
        client = raw(serve(app, lifespan="off"))
        assert client.request().status == 403
        saw.next()()
        rest = client.read_to_end()
    assert b"part" in rest
    assert not rest.endswith(b"0\r\n\r\n")
    assert "without completing its response" in caplog.text


@pytest.mark.parametrize(
    "messages",
    [
        [{"type": "websocket.send", "text": "early"}],
        [{"type": "websocket.http.response.body", "body": b""}],
        [{"type": "websocket.accept"}, {"type": "websocket.accept"}],
        [{"type": "websocket.accept"}, {"type": "websocket.http.response.start", "status": 403}],
        [
            {"type": "websocket.http.response.start", "status": 403},
            {"type": "websocket.http.response.start", "status": 403},
        ],
        [{"type": "websocket.http.response.start", "status": 403}, {"type": "websocket.accept"}],
        [{"type": "websocket.http.response.start", "status": 403}, {"type": "websocket.close"}],
    ],
)
def test_messages_out_of_order_raise(
    serve: Any, raw: Any, saw: Any, messages: list[dict[str, Any]]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        for message in messages[:-1]:
            await send(message)
        with pytest.raises(RuntimeError, match="unexpected ASGI message") as caught:
            await send(messages[-1])
        saw(str(caught.value))
        if messages[0]["type"] == "websocket.http.response.start":
            await send({"type": "websocket.http.response.body"})
        elif len(messages) == 1:
            await send({"type": "websocket.close"})

    raw(serve(app, lifespan="off")).request()
    assert messages[-1]["type"] in saw.next()


@pytest.mark.parametrize(
    ("status", "error"), [(101, ValueError), (99, ValueError), ("x", TypeError)]
)
def test_a_denial_needs_a_final_status(
    serve: Any, raw: Any, saw: Any, status: Any, error: type[Exception]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        with pytest.raises(error):
            await send({"type": "websocket.http.response.start", "status": status})
        await send({"type": "websocket.close"})

    assert raw(serve(app, lifespan="off")).request().status == 403


@pytest.mark.parametrize("error", [None, RuntimeError("oops")])
def test_an_application_that_does_not_answer_is_500(
    serve: Any, raw: Any, caplog: pytest.LogCaptureFixture, error: Exception | None
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if error is not None:
            raise error

    with caplog.at_level(logging.ERROR, "framegate"):
        assert raw(serve(app, lifespan="off")).request().status == 500
    expected = "oops" if error else "returned without accepting or closing"
    assert expected in caplog.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (without("connection"), 400),
        (replaced("connection", "close"), 400),
        (without("sec-websocket-version"), 400),
        (replaced("sec-websocket-version", "8"), 426),
        (without("sec-websocket-key"), 400),
        (replaced("sec-websocket-key", "short"), 400),
        (replaced("sec-websocket-key", "c2hvcnQ="), 400),
        ([*HANDSHAKE, ("content-length", "3")], 400),
        ([*HANDSHAKE, ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")], 400),
        ([*HANDSHAKE, ("sec-websocket-protocol", "not/a/token")], 400),
    ],
)
def test_a_broken_handshake_never_reaches_the_application(
    serve: Any, raw: Any, saw: Any, headers: Any, status: int
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        saw(scope)

    client = raw(serve(app, lifespan="off"))
    response = client.request(headers, behind=b"abc")
    assert response.status == status
    if status == 426:
        assert response.all("sec-websocket-version") == ["13"]
    client.read_to_end()
    assert saw.empty


def test_only_get_opens_a_websocket(serve: Any, raw: Any, saw: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        saw(scope)

    response = raw(serve(app, lifespan="off")).request(line="POST / HTTP/1.1")
    assert response.status == 400
    assert saw.empty


def test_an_upgrade_over_http_1_0_is_an_ordinary_request(serve: Any, raw: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"plain"})

    client = raw(serve(app, lifespan="off"))
    assert client.request(line="GET / HTTP/1.0").status == 200


def test_a_client_that_leaves_before_the_answer(serve: Any, raw: Any, saw: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        saw("waits")
        saw(await receive())
        with pytest.raises(OSError) as caught:
            await send({"type": "websocket.accept"})
        saw(type(caught.value).__name__)
        await send({"type": "websocket.close"})
        saw(await receive())

    server = serve(app, lifespan="off")
    client = raw(server)
    client.socket.sendall(b"GET / HTTP/1.1\r\n")
    client.socket.sendall(b"".join(f"{n}: {v}\r\n".encode() for n, v in HANDSHAKE) + b"\r\n")
    assert saw.next() == "waits"
    client.reset()
    assert saw.next() == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
    assert saw.next() == "ClientDisconnected"
    assert saw.next() == {"type": "websocket.disconnect", "code": 1006, "reason": ""}


def test_accepting_later_and_from_another_task(serve: Any, raw: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def accept() -> None:
            await send({"type": "websocket.accept"})

        await receive()
        await asyncio.sleep(0.01)
        await asyncio.create_task(accept())
        await send({"type": "websocket.send", "text": "before the first read"})
        event = await receive()
        await send({"type": "websocket.send", "text": event["text"]})

    client = raw(serve(app, lifespan="off")).open()
    assert client.read_frame() == (TEXT, b"before the first read")
    client.send(frame(TEXT, b"and after"))
    assert client.read_frame() == (TEXT, b"and after")


def test_lifespan_state_reaches_the_scope(serve: Any, raw: Any, saw: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["name"] = "shared"
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        saw(scope["state"])
        await receive()
        await send({"type": "websocket.close"})

    assert raw(serve(app)).request().status == 403
    assert saw.next() == {"name": "shared"}
