"""Client certificates: who gets in, who does not, and that no session goes around the policy."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest

from tls.apps import app
from tls.authority import DAY, Authority, Issued, now, write_identity
from tls.conftest import ServeTls, TlsClient

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture
def ca(authority: Authority, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    path.write_bytes(authority.pem)
    return path


def context_for(
    authority: Authority,
    identity: Issued | None,
    directory: Path,
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
) -> ssl.SSLContext:
    path = write_identity(identity, directory / "identity.pem") if identity else None
    context = authority.client_context(path)
    context.minimum_version = context.maximum_version = version
    return context


def is_let_in(client: TlsClient, context: ssl.SSLContext) -> bool:
    """With TLS 1.3 the client learns of the refusal when it reads."""
    try:
        return client.get(context=context).endswith(b"hello")
    except (ssl.SSLError, ConnectionError):
        return False


@pytest.mark.parametrize("version", VERSIONS)
def test_required(
    serve_tls: ServeTls, authority: Authority, ca: Path, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    client = serve_tls(app, ssl_cert_reqs="required", ssl_ca_certs=ca)
    stranger = Authority("stranger")
    cases = {
        "good": (authority.issue(client=True), True),
        "none": (None, False),
        "of another authority": (stranger.issue(client=True), False),
        "expired": (
            authority.issue(client=True, not_before=now() - 9 * DAY, not_after=now() - DAY),
            False,
        ),
        "not yet valid": (authority.issue(client=True, not_before=now() + DAY), False),
        "for servers": (authority.issue("localhost"), False),
    }
    for name, (identity, expected) in cases.items():
        context = context_for(authority, identity, tmp_path, version)
        assert is_let_in(client, context) is expected, name


def test_optional(serve_tls: ServeTls, authority: Authority, ca: Path, tmp_path: Path) -> None:
    client = serve_tls(app, ssl_cert_reqs="optional", ssl_ca_certs=ca)
    assert is_let_in(client, context_for(authority, authority.issue(client=True), tmp_path))
    assert is_let_in(client, context_for(authority, None, tmp_path))
    stranger = Authority("stranger").issue(client=True)
    assert not is_let_in(client, context_for(authority, stranger, tmp_path))


def test_none_asks_nobody(serve_tls: ServeTls, authority: Authority, tmp_path: Path) -> None:
    client = serve_tls(app)
    stranger = Authority("stranger").issue(client=True)
    assert is_let_in(client, context_for(authority, stranger, tmp_path))


def test_several_authorities(serve_tls: ServeTls, authority: Authority, tmp_path: Path) -> None:
    second, third = Authority("second"), Authority("third")
    (tmp_path / "two.pem").write_bytes(authority.pem + second.pem)
    (tmp_path / "third.pem").write_bytes(third.pem)
    client = serve_tls(
        app,
        ssl_cert_reqs="required",
        ssl_ca_certs=[tmp_path / "two.pem", tmp_path / "third.pem"],
    )
    for issuer in (authority, second, third):
        assert is_let_in(client, context_for(authority, issuer.issue(client=True), tmp_path))


def test_authorities_of_the_system(
    serve_tls: ServeTls,
    authority: Authority,
    ca: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", os.fspath(ca))
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    client = serve_tls(app, ssl_cert_reqs="required", ssl_ca_system=True)
    assert is_let_in(client, context_for(authority, authority.issue(client=True), tmp_path))
    stranger = Authority("stranger").issue(client=True)
    assert not is_let_in(client, context_for(authority, stranger, tmp_path))


class TestRevocation:
    @pytest.mark.parametrize("version", VERSIONS)
    def test_revoked(
        self,
        serve_tls: ServeTls,
        authority: Authority,
        ca: Path,
        tmp_path: Path,
        version: ssl.TLSVersion,
    ) -> None:
        good, bad = authority.issue(client=True), authority.issue(client=True)
        crl = tmp_path / "crl.pem"
        crl.write_bytes(authority.revocation_list([bad]))
        client = serve_tls(app, ssl_cert_reqs="required", ssl_ca_certs=ca, ssl_crl=crl)
        assert is_let_in(client, context_for(authority, good, tmp_path, version))
        assert not is_let_in(client, context_for(authority, bad, tmp_path, version))

    def test_authority_without_a_list(
        self, serve_tls: ServeTls, authority: Authority, tmp_path: Path
    ) -> None:
        second = Authority("second")
        (tmp_path / "ca.pem").write_bytes(authority.pem + second.pem)
        (tmp_path / "crl.pem").write_bytes(authority.revocation_list())
        client = serve_tls(
            app,
            ssl_cert_reqs="required",
            ssl_ca_certs=tmp_path / "ca.pem",
            ssl_crl=tmp_path / "crl.pem",
        )
        assert is_let_in(client, context_for(authority, authority.issue(client=True), tmp_path))
        assert not is_let_in(client, context_for(authority, second.issue(client=True), tmp_path))

    def test_expired_list(
        self, serve_tls: ServeTls, authority: Authority, ca: Path, tmp_path: Path
    ) -> None:
        crl = tmp_path / "crl.pem"
        crl.write_bytes(authority.revocation_list(next_update=now() - DAY))
        client = serve_tls(app, ssl_cert_reqs="required", ssl_ca_certs=ca, ssl_crl=crl)
        assert not is_let_in(client, context_for(authority, authority.issue(client=True), tmp_path))


@pytest.mark.parametrize("version", VERSIONS)
def test_sessions_are_not_resumed(
    serve_tls: ServeTls, authority: Authority, ca: Path, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """A session would carry the verdict of its own moment past a revocation or an expiry."""
    client = serve_tls(app, ssl_cert_reqs="optional", ssl_ca_certs=ca)
    context = context_for(authority, authority.issue(client=True), tmp_path, version)
    with client.connect(context=context) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        while connection.recv(4096):
            pass
        session = connection.session
    if version is ssl.TLSVersion.TLSv1_3:
        assert session is None or not session.has_ticket
    with context.wrap_socket(
        client.server.connect(), server_hostname="localhost", session=session
    ) as connection:
        assert not connection.session_reused
