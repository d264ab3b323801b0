"""Limits hold for all workers together, under load, and when a worker is killed."""

from __future__ import annotations

import collections
import os
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from framegate.config import Config
from framegate.errors import ConfigError
from framegate.limits_area import area_bytes
from server_process import Launch

REQUEST = b"GET /pid HTTP/1.1\r\nhost: x\r\nconnection: close\r\n%s\r\n"


def ask(port: int, fields: bytes = b"") -> tuple[int, str]:
    """Return the status and the body of one request on a connection of its own."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as peer:
        peer.sendall(REQUEST % fields)
        answer = b""
        while chunk := peer.recv(65536):
            answer += chunk
    top, _, content = answer.partition(b"\r\n\r\n")
    return int(top.split(b" ")[1]), content.decode()


@pytest.mark.parametrize("workers", [1, 4])
def test_rate_is_that_of_all_workers(launch: Launch, workers: int) -> None:
    words = (
        "--workers",
        str(workers),
        "--rate-limit",
        "40/h",
        "--forwarded-allow-ips",
        "127.0.0.1",
    )
    port = launch("supervised_apps:app", *words, "--port", "0").wait_ready().port

    def client(number: int) -> list[int]:
        fields = b"x-forwarded-for: 192.0.2.%d\r\n" % number
        return [ask(port, fields)[0] for _ in range(60)]

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(client, (1, 2)):
            counts = collections.Counter(found)
            # A new client may be let in twice by two workers at once, once.
            assert counts[200] in (40, 41)
            assert counts[200] + counts[429] == 60
    assert ask(port, b"x-forwarded-for: 192.0.2.9\r\n")[0] == 200


@pytest.mark.parametrize("workers", [1, 4])
def test_connections_are_those_of_all_workers(launch: Launch, workers: int) -> None:
    words = ("--workers", str(workers), "--limit-connections", "6", "--port", "0")
    port = launch("supervised_apps:app", *words).wait_ready().port
    held: list[socket.socket] = []
    try:
        for _ in range(6):
            peer = socket.create_connection(("127.0.0.1", port), timeout=60)
            held.append(peer)
            peer.sendall(b"GET /pid HTTP/1.1\r\nhost: x\r\n\r\n")
            assert peer.recv(65536).startswith(b"HTTP/1.1 200")
        assert [ask(port)[0] for _ in range(8)] == [503] * 8
    finally:
        for peer in held:
            peer.close()
    deadline = time.monotonic() + 60
    while ask(port)[0] != 200:
        assert time.monotonic() < deadline, "what was held is never given back"


def test_what_a_killed_worker_held_is_given_back(launch: Launch) -> None:
    words = ("--workers", "2", "--limit-connections", "4", "--port", "0")
    server = launch("supervised_apps:app", *words).wait_ready()
    for _ in range(2):
        held: dict[socket.socket, str] = {}
        deadline = time.monotonic() + 60
        while len(held) < 4:
            peer = socket.create_connection(("127.0.0.1", server.port), timeout=60)
            peer.sendall(b"GET /pid HTTP/1.1\r\nhost: x\r\n\r\n")
            answer = peer.recv(65536)
            if answer.startswith(b"HTTP/1.1 200"):
                held[peer] = answer.rpartition(b"\r\n\r\n")[2].decode()
            else:
                peer.close()
                assert time.monotonic() < deadline, "what was held is never given back"
        assert ask(server.port)[0] == 503
        killed = set(held.values())
        for pid in killed:
            os.kill(int(pid), signal.SIGKILL)
        for peer in held:
            peer.close()
        # All connections of the dead are free again, once there are workers.
        while True:
            assert time.monotonic() < deadline, "nobody serves any more"
            try:
                status, pid = ask(server.port)
            except (ConnectionError, IndexError):
                continue
            if status == 200 and pid not in killed:
                break


def test_waiting_requests_are_served_in_the_end(launch: Launch) -> None:
    words = ("--workers", "4", "--limit-requests", "2", "--limit-queue-timeout", "60")
    port = launch("supervised_apps:app", *words, "--port", "0").wait_ready().port
    with ThreadPoolExecutor(16) as pool:
        found = collections.Counter(
            status for status, _ in pool.map(lambda _: ask(port), range(200))
        )
    assert found == {200: 200}


def test_segment_has_no_area_while_nothing_is_limited() -> None:
    assert area_bytes(Config(), 4) == 0
    assert area_bytes(Config(rate_limit="1/s", rate_limit_entries=9), 4) == 64 + 4 * 64 + 2 * 16 * 8


@pytest.mark.parametrize("text", ["0/s", "1", "1/d", "a/s", "1/s:0", "1/h:999999"])
def test_rates_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="rate_limit"):
        Config(rate_limit=text)
