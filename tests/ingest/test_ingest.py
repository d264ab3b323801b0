"""`framegate.ingest`: request bodies become frames, natively where they can."""

import asyncio
import contextlib
import json
import socket
import subprocess
import threading
import tracemalloc
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI, Request
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import Response

import framegate
from framegate import errors
from peers.h2_client import Client
from server_thread import Serve, Server
from topics.waiting import wait_until

pytestmark = pytest.mark.usefixtures("runtime")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

SHAPE = (4, 6, 3)
PICTURE = np.arange(72, dtype=np.uint8).reshape(SHAPE)
TOPIC = "camera/front"
LENGTH = (b"content-length", b"2")


def camera_app(**options: Any) -> FastAPI:
    app = FastAPI()
    arguments = {"dtype": "uint8", "shape": SHAPE, **options}

    @app.post("/frames")
    async def frames(request: Request) -> dict[str, Any]:
        frame = await framegate.ingest(request, TOPIC, **arguments)
        return {"sequence": frame.sequence, "size": frame.size, "native": frame.native}

    return app


def raw_app(**options: Any) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError
        frame = await framegate.ingest(scope, TOPIC, receive=receive, **options)
        body = json.dumps([frame.sequence, frame.size, frame.native]).encode()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": body})

    return app


def newest() -> bytes:
    """The newest frame's bytes."""
    with framegate.Subscriber(TOPIC, policy="latest") as subscriber:
        frame = subscriber.take(timeout=5)
        assert frame is not None
        with frame:
            return bytes(frame)


def exchange(server: Server, request: bytes) -> bytes:
    """Send these bytes and return everything until the server closes."""
    with server.connect() as connection:
        connection.sendall(request)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        return answer


def head(length: int | None, *fields: str) -> bytes:
    framing = f"content-length: {length}" if length is not None else "transfer-encoding: chunked"
    return "\r\n".join(["POST /frames HTTP/1.1", "host: x", framing, *fields, "", ""]).encode()


def test_body_becomes_a_frame_without_python_in_the_path(serve: Serve) -> None:
    server = serve(camera_app())
    with httpx.Client(base_url=server.url) as client:
        for sequence in (1, 2, 3):
            answer = client.post("/frames", content=PICTURE.tobytes())
            assert answer.json() == {"sequence": sequence, "size": 72, "native": True}
    assert server.submit(lambda: server.worker.ingested) == (3, 0)
    with framegate.Subscriber(TOPIC) as subscriber, subscriber.take(timeout=5) as frame:
        array = frame.array
        assert array.dtype == np.uint8
        assert not array.flags.writeable
        np.testing.assert_array_equal(array, PICTURE)
        del array


def test_no_bytes_object_of_the_body_is_made(serve: Serve) -> None:
    size = 32 * 1024 * 1024
    server = serve(raw_app(slot_bytes=size, slots=2))
    body = bytearray(size)
    exchange(server, head(0, "connection: close"))  # everything is imported after that
    with server.connect() as connection:
        tracemalloc.start()
        try:
            connection.sendall(head(size, "connection: close"))
            connection.sendall(body)
            assert b" 200 " in connection.recv(4096)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 1024 * 1024
    assert server.submit(lambda: server.worker.ingested)[0] == 1


@pytest.mark.parametrize("declared", [True, False], ids=["length", "unknown"])
def test_body_over_http2_becomes_a_frame(serve: Serve, declared: bool) -> None:
    server = serve(camera_app())
    body = PICTURE.tobytes()
    with httpx.Client(base_url=server.url, http1=False, http2=True) as client:
        for sequence in (1, 2, 3):
            pieces: Any = body if declared else iter([body[:50], body[50:]])
            answer = client.post("/frames", content=pieces)
            assert answer.http_version == "HTTP/2"
            assert answer.json() == {"sequence": sequence, "size": 72, "native": True}
    assert server.submit(lambda: server.worker.ingested) == (3, 0)
    assert newest() == body


def test_large_body_over_http2_by_curl(serve: Serve, tmp_path: Path) -> None:
    """Many windows long, and no bytes object of it is made."""
    size = 16 * 1024 * 1024
    server = serve(raw_app(slot_bytes=size, slots=2))
    body = np.random.default_rng(1).bytes(size)
    (tmp_path / "body").write_bytes(body)
    command = ["curl", "-sS", "--http2-prior-knowledge", "-H", "expect:", "-T", "-", server.url]
    subprocess.run(command, input=b"", check=True, capture_output=True)  # imports everything
    with (tmp_path / "body").open("rb") as file:
        tracemalloc.start()
        try:
            out = subprocess.run(command, stdin=file, check=True, capture_output=True, timeout=60)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert json.loads(out.stdout) == [2, size, True]
    assert peak < 1024 * 1024
    assert newest() == body


def test_body_over_http2_that_is_given_up_is_no_frame(serve: Serve) -> None:
    server = serve(camera_app())
    with Client(server.connect()) as client:
        stream = client.request("/frames", b"x" * 50, method="POST", ends=False)
        assert client.settle()
        client.state.reset_stream(stream)
        client.flush()
        # The slot is free again, and the next one is the first.
        answer = client.answer(client.request("/frames", PICTURE.tobytes(), method="POST"))
        assert json.loads(answer.body) == {"sequence": 1, "size": 72, "native": True}
    assert newest() == PICTURE.tobytes()


def test_middleware_that_wraps_receive_does_not_hide_the_body(serve: Serve) -> None:
    app = camera_app()

    async def dispatch(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers["x-middleware"] = "1"
        return response

    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    server = serve(app)
    answer = httpx.post(server.url + "/frames", content=PICTURE.tobytes())
    assert answer.json()["native"] is True
    assert answer.headers["x-middleware"] == "1"
    assert newest() == PICTURE.tobytes()


def test_a_partly_read_body_takes_the_plain_way_with_the_same_result(serve: Serve) -> None:
    app = camera_app()

    async def dispatch(request: Request, call_next: Any) -> Response:
        await request.body()
        response: Response = await call_next(request)
        return response

    app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
    server = serve(app)
    answer = httpx.post(server.url + "/frames", content=PICTURE.tobytes())
    assert answer.json() == {"sequence": 1, "size": 72, "native": False}
    assert newest() == PICTURE.tobytes()
    assert server.submit(lambda: server.worker.ingested) == (0, 1)


@pytest.mark.parametrize("task_mode", ["lazy"])
def test_another_server_takes_the_plain_way_with_the_same_result(task_mode: str) -> None:
    async def main() -> None:
        for app in (camera_app(), raw_app(dtype="uint8", shape=SHAPE)):
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                answer = await client.post("/frames", content=PICTURE.tobytes())
                assert answer.status_code == 200
                assert "false" in answer.text

    asyncio.run(main())
    assert newest() == PICTURE.tobytes()


def test_too_large_by_content_length_is_413_before_a_byte_is_read(serve: Serve) -> None:
    server = serve(camera_app())
    answer = exchange(server, head(73, "connection: close", "expect: 100-continue"))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in answer
    assert b"73 bytes" in answer


def test_exactly_a_slot_fits_and_one_byte_more_does_not(serve: Serve) -> None:
    server = serve(raw_app(slot_bytes=100, slots=2), allow_unhandled=True)
    with httpx.Client(base_url=server.url) as client:
        assert client.post("/frames", content=bytes(100)).status_code == 200
        assert client.post("/frames", content=bytes(101)).status_code == 413


def test_a_body_of_unknown_length_is_cut_down_to_what_came(serve: Serve) -> None:
    server = serve(raw_app(slot_bytes=100))
    with httpx.Client(base_url=server.url) as client:
        assert client.post("/frames", content=iter([b"ab", b"c"])).json() == [1, 3, True]
        assert newest() == b"abc"
        assert client.post("/frames", content=iter([bytes(60), bytes(41)])).status_code == 413
        assert client.post("/frames", content=iter([bytes(60), bytes(40)])).json()[1] == 100


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_does_not_fill_the_shape_is_400(serve: Serve, chunked: bool) -> None:
    server = serve(camera_app())
    body = bytes(71)
    answer = httpx.post(server.url + "/frames", content=iter([body]) if chunked else body)
    assert answer.status_code == 400
    assert "71 bytes, dtype and shape want 72" in answer.text


def test_a_client_that_goes_away_in_the_middle_abandons_the_loan(serve: Serve) -> None:
    failed = threading.Event()
    app = FastAPI()

    @app.post("/frames")
    async def frames(request: Request) -> dict[str, int]:
        try:
            frame = await framegate.ingest(request, TOPIC, dtype="uint8", shape=SHAPE, slots=2)
        except errors.ClientDisconnected:
            failed.set()
            raise
        return {"sequence": frame.sequence}

    server = serve(app)
    for _ in range(5):  # more often than there are slots
        failed.clear()
        with server.connect() as connection:
            connection.sendall(head(72) + bytes(40))
        assert failed.wait(20)
    answer = httpx.post(server.url + "/frames", content=PICTURE.tobytes())
    assert answer.json() == {"sequence": 1}


def test_a_cancelled_ingest_abandons_the_loan(serve: Serve) -> None:
    cancelled = threading.Event()
    app = FastAPI()

    @app.post("/frames")
    async def frames(request: Request) -> dict[str, int]:
        try:
            async with asyncio.timeout(0.05):
                frame = await framegate.ingest(request, TOPIC, dtype="uint8", shape=SHAPE, slots=2)
        except TimeoutError:
            cancelled.set()
            return {"sequence": 0}
        return {"sequence": frame.sequence}

    server = serve(app)
    for _ in range(5):
        cancelled.clear()
        with server.connect() as connection:
            connection.sendall(head(72) + bytes(40))
            assert cancelled.wait(20)
    answer = httpx.post(server.url + "/frames", content=PICTURE.tobytes())
    assert answer.json() == {"sequence": 1}


def test_the_connection_goes_on_after_an_ingest(serve: Serve) -> None:
    server = serve(camera_app())
    one = head(72) + PICTURE.tobytes()
    last = head(72, "connection: close") + PICTURE.tobytes()
    answer = exchange(server, one * 3 + last)
    assert answer.count(b"HTTP/1.1 200 ") == 4
    assert b'"sequence":4' in answer


def test_a_full_topic_is_503_after_the_timeout_and_waits_until_then(serve: Serve) -> None:
    server = serve(camera_app(slots=2, timeout=0.05))
    with httpx.Client(base_url=server.url) as client:
        client.post("/frames", content=PICTURE.tobytes())
        with contextlib.ExitStack() as stack:
            subscribers = [
                stack.enter_context(framegate.Subscriber(TOPIC, policy="latest")) for _ in range(2)
            ]
            frame = subscribers[0].take(timeout=5)
            client.post("/frames", content=PICTURE.tobytes())
            other = subscribers[1].take(timeout=5)
            assert frame is not None
            assert other is not None
            with frame, other:
                answer = client.post("/frames", content=PICTURE.tobytes())
                assert answer.status_code == 503
        assert client.post("/frames", content=PICTURE.tobytes()).json()["sequence"] == 3


def test_body_that_waits_for_a_slot_behind_the_answer_is_no_request(serve: Serve) -> None:
    """Its bytes are in the connection's buffer, where an idle connection would look for a head."""
    pieces = [b"first", b"GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, b""])
    body = b"".join(pieces)
    options: dict[str, Any] = {"slots": 2, "slot_bytes": 100}
    seen: list[str] = []
    frames: list[asyncio.Task[framegate.Ingested]] = []
    done = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError
        seen.append(scope["path"])
        if scope["path"] == "/frames":
            frames.append(
                asyncio.ensure_future(framegate.ingest(scope, TOPIC, timeout=60, **options))
            )
            frames[0].add_done_callback(lambda _: done.set())
            await asyncio.sleep(0)  # it has taken the body
        await send({"type": "http.response.start", "status": 200, "headers": [LENGTH]})
        await send({"type": "http.response.body", "body": b"ok"})

    server = serve(app)
    with (
        framegate.Publisher(TOPIC, **options) as full,
        server.connect() as connection,
        server.connect() as other,
    ):
        with full.loan(), full.loan():
            connection.sendall(head(None) + chunks)
            assert connection.recv(4096).endswith(b"\r\n\r\nok")
            other.sendall(b"GET /other HTTP/1.1\r\nhost: x\r\n\r\n")
            assert other.recv(4096).endswith(b"\r\n\r\nok")
            # The other one came later, and is found idle: this one was looked at as often.
            wait_until(lambda: server.submit(lambda: server.worker.parked) > 0)
            assert server.submit(lambda: server.worker.parked) == 1
        assert done.wait(60)
        assert frames[0].result().size == len(body)
        assert newest() == body
        connection.sendall(b"GET /next HTTP/1.1\r\nhost: x\r\n\r\n")
        assert connection.recv(4096).endswith(b"\r\n\r\nok")
    assert seen == ["/frames", "/other", "/next"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"topic": "../etc"}, errors.TopicNameInvalid),
        ({"dtype": "uint9", "shape": (3,)}, TypeError),
        ({"dtype": "uint8"}, TypeError),
        ({"dtype": "uint8", "shape": (3,), "slots": 1}, errors.ShmError),
        ({"dtype": "uint8", "shape": (3,), "timeout": -1.0}, ValueError),
    ],
)
def test_wrong_arguments_are_named_and_the_body_stays_readable(
    serve: Serve, arguments: dict[str, Any], error: type[Exception]
) -> None:
    app = FastAPI()
    seen: list[Exception] = []

    @app.post("/frames")
    async def frames(request: Request) -> dict[str, int]:
        options = {"topic": TOPIC, **arguments}
        try:
            await framegate.ingest(request, options.pop("topic"), **options)
        except Exception as caught:
            seen.append(caught)
        return {"size": len(await request.body())}

    server = serve(app)
    answer = httpx.post(server.url + "/frames", content=b"abc")
    assert isinstance(seen[0], error), seen
    assert answer.json() == {"size": 3}


def test_another_dtype_for_the_same_topic_is_refused(serve: Serve) -> None:
    server = serve(camera_app(), allow_unhandled=True)
    assert httpx.post(server.url + "/frames", content=PICTURE.tobytes()).status_code == 200
    other = serve(camera_app(dtype="int8"), allow_unhandled=True)
    assert httpx.post(other.url + "/frames", content=PICTURE.tobytes()).status_code == 500


def test_raw_bytes_go_into_the_topic_as_it_is(serve: Serve) -> None:
    with framegate.Publisher(TOPIC, slot_bytes=1000, slots=3):
        server = serve(raw_app())
        assert httpx.post(server.url + "/", content=b"x" * 999).json() == [1, 999, True]
        assert newest() == b"x" * 999


def test_time_of_the_application_travels_with_the_frame(serve: Serve) -> None:
    server = serve(camera_app(timestamp=12.5))
    httpx.post(server.url + "/frames", content=PICTURE.tobytes())
    with framegate.Subscriber(TOPIC) as subscriber, subscriber.take(timeout=5) as frame:
        assert frame.timestamp == 12.5


def test_many_large_bodies_arrive_whole_at_any_pace(serve: Serve) -> None:
    # The worker lets the kernel collect half a megabyte before it wakes. A watermark alone can
    # hang: the sender's window may close below it.
    size = 6_220_800
    server = serve(raw_app(slot_bytes=size, slots=3))
    picture = np.random.default_rng(1).integers(0, 256, size, np.uint8).tobytes()
    pause = threading.Event()
    with server.connect() as connection:
        for number in range(60):
            connection.sendall(head(size))
            if number % 20 == 0:  # slower than the worker's patience
                for start in range(0, size, size // 8):
                    connection.sendall(picture[start : start + size // 8])
                    pause.wait(0.008)
            else:
                connection.sendall(picture)
            answer = connection.recv(4096)
            assert f"[{number + 1}, {size}, true]".encode() in answer
    assert newest() == picture


def test_receive_after_an_ingest_waits_for_the_client_to_go(serve: Serve) -> None:
    seen: list[str] = []
    done = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError
        await framegate.ingest(scope, TOPIC, slot_bytes=10)
        seen.append((await receive())["type"])
        done.set()

    server = serve(app)
    with server.connect() as connection:
        connection.sendall(head(3) + b"abc")
        with framegate.Subscriber(TOPIC, wait=20) as subscriber, subscriber.take(timeout=20) as f:
            assert bytes(f) == b"abc"
        connection.shutdown(socket.SHUT_RDWR)
    assert done.wait(20)
    assert seen == ["http.disconnect"]


def litestar_app() -> Any:
    import litestar

    @litestar.post("/frames", status_code=200)
    async def frames(request: litestar.Request[Any, Any, Any]) -> dict[str, Any]:
        frame = await framegate.ingest(request, TOPIC, dtype="uint8", shape=SHAPE)
        return {"sequence": frame.sequence, "size": frame.size, "native": frame.native}

    return litestar.Litestar([frames])


def quart_app() -> Any:
    import quart

    app = quart.Quart("camera")

    @app.post("/frames")
    async def frames() -> dict[str, Any]:
        frame = await framegate.ingest(quart.request, TOPIC, dtype="uint8", shape=SHAPE)
        return {"sequence": frame.sequence, "size": frame.size, "native": frame.native}

    return app


@pytest.mark.parametrize("make", [litestar_app, quart_app], ids=["litestar", "quart"])
def test_other_frameworks_ingest_and_answer_413(serve: Serve, make: Callable[[], Any]) -> None:
    server = serve(make(), allow_unhandled=True)
    with httpx.Client(base_url=server.url) as client:
        answer = client.post("/frames", content=PICTURE.tobytes())
        assert answer.status_code == 200
        assert answer.json()["size"] == 72
        assert newest() == PICTURE.tobytes()
        assert client.post("/frames", content=bytes(73)).status_code == 413
