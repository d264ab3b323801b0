"""HTTP/2 against independent clients: hyper-h2, httpx, curl, h2spec."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
from pathlib import Path
from typing import Any

import h2.connection
import h2.errors
import h2.settings
import httpx
import pytest
from h2.events import StreamEnded
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps import Application, echo, read_body, respond, scope_as_json
from peers import h2spec
from peers.h2_client import Client, Exchange
from server_process import Launch
from server_thread import Serve, Server

CALM = int(h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)


def test_scope(serve: Serve) -> None:
    server = serve(scope_as_json)
    with Client(server.connect()) as client:
        fields = [("cookie", "a=1"), ("x-a", "1"), ("cookie", "b=2")]
        for number in range(3):
            stream = client.request(f"/a%20b?q={number}", fields=fields)
            scope = json.loads(client.answer(stream).body)
            assert scope["http_version"] == "2"
            assert (scope["path"], scope["raw_path"]) == ("/a b", "/a%20b")
            assert scope["query_string"] == f"q={number}"
            assert scope["headers"] == [["host", "t"], ["cookie", "a=1; b=2"], ["x-a", "1"]]


def test_requests_side_by_side(serve: Serve) -> None:
    """Answers come as they are ready, whatever was asked first."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/last":
            await asyncio.wait_for(served.wait(), 20)
        await respond(send, scope["path"].encode())
        if scope["path"] != "/last":
            served.set()

    served = asyncio.Event()
    server = serve(app, lifespan="off")
    with Client(server.connect()) as client:
        last, first = client.request("/last"), client.request("/first")
        assert client.answer(first).body == b"/first"
        assert client.answer(last).body == b"/last"
        ended = [event.stream_id for event in client.events if isinstance(event, StreamEnded)]
        assert ended == [first, last]


@pytest.mark.parametrize("size", [0, 1, 16_384, 300_000, 3_000_000])
def test_bodies_both_ways(serve: Serve, size: int) -> None:
    server = serve(echo)
    body = bytes(index % 251 for index in range(1000)) * (size // 1000 + 1)
    with Client(server.connect()) as client:
        stream = client.request(body=body[:size], method="POST")
        assert client.answer(stream).body == body[:size]


def test_send_waits_for_a_client_that_does_not_read(serve: Serve) -> None:
    """Without credit from the client, the application gets only so much out."""
    sent: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["path"] == "/":
            for _ in range(100):
                await send({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
                sent.append(65_536)
        await send({"type": "http.response.body", "body": b"end"})

    server = serve(app, lifespan="off", send_buffer_bytes=65_536)
    with Client(server.connect(), reads=False) as client:
        slow = client.request()
        while len(client.exchanges[slow].body) < 65_535:
            client.read()
        # Others are not held up; the connection's window is used up, so a head is all that fits.
        other = client.request("/other", method="HEAD")
        assert client.answer(other).status == 200
        assert len(sent) <= 4
        client.reads = True
        client.state.acknowledge_received_data(65_535, slow)
        client.flush()
        assert len(client.answer(slow).body) == 100 * 65_536 + 3


def test_window_opens_as_the_application_takes_the_body(serve: Serve) -> None:
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.wait_for(go.wait(), 20)
        await respond(send, str(len(await read_body(receive))).encode())

    server = serve(app, lifespan="off", http2_initial_stream_window_size=65_535)
    with Client(server.connect()) as client:
        stream = client.request(method="POST", ends=False)
        assert client.settle()
        client.send(stream, b"x" * 65_535, ends=False)
        assert client.settle()
        assert client.state.local_flow_control_window(stream) == 0
        server.submit(go.set)
        client.send(stream, b"x" * 100_000)
        assert client.answer(stream).body == b"165535"


def test_reset_is_a_disconnect(serve: Serve) -> None:
    seen: list[str] = []
    done = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        seen.append((await receive())["type"])
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        except OSError as error:
            seen.append(type(error).__name__)
        done.set()

    server = serve(app, lifespan="off")
    with Client(server.connect()) as client:
        stream = client.request()
        assert client.settle()
        client.state.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        client.flush()
        assert done.wait(20)
        assert seen == ["http.disconnect", "ClientDisconnected"]


def test_body_that_stalls_is_408_and_others_are_served(serve: Serve) -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/begun":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        while True:
            event = await receive()
            if event["type"] == "http.disconnect":
                seen.append(scope["path"])
                return
            if not event["more_body"]:
                break
        await respond(send, b"whole")

    server = serve(app, lifespan="off", timeout_body=0.3)
    with Client(server.connect()) as client:
        late = client.request("/late", b"x", method="POST", ends=False)
        begun = client.request("/begun", b"x", method="POST", ends=False)
        assert client.answer(client.request(body=b"x", method="POST")).body == b"whole"
        assert client.answer(late).status == 408
        assert client.answer(begun).reset == h2.errors.ErrorCodes.CANCEL
        assert client.answer(client.request(body=b"x", method="POST")).body == b"whole"
        assert sorted(seen) == ["/begun", "/late"]


@pytest.mark.parametrize("window", ["stream", "connection"])
def test_window_that_is_never_opened_is_the_end(serve: Serve, window: str) -> None:
    failed = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x" * 9000, "more_body": True})
        except OSError:
            failed.set()

    server = serve(app, lifespan="off", timeout_write=0.3)
    with Client(server.connect(), reads=False) as client:
        size = 1000 if window == "stream" else 1 << 20
        client.state.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: size})
        assert client.settle()
        stream = client.request()
        if window == "stream":
            exchange = client.answer(stream)
            assert (len(exchange.body), exchange.reset) == (1000, h2.errors.ErrorCodes.CANCEL)
            assert client.settle()
        else:
            client.read_to_end()
            assert len(client.exchanges[stream].body) == 65_535
        assert failed.wait(20)


def test_early_hints(serve: Serve) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})
        await respond(send, b"body")

    server = serve(app, lifespan="off")
    with Client(server.connect()) as client:
        exchange = client.answer(client.request())
        assert exchange.hints == [{":status": "103", "link": "</a.css>; rel=preload"}]
        assert (exchange.status, exchange.body) == (200, b"body")


def test_hints_wait_for_a_client_that_does_not_read(serve: Serve) -> None:
    """An application that hints at more than anybody takes is held up, and ends with its client."""
    total, sent = 20_000, [0]
    over = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/":
            try:
                for number in range(total):
                    # No table of a header compressor holds a value of that size.
                    link = b"</%d>; rel=preload" % number + b"x" * 5000
                    await send({"type": "http.response.early_hint", "links": [link]})
                    sent[0] += 1
            finally:
                over.set()
        await respond(send, b"body")

    server = serve(app, lifespan="off", timeout_write=1)
    with Client(server.connect()) as client:
        stream = client.request()
        # Silent from here on: it is cut in the end.
        assert over.wait(20)
        assert 10 < sent[0] < total / 2
        assert client.exchanges[stream].hints == []
    with Client(server.connect()) as client:
        assert client.answer(client.request("/other")).body == b"body"


def test_application_that_fails(serve: Serve) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/late":
            headers = [(b"content-length", b"10")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        raise RuntimeError("on purpose")

    server = serve(app, lifespan="off")
    with Client(server.connect()) as client:
        assert client.answer(client.request("/early")).status == 500
        late = client.answer(client.request("/late"))
        assert late.reset == h2.errors.ErrorCodes.INTERNAL_ERROR
        assert client.answer(client.request("/early")).status == 500


@pytest.mark.parametrize(
    "fields",
    [
        [("connection", "close")],
        [("transfer-encoding", "chunked")],
        [("te", "gzip")],
        [("content-length", "3")],
    ],
)
def test_malformed_requests_end_their_stream_only(
    serve: Serve, fields: list[tuple[str, str]]
) -> None:
    server = serve(echo)
    with Client(server.connect()) as client:
        client.state.config.validate_outbound_headers = False
        client.state.config.normalize_outbound_headers = False
        broken = client.answer(client.request(fields=fields))
        assert broken.reset == h2.errors.ErrorCodes.PROTOCOL_ERROR
        assert client.answer(client.request()).status == 200


def test_drain_finishes_open_streams(serve: Serve) -> None:
    go, begun = asyncio.Event(), threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        begun.set()
        await asyncio.wait_for(go.wait(), 20)
        await respond(send, b"done")

    server = serve(app, lifespan="off")
    with Client(server.connect()) as client:
        stream = client.request()
        assert begun.wait(20)
        drained = asyncio.run_coroutine_threadsafe(_drain(server), server.loop)  # type: ignore[arg-type]
        # hyper-h2 takes the first GOAWAY for the end, so the bytes are read without it.
        raw = b""
        while b"\x00\x00\x08\x07" not in raw:
            raw += client.socket.recv(4096)
        server.submit(go.set)
        while piece := client.socket.recv(4096):
            raw += piece
            if b"\x00\x00\x08\x06\x00" in raw:
                ping = raw.index(b"\x00\x00\x08\x06\x00")
                client.socket.sendall(b"\0\0\x08\x06\x01\0\0\0\0" + raw[ping + 9 : ping + 17])
        assert stream == 1
        assert b"done" in raw
        assert drained.result(20) == 0


async def _drain(server: Server) -> int:
    return int(await server.worker.drain(10.0))


def test_httpx(serve: Serve) -> None:
    server = serve(echo)
    with httpx.Client(http1=False, http2=True) as client:
        for size in (0, 10, 500_000):
            reply = client.post(server.url, content=b"x" * size)
            assert (reply.http_version, len(reply.content)) == ("HTTP/2", size)


def test_curl(serve: Serve, tmp_path: Path) -> None:
    server = serve(echo)
    (tmp_path / "body").write_bytes(b"0123456789" * 50_000)
    command = ["curl", "-sS", "--http2-prior-knowledge", "--data-binary", f"@{tmp_path}/body"]
    out = subprocess.run(
        [*command, "-w", "%{http_version} %{size_download}", "-o", "/dev/null", server.url],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert out.stdout == "2 500000"


def test_h2spec(serve: Serve) -> None:
    # One case begins with rubbish, which is HTTP/1 to a server that speaks both.
    server = serve(h2spec.answer_slowly, lifespan="off", http="2")
    h2spec.run_all(server.host, server.port)


# --- the same bytes, cut and mixed in any way

PATHS = st.text("abcXYZ019/-._~!$&'()*+,;=:@", max_size=30).map(lambda path: "/" + path)
NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=20).map("x-".__add__)
VALUES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=40)
REQUESTS = st.tuples(
    PATHS,
    st.lists(st.tuples(NAMES, VALUES), max_size=8),
    st.none() | st.lists(st.binary(max_size=500), max_size=4),
)


async def mirror(scope: Any, receive: Any, send: Any) -> None:
    body = await read_body(receive)
    headers: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode(), []).append(value.decode())
    seen = {"target": scope["raw_path"].decode(), "headers": headers, "body": body.hex()}
    await respond(send, json.dumps(seen).encode())


@pytest.fixture
def mirrored(serve: Serve) -> Server:
    return serve(mirror)


@given(
    requests=st.lists(REQUESTS, min_size=1, max_size=5),
    cut=st.integers(1, 200),
    order=st.randoms(use_true_random=False),
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_valid_requests_interleaved_and_cut(
    mirrored: Server, requests: list[Any], cut: int, order: Any
) -> None:
    with Client(mirrored.connect()) as client:
        pieces: dict[int, list[tuple[bytes, bool]]] = {}
        expected: dict[int, Any] = {}
        for path, fields, body in requests:
            stream = client.state.get_next_available_stream_id()
            head = [(":method", "POST"), (":scheme", "http"), (":authority", "t"), (":path", path)]
            client.state.send_headers(stream, [*head, *fields], end_stream=body is None)
            client.exchanges[stream] = Exchange()
            parts = body or []
            pieces[stream] = (
                [] if body is None else [(part, False) for part in parts] + [(b"", True)]
            )
            names: dict[str, list[str]] = {"host": ["t"]}
            for name, value in fields:
                names.setdefault(name, []).append(value)
            expected[stream] = {"target": path, "headers": names, "body": b"".join(parts).hex()}
        while any(pieces.values()):
            stream = order.choice([stream for stream, left in pieces.items() if left])
            part, ends = pieces[stream].pop(0)
            client.state.send_data(stream, part, end_stream=ends)
        data = client.state.data_to_send()
        for start in range(0, len(data), cut):
            client.socket.sendall(data[start : start + cut])
        for stream, wanted in expected.items():
            assert json.loads(client.answer(stream).body) == wanted


def test_every_split(serve: Serve) -> None:
    """One request with a body, cut in two at every byte."""
    server = serve(echo)
    whole = _recorded()
    for at in range(len(whole)):
        connection = server.connect()
        connection.sendall(whole[:at])
        connection.sendall(whole[at:])
        raw = b""
        while b"hello body" not in raw:
            piece = connection.recv(4096)
            assert piece, f"closed after {raw!r}, split at {at}"
            raw += piece
        connection.close()


def _recorded() -> bytes:
    """Return the bytes of a whole connection with one request."""
    state = h2.connection.H2Connection()
    state.initiate_connection()
    head = [(":method", "POST"), (":scheme", "http"), (":authority", "t"), (":path", "/")]
    state.send_headers(1, [*head, ("x-a", "b")])
    state.send_data(1, b"hello body", end_stream=True)
    return state.data_to_send()


@given(
    at=st.integers(24, 130),
    bit=st.integers(0, 7),
)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_nearly_valid_streams_hurt_nobody(mirrored: Server, at: int, bit: int) -> None:
    """A flipped bit ends in an answer, a reset, a GOAWAY or a close, and others are served."""
    data = bytearray(_recorded())
    at = min(at, len(data) - 1)
    data[at] ^= 1 << bit
    with mirrored.connect() as connection:
        connection.sendall(bytes(data))
        connection.shutdown(1)
        while True:
            try:
                if not connection.recv(4096):
                    break
            except ConnectionResetError:
                break
    with Client(mirrored.connect()) as client:
        assert client.answer(client.request()).status == 200


# --- floods


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one frame."""
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    )


GET = b"\x82\x86\x84\x41\x01t"  # GET http://t/, in HPACK
COUNT = 20_000

FLOODS = {
    "rapid reset": b"".join(
        frame(1, 5, stream, GET) + frame(3, 0, stream, b"\0\0\0\x08")
        for stream in range(1, 2 * COUNT, 2)
    ),
    "made you reset": b"".join(
        frame(1, 4, stream, GET) + frame(8, 0, stream, b"\0\0\0\0")
        for stream in range(1, 2 * COUNT, 2)
    ),
    "continuation": frame(1, 1, 1, GET) + frame(9, 0, 1, b"") * COUNT,
    "settings": frame(4, 0, 0) * COUNT,
    "ping": frame(6, 0, 0, b"12345678") * COUNT,
    "empty data": frame(1, 4, 1, b"\x83\x86\x84\x41\x01t") + frame(0, 0, 1) * COUNT,
    "priority": frame(2, 0, 1, b"\0\0\0\0\0") * COUNT,
    "priority update": frame(16, 0, 0, b"\0\0\0\x01u=1") * COUNT,
}


@pytest.mark.parametrize("name", FLOODS)
def test_flood_is_ended_and_others_are_served(serve: Serve, name: str) -> None:
    server = serve(echo)
    data = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0) + FLOODS[name]
    flood = server.connect()
    answered = bytearray()

    def read() -> None:
        try:
            while piece := flood.recv(65_536):
                answered.extend(piece)
        except OSError:
            pass

    reader = threading.Thread(target=read)
    reader.start()
    try:
        flood.sendall(data)
    except OSError:
        pass
    with Client(server.connect()) as client:
        assert client.answer(client.request()).status == 200
    reader.join(20)
    assert not reader.is_alive(), "the flood was not ended"
    flood.close()


def test_resets_of_requests_that_are_served_are_counted(serve: Serve) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await receive()

    server = serve(app, lifespan="off")
    with Client(server.connect()) as client:
        resets = 0
        while not client.closed and resets < 1000:
            streams = [client.request() for _ in range(10)]
            if not client.settle():
                break
            for stream in streams:
                client.state.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
                resets += 1
            client.flush()
        assert client.goaway == CALM
        assert 100 < resets < 400


@pytest.mark.parametrize("updated", [False, True])
def test_priority_update_changes_what_is_sent_next(serve: Serve, updated: bool) -> None:
    """Two responses are to be sent whole, in order, until the client says otherwise (RFC 9218)."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send, b"x" * 1_000_000)

    server = serve(app, lifespan="off")
    with Client(server.connect(), reads=False) as client:
        size = h2.settings.SettingCodes.INITIAL_WINDOW_SIZE
        client.state.update_settings({size: 1 << 20})
        assert client.settle()
        first, second = (client.request(fields=[("priority", "u=3")]) for _ in range(2))
        bodies = [client.exchanges[stream] for stream in (first, second)]
        while sum(len(exchange.body) for exchange in bodies) < 65_535:
            client.read()
        # The connection's window is used up. What it is opened for now goes to whom it should.
        if updated:
            value = second.to_bytes(4, "big") + b"u=0"
            client.socket.sendall(frame(16, 0, 0, value))
        assert client.settle()
        before = [len(exchange.body) for exchange in bodies]
        client.state.increment_flow_control_window(400_000)
        client.flush()
        while sum(len(exchange.body) for exchange in bodies) < 465_535:
            client.read()
        grown = [len(exchange.body) - was for exchange, was in zip(bodies, before, strict=True)]
        assert grown == ([0, 400_000] if updated else [400_000, 0])


def test_access_log(launch: Launch) -> None:
    """One line for each request, as over HTTP/1.1."""
    server = launch("supervised_apps:app", "--access-log").wait_ready()
    url = f"http://127.0.0.1:{server.port}/pid?q=1"
    with httpx.Client(http1=False, http2=True) as client:
        body = client.get(url).content
        assert client.post(url, content=b"x" * 1000).status_code == 200
    line = rf'127.0.0.1:\d+ "GET /pid\?q=1 HTTP/2" 200 {len(body)} \d+\.\d+ms'
    server.wait_for(line)
    server.wait_for(line.replace("GET", "POST"))
    assert server.stop() == 0


def test_application_outside_of_http2_knows_nothing_of_it(serve: Serve) -> None:
    """The other protocol on the same port."""
    app: Application = scope_as_json
    server = serve(app, lifespan="off")
    assert httpx.get(server.url).json()["http_version"] == "1.1"
