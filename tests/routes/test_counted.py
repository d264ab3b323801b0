"""A request that is refused makes no Python object and runs no bytecode: counted."""

from __future__ import annotations

import json
import socket
from typing import Any

from server_process import Launch, launch

__all__ = ["launch"]

BAD = [b'{"price": "x", "more": [1, {"a": 2}]}', b'{"name": "a", "name": "b"}']
GOOD = b'{"name": "a", "price": 1.5}'


def ask(target: str, body: bytes = b"") -> bytes:
    method = b"POST" if body else b"GET"
    head = b"%s %s HTTP/1.1\r\nhost: t\r\ncontent-length: %d\r\n\r\n"
    return head % (method, target.encode(), len(body)) + body


def read(file: Any) -> tuple[int, bytes]:
    """Read one response."""
    status = int(file.readline().split()[1])
    length = 0
    while (line := file.readline().strip()) != b"":
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return status, file.read(length)


def test_refused_requests_make_no_object_and_run_no_bytecode(launch: Launch) -> None:
    port = launch("routes.counted_app:app", "--no-access-log").port

    def measure(bodies: list[bytes], target: str) -> tuple[list[int], int, int]:
        """Statuses, calls and bytes between two requests; all in one write on one connection."""
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            file = connection.makefile("rb")
            middle = b"".join(ask(target, body) for body in bodies)
            connection.sendall(ask("/begin") + middle + ask("/end"))
            replies = [read(file) for _ in range(len(bodies) + 2)]
        counted = json.loads(replies[-1][1])
        return [status for status, _ in replies[1:-1]], counted["calls"], counted["bytes"]

    measure(BAD, "/items?limit=x")  # whatever is made once
    measure([GOOD], "/items")
    statuses, calls, made = measure([], "/items")
    assert statuses == []
    for count in (1, 6):
        refused = measure(BAD * count, "/items?limit=x")
        assert refused == ([422, 400] * count, calls, made)
    # The same is seen where a handler is called.
    statuses, more_calls, more_made = measure([GOOD], "/items")
    assert statuses == [200]
    assert more_calls > calls
    assert more_made > made
