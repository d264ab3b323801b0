"""Hosts for bridges: runtime directories of their own, on one machine."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from conformance.process import free_port

Status = dict[str, Any]
PLATFORM = [sys.executable, "-m", "framegate"]


class BridgeProcess:
    """`platform bridge --json`, and what it says."""

    def __init__(self, words: Sequence[str], environment: dict[str, str], said: Path) -> None:
        self.said = said
        with said.open("a") as stream:
            self.process = subprocess.Popen(
                [*words, "--json", "--interval", "50ms"],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
            )
        self._news = threading.Condition()
        self._newest: Status | None = None
        self._count = 0
        self._ended = False
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self._newest, self._count = json.loads(line), self._count + 1
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def status(self, fits: Callable[[Status], object] = lambda _: True) -> Status:
        """A status of from now on that fits; the watchdog ends the test if none does."""
        with self._news:
            # The next one may have been written before this was called.
            first = self._count + 2
            self._news.wait_for(
                lambda: (
                    self._ended
                    or (self._count >= first and self._newest is not None and fits(self._newest))
                )
            )
            assert not self._ended, f"it ended with {self.process.wait()}: {self.text()}"
            assert self._newest is not None
            return self._newest

    def incoming(self, topic: str, fits: Callable[[Status], object] = lambda _: True) -> Status:
        """The next status of a topic that comes, that fits."""
        return self._row("incoming", topic, fits)

    def outgoing(self, topic: str, fits: Callable[[Status], object] = lambda _: True) -> Status:
        """The next status of a topic that goes, that fits."""
        return self._row("outgoing", topic, fits)

    def _row(self, direction: str, topic: str, fits: Callable[[Status], object]) -> Status:
        def rows(status: Status) -> list[Status]:
            return [row for row in status[direction] if row["topic"] == topic and fits(row)]

        return rows(self.status(rows))[0]

    def settled(self) -> Status:
        """A status that is the same half a second later."""
        same, before = 0, None
        while same < 10:
            status = self.status()
            now = {**status, "unix_s": 0}
            same, before = (same + 1 if now == before else 0), now
        return status

    def text(self) -> str:
        """What it said to people."""
        return self.said.read_text()

    def wait_said(self, part: str) -> str:
        """Wait until it has said something; all that it said."""
        self.status(lambda _: part in self.text())
        return self.text()

    def end(self) -> int:
        """Ask it to stop, as Ctrl-C does; its exit code."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait()
        self._close()
        return code

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()
        self._close()

    def _close(self) -> None:
        self._thread.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Host:
    """A machine, as far as topics see it; `with host:` makes this process one of its processes."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.runtime = Path("/dev/shm") / f"framegate-test-{os.getpid()}-{secrets.token_hex(4)}"
        self.runtime.mkdir(mode=0o700)
        self.directory = directory
        self.before: list[str | None] = []
        self.bridges: list[BridgeProcess] = []
        self.prefix: list[str] = []
        """Words in front of each command: `ip netns exec NAME`."""

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "FRAMEGATE_RUNTIME_DIR": str(self.runtime), "PYTHONWARNINGS": "error"}

    def __enter__(self) -> Host:
        self.before.append(os.environ.get("FRAMEGATE_RUNTIME_DIR"))
        os.environ["FRAMEGATE_RUNTIME_DIR"] = str(self.runtime)
        return self

    def __exit__(self, *_: object) -> None:
        before = self.before.pop()
        if before is None:
            del os.environ["FRAMEGATE_RUNTIME_DIR"]
        else:
            os.environ["FRAMEGATE_RUNTIME_DIR"] = before

    def bridge(self, *words: str) -> BridgeProcess:
        """Start a bridge that is called as the host is."""
        said = self.directory / f"{self.name}.said"
        command = [*self.prefix, *PLATFORM, "bridge", "--host", self.name, *words]
        self.bridges.append(BridgeProcess(command, self.environment, said))
        return self.bridges[-1]

    def close(self) -> None:
        for one in self.bridges:
            one.kill()
        shutil.rmtree(self.runtime, ignore_errors=True)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Callable[[str], Host]]:
    """Make hosts by name."""
    with contextlib.ExitStack() as stack:

        def make(name: str) -> Host:
            made = Host(name, tmp_path)
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture
def robot(host: Callable[[str], Host]) -> Host:
    """A host that has cameras."""
    return host("robot")


@pytest.fixture
def desk(host: Callable[[str], Host]) -> Host:
    """A host that looks at them."""
    return host("desk")


@pytest.fixture
def endpoint() -> str:
    """An endpoint on loopback that nobody listens on yet."""
    return f"tcp/127.0.0.1:{free_port()}"
