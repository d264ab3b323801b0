"""Middleware from the configuration: order, scopes, options, and what is said when it is wrong."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.sync.client import connect

from framegate import Config, ConfigError, RunningServer, Server
from framegate.errors import AppImportError, describe
from framegate.importer import load_application
from server_process import Launch

HERE = Path(__file__).parent
MODULE = "middleware_modules"
NOTE = f"{MODULE}:Note"
CORS = "starlette.middleware.cors:CORSMiddleware"
GZIP = "starlette.middleware.gzip:GZipMiddleware"
ORIGIN = "https://example.org"


async def page(request: Request) -> PlainTextResponse:
    return PlainTextResponse("x" * 5000)


async def state(request: Request) -> PlainTextResponse:
    return PlainTextResponse(json.dumps(sorted(request.scope["state"])))


async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(await websocket.receive_text())
    await websocket.close()


app = Starlette(routes=[Route("/", page), Route("/state", state), WebSocketRoute("/echo", echo)])


@contextmanager
def serving(*middleware: Any, application: Any = app) -> Iterator[RunningServer]:
    options = {"port": 0, "access_log": False, "app_dir": str(HERE)}
    with Server(application, middleware=middleware, **options).start_in_thread() as server:
        yield server


@pytest.mark.parametrize(
    "middleware",
    [
        (CORS, {"allow_origins": [ORIGIN]}, GZIP, {"minimum_size": 100}),
        ([CORS, {"allow_origins": [ORIGIN]}], [GZIP]),
        ((CORSMiddleware, {"allow_origins": [ORIGIN]}), GZipMiddleware),
        (Middleware(CORSMiddleware, allow_origins=[ORIGIN]), Middleware(GZipMiddleware)),
    ],
    ids=["flat", "pairs", "classes", "starlette"],
)
def test_starlettes_middleware_does_its_work(middleware: Any) -> None:
    with serving(*middleware) as server:
        response = httpx.get(server.urls[0], headers={"origin": ORIGIN, "accept-encoding": "gzip"})
        assert response.text == "x" * 5000
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert response.headers["content-encoding"] == "gzip"
        assert response.headers["vary"] == "Accept-Encoding, Origin"
        preflight = httpx.options(
            server.urls[0], headers={"origin": ORIGIN, "access-control-request-method": "GET"}
        )
        assert preflight.status_code == 200
        assert "GET" in preflight.headers["access-control-allow-methods"]


def test_first_is_outermost() -> None:
    # The inner one appends its header first.
    with serving(NOTE, {"name": "outer"}, f"{MODULE}:function", NOTE, {"name": "inner"}) as server:
        response = httpx.get(server.urls[0])
        assert response.headers.get_list("x-note") == ["inner", "function", "outer"]


def test_sees_lifespan_websocket_and_worker_scopes() -> None:
    with serving(NOTE) as server:
        names = httpx.get(f"{server.urls[0]}/state").json()
        assert names == ["note:framegate.worker", "note:lifespan"]
        with connect(server.urls[0].replace("http", "ws") + "/echo") as client:
            assert client.response is not None
            assert client.response.headers["x-note"] == "note"
            client.send("hello")
            assert client.recv(60) == "hello"


def test_none_is_no_change() -> None:
    async def bare(scope: Any, receive: Any, send: Any) -> None: ...

    assert load_application(Config(app=bare)) is bare


def test_run_takes_classes_and_the_command_line_replaces_them() -> None:
    options = {"middleware": [GZipMiddleware, {"minimum_size": 1}]}
    given = Config.load(options, environment={}, search=False)  # as framegate.run does
    assert given.middleware == ((GZipMiddleware, {"minimum_size": 1}),)
    words = {"middleware": ['a:B {"c": 1}', "d:E"]}
    given = Config.load(options, command_line=words, environment={}, search=False)
    assert given.middleware == (("a:B", {"c": 1}), ("d:E", {}))


class TestCommandLineAndFile:
    def test_command_line_gives_options_as_json(self, launch: Launch) -> None:
        words = [
            f"--middleware={CORS} " + json.dumps({"allow_origins": [ORIGIN]}),
            f"--middleware={GZIP}",
        ]
        server = launch("supervised_apps:app", *words, "--workers", "2").wait_ready()
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as peer:
            peer.sendall(
                f"GET /pid HTTP/1.1\r\nhost: x\r\norigin: {ORIGIN}\r\n"
                "connection: close\r\n\r\n".encode()
            )
            received = b""
            while chunk := peer.recv(65536):
                received += chunk
        assert f"access-control-allow-origin: {ORIGIN}".encode() in received
        assert server.stop() == 0

    @pytest.mark.parametrize(
        "text",
        [
            'middleware = ["a:B", { c = [1] }, "d:E"]',
            'middleware = [["a:B", { c = [1] }], ["d:E"]]',
            'middleware = """\na:B {"c": [1]}\nd:E\n"""',
        ],
    )
    def test_file_gives_them_as_tables(self, tmp_path: Path, text: str) -> None:
        file = tmp_path / "framegate.toml"
        file.write_text(text)
        config = Config.load(file=file, environment={})
        assert config.middleware == (("a:B", {"c": [1]}), ("d:E", {}))
        assert Config.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("middleware", "message"),
    [
        (["a.B"], '"a.B" is no module:Factory'),
        ([{"c": 1}], "a table of options follows the string that it belongs to"),
        (["a:B", {"c": 1}, {"d": 1}], "a table of options follows"),
        ([["a:B", {"c": 1}, 3]], "is no middleware; expected module:Factory"),
        ([3], "3 is no middleware"),
        (["a:B [1]"], "options [1]: expected a JSON object"),
        (["a:B {"], "options {: are no JSON"),
        (["a:B", {"not a name": 1}], "'not a name' is no name of an option"),
        ({"a:B": {}}, "expected module:Factory"),
        ([Middleware(GZipMiddleware, 5)], "options by name, not by position"),
    ],
)
def test_wrong_value_is_a_configuration_error(middleware: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config(middleware=middleware)
    assert message in str(caught.value)


def test_several_workers_need_what_crosses_to_a_process() -> None:
    with pytest.raises(ConfigError, match=r'strings such as "module:Factory"'):
        Config(app="a:b", workers=2, middleware=[GZipMiddleware])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"as JSON: Object of type set"):
        Config(app="a:b", workers=2, middleware=["a:B", {"c": {1}}])  # type: ignore[arg-type]
    assert Config(app="a:b", middleware=[GZipMiddleware, {"c": {1}}])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("middleware", "lines"),
    [
        (["nowhere:X"], ['middleware 1: no module "nowhere"', "looked in", "pass --app-dir"]),
        (
            [NOTE, f"{MODULE}:Not"],
            ['middleware 2: "middleware_modules" has no attribute "Not"', "imported", "mean Note?"],
        ),
        (
            [NOTE, {"nmae": "x"}],
            [
                f'middleware 1, "{NOTE}", cannot be called with the application and options nmae',
                "unexpected keyword argument",
                "did you mean name?",
            ],
        ),
        (
            [f"{MODULE}:function", {"x": 1}],
            ["cannot be called with the application and options x", "unexpected", "no options"],
        ),
        (
            [f"{MODULE}:coroutine"],
            ["is a coroutine function", "returned a coroutine", "a class or a plain function"],
        ),
        ([f"{MODULE}:NUMBER"], ["is not callable: it is a int", "name the class"]),
        ([f"{MODULE}:function()"], ["called by the server", f'write "{MODULE}:function"']),
        ([f"{MODULE}:returns_nothing"], ["returned no application but a NoneType", "has to"]),
    ],
)
def test_factory_that_does_not_fit_is_explained(middleware: Any, lines: list[str]) -> None:
    async def bare(scope: Any, receive: Any, send: Any) -> None: ...

    with pytest.raises(AppImportError) as caught:
        load_application(Config(app=bare, middleware=middleware, app_dir=str(HERE)))
    shown = describe(caught.value).splitlines()
    assert shown.pop().startswith("  more: platform docs FG-START-")
    assert len(shown) == len(lines)
    for line, part in zip(shown, lines, strict=True):
        assert part in line


def test_bug_in_a_factory_keeps_its_traceback() -> None:
    async def bare(scope: Any, receive: Any, send: Any) -> None: ...

    with pytest.raises(AppImportError) as caught:
        load_application(Config(app=bare, middleware=[f"{MODULE}:broken"], app_dir=str(HERE)))  # type: ignore[arg-type]
    shown = describe(caught.value)
    assert f'middleware 1, "{MODULE}:broken", failed: LookupError: no such thing' in shown
    assert "in broken" in shown
