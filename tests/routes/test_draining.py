"""A server that stops answers the requests whose body is still on its way."""

from __future__ import annotations

import signal
import socket

import pytest

from routes.test_counted import ask, read
from server_process import Launch, launch

__all__ = ["launch"]


@pytest.mark.parametrize("target", ["/items", "/length"])
def test_a_body_on_its_way_is_waited_for(launch: Launch, target: str) -> None:
    server = launch("routes.counted_app:app", "--no-access-log").wait_ready()
    body = b'{"name": "a", "price": 1.5}'
    whole = ask(target, body)
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(whole[:-5])
        # Answered behind it: the head of the first has been read.
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as other:
            other.sendall(ask("/items?limit=x", b"{}"))
            assert read(other.makefile("rb"))[0] == 422
        server.signal(signal.SIGTERM)
        server.wait_for("stopping")
        connection.sendall(whole[-5:])
        file = connection.makefile("rb")
        status, answer = read(file)
        assert (status, answer) == (200, {"/items": b"a 0", "/length": b"27"}[target])
        assert file.read() == b""
    assert server.wait() == 0
