"""Compressed responses: who gets which coding, what is left alone, and what leaves when."""

from __future__ import annotations

import asyncio
import http.client
import random
import subprocess
import zlib
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peers.h2_client import Client
from server_thread import Serve, Server

TEXT = b"All work and no play makes Jack a dull boy. " * 200
Fields = list[tuple[bytes, bytes]]


@pytest.fixture
def task_mode() -> str:
    """The mode of tasks makes no difference here."""
    return "lazy"


def answering(
    body: bytes = TEXT, fields: Fields | None = None, status: int = 200, kind: bytes = b"text/plain"
) -> Any:
    """An application that answers the same to everybody."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        headers = [(b"content-type", kind), *(fields or [])]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return application


def ask(
    server: Server, accept: str | None = "gzip, br, zstd", method: str = "GET", **more: str
) -> tuple[int, dict[str, str], bytes]:
    """Send one request; return the response as it came over the wire."""
    connection = http.client.HTTPConnection(server.host, server.port, timeout=20)
    try:
        connection.putrequest(method, "/", skip_accept_encoding=True)
        if accept is not None:
            connection.putheader("Accept-Encoding", accept)
        for name, value in more.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
    finally:
        connection.close()


def decoded(headers: dict[str, str], body: bytes) -> bytes:
    """The body as httpx decodes it."""
    kept = {name: value for name, value in headers.items() if name == "content-encoding"}
    return httpx.Response(200, headers=kept, content=body).content


@pytest.mark.parametrize(
    ("accept", "coding"),
    [
        (None, None),
        ("", None),
        ("identity", None),
        ("deflate", None),
        ("gzip", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip, deflate, br", "br"),
        ("gzip, br;q=0.9", "gzip"),
        ("zstd;q=0, br;q=0, gzip;q=0.001", "gzip"),
        ("*", "gzip"),
        ("gzip;q=0, *", None),
        ("identity, gzip;q=0.5", None),
        ("identity;q=0.5, gzip;q=0.5", "gzip"),
    ],
)
def test_negotiation(serve: Serve, accept: str | None, coding: str | None) -> None:
    server = serve(
        answering(fields=[(b"etag", b'"a"'), (b"accept-ranges", b"bytes")]), compress=True
    )
    status, headers, body = ask(server, accept)
    assert (status, headers.get("content-encoding")) == (200, coding)
    assert headers["vary"] == "accept-encoding"
    assert headers["etag"] == ('W/"a"' if coding else '"a"')
    assert headers.get("accept-ranges") == (None if coding else "bytes")
    assert int(headers["content-length"]) == len(body)
    assert decoded(headers, body) == TEXT
    assert (len(body) < len(TEXT) // 4) is bool(coding)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["gzip", "br", "zstd", "identity", "*", "deflate", "x"]),
            st.none() | st.sampled_from(["0", "0.5", "1", "0.001", "1.000", "2", "", "a"]),
        ),
        max_size=6,
    )
)
def test_any_accept_encoding(any_server: Server, items: list[tuple[str, str | None]]) -> None:
    """Nothing is sent that the client refused, and whatever is sent can be decoded."""
    value = ", ".join(name if q is None else f"{name};q={q}" for name, q in items)
    _, headers, body = ask(any_server, value)
    assert decoded(headers, body) == TEXT
    coding = headers.get("content-encoding", "identity")
    weights: dict[str, float] = {}
    for name, q in items:
        if q not in ("2", "", "a"):
            weight = 1.0 if q is None else float(q)
            weights[name] = min(weight, weights.get(name, 1.0))
    if coding != "identity":
        assert weights.get(coding, weights.get("*", 0.0) if coding == "gzip" else 0.0) > 0
        assert weights.get("identity", 0.0) <= max(weights.get(coding, 0.0), weights.get("*", 0.0))
    else:
        known = {name: weights.get(name, 0.0) for name in ("gzip", "br", "zstd")}
        known["gzip"] = weights.get("gzip", weights.get("*", 0.0))
        assert max(known.values()) == 0 or weights.get("identity", 0.0) > max(known.values())


@pytest.fixture
def any_server(serve: Serve) -> Server:
    return serve(answering(), compress=True)


@pytest.mark.parametrize(
    ("application", "is_candidate"),
    [
        (answering(kind=b"text/event-stream"), False),
        (answering(kind=b"Text/Event-Stream; charset=utf-8"), False),
        (answering(kind=b"image/png"), False),
        (answering(kind=b"application/octet-stream"), False),
        (answering(kind=b"application/json"), True),
        (answering(kind=b"application/problem+json; charset=utf-8"), True),
        (answering(status=404), True),
        (answering(status=206), False),
        (answering(fields=[(b"content-range", b"bytes 0-1/5")]), False),
        (answering(fields=[(b"content-encoding", b"x")]), False),
        (answering(fields=[(b"cache-control", b"public, No-Transform")]), False),
        (answering(fields=[(b"set-cookie", b"a=b")]), False),
        (answering(fields=[(b"repr-digest", b"sha-256=:AA==:")]), False),
        (answering(body=b"a" * 1023), False),
        (answering(body=b""), False),
        (answering(body=b"a" * 1024), True),
    ],
)
def test_what_is_left_alone(serve: Serve, application: Any, is_candidate: bool) -> None:
    server = serve(application, compress=True)
    for accept in ("zstd", None):
        _, headers, _ = ask(server, accept)
        assert ("vary" in headers) is is_candidate
        assert (headers.get("content-encoding") == "zstd") is (is_candidate and accept is not None)


def test_what_does_not_get_smaller_leaves_as_it_is(serve: Serve) -> None:
    noise = random.Random(1).randbytes(5000)
    server = serve(answering(noise), compress=True)
    _, headers, body = ask(server)
    assert ("content-encoding" not in headers, body) == (True, noise)
    # Unless it must not be sent as it is.
    _, headers, body = ask(server, "gzip, identity;q=0")
    assert (headers["content-encoding"], decoded(headers, body)) == ("gzip", noise)
    server = serve(answering(b"small"), compress=True)
    _, headers, body = ask(server, "br, *;q=0")
    assert (headers["content-encoding"], decoded(headers, body)) == ("br", b"small")


def test_fields_that_vary_already(serve: Serve) -> None:
    for known, expected in ((b"Accept-Encoding, Cookie", "Accept-Encoding, Cookie"), (b"*", "*")):
        server = serve(answering(fields=[(b"vary", known)]), compress=True)
        assert ask(server)[1]["vary"] == expected


def test_head_says_what_get_says(serve: Serve) -> None:
    length = (b"content-length", str(len(TEXT)).encode())
    for fields in ([length], []):
        server = serve(answering(fields=[*fields, (b"etag", b'"a"')]), compress=True)
        for accept in ("zstd", None):
            _, get, _ = ask(server, accept)
            status, head, body = ask(server, accept, "HEAD")
            assert (status, body) == (200, b"")
            for name in ("content-encoding", "etag", "vary", "content-type"):
                assert head.get(name) == get.get(name)
            # No length that GET would not have.
            assert head.get("content-length") in (None, get["content-length"])


def test_304_has_the_tag_of_what_it_confirms(serve: Serve) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        known = dict(scope["headers"]).get(b"if-none-match", b"")
        status = 304 if b'"a"' in known else 200
        headers = [(b"content-type", b"text/plain"), (b"etag", b'"a"')]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": TEXT if status == 200 else b""})

    server = serve(application, compress=True, lifespan="off")
    assert ask(server)[1]["etag"] == 'W/"a"'
    status, headers, _ = ask(server, if_none_match='W/"a"')
    assert (status, headers["etag"], headers["vary"]) == (304, 'W/"a"', "accept-encoding")
    assert "content-encoding" not in headers
    assert ask(server, None, if_none_match='"a"')[1]["etag"] == '"a"'


PIECES = [b"first ", b"second ", b"third"]


def streaming(gate: asyncio.Event, kind: bytes = b"text/plain") -> Any:
    """An application that waits for a sign between two pieces."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", kind)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece in PIECES:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await gate.wait()
            gate.clear()
        await send({"type": "http.response.body", "body": b""})

    return application


def decompressor() -> Any:
    return zlib.decompressobj(16 + zlib.MAX_WBITS)


def test_pieces_arrive_when_they_are_sent(serve: Serve) -> None:
    """Each is decoded before the application is told to go on."""
    gate = asyncio.Event()
    server = serve(streaming(gate), compress=True, lifespan="off")
    with httpx.Client(timeout=20) as client:
        for coding in ("gzip", "br", "zstd"):
            fields = {"accept-encoding": coding}
            with client.stream("GET", server.url, headers=fields) as response:
                assert response.headers["content-encoding"] == coding
                assert "content-length" not in response.headers
                seen = b""
                pieces = iter(PIECES)
                expected = next(pieces)
                for data in response.iter_bytes():
                    seen += data
                    while seen == expected:
                        assert server.loop is not None
                        server.loop.call_soon_threadsafe(gate.set)
                        expected += next(pieces, b"")
                        if expected == seen:
                            break
                assert seen == b"".join(PIECES)


def test_pieces_arrive_over_http2(serve: Serve) -> None:
    gate = asyncio.Event()
    server = serve(streaming(gate), compress=True, lifespan="off")
    with Client(server.connect()) as client:
        stream = client.request("/", fields=[("accept-encoding", "gzip")])
        state = decompressor()
        seen, taken, expected = b"", 0, b""
        for piece in PIECES:
            expected += piece
            while seen != expected:
                body = client.exchanges[stream].body if stream in client.exchanges else b""
                if len(body) == taken:
                    client.read()
                    continue
                seen += state.decompress(body[taken:])
                taken = len(body)
            assert server.loop is not None
            server.loop.call_soon_threadsafe(gate.set)
        exchange = client.answer(stream)
        assert exchange.headers["content-encoding"] == "gzip"
        assert state.decompress(exchange.body[taken:]) == b"" and state.eof


def test_large_bodies(serve: Serve) -> None:
    """In one piece and in many, and others are served meanwhile."""
    words = [str(n).encode() for n in range(1000)]
    large = b" ".join(random.Random(2).choices(words, k=600_000))

    async def application(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["path"] == "/pieces":
            for place in range(0, len(large), 10_000):
                piece = large[place : place + 10_000]
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        body = b"small" if scope["path"] == "/small" else b""
        body = large if scope["path"] == "/" else body
        await send({"type": "http.response.body", "body": body})

    server = serve(application, compress=True, lifespan="off")
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for coding in ("gzip", "br", "zstd"):
            for path in ("/", "/pieces"):
                response = client.get(path, headers={"accept-encoding": coding})
                assert response.headers["content-encoding"] == coding
                assert response.content == large
    # Small answers overtake a large one on their way.
    with Client(server.connect()) as http2:
        stream = http2.request("/", fields=[("accept-encoding", "br")])
        small = [http2.request("/small") for _ in range(3)]
        for number in small:
            assert http2.answer(number).body == b"small"
        assert not http2.exchanges[stream].is_over if stream in http2.exchanges else True
        http2.answer(stream)


def test_application_that_gives_up(serve: Serve) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": TEXT, "more_body": True})
        raise RuntimeError("on purpose")

    server = serve(application, compress=True, lifespan="off")
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        ask(server)


def test_files_are_left_alone(serve: Serve, tmp_path: Path) -> None:
    """By `pathsend`, and by `zerocopysend` behind other data, where they are data too."""
    path = tmp_path / "file.txt"
    content = TEXT * 30
    path.write_bytes(content)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if scope["path"] == "/path":
            await send({"type": "http.response.pathsend", "path": str(path)})
            return
        if scope["path"] == "/mixed":
            await send({"type": "http.response.body", "body": TEXT, "more_body": True})
        with path.open("rb") as file:
            await send({"type": "http.response.zerocopysend", "file": file.fileno()})

    server = serve(application, compress=True, lifespan="off")
    with httpx.Client(base_url=server.url, timeout=20) as client:
        for target, expected, coding in (
            ("/path", content, None),
            ("/file", content, None),
            ("/mixed", TEXT + content, "gzip"),
        ):
            response = client.get(target, headers={"accept-encoding": "gzip"})
            assert response.headers.get("content-encoding") == coding, target
            assert response.content == expected


def test_curl(serve: Serve) -> None:
    server = serve(answering(), compress=True)
    for protocol in ("--http1.1", "--http2-prior-knowledge", "--http1.0"):
        for coding in ("gzip", "br", "zstd"):
            run = ["curl", "-sS", "--fail", "--compressed", protocol, "-D", "-"]
            done = subprocess.run(
                [*run, "-H", f"Accept-Encoding: {coding}", server.url],
                check=True,
                capture_output=True,
                timeout=60,
            )
            head, _, body = done.stdout.partition(b"\r\n\r\n")
            assert f"content-encoding: {coding}".encode() in head.lower()
            assert body == TEXT


def test_nothing_changes_while_it_is_off(serve: Serve) -> None:
    server = serve(answering(fields=[(b"etag", b'"a"')]))
    _, headers, body = ask(server)
    assert not headers.keys() & {"vary", "content-encoding"}
    assert (headers["etag"], body) == ('"a"', TEXT)


def test_memory_per_response_is_bounded(serve: Serve) -> None:
    """100 compressed streams that stand still cost at most 2 MiB each."""
    released = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": TEXT, "more_body": True})
        await released.wait()
        await send({"type": "http.response.body", "body": b""})

    def resident() -> int:
        text = Path("/proc/self/statm").read_text().split()
        return int(text[1]) * 4096

    server = serve(application, compress=True, lifespan="off")
    for coding in ("gzip", "br", "zstd"):
        with Client(server.connect()) as client:
            begin = resident()
            streams = [
                client.request("/", fields=[("accept-encoding", coding)]) for _ in range(100)
            ]
            while not all(
                stream in client.exchanges and client.exchanges[stream].body for stream in streams
            ):
                client.read()
            assert resident() - begin < 100 * 2 * 2**20, coding
            assert server.loop is not None
            server.loop.call_soon_threadsafe(released.set)
            assert all(client.answer(stream).ended for stream in streams)
            server.submit(released.clear)
