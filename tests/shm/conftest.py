"""Fixtures for topics: a runtime directory per test, clean afterwards, and helper processes."""

import contextlib
import gc
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from framegate import shm

PEER = Path(__file__).with_name("peer.py")


class Peer:
    """A process that runs one function of peer.py and talks in lines."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(PEER), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._stdin, self._stdout = self.process.stdin, self.process.stdout

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self) -> str:
        """The next line that the peer prints; waits for it."""
        line = self._stdout.readline()
        assert line, f"the peer ended with {self.process.wait()} instead of a line"
        return line.rstrip("\n")

    def tell(self, line: str = "") -> None:
        """Let the peer's next `input()` return."""
        print(line, file=self._stdin, flush=True)

    def end(self) -> int:
        """Wait for the end of the peer; its exit status."""
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        status = self.process.wait()
        self._stdout.close()
        return status

    def kill(self) -> None:
        """SIGKILL: the peer runs no line of code any more."""
        self.process.kill()
        self.end()


@pytest.fixture(autouse=True)
def runtime_directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime directory of the test's own; afterwards nothing in it may be open or left."""
    path = Path("/dev/shm") / f"framegate-test-{os.getpid()}-{secrets.token_hex(4)}"
    path.mkdir(mode=0o700)
    monkeypatch.setenv("FRAMEGATE_RUNTIME_DIR", str(path))
    try:
        yield path
        gc.collect()
        maps = Path("/proc/self/maps").read_text()
        assert str(path) not in maps, "the test left a segment mapped"
        open_files = []
        for entry in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                open_files.append(os.readlink(f"/proc/self/fd/{entry}"))
        assert not [name for name in open_files if name.startswith(str(path))]
        monkeypatch.setenv("FRAMEGATE_RUNTIME_DIR", str(path))
        for topic in shm.topics():
            shm.unlink(topic)
        assert os.listdir(path) == [], "unlinking every topic left files"
    finally:
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def peer() -> Iterator[Callable[..., Peer]]:
    """Start peers: `peer("hold", "cam")` runs peer.hold("cam") in a process of its own."""
    peers: list[Peer] = []

    def start(*arguments: object) -> Peer:
        started = Peer(*map(str, arguments))
        peers.append(started)
        return started

    yield start
    for started in peers:
        if started.process.poll() is None:
            started.kill()
        else:
            started.end()
