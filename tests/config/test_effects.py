"""Every setting does what it says: one test each, or this file fails.

Servers in other languages of configuration have options that are documented and wired to nothing.
`@effect` names the setting whose effect a test shows; the last test compares them to the schema.
Both sides of a limit are shown where it has two.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import re
import select
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from h2.events import PingReceived
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from framegate import Publisher, RunningServer, Server, Subscriber
from framegate.config import SETTINGS
from framegate.errors import AppImportError, StartupFailed
from peers.h2_client import Client
from server_process import Launch, body

TIMEOUT_SECONDS = 60.0
TESTS = Path(__file__).resolve().parents[1]
Test = TypeVar("Test", bound=Callable[..., None])
shown: set[str] = set()


def effect(name: str) -> Callable[[Test], Test]:
    """Say that the test shows the effect of a setting."""

    def register(test: Test) -> Test:
        shown.add(name)
        return test

    return register


async def answer(send: Any, text: bytes) -> None:
    headers = [(b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answers with its root path; sends WebSocket messages back."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "bytes": message["bytes"]})
    elif scope["type"] == "http":
        await answer(send, scope["root_path"].encode())
    else:
        raise RuntimeError("no lifespan")


@contextmanager
def serving(application: Any = app, **options: Any) -> Iterator[RunningServer]:
    options = {"access_log": False, **options}
    if not {"port", "uds", "fd", "bind"} & options.keys():
        options["port"] = 0
    with Server(application, **options).start_in_thread() as server:
        yield server


def open_connection(server: RunningServer, address: Any = None) -> socket.socket:
    if address is None:
        (address,) = server.addresses
    if isinstance(address, str):
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(TIMEOUT_SECONDS)
        peer.connect(address)
        return peer
    return socket.create_connection(address, timeout=TIMEOUT_SECONDS)


def response(
    server: RunningServer, *header_lines: str, path: str = "/", address: Any = None
) -> str:
    """Send one request; return the whole response."""
    with open_connection(server, address) as peer:
        lines = [f"GET {path} HTTP/1.1", "host: x", "connection: close", *header_lines]
        peer.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        return read_to_end(peer)


def read_to_end(peer: socket.socket) -> str:
    received = b""
    while chunk := peer.recv(65536):
        received += chunk
    return received.decode("latin-1")


def status(text: str) -> int:
    return int(text.split(" ")[1])


@effect("app")
def test_app(launch: Launch) -> None:
    with serving() as server:
        assert status(response(server)) == 200
    assert launch("supervised_apps:missing").wait() == 3


@effect("factory")
def test_factory() -> None:
    with serving(lambda: app, factory=True) as server:
        assert status(response(server)) == 200
    with pytest.raises(AppImportError, match="is no ASGI application"):
        Server(lambda: app, port=0).start_in_thread()


@effect("app_dir")
def test_app_dir(tmp_path: Path) -> None:
    (tmp_path / "only_here.py").write_text(
        "async def app(scope, receive, send): raise RuntimeError"
    )
    with pytest.raises(AppImportError):
        Server("only_here:app", port=0).start_in_thread()
    with serving("only_here:app", app_dir=str(tmp_path)) as server:
        assert server.urls


@effect("lifespan")
def test_lifespan() -> None:
    with pytest.raises(StartupFailed):
        Server(app, lifespan="on", port=0).start_in_thread()
    scopes: list[str] = []

    async def recording(scope: dict[str, Any], receive: Any, send: Any) -> None:
        scopes.append(scope["type"])
        raise RuntimeError

    with serving(recording, lifespan="off"):
        assert scopes == []
    with serving(recording, lifespan="auto"):
        assert scopes == ["lifespan", "framegate.worker"]


@effect("middleware")
def test_middleware() -> None:
    def prefixed(application: Any, *, text: str) -> Any:
        async def wrapped(scope: dict[str, Any], receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                return await application(scope, receive, send)
            await answer(send, text.encode() + scope["root_path"].encode())

        return wrapped

    with serving(middleware=[prefixed, {"text": "inside"}]) as server:
        assert response(server).endswith("\r\n\r\ninside")


seen: list[str] = []
"""What the application below has seen; a first word tells it to hang."""


async def with_worker_scope(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "framegate.worker":
        return await app(scope, receive, send)
    seen.append((await receive())["type"])
    if seen[0] == "hangs in startup":
        await asyncio.Event().wait()
    await send({"type": "framegate.worker.startup.complete"})
    seen.append((await receive())["type"])
    if seen[0] == "hangs in shutdown":
        await asyncio.Event().wait()
    await send({"type": "framegate.worker.shutdown.complete"})


@effect("worker_scope")
def test_worker_scope() -> None:
    seen.clear()
    with serving(with_worker_scope, worker_scope="off"):
        pass
    assert seen == []
    with serving(with_worker_scope, worker_scope="on"):
        pass
    assert seen == ["framegate.worker.startup", "framegate.worker.shutdown"]
    with pytest.raises(StartupFailed, match="--worker-scope on was given"):
        Server(app, worker_scope="on", port=0).start_in_thread()


@effect("timeout_worker_startup")
def test_timeout_worker_startup() -> None:
    seen[:] = ["hangs in startup"]
    with pytest.raises(StartupFailed, match=r"framegate\.worker startup .* within 0\.1 s"):
        Server(with_worker_scope, timeout_worker_startup=0.1, port=0).start_in_thread()


@effect("timeout_worker_shutdown")
def test_timeout_worker_shutdown(caplog: pytest.LogCaptureFixture) -> None:
    seen[:] = ["hangs in shutdown"]
    with serving(with_worker_scope, timeout_worker_shutdown=0.1):
        pass
    assert "framegate.worker shutdown did not finish within 0.1 s" in caplog.text


@effect("root_path")
def test_root_path() -> None:
    with serving(root_path="/api") as server:
        assert response(server).endswith("\r\n\r\n/api")


@effect("host")
def test_host() -> None:
    with serving(host="127.0.0.2") as server:
        assert server.addresses[0][0] == "127.0.0.2"
        assert status(response(server)) == 200
    with serving(host="::1") as server:
        assert server.urls == [f"http://[::1]:{server.addresses[0][1]}"]
        assert status(response(server)) == 200


@effect("port")
def test_port() -> None:
    with serving(port=0) as server:
        port = server.addresses[0][1]
        assert port != 0
    with serving(port=port) as server:
        assert server.addresses == [("127.0.0.1", port)]


@effect("uds")
def test_uds(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with serving(uds=path) as server:
        assert server.addresses == [path]
        assert status(response(server)) == 200
    assert not os.path.exists(path)


@effect("fd")
def test_fd() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with serving(fd=bound.fileno()) as server:
            assert server.addresses == [bound.getsockname()]
            assert status(response(server)) == 200
        assert bound.fileno() >= 0  # ours is still open


@effect("bind")
def test_bind(tmp_path: Path) -> None:
    with serving(bind=["127.0.0.1:0", f"unix:{tmp_path}/socket"]) as server:
        assert [type(address) for address in server.addresses] == [tuple, str]
        for address in server.addresses:
            assert status(response(server, address=address)) == 200


@effect("backlog")
def test_backlog() -> None:
    with serving(backlog=7) as server:
        (listener,) = server._listeners.of_worker[0]
        # tcpi_sacked of a listening socket is the limit of its queue.
        information = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        assert struct.unpack_from("=I", information, 28) == (7,)


@effect("workers")
def test_workers(launch: Launch) -> None:
    server = launch("supervised_apps:app", "--workers", "3").wait_ready()
    assert len(set(server.worker_pids)) == 3
    assert server.stop() == 0


@effect("timeout_startup")
def test_timeout_startup() -> None:
    never = threading.Event()

    async def hanging(scope: dict[str, Any], receive: Any, send: Any) -> None:
        while not never.is_set():
            await receive()

    with pytest.raises(StartupFailed, match=r"within 0\.1 s"):
        Server(hanging, timeout_startup=0.1, port=0).start_in_thread()


@effect("timeout_graceful_shutdown")
def test_timeout_graceful_shutdown(launch: Launch) -> None:
    server = launch("supervised_apps:app", "--timeout-graceful-shutdown", "0.1").wait_ready()
    peer = server.request("/endless")
    server.wait_event("endless")
    assert server.stop() == 0
    assert body(peer) == ""
    assert "still busy after 0.1 s and were cut: 1" in server.text


@effect("timeout_keep_alive")
def test_timeout_keep_alive() -> None:
    with serving(timeout_keep_alive=0.3) as server, open_connection(server) as peer:
        peer.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert "200 OK" in read_to_end(peer)  # ends: the server closed the idle connection


@effect("timeout_header")
def test_timeout_header() -> None:
    with serving(timeout_header=0.3) as server, open_connection(server) as peer:
        peer.sendall(b"GET / HTTP/1.1\r\nhost:")
        assert status(read_to_end(peer)) == 408


async def counting(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answers with the size of the body."""
    assert scope["type"] == "http"
    size, more = 0, True
    while more:
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        size, more = size + len(event["body"]), event["more_body"]
    await answer(send, str(size).encode())


def post(peer: socket.socket, body: bytes, length: int | None = None) -> None:
    size = len(body) if length is None else length
    head = f"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {size}\r\n\r\n"
    peer.sendall(head.encode() + body)


@effect("timeout_body")
def test_timeout_body() -> None:
    with serving(counting, lifespan="off", timeout_body=0.3) as server:
        with open_connection(server) as peer:
            post(peer, b"part", length=5)
            assert status(read_to_end(peer)) == 408
        with open_connection(server) as peer:
            post(peer, b"whole")
            assert read_to_end(peer).endswith("\r\n\r\n5")


@effect("body_rate_min")
def test_body_rate_min() -> None:
    options = {"lifespan": "off", "timeout_body": 1.0}
    # The second one never gets to its end: how many bytes it takes is up to the machine.
    for rate, length, expected in ((0, 6, 200), (1000, 600, 408)):
        with serving(counting, body_rate_min=rate, **options) as server:
            with open_connection(server) as peer:
                post(peer, b"", length=length)
                for _ in range(length):  # a byte each 0.3 s: never a second without one
                    if select.select([peer], [], [], 0.3)[0]:
                        break
                    peer.send(b"x")
                assert status(read_to_end(peer)) == expected


@effect("timeout_write")
def test_timeout_write() -> None:
    told: list[str] = []
    done = threading.Event()

    async def flood(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["path"] != "/flood":
            return await answer(send, b"")
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            for _ in range(256):
                await send({"type": "http.response.body", "body": bytes(2**20), "more_body": True})
        except OSError as error:
            told.append(type(error).__name__)
        told.append((await receive())["type"])
        done.set()

    with serving(flood, lifespan="off", timeout_write=0.3) as server:
        with open_connection(server) as peer:
            peer.sendall(b"GET /flood HTTP/1.1\r\nhost: x\r\n\r\n")
            assert done.wait(TIMEOUT_SECONDS)
        assert told == ["ClientDisconnected", "http.disconnect"]
        assert status(response(server)) == 200


@effect("timeout_half_close")
def test_timeout_half_close() -> None:
    async def slow(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await asyncio.sleep(0.7)
        await answer(send, b"late")

    for seconds, expected in ((0.0, ""), (10.0, "late")):
        with serving(slow, lifespan="off", timeout_half_close=seconds) as server:
            with open_connection(server) as peer:
                peer.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
                peer.shutdown(socket.SHUT_WR)
                assert read_to_end(peer).rpartition("\r\n\r\n")[2] == expected


@effect("timeout_linger")
def test_timeout_linger() -> None:
    for seconds, expected in ((0.0, False), (10.0, True)):
        with serving(timeout_linger=seconds) as server, open_connection(server) as peer:
            # Refused with most of the body unsent; how long does the server go on listening?
            post(peer, b"", length=2**24)
            assert status(read_to_end(peer)) == 200
            pause, is_heard = threading.Event(), True
            for _ in range(10):
                pause.wait(0.1)
                try:
                    peer.sendall(b"x")
                except OSError:
                    is_heard = False
            assert is_heard is expected


@effect("target_bytes_max")
def test_target_bytes_max() -> None:
    with serving(target_bytes_max=300) as server:
        for size, expected in ((300, 200), (301, 414)):
            with open_connection(server) as peer:
                target = "/" + "a" * (size - 1)
                peer.sendall(
                    f"GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode()
                )
                assert status(read_to_end(peer)) == expected


@effect("max_body")
def test_max_body() -> None:
    chunks = (
        b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    with serving(counting, lifespan="off", max_body=1000) as server:
        for size, expected in ((1000, 200), (1001, 413)):
            with open_connection(server) as peer:
                post(peer, bytes(size))
                assert status(read_to_end(peer)) == expected
            with open_connection(server) as peer:
                peer.sendall(chunks + b"%x\r\n%b\r\n0\r\n\r\n" % (size, bytes(size)))
                assert status(read_to_end(peer)) == expected
    with serving(counting, lifespan="off") as server, open_connection(server) as peer:
        post(peer, bytes(2**20))
        assert read_to_end(peer).endswith("\r\n\r\n1048576")


@effect("limit_concurrency")
def test_limit_concurrency() -> None:
    with serving(limit_concurrency=1) as server:
        with open_connection(server) as first:
            first.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert first.recv(12) == b"HTTP/1.1 200"
            text = response(server)
            assert status(text) == 503
            assert "\r\nretry-after: 1\r\n" in text.lower()
    with serving() as server, open_connection(server):
        assert status(response(server)) == 200


@effect("keep_alive_max_requests")
def test_keep_alive_max_requests() -> None:
    request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
    with serving(keep_alive_max_requests=2) as server, open_connection(server) as peer:
        peer.sendall(request * 3)
        text = read_to_end(peer).lower()
        assert text.count("200 ok") == 2
        assert text.count("connection: close") == 1
    with serving(timeout_graceful_shutdown=0) as server, open_connection(server) as peer:
        for _ in range(20):
            peer.sendall(request)
            assert b"connection: close" not in peer.recv(65536).lower()


@effect("header_bytes_max")
def test_header_bytes_max() -> None:
    with serving() as server:
        assert status(response(server, "x-a: " + "x" * 9000)) == 200
        assert status(response(server, "x-a: " + "x" * 70_000)) == 431
    with serving(header_bytes_max=8192) as server:
        assert status(response(server, "x-a: " + "x" * 7000)) == 200
        assert status(response(server, "x-a: " + "x" * 9000)) == 431


@effect("header_count_max")
def test_header_count_max() -> None:
    with serving(header_count_max=5) as server:
        fields = [f"x-{number}: 1" for number in range(3)]
        assert status(response(server, *fields)) == 200  # host and connection are the others
        assert status(response(server, *fields, "x-one-more: 1")) == 431


@effect("http")
def test_http() -> None:
    def speaks(server: RunningServer, version: str) -> bool:
        if version == "1":
            with open_connection(server) as peer:
                peer.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                return "200 OK" in read_to_end(peer)
        with Client(open_connection(server)) as client:
            stream = client.request()
            while client.exchanges[stream].status is None and client.read():
                pass
            return client.exchanges[stream].status == 200

    for setting, versions in (("auto", ["1", "2"]), ("1", ["1"]), ("2", ["2"])):
        with serving(http=setting) as server:
            assert [version for version in "12" if speaks(server, version)] == versions


def http2_settings(server: RunningServer) -> tuple[int, int, int]:
    """Return streams, window of a stream and window of the connection, as a client hears them."""
    with Client(open_connection(server)) as client:
        client.answer(client.request())
        remote = client.state.remote_settings
        return (
            remote.max_concurrent_streams,
            remote.initial_window_size,
            client.state.outbound_flow_control_window,
        )


@effect("http2_max_concurrent_streams")
def test_http2_max_concurrent_streams() -> None:
    with serving() as server:
        assert http2_settings(server)[0] == 128
    with serving(http2_max_concurrent_streams=7) as server:
        assert http2_settings(server)[0] == 7


@effect("http2_initial_stream_window_size")
def test_http2_initial_stream_window_size() -> None:
    with serving(http2_initial_stream_window_size=70_000) as server:
        assert http2_settings(server)[1:] == (70_000, 2**20)


@effect("http2_initial_connection_window_size")
def test_http2_initial_connection_window_size() -> None:
    with serving(http2_initial_connection_window_size=500_000) as server:
        assert http2_settings(server)[1:] == (2**18, 500_000)


@effect("http2_keep_alive_interval")
def test_http2_keep_alive_interval() -> None:
    async def waits(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise RuntimeError("no lifespan")
        await receive()
        await receive()

    with (
        serving(waits, http2_keep_alive_interval=0.3) as server,
        Client(open_connection(server)) as client,
    ):
        client.request()
        while not any(isinstance(event, PingReceived) for event in client.events):
            assert client.read()
        # From here on nothing is answered.
        while client.socket.recv(4096):
            pass


@effect("ws_max_size")
def test_ws_max_size() -> None:
    with serving(ws_max_size=1000) as server:
        with connect(server.urls[0].replace("http", "ws"), compression=None) as client:
            client.send(b"x" * 1000)
            assert client.recv(TIMEOUT_SECONDS) == b"x" * 1000
            client.send(b"x" * 1001)
            with pytest.raises(ConnectionClosedError) as caught:
                client.recv(TIMEOUT_SECONDS)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1009


def open_websocket(server: RunningServer) -> socket.socket:
    """A WebSocket that says nothing by itself."""
    peer = open_connection(server)
    peer.sendall(
        b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n"
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += peer.recv(1)
    return peer


@effect("ws_ping_interval")
def test_ws_ping_interval() -> None:
    with serving(ws_ping_interval=0.3) as server, open_websocket(server) as peer:
        assert peer.recv(2) == b"\x89\0"
    with serving(ws_ping_interval="off") as server, open_websocket(server) as peer:
        peer.settimeout(1.0)
        with pytest.raises(TimeoutError):
            peer.recv(2)


@effect("ws_ping_timeout")
def test_ws_ping_timeout() -> None:
    with serving(ws_ping_interval=0.3, ws_ping_timeout=0.3) as server:
        with open_websocket(server) as peer:
            assert peer.recv(2) == b"\x89\0"
            assert peer.recv(4) == b"\x88\x0e" + (1011).to_bytes(2, "big")
    with serving(ws_ping_interval=0.3, ws_ping_timeout="off") as server:
        with open_websocket(server) as peer:
            for _ in range(4):
                assert peer.recv(2) == b"\x89\0"


@effect("ws_per_message_deflate")
def test_ws_per_message_deflate() -> None:
    agreed = {}
    for mode in ("shared", "context", "off"):
        with serving(ws_per_message_deflate=mode) as server:
            with connect(server.urls[0].replace("http", "ws")) as client:
                agreed[mode] = [repr(extension) for extension in client.protocol.extensions]
    assert "local_no_context_takeover=True" in agreed["shared"][0]
    assert "local_no_context_takeover=False" in agreed["context"][0]
    assert agreed["off"] == []


def sent_bytes(server: RunningServer, messages: int) -> int:
    """How long the frames are in which messages of 1000 bytes come back."""
    with connect(server.urls[0].replace("http", "ws")) as client:
        seen: list[int] = []
        (extension,) = client.protocol.extensions
        decode = extension.decode

        def measure(frame: Any, *, max_size: int | None = None) -> Any:
            seen.append(len(frame.data))
            return decode(frame, max_size=max_size)

        extension.decode = measure  # type: ignore[method-assign]
        for _ in range(messages):
            client.send(b"0123456789" * 100)
            client.recv(TIMEOUT_SECONDS)
        return sum(seen)


@effect("ws_deflate_min_size")
def test_ws_deflate_min_size() -> None:
    for size, compressed in ((1000, True), (1001, False)):
        with serving(ws_deflate_min_size=size) as server:
            assert (sent_bytes(server, 1) < 1000) is compressed


@effect("ws_deflate_max_contexts")
def test_ws_deflate_max_contexts() -> None:
    sizes = []
    for contexts in (0, 1):
        options: dict[str, Any] = {"ws_per_message_deflate": "context"}
        with serving(ws_deflate_max_contexts=contexts, **options) as server:
            sizes.append(sent_bytes(server, 10))
    assert sizes[1] < sizes[0] / 1.5


@effect("send_buffer_bytes")
def test_send_buffer_bytes() -> None:
    total, chunk = 64 * 2**20, 2**20  # far more than the kernel buffers on the way
    all_sent, first_sent = threading.Event(), threading.Event()

    async def flood(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/flood":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(total // chunk):
                await send({"type": "http.response.body", "body": bytes(chunk), "more_body": True})
                first_sent.set()
            all_sent.set()
            await send({"type": "http.response.body"})
        else:
            await app(scope, receive, send)

    for size, fits in ((65536, False), (2 * total, True)):
        all_sent.clear()
        first_sent.clear()
        with serving(flood, send_buffer_bytes=size, timeout_graceful_shutdown=0) as server:
            with open_connection(server) as peer:
                peer.sendall(b"GET /flood HTTP/1.1\r\nhost: x\r\n\r\n")
                if fits:
                    assert all_sent.wait(TIMEOUT_SECONDS)
                else:
                    assert first_sent.wait(TIMEOUT_SECONDS)
                    for _ in range(20):  # the loop has had time for everything it can do
                        response(server)
                    assert not all_sent.is_set()


def huge_bytes(pid: int) -> int:
    """What of the private memory of a process is in huge pages."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^AnonHugePages: +(\d+) kB$", text, re.MULTILINE)
    assert found
    return int(found[1]) * 1024


@effect("huge_pages")
def test_huge_pages(launch: Launch, tmp_path: Path) -> None:
    # Enough small objects for some regions to be full of them, whatever their bounds.
    module = tmp_path / "heavy_app.py"
    module.write_text(
        f"import sys\nsys.path.append({str(TESTS)!r})\nfrom supervised_apps import app\n"
        "ballast = [[n] for n in range(200_000)]\n"
    )
    plain = launch("heavy_app:app", "--app-dir", str(tmp_path), "--no-huge-pages").wait_ready()
    before, collapses = huge_bytes(plain.pid), kernel_collapses()
    assert plain.stop() == 0
    server = launch("heavy_app:app", "--app-dir", str(tmp_path), "--log-level", "debug")
    server.wait_ready()
    moved = int(server.wait_for(r"(\d+) MiB of the heap are in huge pages")[1]) * 2**20
    assert huge_bytes(server.pid) >= moved
    assert server.get()
    assert server.stop() == 0
    if collapses:
        assert moved >= 4 * 2**20
        # Where the system gives huge pages unasked, some are there without us.
        assert before < (moved if "[always]" in HUGE_PAGES.read_text() else 4 * 2**20)


HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
MADV_COLLAPSE = 25


def kernel_collapses() -> bool:
    """Whether this kernel may move memory into huge pages, and now has 4 MiB of them."""
    if not HUGE_PAGES.exists() or "[never]" in HUGE_PAGES.read_text():
        return False
    # Wherever it begins, two huge pages are in it.
    with mmap.mmap(-1, 6 * 2**20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.write(b"x" * len(memory))
        try:
            memory.madvise(MADV_COLLAPSE)
        except OSError:
            return False
    return True


@effect("date_header")
def test_date_header() -> None:
    with serving() as server:
        assert "\r\ndate: " in response(server).lower()
    with serving(date_header=False) as server:
        assert "\r\ndate: " not in response(server).lower()


@effect("server_header")
def test_server_header() -> None:
    with serving() as server:
        assert "\r\nserver: framegate\r\n" in response(server).lower()
    with serving(server_header=False) as server:
        assert "\r\nserver: " not in response(server).lower()


@effect("headers")
def test_headers() -> None:
    with serving(headers=["x-first: 1", ("X-Second", "2")]) as server:
        text = response(server).lower()
        assert "\r\nx-first: 1\r\n" in text
        assert "\r\nx-second: 2\r\n" in text


def typed(kind: bytes, *more: tuple[bytes, bytes], size: int = 5000) -> Any:
    """An application that answers so many bytes of a type."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", kind), *more]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"a" * size})

    return application


def coding(application: Any, **options: Any) -> tuple[str, int]:
    """How an answer came to a client that takes everything, and in how many bytes."""
    options = {"lifespan": "off", "compress": True, **options}
    with serving(application, **options) as server:
        text = response(server, "Accept-Encoding: gzip, br, zstd").lower()
    head, _, content = text.partition("\r\n\r\n")
    found = re.search(r"content-encoding: (\w+)", head)
    return (found[1] if found else "", len(content))


@effect("compress")
def test_compress() -> None:
    assert coding(typed(b"text/plain"))[0] == "zstd"
    assert coding(typed(b"text/plain"), compress=False) == ("", 5000)


@effect("compress_min_size")
def test_compress_min_size() -> None:
    assert coding(typed(b"text/plain", size=99), compress_min_size=100)[0] == ""
    assert coding(typed(b"text/plain", size=100), compress_min_size=100)[0] == "zstd"


@effect("compress_types")
def test_compress_types() -> None:
    assert coding(typed(b"image/png"))[0] == ""
    assert coding(typed(b"image/png"), compress_types=["image/*"])[0] == "zstd"
    assert coding(typed(b"text/plain"), compress_types=["image/*"])[0] == ""


@effect("compress_level")
def test_compress_level() -> None:
    import random

    words = [bytes(random.Random(n).choices(b"abcdefgh", k=5)) for n in range(300)]
    content = b" ".join(random.Random(1).choices(words, k=10_000))

    async def application(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/plain")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    sizes = [coding(application, compress_level=level)[1] for level in ("small", "fast")]
    assert sizes == sorted(sizes) and sizes[0] < sizes[1]


@effect("compress_cookies")
def test_compress_cookies() -> None:
    application = typed(b"text/plain", (b"set-cookie", b"a=b"))
    assert coding(application)[0] == ""
    assert coding(application, compress_cookies=True)[0] == "zstd"


@effect("topics")
@effect("topic_rules")
@effect("topics_max")
@effect("topics_wait")
@effect("topics_poll")
def test_frame_routes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAMEGATE_RUNTIME_DIR", str(tmp_path))
    rule = {"create": True, "slots": 2, "slot_bytes": 10}
    options: dict[str, Any] = {"topics": "/t", "topic_rules": {"a/*": rule}}

    def status(server: RunningServer, method: str, path: str) -> str:
        with open_connection(server) as peer:
            lines = [f"{method} {path} HTTP/1.1", "host: localhost", "connection: close"]
            lines += ["content-length: 1"] if method == "POST" else []
            content = "x" if method == "POST" else ""
            peer.sendall(("\r\n".join(lines) + f"\r\n\r\n{content}").encode())
            return read_to_end(peer)[9:12]

    with serving(topics_max=1, topics_wait=0.01, topics_poll=0.01, **options) as server:
        assert status(server, "POST", "/elsewhere/a") == "200"
        assert status(server, "POST", "/t/b") == "404"
        assert status(server, "POST", "/t/a/1") == "201"
        assert status(server, "POST", "/t/a/2") == "507"
        # Nothing newer comes within topics_poll.
        assert status(server, "GET", "/t/a/1?view=latest&after=1") == "204"
        with Publisher("a/1") as publisher, publisher.loan(), Subscriber("a/1") as reader:
            with reader.take(timeout=5):
                # No slot is free within topics_wait.
                assert status(server, "POST", "/t/a/1") == "503"


@effect("live")
def test_live_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAMEGATE_RUNTIME_DIR", str(tmp_path))

    def page(**options: Any) -> str:
        with serving(topics="/t", **options) as server, open_connection(server) as peer:
            peer.sendall(b"GET /look/ HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            return read_to_end(peer)

    assert "<title>framegate live</title>" in page(live="/look")
    assert "framegate live" not in page()


@effect("static")
@effect("static_cache_control")
@effect("static_immutable")
@effect("static_precompressed")
def test_static_files(tmp_path: Path) -> None:
    (tmp_path / "a.js").write_text("let a")
    (tmp_path / "a.js.gz").write_bytes(b"packed")
    (tmp_path / "b.01234567.js").write_text("let b")
    options: dict[str, Any] = {"static": {"/s": tmp_path}}

    def get(name: str, **more: Any) -> str:
        with serving(**options, **more) as server:
            return response(server, "Accept-Encoding: gzip", path=f"/s/{name}")

    assert get("a.js").endswith("\r\n\r\npacked")
    assert get("a.js", static_precompressed=False).endswith("\r\n\r\nlet a")
    assert "cache-control: no-cache\r\n" in get("a.js")
    assert "cache-control: max-age=5\r\n" in get("a.js", static_cache_control="max-age=5")
    assert "immutable" not in get("b.01234567.js")
    assert "immutable" in get("b.01234567.js", static_immutable="*.????????.js")


@effect("log_level")
def test_log_level(launch: Launch) -> None:
    quiet = launch("supervised_apps:app", "--log-level", "error", "--no-access-log")
    quiet.wait_event("startup")
    assert quiet.stop() == 0
    assert quiet.text == ""
    chatty = launch("supervised_apps:app", "--log-level", "info").wait_ready()
    assert chatty.stop() == 0
    assert "stopping" in chatty.text


@effect("access_log")
def test_access_log(launch: Launch) -> None:
    for word, expected in (("--access-log", True), ("--no-access-log", False)):
        server = launch("supervised_apps:app", word).wait_ready()
        assert server.get("/pid")
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert ("GET /pid" in server.text) is expected


@effect("log_format")
def test_log_format(launch: Launch) -> None:
    server = launch("supervised_apps:app", "--log-format", "json").wait_ready()
    assert server.get("/pid")
    assert server.stop() == 0
    lines = [json.loads(line) for line in server.lines]
    (access,) = [line for line in lines if line["logger"] == "framegate.access"]
    assert (access["method"], access["target"], access["status"]) == ("GET", "/pid", 200)
    (ready,) = [line for line in lines if line.get("message", "").startswith("ready: pid")]
    assert (ready["level"], ready["pid"]) == ("info", server.pid)


@effect("use_colors")
def test_use_colors(launch: Launch) -> None:
    for word, expected in (("--use-colors", True), ("--no-use-colors", False)):
        server = launch("supervised_apps:app", word, extra={"FORCE_COLOR": "1"}).wait_ready()
        assert server.stop() == 0
        assert ("\x1b[" in server.text) is expected


# Effects that need more than a few lines: setting, file below tests/, test.
SHOWN_ELSEWHERE = [
    ("topics_local", "topics/test_topic_access.py", "test_machine_itself_can_be_left_out"),
    ("topics_token_file", "topics/test_topic_access.py", "test_file_of_tokens_is_read_anew"),
    ("topics_tokens", "topics/test_topic_access.py", "test_two_users_of_one_connection"),
    ("topics_token", "topics/test_topic_access.py", "test_unix_socket_needs_a_token"),
    ("topics_access", "topics/test_topic_access.py", "test_application_decides"),
    ("topics_bind", "topics/test_topics_bind.py", "test_only_frame_routes_are_there"),
    (
        "topics_access_timeout",
        "topics/test_topics_bind.py",
        "test_access_function_has_a_time",
    ),
    ("topics_queue_max", "topics/test_topics_bind.py", "test_queue_says_what_it_lost"),
    ("topics_queue_bytes", "topics/test_topics_bind.py", "test_copies_of_queues_have_a_limit"),
    ("topics_calls", "topics/test_topic_calls.py", "test_prefix_of_calls_can_be_another"),
    ("topics_call_timeout", "topics/test_topic_calls.py", "test_reply_that_is_late_is_504"),
    ("topics_call_timeout_max", "topics/test_topic_calls.py", "test_reply_that_is_late_is_504"),
    ("topics_calls_max", "topics/test_topic_calls.py", "test_number_of_calls_in_flight"),
    ("topics_parts_max", "topics/test_multipart.py", "test_limit_of_parts_is_a_setting"),
    ("topics_viewers", "topics/test_watching.py", "test_viewers_are_counted_and_leave_at_once"),
    ("topics_pixels_max", "topics/test_watching.py", "test_picture_over_the_limit_is_refused"),
    ("topics_picture_threads", "topics/test_watching.py", "test_pictures_are_made_by_threads"),
    ("env_file", "config/test_env_file.py", "test_application_sees_it_while_it_is_imported"),
    ("reload", "development/test_reload.py", "test_saved_code_is_served_and_pages_get_the_script"),
    ("reload_dirs", "development/test_reload.py", "test_directories_that_are_named"),
    ("reload_includes", "development/test_reload.py", "test_reload_dir_include_exclude_and_delay"),
    ("reload_excludes", "development/test_reload.py", "test_reload_dir_include_exclude_and_delay"),
    ("reload_delay", "development/test_reload.py", "test_reload_dir_include_exclude_and_delay"),
    ("debug", "development/test_debug.py", "test_debug_page_shows_source_variables_and_request"),
    ("log_config", "cli/test_log_config.py", "test_configuration_of_uvicorn_works_as_it_is"),
    (
        "access_log_format",
        "logs/test_access_log.py",
        "test_fields_of_request_and_response_in_a_file",
    ),
    ("access_log_file", "logs/test_access_log.py", "test_file_is_opened_anew_on_a_signal"),
    ("access_log_exclude", "logs/test_access_log.py", "test_paths_are_left_out_while_they_succeed"),
    ("slow_request", "logs/test_slow_requests.py", "test_slow_request_is_told_when_it_is_over"),
    ("server_timing", "logs/test_slow_requests.py", "test_server_timing"),
    ("collector", "logs/test_events.py", "test_workers_have_collectors_of_their_own"),
    ("ssl_certfile", "tls/test_handshake.py", "test_key_in_the_file_of_the_certificate"),
    ("ssl_keyfile", "tls/test_handshake.py", "test_every_form_of_key"),
    ("ssl_keyfile_password", "tls/test_errors.py", "test_right"),
    ("ssl_keyfile_password_file", "tls/test_errors.py", "test_right"),
    ("ssl_version", "tls/test_handshake.py", "test_one_version_only"),
    ("ssl_ciphers", "tls/test_handshake.py", "test_cipher_suites_restrict_the_version"),
    ("ssl_cert_reqs", "tls/test_client_certificates.py", "test_required"),
    ("ssl_ca_certs", "tls/test_client_certificates.py", "test_several_authorities"),
    ("ssl_ca_system", "tls/test_client_certificates.py", "test_authorities_of_the_system"),
    ("ssl_crl", "tls/test_client_certificates.py", "test_revoked"),
    ("https_redirect_bind", "tls/test_redirect.py", "test_redirect"),
    ("https_redirect_port", "tls/test_redirect.py", "test_port_that_clients_use"),
    ("ssl_handshake_timeout", "tls/test_limits.py", "test_slow_handshake_is_cut"),
    ("ssl_handshakes_max", "tls/test_limits.py", "test_those_that_stand_still_make_room"),
    ("worker_restarts_max", "supervisor/test_supervisor.py", "test_budget_of_crashes_can_be_set"),
    ("worker_timeout", "supervisor/test_stalls.py", "test_worker_timeout_kills_and_replaces"),
    ("limit_max_requests", "supervisor/test_recycling.py", "test_replaced_by_requests"),
    ("limit_max_requests_jitter", "supervisor/test_recycling.py", "test_replaced_by_requests"),
    ("limit_max_rss", "supervisor/test_recycling.py", "test_replaced_by_memory"),
    ("limit_max_lifetime", "supervisor/test_recycling.py", "test_one_worker_gets_a_supervisor"),
    ("admin_bind", "metrics/test_admin.py", "test_alive_ready_and_reasons"),
    ("health_path", "metrics/test_admin.py", "test_health_path_on_the_main_port"),
    ("metrics_path", "metrics/test_metrics.py", "test_path_on_the_main_port"),
    ("metrics_topics", "metrics/test_topics.py", "test_only_so_many_topics_have_metrics"),
    ("ready_lag_max", "metrics/test_admin.py", "test_scrape_while_python_blocks"),
    ("otel", "tracing/test_export.py", "test_rolling_restart_exports_everything"),
    ("otel_active_requests", "tracing/test_export.py", "test_metrics_by_the_conventions"),
    ("sentry_dsn", "metrics/test_sentry.py", "test_exception_is_reported"),
    ("sentry_environment", "metrics/test_sentry.py", "test_exception_is_reported"),
    ("sentry_release", "metrics/test_sentry.py", "test_exception_is_reported"),
    ("log_stalls", "supervisor/test_stalls.py", "test_stall_is_logged_with_its_stack"),
]


@pytest.mark.parametrize(("name", "file", "test"), SHOWN_ELSEWHERE)
def test_effect_that_is_shown_elsewhere(name: str, file: str, test: str) -> None:
    text = (Path(__file__).parents[1] / file).read_text()
    assert f"def {test}" in text
    spellings = next(item.command_line for item in SETTINGS if item.name == name)
    assert name in text or any(spelling in text for spelling in spellings)


async def scope_app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answers with who the client is."""
    await answer(send, json.dumps(scope["client"]).encode())


@effect("forwarded_allow_ips")
def test_forwarded_allow_ips() -> None:
    header = "x-forwarded-for: 192.0.2.7"
    with serving(scope_app, lifespan="off", forwarded_allow_ips="127.0.0.1") as server:
        assert '["192.0.2.7", 0]' in response(server, header)
    with serving(scope_app, lifespan="off") as server:
        assert "192.0.2.7" not in response(server, header)


@effect("forwarded_headers")
def test_forwarded_headers() -> None:
    both = ("x-forwarded-for: 192.0.2.7", "forwarded: for=192.0.2.8")
    for value, client in (("auto", "192.0.2.7"), ("forwarded", "192.0.2.8")):
        options = {"forwarded_allow_ips": "127.0.0.1", "forwarded_headers": value}
        with serving(scope_app, lifespan="off", **options) as server:
            assert client in response(server, *both)


@effect("request_id")
def test_request_id() -> None:
    with serving(request_id=True) as server:
        assert re.search("^x-request-id: [0-9a-f]{32}\r$", response(server), re.M)
    with serving() as server:
        assert "x-request-id" not in response(server)


@effect("rate_limit")
def test_rate_limit() -> None:
    with serving(rate_limit="2/h") as server:
        answers = [response(server) for _ in range(3)]
    assert [status(text) for text in answers] == [200, 200, 429]
    assert '\r\nratelimit-policy: "client";q=2;w=3600\r\n' in answers[0]
    assert '\r\nratelimit: "client";r=1;t=1800\r\n' in answers[0]
    assert re.search(r"\r\nretry-after: 1[78][0-9]{2}\r\n", answers[2])
    with serving() as server:
        assert "ratelimit" not in response(server)


@effect("rate_limit_key")
def test_rate_limit_key() -> None:
    with serving(rate_limit_key="X-Api-Key=1/h") as server:
        keys = ("a", "b", "a", "b")
        assert [status(response(server, f"x-api-key: {key}")) for key in keys] == [
            200,
            200,
            429,
            429,
        ]
        assert status(response(server)) == 200


@effect("limit_exempt_paths")
def test_limit_exempt_paths() -> None:
    for paths, last in (((), 429), (("/",), 200)):
        with serving(rate_limit="1/h", limit_exempt_paths=paths) as server:
            assert [status(response(server)) for _ in range(2)] == [200, last]


@effect("rate_limit_entries")
def test_rate_limit_entries() -> None:
    # Eight words are one set: the ninth key begins with the debt of the one that it replaces.
    for entries, last in ((8, 429), (65_536, 200)):
        options = {"rate_limit_key": "x-key=1/h", "rate_limit_entries": entries}
        with serving(**options) as server:
            found = [status(response(server, f"x-key: {number}")) for number in range(9)]
        assert found == [200] * 8 + [last]


@effect("limit_connections")
def test_limit_connections() -> None:
    with serving(limit_connections=1) as server:
        with open_connection(server) as first:
            first.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert first.recv(65536).startswith(b"HTTP/1.1 200")
            refused = response(server)
            assert (status(refused), "\r\nretry-after: 1\r\n" in refused) == (503, True)
    with serving() as server, open_connection(server):
        assert status(response(server)) == 200


class Slow:
    """An application whose requests last until they are released."""

    def __init__(self) -> None:
        self.began = threading.Semaphore(0)
        self.release = threading.Event()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self.began.release()
        await asyncio.get_running_loop().run_in_executor(None, self.release.wait, 60)
        await answer(send, b"")


@contextmanager
def one_is_running(**options: Any) -> Iterator[tuple[RunningServer, Slow]]:
    slow = Slow()
    with serving(slow, lifespan="off", limit_requests=1, **options) as server:
        with open_connection(server) as first:
            first.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert slow.began.acquire(timeout=TIMEOUT_SECONDS)
            try:
                yield server, slow
            finally:
                slow.release.set()
            assert status(read_to_end(first)) == 200


@effect("limit_requests")
def test_limit_requests() -> None:
    with one_is_running(limit_queue_timeout=60) as (server, slow):
        with open_connection(server) as second:
            second.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert not slow.began.acquire(timeout=0.1)
            slow.release.set()
            assert slow.began.acquire(timeout=TIMEOUT_SECONDS)
            assert status(read_to_end(second)) == 200


@effect("limit_queue")
def test_limit_queue() -> None:
    with one_is_running(limit_queue=0) as (server, _):
        refused = response(server)
        assert (status(refused), "\r\nretry-after: 1\r\n" in refused) == (503, True)


@effect("limit_queue_timeout")
def test_limit_queue_timeout() -> None:
    with one_is_running(limit_queue_timeout=0.05) as (server, _):
        assert status(response(server)) == 503


def test_every_setting_has_a_test_of_its_effect() -> None:
    elsewhere = {name for name, _, _ in SHOWN_ELSEWHERE}
    assert shown | elsewhere == {setting.name for setting in SETTINGS}
