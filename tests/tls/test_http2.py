"""HTTP/2 that was agreed on in the handshake (ALPN): conformance, and clients that know it."""

from __future__ import annotations

import contextlib
import ssl
import subprocess
from pathlib import Path

import httpx

from peers import h2spec
from peers.h2_client import Client
from tls.apps import app, pattern
from tls.authority import Authority
from tls.conftest import ServeTls


def test_h2spec_over_tls(serve_tls: ServeTls) -> None:
    """The same cases as in the clear, with no failure."""
    server = serve_tls(h2spec.answer_slowly, lifespan="off", http="2").server
    h2spec.run_all(server.host, server.port, "--tls", "--insecure")


def test_protocol_is_agreed_on(serve_tls: ServeTls, authority: Authority) -> None:
    client = serve_tls(app)
    context = authority.client_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    connection: ssl.SSLSocket
    with contextlib.closing(client.connect(context=context)) as connection:
        assert connection.selected_alpn_protocol() == "h2"
        with Client(connection) as peer:
            assert peer.answer(peer.request("/bytes/300000")).body == pattern(300_000)


def test_httpx_by_alpn(serve_tls: ServeTls, authority: Authority) -> None:
    client = serve_tls(app)
    url = f"https://localhost:{client.server.port}/bytes/100000"
    with httpx.Client(http2=True, verify=authority.client_context()) as session:
        reply = session.get(url)
    assert (reply.http_version, reply.content) == ("HTTP/2", pattern(100_000))


def test_curl_by_alpn(serve_tls: ServeTls, tmp_path: Path) -> None:
    client = serve_tls(app)
    url = f"https://localhost:{client.server.port}/bytes/100000"
    command = ["curl", "-sSk", "--http2", "-w", "%{http_version}", "-o", f"{tmp_path}/body", url]
    out = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert out.stdout == "2"
    assert (tmp_path / "body").read_bytes() == pattern(100_000)
