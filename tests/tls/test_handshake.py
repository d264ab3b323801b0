"""Handshakes: versions, keys, suites, names, and clients that are not ours."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import PrivateFormat

from tls.apps import app, pattern
from tls.authority import Authority, key_pem, openssl
from tls.conftest import ServeTls, TlsClient

VERSIONS = {"tls1.2": ssl.TLSVersion.TLSv1_2, "tls1.3": ssl.TLSVersion.TLSv1_3}


def only(client: TlsClient, version: str) -> ssl.SSLContext:
    client.context.minimum_version = client.context.maximum_version = VERSIONS[version]
    return client.context


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "p384", "ed25519"])
def test_every_kind_of_key_in_both_versions(
    serve_tls: ServeTls, authority: Authority, tmp_path: Path, kind: str, version: str
) -> None:
    client = serve_tls(app, **authority.issue("localhost", kind=kind).write(tmp_path))
    with client.connect(context=only(client, version)) as connection:
        assert connection.version() == version.upper().replace("TLS", "TLSv")
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_every_form_of_key(
    serve_tls: ServeTls, authority: Authority, tmp_path: Path, kind: str, form: PrivateFormat
) -> None:
    issued = authority.issue("localhost", kind=kind)
    options = issued.write(tmp_path)
    Path(options["ssl_keyfile"]).write_bytes(key_pem(issued.key, form))
    assert serve_tls(app, **options).get().endswith(b"hello")


def test_key_in_the_file_of_the_certificate(
    serve_tls: ServeTls, authority: Authority, tmp_path: Path
) -> None:
    issued = authority.issue("localhost")
    both = tmp_path / "both.pem"
    both.write_bytes(key_pem(issued.key) + issued.chain_pem)
    assert serve_tls(app, ssl_certfile=both).get().endswith(b"hello")


@pytest.mark.parametrize("version", VERSIONS)
def test_one_version_only(serve_tls: ServeTls, version: str) -> None:
    client = serve_tls(app, ssl_version=version)
    assert client.get(context=only(client, version)).endswith(b"hello")
    (other,) = VERSIONS.keys() - {version}
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
        client.get(context=only(client, other))


def test_cipher_suites_restrict_the_version_they_belong_to(serve_tls: ServeTls) -> None:
    client = serve_tls(app, ssl_ciphers="ECDHE-ECDSA-CHACHA20-POLY1305,TLS_AES_128_GCM_SHA256")
    with client.connect(context=only(client, "tls1.2")) as connection:
        assert connection.cipher()[0] == "ECDHE-ECDSA-CHACHA20-POLY1305"
    with client.connect(context=only(client, "tls1.3")) as connection:
        assert connection.cipher()[0] == "TLS_AES_128_GCM_SHA256"
    client.context.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
    with pytest.raises(ssl.SSLError, match=r"(?i)handshake.failure"):
        client.get(context=only(client, "tls1.2"))


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["http/1.1", "h2"], "h2"),
        (["spdy/3", "http/1.1"], "http/1.1"),
        (["spdy/3"], None),
    ],
)
def test_alpn(serve_tls: ServeTls, offered: list[str], chosen: str | None) -> None:
    client = serve_tls(app)
    client.context.set_alpn_protocols(offered)
    if chosen is None:
        with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):
            client.connect()
    else:
        with client.connect() as connection:
            assert connection.selected_alpn_protocol() == chosen


@pytest.mark.parametrize("version", VERSIONS)
def test_http2(serve_tls: ServeTls, version: str) -> None:
    client = serve_tls(app)
    context = only(client, version)
    with httpx.Client(verify=context, http2=True, trust_env=False, timeout=60) as session:
        base = f"https://localhost:{client.server.port}"
        response = session.get(f"{base}/scope")
        assert response.http_version == "HTTP/2"
        assert response.json()["scheme"] == "https"
        assert response.json()["tls"]["tls_version"] == VERSIONS[version]
        body = pattern(3_000_000)
        assert session.post(f"{base}/echo", content=body).content == body


class TestNames:
    """SNI chooses among several certificates."""

    @pytest.fixture
    def client(self, serve_tls: ServeTls, authority: Authority, tmp_path: Path) -> TlsClient:
        names = [("first.test", "127.0.0.1"), ("second.test",), ("*.wild.test",)]
        written = [authority.issue(*group).write(tmp_path, group[0].strip("*.")) for group in names]
        return serve_tls(
            app,
            ssl_certfile=[item["ssl_certfile"] for item in written],
            ssl_keyfile=[item["ssl_keyfile"] for item in written],
        )

    @pytest.mark.parametrize("name", ["first.test", "second.test", "any.wild.test"])
    def test_name_that_is_known(self, client: TlsClient, name: str) -> None:
        assert client.get(name=name).endswith(b"hello")  # the client checks the name

    def test_name_that_is_not_known_gets_the_first(self, client: TlsClient) -> None:
        with pytest.raises(ssl.SSLCertVerificationError, match=r"not valid for 'other\.test'"):
            client.get(name="other.test")
        client.context.check_hostname = False
        with client.connect("other.test") as connection:
            names = [value for _, value in connection.getpeercert()["subjectAltName"]]
        assert names == ["first.test", "127.0.0.1"]

    def test_address_has_no_sni_and_gets_the_first(self, client: TlsClient) -> None:
        assert client.get(name="127.0.0.1").endswith(b"hello")

    def test_same_name_with_two_keys(
        self, serve_tls: ServeTls, authority: Authority, tmp_path: Path
    ) -> None:
        written = [
            authority.issue("localhost", kind=kind).write(tmp_path, kind)
            for kind in ("ed25519", "rsa")
        ]
        client = serve_tls(
            app,
            ssl_certfile=[item["ssl_certfile"] for item in written],
            ssl_keyfile=[item["ssl_keyfile"] for item in written],
        )
        context = only(client, "tls1.2")
        context.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
        port = client.server.port
        words = ["-sigalgs", "RSA+SHA256", "-CAfile", str(tmp_path / "ca.pem")]
        (tmp_path / "ca.pem").write_bytes(authority.pem)
        assert "PKEY: rsaEncryption" in s_client(port, *words, "-tls1_2")
        assert "PKEY: ED25519" in s_client(port, *words[2:], "-tls1_2")


def s_client(port: int, *words: str) -> str:
    where = ["-connect", f"127.0.0.1:{port}", "-servername", "localhost"]
    request = b"GET /scope HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    more = ["-verify_return_error", *words]
    return openssl("s_client", *where, *more, stdin=request, check=False).decode()


@pytest.mark.parametrize(("words", "version"), [(["-tls1_2"], 0x303), (["-tls1_3"], 0x304)])
def test_openssl(
    serve_tls: ServeTls, authority: Authority, tmp_path: Path, words: list[str], version: int
) -> None:
    client = serve_tls(app)
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.pem)
    text = s_client(client.server.port, "-CAfile", str(ca), "-ign_eof", *words)
    assert "Verify return code: 0 (ok)" in text
    assert f'"tls_version": {version}' in text


def test_old_versions_are_refused(serve_tls: ServeTls) -> None:
    client = serve_tls(app)
    text = s_client(client.server.port, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
    assert "Cipher is (NONE)" in text
    assert "alert handshake failure" in text


def test_renegotiation_is_refused(
    serve_tls: ServeTls, authority: Authority, tmp_path: Path
) -> None:
    client = serve_tls(app)
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.pem)
    where = ["-connect", f"127.0.0.1:{client.server.port}", "-tls1_2", "-CAfile", str(ca)]
    output = openssl("s_client", *where, stdin=b"R\n", check=False)
    assert b"RENEGOTIATING" in output
    assert b"no renegotiation" in output


def test_sessions_are_resumed(serve_tls: ServeTls) -> None:
    client = serve_tls(app)
    with client.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        while connection.recv(4096):
            pass
        session = connection.session
    plain = client.server.connect()
    with client.context.wrap_socket(
        plain, server_hostname="localhost", session=session
    ) as connection:
        assert connection.session_reused


def test_post_quantum_key_exchange(serve_tls: ServeTls) -> None:
    """OpenSSL learned it in 3.5; so the hello is made by hand, and the answer is looked at."""
    client = serve_tls(app)
    x25519mlkem768 = 0x11EC
    with client.server.connect() as peer:
        peer.sendall(client_hello(x25519mlkem768))
        header = receive_exactly(peer, 5)
        hello = receive_exactly(peer, int.from_bytes(header[3:], "big"))
    assert header[0] == 22
    assert hello[0] == 2
    # HelloRetryRequest is a ServerHello with a fixed random; its key_share names the group alone.
    retry = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
    assert hello[6:38] == retry
    key_share = bytes([0, 51, 0, 2]) + x25519mlkem768.to_bytes(2, "big")
    assert key_share in hello


def client_hello(group: int) -> bytes:
    """Make a TLS 1.3 hello that supports one group and brings no key for it."""

    def extension(number: int, content: bytes) -> bytes:
        return number.to_bytes(2, "big") + len(content).to_bytes(2, "big") + content

    def vector(content: bytes, length_bytes: int) -> bytes:
        return len(content).to_bytes(length_bytes, "big") + content

    name = b"localhost"
    extensions = b"".join(
        (
            extension(0, vector(b"\0" + vector(name, 2), 2)),
            extension(10, vector(group.to_bytes(2, "big"), 2)),
            extension(13, vector(bytes.fromhex("0403"), 2)),
            extension(43, vector(bytes.fromhex("0304"), 1)),
            extension(51, vector(b"", 2)),
        )
    )
    body = (
        bytes.fromhex("0303")
        + bytes(32)
        + vector(bytes(32), 1)
        + vector(bytes.fromhex("1301"), 2)
        + vector(b"\0", 1)
        + vector(extensions, 2)
    )
    message = b"\1" + len(body).to_bytes(3, "big") + body
    return bytes.fromhex("160301") + vector(message, 2)


def receive_exactly(peer: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count:
        chunk = peer.recv(count - len(received))
        assert chunk, received
        received += chunk
    return received


def test_curl(serve_tls: ServeTls, authority: Authority, tmp_path: Path) -> None:
    client = serve_tls(app)
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.pem)
    curl = shutil.which("curl")
    assert curl, "install curl (task setup)"
    url = f"https://localhost:{client.server.port}/scope"
    # Two requests on one connection.
    done = subprocess.run(
        [curl, "-sS", "--fail", "--cacert", str(ca), "-w", "%{num_connects}\n", url, url],
        capture_output=True,
        timeout=60,
        check=True,
    )
    first, connects = done.stdout.decode().splitlines()[0].rsplit("}", 1)
    assert json.loads(first + "}")["scheme"] == "https"
    assert connects == "1"
    assert done.stdout.decode().splitlines()[1].endswith("}0")


def test_httpx(serve_tls: ServeTls) -> None:
    client = serve_tls(app)
    with httpx.Client(verify=client.context, trust_env=False) as session:
        base = f"https://localhost:{client.server.port}"
        assert session.get(f"{base}/").text == "hello"
        body = b"x" * 1_000_000
        assert session.post(f"{base}/echo", content=body).content == body
