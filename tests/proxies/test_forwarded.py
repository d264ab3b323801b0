"""What proxies say about a request, and who is believed."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.sync.client import connect

from apps import scope_as_json
from framegate import RunningServer, Server
from peers.h2_client import Client
from peers.raw import head, read_all
from server_thread import Serve

FORWARDING = (
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-ssl",
    "forwarded",
)


def scope_of(server: Any, *fields: str, target: str = "/") -> dict[str, Any]:
    """Send one request over HTTP/1.1; return the scope that the application saw."""
    with server.connect() as peer:
        peer.sendall(head("GET", target, *fields, "Connection: close"))
        top, _, content = read_all(peer).partition(b"\r\n\r\n")
    assert top.startswith(b"HTTP/1.1 200"), top
    found: dict[str, Any] = json.loads(content)
    return found


def names(scope: dict[str, Any]) -> set[str]:
    return {name for name, _ in scope["headers"]}


ALL = (
    "X-Forwarded-For: 6.6.6.6, 192.0.2.7",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: public.example",
    "X-Forwarded-Prefix: /api",
    "X-Forwarded-Port: 443",
    "X-Forwarded-Ssl: on",
    "Forwarded: for=6.6.6.6;proto=https;host=evil.example",
)


@pytest.mark.parametrize("trusted", [(), ("192.0.2.0/24", "::1", "unix")])
def test_what_others_say_is_taken_out(serve: Serve, trusted: tuple[str, ...]) -> None:
    server = serve(scope_as_json, lifespan="off", forwarded_allow_ips=trusted)
    scope = scope_of(server, "A: 1", *ALL, "B: 2")
    assert [pair for pair in scope["headers"] if pair[0] != "connection"] == [
        ["host", "example"],
        ["a", "1"],
        ["b", "2"],
    ]
    assert scope["client"][0] == "127.0.0.1"
    assert scope["scheme"] == "http"
    assert scope["server"] == ["127.0.0.1", server.port]
    assert (scope["root_path"], scope["path"]) == ("", "/")


@pytest.mark.parametrize("trusted", ["127.0.0.1", "127.0.0.0/8", "*", "unix,127.0.0.1"])
def test_what_a_trusted_proxy_says_is_in_the_scope(serve: Serve, trusted: str) -> None:
    server = serve(scope_as_json, lifespan="off", forwarded_allow_ips=trusted)
    for _ in range(2):
        scope = scope_of(server, *ALL, target="/a%20b?c")
        assert scope["client"] == ["6.6.6.6" if trusted == "*" else "192.0.2.7", 0]
        assert scope["scheme"] == "https"
        assert scope["server"] == ["public.example", 443]
        assert scope["headers"][0] == ["host", "public.example"]
        assert (scope["root_path"], scope["path"], scope["raw_path"]) == (
            "/api",
            "/api/a b",
            "/a%20b",
        )
        assert "forwarded" not in names(scope)


def test_prefix_of_a_proxy_replaces_the_one_of_the_configuration(serve: Serve) -> None:
    options = {"forwarded_allow_ips": "127.0.0.1", "root_path": "/here"}
    server = serve(scope_as_json, lifespan="off", **options)
    assert scope_of(server, target="/x")["path"] == "/here/x"
    scope = scope_of(server, "X-Forwarded-Prefix: /there", target="/x")
    assert (scope["root_path"], scope["path"]) == ("/there", "/there/x")


def test_a_connection_carries_requests_of_many_clients(serve: Serve) -> None:
    server = serve(scope_as_json, lifespan="off", forwarded_allow_ips="127.0.0.1")
    limits = httpx.Limits(max_connections=1)
    with httpx.Client(base_url=server.url, limits=limits, trust_env=False) as client:
        for number in range(1, 5):
            fields = {"x-forwarded-for": f"192.0.2.{number}"}
            assert client.get("/", headers=fields).json()["client"] == [f"192.0.2.{number}", 0]
            assert client.get("/").json()["client"][0] == "127.0.0.1"


def test_peers_on_unix_sockets_are_trusted_by_name(serve: Serve) -> None:
    for trusted, client in ((("unix",), ["192.0.2.7", 0]), (("127.0.0.1",), None)):
        server = serve(scope_as_json, uds=True, lifespan="off", forwarded_allow_ips=trusted)
        assert scope_of(server, "X-Forwarded-For: 192.0.2.7")["client"] == client


def test_client_that_nobody_knows_is_none(serve: Serve) -> None:
    server = serve(scope_as_json, lifespan="off", forwarded_allow_ips="127.0.0.1")
    assert scope_of(server, 'Forwarded: for="_hidden";proto=https')["client"] is None


@pytest.mark.parametrize(("trusted", "client"), [("127.0.0.1", "192.0.2.7"), ((), "127.0.0.1")])
def test_http2(serve: Serve, trusted: Any, client: str) -> None:
    server = serve(scope_as_json, lifespan="off", forwarded_allow_ips=trusted)
    fields = [("x-forwarded-for", "192.0.2.7"), ("x-forwarded-host", "public.example")]
    with Client(server.connect()) as peer:
        answer = peer.answer(peer.request("/", fields=fields))
    scope = json.loads(answer.body)
    assert scope["client"][0] == client
    assert (scope["headers"][0] == ["host", "public.example"]) is bool(trusted)
    assert ("x-forwarded-for" in names(scope)) is bool(trusted)


def test_websocket(serve: Serve) -> None:
    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        told = {name: scope[name] for name in ("client", "scheme", "root_path", "path")}
        await send({"type": "websocket.send", "text": json.dumps(told)})
        await send({"type": "websocket.close"})

    server = serve(app, lifespan="off", forwarded_allow_ips="127.0.0.1")
    fields = {
        "X-Forwarded-For": "192.0.2.7",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Prefix": "/p",
    }
    with connect(f"ws://{server.host}:{server.port}/x", additional_headers=fields) as socket:
        told = json.loads(socket.recv())
    assert told == {
        "client": ["192.0.2.7", 0],
        "scheme": "wss",
        "root_path": "/p",
        "path": "/p/x",
    }


# ------------------------------------------------------------------------------------------------
# Whatever a client writes, it stays who it is.

ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
HOPS = st.one_of(
    ADDRESSES,
    st.sampled_from(["10.0.0.1", "127.0.0.1", "::1", "unknown", "_x", "", '"', "for=1.2.3.4", "*"]),
    ADDRESSES.map(lambda text: f"[{text}]:80"),
    ADDRESSES.map(lambda text: f'for="{text}'),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=12),
)
LISTS = st.lists(HOPS, max_size=5).map(", ".join).map(str.strip)
FIELDS = st.lists(st.tuples(st.sampled_from(FORWARDING), LISTS), max_size=6)


@pytest.fixture(scope="module")
def asked() -> Any:
    options: dict[str, Any] = {"port": 0, "lifespan": "off", "access_log": False}
    trusting = Server(scope_as_json, **options, forwarded_allow_ips="127.0.0.1,10.0.0.0/8")
    believing_nobody = Server(scope_as_json, **options)
    with trusting.start_in_thread() as one, believing_nobody.start_in_thread() as other:
        with httpx.Client(trust_env=False) as client:

            def ask(server: RunningServer, fields: list[tuple[str, str]]) -> dict[str, Any]:
                found: dict[str, Any] = client.get(server.urls[0], headers=fields).json()
                return found

            yield (lambda fields: ask(one, fields)), (lambda fields: ask(other, fields))


@settings(deadline=None)
@given(fields=FIELDS, address=st.ip_addresses(v=4).filter(lambda a: a.is_global))
def test_client_cannot_choose_who_it_is(
    asked: Any, fields: list[tuple[str, str]], address: ipaddress.IPv4Address
) -> None:
    trusting, believing_nobody = asked
    # A proxy appends to what the client has sent: to the last field, or as one of its own.
    scope = trusting([*fields, ("X-Forwarded-For", f"{address}")])
    assert scope["client"] == [str(address), 0]
    sent = [text for name, text in fields if name == "x-forwarded-for"]
    others = [pair for pair in fields if pair[0] != "x-forwarded-for"]
    scope = trusting([*others, ("X-Forwarded-For", ", ".join([*sent, str(address), "10.1.1.1"]))])
    assert scope["client"] == [str(address), 0]
    # Of the other family, a client may at most make itself unknown.
    others = [("forwarded", text) for name, text in fields if name == "forwarded"]
    scope = trusting([*others, ("Forwarded", f'for="{address}:4711"')])
    assert scope["client"] in ([str(address), 4711], None)
    assert re.fullmatch(r"127\.0\.0\.1:[0-9]+", dict(scope["headers"])["host"])
    # To a server without proxies it says nothing at all.
    scope = believing_nobody([*fields, ("Forwarded", f"for={address};proto=https")])
    assert scope["client"][0] == "127.0.0.1"
    assert (scope["scheme"], scope["root_path"]) == ("http", "")
    assert not names(scope) & set(FORWARDING)


def test_forwarding_is_in_the_access_log(capfd: pytest.CaptureFixture[str]) -> None:
    options: dict[str, Any] = {
        "port": 0,
        "lifespan": "off",
        "access_log": True,
        "log_format": "json",
    }
    with Server(
        scope_as_json, **options, forwarded_allow_ips="127.0.0.1"
    ).start_in_thread() as server:
        with httpx.Client(trust_env=False) as client:
            client.get(server.urls[0], headers={"X-Forwarded-For": "192.0.2.7"})
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines() if "{" in line]
    assert [line["client"] for line in lines] == ["192.0.2.7"]


# ------------------------------------------------------------------------------------------------
# Names of requests.


def named(server: Any, *fields: str) -> tuple[str, Any]:
    """Return the name in the response, and the one in the scope."""
    with server.connect() as peer:
        peer.sendall(head("GET", "/", *fields, "Connection: close"))
        top, _, content = read_all(peer).partition(b"\r\n\r\n")
    (name,) = re.findall(rb"\r\nx-request-id: ([^\r]*)", top)
    scope = json.loads(content)
    sent = [value for key, value in scope["headers"] if key == "x-request-id"]
    about = scope["extensions"]["framegate.request_id"]
    assert sent in ([], [name.decode()])
    return name.decode(), about["id"]


def test_name_of_a_trusted_proxy_is_taken_if_it_is_well_formed(serve: Serve) -> None:
    options = {"request_id": True, "forwarded_allow_ips": "127.0.0.1"}
    server = serve(scope_as_json, lifespan="off", **options)
    for name in ("a", "0-A_b.c", "x" * 128):
        assert named(server, f"X-Request-ID: {name}") == (name, name)
    for name in ("", "x" * 129, "a b", "a/b", 'a"', "a,b", "\xe4"):
        response, scope = named(server, f"X-Request-ID: {name}")
        assert re.fullmatch("[0-9a-f]{32}", scope)
        assert response == scope
    assert named(server, "X-Request-ID: a", "X-Request-ID: b")[0] not in ("a", "b")


def test_names_are_made_for_others(serve: Serve) -> None:
    server = serve(scope_as_json, lifespan="off", request_id=True)
    made = [named(server, "X-Request-ID: mine") for _ in range(5)]
    assert len({name for name, _ in made}) == 5
    assert all(re.fullmatch("[0-9a-f]{32}", name) and name == scope for name, scope in made)


def test_answers_that_come_later_have_the_name_as_well(serve: Serve) -> None:
    async def slow(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await asyncio.sleep(0)
        await scope_as_json(scope, receive, send)

    async def failing(scope: dict[str, Any], receive: Any, send: Any) -> None:
        raise OSError

    assert len(named(serve(slow, lifespan="off", request_id=True))[0]) == 32
    server = serve(failing, lifespan="off", request_id=True)
    with server.connect() as peer:
        peer.sendall(head("GET", "/", "Connection: close"))
        answer = read_all(peer)
    assert answer.startswith(b"HTTP/1.1 500")
    assert b"x-request-id: " in answer


async def reading(scope: dict[str, Any], receive: Any, send: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def logged(log: Path) -> dict[str, Any]:
    """Requests have names, those of trusted peers too, and a line in this log."""
    return {
        "lifespan": "off",
        "request_id": True,
        "forwarded_allow_ips": "127.0.0.1",
        "access_log_file": str(log),
    }


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        (400, b"GET / HTTP/1.1\r\n%s\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n%s\r\n"),
        (414, b"GET /" + b"a" * 1024 + b" HTTP/1.1\r\nHost: a\r\n%s\r\n"),
        (501, b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n%s\r\n"),
        (413, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n%s\r\n"),
        # These are found while the application reads.
        (
            413,
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n%s\r\n9\r\n123456789\r\n",
        ),
        (408, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n%s\r\n1"),
    ],
)
def test_answers_in_place_of_the_application_have_the_name(
    tmp_path: Path, status: int, request_: bytes
) -> None:
    log = tmp_path / "access.log"
    options: dict[str, Any] = {
        **logged(log),
        "access_log_format": "%s %h %L",
        "target_bytes_max": 1024,
        "max_body": 8,
        "timeout_body": 0.2,
    }
    fields = b"X-Request-ID: mine-%d\r\nX-Forwarded-For: 192.0.2.7\r\n" % status
    with Server(reading, port=0, **options).start_in_thread() as server:
        with socket.create_connection(server.addresses[0], timeout=60) as peer:
            peer.sendall(request_ % fields)
            answer = read_all(peer)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert b"\r\nx-request-id: mine-%d\r\n" % status in answer
    assert log.read_text() == f"{status} 192.0.2.7 mine-{status}\n"


@pytest.mark.parametrize(
    ("status", "sent"),
    [
        (400, b"nonsense\r\n%s\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nno colon here\r\n%s\r\n"),
        (400, b"GET / HTTP/3.7\r\nHost: a\r\n%s\r\n"),
        (431, b"GET / HTTP/1.1\r\nHost: a\r\n%sa: " + bytes([97]) * 70_000),
        (408, b"GET / HTTP/1.1\r\nHost: a\r\n%s"),
    ],
)
def test_what_never_became_a_request_has_no_name_and_no_line(
    tmp_path: Path, status: int, sent: bytes
) -> None:
    """A name would be in an answer and nowhere else; what was wrong is told of the connection."""
    log = tmp_path / "access.log"
    options: dict[str, Any] = {
        **logged(log),
        "access_log_format": "%s %L",
        "timeout_header": 0.3,
    }
    with Server(scope_as_json, port=0, **options).start_in_thread() as server:
        with socket.create_connection(server.addresses[0], timeout=60) as peer:
            peer.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-ID: first\r\n\r\n")
            received = b""
            while not received.endswith(b"}"):
                received += peer.recv(65536)
            peer.sendall(sent % b"X-Request-ID: mine\r\n")
            answer = read_all(peer)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert b"x-request-id" not in answer.lower()
    assert log.read_text() == "200 first\n"


def test_answers_in_place_of_the_application_have_the_name_over_http2(serve: Serve) -> None:
    server = serve(
        scope_as_json, lifespan="off", request_id=True, max_body=8, target_bytes_max=1024
    )
    with Client(server.connect()) as client:
        too_large = client.answer(
            client.request("/", method="POST", fields=[("content-length", "99")], ends=False)
        )
        too_long = client.answer(client.request("/" + "a" * 1024))
    assert (too_large.status, too_long.status) == (413, 414)
    for answer in (too_large, too_long):
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def test_without_the_setting_the_field_is_the_applications(serve: Serve) -> None:
    server = serve(scope_as_json, lifespan="off")
    scope = scope_of(server, "X-Request-ID: mine")
    assert ["x-request-id", "mine"] in scope["headers"]
    assert "framegate.request_id" not in scope["extensions"]
