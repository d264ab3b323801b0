"""An authority, and servers with certificates of it."""

from __future__ import annotations

import contextlib
import select
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from server_process import launch
from server_thread import Serve, Server
from tls.authority import Authority

__all__ = ["launch"]


@pytest.fixture(scope="session")
def authority() -> Authority:
    """One that everybody trusts; making keys takes a while."""
    return Authority()


@pytest.fixture
def task_mode() -> str:
    """The mode of tasks makes no difference here."""
    return "lazy"


@dataclass
class TlsClient:
    """Opens TLS connections to a server of a test."""

    server: Server
    context: ssl.SSLContext

    def connect(self, name: str = "localhost", context: ssl.SSLContext | None = None) -> Any:
        plain = self.server.connect()
        try:
            return (context or self.context).wrap_socket(plain, server_hostname=name)
        except BaseException:
            plain.close()
            raise

    def get(self, path: str = "/", name: str = "localhost", **more: Any) -> bytes:
        """Send one request on a connection of its own; return the whole response."""
        with contextlib.closing(self.connect(name, **more)) as connection:
            request = f"GET {path} HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n"
            connection.sendall(request.encode())
            return read_to_end(connection)


def read_to_end(connection: Any) -> bytes:
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
    return received


def exchange(connection: Any, data: bytes, timeout_s: float = 20) -> Iterator[bytes]:
    """Send `data` and yield what comes back, until the end.

    On one thread: OpenSSL's connections are not made for two at a time, not even one that sends and
    one that receives, and older Pythons have no lock around them.
    """
    connection.setblocking(False)
    left = memoryview(data)
    try:
        while True:
            try:
                while left:
                    left = left[connection.send(left[:65536]) :]
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pass
            try:
                while chunk := connection.recv(65536):
                    yield chunk
                return
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pass
            ready = select.select([connection], [connection] if left else [], [], timeout_s)
            assert any(ready), f"nothing came or went for {timeout_s} s; {len(left)} bytes unsent"
    finally:
        connection.settimeout(timeout_s)


ServeTls = Callable[..., TlsClient]


@pytest.fixture
def serve_tls(serve: Serve, authority: Authority, tmp_path: Path) -> Iterator[ServeTls]:
    """Start servers with a certificate for localhost and 127.0.0.1, unless options name another."""

    def start(app: Any, **options: Any) -> TlsClient:
        if "ssl_certfile" not in options:
            options |= authority.issue("localhost", "127.0.0.1", "::1").write(tmp_path)
        return TlsClient(serve(app, **options), authority.client_context())

    yield start
