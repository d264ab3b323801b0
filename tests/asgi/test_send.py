"""What `send()` makes of the application's messages."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import h11
import pytest

from apps import respond
from peers.h11_client import Client
from peers.raw import head, read_all, read_head


def start(status: int = 200, headers: list[tuple[bytes, bytes]] | None = None) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": headers or []}


def body(data: Any = b"", more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def application(*messages: dict[str, Any]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return app


def get(server: Any, method: str = "GET", version: str = "1.1", *fields: str) -> bytes:
    with server.connect() as client:
        client.sendall(head(method, "/", "connection: close", *fields, version=version))
        return read_all(client)


def split(data: bytes) -> tuple[list[bytes], bytes]:
    top, _, rest = data.partition(b"\r\n\r\n")
    return top.split(b"\r\n"), rest


def test_start_without_headers_and_body_without_body(serve: Any) -> None:
    app = application(
        {"type": "http.response.start", "status": 202}, {"type": "http.response.body"}
    )
    with Client(serve(app, lifespan="off").connect()) as client:
        response = client.request("GET")
    assert response.status == 202
    assert response.body == b""
    assert response.header("content-length") == b"0"


def test_date_and_server_are_added_once(serve: Any) -> None:
    with Client(serve(application(start(), body()), lifespan="off").connect()) as client:
        response = client.request("GET")
    assert response.header("server") == b"framegate"
    assert response.header("date") is not None
    own = [(b"server", b"mine"), (b"date", b"Thu, 01 Jan 1970 00:00:00 GMT")]
    server = serve(application(start(headers=own), body()), lifespan="off")
    with Client(server.connect()) as client:
        response = client.request("GET")
    assert response.header("server") == b"mine"
    assert response.header("date") == own[1][1]


def test_server_header_is_off_and_others_are_added(serve: Any) -> None:
    app = application(start(headers=[(b"x-own", b"1")]), body(b"x"))
    server = serve(
        app, lifespan="off", server_header=False, headers=[("x-extra", "caf\xe9"), ("x-extra", "2")]
    )
    with Client(server.connect()) as client:
        response = client.request("GET")
    assert response.all("server") == []
    assert response.all("x-extra") == [b"caf\xe9", b"2"]
    assert response.header("x-own") == b"1"


def test_date_header_is_off(serve: Any) -> None:
    app = application(start(), body(b"x"))
    with Client(serve(app, lifespan="off", date_header=False).connect()) as client:
        assert client.request("GET").all("date") == []


@pytest.mark.parametrize(
    "data",
    [b"abc", bytearray(b"abc"), memoryview(b"abc"), memoryview(b"a_b_c")[::2]],
    ids=["bytes", "bytearray", "memoryview", "strided"],
)
@pytest.mark.parametrize("more", [False, True])
def test_kinds_of_bytes(serve: Any, data: Any, more: bool) -> None:
    messages = [start(), body(data, more)]
    if more:
        messages.append(body())
    with Client(serve(application(*messages), lifespan="off").connect()) as client:
        assert client.request("GET").body == b"abc"


def test_a_bytearray_may_be_changed_after_send(serve: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        data = bytearray(b"x" * 5000)
        await send(start())
        await send(body(data, True))
        data[:] = b"y" * 5000
        await send(body(data))

    with Client(serve(app, lifespan="off").connect()) as client:
        assert client.request("GET").body == b"x" * 5000 + b"y" * 5000


def test_headers_may_be_any_iterable_of_pairs(serve: Any) -> None:
    class Pairs:
        def __iter__(self) -> Any:
            yield [b"x-a", b"1"]
            yield (b"X-B", b" 2 ")

    message = {"type": "http.response.start", "status": 200, "headers": Pairs()}
    with Client(serve(application(message, body(b"x")), lifespan="off").connect()) as client:
        response = client.request("GET")
    assert response.header("x-a") == b"1"
    assert response.header("x-b") == b"2"


def test_fields_that_come_again_are_those_of_their_response(serve: Any) -> None:
    """Constant fields are checked once; objects of one response may take the place of another's."""
    constant = (b"x-constant", b"always")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        number = scope["path"][1:].encode()
        fields = [constant, (b"x-" + number, b"value " + number), [b"x-list", number]]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send(message={"type": "http.response.body", "body": number})

    server = serve(app, lifespan="off")
    with Client(server.connect()) as client:
        for number in range(300):
            text = str(number).encode()
            response = client.request("GET", f"/{number}")
            fields = dict(response.headers)
            assert response.body == text
            assert fields[b"x-constant"] == b"always"
            assert fields[b"x-" + text] == b"value " + text
            assert fields[b"x-list"] == text


@pytest.mark.parametrize("field", [(b"bad name", b"v"), (b"name", b"a\r\nb: c")])
def test_a_bad_constant_field_is_refused_each_time(serve: Any, field: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [field]})
        await send({"type": "http.response.body"})

    server = serve(app, lifespan="off")
    for _ in range(3):
        with Client(server.connect()) as client:
            assert client.request("GET").status == 500


def test_send_called_wrongly_says_so(serve: Any) -> None:
    texts: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for arguments, keywords in (((), {}), ((1, 2), {}), ((), {"massage": {}}), ((7,), {})):
            try:
                await send(*arguments, **keywords)
            except TypeError as error:
                texts.append(str(error))
        await respond(send, b"done")

    with Client(serve(app, lifespan="off").connect()) as client:
        assert client.request("GET").body == b"done"
    assert len(texts) == 4 and "dictionary" in texts[3]


def test_a_streamed_response_is_chunked(serve: Any) -> None:
    app = application(start(), body(b"one", True), body(b"", True), body(b"two", True), body())
    top, rest = split(get(serve(app, lifespan="off")))
    assert b"transfer-encoding: chunked" in top
    assert rest == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"


def test_a_streamed_response_with_a_length_is_not_chunked(serve: Any) -> None:
    headers = [(b"content-length", b"6")]
    app = application(start(headers=headers), body(b"one", True), body(b"two", True), body())
    server = serve(app, lifespan="off")
    with Client(server.connect()) as client:
        for _ in range(2):
            response = client.request("GET")
            assert response.body == b"onetwo"
            assert response.header("content-length") == b"6"
            assert response.all("transfer-encoding") == []


def test_an_empty_chunk_flushes_the_head(serve: Any) -> None:
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(headers=[(b"x-early", b"1")]))
        await send(body(b"", True))
        await go_on.wait()
        await send(body(b"late"))

    server = serve(app, lifespan="off")
    with server.connect() as client:
        client.sendall(head("GET", "/", "connection: close"))
        assert b"x-early: 1\r\n" in read_head(client)
        server.loop.call_soon_threadsafe(go_on.set)
        assert read_all(client) == b"4\r\nlate\r\n0\r\n\r\n"


def test_the_head_waits_for_the_first_body_event(serve: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(200))
        raise ValueError("before the body")

    # The response can still become an error.
    assert get(serve(app, lifespan="off")).startswith(b"HTTP/1.1 500 ")


def test_transfer_encoding_of_the_application_is_ignored(serve: Any) -> None:
    headers = [(b"transfer-encoding", b"chunked"), (b"Transfer-Encoding", b"gzip")]
    top, rest = split(get(serve(application(start(headers=headers), body(b"abc")), lifespan="off")))
    assert b"content-length: 3" in top
    assert not any(line.startswith(b"transfer-encoding") for line in top)
    assert rest == b"abc"


def test_connection_close_of_the_application_closes(serve: Any) -> None:
    app = application(start(headers=[(b"Connection", b"keep-alive, Close")]), body(b"x"))
    with Client(serve(app, lifespan="off").connect()) as client:
        response = client.request("GET")
        assert response.header("connection") == b"close"
        assert client.is_closed()


def test_connection_keep_alive_of_the_application_is_not_sent(serve: Any) -> None:
    app = application(start(headers=[(b"connection", b"keep-alive")]), body(b"x"))
    with Client(serve(app, lifespan="off").connect()) as client:
        assert client.request("GET").all("connection") == []
        assert client.request("GET").status == 200


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body(serve: Any, status: int) -> None:
    app = application(start(status, [(b"x-a", b"1")]), body(b"ignored", True), body(b"too"))
    server = serve(app, lifespan="off")
    with Client(server.connect()) as client:
        for _ in range(2):
            response = client.request("GET")
            assert (response.status, response.body) == (status, b"")
            assert response.all("transfer-encoding") == []
    assert split(get(server))[1] == b""


@pytest.mark.parametrize("more", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("length", [None, b"5"], ids=["no length", "length"])
def test_head_has_the_headers_and_no_body(serve: Any, more: bool, length: bytes | None) -> None:
    headers = [(b"content-length", length)] if length else []
    app = application(start(headers=headers), body(b"hello", more), *([body()] if more else []))
    server = serve(app, lifespan="off")
    top, rest = split(get(server, "HEAD"))
    assert rest == b""
    assert (b"content-length: 5" in top) is (not more or length is not None)
    with Client(server.connect()) as client:
        for _ in range(2):
            assert client.request("HEAD").body == b""


def test_an_endless_body_for_head_comes_to_an_end(serve: Any) -> None:
    ended: list[type] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        try:
            while True:
                await send(body(b"x" * 1000, True))
        except OSError as error:
            ended.append(type(error))
            raise

    with Client(serve(app, lifespan="off").connect()) as client:
        assert client.request("HEAD").status == 200
        assert client.request("HEAD").status == 200
    assert len(ended) == 2


def test_http_1_0_gets_no_chunks(serve: Any) -> None:
    server = serve(application(start(), body(b"one", True), body(b"two")), lifespan="off")
    with server.connect() as client:
        client.sendall(head("GET", "/", version="1.0"))
        top, rest = split(read_all(client))
    assert top[0].endswith(b" 200 OK")
    assert not any(line.startswith(b"transfer-encoding") for line in top)
    assert rest == b"onetwo"


def test_http_1_0_is_kept_alive_only_when_asked(serve: Any) -> None:
    server = serve(application(start(), body(b"x")), lifespan="off")
    with server.connect() as client:
        client.sendall(head("GET", "/", version="1.0"))
        assert split(read_all(client))[1] == b"x"
    with server.connect() as client:
        for _ in range(2):
            client.sendall(head("GET", "/", "connection: keep-alive", version="1.0"))
            assert b"connection: keep-alive\r\n" in read_head(client).lower()
            assert client.recv(1) == b"x"


# --- content-length


def test_a_body_longer_than_promised_is_truncated_and_the_connection_closed(serve: Any) -> None:
    caught: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(headers=[(b"content-length", b"3")]))
        try:
            await send(body(b"abcHTTP/1.1 200 OK"))
        except RuntimeError as error:
            caught.append(str(error))

    with serve(app, lifespan="off").connect() as client:
        client.sendall(head("GET", "/") * 2)
        top, rest = split(read_all(client))
    assert b"connection: close" in top
    assert rest == b"abc"
    assert caught == ["the response body is longer than the 3 bytes promised by content-length"]


def test_a_streamed_body_longer_than_promised_is_cut(serve: Any) -> None:
    caught: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(headers=[(b"content-length", b"5")]))
        await send(body(b"abc", True))
        try:
            await send(body(b"defg"))
        except RuntimeError as error:
            caught.append(str(error))

    with serve(app, lifespan="off").connect() as client:
        client.sendall(head("GET", "/") * 2)
        data = read_all(client)
    assert data.count(b"HTTP/1.1") == 1
    assert split(data)[1] == b"abc"
    assert len(caught) == 1


@pytest.mark.parametrize("streamed", [False, True])
def test_a_body_shorter_than_promised_closes_the_connection(serve: Any, streamed: bool) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(headers=[(b"content-length", b"10")]))
        if streamed:
            await send(body(b"ab", True))
        with pytest.raises(RuntimeError, match="of 10 bytes promised by content-length"):
            await send(body(b"c"))

    with Client(serve(app, lifespan="off").connect()) as client:
        with pytest.raises(
            h11.RemoteProtocolError, match=r"without sending complete|ConnectionClosed|incomplete"
        ):
            client.request("GET")


@pytest.mark.parametrize("value", [b"-1", b"+3", b"x", b"3, 3", b"", b"99999999999999999999999"])
def test_a_malformed_content_length_is_an_error(serve: Any, value: bytes) -> None:
    app = application(start(headers=[(b"content-length", value)]), body(b"abc"))
    assert get(serve(app, lifespan="off")).startswith(b"HTTP/1.1 500 ")


def test_two_equal_lengths_are_one_and_two_different_ones_an_error(serve: Any) -> None:
    for second, status in ((b"3", b"200"), (b"4", b"500")):
        headers = [(b"content-length", b"3"), (b"Content-Length", second)]
        data = get(serve(application(start(headers=headers), body(b"abc")), lifespan="off"))
        assert data.startswith(b"HTTP/1.1 " + status)
        assert data.count(b"content-length") == 1


# --- wrong messages


@pytest.mark.parametrize(
    ("pair", "error"),
    [
        ((b"x", b"a\r\nset-cookie: b"), ValueError),
        ((b"x", b"a\nb"), ValueError),
        ((b"x", b"a\x00b"), ValueError),
        ((b"x\r\ny", b"a"), ValueError),
        ((b"", b"a"), ValueError),
        ((b"x y", b"a"), ValueError),
        (("x", b"a"), TypeError),
        ((b"x", "a"), TypeError),
        ((b"x",), TypeError),
        (b"xy", TypeError),
    ],
)
def test_a_bad_header_is_an_error_and_the_connection_goes_on(
    serve: Any, pair: Any, error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    caught: list[type] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/good":
            await respond(send, b"good")
            return
        try:
            await send(start(headers=[pair]))
        except Exception as raised:
            caught.append(type(raised))
            raise

    with Client(serve(app, lifespan="off").connect()) as client:
        response = client.request("GET")
        assert (response.status, response.body) == (500, b"Internal Server Error")
        assert response.all("set-cookie") == []
        assert client.request("GET", "/good").body == b"good"
    assert caught == [error]
    assert [record.levelname for record in caplog.records] == ["ERROR"]


@pytest.mark.parametrize(
    "message",
    [
        {"type": "http.response.body", "body": b"first"},
        {"type": "websocket.accept"},
        {"type": "http.response.trailers"},
        {"type": "http.response.start"},
        {"type": "http.response.start", "status": "200"},
        {"type": "http.response.start", "status": 99},
        {"type": "http.response.start", "status": 1000},
        {"type": "http.response.start", "status": 101},
        {"type": 1},
        {},
        b"bytes",
        None,
    ],
)
def test_a_wrong_message_is_an_error(serve: Any, message: Any) -> None:
    caught: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await send(message)
        except (RuntimeError, ValueError, TypeError, KeyError) as error:
            caught.append(str(error))
        await respond(send, b"went on")

    with Client(serve(app, lifespan="off").connect()) as client:
        assert client.request("GET").body == b"went on"
    assert len(caught) == 1


def test_a_body_that_is_no_bytes_is_an_error(serve: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        with pytest.raises(TypeError, match="body is str, not bytes"):
            await send(body("text"))
        await send(body(b"fine"))

    with Client(serve(app, lifespan="off").connect()) as client:
        assert client.request("GET").body == b"fine"


def test_messages_in_the_wrong_order_are_errors(serve: Any) -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def wrong(message: dict[str, Any]) -> None:
            try:
                await send(message)
            except RuntimeError as error:
                seen.append(str(error))

        await wrong(body(b"early"))
        await send(start())
        await wrong(start())
        await send(body(b"x", True))
        await wrong(start())
        await send(body())
        await wrong(body(b"late"))
        await wrong(start())

    with Client(serve(app, lifespan="off").connect()) as client:
        assert client.request("GET").body == b"x"
        assert client.request("GET").body == b"x"
    assert [text.split(": ")[1] for text in seen[:5]] == [
        "http.response.start has to come first",
        "the response has been started",
        "the response has been started",
        "the response is complete",
        "the response is complete",
    ]


def test_a_message_may_be_any_mapping(serve: Any) -> None:
    from types import MappingProxyType

    app = application(MappingProxyType(start()), MappingProxyType(body(b"x")))  # type: ignore[arg-type]
    with Client(serve(app, lifespan="off").connect()) as client:
        assert client.request("GET").body == b"x"


def test_status_may_be_an_http_status(serve: Any) -> None:
    from http import HTTPStatus

    with Client(
        serve(application(start(HTTPStatus.CREATED), body()), lifespan="off").connect()
    ) as client:
        assert client.request("GET").status == 201


def test_status_without_a_name(serve: Any) -> None:
    with Client(serve(application(start(599), body()), lifespan="off").connect()) as client:
        assert client.request("GET").status == 599


# --- the end of the application


def test_an_exception_before_the_response_is_500_and_logged(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/later":
            await asyncio.sleep(0)
        raise ValueError("boom")

    with Client(serve(app, lifespan="off").connect()) as client:
        for path in ("/", "/later", "/"):
            response = client.request("GET", path)
            assert (response.status, response.body) == (500, b"Internal Server Error")
            assert response.header("content-type") == b"text/plain; charset=utf-8"
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 3
    assert all(
        "ValueError: boom" in str(record.exc_text or record.exc_info) or record.exc_info
        for record in errors
    )
    assert {record.name for record in errors} == {"framegate.asgi"}


def test_an_exception_in_mid_stream_cuts_the_response(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        await send(body(b"part", True))
        raise ValueError("boom")

    server = serve(app, lifespan="off")
    with server.connect() as client:
        client.sendall(head("GET", "/"))
        data = read_all(client)
    assert not data.endswith(b"0\r\n\r\n")
    assert len(caplog.records) == 1


@pytest.mark.parametrize("messages", [[], [start()]], ids=["nothing", "only start"])
def test_no_response_is_500_and_logged(
    serve: Any, messages: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with Client(serve(application(*messages), lifespan="off").connect()) as client:
        assert client.request("GET").status == 500
        assert client.request("HEAD").status == 500
    assert [record.getMessage() for record in caplog.records] == [
        "the ASGI application returned without sending a response"
    ] * 2


def test_an_unfinished_response_is_cut_and_logged(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(application(start(), body(b"part", True)), lifespan="off")
    with server.connect() as client:
        client.sendall(head("GET", "/"))
        assert not read_all(client).endswith(b"0\r\n\r\n")
    assert len(caplog.records) == 1


def test_an_application_that_is_no_coroutine_function(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def app(scope: Any, receive: Any, send: Any) -> None:
        return None

    with Client(serve(app, lifespan="off").connect()) as client:
        assert client.request("GET").status == 500
    assert "NoneType" in str(caplog.records[0].exc_info)


def test_an_application_may_return_any_awaitable(serve: Any) -> None:
    class Call:
        def __init__(self, send: Any) -> None:
            self.send = send

        def __await__(self) -> Any:
            yield from asyncio.sleep(0).__await__()
            yield from respond(self.send, b"awaited").__await__()

    with Client(serve(lambda scope, receive, send: Call(send), lifespan="off").connect()) as client:
        assert client.request("GET").body == b"awaited"


def test_work_goes_on_after_the_response(serve: Any) -> None:
    done = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"x")
        await asyncio.sleep(0.01)
        if scope["path"] == "/last":
            done.set()

    with Client(serve(app, lifespan="off").connect()) as client:
        assert client.request("GET", "/").body == b"x"
        assert client.request("GET", "/last").body == b"x"
        assert done.wait(10)


def test_a_graceful_stop_waits_for_work_after_the_response(serve: Any) -> None:
    done: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"x")
        await asyncio.sleep(0.2)
        done.append(scope["path"])

    server = serve(app, lifespan="off")
    with Client(server.connect()) as client:
        client.request("GET", "/a")
        client.request("GET", "/b")
    assert server.submit(lambda: drain(server, 10)) == 0
    assert done == ["/a", "/b"]


def test_a_graceful_stop_counts_what_it_cuts(serve: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/background":
            await respond(send, b"x")
        await asyncio.sleep(0.5)

    server = serve(app, lifespan="off")
    with Client(server.connect()) as client, server.connect() as busy:
        client.request("GET", "/background")
        busy.sendall(head("GET", "/busy"))
        while server.submit(lambda: server.worker.requests) < 2:
            pass
        assert server.submit(lambda: drain(server, 0.05)) == 2


async def drain(server: Any, seconds: float) -> int:
    cut: int = await server.worker.drain(seconds)
    return cut


# --- early hints


@pytest.mark.parametrize("way", ["extension", "status"])
def test_early_hints_come_before_the_response(serve: Any, way: str) -> None:
    links = [b"</a.css>; rel=preload", b"</b.js>; rel=preload"]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert "http.response.early_hint" in scope["extensions"]
        if way == "extension":
            await send({"type": "http.response.early_hint", "links": links})
        else:
            await send(start(103, [(b"link", link) for link in links]))
        await respond(send, b"done")

    with Client(serve(app, lifespan="off").connect()) as client:
        for _ in range(2):
            response = client.request("GET")
            assert [
                (status, [v for k, v in fields if k == b"link"])
                for status, fields in response.informational
            ] == [(103, links)]
            assert response.body == b"done"


def test_early_hints_are_not_sent_to_http_1_0(serve: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.early_hint", "links": [b"</a>"]})
        await respond(send, b"done")

    data = get(serve(app, lifespan="off"), version="1.0")
    assert b"103" not in data.partition(b"\r\n")[0]
    assert data.endswith(b"done")


# --- backpressure


def test_send_waits_while_too_much_is_unsent(serve: Any) -> None:
    sent = 0
    chunk = b"x" * 2**20

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send(start())
        for _ in range(64):
            await send(body(chunk, True))
            sent += 1
        await send(body())

    server = serve(app, lifespan="off", send_buffer_bytes=65536)
    with server.connect() as client:
        client.sendall(head("GET", "/", "connection: close"))
        read_head(client)
        # Until nothing moves any more: what the kernel takes is not ours to bound.
        before = -1
        while before != sent:
            before = sent
            server.submit(lambda: asyncio.sleep(0.05))
        assert before < 40
        rest = read_all(client)
    assert sent == 64
    assert rest.count(b"x") == 64 * len(chunk)


def test_heads_are_remembered_and_never_mixed_up(serve: Any) -> None:
    """Alike heads one after the other, then heads that differ in one thing, in every order."""
    heads: list[tuple[int, list[Any]]] = [
        (200, [(b"content-type", b"text/plain"), (b"content-length", b"2")]),
        (200, [(b"content-type", b"text/plain"), (b"content-length", b"2")]),
        (200, [(b"content-type", b"text/html!"), (b"content-length", b"2")]),
        (201, [(b"content-type", b"text/plain"), (b"content-length", b"2")]),
        (200, [(b"content-typo", b"text/plain"), (b"content-length", b"2")]),
        (200, [(b"content-type", b"text/plain")]),
        (200, [[b"content-type", b"text/plain"], [b"content-length", b"2"]]),
        (200, [(b"content-type", b"text/plain"), (b"server", b"mine")]),
        (200, []),
    ]
    order = [*range(len(heads))] * 3 + [*range(len(heads))][::-1] * 2
    order += [index for index in range(len(heads)) for _ in range(4)]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        status, headers = heads[int(scope["path"][1:])]
        # New objects each time, now and then: what counts is what they say.
        fresh = [type(field)(bytes(bytearray(part)) for part in field) for field in headers]
        chosen = fresh if scope["query_string"] else headers
        await send({"type": "http.response.start", "status": status, "headers": chosen})
        await send({"type": "http.response.body", "body": b"ok"})

    with Client(serve(app, lifespan="off").connect()) as client:
        for turn, index in enumerate(order):
            status, headers = heads[index]
            response = client.request("GET", f"/{index}" + ("?x" if turn % 3 == 0 else ""))
            expected = {tuple(field) for field in headers} | {(b"content-length", b"2")}
            if not any(name == b"server" for name, _ in headers):
                expected.add((b"server", b"framegate"))
            assert response.status == status
            got = {(name, value) for name, value in response.headers if name != b"date"}
            assert got == expected, (turn, index)
