"""Workers that are killed at any moment, logs that nobody reads, disks and tables that are full."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import signal
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from conformance.process import free_port
from peers.procfs import children, open_files
from privileges import needs_root
from server_process import COMMAND, HERE, Launch, body, wait_for_death
from supervisor.load import Load

APP = "supervised_apps:app"


def test_workers_killed_at_any_moment(launch: Launch) -> None:
    """Also while they start: no orphan, no row and no socket is lost."""
    words = ("--workers", "2", "--worker-restarts-max", "1000", "--no-access-log")
    server = launch(APP, *words).wait_ready()
    chance, pause = random.Random(7), threading.Event()
    for _ in range(15):
        for pid in children(server.pid):
            if chance.random() < 0.6:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        pause.wait(chance.random() * 0.2)  # a moment that nobody chose
    # Nobody is refused in the meantime, and everybody is served in the end.
    assert all(body(server.request()) for _ in range(10))
    assert server.process.poll() is None
    server.signal(signal.SIGHUP)
    server.wait_for("reloaded: 2 of 2")
    assert server.stop() == 0


def test_supervisor_killed_at_any_moment_leaves_nothing(launch: Launch, tmp_path: Path) -> None:
    chance, pause = random.Random(3), threading.Event()
    port = str(free_port())
    seen: set[int] = set()
    for _ in range(6):
        server = launch(APP, "--workers", "2", "--port", port)
        pause.wait(chance.random() * 0.8)
        seen |= set(children(server.pid))
        server.signal(signal.SIGKILL)
        server.wait()
        for pid in (*seen, *server.events("startup")):
            wait_for_death(pid)
    # The port and the names of topics are free, and the directory is clean.
    server = launch(APP, "--workers", "2", "--port", port).wait_ready()
    assert len(list(server.runtime_directory.glob("*.runtime"))) == 1
    assert server.stop() == 0
    assert not list(server.runtime_directory.glob("*.runtime"))


def test_reload_while_workers_are_killed(launch: Launch) -> None:
    words = ("--workers", "2", "--worker-restarts-max", "1000", "--no-access-log")
    server = launch(APP, *words).wait_ready()
    chance, pause = random.Random(5), threading.Event()
    for _ in range(6):
        server.signal(signal.SIGHUP)
        pause.wait(chance.random() * 0.4)
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(children(server.pid) or [2**22]), signal.SIGKILL)
    # A worker that was just killed may still be on its way up, and is none of those then.
    for _ in range(10):
        seen = len(server.lines)
        server.signal(signal.SIGHUP)
        server.wait_for(r"reloaded: \d of 2", after=seen)
        if any("reloaded: 2 of 2" in line for line in server.lines[seen:]):
            break
    else:
        pytest.fail("no reload replaced both workers")
    with Load(server.port) as load:
        load.wait_for_answers(50)
    assert load.errors == []
    assert server.stop() == 0


class Unread:
    """A server whose output goes where the test says; nobody reads it."""

    def __init__(self, directory: Path, output: int, *words: str) -> None:
        self.port_file = directory / "port"
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith("FRAMEGATE_")
        }
        environment |= {
            "EVENTS": str(directory / "events"),
            "HOLD": str(directory / "hold"),
            "FRAMEGATE_RUNTIME_DIR": str(directory / "run"),
        }
        self.port = free_port()
        self.process = subprocess.Popen(
            [*COMMAND, "serve", APP, "--app-dir", str(HERE), "--port", str(self.port), *words],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

    def get(self) -> int:
        pause = threading.Event()
        while True:
            assert self.process.poll() is None
            try:
                peer = socket.create_connection(("127.0.0.1", self.port), timeout=60)
            except ConnectionRefusedError:
                pause.wait(0.05)
                continue
            peer.sendall(b"GET /pid HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            if text := body(peer):
                return int(text)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def fill(fd: int) -> None:
    os.set_blocking(fd, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(fd, b"x" * 4096):
            pass
    with contextlib.suppress(BlockingIOError):
        while os.write(fd, b"x"):
            pass
    os.set_blocking(fd, True)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_log_that_nobody_reads_stops_nobody(tmp_path: Path, workers: str) -> None:
    reader, writer = os.pipe()
    try:
        server = Unread(tmp_path, writer, "--workers", workers, "--log-level", "debug")
        first = server.get()
        fill(writer)
        for _ in range(20):
            server.get()
        if workers == "2":
            os.kill(first, signal.SIGKILL)  # its death is a line, too
            wait_for_death(first)  # else it may be one while stopping, which the status tells
            while server.get() == first:
                pass
        assert server.stop() == 0
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("workers", ["1", "2"])
@needs_root
def test_full_disk_under_the_log_stops_nobody(tmp_path: Path, workers: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        (disk / "ballast").write_bytes(bytes(60 << 10))
        with (disk / "log").open("ab") as log:
            with contextlib.suppress(OSError):
                log.write(bytes(1 << 20))
                log.flush()
            with contextlib.suppress(OSError):
                log.close()
        log_fd = os.open(disk / "log", os.O_WRONLY | os.O_APPEND)
        server = Unread(tmp_path, log_fd, "--workers", workers)
        os.close(log_fd)
        for _ in range(20):
            first = server.get()
        if workers == "2":
            os.kill(first, signal.SIGKILL)
            wait_for_death(first)
            while server.get() == first:
                pass
        assert server.stop() == 0
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_supervisor_without_descriptors_tries_again(launch: Launch) -> None:
    words = ("--workers", "2", "--worker-restarts-max", "1000")
    server = launch(APP, *words).wait_ready()
    used = open_files(server.pid)
    _, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (used - 1, hard))
    os.kill(server.worker_pids[0], signal.SIGKILL)
    server.wait_for("worker 1 ended with an error: it cannot be started: .*Too many open files")
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (hard, hard))
    server.wait_for("worker 1 ready again")
    assert all(body(server.request()) for _ in range(10))
    assert server.stop() == 0
