"""What the application is told about a request."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from apps import respond, scope_as_json
from peers.h11_client import Client
from peers.raw import head, read_all

EXTENSIONS = [
    "framegate.topics",
    "http.response.early_hint",
    "http.response.pathsend",
    "http.response.trailers",
    "http.response.zerocopysend",
]


def scope_of(server: Any, request: bytes) -> dict[str, Any]:
    with server.connect() as client:
        client.sendall(request)
        return read_json(client)


def read_json(client: Any) -> dict[str, Any]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += client.recv(65536)
    top, _, body = data.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1])
        for line in top.lower().split(b"\r\n")
        if line.startswith(b"content-length")
    )
    while len(body) < length:
        body += client.recv(65536)
    result: dict[str, Any] = json.loads(body)
    return result


@pytest.fixture
def server(serve: Any) -> Any:
    return serve(scope_as_json, lifespan="off")


def test_the_whole_scope_of_a_request(server: Any) -> None:
    with server.connect() as client:
        fields = ("User-Agent: probe/1", "X-Twice: a", "Accept: */*", "x-twice: b")
        client.sendall(head("GET", "/a%20b/c?q=1&r=%20", *fields))
        scope = read_json(client)
        port = client.getsockname()[1]
    assert scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.5"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/a b/c",
        "raw_path": "/a%20b/c",
        "query_string": "q=1&r=%20",
        "root_path": "",
        "headers": [
            ["host", "example"],
            ["user-agent", "probe/1"],
            ["x-twice", "a"],
            ["x-twice", "b"],
            ["accept", "*/*"],
        ],
        "client": ["127.0.0.1", port],
        "server": ["127.0.0.1", server.port],
        "extensions": {
            "http.response.early_hint": {},
            "http.response.pathsend": {},
            "http.response.trailers": {},
            "http.response.zerocopysend": {},
            "framegate.topics": {},
        },
    }


def test_ports_are_integers_and_keys_have_the_types_of_the_specification(serve: Any) -> None:
    seen: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        await respond(send)

    server = serve(app, lifespan="off")
    with server.connect() as client:
        client.sendall(head("GET", "/x", "connection: close"))
        read_all(client)
    scope = seen[0]
    assert type(scope) is dict
    assert type(scope["headers"]) is list
    assert all(
        type(pair) is tuple and [type(part) for part in pair] == [bytes, bytes]
        for pair in scope["headers"]
    )
    assert type(scope["path"]) is str and type(scope["raw_path"]) is bytes
    assert type(scope["query_string"]) is bytes
    assert type(scope["client"][1]) is int and type(scope["server"][1]) is int


def test_http_1_0_is_named_so(server: Any) -> None:
    assert scope_of(server, head("GET", "/", version="1.0"))["http_version"] == "1.0"


@pytest.mark.parametrize(
    "method", ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "X-OTHER"]
)
def test_methods(server: Any, method: str) -> None:
    assert scope_of(server, head(method, "/", "content-length: 0"))["method"] == method


@pytest.mark.parametrize(
    ("target", "path", "raw_path", "query"),
    [
        ("/", "/", "/", ""),
        ("/?", "/", "/", ""),
        ("/?a?b", "/", "/", "a?b"),
        ("/%2Fetc//x/../y", "//etc//x/../y", "/%2Fetc//x/../y", ""),
        ("/caf%C3%A9", "/café", "/caf%C3%A9", ""),
        # Not UTF-8: the replacement character, as in every other ASGI server; raw_path is exact.
        ("/%ff", "/\ufffd", "/%ff", ""),
        ("/%zz%4", "/%zz%4", "/%zz%4", ""),
        ("/a+b", "/a+b", "/a+b", ""),
        ("http://example/abs?x=1", "/abs", "/abs", "x=1"),
        ("http://example", "/", "/", ""),
    ],
)
def test_paths(server: Any, target: str, path: str, raw_path: str, query: str) -> None:
    scope = scope_of(server, head("GET", target))
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == (path, raw_path, query)


def test_options_of_the_server_itself(server: Any) -> None:
    assert scope_of(server, head("OPTIONS", "*"))["path"] == "*"


def test_root_path_is_put_before_the_path_and_not_before_raw_path(serve: Any) -> None:
    server = serve(scope_as_json, lifespan="off", root_path="/api")
    scope = scope_of(server, head("GET", "/items%20/1"))
    assert scope["root_path"] == "/api"
    assert scope["path"] == "/api/items /1"
    assert scope["raw_path"] == "/items%20/1"


def test_a_unix_socket_has_a_path_as_server_and_no_client(serve: Any) -> None:
    server = serve(scope_as_json, lifespan="off", uds=True)
    scope = scope_of(server, head("GET", "/"))
    assert scope["server"] == [server.uds, None]
    assert scope["client"] is None


def test_scopes_share_nothing_that_can_be_changed(serve: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            scope["state"]["kept"] = ["object"]
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        seen = json.dumps(
            [
                sorted(scope["state"]),
                scope["state"]["kept"],
                len(scope["headers"]),
                sorted(scope["extensions"]),
                "added" in scope,
            ]
        )
        scope["added"] = 1
        scope["state"]["mine"] = 1
        scope["state"]["kept"].append("seen")
        scope["headers"].append((b"x", b"y"))
        scope["extensions"]["mine"] = {}
        await respond(send, seen.encode())

    server = serve(app, lifespan="on")
    with Client(server.connect()) as client:
        first, second = (json.loads(client.request("GET").body) for _ in range(2))
    extensions = EXTENSIONS
    assert first == [["kept"], ["object"], 1, extensions, False]
    # A shallow copy: the objects that startup made are shared, the dictionary is not.
    assert second == [["kept"], ["object", "seen"], 1, extensions, False]


def test_what_is_lent_to_equal_requests_is_never_shared(serve: Any) -> None:
    """Equal requests get the same objects, but only untouched ones that nobody kept."""
    kept: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        lent = (scope["headers"], scope["state"], scope["extensions"])
        seen = [lent[0] == [(b"host", b"example")], *(sorted(each) for each in lent[1:])]
        seen.append(
            any(mine is theirs for other in kept for mine, theirs in zip(lent, other, strict=True))
        )
        number = len(scope["path"])
        if number == 3:  # changed in place, and let go
            scope["headers"].append((b"x", b"y"))
            scope["state"]["mine"] = 1
            scope["extensions"]["mine"] = {}
        elif number == 4:  # replaced in place by something of equal length
            scope["headers"][0] = (b"x", b"y")
        elif number == 5:
            kept.append(lent)
        del lent
        await respond(send, json.dumps(seen).encode())

    server = serve(app, lifespan="on")
    with Client(server.connect()) as client:
        for path in (
            "/",
            "/",
            "/",
            "/33",
            "/",
            "/",
            "/",
            "/444",
            "/",
            "/",
            "/",
            "/5555",
            "/",
            "/",
            "/",
        ):
            seen = json.loads(client.request("GET", path).body)
            assert seen == [True, [], EXTENSIONS, False], path
    headers, state, extensions = kept[0]
    assert headers == [(b"host", b"example")]
    assert (state, sorted(extensions)) == ({}, EXTENSIONS)


def test_headers_that_repeat_on_a_connection_are_those_of_this_request(server: Any) -> None:
    with Client(server.connect()) as client:
        for fields in (
            [("accept", "a"), ("x-one", "1")],
            [("accept", "a"), ("x-one", "2")],
            [("x-one", "2"), ("accept", "a")],
            [("accept", "a")],
            [("accept", "a"), ("x-one", "1"), ("x-two", "2")],
        ):
            scope = json.loads(client.request("GET", headers=fields).body)
            assert scope["headers"] == [["host", "example"], *map(list, fields)]


def test_long_names_and_values_arrive(server: Any) -> None:
    fields = [("x-" + "n" * 200, "v" * 5000), ("x-b", "\x80\xff")]
    with server.connect() as client:
        client.sendall(head("GET", "/" + "p" * 2000, *(f"{k}: {v}" for k, v in fields)))
        scope = read_json(client)
    assert scope["headers"][1:] == [list(pair) for pair in fields]
    assert scope["path"] == "/" + "p" * 2000


def test_many_paths_do_not_mix(server: Any) -> None:
    with Client(server.connect()) as client:
        for number in [*range(600), *range(600)]:
            scope = json.loads(client.request("GET", f"/item/{number}").body)
            assert scope["path"] == f"/item/{number}" == scope["raw_path"]


def test_pipelined_requests_are_answered_in_order(serve: Any) -> None:
    delays = {"/first": 0.03, "/second": 0.01, "/third": 0}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        # The earlier ones take longer.
        await asyncio.sleep(delays[scope["path"]])
        await respond(send, scope["path"].encode())

    server = serve(app, lifespan="off")
    with server.connect() as client:
        client.sendall(
            head("GET", "/first")
            + head("GET", "/second")
            + head("GET", "/third", "connection: close")
        )
        data = read_all(client)
    places = [data.index(path.encode()) for path in delays]
    assert places == sorted(places)
    assert data.count(b"200 OK") == 3
