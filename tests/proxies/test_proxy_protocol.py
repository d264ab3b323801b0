"""The PROXY protocol: bytes by hand, and a real haproxy that writes them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from apps import scope_as_json
from framegate import RunningServer, Server
from framegate.errors import ConfigError
from peers.raw import head, read_all
from server_process import Launch
from tls.authority import Authority

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
SOURCE, DESTINATION = ("192.0.2.7", 12345), ("203.0.113.9", 443)


def version_1() -> bytes:
    return b"PROXY TCP4 192.0.2.7 203.0.113.9 12345 443\r\n"


def version_2(extensions: bytes = b"", *, command: int = 1) -> bytes:
    addresses = socket.inet_aton(SOURCE[0]) + socket.inet_aton(DESTINATION[0])
    content = addresses + struct.pack("!HH", SOURCE[1], DESTINATION[1]) + extensions
    return SIGNATURE + struct.pack("!BBH", 0x20 | command, 0x11, len(content)) + content


@contextmanager
def serving(bind: str = "127.0.0.1:0?proxy=on", **options: Any) -> Iterator[RunningServer]:
    options = {"forwarded_allow_ips": "127.0.0.1", **options}
    server = Server(scope_as_json, bind=bind, lifespan="off", access_log=False, **options)
    with server.start_in_thread() as running:
        yield running


def exchange(server: RunningServer, *pieces: bytes) -> bytes:
    """Send pieces one after the other; return all that comes back."""
    (address,) = server.addresses
    assert not isinstance(address, str)
    with socket.create_connection(address, timeout=30) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for piece in pieces:
                peer.sendall(piece)
            return read_all(peer)
        except ConnectionError:
            return b""


def scope_in(answer: bytes) -> dict[str, Any]:
    top, _, content = answer.partition(b"\r\n\r\n")
    assert top.startswith(b"HTTP/1.1 200"), answer
    found: dict[str, Any] = json.loads(content)
    return found


REQUEST = head("GET", "/", "Connection: close")


@pytest.mark.parametrize("header", [version_1(), version_2()], ids=["v1", "v2"])
def test_connection_comes_from_where_the_header_says(header: bytes) -> None:
    with serving() as server:
        scope = scope_in(exchange(server, header + REQUEST))
    assert (tuple(scope["client"]), tuple(scope["server"])) == (SOURCE, DESTINATION)


@pytest.mark.parametrize("header", [version_1(), version_2(b"\x04\0\x01x")], ids=["v1", "v2"])
def test_header_may_come_in_pieces(header: bytes) -> None:
    with serving() as server:
        for at in range(1, len(header) + 1):
            scope = scope_in(exchange(server, header[:at], header[at:] + REQUEST))
            assert tuple(scope["client"]) == SOURCE
        bytewise = [bytes([byte]) for byte in header + REQUEST]
        assert tuple(scope_in(exchange(server, *bytewise))["client"]) == SOURCE


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", version_2(command=0)])
def test_load_balancer_may_speak_for_itself(header: bytes) -> None:
    with serving() as server:
        assert scope_in(exchange(server, header + REQUEST))["client"][0] == "127.0.0.1"


@pytest.mark.parametrize(
    "bytes_",
    [
        b"",
        b"PROXY TCP4 192.0.2.7 203.0.113.9 12345\r\n",
        b"PROXY TCP4 192.0.2.7 203.0.113.9 12345 443\n",
        SIGNATURE + b"\x31\x11\0\x0c" + bytes(12),
        version_2(b"\x03\0\x04\0\0\0\0"),
        version_2(b"\x04\0\x09"),
    ],
    ids=["none", "short", "no CR", "version", "checksum", "extension"],
)
def test_trusted_peer_has_to_begin_with_a_header(bytes_: bytes) -> None:
    with serving() as server:
        assert exchange(server, bytes_ + REQUEST) == b""
        assert scope_in(exchange(server, version_2() + REQUEST))


@pytest.mark.parametrize("sent", [version_1() + REQUEST, version_2() + REQUEST, REQUEST])
def test_other_peers_are_refused(sent: bytes) -> None:
    with serving(forwarded_allow_ips="192.0.2.0/24,unix") as server:
        assert exchange(server, sent) == b""


@pytest.mark.parametrize("header", [version_1(), version_2()], ids=["v1", "v2"])
def test_header_where_none_is_awaited_is_no_request(header: bytes) -> None:
    with serving("127.0.0.1:0") as server:
        answer = exchange(server, header + REQUEST)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400")


def test_header_takes_no_longer_than_a_head() -> None:
    with serving(timeout_header=0.2) as server:
        assert exchange(server, version_1()[:20]) == b""


def test_fields_count_by_the_source_of_the_header() -> None:
    fields = ("X-Forwarded-For: 6.6.6.6", "Connection: close")
    with serving() as server:
        # The client itself is no proxy.
        scope = scope_in(exchange(server, version_1() + head("GET", "/", *fields)))
        assert scope["client"][0] == SOURCE[0]
        assert "x-forwarded-for" not in dict(scope["headers"])
    with serving(forwarded_allow_ips="127.0.0.1,192.0.2.7") as server:
        scope = scope_in(exchange(server, version_1() + head("GET", "/", *fields)))
        assert scope["client"] == ["6.6.6.6", 0]


def test_listeners_differ(tmp_path: Path) -> None:
    path = tmp_path / "s"
    bind = f"127.0.0.1:0?proxy=on unix:{path}"
    with serving(bind) as server:
        unix, tcp = server.addresses
        assert unix == str(path)
        assert not isinstance(tcp, str)
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(unix)
            peer.sendall(REQUEST)
            assert scope_in(read_all(peer))["client"] is None
        with socket.create_connection(tcp) as peer:
            peer.sendall(version_1() + REQUEST)
            assert tuple(scope_in(read_all(peer))["client"]) == SOURCE


def test_unix_sockets_have_it_too(tmp_path: Path) -> None:
    with serving(f"unix:{tmp_path}/s?proxy=on", forwarded_allow_ips="unix"):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(tmp_path / "s"))
            peer.sendall(version_2() + REQUEST)
            assert tuple(scope_in(read_all(peer))["client"]) == SOURCE


def test_header_comes_before_tls(tmp_path: Path) -> None:
    authority = Authority()
    options = authority.issue("localhost").write(tmp_path)
    with serving(**options) as server:
        (address,) = server.addresses
        assert not isinstance(address, str)
        context = authority.client_context()
        for header in (version_1(), version_2()):
            with socket.create_connection(address, timeout=30) as plain:
                plain.sendall(header)
                with context.wrap_socket(plain, server_hostname="localhost") as peer:
                    peer.sendall(REQUEST)
                    scope = scope_in(read_all(peer))
            assert (tuple(scope["client"]), scope["scheme"]) == (SOURCE, "https")
        assert exchange(server, REQUEST) == b""


def test_configuration_says_what_is_missing() -> None:
    with pytest.raises(ConfigError, match="nobody is trusted to send them"):
        Server(scope_as_json, bind="127.0.0.1:0?proxy=on")


def test_all_workers_read_headers(launch: Launch) -> None:
    options = ("--bind", "127.0.0.1:0?proxy=on", "--forwarded-allow-ips", "127.0.0.1")
    server = launch("apps:scope_as_json", *options, "--workers", "2", "--lifespan", "off")
    server.wait_ready()
    for _ in range(8):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as peer:
            peer.sendall(version_1() + REQUEST)
            assert tuple(scope_in(read_all(peer))["client"]) == SOURCE


HAPROXY = """
global
    log stderr local0
defaults
    mode tcp
    timeout connect 10s
    timeout client 30s
    timeout server 30s
listen front
    bind "fd@{fd}"
    server back 127.0.0.1:{port} {option}
"""


@pytest.mark.parametrize(
    "option", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"]
)
def test_haproxy(tmp_path: Path, option: str) -> None:
    program = shutil.which("haproxy") or "/usr/sbin/haproxy"
    with serving() as server, socket.create_server(("127.0.0.1", 0)) as front:
        (address,) = server.addresses
        assert not isinstance(address, str)
        theirs = front.getsockname()
        text = HAPROXY.format(fd=front.fileno(), port=address[1], option=option)
        path = tmp_path / "haproxy.cfg"
        path.write_text(text)
        os.set_inheritable(front.fileno(), True)
        process = subprocess.Popen(
            [program, "-f", str(path), "-db"],
            pass_fds=[front.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            with socket.create_connection(theirs, timeout=30) as peer:
                ours = peer.getsockname()
                peer.sendall(REQUEST)
                scope = scope_in(read_all(peer))
        finally:
            process.kill()
            process.communicate()
    assert (tuple(scope["client"]), tuple(scope["server"])) == (ours, theirs)
