"""Connections that do nothing: many of them, and such whose peer is gone without a word.

What broke in other servers: a soft limit of 1024 open files, buffers and timers per idle
connection, and peers that vanished (a laptop that sleeps, a NAT that forgot) held for ever.
"""

from __future__ import annotations

import re
import resource
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from peers.procfs import open_files
from peers.raw import head
from privileges import needs_root
from server_process import Launch, ServerProcess

APP = "supervised_apps:app"
CONNECTIONS = 10_000
SPARE = 500
"""Descriptors that this process and the server need for everything else."""

SLACK = 5
"""Connections of earlier requests that were still closing when the files were counted."""

BYTES_PER_CONNECTION = 16 * 1024
"""Seen: 9 KiB, of connections that were just used and not parked yet as well."""
ANSWER_SECONDS = 1.0

TCP_REPAIR = 19
"""tcp(7): a socket in repair mode is closed without a word to its peer."""


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def wait_for_open_files(pid: int, count: int, *, at_most: bool = False) -> None:
    pause = threading.Event()
    for _ in range(1200):
        found = open_files(pid)
        if found <= count if at_most else found >= count:
            return
        pause.wait(0.05)  # /proc cannot be awaited
    pytest.fail(f"{open_files(pid)} open files, not {count}")


@pytest.fixture
def peers() -> Iterator[list[socket.socket]]:
    """Sockets that are closed at the end; the limit of open files is as high as it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    opened: list[socket.socket] = []
    yield opened
    for peer in opened:
        peer.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connect(port: int) -> socket.socket:
    peer = socket.socket()
    peer.settimeout(60)
    peer.connect(("127.0.0.1", port))
    return peer


def ask(peer: socket.socket, pid: int) -> None:
    """Make one request; the connection stays open."""
    peer.sendall(head("GET", "/pid"))
    end, received = b"\r\n\r\n" + str(pid).encode(), b""
    while not received.endswith(end):
        piece = peer.recv(4096)
        assert piece, received
        received += piece


def answer_seconds(server: ServerProcess) -> float:
    start = time.monotonic()
    assert server.get() == str(server.pid)
    return time.monotonic() - start


def test_ten_thousand_idle_connections_are_cheap_and_in_nobodys_way(
    launch: Launch, peers: list[socket.socket]
) -> None:
    # Not closed for idleness, however slow the machine is.
    words = ("--timeout-header", "600", "--timeout-keep-alive", "600", "--no-access-log")
    server = launch(APP, *words).wait_ready()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    count = min(CONNECTIONS, hard - SPARE)
    assert count >= 1000, f"at most {hard} open files: raise the hard limit for this test"
    for _ in range(100):  # what a server allocates once, it has now
        server.get()
    files, memory, port = open_files(server.pid), resident_bytes(server.pid), server.port
    for number in range(count):
        peer = connect(port)
        peers.append(peer)
        if number % 2:  # every other one is idle after a request: kept alive
            ask(peer, server.pid)
    wait_for_open_files(server.pid, files + count - SLACK)
    grown = resident_bytes(server.pid) - memory
    assert grown < count * BYTES_PER_CONNECTION, f"{grown / count:.0f} bytes per connection"
    assert statistics.median(answer_seconds(server) for _ in range(20)) < ANSWER_SECONDS
    # They work, too: the first and the last of each kind.
    for peer in (peers[0], peers[1], peers[-2], peers[-1]):
        ask(peer, server.pid)
    for peer in peers:
        peer.close()
    wait_for_open_files(server.pid, files + SLACK, at_most=True)
    assert server.stop() == 0


@needs_root
def test_connections_whose_peer_vanished_are_closed_in_time(
    launch: Launch, peers: list[socket.socket]
) -> None:
    words = ("--timeout-header", "1", "--timeout-keep-alive", "1", "--no-access-log")
    server = launch(APP, *words).wait_ready()
    server.get()
    files = open_files(server.pid)
    kinds = [b"", b"GET / HT", head("GET", "/pid"), head("POST", "/pid", "content-length: 9")]
    for number in range(200):
        peer = connect(server.port)
        if data := kinds[number % len(kinds)]:
            peer.sendall(data)
        peers.append(peer)
    wait_for_open_files(server.pid, files + 100)
    for peer in peers:
        peer.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        peer.close()  # no FIN, no RST: the server cannot know
    wait_for_open_files(server.pid, files + SLACK, at_most=True)
    assert server.get() == str(server.pid)
    assert server.stop() == 0


def test_connections_that_were_shut_on_one_side_are_closed(
    launch: Launch, peers: list[socket.socket]
) -> None:
    server = launch(APP, "--no-access-log").wait_ready()
    server.get()
    files = open_files(server.pid)
    for number in range(200):
        peer = connect(server.port)
        if number % 2:
            peer.sendall(head("GET", "/pid"))
        peer.shutdown(socket.SHUT_WR)
        peers.append(peer)
    for number, peer in enumerate(peers):
        received = b""
        while piece := peer.recv(65536):
            received += piece
        # Who has asked is answered, though it will not ask again.
        assert received[:13] == (b"HTTP/1.1 200 " if number % 2 else b"")
    wait_for_open_files(server.pid, files + SLACK, at_most=True)
    assert server.stop() == 0


def test_soft_limit_of_open_files_is_raised(launch: Launch, peers: list[socket.socket]) -> None:
    hard = min(2000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    through = ("bash", "-c", f'ulimit -Sn 64; ulimit -Hn {hard}; exec "$@"', "bash")
    server = launch(APP, "--workers", "2", "--port", "0", through=through).wait_ready()
    for pid in (server.pid, *server.worker_pids):
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert re.search(rf"Max open files +{hard} +{hard} ", limits)
    for _ in range(300):
        peers.append(connect(server.port))
    assert int(server.get()) in server.worker_pids
    assert server.stop() == 0
