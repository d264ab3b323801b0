"""The admin listener: alive, ready, and answered whatever Python does."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import statistics
import time
from pathlib import Path

import pytest

from framegate import Server
from framegate.config import Config
from framegate.errors import ConfigError, FramegateError
from metrics.scraping import admin_port, ask, eventually, scrape
from server_process import Launch

OPTIONS = ("--port", "0", "--admin-bind", "0", "--no-access-log")


@pytest.mark.parametrize(
    ("text", "binds"),
    [
        ("9000", ("127.0.0.1:9000",)),
        (":9000", ("127.0.0.1:9000",)),
        (9000, ("127.0.0.1:9000",)),
        ("0.0.0.0:9000", ("0.0.0.0:9000",)),
        (["9000", "[::1]:9000"], ("127.0.0.1:9000", "[::1]:9000")),
    ],
)
def test_a_port_alone_is_one_of_this_machine(text: object, binds: tuple[str, ...]) -> None:
    assert Config(admin_bind=text).admin_bind == binds  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["70000", "admin", ":", "1.2.3.4", "127.0.0.1:9000?proxy=on"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="admin_bind"):
        Config(admin_bind=text)  # type: ignore[arg-type]


def test_it_is_off_by_default(launch: Launch) -> None:
    server = launch("supervised_apps:app", "--port", "0").wait_ready()
    assert "admin:" not in server.text
    assert ask(server.port, "/metrics")[0] != 200 or "http_requests" not in server.text


def test_alive_ready_and_reasons(launch: Launch) -> None:
    server = launch("supervised_apps:app", *OPTIONS, "--workers", "2").wait_ready()
    port = admin_port(server)
    assert ask(port, "/livez")[::2] == (200, "ok\n")
    assert ask(port, "/readyz")[::2] == (200, "ok\n")
    status, _, text = ask(port, "/readyz?verbose")
    assert status == 200
    pids = re.findall(r"^\[\+\] worker \d \(pid (\d+)\): ready$", text, re.MULTILINE)
    assert sorted(map(int, pids)) == sorted(server.worker_pids)
    assert ask(port, "/metrics", "POST")[0] == 405
    assert ask(port, "/")[0] == 404


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_draining_server_is_alive_and_not_ready(launch: Launch, workers: str) -> None:
    server = launch("supervised_apps:app", *OPTIONS, "--workers", workers).wait_ready()
    port = admin_port(server)
    server.hold_file.touch()
    with server.request("/slow") as peer:
        server.wait_event("slow")
        server.signal(signal.SIGTERM)
        eventually(lambda: ask(port, "/readyz")[0] == 503, "the server is not ready")
        assert ask(port, "/livez")[0] == 200
        assert "draining" in ask(port, "/readyz?verbose")[2]
        assert scrape(port)["http_requests_in_flight"] == 1
        server.hold_file.unlink()
        assert b"200" in peer.recv(65536)
    assert server.wait() == 0


def is_stopped(pid: int) -> bool:
    """Return whether no thread of it runs any more: SIGSTOP reaches one after the other."""
    stats = Path(f"/proc/{pid}/task").glob("*/stat")
    return all(stat.read_text().rpartition(")")[2].split()[0] == "T" for stat in stats)


def test_answers_while_the_application_starts(launch: Launch) -> None:
    server = launch("supervised_apps:app", *OPTIONS, "--workers", "2").wait_ready()
    port = admin_port(server)
    pids = server.worker_pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    eventually(lambda: all(map(is_stopped, pids)), "a worker still runs")
    try:
        with socket.create_connection(("127.0.0.1", port)) as peer:
            # Nobody can answer; the kernel keeps the question.
            peer.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
            os.kill(pids[0], signal.SIGKILL)
            os.kill(pids[1], signal.SIGKILL)
            peer.settimeout(60)
            assert peer.recv(100).startswith(b"HTTP/1.1 200")
    finally:
        for pid in pids:
            with_pid(pid, signal.SIGCONT)


def with_pid(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def test_endpoint_outlives_the_worker_that_answers(launch: Launch) -> None:
    server = launch("supervised_apps:app", *OPTIONS, "--workers", "2").wait_ready()
    port = admin_port(server)
    for pid in server.worker_pids:
        seen = len(server.lines)
        os.kill(pid, signal.SIGKILL)
        assert ask(port, "/livez")[0] == 200
        server.wait_for("ready again", after=seen)
    assert ask(port, "/readyz")[0] == 200


def test_scrape_while_python_blocks(launch: Launch) -> None:
    """The fastest of many shows what it costs; a busy machine may delay any one of them."""
    server = launch("supervised_apps:app", *OPTIONS, "--ready-lag-max", "1s").wait_ready()
    port = admin_port(server)
    with server.request("/block"):
        server.wait_event("block")
        seconds = []
        for _ in range(20):
            begin = time.perf_counter()
            metrics = scrape(port)
            seconds.append(time.perf_counter() - begin)
        assert metrics["http_requests_in_flight"] == 1
        print(f"fastest {min(seconds):.4f} s, median {statistics.median(seconds):.4f} s")
        assert min(seconds) < 1.0
        # And it is known that the worker can do nothing else.
        eventually(lambda: ask(port, "/readyz")[0] == 503, "a blocked worker is not ready")
        assert "stands still" in ask(port, "/readyz?verbose")[2]
        assert ask(port, "/livez")[0] == 200
        assert scrape(port)["framegate_event_loop_lag_seconds"] >= 1
        os.kill(server.pid, signal.SIGKILL)


def test_threads_that_answer_take_short_turns(launch: Launch) -> None:
    """So that a handler that computes on the same core does not keep a scrape waiting."""
    server = launch("supervised_apps:app", *OPTIONS, "--workers", "2").wait_ready()
    assert ask(admin_port(server), "/livez")[0] == 200
    slices = {}
    for pid in server.worker_pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            slices[(task / "comm").read_text().strip()] = slice_ns(int(task.name))
    kernel = tuple(map(int, re.findall(r"\d+", os.uname().release)[:2]))
    for name in ("framegate-admin", "framegate-nati"):
        found = next(ns for thread, ns in slices.items() if thread.startswith(name))
        assert found == (100_000 if kernel >= (6, 12) else 0), slices


def slice_ns(thread: int) -> int:
    """Ask the kernel: `sched_runtime` of `sched_getattr(2)`, which has no function in libc."""
    number = {"x86_64": 315, "aarch64": 275}[os.uname().machine]
    attributes = (ctypes.c_uint64 * 6)()
    size = ctypes.sizeof(attributes)
    assert ctypes.CDLL(None).syscall(number, thread, ctypes.byref(attributes), size, 0) == 0
    return attributes[3]


def test_health_path_on_the_main_port() -> None:
    async def app(scope: object, receive: object, send: object) -> None:
        raise AssertionError("the application is not asked")

    options = {"lifespan": "off", "worker_scope": "off", "access_log": False}
    with Server(app, port=0, health_path="/healthz", **options).start_in_thread() as server:
        ((_, port),) = server.addresses  # type: ignore[misc]
        assert ask(int(port), "/healthz")[::2] == (200, "ok\n")
        assert "worker 1" in ask(int(port), "/healthz?verbose")[2]
        assert ask(int(port), "/healthz", "HEAD")[::2] == (200, "")


def test_paths_are_checked() -> None:
    with pytest.raises(ConfigError, match="health_path"):
        Config(health_path="healthz")
    with pytest.raises(ConfigError, match="both /x"):
        Config(health_path="/x", metrics_path="/x")


def test_no_runtime_segment_is_an_error_when_it_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FRAMEGATE_RUNTIME_DIR", str(tmp_path / "file"))
    with pytest.raises(FramegateError, match="runtime directory"):
        Server("supervised_apps:app", port=0, admin_bind="0").start_in_thread()


def test_unix_socket(tmp_path: Path) -> None:
    async def app(scope: object, receive: object, send: object) -> None:
        raise AssertionError("the application is not asked")

    path = tmp_path / "admin.sock"
    options = {"lifespan": "off", "worker_scope": "off", "access_log": False}
    with (
        Server(app, port=0, admin_bind=f"unix:{path}", **options).start_in_thread(),
        socket.socket(socket.AF_UNIX) as peer,
    ):
        peer.connect(str(path))
        peer.sendall(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        received = b""
        while chunk := peer.recv(4096):
            received += chunk
    assert received.startswith(b"HTTP/1.1 200") and received.endswith(b"ok\n")
