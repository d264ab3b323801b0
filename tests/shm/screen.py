"""A program on a terminal of its own, and what a person would read there."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Sequence

import pyte

__all__ = ["Terminal"]

PATIENCE_S = 60


class Terminal:
    """Runs a program on a pseudo terminal; `pyte` draws what it says."""

    def __init__(
        self, command: Sequence[str], size: tuple[int, int] = (24, 140), **variables: str
    ) -> None:
        self.fd, self.inside = pty.openpty()
        self._screen = pyte.Screen(size[1], size[0])
        self._stream = pyte.ByteStream(self._screen)
        self._set_size(size)
        self.before = termios.tcgetattr(self.inside)
        self.raw = b""
        self.process = subprocess.Popen(
            command,
            stdin=self.inside,
            stdout=self.inside,
            stderr=subprocess.PIPE,
            env={**os.environ, "TERM": "xterm-256color", **variables},
            start_new_session=True,
        )

    def _set_size(self, size: tuple[int, int]) -> None:
        fcntl.ioctl(self.inside, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))

    def resize(self, lines: int, columns: int) -> None:
        """As when somebody drags the window."""
        self._screen.resize(lines, columns)
        self._set_size((lines, columns))
        self.process.send_signal(signal.SIGWINCH)

    def _take(self, timeout: float) -> bool:
        if not select.select([self.fd], [], [], timeout)[0]:
            return False
        said = os.read(self.fd, 65536)
        self.raw += said
        self._stream.feed(said)
        return True

    @property
    def lines(self) -> list[str]:
        """What stands there."""
        return [line.rstrip() for line in self._screen.display]

    def colours(self, text: str) -> set[str]:
        """Colours of the letters of a text, where it stands first."""
        for row, line in enumerate(self._screen.display):
            if (at := line.find(text)) >= 0:
                cells = self._screen.buffer[row]
                return {cells[at + index].fg for index in range(len(text))}
        raise AssertionError(f"no {text!r} in {self.lines}")

    def blocks(self) -> set[tuple[str, str]]:
        """Colours of all half blocks: above and below."""
        return {
            (cell.fg, cell.bg)
            for row in self._screen.buffer.values()
            for cell in row.values()
            if cell.data == "▀"
        }

    def wait(self, pattern: str, absent: str | None = None) -> str:
        """Wait until the screen shows the pattern, and does not show `absent`; what it matched."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            self._take(0.1)
            text = "\n".join(self.lines)
            found = re.search(pattern, text, re.S)
            if found and not (absent and re.search(absent, text)):
                return found[0]
            if self.process.poll() is not None and not self._take(0):
                break
        said = "\n".join(self.lines)
        raise AssertionError(f"no {pattern!r} (without {absent!r}) in\n{said}")

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self.fd, keys.encode())

    def end(self) -> int:
        """Wait for its end, reading what it still says; its exit code."""
        deadline = time.monotonic() + PATIENCE_S
        while self.process.poll() is None:
            assert time.monotonic() < deadline, "it does not end"
            self._take(0.05)
        while self._take(0.05):
            pass
        return self.process.wait()

    def assert_given_back(self) -> None:
        """It is as it was: main screen, cursor shown, modes of the line."""
        assert self.raw.rfind(b"\x1b[?1049l") > self.raw.rfind(b"\x1b[?1049h")
        assert self.raw.rfind(b"\x1b[?25h") > self.raw.rfind(b"\x1b[?25l")
        assert termios.tcgetattr(self.inside) == self.before

    def close(self) -> None:
        """Whatever it does."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()
        os.close(self.fd)
        os.close(self.inside)
