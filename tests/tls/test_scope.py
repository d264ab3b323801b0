"""The ASGI extension `tls`, version 0.2; `cryptography` says what should be in it."""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from tls.apps import answer, app
from tls.authority import Authority, write_identity
from tls.conftest import ServeTls, TlsClient

SUBJECT = x509.Name(
    [
        x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, 'Robots, Inc. "+" <x>; \\'),
        x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, " Größe"),
        x509.NameAttribute(NameOID.COMMON_NAME, "#7"),
    ]
)


def scope_of(client: TlsClient, **more: Any) -> dict[str, Any]:
    body = client.get("/scope", **more).partition(b"\r\n\r\n")[2]
    found: dict[str, Any] = json.loads(body)
    return found


def test_without_client_certificate(
    serve_tls: ServeTls, authority: Authority, tmp_path: Path
) -> None:
    issued = authority.issue("localhost")
    client = serve_tls(app, **issued.write(tmp_path))
    assert scope_of(client) == {
        "scheme": "https",
        "tls": {
            "server_cert": issued.pem,
            "client_cert_chain": [],
            "client_cert_name": None,
            "client_cert_error": None,
            "tls_version": 0x0304,
            "cipher_suite": 0x1302,
        },
    }


def test_version_and_suite(serve_tls: ServeTls) -> None:
    client = serve_tls(app)
    client.context.maximum_version = ssl.TLSVersion.TLSv1_2
    client.context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    tls = scope_of(client)["tls"]
    assert (tls["tls_version"], tls["cipher_suite"]) == (0x0303, 0xC02B)


def test_certificate_that_sni_chose(
    serve_tls: ServeTls, authority: Authority, tmp_path: Path
) -> None:
    first, second = authority.issue("first.test"), authority.issue("second.test")
    written = [first.write(tmp_path, "first"), second.write(tmp_path, "second")]
    client = serve_tls(
        app,
        ssl_certfile=[item["ssl_certfile"] for item in written],
        ssl_keyfile=[item["ssl_keyfile"] for item in written],
    )
    assert scope_of(client, name="second.test")["tls"]["server_cert"] == second.pem
    assert scope_of(client, name="first.test")["tls"]["server_cert"] == first.pem


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_client_certificate(
    serve_tls: ServeTls, authority: Authority, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    between = Authority("between", parent=authority)
    identity = between.issue(client=True, subject=SUBJECT)
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.pem)
    client = serve_tls(app, ssl_cert_reqs="required", ssl_ca_certs=ca)
    context = authority.client_context(write_identity(identity, tmp_path / "client.pem"))
    context.maximum_version = version
    tls = scope_of(client, context=context)["tls"]
    assert "".join(tls["client_cert_chain"]).encode() == identity.chain_pem
    assert tls["client_cert_name"] == SUBJECT.rfc4514_string()
    assert tls["client_cert_error"] is None


def test_requests_of_a_connection_do_not_share_what_can_be_changed(serve_tls: ServeTls) -> None:
    seen: list[dict[str, Any]] = []

    async def changing(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise RuntimeError
        tls = scope["extensions"]["tls"]
        seen.append(dict(tls))
        tls.clear()
        scope["extensions"].clear()
        await answer(send, b"x")

    client = serve_tls(changing)
    with client.connect() as connection:
        for _ in range(3):
            connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            received = b""
            while not received.endswith(b"\r\n\r\nx"):
                received += connection.recv(4096)
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0]) == 6


def test_no_extension_without_tls(serve: Any) -> None:
    found: list[Any] = []

    async def looking(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise RuntimeError
        found.append((scope["scheme"], "tls" in scope["extensions"]))
        await answer(send, b"x")

    server = serve(looking)
    with server.connect() as peer:
        peer.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        while peer.recv(4096):
            pass
    assert found == [("http", False)]
