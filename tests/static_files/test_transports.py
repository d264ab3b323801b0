"""The same bytes over HTTP/1.1, HTTP/1.0, HTTP/2 and TLS, from memory and from the disk."""

from __future__ import annotations

import os
import random
import socket
import subprocess
from pathlib import Path

import pytest

from peers.h2_client import Client
from peers.raw import read_all, read_head
from static_files.conftest import Site, StartSite
from tls.authority import Authority

LARGE = random.Random(1).randbytes(1_000_003)
SIZES = (1, 16 * 1024, 16 * 1024 + 1, 100 * 1024, 256 * 1024, len(LARGE))


def forget(path: Path) -> None:
    """Have the kernel take the file out of its memory."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.mark.parametrize("is_cold", [False, True], ids=["warm", "cold"])
def test_http1(site: Site, is_cold: bool) -> None:
    for size in SIZES:
        path = site.write(f"{size}.bin", LARGE[:size])
        if is_cold:
            forget(path)
        assert site.get(f"/static/{size}.bin").body == LARGE[:size]
        if is_cold:
            forget(path)
        last = site.get(f"/static/{size}.bin", ("Range", "bytes=-1"))
        assert last.body == LARGE[size - 1 : size]


def test_many_on_one_connection(site: Site) -> None:
    """Small and large, whole and in parts, one behind the other and all at once."""
    site.write("small", LARGE[:100])
    site.write("large", LARGE)
    wanted = [
        ("small", "", LARGE[:100]),
        ("large", "", LARGE),
        ("large", "range: bytes=5-300004\r\n", LARGE[5:300_005]),
        ("small", "range: bytes=-1\r\n", LARGE[99:100]),
        ("large", "", LARGE),
    ]
    with site.server.connect() as connection:
        connection.sendall(
            b"".join(
                f"GET /static/{name} HTTP/1.1\r\nhost: t\r\n{fields}\r\n".encode()
                for name, fields, _ in wanted
            )
        )
        with connection.makefile("rb") as stream:
            for _, _, content in wanted:
                length = 0
                while (line := stream.readline()) != b"\r\n":
                    name, _, value = line.partition(b":")
                    if name.lower() == b"content-length":
                        length = int(value)
                assert stream.read(length) == content


def test_http10(site: Site) -> None:
    site.write("large", LARGE)
    with site.server.connect() as connection:
        connection.sendall(b"GET /static/large HTTP/1.0\r\n\r\n")
        head, _, body = read_all(connection).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.0 200")
        assert body == LARGE


@pytest.mark.parametrize("is_cold", [False, True], ids=["warm", "cold"])
def test_http2(site: Site, is_cold: bool) -> None:
    paths = [site.write(f"{size}.bin", LARGE[:size]) for size in SIZES]
    if is_cold:
        for path in paths:
            forget(path)
    with Client(site.server.connect()) as client:
        streams = [client.request(f"/static/{size}.bin") for size in SIZES]
        part = client.request(f"/static/{len(LARGE)}.bin", fields=[("range", "bytes=7-500006")])
        head = client.request(f"/static/{len(LARGE)}.bin", method="HEAD")
        for stream, size in zip(streams, SIZES, strict=True):
            exchange = client.answer(stream)
            assert (exchange.status, exchange.body) == (200, LARGE[:size])
            tag = exchange.headers["etag"]
        assert client.answer(part).body == LARGE[7:500_007]
        answer = client.answer(head)
        assert (answer.headers["content-length"], answer.body) == (str(len(LARGE)), b"")
        fields = [("if-none-match", tag)]
        known = client.answer(client.request(f"/static/{len(LARGE)}.bin", fields=fields))
        assert (known.status, known.body) == (304, b"")


def test_tls(start_site: StartSite, authority: Authority, tmp_path: Path) -> None:
    site = start_site(**authority.issue("localhost").write(tmp_path))
    site.write("large", LARGE)
    context = authority.client_context()
    for protocol in ("http/1.1", "h2"):
        context.set_alpn_protocols([protocol])
        plain = site.server.connect()
        with context.wrap_socket(plain, server_hostname="localhost") as connection:
            if protocol == "h2":
                client = Client(connection)
                assert client.answer(client.request("/static/large")).body == LARGE
            else:
                connection.sendall(
                    b"GET /static/large HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
                )
                received = b""
                while data := connection.recv(65536):
                    received += data
                assert received.partition(b"\r\n\r\n")[2] == LARGE


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


def test_unix_socket(start_site: StartSite) -> None:
    site = start_site(uds=True)
    site.write("large", LARGE)
    with site.server.connect() as connection:
        connection.sendall(b"GET /static/large HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n")
        assert read_all(connection).partition(b"\r\n\r\n")[2] == LARGE


def test_curl(site: Site, tmp_path: Path) -> None:
    """What it does for people: go on with a download, ask whether there is something new."""
    site.write("large", LARGE)
    got = tmp_path / "got"
    url = f"{site.server.url}/static/large"
    for protocol in ("--http1.1", "--http2-prior-knowledge"):
        got.write_bytes(LARGE[:400_000])
        run = ["curl", "--silent", "--show-error", "--fail", protocol, "--output", str(got)]
        subprocess.run([*run, "--continue-at", "-", url], check=True, timeout=60)
        assert got.read_bytes() == LARGE
        tag = tmp_path / f"tag{protocol}"
        subprocess.run([*run, "--etag-save", str(tag), url], check=True, timeout=60)
        code = subprocess.run(
            [*run, "--etag-compare", str(tag), "--write-out", "%{http_code}", url],
            check=True,
            capture_output=True,
            timeout=60,
        )
        assert code.stdout == b"304"


def slow(site: Site) -> socket.socket:
    """A connection whose buffers are small, so that a large file does not leave at once."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(20)
    connection.connect((site.server.host, site.server.port))
    return connection


HUGE_BYTES = 32 * 2**20


def test_file_that_shrinks_cuts_the_response(site: Site) -> None:
    path = site.directory / "huge"
    path.touch()
    os.truncate(path, HUGE_BYTES)
    with slow(site) as connection:
        connection.sendall(b"GET /static/huge HTTP/1.1\r\nhost: t\r\n\r\n" * 2)
        assert f"content-length: {HUGE_BYTES}".encode() in read_head(connection)
        os.truncate(path, 100)
        received = 0
        try:
            while data := connection.recv(2**20):
                received += len(data)
                # Nothing of the second response comes in its place.
                assert not data.strip(b"\0")
        except ConnectionResetError:
            pass
        assert received < HUGE_BYTES


def test_file_that_shrinks_resets_the_stream(site: Site) -> None:
    path = site.directory / "huge"
    path.touch()
    os.truncate(path, HUGE_BYTES)
    site.write("small", b"small")
    with Client(slow(site)) as client:
        stream = client.request("/static/huge")
        while not client.exchanges.get(stream) or not client.exchanges[stream].body:
            client.read()
        os.truncate(path, 100)
        answer = client.answer(stream)
        assert answer.reset is not None
        assert len(answer.body) < HUGE_BYTES
        # The connection lives on.
        assert client.answer(client.request("/static/small")).body == b"small"


def test_file_that_grows_is_sent_as_promised(site: Site) -> None:
    path = site.directory / "huge"
    path.touch()
    os.truncate(path, HUGE_BYTES)
    with slow(site) as connection:
        connection.sendall(
            b"GET /static/huge HTTP/1.1\r\nhost: t\r\n\r\n"
            b"GET /static/none HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n"
        )
        head = read_head(connection)
        assert f"content-length: {HUGE_BYTES}".encode() in head
        os.truncate(path, 2 * HUGE_BYTES)
        rest = read_all(connection)
        assert rest[HUGE_BYTES:].startswith(b"HTTP/1.1 404")
