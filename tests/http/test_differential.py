"""The same bytes to framegate and to h11: both have to understand the same request."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import h11
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps import read_body, respond
from peers.h11_client import Client

TOKEN = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-_.!~*'", min_size=1, max_size=20)
NAMES = TOKEN.map(lambda name: "x-" + name)
VALUES = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=40
)
PATHS = st.text("abcXYZ019/-._~!$&'()*+,;=:@%", max_size=30).map(lambda path: "/" + path)
QUERIES = st.none() | st.text("abcXYZ019/-._~!$&'()*+,;=:@%?", max_size=30)
BODIES = st.none() | st.binary(max_size=2000) | st.lists(st.binary(min_size=1, max_size=500))


@st.composite
def requests(draw: Any) -> bytes:
    """Make the bytes of one valid request."""
    method = draw(st.sampled_from(["GET", "POST", "PUT", "DELETE", "REPORT"]))
    target = draw(PATHS)
    query = draw(QUERIES)
    if query is not None:
        target += "?" + query
    fields = draw(st.lists(st.tuples(NAMES, VALUES), max_size=8))
    body = draw(BODIES)
    lines = [f"{method} {target} HTTP/1.1", "Host: example"]
    lines += [
        f"{name}:{draw(st.sampled_from(['', ' ', chr(9), '  ']))}{value}" for name, value in fields
    ]
    data = b""
    if isinstance(body, bytes):
        lines.append(f"Content-Length: {len(body)}")
        data = body
    elif body is not None:
        lines.append("Transfer-Encoding: chunked")
        data = b"".join(b"%X\r\n%s\r\n" % (len(part), part) for part in body) + b"0\r\n\r\n"
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + data


def by_h11(data: bytes) -> dict[str, Any]:
    """Return what h11 reads in these bytes."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    request = connection.next_event()
    assert isinstance(request, h11.Request)
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    headers: dict[str, list[str]] = {}
    for name, value in request.headers:
        headers.setdefault(name.decode(), []).append(value.decode("latin-1"))
    return {
        "method": request.method.decode(),
        "target": request.target.decode(),
        "headers": headers,
        "body": body.hex(),
    }


async def application(scope: Any, receive: Any, send: Any) -> None:
    body = await read_body(receive)
    headers: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode(), []).append(value.decode("latin-1"))
    query = scope["query_string"].decode()
    seen = {
        "method": scope["method"],
        "target": scope["raw_path"].decode() + ("?" + query if query else ""),
        "headers": headers,
        "body": body.hex(),
    }
    await respond(send, json.dumps(seen).encode())


@pytest.fixture
def client(serve: Any) -> Iterator[Client]:
    with Client(serve(application, lifespan="off").connect()) as client:
        yield client


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=requests(), cuts=st.lists(st.integers(1, 400), max_size=4))
def test_a_valid_request_means_the_same_to_both(
    client: Client, data: bytes, cuts: list[int]
) -> None:
    expected = by_h11(data)
    # A lone "?" is no query: ASGI cannot tell it from none.
    if expected["target"].count("?") == 1:
        expected["target"] = expected["target"].removesuffix("?")
    if client.h11.our_state is h11.DONE:
        client.h11.start_next_cycle()
    # h11 on our side has to believe that it sent something.
    client.h11.send(h11.Request(method="GET", target="/", headers=[("host", "example")]))
    client.h11.send(h11.EndOfMessage())
    rest = data
    for cut in cuts:
        client.socket.sendall(rest[:cut])
        rest = rest[cut:]
    client.socket.sendall(rest)
    assert json.loads(client.response().body) == expected


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    parts=st.lists(st.binary(max_size=3000), max_size=6),
    with_length=st.booleans(),
    status=st.sampled_from([200, 201, 404, 500, 299]),
)
def test_a_response_means_to_h11_what_was_sent(
    mirror: tuple[Client, dict[str, Any]], parts: list[bytes], with_length: bool, status: int
) -> None:
    client, wanted = mirror
    wanted.update(parts=parts, with_length=with_length, status=status)
    response = client.request("GET")
    assert (response.status, response.body) == (status, b"".join(parts))


@pytest.fixture
def mirror(serve: Any) -> Iterator[tuple[Client, dict[str, Any]]]:
    wanted: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        parts = wanted["parts"]
        headers = []
        if wanted["with_length"]:
            headers.append((b"content-length", b"%d" % sum(map(len, parts))))
        await send({"type": "http.response.start", "status": wanted["status"], "headers": headers})
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body"})

    with Client(serve(app, lifespan="off").connect()) as client:
        yield client, wanted
