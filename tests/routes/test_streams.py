"""Bodies read as they arrive, answers sent piece by piece, what runs behind them."""

from __future__ import annotations

import asyncio
import contextvars
import email
import logging
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest

import framegate
from framegate import App, HttpRequest, Problem, Response
from framegate.app import Event, Events, File
from framegate.errors import ClientDisconnected
from routes.conftest import Client


def test_iterators_are_sent_piece_by_piece(client: Client) -> None:
    app = App()
    go_on = threading.Event()
    threads: list[str] = []
    word: contextvars.ContextVar[str] = contextvars.ContextVar("word")

    @app.get("/async")
    async def asynchronous() -> Any:
        word.set("of the handler")

        async def pieces() -> AsyncIterator[str]:
            yield "one"
            await asyncio.to_thread(go_on.wait, 20)
            yield word.get()

        return pieces()

    @app.get("/generator")
    async def generator() -> AsyncIterator[bytes]:
        yield b"a"
        yield b""
        yield b"b"

    @app.get("/sync")
    def synchronous() -> Iterator[bytes]:
        threads.append(threading.current_thread().name)
        yield b"x" * 100_000
        yield b"y"

    @app.get("/said")
    async def said() -> Response:
        answer = Response(iter(["1\n", "2\n"]), status=203, media_type="application/x-ndjson")
        answer.set_cookie("a", "b")
        return answer

    @app.get("/none")
    async def none() -> Any:
        return iter([])

    session = client(app)
    with session.stream("GET", "/async") as reply:
        assert reply.headers["content-type"] == "text/plain; charset=utf-8"
        pieces = reply.iter_text()
        assert next(pieces) == "one"
        go_on.set()
        assert "".join(pieces) == "of the handler"
    assert session.get("/generator").content == b"ab"
    assert session.get("/sync").content == b"x" * 100_000 + b"y"
    assert threads[0].startswith("framegate-handler")
    reply = session.get("/said")
    assert (reply.status_code, reply.text) == (203, "1\n2\n")
    assert reply.headers["content-type"] == "application/x-ndjson"
    assert reply.headers["set-cookie"].startswith("a=b;")
    assert session.get("/none").content == b""
    assert session.head("/generator").content == b""


def test_streams_that_fail_are_answered_or_cut(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()

    @app.get("/first")
    async def first() -> AsyncIterator[bytes]:
        raise Problem(409, "not now")
        yield b""

    @app.get("/bug")
    async def bug() -> AsyncIterator[bytes]:
        raise ValueError("a bug before the first piece")
        yield b""

    @app.get("/later")
    async def later() -> AsyncIterator[bytes]:
        yield b"some"
        raise ValueError("a bug behind it")

    @app.get("/wrong")
    async def wrong() -> Any:
        return iter([1])

    session = client(app)
    reply = session.get("/first")
    assert reply.status_code == 409
    assert reply.json()["detail"] == "not now"
    with caplog.at_level(logging.ERROR):
        assert session.get("/bug").status_code == 500
        with pytest.raises(httpx.RemoteProtocolError):
            session.get("/later")
        assert session.get("/wrong").status_code == 500
    assert "a bug before the first piece" in caplog.text
    assert "a bug behind it" in caplog.text
    assert "gave a int to stream" in caplog.text


def test_a_stream_ends_when_its_client_goes(client: Client) -> None:
    app = App()
    ended = threading.Event()

    @app.get("/")
    async def endless(request: HttpRequest) -> AsyncIterator[bytes]:
        try:
            yield request.method.encode()
            await asyncio.Event().wait()
        finally:
            ended.set()

    session = client(app)
    with session.stream("GET", "/") as reply:
        assert next(reply.iter_bytes()) == b"GET"
        assert not ended.is_set()
    assert ended.wait(20)


def test_events_are_sent_as_the_standard_has_them(client: Client) -> None:
    app = App()
    seen: list[str | None] = []

    @app.get("/")
    async def events(request: HttpRequest) -> Events:
        seen.append(request.headers.get("last-event-id"))

        async def source() -> AsyncIterator[Any]:
            yield {"a": [1, "ü"]}
            yield Event("two\r\nlines\rof", event="said", id="7", retry=100)
            await asyncio.Event().wait()

        return Events(source(), keep_alive=0.05)

    session = client(app)
    with session.stream("GET", "/", headers={"last-event-id": "6"}) as reply:
        assert reply.headers["content-type"] == "text/event-stream"
        assert reply.headers["cache-control"] == "no-cache"
        text = ""
        for piece in reply.iter_text():
            text += piece
            if text.endswith(": keep-alive\n\n"):
                break
    assert text.split("\n\n")[:3] == [
        'data: {"a":[1,"ü"]}',
        "event: said\nid: 7\nretry: 100\ndata: two\ndata: lines\ndata: of",
        ": keep-alive",
    ]
    assert seen == ["6"]
    with pytest.raises(ValueError, match="more than a line"):
        Event("", event="a\nb")


def test_files_are_sent_with_what_caches_need(client: Client, tmp_path: Path) -> None:
    app = App()
    path = tmp_path / "a.png"
    path.write_bytes(os.urandom(300_000))

    @app.get("/")
    async def file() -> File:
        return File(path)

    @app.get("/save")
    async def save() -> Response:
        return Response(File(path, name='ü".txt'), headers={"x-a": "b"})

    @app.get("/gone")
    async def gone() -> File:
        return File(tmp_path / "none")

    session = client(app)
    reply = session.get("/")
    assert reply.content == path.read_bytes()
    assert reply.headers["content-type"] == "image/png"
    assert reply.headers["content-length"] == "300000"
    again = session.get("/", headers={"if-none-match": f'"x", {reply.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert session.head("/").headers["content-length"] == "300000"
    saved = session.get("/save")
    assert saved.headers["content-type"] == "text/plain"
    assert saved.headers["x-a"] == "b"
    wanted = "attachment; filename=\"__.txt\"; filename*=UTF-8''%C3%BC%22.txt"
    assert saved.headers["content-disposition"] == wanted
    assert session.get("/gone").status_code == 500


def test_parts_of_files_are_sent(client: Client, tmp_path: Path) -> None:
    app = App()
    path = tmp_path / "a.png"
    path.write_bytes(data := os.urandom(700_000))
    os.utime(path, (1_000_000_000, 1_000_000_000))
    empty = tmp_path / "empty"
    empty.touch()

    @app.get("/")
    async def file() -> Response:
        return Response(File(path), headers={"x-a": "b"})

    @app.get("/created")
    async def created() -> Response:
        return Response(File(path), status=201)

    @app.get("/empty")
    async def nothing() -> File:
        return File(empty)

    @app.post("/")
    async def made() -> File:
        return File(path)

    session = client(app)
    tag = session.head("/").headers["etag"]
    assert not tag.startswith("W/")
    for wanted, start, end in [
        ("bytes=0-0", 0, 1),
        ("bytes=1000-599999", 1000, 600_000),
        ("bytes=699999-", 699_999, 700_000),
        ("bytes=5-9000000", 5, 700_000),
        ("bytes=-300", 699_700, 700_000),
    ]:
        for condition in ({}, {"if-range": tag}, {"if-match": tag}):
            reply = session.get("/", headers={"range": wanted, **condition})
            assert reply.status_code == 206
            assert reply.content == data[start:end]
            assert reply.headers["content-range"] == f"bytes {start}-{end - 1}/700000"
            assert reply.headers["content-length"] == str(end - start)
            assert (reply.headers["content-type"], reply.headers["x-a"]) == ("image/png", "b")
    several = "bytes=5-9,400000-400099,-1"
    reply = session.get("/", headers={"range": several})
    assert (reply.status_code, reply.headers["x-a"]) == (206, "b")
    assert "content-range" not in reply.headers
    kind = reply.headers["content-type"]
    assert kind.startswith("multipart/byteranges; boundary=")
    message = email.message_from_bytes(
        b"content-type: " + kind.encode() + b"\r\n\r\n" + reply.content
    )
    assert [
        (part["content-type"], part["content-range"], part.get_payload(decode=True))
        for part in message.walk()
        if not part.is_multipart()
    ] == [
        ("image/png", f"bytes {start}-{end - 1}/700000", data[start:end])
        for start, end in [(5, 10), (400_000, 400_100), (699_999, 700_000)]
    ]
    assert reply.headers["content-length"] == str(len(reply.content))
    # Who wants to have something done is not answered by what a cache holds.
    reply = session.post("/", headers={"range": "bytes=0-0", "if-none-match": "*"})
    assert (reply.status_code, reply.content) == (200, data)
    for headers in (
        {"range": "bytes=" + ",".join(f"{start}-{start}" for start in range(0, 900, 100))},
        {"range": "lines=0-0"},
        {"range": "bytes=0-0", "if-range": '"another"'},
    ):
        reply = session.get("/", headers=headers)
        assert (reply.status_code, reply.content) == (200, data)
        assert reply.headers["accept-ranges"] == "bytes"
    reply = session.get("/", headers={"range": "bytes=700000-"})
    assert reply.status_code == reply.json()["status"] == 416
    assert reply.headers["content-range"] == "bytes */700000"
    reply = session.get("/", headers={"if-match": '"another"'})
    assert reply.status_code == reply.json()["status"] == 412
    for headers in ({"if-none-match": "*"}, {"if-modified-since": reply.headers["date"]}):
        reply = session.get("/", headers={"range": "bytes=0-0", **headers})
        assert (reply.status_code, reply.content) == (304, b"")
        assert reply.headers["etag"] == tag
    # HEAD knows no ranges, and they are parts of what has status 200.
    assert session.head("/", headers={"range": "bytes=0-0"}).headers["content-length"] == "700000"
    reply = session.get("/created", headers={"range": "bytes=0-0", "if-none-match": "*"})
    assert (reply.status_code, reply.content) == (201, data)
    reply = session.get("/empty", headers={"range": "bytes=0-"})
    assert (reply.status_code, reply.content) == (200, b"")


def test_tasks_run_behind_the_answer(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    app = App()
    order: list[Any] = []
    go_on, done = threading.Event(), threading.Event()

    async def first() -> None:
        await asyncio.to_thread(go_on.wait, 20)
        order.append("first")

    def second(word: str, *, end: threading.Event) -> None:
        order.append((word, threading.current_thread().name.startswith("framegate-handler")))
        end.set()

    @app.post("/")
    async def handler() -> Response:
        answer = Response({"a": 1}, status=202, background=first)
        answer.add_task(second, "second", end=done)
        return answer

    session = client(app)
    reply = session.post("/")  # answered while the first task waits
    assert (reply.status_code, reply.json()) == (202, {"a": 1})
    assert order == []
    go_on.set()
    assert done.wait(20)
    assert order == ["first", ("second", True)]


def test_frames_of_a_topic_are_an_answer(client: Client, runtime: Path) -> None:
    app = App()

    @app.get("/frame")
    async def frame() -> Any:
        return framegate.FrameStream("raw", "latest", format="raw")

    with framegate.Publisher("raw", slot_bytes=64) as publisher:
        publisher.send(bytes(range(3)))
        reply = client(app).get("/frame")
    assert reply.status_code == 200, reply.text
    assert reply.content == bytes([0, 1, 2])
    assert "frame-sequence" in reply.headers


async def echoed(url: str, pieces: Iterator[bytes]) -> bytes:
    """What is answered while the request is still being sent."""

    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async with aiohttp.ClientSession() as session, session.post(url, data=body()) as answer:
        return await answer.read()


def test_bodies_are_read_as_they_arrive(client: Client) -> None:
    app = App()
    seen: list[bytes] = []
    arrived = threading.Event()

    @app.post("/sum")
    async def total(body: AsyncIterator[bytes]) -> int:
        count = 0
        async for piece in body:
            count += len(piece)
            seen.append(piece)
            arrived.set()
        return count

    @app.post("/request")
    async def request(request: HttpRequest) -> Any:
        body = await request.body(10)
        try:
            await request.body()
        except RuntimeError as error:
            return {"body": body.decode(), "again": str(error)}

    @app.post("/both")
    async def both(request: HttpRequest, body: bytes) -> str:
        try:
            await request.body()
        except RuntimeError as error:
            return f"{body.decode()}: {error}"
        return ""

    @app.post("/echo")
    async def echo(body: AsyncIterator[bytes]) -> Any:
        return body

    session = client(app)

    def pieces() -> Iterator[bytes]:
        yield b"first"
        # The handler has it before there is more.
        assert arrived.wait(20)
        for _ in range(64):
            yield b"x" * 100_000

    assert session.post("/sum", content=pieces()).text == str(5 + 6_400_000)
    assert seen[0] == b"first"
    assert max(map(len, seen)) < 2_000_000
    reply = session.post("/request", content=b"0123456789").json()
    assert reply["body"] == "0123456789"
    assert "read before" in reply["again"]
    assert session.post("/request", content=b"0123456789a").status_code == 413
    assert session.post("/both", content=b"x").text.startswith("x: the body was read before")
    # httpx reads nothing before it has written all, and so much does not fit into sockets.
    url = session.base_url.join("/echo")
    assert asyncio.run(echoed(str(url), pieces())) == b"first" + b"x" * 6_400_000


def test_a_body_that_breaks_off_is_the_clients_fault(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()
    failed: list[str] = []
    done = threading.Event()

    @app.post("/")
    async def handler(body: AsyncIterator[bytes]) -> None:
        try:
            async for _ in body:
                pass
        except ClientDisconnected as error:
            failed.append(str(error))
            raise
        finally:
            done.set()

    session = client(app)
    url = session.base_url
    with socket.create_connection((url.host, url.port), timeout=20) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 9\r\n\r\nabc")
        connection.shutdown(socket.SHUT_WR)
        assert done.wait(20)
    assert "the client went away before the end of its body" in failed[0]
    assert session.get("/").status_code == 405  # the loop has gone on
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_plain_handlers_are_given_what_their_names_say(client: Client) -> None:
    app = App()

    @app.post("/{a}/{b:int}")
    async def handler(  # type: ignore[no-untyped-def]
        path_params, query_params, headers, cookies, method, path, request, body
    ):
        return [
            path_params, query_params, headers["x-a"], cookies, method, path, request.route,
            body.decode(),
        ]  # fmt: skip

    reply = client(app).post(
        "/x%20y/7?q=1&q=&r=%C3%BC",
        headers={"x-a": "b", "cookie": "c=d; e=f"},
        content=b"text",
    )
    assert reply.json() == [
        {"a": "x y", "b": "7"}, {"q": ["1", ""], "r": ["ü"]}, "b", {"c": "d", "e": "f"}, "POST",
        "/x y/7", "/{a}/{b:int}", "text",
    ]  # fmt: skip
