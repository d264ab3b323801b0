"""A directory, a server that serves it, and a client that shares no code with the server."""

from __future__ import annotations

import http.client
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from server_thread import Serve, Server

__all__ = ["CHANGED_NS", "LAST_MODIFIED", "Reply", "Site", "StartSite"]

CHANGED_NS = 784_111_777_500_000_000
"""When all files were changed last."""

LAST_MODIFIED = "Sun, 06 Nov 1994 08:49:37 GMT"
"""The same as a date of HTTP."""


@dataclass
class Reply:
    """A response."""

    status: int
    headers: dict[str, str]
    body: bytes


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Say that the request came through to the application."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-from", b"app")]})
    await send({"type": "http.response.body", "body": b"application"})


@dataclass
class Site:
    """A directory below `/static`."""

    directory: Path
    server: Server

    def write(self, name: str, content: bytes | str, *, changed_ns: int = CHANGED_NS) -> Path:
        """Put a file there that was changed long ago."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        os.utime(path, ns=(changed_ns, changed_ns))
        return path

    def ask(self, method: str, path: str, *fields: tuple[str, str]) -> Reply:
        """Send one request as it stands, on a connection of its own."""
        assert isinstance(self.server.port, int)
        connection = http.client.HTTPConnection(self.server.host, self.server.port, timeout=20)
        try:
            connection.putrequest(method, path, skip_accept_encoding=True)
            for name, value in fields:
                connection.putheader(name, value)
            connection.endheaders()
            response = connection.getresponse()
            headers: dict[str, str] = {}
            for name, value in response.getheaders():
                known = headers.get(name.lower())
                headers[name.lower()] = value if known is None else f"{known}, {value}"
            return Reply(response.status, headers, response.read())
        finally:
            connection.close()

    def get(self, path: str, *fields: tuple[str, str]) -> Reply:
        """GET."""
        return self.ask("GET", path, *fields)


StartSite = Callable[..., Site]


@pytest.fixture
def task_mode() -> str:
    """The mode of tasks makes no difference here."""
    return "lazy"


@pytest.fixture
def start_site(serve: Serve, tmp_path: Path) -> Iterator[StartSite]:
    """Start servers of the directory `site`."""

    def start(**options: Any) -> Site:
        directory = tmp_path / "site"
        directory.mkdir(exist_ok=True)
        options.setdefault("static", {"/static": directory})
        return Site(directory, serve(application, **options))

    yield start


@pytest.fixture
def site(start_site: StartSite) -> Site:
    """One with the defaults."""
    return start_site()
