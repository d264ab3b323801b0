"""Topics from handlers of four frameworks, on framegate and on uvicorn: the same result."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from django.core.handlers.asgi import ASGIHandler
from django.http import HttpResponse, JsonResponse
from django.urls import path
from fastapi import FastAPI, WebSocket
from fastapi.responses import Response
from litestar import Litestar
from litestar import Request as LitestarRequest
from litestar import Response as LitestarResponse
from litestar import WebSocket as LitestarWebSocket
from litestar import get as litestar_get
from litestar import post as litestar_post
from litestar import websocket as litestar_websocket
from litestar.enums import MediaType
from litestar.params import FromPath
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket as StarletteWebSocket
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

import framegate
from framegate import errors
from frameworks import django_settings
from server_thread import Serve
from topics.responders import Process

TOPIC = "camera/front"
SHAPE = (4, 6, 3)
PICTURE = np.arange(72, dtype=np.uint8).reshape(SHAPE)
results: list[Any] = []


def options(query: Any) -> dict[str, Any]:
    """Arguments of a FrameStream from a query."""
    numbers = ("quality", "width", "height", "after")
    given = dict(query)
    given = {name: int(value) if name in numbers else value for name, value in given.items()}
    for name in ("rate", "timeout"):
        if name in given:
            given[name] = float(given[name])
    return given


def fastapi_app() -> Any:
    app = FastAPI()

    @app.get("/frames/{topic:path}")
    async def frames(topic: str, request: Request) -> Response:
        return framegate.FrameStream(topic, **options(request.query_params))

    @app.post("/frames")
    async def ingest(request: Request) -> dict[str, Any]:
        return told(await framegate.ingest(request, TOPIC, dtype="uint8", shape=SHAPE))

    @app.post("/ask")
    async def ask(request: Request) -> Response:
        reply = await framegate.call_async(TOPIC, await request.body(), timeout=50)
        return Response(bytes(reply), media_type=reply.content_type)

    @app.websocket("/in")
    async def publish(websocket: WebSocket) -> None:
        await websocket.accept()
        results.append(await arriving(websocket))

    @app.websocket("/out")
    async def watch(websocket: WebSocket) -> None:
        await framegate.topic_to_websocket(TOPIC, websocket, **options(websocket.query_params))

    return app


def starlette_app() -> Any:
    async def frames(request: Request) -> Any:
        return framegate.FrameStream(request.path_params["topic"], **options(request.query_params))

    async def ingest(request: Request) -> Response:
        return JSONResponse(
            told(await framegate.ingest(request, TOPIC, dtype="uint8", shape=SHAPE))
        )

    async def ask(request: Request) -> Response:
        reply = await framegate.call_async(TOPIC, await request.body(), timeout=50)
        return Response(bytes(reply), media_type=reply.content_type)

    async def publish(websocket: StarletteWebSocket) -> None:
        results.append(await arriving(websocket))

    async def watch(websocket: StarletteWebSocket) -> None:
        await websocket.accept()
        await framegate.topic_to_websocket(TOPIC, websocket, **options(websocket.query_params))

    async def passes(request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["x-passed"] = "yes"
        return response

    return Starlette(
        routes=[
            Route("/frames/{topic:path}", frames),
            Route("/frames", ingest, methods=["POST"]),
            Route("/ask", ask, methods=["POST"]),
            WebSocketRoute("/in", publish),
            WebSocketRoute("/out", watch),
        ],
        middleware=[
            Middleware(BaseHTTPMiddleware, dispatch=passes),
        ],
    )


def litestar_app() -> Any:
    @litestar_get("/frames/{topic:path}", media_type=MediaType.TEXT)
    async def frames(topic: FromPath[str], request: LitestarRequest) -> framegate.FrameStream:
        return framegate.FrameStream(topic.lstrip("/"), **options(request.query_params))

    @litestar_post("/frames", status_code=200)
    async def ingest(request: LitestarRequest[Any, Any, Any]) -> dict[str, Any]:
        return told(await framegate.ingest(request, TOPIC, dtype="uint8", shape=SHAPE))

    @litestar_post("/ask", status_code=200)
    async def ask(request: LitestarRequest[Any, Any, Any]) -> LitestarResponse[bytes]:
        reply = await framegate.call_async(TOPIC, await request.body(), timeout=50)
        return LitestarResponse(bytes(reply), media_type=reply.content_type)

    @litestar_websocket("/in")
    async def publish(socket: LitestarWebSocket) -> None:
        await socket.accept()
        results.append(await arriving(socket))

    @litestar_websocket("/out")
    async def watch(socket: LitestarWebSocket) -> None:
        await framegate.topic_to_websocket(TOPIC, socket, **options(socket.query_params))

    return Litestar([frames, ingest, ask, publish, watch])


async def django_frames(request: Any, topic: str) -> Any:
    stream = framegate.FrameStream(topic, **options(request.GET.items()))
    return await stream.to_django(request)


async def django_ingest(request: Any) -> Any:
    return JsonResponse(told(await framegate.ingest(request, TOPIC, dtype="uint8", shape=SHAPE)))


async def django_ask(request: Any) -> Any:
    reply = await framegate.call_async(TOPIC, request.body, timeout=50)
    return HttpResponse(bytes(reply), content_type=reply.content_type)


urlpatterns = [
    path("frames/<path:topic>", django_frames),
    path("frames", django_ingest),
    path("ask", django_ask),
]


def django_app() -> Any:
    django_settings.use(__name__)
    inner = ASGIHandler()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        """Django has no WebSockets: they stand beside it, as its own documentation has it."""
        if scope["type"] == "websocket":
            if scope["path"] == "/in":
                results.append(await arriving(scope, receive=receive, send=send))
            else:
                await framegate.topic_to_websocket(TOPIC, scope, receive=receive, send=send)
        elif scope["type"] == "http":
            await inner(scope, receive, send)
        else:
            raise NotImplementedError

    return app


def told(frame: framegate.Ingested) -> dict[str, Any]:
    return {"sequence": frame.sequence, "size": frame.size, "native": frame.native}


async def arriving(websocket: Any, **parts: Any) -> Any:
    try:
        return await framegate.websocket_to_topic(
            websocket, TOPIC, dtype="uint8", shape=SHAPE, **parts
        )
    except errors.FramegateError as error:
        return error


APPS = {
    "fastapi": fastapi_app,
    "starlette": starlette_app,
    "litestar": litestar_app,
    "django": django_app,
}


class Uvicorn:
    def __init__(self, app: Any) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_level="error", lifespan="off", ws="websockets-sansio")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, args=([self.socket],), daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.socket.getsockname()[1]}"

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(30)
        assert not self.thread.is_alive()


@pytest.fixture(params=["framegate", "uvicorn"])
def native(request: pytest.FixtureRequest) -> bool:
    return request.param == "framegate"


@pytest.fixture(params=APPS)
def url(request: pytest.FixtureRequest, native: bool, serve: Serve) -> Iterator[str]:
    """A server with the handlers of one framework."""
    app = APPS[request.param]()
    results.clear()
    if native:
        yield serve(app, lifespan="off").url
        return
    server = Uvicorn(app)
    try:
        yield server.url
    finally:
        server.stop()


@pytest.fixture
def camera() -> Iterator[framegate.Publisher]:
    with framegate.Publisher(TOPIC, dtype="uint8", shape=SHAPE, slots=8) as publisher:
        publisher.send(PICTURE)
        yield publisher


def until(done: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 30
    while not (found := done()):
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)
    return found


def test_newest_frame_is_the_response_of_a_handler(url: str, camera: framegate.Publisher) -> None:
    answer = httpx.get(f"{url}/frames/{TOPIC}?view=latest&format=raw", timeout=30)
    assert (answer.status_code, answer.content) == (200, PICTURE.tobytes())
    told = {name: answer.headers[f"frame-{name}"] for name in ("dtype", "shape", "sequence")}
    assert told == {"dtype": "uint8", "shape": "4, 6, 3", "sequence": "1"}
    assert answer.headers["content-length"] == "72"
    picture = httpx.get(f"{url}/frames/{TOPIC}?view=latest&format=png&width=3", timeout=30)
    assert picture.headers["content-type"] == "image/png"
    assert picture.content[:8] == b"\x89PNG\r\n\x1a\n"


def test_pictures_follow_each_other_in_a_response_of_a_handler(
    url: str, camera: framegate.Publisher
) -> None:
    with httpx.stream("GET", f"{url}/frames/{TOPIC}?quality=90&framing=length", timeout=30) as one:
        assert one.status_code == 200
        assert one.headers["content-type"] == "multipart/x-mixed-replace; boundary=frame"
        assert "framegate-view" not in one.headers
        pieces, seen = one.iter_raw(), b""
        for sequence in (1, 2, 3):
            while f"Frame-Sequence: {sequence}\r\n".encode() not in seen:
                seen += next(pieces)
            camera.send(PICTURE)
        assert seen.count(b"\xff\xd8\xff") >= 2


def test_events_tell_of_each_frame(url: str, camera: framegate.Publisher) -> None:
    with httpx.stream("GET", f"{url}/frames/{TOPIC}?view=sse", timeout=30) as one:
        assert one.headers["content-type"].startswith("text/event-stream")
        lines = one.iter_lines()
        data = next(line for line in lines if line.startswith("data: "))
        said = json.loads(data[6:])
        assert (said["sequence"], said["dtype"], said["shape"]) == (1, "uint8", list(SHAPE))
        assert said["bytes"] == 72


def test_topic_that_is_not_there_is_a_404_that_says_so(url: str) -> None:
    for query in ("", "?view=latest", "?view=sse"):
        answer = httpx.get(f"{url}/frames/not/there{query}", timeout=30)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "topic-unknown"
    answer = httpx.get(f"{url}/frames/no..name", timeout=30)
    assert (answer.status_code, answer.json()["code"]) == (400, "topic-name")


def test_head_of_a_stream_has_no_body(url: str, camera: framegate.Publisher) -> None:
    answer = httpx.head(f"{url}/frames/{TOPIC}", timeout=30)
    if answer.status_code != 405:  # FastAPI and Litestar have HEAD only where they are told so
        assert answer.headers["content-type"] == "multipart/x-mixed-replace; boundary=frame"
        assert answer.content == b""


def test_body_of_a_request_becomes_a_frame(
    url: str, native: bool, request: pytest.FixtureRequest
) -> None:
    # Django has read the body, to its end, before there is a view.
    native &= request.node.callspec.params["url"] != "django"
    for sequence in (1, 2, 3):
        body = (PICTURE + sequence).tobytes()
        answer = httpx.post(f"{url}/frames", content=body, timeout=30)
        assert answer.status_code == 200, answer.text
        assert answer.json() == {"sequence": sequence, "size": 72, "native": native}
        with framegate.Subscriber(TOPIC) as subscriber, subscriber.take(timeout=30) as frame:
            assert (frame.array == PICTURE + sequence).all()


def test_reply_of_another_process_is_the_answer_of_a_handler(
    url: str, respond: Callable[..., Process]
) -> None:
    respond("echo", TOPIC)
    for body in (b"abc", b"", bytes(range(256)) * 256):
        answer = httpx.post(f"{url}/ask", content=body, timeout=60)
        assert (answer.status_code, answer.content) == (200, body[::-1])


def test_messages_of_a_websocket_become_frames(url: str, native: bool) -> None:
    address = url.replace("http", "ws") + "/in"
    with connect(address, max_size=None, compression=None) as client:
        for value in range(3):
            client.send(np.full(SHAPE, value, np.uint8).tobytes())
        with framegate.Subscriber(TOPIC, wait=30) as subscriber:
            frame = subscriber.take(timeout=30)
            while frame is not None and frame.sequence < 3:
                frame.release()
                frame = subscriber.take(timeout=30)
            assert frame is not None
            with frame:
                assert bytes(frame) == bytes([2]) * 72
    result = until(lambda: results)[0]
    assert result == framegate.Forwarded(frames=3, dropped=0, native=native)


@pytest.mark.parametrize(
    ("message", "code", "error"),
    [
        (bytes(73), 1009, errors.FrameTooLarge),
        (bytes(71), 1007, errors.FrameTooShort),
        ("text", 1003, errors.RemoteProtocolError),
    ],
    ids=["long", "short", "text"],
)
def test_message_that_is_no_frame_closes_the_websocket(
    url: str, message: Any, code: int, error: type[Exception]
) -> None:
    with connect(url.replace("http", "ws") + "/in", compression=None) as client:
        client.send(message)
        with pytest.raises(ConnectionClosed):
            client.recv(timeout=30)
        assert client.close_code == code
    assert type(until(lambda: results)[0]) is error
    assert framegate.shm.inspect(TOPIC).sequence == 0


def test_frames_leave_as_messages_of_a_websocket(url: str, camera: framegate.Publisher) -> None:
    with connect(url.replace("http", "ws") + "/out", compression=None) as client:
        assert client.recv(timeout=30) == PICTURE.tobytes()
        camera.send(PICTURE + 1)
        assert client.recv(timeout=30) == (PICTURE + 1).tobytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"view": "movie"}, "view is one of"),
        ({"quality": 0}, "quality is from 1 to 100"),
        ({"quality": True}, "quality is a number"),
        ({"rate": 1001}, "rate is from"),
        ({"view": "sse", "quality": 50}, "quality means nothing here"),
        ({"format": "raw"}, "format is one of"),
        ({"framing": "none"}, "framing is"),
    ],
)
def test_wrong_argument_of_a_stream_is_a_value_error(arguments: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        framegate.FrameStream(TOPIC, **arguments)


def test_no_python_runs_per_frame(serve: Serve, camera: framegate.Publisher) -> None:
    server = serve(fastapi_app(), lifespan="off")
    with httpx.stream("GET", f"{server.url}/frames/{TOPIC}?framing=length", timeout=30) as one:
        pieces, seen = one.iter_raw(), b""
        while b"Frame-Sequence: 1\r\n" not in seen:
            seen += next(pieces)
        # The handler has ended: its task is gone while the response goes on.
        assert server.submit(lambda: len(asyncio.all_tasks())) <= 2
        for sequence in range(2, 10):
            camera.send(PICTURE)
            while f"Frame-Sequence: {sequence}\r\n".encode() not in seen:
                seen += next(pieces)


def test_view_that_is_not_sent_is_let_go_of(serve: Serve, camera: framegate.Publisher) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        handle = scope["extensions"]["framegate.topics"]
        view = await handle.view(TOPIC, "view=mjpeg")
        if scope["path"] == "/twice":
            stolen = list(view.headers)
            del view
            await asyncio.sleep(0)  # the step that it came with still has it
            await send({"type": "http.response.start", "status": 200, "headers": stolen})
            await send({"type": "http.response.body", "body": b"its own"})
            return
        results.append(view.sent)
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"another"})
        results.append(view.sent)

    results.clear()
    server = serve(app, lifespan="off", topics_viewers=1)
    for _ in range(3):  # one seat: each view gave it back
        assert httpx.get(f"{server.url}/", timeout=30).text == "another"
        answer = httpx.get(f"{server.url}/twice", timeout=30)
        assert (answer.text, "framegate-view" in answer.headers) == ("its own", True)
    assert results == [False] * 6


@pytest.mark.parametrize("minimum", [0, 500])
def test_middleware_that_compresses_leaves_a_view_alone_or_is_told(
    serve: Serve, camera: framegate.Publisher, minimum: int
) -> None:
    async def frames(request: Request) -> Any:
        return framegate.FrameStream(TOPIC, "latest", format="raw")

    middleware = [Middleware(GZipMiddleware, minimum_size=minimum)]
    server = serve(Starlette(routes=[Route("/", frames)], middleware=middleware), lifespan="off")
    answer = httpx.get(server.url, timeout=30)
    if minimum:
        assert (answer.status_code, answer.content) == (200, PICTURE.tobytes())
    else:  # it takes the response for an empty one, and says that it is encoded
        assert answer.status_code == 500


def test_body_beside_a_view_is_an_error(serve: Serve, camera: framegate.Publisher) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        view = await scope["extensions"]["framegate.topics"].view(TOPIC, "view=latest&format=raw")
        await send({"type": "http.response.start", "status": 200, "headers": view.headers})
        try:
            await send({"type": "http.response.body", "body": b"more"})
        except RuntimeError as error:
            results.append(str(error))
            raise

    results.clear()
    server = serve(app, lifespan="off")
    assert httpx.get(server.url, timeout=30).status_code == 500
    assert "view of a topic" in results[0]
