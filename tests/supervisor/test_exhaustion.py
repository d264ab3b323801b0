"""No descriptors left: the server survives, says so once, and goes on when there are some again."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading
from collections.abc import Iterator

import pytest

from peers.procfs import open_files
from server_process import Launch, ServerProcess, body

APP = "supervised_apps:app"


@contextlib.contextmanager
def few_files(pids: list[int], spare: int) -> Iterator[None]:
    """Leave processes so many descriptors."""
    before = [resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in pids]
    for pid, (_, hard) in zip(pids, before, strict=True):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (open_files(pid) + spare, hard))
    try:
        yield
    finally:
        for pid, limits in zip(pids, before, strict=True):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


def worker_pids(server: ServerProcess) -> list[int]:
    return server.worker_pids if "pids" in server.text else [server.pid]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_worker_without_descriptors_survives_and_goes_on(launch: Launch, workers: str) -> None:
    server = launch(APP, "--workers", workers).wait_ready()
    pids = worker_pids(server)
    assert server.get()  # whatever the first request opens is open
    held: list[socket.socket] = []
    since = len(server.lines)
    with few_files(pids, spare=8):
        for _ in range(60 * len(pids)):
            held.append(socket.create_connection(("127.0.0.1", server.port), timeout=60))
        server.wait_for("Too many open files", after=since)
        # Who is in is served; who is not waits in the kernel's queue, refused by nobody.
        answered = 0
        for peer in held:
            peer.sendall(b"GET /pid HTTP/1.1\r\nhost: x\r\n\r\n")
        held[0].settimeout(60)
        answered += bool(held[0].recv(65536))
        assert answered == 1
        # It does not burn a core while it cannot accept.
        ticks = cpu_ticks(pids)
        threading.Event().wait(1.0)
        assert cpu_ticks(pids) - ticks < 0.5 * os.sysconf("SC_CLK_TCK") * len(pids)
        for peer in held:
            peer.close()
        # Those who waited are served when others leave, still with few descriptors.
        assert body(server.request())
    assert [body(server.request()) for _ in range(10)]
    complaints = [line for line in server.lines[since:] if "Too many open files" in line]
    assert len(complaints) <= 2 * len(pids), complaints
    assert server.process.poll() is None
    assert server.stop() == 0


def cpu_ticks(pids: list[int]) -> int:
    """User and system time of processes."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total
