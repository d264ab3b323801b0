"""SIGTTIN and SIGTTOU: one worker more, one less, and no connection is lost with it."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

from server_process import Launch, ServerProcess, body, wait_for_death
from supervisor.load import Load

APP = "supervised_apps:app"


def grow(server: ServerProcess, to: int) -> int:
    server.signal(signal.SIGTTIN)
    server.wait_for(f"one worker more: {to}")
    return int(server.wait_for(rf"worker {to} ready(?: again)? \(pid (\d+)\)")[1])


def test_more_and_fewer_under_load(launch: Launch) -> None:
    server = launch(APP, "--workers", "2", "--no-access-log").wait_ready()
    with Load(server.port) as load:
        load.wait_for_answers(20)
        third = grow(server, 3)
        while third not in load.pids:
            load.wait_for_answers(1)
        server.signal(signal.SIGTTOU)
        server.wait_for("one worker less: 2")
        wait_for_death(third)
        server.signal(signal.SIGTTOU)
        server.wait_for("one worker less: 1")
        wait_for_death(server.worker_pids[1])
        load.pids.clear()
        load.wait_for_answers(200)
        # The one that is left accepts from the sockets of all.
        assert load.pids == {server.worker_pids[0]}
    assert load.errors == []
    server.signal(signal.SIGTTOU)
    server.wait_for("one worker stays")
    assert server.stop() == 0


def test_heir_that_dies_has_a_successor_with_all_sockets(launch: Launch) -> None:
    server = launch(APP, "--workers", "2").wait_ready()
    server.signal(signal.SIGTTOU)
    server.wait_for("one worker less: 1")
    wait_for_death(server.worker_pids[1])
    os.kill(server.worker_pids[0], signal.SIGKILL)
    server.wait_for("worker 1 ready again")
    assert all(body(server.request()) for _ in range(50))
    # A worker that comes back gets its sockets back.
    grow(server, 2)
    server.signal(signal.SIGHUP)
    server.wait_for("reloaded: 2 of 2")
    assert len({body(server.request()) for _ in range(100)}) == 2
    assert server.stop() == 0


def test_unix_socket_is_shared_by_whoever_comes(launch: Launch, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    server = launch(APP, "--uds", path, "--workers", "2").wait_ready()
    grow(server, 3)
    server.signal(signal.SIGTTOU)
    server.wait_for("one worker less: 2")
    for _ in range(20):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(path)
            peer.sendall(b"GET /pid HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert body(peer)
    assert server.stop() == 0
