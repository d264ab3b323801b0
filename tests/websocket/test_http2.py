"""WebSocket over HTTP/2 (RFC 8441): what differs from HTTP/1.1. The rest is shown over both."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import BytesMessage, CloseConnection, Message, TextMessage

import framegate
from peers.h2_websocket import TunnelSocket
from websocket.raw import BINARY, TEXT, RawWebSocketOverHttp2, close_frame, frame

VERSION = ("sec-websocket-version", "13")


@pytest.fixture
def tunnel() -> Iterator[Callable[[Any], TunnelSocket]]:
    """Open streams: `tunnel(server)`."""
    opened: list[TunnelSocket] = []

    def connect(server: Any) -> TunnelSocket:
        opened.append(TunnelSocket(server.connect()))
        return opened[-1]

    yield connect
    for each in opened:
        each.close()


def test_scope(serve: Any, saw: Any, tunnel: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        saw(scope)
        saw(await receive())
        await send({"type": "websocket.accept"})

    server = serve(app, lifespan="off")
    client = tunnel(server)
    fields = [
        VERSION,
        ("sec-websocket-protocol", "a, b"),
        ("cookie", "x=1"),
        ("cookie", "y=2"),
        ("sec-websocket-protocol", "c"),
    ]
    response = client.connect("/r%C3%BCm?x=1&y=%20", fields)
    assert response.status == 200
    assert "sec-websocket-accept" not in response.headers
    assert "content-length" not in response.headers
    scope = saw.next()
    assert scope["type"] == "websocket"
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.5"}
    assert scope["http_version"] == "2"
    assert scope["scheme"] == "ws"
    assert scope["path"] == "/rüm"
    assert scope["raw_path"] == b"/r%C3%BCm"
    assert scope["query_string"] == b"x=1&y=%20"
    assert scope["client"] == client.getsockname()
    assert scope["server"] == ("127.0.0.1", server.port)
    assert scope["subprotocols"] == ["a", "b", "c"]
    assert scope["extensions"] == {"websocket.http.response": {}, "framegate.topics": {}}
    assert scope["headers"] == [
        (b"host", b"example.com"),
        (b"sec-websocket-version", b"13"),
        (b"sec-websocket-protocol", b"a, b"),
        (b"sec-websocket-protocol", b"c"),
        (b"cookie", b"x=1; y=2"),
    ]
    assert "method" not in scope
    assert saw.next() == {"type": "websocket.connect"}


def test_subprotocol_and_cookies(serve: Any, tunnel: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        headers = [(b"set-cookie", b"a=1"), (b"x-name", b"v")]
        await send({"type": "websocket.accept", "subprotocol": "chat", "headers": headers})

    client = tunnel(serve(app, lifespan="off"))
    response = client.connect("/", [VERSION, ("sec-websocket-protocol", "soap, chat")])
    assert response.status == 200
    assert response.headers["sec-websocket-protocol"] == "chat"
    assert response.headers["set-cookie"] == "a=1"
    assert response.headers["x-name"] == "v"
    assert response.headers["server"] == "framegate"


def test_wsproto_talks_to_it(serve: Any, echo_app: Any, tunnel: Any) -> None:
    client = tunnel(serve(echo_app, lifespan="off"))
    assert client.connect().status == 200
    state = Connection(ConnectionType.CLIENT)
    large = bytes(range(256)) * 2000
    client.sendall(state.send(TextMessage(data="grüße")))
    client.sendall(state.send(BytesMessage(data=large)))
    text, data, closed = "", b"", None
    while closed is None:
        received = client.recv(65536)
        state.receive_data(received or None)
        for event in state.events():
            match event:
                case TextMessage():
                    text += event.data
                case BytesMessage():
                    data += event.data
                    if len(data) == len(large):
                        client.sendall(state.send(CloseConnection(code=4000, reason="enough")))
                case CloseConnection():
                    closed = event
                case Message():
                    pytest.fail(f"{event}")
    assert (text, data) == ("grüße", large)
    assert (closed.code, closed.reason) == (4000, "enough")
    assert client.recv(1) == b""


def test_many_and_requests_beside_them(serve: Any, tunnel: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": bytes(1 << 20)})
            return
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": scope["path"] + message["text"]})

    server = serve(app, lifespan="off")
    first = tunnel(server)
    clients = [RawWebSocketOverHttp2(first)]
    clients += [RawWebSocketOverHttp2(TunnelSocket(first.client)) for _ in range(20)]
    for number, client in enumerate(clients):
        client.open(target=f"/{number}")
    large = first.client.request("/large")
    for client in clients:
        client.send(frame(TEXT, b"!"))
    for number, client in enumerate(clients):
        assert client.read_frame() == (TEXT, f"/{number}!".encode())
    assert len(first.client.answer(large).body) == 1 << 20
    assert server.submit(lambda: server.worker.connections) == 1


@pytest.mark.parametrize("status", [200, 204, 299])
def test_a_denial_is_no_success(serve: Any, tunnel: Any, status: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        with pytest.raises(ValueError, match="would tell a client of HTTP/2"):
            await send({"type": "websocket.http.response.start", "status": status})
        await send({"type": "websocket.http.response.start", "status": 401})
        await send({"type": "websocket.http.response.body", "body": b"who are "})

    client = tunnel(serve(app, lifespan="off"))
    assert client.connect().status == 401
    assert client.client.answer(client.stream).body == b"who are "


def test_close_before_accept_is_403(serve: Any, tunnel: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.close", "code": 4000})

    client = tunnel(serve(app, lifespan="off"))
    assert client.connect().status == 403
    assert client.client.answer(client.stream).body == b""


@pytest.mark.parametrize(
    ("fields", "protocol", "status"),
    [
        ([], "websocket", 400),
        ([("sec-websocket-version", "8")], "websocket", 400),
        ([VERSION, ("content-length", "5")], "websocket", 400),
        ([VERSION, ("sec-websocket-protocol", "a b")], "websocket", 400),
        ([VERSION], "connect-ip", 501),
    ],
)
def test_a_broken_handshake_never_reaches_the_application(
    serve: Any, tunnel: Any, saw: Any, fields: Any, protocol: str, status: int
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        saw(scope)

    client = tunnel(serve(app, lifespan="off"))
    response = client.connect("/", fields, protocol=protocol)
    assert response.status == status
    assert "upgrade" not in response.headers
    assert saw.empty


@pytest.mark.parametrize("how", ["cancel", "end"])
def test_a_stream_that_is_given_up_is_a_lost_link(
    serve: Any, accepting: Any, tunnel: Any, saw: Any, how: str
) -> None:
    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        saw(await receive())
        saw(await receive())
        with pytest.raises(framegate.ClientDisconnected):
            await send({"type": "websocket.send", "text": "is anybody there?"})
        saw("over")

    server = serve(app, lifespan="off")
    client = RawWebSocketOverHttp2(tunnel(server)).open()
    client.send(frame(TEXT, b"one"))
    assert saw.next()["text"] == "one"
    if how == "cancel":
        client.socket.cancel()
    else:
        client.socket.shutdown(1)
    assert saw.next() == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
    assert saw.next() == "over"
    # The connection is as good as before.
    other = RawWebSocketOverHttp2(TunnelSocket(client.socket.client)).open()
    other.send(close_frame(1000))
    assert saw.next()["code"] == 1000


def test_a_client_that_leaves_before_the_answer(serve: Any, tunnel: Any, saw: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        saw(await receive())
        saw(await receive())
        with pytest.raises(OSError, match="closed the connection"):
            await send({"type": "websocket.accept"})
        saw("over")

    server = serve(app, lifespan="off")
    client = tunnel(server)
    state = client.client.state
    stream = state.get_next_available_stream_id()
    state.send_headers(
        stream,
        [
            (":method", "CONNECT"),
            (":scheme", "http"),
            (":authority", "example.com"),
            (":path", "/"),
            (":protocol", "websocket"),
            VERSION,
        ],
    )
    client.client.flush()
    assert saw.next() == {"type": "websocket.connect"}
    client.stream = stream
    client.cancel()
    assert saw.next()["code"] == 1006
    assert saw.next() == "over"


def test_the_window_opens_as_messages_are_received(
    serve: Any, counting: Any, tunnel: Any, saw: Any
) -> None:
    server = serve(counting, lifespan="off", http2_initial_stream_window_size=65_535)
    client = RawWebSocketOverHttp2(tunnel(server)).open()
    go = saw.next()
    client.socket.settimeout(0.3)
    data = frame(BINARY, bytes(1000)) * 1000
    sent = 0
    with pytest.raises(TimeoutError):
        while True:
            sent += client.socket.send(data[sent : sent + 10_000])
    # The window, the 32 messages that may wait, and what one read took.
    assert sent < 65_535 * 3
    go()
    client.socket.settimeout(20)
    client.socket.sendall(data[sent:] + close_frame(1000))
    assert saw.next() == 1000


def test_nothing_is_left_of_closed_streams(serve: Any, echo_app: Any, tunnel: Any) -> None:
    def left() -> int:
        gc.collect()
        return sum(type(thing).__name__ == "WebSocketExchange" for thing in gc.get_objects())

    server = serve(echo_app, lifespan="off")
    before = server.submit(left)
    first = tunnel(server)
    first.connect()
    first.cancel()
    for number in range(20):
        client = RawWebSocketOverHttp2(TunnelSocket(first.client)).open()
        client.send(frame(TEXT, b"x"))
        assert client.read_frame() == (TEXT, b"x")
        if number % 2:
            client.socket.cancel()
        else:
            client.send(close_frame(1000))
            client.read_to_end()
            client.socket.shutdown(1)

    async def gone() -> None:
        while left() > before:
            await asyncio.sleep(0.01)

    server.submit(lambda: asyncio.wait_for(gone(), 15))
