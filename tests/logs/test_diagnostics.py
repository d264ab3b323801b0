"""`framegate.connections`: what becomes of connections, at level debug."""

from __future__ import annotations

import logging
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from framegate import Server
from framegate.server import RunningServer
from logs.application import app
from logs.test_slow_requests import Seen

LOGGER = logging.getLogger("framegate.connections")


@pytest.fixture
def seen() -> Iterator[Seen]:
    handler = Seen()
    LOGGER.addHandler(handler)
    before = LOGGER.level, LOGGER.propagate
    LOGGER.setLevel(logging.DEBUG)
    LOGGER.propagate = False
    yield handler
    LOGGER.setLevel(before[0])
    LOGGER.propagate = before[1]
    LOGGER.removeHandler(handler)


def test_connections_of_topics_bind_are_told_of(seen: Seen, runtime: Path) -> None:
    options: dict[str, Any] = {"topics": "/topics", "topics_bind": "127.0.0.1:0"}
    with Server(app, port=0, access_log=False, **options).start_in_thread() as server:
        (url,) = server.topics_urls
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        with socket.create_connection(address, timeout=60) as peer:
            name = f"127.0.0.1:{peer.getsockname()[1]}"
            peer.sendall(b"NO\0 SUCH / HTTP/1.1\r\n\r\n")
            while peer.recv(65536):
                pass
        # Without a word from the client, and open when the server stops.
        with socket.create_connection(address, timeout=60) as peer:
            second = f"127.0.0.1:{peer.getsockname()[1]}"
            seen.wait_for_text(f"topics connection 2 from {second} to {url[7:]}: opened")
            server.stop()
    opened, trouble, closed = (text for text in seen.messages if name in text)
    assert opened == f"topics connection 1 from {name} to {url[7:]}: opened"
    assert trouble.startswith(f"topics connection 1 from {name}: HTTP/1.1: ")
    assert closed.startswith(f"topics connection 1 from {name}: closed after ")
    assert seen.messages[-1].startswith(f"topics connection 2 from {second}: closed after ")


def address_of(server: RunningServer) -> tuple[str, int]:
    return "127.0.0.1", int(server.urls[0].rpartition(":")[2])


def talk(data: bytes, **options: Any) -> str:
    """Serve one connection; return the name of its client."""
    with Server(app, port=0, access_log=False, **options).start_in_thread() as server:
        with socket.create_connection(address_of(server), timeout=60) as peer:
            name = f"127.0.0.1:{peer.getsockname()[1]}"
            peer.sendall(data)
            while peer.recv(65536):
                pass
    return name


def test_opened_and_closed_with_what_was_carried(seen: Seen) -> None:
    request = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    name = talk(request)
    opened, closed = seen.messages
    assert re.fullmatch(rf"connection 1 from {name} to 127\.0\.0\.1:\d+: opened", opened)
    numbers = re.fullmatch(
        rf"connection 1 from {name}: closed after \d+\.\d\d\d s, (\d+) bytes in, (\d+) out", closed
    )
    assert numbers
    assert int(numbers[1]) == len(request)
    assert int(numbers[2]) > 0
    assert {record.levelname for record in seen.records} == {"DEBUG"}


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"nonsense\r\n\r\n", r"HTTP/1\.1: .+"),
        (b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", r"answered 400: .*more than one Host"),
        (
            b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 11\r\n\r\n",
            r"answered 413: the body of the request is too large",
        ),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9 * 4), r"HTTP/2: .+"),
        (
            b"GET /ws HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            b"\x81\x01a",
            r"WebSocket ended with 1002: .+",
        ),
    ],
)
def test_what_was_wrong_is_said_of_the_client(seen: Seen, data: bytes, what: str) -> None:
    name = talk(data, max_body=10)
    assert any(re.fullmatch(f"connection 1 from {name}: {what}", text) for text in seen.messages), (
        seen.messages
    )


def test_limit_of_connections(seen: Seen) -> None:
    options = {"limit_concurrency": 1}
    with Server(app, port=0, access_log=False, **options).start_in_thread() as server:
        address = address_of(server)
        with (
            socket.create_connection(address, timeout=60),
            socket.create_connection(address, timeout=60),
        ):
            seen.wait_for_text("over the limit of connections: its requests are answered 503")


def test_slow_client_is_named(seen: Seen) -> None:
    name = talk(b"GET / HTTP/1.1\r\n", timeout_header=0.3)
    text = f"connection 1 from {name}: answered 408: the head of the request took too long"
    assert text in seen.messages


def test_nothing_is_told_at_other_levels(seen: Seen) -> None:
    LOGGER.setLevel(logging.INFO)
    talk(b"nonsense\r\n\r\n")
    assert seen.messages == []
