"""Several workers as threads of one process: what a Python without the GIL gets by `--workers N`.

Here the supervisor is told so, which works on every Python: slower with the GIL, but the same.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from pathlib import Path

import pytest

import server_process
from framegate.threading_model import name_of, runs_without_lock, stays_without_lock
from framegate.worker_threads import AllOf, AllReady, shares
from server_process import Launch, ServerProcess, body, wait_for_death
from supervisor.load import Load

APP = "supervised_apps:app"
COMMAND = [
    sys.executable,
    "-c",
    "import framegate.supervisor as s; s.stays_without_lock = lambda: True; "
    "from framegate.cli import main; raise SystemExit(main())",
]


@pytest.fixture
def launch_threads(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> Launch:
    """As `launch`, on a Python that is taken for one without the GIL."""
    monkeypatch.setattr(server_process, "COMMAND", COMMAND)
    return launch


def test_this_python_is_recognized() -> None:
    is_enabled = getattr(sys, "_is_gil_enabled", lambda: True)
    assert runs_without_lock() is not is_enabled()
    assert not (stays_without_lock() and is_enabled())


def test_names() -> None:
    assert name_of(0, 1) == "worker 1"
    assert name_of(0, 4) == "workers 1 to 4"
    assert name_of(4, 1) == "worker 5"


def test_all_serve_in_one_process(launch_threads: Launch) -> None:
    server = launch_threads(APP, "--workers", "3").wait_ready()
    (pid,) = server.worker_pids
    assert {server.get() for _ in range(30)} == {str(pid)}
    assert len(server.events("startup")) == 3
    assert set(server.events("startup")) == {pid}
    assert "3 worker" in server.text
    assert server.stop() == 0
    assert len(server.events("shutdown")) == 3


def test_connections_are_spread_over_the_threads(launch_threads: Launch) -> None:
    """Each has a socket of its own: one that is blocked keeps nobody from the others."""
    server = launch_threads(APP, "--workers", "2", "--log-stalls", "0.2s").wait_ready()
    peers = [server.request("/pause") for _ in range(8)]
    server.wait_event("pause", 2)
    assert all(body(peer) for peer in peers)
    seen = [line for line in server.lines if "the event loop has stood still" in line]
    assert seen
    assert server.stop() == 0


def test_reload_under_load_loses_nothing(launch_threads: Launch) -> None:
    server = launch_threads(APP, "--workers", "2", "--no-access-log").wait_ready()
    with Load(server.port) as load:
        load.wait_for_answers(20)
        for _ in range(3):
            seen = len(server.lines)
            server.signal(signal.SIGHUP)
            server.wait_for("reloaded: 2 of 2 workers serve", after=seen)
            load.wait_for_answers(20)
    assert load.errors == []
    assert len(load.pids) >= 3
    assert server.stop() == 0


def test_more_and_fewer(launch_threads: Launch) -> None:
    server = launch_threads(APP, "--workers", "2").wait_ready()
    server.signal(signal.SIGTTIN)
    server.wait_for("one worker more: 3")
    server.wait_for(r"worker 3 ready")
    server.signal(signal.SIGTTOU)
    server.wait_for("one worker less: 2")
    server.signal(signal.SIGTTOU)
    server.wait_for("the workers of one process stay")
    assert all(body(server.request()) for _ in range(10))
    assert server.stop() == 0


def test_death_of_the_process_is_one_death(launch_threads: Launch) -> None:
    server = launch_threads(APP, "--workers", "2").wait_ready()
    (pid,) = server.worker_pids
    os.kill(pid, signal.SIGKILL)
    server.wait_for("workers 1 to 2 ended with SIGKILL")
    server.wait_for("workers 1 to 2 ready again")
    assert int(server.get()) != pid
    assert server.stop() == 0


def test_collector_has_one_caller_at_a_time(launch_threads: Launch) -> None:
    """Workers that are threads share it, and each hands over what it has by a thread of its own."""
    words = ("--workers", "3", "--collector", "logs.printing_collector:Alone")
    server = launch_threads(APP, *words).wait_ready()
    for _ in range(10):
        peers = [server.request() for _ in range(12)]
        assert all(body(peer) for peer in peers)
    server.wait_for("completed 120")
    assert server.stop() == 0
    assert "two callers at once" not in server.text


def test_one_that_fails_fails_all(launch_threads: Launch) -> None:
    server = launch_threads("supervised_apps:failing", "--workers", "2")
    assert server.wait() == 3
    assert "no database" in server.text


def test_stops_in_time_with_everything_open(launch_threads: Launch) -> None:
    words = ("--workers", "2", "--timeout-graceful-shutdown", "0.5s")
    server: ServerProcess = launch_threads("supervised_apps:streams", *words).wait_ready()
    peers = [server.request(path) for path in ("/events", "/stuck") for _ in range(4)]
    server.wait_event("events", 4)
    server.wait_event("stuck", 4)
    assert server.stop() == 0
    assert len(server.events("cancelled")) == 4
    for peer in peers:
        peer.close()


def test_supervisor_that_is_killed_leaves_nothing(launch_threads: Launch) -> None:
    server = launch_threads(APP, "--workers", "2").wait_ready()
    (pid,) = server.worker_pids
    server.signal(signal.SIGKILL)
    server.wait()
    wait_for_death(pid)
    assert len(server.events("shutdown")) == 2


def test_sockets_are_dealt_by_address(tmp_path: Path) -> None:
    def listener(port: int = 0) -> socket.socket:
        item = socket.socket()
        item.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        item.bind(("127.0.0.1", port))
        return item

    first, second = listener(), listener()
    ports = [item.getsockname()[1] for item in (first, second)]
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(tmp_path / "socket"))
    dealt = shares([first, second, listener(ports[0]), listener(ports[1]), unix], 2)
    for share in dealt:
        assert [item.getsockname()[1] for item in share[:2]] == ports
        assert share[2].getsockname() == str(tmp_path / "socket")
    everything = [item.fileno() for share in dealt for item in share]
    assert len(set(everything)) == 6  # each closes its own
    for share in dealt:
        for item in share:
            item.close()


def test_all_of_several_events() -> None:
    events = [threading.Event() for _ in range(2)]
    both = AllOf(events)
    events[0].set()
    assert not both.wait(0.01)
    events[1].set()
    assert both.wait(0.01)


def test_ready_is_when_the_last_one_is() -> None:
    called: list[int] = []
    ready = AllReady(2, lambda: called.append(1))
    ready()
    assert called == []
    ready()
    assert called == [1]
