"""`platform topic top`: on a terminal, and where there is none."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from typing import Any

import pytest

from framegate import shm
from framegate.cli import main

TOP = [sys.executable, "-m", "framegate", "topic", "top"]
PATIENCE_S = 60


class Terminal:
    """A program on a terminal of 24 lines and 140 columns."""

    def __init__(self, *words: str) -> None:
        self.fd, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 140, 0, 0))
        self.before = termios.tcgetattr(inside)
        self.inside = inside
        self.process = subprocess.Popen(
            [*TOP, *words], stdin=inside, stdout=inside, stderr=subprocess.PIPE
        )
        self.output = ""

    def read(self, pattern: str) -> str:
        """Read until the newest output has the pattern; returns what it matched."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if select.select([self.fd], [], [], 0.1)[0]:
                self.output += os.read(self.fd, 65536).decode()
            if found := re.search(pattern, self.output, re.S):
                self.output = self.output[found.end() :]
                return found[0]
        raise AssertionError(f"no {pattern!r} in {self.output!r}")

    def press(self, key: str) -> None:
        os.write(self.fd, key.encode())

    def end(self) -> int:
        """Wait for its end, reading what it still says; its exit code."""
        while self.process.poll() is None:
            if select.select([self.fd], [], [], 0.05)[0]:
                self.output += os.read(self.fd, 65536).decode()
        while select.select([self.fd], [], [], 0.05)[0]:
            self.output += os.read(self.fd, 65536).decode()
        return self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()
        os.close(self.fd)
        os.close(self.inside)


@pytest.fixture
def terminal() -> Iterator[Any]:
    started: list[Terminal] = []

    def start(*words: str) -> Terminal:
        started.append(Terminal(*words))
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_top_draws_topics_as_they_come_and_go(terminal: Any, peer: Any) -> None:
    assert peer("publish_steadily", "ticks", 100, 50).line() == "ready"
    top = terminal("--interval", "0.1")
    top.read(r"1 topics, .* free, .*/s.*TOPIC +HZ .*ticks +\d+\.\d .*free.*q ends")
    shm.Topic.create("another", slot_bytes=8).close()
    top.read(r"2 topics.*another.*ticks")
    shm.unlink("another")
    top.read(r"1 topics")
    top.press("p")
    top.read(r"NAME +PID +ROLE.*peer\.py")
    top.press("s")
    top.read(r"by hz; ")
    top.press("q")
    assert top.end() == 0
    # The terminal is as it was: main screen, cursor shown, echo on.
    assert top.output.rstrip().endswith("\x1b[?25h\x1b[?1049l")
    assert termios.tcgetattr(top.inside) == top.before


def test_ctrl_c_gives_the_terminal_back(terminal: Any, peer: Any) -> None:
    assert peer("publish_steadily", "ticks", 100, 50).line() == "ready"
    top = terminal("--interval", "0.1")
    top.read("ticks")
    top.process.send_signal(signal.SIGINT)
    assert top.end() == 0
    assert termios.tcgetattr(top.inside) == top.before
    assert top.process.stderr.read() == b""


def test_without_a_terminal_tables_follow_each_other(
    capsys: pytest.CaptureFixture[str], peer: Any
) -> None:
    assert peer("publish_steadily", "ticks", 100, 50).line() == "ready"
    shm.Topic.create("quiet", slot_bytes=8).close()
    assert main(["topic", "top", "--interval", "0.2", "-n", "2", "--sort", "hz"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    first, second = out.split("\n\n2 topics")
    assert first.startswith("2 topics, ")
    lines = second.splitlines()
    assert lines[2].split()[:3] == ["TOPIC", "HZ", "BANDWIDTH"]
    assert [line.split()[0] for line in lines[3:]] == ["ticks", "quiet"]
    assert float(lines[3].split()[1]) > 0
    assert main(["topic", "top", "--once", "--interval", "0.05"]) == 0
    assert capsys.readouterr().out.count("topics, ") == 1


def test_json_has_the_look_and_the_rates(capsys: pytest.CaptureFixture[str], peer: Any) -> None:
    assert peer("publish_steadily", "ticks", 100, 50).line() == "ready"
    assert main(["topic", "top", "--json", "--interval", "0.3", "-n", "1"]) == 0
    (row,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert row["topic"] == "ticks"
    assert row["frames"] > 0
    assert row["bytes_per_s"] == pytest.approx(100 * row["hz"])
    assert row["participants"][0]["role"] == "publisher"


def test_a_missing_topic_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    shm.Topic.create("camera", slot_bytes=8).close()
    assert main(["topic", "top", "camra"]) == 1
    assert "did you mean camera?" in capsys.readouterr().err
    assert main(["topic", "top", "--sort", "hzz"]) == 2
