"""SIGHUP: every worker is replaced, one after the other, and nobody notices."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from server_process import Launch, ServerProcess, body, wait_for_death
from supervisor.load import Load

APP = "supervised_apps:app"

RESTARTS = int(os.environ.get("FRAMEGATE_RESTARTS", "5"))
"""`task test:restarts` has more."""


def reload(server: ServerProcess, count: int) -> list[int]:
    """Replace all workers; return the pids of the new ones."""
    seen = len(server.lines)
    server.signal(signal.SIGHUP)
    server.wait_for(rf"reloaded: {count} of {count} workers serve", after=seen)
    pattern = re.compile(r"worker \d+: pid (\d+) serves in place of pid \d+")
    found = [pattern.search(line) for line in server.lines[seen:]]
    return [int(match[1]) for match in found if match]


def test_restarts_under_load_lose_and_refuse_no_request(launch: Launch) -> None:
    server = launch(APP, "--workers", "2", "--no-access-log").wait_ready()
    before = set(server.worker_pids)
    with Load(server.port) as load:
        load.wait_for_answers(50)
        for _ in range(RESTARTS):
            pids = reload(server, 2)
            assert len(pids) == 2
            assert not before & set(pids)
            before |= set(pids)
            load.wait_for_answers(20)
    assert load.errors == []
    assert set(pids) & load.pids
    assert len(server.events("startup")) == 2 * (RESTARTS + 1)
    assert server.stop() == 0
    assert len(server.events("shutdown")) == 2 * (RESTARTS + 1)
    assert "were cut" not in server.text


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_wrk_sees_no_error(launch: Launch) -> None:
    server = launch(APP, "--workers", "2", "--no-access-log").wait_ready()
    wrk = subprocess.Popen(
        ["wrk", "-t1", "-c16", "-d4", f"http://127.0.0.1:{server.port}/pid"],
        stdout=subprocess.PIPE,
        text=True,
    )
    reload(server, 2)
    reload(server, 2)
    text, _ = wrk.communicate(timeout=60)
    assert "Requests/sec" in text
    assert "Socket errors" not in text, text
    assert "Non-2xx" not in text, text
    assert server.stop() == 0


def test_unix_socket_too(launch: Launch, tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    server = launch(APP, "--uds", path, "--workers", "2").wait_ready()
    reload(server, 2)
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(path)
        peer.sendall(b"GET /pid HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert int(body(peer)) in server.events("startup")[2:]
    assert server.stop() == 0


def test_the_old_worker_stays_when_the_new_code_is_broken(launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "changing.py").write_text("from supervised_apps import app\n")
    words = ("--workers", "2", "--app-dir", str(tmp_path))
    extra = {"PYTHONPATH": str(Path(__file__).parents[1])}
    server = launch("changing:app", *words, extra=extra).wait_ready()
    pids = server.worker_pids
    (tmp_path / "changing.py").write_text("def app(\n")
    server.signal(signal.SIGHUP)
    server.wait_for(rf"worker 1 \(pid {pids[0]}\) stays: its successor ended with exit code 3")
    server.wait_for("the reload has failed")
    assert "SyntaxError" in server.text
    assert {int(server.get()) for _ in range(50)} <= set(pids)
    # Mended, the next one works.
    (tmp_path / "changing.py").write_text("from supervised_apps import app\n")
    assert len(reload(server, 2)) == 2
    assert server.stop() == 0


def test_a_successor_that_is_not_ready_in_time_is_given_up(launch: Launch) -> None:
    server = launch(
        "supervised_apps:hanging_later", "--workers", "2", "--timeout-startup", "5"
    ).wait_ready()
    pids = server.worker_pids
    server.hold_file.touch()
    server.signal(signal.SIGHUP)
    server.wait_for("the reload has failed")
    assert {int(server.get()) for _ in range(20)} <= set(pids)
    assert server.stop() == 0


def test_old_worker_that_dies_meanwhile_is_replaced_by_its_successor(launch: Launch) -> None:
    server = launch("supervised_apps:waiting_later", "--workers", "2").wait_ready()
    pids = server.worker_pids
    server.hold_file.touch()
    server.signal(signal.SIGHUP)
    server.wait_event("startup", 3)
    os.kill(pids[0], signal.SIGKILL)
    server.wait_for("worker 1 ended with SIGKILL: its successor starts")
    peers = [server.request() for _ in range(10)]
    server.hold_file.unlink()
    assert all(body(peer) for peer in peers)
    server.wait_for("reloaded: 2 of 2")
    assert server.stop() == 0


def test_busy_worker_finishes_before_the_next_one_is_replaced(launch: Launch) -> None:
    server = launch(APP, "--workers", "2").wait_ready()
    server.hold_file.touch()
    peers = [server.request("/slow") for _ in range(6)]
    server.wait_event("slow", 6)
    server.signal(signal.SIGHUP)
    server.wait_for(r"worker \d: pid \d+ serves in place of")
    assert len(server.events("startup")) == 3  # one at a time
    server.hold_file.unlink()
    assert [body(peer) for peer in peers] == ["done"] * 6
    server.wait_for("reloaded: 2 of 2")
    assert server.stop() == 0


def test_idle_connection_may_send_one_more_request(launch: Launch) -> None:
    """Closed at once, it would lose the request that the client is sending in that moment."""
    server = launch(APP, "--workers", "2").wait_ready()
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as peer:
        peer.sendall(b"GET /pid HTTP/1.1\r\nhost: x\r\n\r\n")
        old = int(peer.recv(4096).rpartition(b"\r\n")[2])
        server.signal(signal.SIGHUP)
        server.wait_for(rf"serves in place of pid {old}")
        answer = b""
        while b"connection: close" not in answer:  # it may not know yet
            peer.sendall(b"GET /pid HTTP/1.1\r\nhost: x\r\n\r\n")
            answer = peer.recv(4096)
            assert answer.endswith(str(old).encode())
        assert peer.recv(4096) == b""
    wait_for_death(old)
    assert server.stop() == 0


def test_connection_that_stays_idle_is_closed(launch: Launch) -> None:
    server = launch(APP, "--workers", "2", "--timeout-graceful-shutdown", "1").wait_ready()
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as peer:
        server.wait_for("ready")
        peer.sendall(b"GET /pid HTTP/1.1\r\nhost: x\r\n\r\n")
        peer.recv(4096)
        server.signal(signal.SIGHUP)
        assert peer.recv(4096) == b""
    server.wait_for("reloaded: 2 of 2")
    assert server.stop() == 0
    assert "were cut" not in server.text


def test_stop_during_a_reload(launch: Launch) -> None:
    server = launch("supervised_apps:waiting_later", "--workers", "2").wait_ready()
    server.hold_file.touch()
    server.signal(signal.SIGHUP)
    server.wait_event("startup", 3)
    assert server.stop() == 0


def test_second_reload_during_the_first(launch: Launch) -> None:
    server = launch(APP, "--workers", "2").wait_ready()
    server.signal(signal.SIGHUP)
    server.wait_for("is replaced: reload")
    seen = len(server.lines)
    server.signal(signal.SIGHUP)
    server.wait_for("reloaded: 2 of 2", after=seen)
    # Nobody may be left who began before the second one.
    begun = re.findall(r"worker \d: pid (\d+) serves in place", "\n".join(server.lines[seen:]))
    assert 3 <= len(begun) <= 4
    assert {int(server.get()) for _ in range(20)} <= {int(pid) for pid in begun[-2:]}
    assert server.stop() == 0


def test_service_manager_is_told(launch: Launch, tmp_path: Path) -> None:
    """RELOADING=1, then READY=1 when the last one is replaced (sd_notify(3))."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        extra = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        server = launch(APP, "--workers", "2", extra=extra)
        assert manager.recv(4096).startswith(b"READY=1\n")
        server.signal(signal.SIGHUP)
        assert manager.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert manager.recv(4096).startswith(b"READY=1\n")
        assert len(server.events("startup")) == 4
        assert server.stop() == 0


def test_hang_up_of_the_terminal_stops(launch: Launch, tmp_path: Path) -> None:
    """Else a server in a closed window would restart its workers and go on, for nobody."""
    main, side = os.openpty()
    try:
        path = os.ttyname(side)
        command = ["setsid", "--wait", "sh", "-c", f'exec "$@" < {path}', "sh"]
        server = launch(APP, "--workers", "2", "--port", "0", through=command).wait_ready()
        pids = server.worker_pids
    finally:
        os.close(side)
        os.close(main)
    server.wait_for("the terminal is gone")
    for pid in pids:
        wait_for_death(pid)
    server.wait()
