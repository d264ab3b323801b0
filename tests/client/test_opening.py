"""From an address to a WebSocket, as Python sees it: options, refusals, TLS, proxies."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from client.conftest import echo_app, websockets_server
from framegate import client
from framegate.client import connect
from server_thread import Serve

if TYPE_CHECKING:
    from tls.authority import Authority


def test_headers_reach_the_application(serve: Serve) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "websocket"
        await receive()
        seen.append(scope)
        await send({"type": "websocket.accept", "headers": [(b"x-answer", b"caf\xe9")]})
        await receive()

    url = f"ws://me:s%20t@127.0.0.1:{serve(app).port}/a%20b?c=d"
    for headers in ({"X-One": "1", "Origin": "http://o"}, [("X-One", "1"), ("X-One", "2")]):
        with connect(url, headers=headers, user_agent=None) as websocket:
            assert ("x-answer", "caf\xe9") in websocket.response_headers
    first, second = (dict(scope["headers"]) for scope in seen)
    assert first[b"x-one"] == b"1"
    assert first[b"origin"] == b"http://o"
    assert b"user-agent" not in first
    assert first[b"authorization"] == b"Basic bWU6cyB0"
    assert [value for name, value in seen[1]["headers"] if name == b"x-one"] == [b"1", b"2"]
    assert second[b"host"].startswith(b"127.0.0.1:")
    assert (seen[0]["path"], seen[0]["query_string"]) == ("/a b", b"c=d")


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("http://127.0.0.1/", {}, "is no address of a WebSocket"),
        ("ws://127.0.0.1/#x", {}, "has a fragment"),
        ("ws://x/", {"headers": {"a b": "c"}}, "is no name of a header"),
        ("ws://x/", {"headers": {"a": "c\r\nd: e"}}, "the value of the header a cannot be sent"),
        ("ws://x/", {"headers": {"Sec-WebSocket-Key": "c"}}, "belongs to the handshake"),
        ("ws://x/", {"subprotocols": ["a b"]}, "is no name of a subprotocol"),
        ("ws://x/", {"open_timeout": -1}, "open_timeout is a number of seconds"),
        ("ws://x/", {"close_timeout": float("nan")}, "close_timeout is a number of seconds"),
        ("ws://x/", {"key": "k.pem"}, "a key is given without its certificate"),
        ("ws://x/", {"proxy": "socks5://p:1"}, "is no proxy that can be used"),
    ],
)
def test_what_cannot_be_used_is_said_before_anything_is_opened(
    url: str, options: Any, words: str
) -> None:
    with pytest.raises(client.ClientArgumentError, match=words) as caught:
        connect(url, **options)
    assert isinstance(caught.value, ValueError)
    assert not caught.value.is_passing


def test_unknown_options_are_named() -> None:
    with pytest.raises(TypeError, match="no option 'max_size'"):
        connect("ws://x/", max_size=1)  # type: ignore[call-arg]


def test_a_refusal_says_what_the_server_said(serve: Serve) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        start = {"type": "websocket.http.response.start", "status": 401}
        await send(start | {"headers": [(b"www-authenticate", b"Bearer")]})
        await send({"type": "websocket.http.response.body", "body": b"who are you"})

    with pytest.raises(client.HandshakeRefused, match="a token or a user") as caught:
        connect(f"ws://127.0.0.1:{serve(app).port}/")
    error = caught.value
    assert (error.status, error.body, error.is_passing) == (401, b"who are you", False)
    assert ("www-authenticate", "Bearer") in (error.headers or [])


def test_redirects_are_refused(serve: Serve) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        start = {"type": "websocket.http.response.start", "status": 307}
        await send(start | {"headers": [(b"location", b"ws://other/")]})
        await send({"type": "websocket.http.response.body"})

    with pytest.raises(client.HandshakeRefused, match="not followed: connect to ws://other/"):
        connect(f"ws://127.0.0.1:{serve(app).port}/")


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    with pytest.raises(client.ServerUnreachable, match="nothing answers") as caught:
        connect(f"ws://127.0.0.1:{port}/")
    assert isinstance(caught.value, OSError)
    assert caught.value.is_passing


def test_a_silent_server_is_left() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(TimeoutError, match="within 50ms") as caught:
            connect(f"ws://127.0.0.1:{port}/", open_timeout=0.05)
    assert isinstance(caught.value, client.ClientTimeout)


def test_messages_have_a_limit(own_echo: str) -> None:
    with connect(own_echo, message_bytes_max=1000) as websocket:
        websocket.send(b"x" * 1000)
        assert websocket.recv(timeout=30) == b"x" * 1000
        websocket.send(b"x" * 1001)
        with pytest.raises(client.ConnectionClosedError, match="message too big") as caught:
            websocket.recv(timeout=30)
        assert caught.value.close_code == 1009
        assert not caught.value.by_server


# --------------------------------------------------------------------------------------------
# TLS


@pytest.fixture
def ca_file(authority: Authority, tmp_path: Path) -> Path:
    """The authority's own certificate."""
    path = tmp_path / "ca.pem"
    path.write_bytes(authority.pem)
    return path


def test_tls_with_a_file_and_with_the_systems_store(
    authority: Authority, ca_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = authority.issue("localhost").write(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files["ssl_certfile"], files["ssl_keyfile"])
    other = tmp_path / "other.pem"
    other.write_bytes(type(authority)("another").pem)
    with websockets_server(context) as place:
        url = f"wss://localhost:{place.rpartition(':')[2]}/"
        for files_of_authorities in (ca_file, str(ca_file), [other, ca_file]):
            with connect(url, ca_file=files_of_authorities) as websocket:
                for message in ("x", b"y" * 3_000_000):
                    websocket.send(message)
                    assert websocket.recv(timeout=30) == message
        with pytest.raises(client.TlsFailed, match="ca_file"):
            connect(url, ca_file=other)
        with pytest.raises(client.TlsFailed, match="by a name that is in its certificate"):
            connect(url.replace("localhost", "127.0.0.1"), ca_file=ca_file)
        monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
        with connect(url) as websocket:
            websocket.send("x")
            assert websocket.recv(timeout=30) == "x"
    with pytest.raises(client.TlsFailed, match=r"missing\.pem cannot be read"):
        connect("wss://x/", ca_file=tmp_path / "missing.pem")


def test_client_certificates(
    authority: Authority, ca_file: Path, tmp_path: Path, serve: Serve
) -> None:
    options = authority.issue("localhost").write(tmp_path)
    server = serve(
        echo_app, ssl_certfile=[options["ssl_certfile"]], ssl_keyfile=[options["ssl_keyfile"]],
        ssl_cert_reqs="required", ssl_ca_certs=[str(ca_file)],
    )  # fmt: skip
    url = f"wss://localhost:{server.port}/"
    with pytest.raises(client.TlsFailed):
        connect(url, ca_file=ca_file)
    own = authority.issue("me", client=True).write(tmp_path, "me")
    with connect(
        url, ca_file=ca_file, certificate=own["ssl_certfile"], key=own["ssl_keyfile"]
    ) as websocket:
        websocket.send("x")
        assert websocket.recv(timeout=30) == "x"
    with pytest.raises(client.TlsFailed, match="no private key"):
        connect(url, ca_file=ca_file, certificate=own["ssl_certfile"])


# --------------------------------------------------------------------------------------------
# Proxies


class Proxy:
    """Opens one way, and says to where; it leads to `port` wherever that is."""

    def __init__(self, port: int) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.place = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.head = b""
        self.thread = threading.Thread(target=self._serve, args=(port,), name="proxy")
        self.thread.start()

    def _serve(self, port: int) -> None:
        near, _ = self.listener.accept()
        with near, socket.create_connection(("127.0.0.1", port)) as far:
            while not self.head.endswith(b"\r\n\r\n"):
                self.head += near.recv(1)
            near.sendall(b"HTTP/1.1 200 Go on\r\n\r\n")
            back = threading.Thread(target=pass_on, args=(far, near), name="back")
            back.start()
            pass_on(near, far)
            back.join(30)

    def end(self) -> None:
        self.thread.join(30)
        assert not self.thread.is_alive()
        self.listener.close()


def pass_on(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


@pytest.mark.parametrize("how", ["option", "variable"])
def test_a_proxy_opens_the_way(own_echo: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = Proxy(int(own_echo.rpartition(":")[2].strip("/")))
    options: client.ConnectOptions = {}
    if how == "option":
        options = {"proxy": f"http://me:s%40@{proxy.place}"}
    else:
        monkeypatch.setenv("HTTP_PROXY", f"http://me:s%40@{proxy.place}")
        monkeypatch.setenv("NO_PROXY", "localhost,elsewhere.invalid")
    with connect("ws://somewhere.invalid:81/", **options) as websocket:
        websocket.send("x")
        assert websocket.recv(timeout=30) == "x"
    proxy.end()
    assert proxy.head.startswith(b"CONNECT somewhere.invalid:81 HTTP/1.1\r\n")
    assert b"\r\nproxy-authorization: Basic bWU6c0A=\r\n" in proxy.head


def test_proxies_are_left_out(own_echo: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        nobody = f"127.0.0.1:{held.getsockname()[1]}"
    monkeypatch.setenv("HTTP_PROXY", nobody)
    with pytest.raises(client.ProxyFailed, match="nothing answers"):
        connect(own_echo)
    connect(own_echo, proxy=None).close()
    connect(own_echo, proxy=False).close()
    monkeypatch.setenv("NO_PROXY", "127.0.0.0/8")
    connect(own_echo).close()
