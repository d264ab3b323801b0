"""Spans of requests: whose they are, what they are called and what they tell."""

from __future__ import annotations

import asyncio
import http.client
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from opentelemetry import baggage, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import inject
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from websockets.sync.client import connect

from framegate import Server
from tracing.receiver import Received, Receiver, http_receiver

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{CALLER}-01"
SERVER = 2
UNSET, OK, ERROR = 0, 1, 2

Scope = dict[str, Any]


@contextmanager
def serving(
    app: Any, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], **options: Any
) -> Iterator[str]:
    """A server in this process; its URL."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    options = {"access_log": False, "otel": True, **options}
    with Server(app, port=0, **options).start_in_thread() as server:
        yield server.urls[0]


@pytest.fixture
def spans_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Received]]:
    """Serve an application, ask it, and return its spans once the server has stopped."""

    def spans_of(app: Any, ask: Callable[[str], Any], **options: Any) -> list[Received]:
        environment = options.pop("environment", {})
        with http_receiver() as receiver:
            with serving(app, monkeypatch, receiver.environment(**environment), **options) as url:
                ask(url)
            return receiver.spans

    return spans_of


async def hello(scope: Scope, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def hex_of(number: bytes) -> str:
    return number.hex()


def test_trace_goes_through_the_server_into_spans_of_the_sdk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Client, framegate, a span in the handler, and what an instrumented client would send on."""
    with http_receiver() as receiver:
        provider = TracerProvider(resource=Resource.create({"service.name": "inside"}))
        exporter = OTLPSpanExporter(endpoint=f"{receiver.endpoint}/v1/traces")
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        tracer = provider.get_tracer("application")
        app = FastAPI()

        @app.get("/items/{item}")
        async def item(item: str) -> dict[str, str]:
            await asyncio.sleep(0)
            sent: dict[str, str] = {}
            with tracer.start_as_current_span("work"):
                inject(sent)
            return sent

        fields = {"traceparent": PARENT, "tracestate": "rojo=1,congo=2"}
        with serving(app, monkeypatch, receiver.environment()) as url:
            sent = httpx.get(f"{url}/items/7", headers=fields).raise_for_status().json()
        provider.shutdown()
        spans = {received.scope: received for received in receiver.wait_spans(2)}
    ours, inner = spans["framegate"].span, spans["application"].span
    assert hex_of(ours.trace_id) == hex_of(inner.trace_id) == TRACE
    assert hex_of(ours.parent_span_id) == CALLER
    assert inner.parent_span_id == ours.span_id
    assert (ours.name, ours.kind) == ("GET /items/{item}", SERVER)
    assert ours.trace_state == inner.trace_state == "rojo=1,congo=2"
    assert sent["traceparent"] == f"00-{TRACE}-{hex_of(inner.span_id)}-01"
    assert sent["tracestate"] == "rojo=1,congo=2"
    assert ours.start_time_unix_nano <= inner.start_time_unix_nano
    assert inner.end_time_unix_nano <= ours.end_time_unix_nano
    assert spans["framegate"].resource["service.name"] == "tested"
    # W3C: the parent is of another process, and the trace is sampled.
    assert ours.flags == 0x301


@pytest.mark.parametrize("http2", [False, True])
def test_what_a_span_tells(spans_of: Callable[..., list[Received]], http2: bool) -> None:
    def ask(url: str) -> None:
        with httpx.Client(http1=not http2, http2=http2) as client:
            query = "q=1&sig=secret&X-Goog-Signature=other&Signature=&AWSAccessKeyId=key"
            client.get(f"{url}/a%20b?{query}", headers={"user-agent": "test/1"})

    (received,) = spans_of(hello, ask)
    told = received.attributes
    port = told.pop("network.peer.port")
    assert 0 < port < 65536
    assert told.pop("server.port") > 0
    assert told == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "url.path": "/a%20b",
        "url.query": (
            "q=1&sig=REDACTED&X-Goog-Signature=REDACTED&Signature=REDACTED&AWSAccessKeyId=REDACTED"
        ),
        "server.address": "127.0.0.1",
        "client.address": "127.0.0.1",
        "network.peer.address": "127.0.0.1",
        "network.protocol.version": "2" if http2 else "1.1",
        "user_agent.original": "test/1",
    }  # and no framegate.stream.duration
    # Without a route the method alone: a path would be a name for each of its parameters.
    assert (received.span.name, received.span.kind) == ("GET", SERVER)
    assert received.span.status.code == UNSET
    assert received.span.parent_span_id == b""


def test_what_trusted_proxies_say(spans_of: Callable[..., list[Received]]) -> None:
    fields = {
        "x-forwarded-for": "192.0.2.7",
        "x-forwarded-proto": "https",
        "x-forwarded-host": "example.org",
    }

    def ask(url: str) -> None:
        httpx.get(url, headers=fields)

    (received,) = spans_of(hello, ask, forwarded_allow_ips="127.0.0.1")
    told = received.attributes
    assert told["client.address"] == "192.0.2.7"
    assert told["network.peer.address"] == "127.0.0.1"
    assert (told["url.scheme"], told["server.address"]) == ("https", "example.org")
    assert told["server.port"] == 443
    (received,) = spans_of(hello, ask)
    assert received.attributes["client.address"] == "127.0.0.1"
    assert received.attributes["url.scheme"] == "http"


def status_app() -> FastAPI:
    app = FastAPI()

    @app.api_route("/status/{code}", methods=["GET", "PURGE"])
    def status(code: int) -> Any:
        from fastapi import Response

        return Response(status_code=code)

    @app.get("/fail")
    async def fail() -> None:
        raise LookupError("nothing of that name")

    return app


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_status_of_spans(spans_of: Callable[..., list[Received]]) -> None:
    def ask(url: str) -> None:
        for path in ("/status/204", "/status/404", "/nowhere", "/status/503", "/fail"):
            httpx.get(url + path)
        httpx.request("PURGE", f"{url}/status/200")
        httpx.request("BREW", f"{url}/status/200")

    spans = spans_of(status_app(), ask)
    told = [
        (
            one.span.name,
            one.attributes["http.response.status_code"],
            one.span.status.code,
            one.attributes.get("error.type"),
        )
        for one in spans
    ]
    assert told == [
        ("GET /status/{code}", 204, UNSET, None),
        ("GET /status/{code}", 404, UNSET, None),
        ("GET", 404, UNSET, None),
        ("GET /status/{code}", 503, ERROR, "503"),
        ("GET /fail", 500, ERROR, "500"),
        ("HTTP /status/{code}", 200, UNSET, None),
        ("HTTP /status/{code}", 405, UNSET, None),
    ]
    assert spans[5].attributes["http.request.method"] == "_OTHER"
    assert spans[5].attributes["http.request.method_original"] == "PURGE"
    assert "http.request.method_original" not in spans[0].attributes
    failed = spans[4].span
    assert failed.status.message == "LookupError: nothing of that name"
    (event,) = failed.events
    said = {pair.key: pair.value.string_value for pair in event.attributes}
    assert event.name == "exception"
    assert (said["exception.type"], said["exception.message"]) == (
        "LookupError",
        "nothing of that name",
    )
    assert "raise LookupError" in said["exception.stacktrace"]


def test_routes_of_frameworks(spans_of: Callable[..., list[Received]]) -> None:
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Mount, Route

    async def answer(request: Any) -> PlainTextResponse:
        return PlainTextResponse("x")

    inner = FastAPI()

    @inner.get("/things/{thing}")
    async def thing(thing: str) -> None: ...

    router, outer = APIRouter(prefix="/items"), APIRouter(prefix="/v1")

    @router.get("/{item}")
    async def item(item: str) -> None: ...

    app = FastAPI()
    outer.include_router(router)
    app.include_router(outer, prefix="/api")
    app.mount("/fixed", inner)
    app.mount("/of/{user}", inner)
    app.mount("/star", Starlette(routes=[Mount("/a", routes=[Route("/b/{c:int}", answer)])]))

    def ask(url: str) -> None:
        for path in ("/api/v1/items/7", "/fixed/things/7", "/of/me/things/7", "/star/a/b/7"):
            httpx.get(url + path).raise_for_status()

    names = [one.span.name for one in spans_of(app, ask)]
    # Of a mount with a parameter nobody knows the whole pattern, and part of it would be another.
    assert names == [
        "GET /api/v1/items/{item}",
        "GET /fixed/things/{thing}",
        "GET",
        "GET /star/a/b/{c:int}",
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_routes_of_litestar(spans_of: Callable[..., list[Received]]) -> None:
    from litestar import Litestar, get

    @get("/items/{item:int}")
    async def item(item: int) -> dict[str, int]:
        return {"item": item}

    def ask(url: str) -> None:
        httpx.get(f"{url}/items/7").raise_for_status()

    (received,) = spans_of(Litestar([item]), ask)
    assert received.attributes["http.route"] == "/items/{item}"


def test_what_handlers_say_of_the_current_span(spans_of: Callable[..., list[Received]]) -> None:
    """In coroutines and in threads; after the end nobody listens."""
    app = FastAPI()
    late = threading.Event()

    def say(**attributes: Any) -> None:
        trace.get_current_span().set_attributes(attributes)

    @app.get("/coroutine")
    async def coroutine() -> None:
        span = trace.get_current_span()
        assert span.is_recording()
        say(text="a", number=1, real=0.5, yes=True, many=["x", "y"], huge=2**70, nothing=None)
        span.set_attribute("text", "b")
        span.add_event("happened", {"at": "once"}, 1_700_000_000_000_000_000)
        span.update_name("renamed")
        other = trace.SpanContext(5, 6, is_remote=True, trace_flags=trace.TraceFlags(1))
        span.add_link(other, {"why": "test"})
        span.set_status(trace.StatusCode.ERROR, "did not like it")
        try:
            raise ValueError("wrong")
        except ValueError as error:
            span.record_exception(error)
        span.end()

    @app.get("/thread")
    def thread() -> None:
        say(thread=threading.current_thread().name)
        trace.get_current_span().set_status(trace.Status(trace.StatusCode.OK))

    @app.get("/late")
    async def too_late() -> StreamingResponse:
        span = trace.get_current_span()

        async def after() -> None:
            while span.is_recording():
                await asyncio.sleep(0.005)
            span.set_attribute("late", True)
            late.set()

        from starlette.background import BackgroundTask

        return StreamingResponse(iter([b"x"]), background=BackgroundTask(after))

    def ask(url: str) -> None:
        for path in ("/coroutine", "/thread", "/late"):
            httpx.get(url + path).raise_for_status()
        assert late.wait(60)

    first, second, third = spans_of(app, ask)
    told = first.attributes
    assert {name: told[name] for name in ("text", "number", "real", "yes", "many")} == {
        "text": "b",
        "number": 1,
        "real": 0.5,
        "yes": True,
        "many": ["x", "y"],
    }
    assert told["huge"] == str(2**70)
    assert "nothing" not in told
    assert first.span.name == "renamed"
    assert first.span.status.code == ERROR
    assert first.span.status.message == "did not like it"
    assert [event.name for event in first.span.events] == ["happened", "exception"]
    assert first.span.events[0].time_unix_nano == 1_700_000_000_000_000_000
    (link,) = first.span.links
    assert (link.trace_id, link.span_id) == ((5).to_bytes(16), (6).to_bytes(8))
    assert second.attributes["thread"] != threading.main_thread().name
    assert second.span.status.code == OK
    assert "late" not in third.attributes


def test_baggage_comes_along(spans_of: Callable[..., list[Received]]) -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            seen.append(dict(baggage.get_all()))
        await hello(scope, receive, send)

    def ask(url: str) -> None:
        httpx.get(url, headers={"baggage": "user=7,tier=gold%20one"})
        httpx.get(url)

    spans_of(app, ask)
    assert seen == [{"user": "7", "tier": "gold one"}, {}]


NOT_SAMPLED = f"00-{TRACE}-{CALLER}-00"
LOW, HIGH = f"00-{'0' * 31}1-{CALLER}-00", f"00-{'f' * 32}-{CALLER}-01"


@pytest.mark.parametrize(
    ("sampler", "argument", "sent"),
    [
        ("parentbased_always_on", "", {"": True, PARENT: True, NOT_SAMPLED: False}),
        ("", "", {"": True, NOT_SAMPLED: False}),
        ("parentbased_always_off", "", {"": False, PARENT: True, NOT_SAMPLED: False}),
        ("always_on", "", {"": True, NOT_SAMPLED: True}),
        ("always_off", "", {"": False, PARENT: False}),
        ("traceidratio", "0.5", {LOW: True, HIGH: False}),
        ("traceidratio", "0", {"": False, LOW: False}),
        ("parentbased_traceidratio", "0.5", {LOW: False, HIGH: True}),
    ],
)
def test_sampling(
    spans_of: Callable[..., list[Received]], sampler: str, argument: str, sent: dict[str, bool]
) -> None:
    """Who is recorded; who is not still belongs to the trace."""
    seen: list[tuple[bool, bool]] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            span = trace.get_current_span()
            told = scope["extensions"]["framegate.trace"]
            context = span.get_span_context()
            assert told == {
                "trace_id": f"{context.trace_id:032x}",
                "span_id": f"{context.span_id:016x}",
                "sampled": context.trace_flags.sampled,
            }
            seen.append((context.trace_flags.sampled, span.is_recording()))
        await hello(scope, receive, send)

    def ask(url: str) -> None:
        for parent in sent:
            httpx.get(url, headers={"traceparent": parent} if parent else {})

    environment = {"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": argument}
    spans = spans_of(app, ask, environment=environment)
    assert seen == [(sampled, sampled) for sampled in sent.values()]
    assert len(spans) == sum(sent.values())


def test_extension_without_the_package(
    spans_of: Callable[..., list[Received]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    seen: list[Any] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            seen.append(scope["extensions"]["framegate.trace"])
        await hello(scope, receive, send)

    (received,) = spans_of(app, lambda url: httpx.get(url, headers={"traceparent": PARENT}))
    assert seen[0]["trace_id"] == TRACE
    assert seen[0]["span_id"] == hex_of(received.span.span_id)


def test_websocket_is_its_handshake(spans_of: Callable[..., list[Received]]) -> None:
    app = FastAPI()

    @app.websocket("/chat/{room}")
    async def chat(socket: WebSocket, room: str) -> None:
        trace.get_current_span().set_attribute("room", room)
        await socket.accept()
        await socket.send_text(f"{trace.get_current_span().get_span_context().span_id:016x}")
        await socket.receive_text()

    def ask(url: str) -> None:
        with connect(f"{url.replace('http', 'ws')}/chat/7") as peer:
            seen.append(peer.recv())
            peer.send("x")

    seen: list[Any] = []
    (received,) = spans_of(app, ask)
    assert received.attributes["http.response.status_code"] == 101
    assert received.attributes["room"] == "7"
    assert received.span.name == "GET /chat/{room}"
    assert seen == [hex_of(received.span.span_id)]
    assert received.span.status.code == UNSET


@pytest.mark.parametrize("kind", ["text/event-stream", "multipart/x-mixed-replace; boundary=x"])
def test_stream_lasts_until_it_begins(spans_of: Callable[..., list[Received]], kind: str) -> None:
    """Its end is its reader's doing, and no failure."""
    began = threading.Event()

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        headers = [(b"content-type", kind.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})
        await receive()
        while (await receive())["type"] != "http.disconnect":
            pass

    def ask(url: str) -> None:
        with httpx.stream("GET", url) as response:
            next(response.iter_raw())
            began.wait(0.3)

    (received,) = spans_of(app, ask)
    span = received.span
    assert span.end_time_unix_nano - span.start_time_unix_nano < 300_000_000
    assert span.status.code == UNSET
    assert "error.type" not in received.attributes
    # How long it was read is told beside it, in seconds.
    assert 0.3 <= received.attributes["framegate.stream.duration"] < 600


def test_client_that_leaves_is_an_error(spans_of: Callable[..., list[Received]]) -> None:
    async def app(scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await receive()
            await receive()

    def ask(url: str) -> None:
        with httpx.stream("GET", url) as response:
            next(response.iter_raw())

    (received,) = spans_of(app, ask)
    assert received.attributes["error.type"] == "aborted"
    assert received.span.status.code == ERROR


def test_what_the_application_never_sees(
    spans_of: Callable[..., list[Received]], tmp_path: Path
) -> None:
    """Static files and refused requests are served, too."""
    (tmp_path / "a.txt").write_text("a")

    def ask(url: str) -> None:
        assert httpx.get(f"{url}/static/a.txt").status_code == 200
        connection = http.client.HTTPConnection(url.removeprefix("http://"))
        connection.putrequest("GET", "/", skip_host=True)
        connection.putheader("traceparent", PARENT)
        connection.endheaders()
        assert connection.getresponse().status == 400
        connection.close()

    served, refused = spans_of(hello, ask, static={"/static": str(tmp_path)})
    assert served.attributes["http.response.status_code"] == 200
    assert refused.attributes["http.response.status_code"] == 400
    assert hex_of(refused.span.parent_span_id) == CALLER


def native_threads() -> list[str]:
    return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]


@pytest.mark.parametrize("off", [{"otel": False}, {"otel": True}])
def test_nothing_exists_while_it_is_off(
    spans_of: Callable[..., list[Received]], off: dict[str, bool]
) -> None:
    """Off by the option, or by OpenTelemetry's own variable."""
    seen: list[Any] = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            extensions = sorted(scope["extensions"])
            seen.append((extensions, trace.get_current_span(), native_threads()))
        await hello(scope, receive, send)

    def ask(url: str) -> None:
        httpx.get(url, headers={"traceparent": PARENT})

    environment = {"OTEL_SDK_DISABLED": "true"} if off["otel"] else {}
    assert spans_of(app, ask, environment=environment, **off) == []
    ((extensions, span, threads),) = seen
    assert "framegate.trace" not in extensions
    assert span is trace.INVALID_SPAN
    assert "framegate-otlp" not in threads


def test_no_traces_but_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    with http_receiver() as receiver:
        environment = receiver.environment(OTEL_TRACES_EXPORTER="none")
        with serving(hello, monkeypatch, environment) as url:
            httpx.get(url)
        assert receiver.spans == []
        assert receiver.points("http.server.request.duration")


def test_one_receiver_for_each_kind(monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> None:
    """Spans and metrics may go to different places."""
    with http_receiver() as other:
        environment = receiver.environment(
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"{other.endpoint}/v1/metrics",
            OTEL_EXPORTER_OTLP_METRICS_PROTOCOL="http/protobuf",
        )
        with serving(hello, monkeypatch, environment) as url:
            httpx.get(url)
        assert len(receiver.spans) == 1
        assert not receiver.metrics
        assert other.points("http.server.request.duration")
