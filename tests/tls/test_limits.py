"""Handshakes have a time and a number, and those that stand still harm nobody."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path

import pytest

from tls.apps import app
from tls.conftest import ServeTls, TlsClient
from tls.test_handshake import client_hello


def wait_for_end(peer: socket.socket) -> None:
    with contextlib.suppress(ConnectionResetError):
        while peer.recv(4096):
            pass


@pytest.mark.parametrize(
    "sent", [b"", b"\x16", client_hello(0x11EC)[:100], client_hello(0x11EC)], ids=len
)
def test_slow_handshake_is_cut(serve_tls: ServeTls, sent: bytes) -> None:
    client = serve_tls(app, ssl_handshake_timeout=0.3)
    begin = time.monotonic()  # the server's time may have begun when `connect` returns
    with client.server.connect() as peer:
        peer.sendall(sent)
        wait_for_end(peer)
    assert time.monotonic() - begin >= 0.2


def test_handshake_within_its_time(serve_tls: ServeTls) -> None:
    client = serve_tls(app, ssl_handshake_timeout=5)
    with client.server.connect() as peer:
        pause = threading.Event()
        pause.wait(0.6)  # two sweeps
        with client.context.wrap_socket(peer, server_hostname="localhost") as connection:
            pause.wait(0.6)
            connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")


def test_trickling_is_not_progress(serve_tls: ServeTls) -> None:
    client = serve_tls(app, ssl_handshake_timeout=0.5)
    pause = threading.Event()
    with client.server.connect() as peer, pytest.raises((ConnectionError, BrokenPipeError)):
        for byte in client_hello(0x11EC):
            peer.sendall(bytes([byte]))
            pause.wait(0.05)


def test_half_open_handshakes_while_others_are_served(serve_tls: ServeTls) -> None:
    client = serve_tls(app)
    with contextlib.ExitStack() as stack:
        for number in range(200):
            peer = stack.enter_context(client.server.connect())
            peer.sendall(client_hello(0x11EC)[: number % 5 * 50])
        begin = time.monotonic()
        assert client.get().endswith(b"hello")
        assert time.monotonic() - begin < 1.0 + 4.0  # a second, and a busy machine


def count_answered(client: TlsClient, count: int) -> int:
    answered: list[bytes] = []
    threads = [threading.Thread(target=lambda: answered.append(client.get())) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(response.endswith(b"hello") for response in answered)


def test_those_that_stand_still_make_room(serve_tls: ServeTls) -> None:
    """At the bound others wait in the kernel's queue, and the idle ones go after a second."""
    client = serve_tls(app, ssl_handshakes_max=5, ssl_handshake_timeout=60)
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(client.server.connect()) for _ in range(5)]
        assert count_answered(client, 8) == 8
        for peer in idle:
            wait_for_end(peer)


def test_below_the_bound_they_may_stand_still(serve_tls: ServeTls) -> None:
    client = serve_tls(app, ssl_handshakes_max=6, ssl_handshake_timeout=60)
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(client.server.connect()) for _ in range(5)]
        assert client.get().endswith(b"hello")
        threading.Event().wait(1.6)
        for peer in idle:
            peer.setblocking(False)
            with pytest.raises(BlockingIOError):
                peer.recv(1)


def test_server_stops_at_once_despite_half_open_handshakes(serve_tls: ServeTls) -> None:
    client = serve_tls(app, ssl_handshake_timeout=60)
    with contextlib.ExitStack() as stack:
        for sent in (b"", client_hello(0x11EC)):
            peer = stack.enter_context(client.server.connect())
            peer.sendall(sent)
        assert client.get().endswith(b"hello")
        begin = time.monotonic()
        client.server.stop()
        assert time.monotonic() - begin < 5.0


def test_reader_that_takes_nothing_is_cut_and_a_slow_one_is_not(serve_tls: ServeTls) -> None:
    """What waits in TLS counts as unwritten, and no longer once it has left."""
    client = serve_tls(app, timeout_write=2)
    plain = client.server.connect()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    pause = threading.Event()
    with client.context.wrap_socket(plain, server_hostname="localhost") as connection:
        connection.sendall(b"GET /bytes/400000 HTTP/1.1\r\nhost: x\r\n\r\n")
        pause.wait(0.5)
        received = 0
        while received < 400_000:
            piece = connection.recv(65536)
            assert piece
            received += len(piece)
        # Everything has left: idle from here on, for longer than the time for writing.
        pause.wait(4.0)
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"HTTP/1.1 200" in connection.recv(4096)
    peer = client.connect()
    with contextlib.closing(peer):
        peer.sendall(b"GET /bytes/50000000 HTTP/1.1\r\nhost: x\r\n\r\n")
        # Its end is behind what it does not read: that the server has closed, the kernel tells.
        established = f":{peer.getsockname()[1]:04X} 01 "
        while established in Path("/proc/net/tcp").read_text():
            pause.wait(0.05)
        received = 0
        with contextlib.suppress(OSError):
            while chunk := peer.recv(1 << 20):
                received += len(chunk)
    assert received < 50_000_000
