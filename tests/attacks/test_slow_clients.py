"""Clients that are slow on purpose: others are served meanwhile, memory is bounded, all are cut.

The gate opens a tenth of the connections; `task test:attacks` opens them all.
"""

from __future__ import annotations

import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from peers.raw import head
from server_process import Launch, ServerProcess

CONNECTIONS = int(os.environ.get("FRAMEGATE_ATTACKERS", "50"))
APP = "attacks.application:app"
SERVED_WITHIN_SECONDS = 1.0
PATIENCE_SECONDS = 60.0
# What one connection may hold: its parser, read-ahead and write buffer, and the request's objects.
BYTES_PER_CONNECTION = 192 * 1024
BYTES_ANYWAY = 24 * 2**20
DRIP_SECONDS = 0.2


def resident_bytes(server: ServerProcess) -> int:
    pages = int(Path(f"/proc/{server.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def connect(server: ServerProcess, receive_buffer: int | None = None) -> socket.socket:
    peer = socket.socket()
    if receive_buffer is not None:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    peer.settimeout(PATIENCE_SECONDS)
    peer.connect(("127.0.0.1", server.port))
    return peer


def ask(server: ServerProcess) -> float:
    """Make an honest request on a new connection; return how long it took."""
    start = time.monotonic()
    with connect(server) as peer:
        peer.sendall(head("GET", "/", "connection: close"))
        received = b""
        while piece := peer.recv(65536):
            received += piece
    assert received.startswith(b"HTTP/1.1 200 OK\r\n"), received
    return time.monotonic() - start


def assert_served(waits: list[float]) -> None:
    """Others were served in time, but for one wait in ten, which the machine may be guilty of."""
    late = [wait for wait in waits if wait >= SERVED_WITHIN_SECONDS]
    assert waits and len(late) <= 1 + len(waits) // 10, waits


class Attack:
    """Many connections that began alike and go on dripping."""

    def __init__(self, server: ServerProcess, begin: Callable[[socket.socket], None]) -> None:
        self.peers = []
        for _ in range(CONNECTIONS):
            peer = connect(server, receive_buffer=4096)
            begin(peer)
            peer.setblocking(False)
            self.peers.append(peer)
        self.open = set(self.peers)
        self.received = dict.fromkeys(self.peers, b"")

    def drip(self, data: bytes, reads: bool) -> None:
        """Send a little on every connection, see which are closed."""
        for peer in list(self.open):
            try:
                if data:
                    peer.send(data)
                if reads:
                    piece = peer.recv(4096)
                    self.received[peer] += piece
                    if not piece:
                        self.open.remove(peer)
            except BlockingIOError:
                pass
            except OSError:
                self.open.remove(peer)

    def close(self) -> None:
        for peer in self.peers:
            peer.close()


@contextmanager
def attacked(
    server: ServerProcess, begin: Callable[[socket.socket], None]
) -> Iterator[tuple[Attack, int]]:
    for _ in range(20):
        ask(server)
    before = resident_bytes(server)
    attack = Attack(server, begin)
    try:
        yield attack, before
    finally:
        attack.close()


def outlast(
    server: ServerProcess, attack: Attack, before: int, data: bytes = b"", reads: bool = True
) -> None:
    """Keep the attack up until the server has cut all of it; serve others meanwhile."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    pause = threading.Event()
    waits: list[float] = []
    most = 0
    while attack.open:
        assert time.monotonic() < deadline, f"{len(attack.open)} attackers are still connected"
        waits.append(ask(server))
        most = max(most, resident_bytes(server) - before)
        attack.drip(data, reads)
        pause.wait(DRIP_SECONDS)
    assert_served(waits)
    assert most < BYTES_ANYWAY + CONNECTIONS * BYTES_PER_CONNECTION


def statuses(attack: Attack) -> set[bytes]:
    return {answer[9:12] for answer in attack.received.values()}


def test_heads_that_never_end(launch: Launch) -> None:
    server = launch(APP, "--timeout-header", "2", "--no-access-log").wait_ready()
    with attacked(server, lambda peer: peer.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n")) as (
        attack,
        before,
    ):
        outlast(server, attack, before, data=b"x-more: y\r\n")
        assert statuses(attack) <= {b"408", b""}  # the reset for dripping on may overtake it
        assert b"408" in statuses(attack)
    assert server.stop() == 0


def test_bodies_that_stop(launch: Launch) -> None:
    server = launch(APP, "--timeout-body", "2", "--no-access-log").wait_ready()

    def begin(peer: socket.socket) -> None:
        peer.sendall(head("POST", "/upload", "content-length: 1000000") + bytes(100_000))

    with attacked(server, begin) as (attack, before):
        outlast(server, attack, before)
        assert statuses(attack) == {b"408"}
    assert server.stop() == 0


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_bodies_that_drip(launch: Launch, chunked: bool) -> None:
    words = ("--timeout-body", "2", "--body-rate-min", "100", "--no-access-log")
    server = launch(APP, *words).wait_ready()
    framing = "transfer-encoding: chunked" if chunked else "content-length: 1000000"

    def begin(peer: socket.socket) -> None:
        peer.sendall(head("POST", "/upload", framing))

    with attacked(server, begin) as (attack, before):
        outlast(server, attack, before, data=b"1\r\nx\r\n" if chunked else b"x")
        assert statuses(attack) <= {b"408", b""}
        assert b"408" in statuses(attack)
    assert server.stop() == 0


def test_responses_that_nobody_reads(launch: Launch) -> None:
    server = launch(APP, "--timeout-write", "2", "--no-access-log").wait_ready()
    with attacked(server, lambda peer: peer.sendall(head("GET", "/flood"))) as (attack, before):
        # Sending shows that a connection is gone; reading would be progress.
        outlast(server, attack, before, data=b"x", reads=False)
    assert server.stop() == 0


def test_pipes_that_nobody_reads(launch: Launch) -> None:
    server = launch(APP, "--timeout-write", "2", "--no-access-log").wait_ready()
    # Small responses would fit into the kernel's buffers by the ten thousand.
    requests = head("GET", "/large") * 200

    def begin(peer: socket.socket) -> None:
        peer.sendall(requests)

    with attacked(server, begin) as (attack, before):
        outlast(server, attack, before, data=b"x", reads=False)
    assert server.stop() == 0


def test_peers_that_fell_silent(launch: Launch) -> None:
    """What a crashed client or a lost network leaves: connections on which nothing comes, ever."""
    words = [f"--timeout-{of}={seconds}" for of, seconds in [("header", 2), ("body", 2)]]
    words += ["--timeout-write=2", "--timeout-keep-alive=2", "--no-access-log"]
    server = launch(APP, *words).wait_ready()
    beginnings = [
        b"",
        b"GET / HTTP/1.1\r\nho",
        head("POST", "/upload", "content-length: 10") + b"half",
        head("POST", "/upload", "expect: 100-continue", "content-length: 10"),
        head("GET", "/"),
        head("GET", "/") + b"GET",
        head("GET", "/flood"),
    ]
    turn = iter(range(CONNECTIONS))

    def begin(peer: socket.socket) -> None:
        peer.sendall(beginnings[next(turn) % len(beginnings)])

    ask(server)
    sockets = count_sockets(server)
    with attacked(server, begin) as (attack, before):
        deadline = time.monotonic() + PATIENCE_SECONDS
        # Those that wait to be read would live on if we read.
        attack.open = {peer for n, peer in enumerate(attack.peers) if n % len(beginnings) != 6}
        outlast(server, attack, before)
        pause = threading.Event()
        while count_sockets(server) > sockets:
            assert time.monotonic() < deadline
            pause.wait(0.1)
    assert server.stop() == 0


def count_sockets(server: ServerProcess) -> int:
    count = 0
    for link in Path(f"/proc/{server.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            count += os.readlink(link).startswith("socket:")
    return count
