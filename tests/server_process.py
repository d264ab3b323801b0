"""Real server processes: started, watched, and never left behind.

A directory of tests that needs them has a conftest.py that imports `launch`.
"""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

HERE = Path(__file__).parent
COMMAND = [sys.executable, "-m", "framegate"]
PATIENCE_SECONDS = 60.0


class ServerProcess:
    """`platform serve` in a process group of its own, with what it writes."""

    def __init__(
        self,
        app: str,
        words: list[str],
        directory: Path,
        pass_fds: tuple[int, ...],
        *,
        extra: Mapping[str, str] | None = None,
        through: Sequence[str] = (),
    ):
        self.events_file = directory / "events"
        self.hold_file = directory / "hold"
        self.runtime_directory = directory / "run"
        self.events_file.touch()
        self.lines: list[str] = []
        self.changed = threading.Condition()
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith("FRAMEGATE_")
        }
        environment |= {
            "EVENTS": str(self.events_file),
            "HOLD": str(self.hold_file),
            "FRAMEGATE_RUNTIME_DIR": str(self.runtime_directory),
        }
        for name in ("HOST", "PORT", "WEB_CONCURRENCY", "NOTIFY_SOCKET"):
            environment.pop(name, None)
        environment |= extra or {}
        self.process = subprocess.Popen(
            [*through, *COMMAND, "serve", app, "--app-dir", str(HERE), *words],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            pass_fds=pass_fds,
        )
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self.changed:
                self.lines.append(line.rstrip("\n"))
                self.changed.notify_all()
        with self.changed:
            self.changed.notify_all()

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_for(self, pattern: str, *, after: int = 0) -> re.Match[str]:
        """Wait for a line of output."""

        def find() -> re.Match[str] | None:
            for line in self.lines[after:]:
                if match := re.search(pattern, line):
                    return match
            return None

        with self.changed:
            found = self.changed.wait_for(
                lambda: find() or not self.reader.is_alive(), timeout=PATIENCE_SECONDS
            )
            match = find()
        assert found and match, f"no line matches {pattern!r}:\n{self.text}"
        return match

    def wait_ready(self) -> ServerProcess:
        self.wait_for(r"ready: pids? ")
        return self

    @property
    def port(self) -> int:
        return int(self.wait_for(r'https?://[^ "]*:(\d+)')[1])

    @property
    def worker_pids(self) -> list[int]:
        return [int(pid) for pid in self.wait_for(r"ready: pids (.*)")[1].split(", ")]

    def events(self, name: str) -> list[int]:
        """Pids of the workers that noted an event, in order."""
        lines = [line.split() for line in self.events_file.read_text().splitlines()]
        return [int(pid) for event, pid in lines if event == name]

    def wait_event(self, name: str, count: int = 1) -> None:
        """Wait until workers have noted an event so often."""
        poll = threading.Event()
        for _ in range(int(PATIENCE_SECONDS / 0.02)):
            if len(self.events(name)) >= count:
                return
            poll.wait(0.02)  # a file cannot be awaited
        pytest.fail(f"no {count} events {name}:\n{self.text}")

    def request(self, path: str = "/pid") -> socket.socket:
        """Send a request on a connection of its own."""
        peer = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_SECONDS)
        peer.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        return peer

    def get(self, path: str = "/pid") -> str:
        return body(self.request(path))

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for the end; return the exit code."""
        code = self.process.wait(PATIENCE_SECONDS)
        self.reader.join(PATIENCE_SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()
        print(self.text)  # shown by pytest when the test fails
        return code

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()


def body(peer: socket.socket) -> str:
    """Read a response to its end; nothing if the connection was cut."""
    received = b""
    with peer:
        try:
            while chunk := peer.recv(65536):
                received += chunk
        except ConnectionResetError:
            return ""
    return received.partition(b"\r\n\r\n")[2].decode()


def wait_for_death(pid: int) -> None:
    """Wait until a process that is not our child is gone."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # poll, not select: this process may have more than 1024 descriptors open.
        watch = select.poll()
        watch.register(fd, select.POLLIN)
        assert watch.poll(PATIENCE_SECONDS * 1000), f"process {pid} is still alive"
    finally:
        os.close(fd)


Launch = Callable[..., ServerProcess]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    """Start servers; at the end none of their processes may be left."""
    started: list[ServerProcess] = []

    def start(
        app: str = "supervised_apps:app",
        *words: str,
        fds: tuple[int, ...] = (),
        extra: Mapping[str, str] | None = None,
        through: Sequence[str] = (),
    ) -> ServerProcess:
        if not through and not {"--port", "--uds", "--fd", "--bind"} & set(words):
            words = (*words, "--port", "0")
        server = ServerProcess(app, list(words), tmp_path, fds, extra=extra, through=through)
        started.append(server)
        return server

    yield start
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
        server.wait()
        for event in ("startup", "import"):
            for pid in server.events(event):
                wait_for_death(pid)
        assert not list(server.runtime_directory.glob("*.runtime")) or server.process.returncode < 0
