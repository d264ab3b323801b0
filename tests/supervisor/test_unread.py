"""SIGTERM while clients do not read what they asked for: the server ends all the same, in time.

What is still open at the end of the grace is cut, and calls of the application that go on are
cancelled. That this takes no longer than `SHUTDOWN_SECONDS` and a margin is what the watchdog of
the worker and the supervisor look after: whoever is later is ended by force, which is a line in the
log and exit code 1. So no test here measures time.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from peers import h2_client
from server_process import Launch, ServerProcess

APP = "supervisor.unread_apps:app"
BIG_FILE_BYTES = 64 << 20
HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
GOAWAY = 7  # RFC 9113, 6.8
WORKERS = pytest.mark.parametrize("workers", ["1", "2"])


def start(launch: Launch, directory: Path, workers: str, grace: str) -> ServerProcess:
    big = directory / "big"
    with big.open("wb") as file:
        file.truncate(BIG_FILE_BYTES)
    words = ("--workers", workers, "--timeout-graceful-shutdown", grace)
    return launch(APP, *words, extra={"BIG_FILE": str(big)}).wait_ready()


def ask(server: ServerProcess, text: str) -> socket.socket:
    """Send a request, and never read; little fits into the kernel's buffer of this side."""
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    peer.settimeout(60)
    peer.connect(("127.0.0.1", server.port))
    peer.sendall(text.encode())
    return peer


def get(path: str) -> str:
    return f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n"


def read_to_end(peer: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := peer.recv(65536):
            received += chunk
    return received


def frame_types(data: bytes) -> set[int]:
    """Types of the frames of HTTP/2, of which the last may be cut short."""
    found = set()
    while len(data) >= 9:
        found.add(data[3])
        data = data[9 + int.from_bytes(data[:3]) :]
    return found


def assert_ended_in_time(server: ServerProcess, workers: str) -> None:
    assert server.wait() == 0
    assert "ended by force" not in server.text
    assert "is killed" not in server.text
    assert "Traceback" not in server.text
    assert len(server.events("shutdown")) == int(workers)


@WORKERS
@pytest.mark.parametrize("path", ["/stream", "/download", "/file"])
def test_response_that_nobody_reads(
    launch: Launch, tmp_path: Path, workers: str, path: str
) -> None:
    server = start(launch, tmp_path, workers, "0.5")
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(ask(server, get(path)))
        server.wait_event(path, 3)
        server.signal(signal.SIGTERM)
        assert_ended_in_time(server, workers)
    assert len(server.events("end")) == 3
    assert "were still busy after 0.5 s and were cut" in server.text


@WORKERS
def test_stream_of_http2_that_gets_no_credit(launch: Launch, tmp_path: Path, workers: str) -> None:
    server = start(launch, tmp_path, workers, "0.5")
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as plain:
        client = h2_client.Client(plain, reads=False)
        for path in ("/stream", "/download", "/file", "/stuck"):
            client.request(path)
            client.flush()
            server.wait_event(path)
        client.request("/upload", b"part", method="POST", ends=False)
        client.flush()
        server.wait_event("/upload")
        server.signal(signal.SIGTERM)
        assert_ended_in_time(server, workers)
        # It was told before it was cut.
        assert GOAWAY in frame_types(read_to_end(plain))
    assert len(server.events("end")) == 5


@WORKERS
def test_websocket_that_nobody_reads(launch: Launch, tmp_path: Path, workers: str) -> None:
    """Its close frame has no room: it is cut at the end of the grace."""
    server = start(launch, tmp_path, workers, "0.5")
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(ask(server, HANDSHAKE.format(path="/flood")))
        server.wait_event("ws/flood", 3)
        server.signal(signal.SIGTERM)
        assert_ended_in_time(server, workers)
    assert len(server.events("ws-end")) == 3


@WORKERS
def test_websocket_that_never_answers_the_close(
    launch: Launch, tmp_path: Path, workers: str
) -> None:
    """The frame reaches it, with 1012, and nothing comes back."""
    server = start(launch, tmp_path, workers, "0.5")
    with ask(server, HANDSHAKE.format(path="/quiet")) as peer:
        server.wait_event("ws/quiet")
        server.signal(signal.SIGTERM)
        assert_ended_in_time(server, workers)
        received = read_to_end(peer)
        assert b"\x88" in received
        assert (1012).to_bytes(2) in received


@WORKERS
def test_all_of_them_at_once(launch: Launch, tmp_path: Path, workers: str) -> None:
    server = start(launch, tmp_path, workers, "1")
    over = threading.Event()
    with contextlib.ExitStack() as stack:
        # Those that behave, to see that they are told all the same.
        url = f"ws://127.0.0.1:{server.port}/good"
        good = [stack.enter_context(connect(url)) for _ in range(3)]
        server.wait_event("ws/good", 3)
        for path in ("/stream", "/download", "/file", "/stuck"):
            for _ in range(3):
                stack.enter_context(ask(server, get(path)))
            server.wait_event(path, 3)
        for path in ("/flood", "/quiet"):
            for _ in range(3):
                stack.enter_context(ask(server, HANDSHAKE.format(path=path)))
            server.wait_event(f"ws{path}", 3)
        head = "POST /upload HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\nabc"
        idle = [stack.enter_context(ask(server, head)) for _ in range(2)]
        busy = stack.enter_context(ask(server, head))
        server.wait_event("/upload", 3)
        stack.enter_context(ask(server, "GET / HTTP/1.1\r\nho"))
        stack.enter_context(ask(server, ""))

        def upload() -> None:
            with contextlib.suppress(OSError):
                while not over.is_set():
                    busy.sendall(b"x" * 1000)
                    over.wait(0.005)

        uploading = threading.Thread(target=upload)
        uploading.start()
        server.signal(signal.SIGTERM)
        for item in good:
            with pytest.raises(ConnectionClosed) as closed:
                item.recv(timeout=60)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
        assert_ended_in_time(server, workers)
        over.set()
        uploading.join()
        assert idle
    assert len(server.events("end")) == 4 * 3 + 3
    assert len(server.events("ws-end")) == 3 * 3
    assert server.events("upload-disconnect"), "an upload is told that it was cut"
