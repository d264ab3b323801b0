"""Plain HTTP that redirects to https; the rules for hosts are shown in rust/http/tests/tls.rs."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from conformance.process import free_port
from server_process import Launch, ServerProcess
from tls.authority import Authority
from tls.conftest import read_to_end


def launched(
    launch: Launch, authority: Authority, directory: Path, plain: int, *more: str
) -> ServerProcess:
    options = authority.issue("localhost").write(directory)
    words = [
        word for name, value in options.items() for word in ("--" + name.replace("_", "-"), value)
    ]
    # A port that was chosen: what `0` becomes is not shown for redirects.
    bind = ["--https-redirect-bind", f"127.0.0.1:{plain}"]
    return launch("tls_app:app", *words, *bind, *more).wait_ready()


def ask(port: int, path: str, host: str = "localhost") -> tuple[int, str]:
    """Status, and where to go or what it says."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as peer:
        peer.sendall(f"GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
        text = read_to_end(peer).decode()
    location = re.search(r"\r\nlocation: (.*)\r\n", text)
    return int(text.split(" ")[1]), location[1] if location else text.partition("\r\n\r\n")[2]


@pytest.mark.parametrize("workers", [1, 2])
def test_redirect(launch: Launch, authority: Authority, tmp_path: Path, workers: int) -> None:
    plain = free_port()
    server = launched(launch, authority, tmp_path, plain, "--workers", str(workers))
    port = int(server.wait_for(r"https://127.0.0.1:(\d+)")[1])
    for _ in range(2 * workers):
        assert ask(plain, "/a?b") == (308, f"https://localhost:{port}/a?b")
        assert ask(plain, "/", "evil.test")[0] == 421
        status, text = ask(plain, "/.well-known/acme-challenge/x", "any.test")
        assert (status, text) == (200, "hello")
    # The other address says what it always says to plain HTTP.
    assert ask(port, "/")[0] == 400
    assert server.stop() == 0


def test_port_that_clients_use(launch: Launch, authority: Authority, tmp_path: Path) -> None:
    plain = free_port()
    server = launched(launch, authority, tmp_path, plain, "--https-redirect-port", "443")
    assert ask(plain, "/x") == (308, "https://localhost/x")
    assert server.stop() == 0
