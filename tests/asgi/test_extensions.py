"""The ASGI extensions of HTTP responses: early hints, trailers, files."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h11
import pytest

from apps import respond
from conformance import application as suite
from conformance.peer import Peer
from conformance.process import FRAMEGATE, Running
from conformance.registry import CASES
from peers.h11_client import Client
from peers.raw import head, read_all, read_head

assert suite.app  # has registered the cases
MIB = 2**20
#: Above what is read at once, so that the kernel sends it.
LARGE = bytes(range(251)) * 4000


def start(**keys: Any) -> dict[str, Any]:
    return {"type": "http.response.start", "status": 200, **keys}


def body(data: bytes = b"", more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def application(*messages: dict[str, Any]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await send(message)

    return app


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    path.write_bytes(LARGE)
    return path


def get(server: Any, method: str = "GET", *fields: str, version: str = "1.1") -> bytes:
    with server.connect() as client:
        client.sendall(head(method, "/", "connection: close", *fields, version=version))
        return read_all(client)


# --- what is offered


async def offered(scope: Any, receive: Any, send: Any) -> None:
    await respond(send, json.dumps(scope["extensions"]).encode())


def test_http_1_1_is_offered_all_of_them(serve: Any) -> None:
    with Client(serve(offered, lifespan="off").connect()) as client:
        assert json.loads(client.request("GET").body) == {
            "http.response.early_hint": {},
            "http.response.trailers": {},
            "http.response.pathsend": {},
            "http.response.zerocopysend": {},
            "framegate.topics": {},
        }


def test_http_1_0_is_offered_what_it_can_have(serve: Any) -> None:
    server = serve(offered, lifespan="off")
    with server.connect() as client:
        keep = "connection: keep-alive"
        for version, count in (("1.0", 3), ("1.1", 5), ("1.0", 3)):
            client.sendall(head("GET", "/", keep, version=version))
            length = int(read_head(client).lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            data = b""
            while len(data) < length:
                data += client.recv(length - len(data))
            assert len(json.loads(data)) == count


@pytest.mark.parametrize("change", ["add", "remove", "replace", "mutate", "keep"])
def test_what_one_request_does_to_them_no_other_sees(serve: Any, change: str) -> None:
    kept: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        extensions = scope["extensions"]
        seen = json.dumps(extensions, sort_keys=True)
        if change == "add":
            extensions["mine"] = {}
        elif change == "remove":
            del extensions["http.response.trailers"]
        elif change == "replace":
            extensions["http.response.trailers"] = {}
        elif change == "mutate":
            extensions["http.response.trailers"]["mine"] = 1
        else:
            kept.append(extensions["http.response.trailers"])
        await respond(send, seen.encode())

    with Client(serve(app, lifespan="off").connect()) as client:
        seen = {client.request("GET").body for _ in range(4)}
    assert len(seen) == 1
    assert len({id(value) for value in kept}) == len(kept)


# --- early hints


def test_an_early_hint_may_come_until_the_end_of_the_body(serve: Any) -> None:
    """Once the head has left it is ignored; after the end it is an error like everything."""
    hint = {"type": "http.response.early_hint", "links": [b"</a>"]}
    late: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        await send(hint)
        await send(body(b"x", True))
        await send(hint)
        await send(body())
        try:
            await send(hint)
        except RuntimeError as error:
            late.append(str(error))

    with Client(serve(app, lifespan="off").connect()) as client:
        for method in ("GET", "HEAD"):
            response = client.request(method)
            assert [status for status, _ in response.informational] == [103]
    assert len(late) == 2


@pytest.mark.parametrize("links", [[], None, ()])
def test_a_hint_without_links_is_not_sent(serve: Any, links: Any) -> None:
    app = application(
        {"type": "http.response.early_hint", "links": links},
        {"type": "http.response.early_hint"},
        start(),
        body(b"x"),
    )
    with Client(serve(app, lifespan="off").connect()) as client:
        response = client.request("GET")
    assert (response.informational, response.body) == ([], b"x")


def test_a_bad_link_is_an_error_that_names_the_field(serve: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(ValueError, match=r"header link: .* control character"):
            await send({"type": "http.response.early_hint", "links": [b"</a>\r\nx: y"]})
        await respond(send)

    with Client(serve(app, lifespan="off").connect()) as client:
        assert client.request("GET").body == b"ok"


# --- trailers

TRAILERS = {"type": "http.response.trailers", "headers": [(b"x-sum", b"7")]}
NAMED = [(b"trailer", b"x-sum, x-more")]


@pytest.mark.parametrize(
    "bodies",
    [[body(b"abc")], [body(b"a", True), body(b"bc")], [body(b"abc", True), body()]],
    ids=["whole", "streamed", "empty last"],
)
def test_trailers_follow_the_body(serve: Any, bodies: Any) -> None:
    app = application(
        start(headers=NAMED, trailers=True),
        *bodies,
        {**TRAILERS, "more_trailers": True},
        {"type": "http.response.trailers", "headers": [(b"x-more", b"8")]},
    )
    server = serve(app, lifespan="off")
    data = get(server, "GET", "te: trailers")
    assert data.endswith(b"\r\n0\r\nx-sum: 7\r\nx-more: 8\r\n\r\n")
    with Client(server.connect()) as client:
        for _ in range(2):
            assert client.request("GET", headers=[("te", "gzip, Trailers")]).body == b"abc"


def test_trailers_of_an_empty_body(serve: Any) -> None:
    app = application(start(headers=NAMED, trailers=True), body(), TRAILERS)
    data = get(serve(app, lifespan="off"), "GET", "te: trailers")
    assert data.endswith(b"\r\n\r\n0\r\nx-sum: 7\r\n\r\n")


def test_trailers_are_dropped_for_clients_that_do_not_take_them(serve: Any) -> None:
    app = application(
        start(headers=NAMED, trailers=True),
        body(b"abc"),
        {**TRAILERS, "more_trailers": True},
        TRAILERS,
    )
    server = serve(app, lifespan="off")
    for fields, version in (((), "1.1"), (("te: deflate",), "1.1"), (("te: trailers",), "1.0")):
        data = get(server, "GET", *fields, version=version)
        assert data.startswith(b"HTTP/1.") and b" 200 " in data.partition(b"\r\n")[0]
        assert b"x-sum: 7" not in data and b"abc" in data
    with Client(server.connect()) as client:
        assert client.request("HEAD", headers=[("te", "trailers")]).status == 200
        response = client.request("GET")
        assert response.body == b"abc"
        # Nothing follows, so the length is known.
        assert response.header("content-length") == b"3"


def test_the_response_waits_for_its_trailers(serve: Any) -> None:
    go_on = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(headers=NAMED, trailers=True))
        await send(body(b"abc"))
        await go_on.wait()
        await send(TRAILERS)

    server = serve(app, lifespan="off")
    with server.connect() as client:
        client.sendall(head("GET", "/", "te: trailers", "connection: close"))
        read_head(client)
        assert client.recv(8) == b"3\r\nabc\r\n"
        server.loop.call_soon_threadsafe(go_on.set)
        assert read_all(client) == b"0\r\nx-sum: 7\r\n\r\n"


def test_a_response_without_its_trailers_is_cut_and_logged(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app = application(start(headers=NAMED, trailers=True), body(b"abc"))
    data = get(serve(app, lifespan="off"), "GET", "te: trailers")
    assert b"abc" in data and not data.endswith(b"0\r\n\r\n")
    assert "without completing its response" in caplog.text


def test_trailers_in_the_wrong_place_are_errors(serve: Any) -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def wrong(message: dict[str, Any]) -> None:
            with pytest.raises(RuntimeError) as caught:
                await send(message)
            seen.append(str(caught.value).split(": ")[1])

        announced = scope["path"] == "/announced"
        await wrong(TRAILERS)
        await send(start(headers=NAMED, trailers=announced))
        await wrong(TRAILERS)
        await send(body(b"x", True))
        await wrong(TRAILERS)
        await send(body(b"y"))
        if announced:
            await wrong(body(b"z"))
            await send(TRAILERS)
        await wrong(TRAILERS)

    with Client(serve(app, lifespan="off").connect()) as client:
        for path in ("/", "/announced"):
            response = client.request("GET", path, headers=[("te", "trailers")])
            assert response.body == b"xy"
    first, body_first = "http.response.start has to come first", "the last http.response.body"
    not_announced = "http.response.start did not announce trailers"
    assert seen[:4] == [first, *[not_announced] * 3]
    assert seen[4] == first and seen[5].startswith(body_first) and seen[6].startswith(body_first)
    assert seen[7:] == ["http.response.trailers has to come next", not_announced]


@pytest.mark.parametrize(
    ("field", "error"),
    [
        ((b"content-length", b"3"), "the field content-length cannot be a trailer"),
        ((b"Transfer-Encoding", b"chunked"), "the field transfer-encoding cannot be a trailer"),
        ((b"x-sum", b"a\r\nb: c"), "header x-sum: .* control character"),
        ((b"bad name", b"v"), "is not a token"),
    ],
)
def test_bad_trailers_are_errors(serve: Any, field: Any, error: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(headers=NAMED, trailers=True))
        await send(body(b"x"))
        with pytest.raises(ValueError, match=error):
            await send({"type": "http.response.trailers", "headers": [field]})
        await send(TRAILERS)

    server = serve(app, lifespan="off")
    assert get(server, "GET", "te: trailers").endswith(b"0\r\nx-sum: 7\r\n\r\n")


# --- header fields


@pytest.mark.parametrize(
    "value", [b"a\r\nb: c", b"a\nb", b"a\rb", b"a\0b", b"a\r\n", b"\na", b"a\x7f"]
)
def test_control_characters_in_a_field_are_500_and_a_log_line_that_names_it(
    serve: Any, value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    app = application(start(headers=[(b"X-Field", value)]), body(b"x"))
    server = serve(app, lifespan="off")
    with Client(server.connect()) as client:
        for _ in range(2):  # and the connection goes on
            assert client.request("GET").status == 500
    assert len(caplog.records) == 2
    assert "header x-field: value" in str(caplog.records[0].exc_info[1])  # type: ignore[index]


def test_a_field_may_be_any_iterable_of_two(serve: Any) -> None:
    headers = (iter(pair) for pair in ([b"x-a", b"1"], (b"x-b", b"\t 2 \t")))
    app = application(start(headers=headers), body(b"x"))
    with Client(serve(app, lifespan="off").connect()) as client:
        response = client.request("GET")
    assert (response.header("x-a"), response.header("x-b")) == (b"1", b"2")


@pytest.mark.parametrize("pair", [(b"a",), (b"a", b"b", b"c"), b"ab", "ab", 7, None, [b"a"]])
def test_what_is_no_pair_is_an_error(serve: Any, pair: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(TypeError, match="is not a pair of bytes"):
            await send(start(headers=[pair]))
        await respond(send)

    with Client(serve(app, lifespan="off").connect()) as client:
        assert client.request("GET").body == b"ok"


# --- pathsend


def pathsend(path: Any) -> dict[str, Any]:
    return {"type": "http.response.pathsend", "path": path}


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 64 * 1024 + 1, len(LARGE)])
@pytest.mark.parametrize("length", [False, True])
def test_a_path_is_sent(serve: Any, tmp_path: Path, size: int, length: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(LARGE[:size])
    fields = [(b"content-length", str(size).encode())] if length else []
    server = serve(application(start(headers=fields), pathsend(str(path))), lifespan="off")
    with Client(server.connect()) as client:
        for _ in range(2):
            response = client.request("GET")
            assert response.body == LARGE[:size]
            assert response.header("content-length") == str(size).encode()
        response = client.request("HEAD")
        assert (response.body, response.header("content-length")) == (b"", str(size).encode())
    assert get(server, version="1.0").partition(b"\r\n\r\n")[2] == LARGE[:size]


def test_a_path_on_a_unix_socket(serve: Any, large: Path) -> None:
    server = serve(application(start(), pathsend(large)), lifespan="off", uds=True)
    with Client(server.connect()) as client:
        assert client.request("GET").body == LARGE


def test_a_path_is_sent_by_the_kernel(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    traced = f"strace -f -e trace=sendfile,pread64 -o {trace} {FRAMEGATE}"
    server = Running(traced, sys.executable, "conformance.application:app").wait_ready()
    try:
        with Peer("h1", server.port, "pathsend", str(tmp_path)) as peer:
            case = CASES["pathsend"]
            assert case.check is not None
            case.check(peer)
    finally:
        server.close()
    calls = trace.read_text()
    # Also calls that another thread interrupted on paper, but not those that would have blocked.
    sent = [int(bytes_) for bytes_ in re.findall(r"sendfile\b.* = (\d+)$", calls, re.M)]
    # The case asks twice for a file of that size.
    assert sum(sent) == 2 * len(LARGE)
    # Nobody read it.
    assert not [size for size in re.findall(r"pread64.* = (\d+)$", calls, re.M) if int(size) > 9999]


def test_pathsend_with_trailers(serve: Any, large: Path) -> None:
    app = application(start(headers=NAMED, trailers=True), pathsend(str(large)), TRAILERS)
    server = serve(app, lifespan="off")
    assert get(server, "GET", "te: trailers").endswith(b"\r\n0\r\nx-sum: 7\r\n\r\n")
    with Client(server.connect()) as client:
        assert client.request("GET", headers=[("te", "trailers")]).body == LARGE
        assert client.request("GET").body == LARGE


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("missing", FileNotFoundError),
        ("", IsADirectoryError),
        ("pipe", ValueError),
        ("nul\0", ValueError),
        (7, TypeError),
        (None, TypeError),
    ],
)
def test_a_path_that_cannot_be_sent_is_an_error_before_anything_left(
    serve: Any, tmp_path: Path, path: Any, error: type[Exception]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    name = str(tmp_path / path) if isinstance(path, str) else path
    caught: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(headers=[(b"x-a", b"1")]))
        try:
            await send(pathsend(name))
        except Exception as problem:
            caught.append(problem)
            raise

    with Client(serve(app, lifespan="off").connect()) as client:
        response = client.request("GET")
        assert (response.status, response.all("x-a")) == (500, [])
    assert isinstance(caught[0], error)
    if error in (FileNotFoundError, IsADirectoryError):
        assert caught[0].filename == name  # type: ignore[attr-defined]


def test_permission_is_asked_when_it_is_sent(serve: Any, tmp_path: Path) -> None:
    if os.geteuid() == 0:  # who may do everything is not refused: a proc file that is
        path = Path("/proc/1/mem")
        expected: tuple[type[Exception], ...] = (OSError,)
    else:
        path = tmp_path / "secret"
        path.write_bytes(b"x")
        path.chmod(0)
        expected = (PermissionError,)
    caught: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(headers=[(b"content-length", b"5")]))
        try:
            await send(pathsend(str(path)))
        except Exception as problem:
            caught.append(problem)
            raise

    with Client(serve(app, lifespan="off").connect()) as client:
        assert client.request("GET").status == 500
    assert isinstance(caught[0], expected)


def test_a_file_that_grew_is_sent_as_far_as_promised(serve: Any, large: Path) -> None:
    for length in (1000, len(LARGE) - 1):
        fields = [(b"content-length", str(length).encode())]
        server = serve(application(start(headers=fields), pathsend(str(large))), lifespan="off")
        with Client(server.connect()) as client:
            for _ in range(2):
                assert client.request("GET").body == LARGE[:length]


def test_a_file_that_shrank_before_it_is_sent_is_an_error(serve: Any, large: Path) -> None:
    fields = [(b"content-length", str(len(LARGE) + 1).encode())]
    server = serve(application(start(headers=fields), pathsend(str(large))), lifespan="off")
    with Client(server.connect()) as client:
        assert client.request("GET").status == 500
        assert client.request("GET").status == 500


def test_a_file_that_shrinks_while_it_is_sent_cuts_the_response_and_is_logged(
    serve: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(64 * MIB))
    server = serve(application(start(), pathsend(str(path))), lifespan="off")
    with server.connect() as client:
        client.sendall(head("GET", "/"))
        read_head(client)
        os.truncate(path, 100)
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while data := client.recv(MIB):
                received += len(data)
    assert received < 64 * MIB
    # The line is written by a task of the loop.
    for _ in range(1000):
        if caplog.records:
            break
        server.submit(lambda: asyncio.sleep(0.005))
    assert "a file could not be sent to its end" in caplog.text


def test_a_file_that_vanishes_while_it_is_sent_is_sent(serve: Any, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(LARGE * 20)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        await send(pathsend(str(path)))
        path.unlink()

    with Client(serve(app, lifespan="off").connect()) as client:
        assert client.request("GET").body == LARGE * 20


def test_pathsend_is_the_only_body(serve: Any, large: Path) -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def wrong(message: dict[str, Any]) -> None:
            with pytest.raises(RuntimeError) as caught:
                await send(message)
            seen.append(str(caught.value))

        await wrong(pathsend(str(large)))
        await send(start())
        if scope["path"] == "/mixed":
            await send(body(b"x", True))
            await wrong(pathsend(str(large)))
            await send(body())
        else:
            await send(pathsend(str(large)))
            await wrong(pathsend(str(large)))
            await wrong(body(b"x"))

    with Client(serve(app, lifespan="off").connect()) as client:
        assert client.request("GET").body == LARGE
        assert client.request("GET", "/mixed").body == b"x"
    assert len(seen) == 5


def test_a_client_that_leaves_in_the_middle_of_a_file(
    serve: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(64 * MIB))
    server = serve(application(start(), pathsend(str(path))), lifespan="off")
    opened = set(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with server.connect() as client:
            client.sendall(head("GET", "/"))
            read_head(client)
    while server.submit(lambda: server.worker.connections):
        pass
    assert caplog.records == []
    # No descriptor is left behind.
    assert len(set(os.listdir("/proc/self/fd")) - opened) == 0


def test_starlette_sends_its_files_this_way(serve: Any, large: Path) -> None:
    from starlette.responses import FileResponse

    sent: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def spy(message: Any) -> None:
            sent.append(message["type"])
            await send(message)

        await FileResponse(large)(scope, receive, spy)

    with Client(serve(app, lifespan="off").connect()) as client:
        response = client.request("GET")
        assert (response.body, response.header("content-length")) == (
            LARGE,
            str(len(LARGE)).encode(),
        )
        assert sent == ["http.response.start", "http.response.pathsend"]
        partial = client.request("GET", headers=[("range", "bytes=10-99")])
        assert (partial.status, partial.body) == (206, LARGE[10:100])
        assert client.request("HEAD").header("content-length") == str(len(LARGE)).encode()


# --- zerocopysend


def zerocopysend(file: Any, **keys: Any) -> dict[str, Any]:
    return {"type": "http.response.zerocopysend", "file": file, **keys}


@pytest.fixture
def opened(large: Path) -> Iterator[Any]:
    with large.open("rb") as file:
        yield file


@pytest.mark.parametrize("kind", ["file object", "descriptor", "raw"])
def test_a_file_is_sent_from_where_it_stands(serve: Any, large: Path, kind: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with large.open("rb", buffering=0 if kind == "raw" else -1) as file:
            file.read(10)
            if kind == "descriptor":
                os.lseek(file.fileno(), 10, os.SEEK_SET)
            what = file.fileno() if kind == "descriptor" else file
            await send(start())
            await send(zerocopysend(what, count=100, more_body=True))
            await send(body(b"-", True))
            await send(zerocopysend(what, count=200_000, more_body=True))
            await send(zerocopysend(what))
        # It is closed here: what is not sent yet has a descriptor of its own.

    expected = LARGE[10:110] + b"-" + LARGE[110:]
    with Client(serve(app, lifespan="off").connect()) as client:
        for _ in range(2):
            assert client.request("GET").body == expected


@pytest.mark.parametrize(
    ("keys", "part"),
    [
        ({}, slice(0, None)),
        ({"offset": 5}, slice(5, None)),
        ({"offset": 5, "count": 70_000}, slice(5, 70_005)),
        ({"count": 7}, slice(0, 7)),
        ({"count": 0}, slice(0, 0)),
        ({"offset": len(LARGE)}, slice(0, 0)),
        ({"offset": None, "count": None, "more_body": None}, slice(0, None)),
    ],
)
def test_offset_and_count(serve: Any, opened: Any, keys: Any, part: slice) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        opened.seek(0)
        await send(start())
        await send(zerocopysend(opened, **keys))
        if "offset" in keys and keys["offset"] is not None:
            assert opened.tell() == 0

    with Client(serve(app, lifespan="off").connect()) as client:
        for _ in range(2):
            response = client.request("GET")
            assert response.body == LARGE[part]
            assert response.header("content-length") == str(len(LARGE[part])).encode()
        assert client.request("HEAD").body == b""


@pytest.mark.parametrize("length", [5, 100_000], ids=["small", "large"])
def test_files_count_for_content_length(serve: Any, opened: Any, length: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        fields = [(b"content-length", str(length).encode())]
        await send(start(headers=fields))
        extra = {"/more": 1, "/less": -1, "/exact": 0}[scope["path"]]
        message = zerocopysend(opened, offset=0, count=length + extra)
        if extra:
            with pytest.raises(RuntimeError, match="promised by content-length"):
                await send(message)
        else:
            await send(message)

    server = serve(app, lifespan="off")
    with Client(server.connect()) as client:
        assert client.request("GET", "/exact").body == LARGE[:length]
        response = client.request("GET", "/more")
        assert response.body == LARGE[:length]
        assert client.is_closed()
    with Client(server.connect()) as client:
        with pytest.raises(h11.RemoteProtocolError):
            client.request("GET", "/less")


@pytest.mark.parametrize(
    ("make", "keys", "error"),
    [
        (lambda file: file, {"offset": 1, "count": len(LARGE)}, ValueError),
        (lambda file: file, {"offset": -1}, ValueError),
        (lambda file: file, {"count": -1}, ValueError),
        (lambda file: file, {"count": "many"}, ValueError),
        (lambda file: 2**20, {}, OSError),
        (lambda file: -1, {}, OSError),
        (lambda file: b"bytes", {}, TypeError),
        (lambda file: None, {}, TypeError),
        (lambda file: os.open("/", os.O_RDONLY), {}, IsADirectoryError),
        (lambda file: os.open(file.name, os.O_WRONLY), {}, ValueError),
        (lambda file: os.open(file.name, os.O_PATH), {}, ValueError),
        (lambda file: threading, {}, TypeError),
    ],
)
def test_what_cannot_be_sent_is_an_error(
    serve: Any, opened: Any, make: Any, keys: Any, error: type[Exception]
) -> None:
    file = make(opened)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        with pytest.raises(error):
            await send(zerocopysend(file, **keys))
        await send(body(b"went on"))

    with Client(serve(app, lifespan="off").connect()) as client:
        assert client.request("GET").body == b"went on"
    if isinstance(file, int) and 2 < file < 2**20:
        os.close(file)


def test_send_waits_while_too_much_of_a_file_is_unsent(serve: Any, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(64 * MIB))
    sent: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        with path.open("rb") as file:
            await send(zerocopysend(file, more_body=True))
        sent.append("file")
        await send(body(b"end"))

    server = serve(app, lifespan="off")
    with server.connect() as client:
        client.sendall(head("GET", "/", "connection: close"))
        read_head(client)
        server.submit(lambda: asyncio.sleep(0.05))
        assert sent == []
        assert read_all(client).endswith(b"3\r\nend\r\n0\r\n\r\n")
    assert sent == ["file"]
