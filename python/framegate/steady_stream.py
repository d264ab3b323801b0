"""A stream for the log that never waits and never fails.

Whoever reads the log may stop reading: a paused terminal, a `docker logs` that hangs, a collector
that died with the pipe open. The next line would then wait in `write()` for as long, and with it
the loop that wanted to write it, or the supervisor: nobody would be served, or restarted, because
nobody reads about it. And a full disk must not turn each line of the log into an exception.

So a line is written only where there is room for it, and is dropped and counted otherwise; the
first line that finds room again says how many were lost. Pipes and sockets of a full reader are
what has no room; poll(2) says so. Descriptors are not made non-blocking for that, because the flag
belongs to the open file, which other processes share.
"""

from __future__ import annotations

import io
import os
import select
from typing import Final, TextIO

from framegate import system

__all__ = ["SteadyStream"]

PIECE_BYTES: Final[int] = select.PIPE_BUF
"""4096, on macOS 512: a pipe that is called writable takes so much at once, and whole."""


class SteadyStream(io.TextIOBase):
    """Writes lines to a stream's descriptor.

    Args:
        stream: Where to. One without a descriptor is written to as it is.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lost = 0
        try:
            self._fd = stream.fileno()
        except (OSError, ValueError, AttributeError):
            self._fd = -1

    def write(self, text: str) -> int:
        """Write a text, or count it as lost."""
        if self._fd < 0:
            return self._stream.write(text)
        if self._lost:
            lost = f"({self._lost} lines of this log were lost: nobody read, or the disk is full)\n"
            if not self._put(lost):
                self._lost += 1
                return len(text)
            self._lost = 0
        if not self._put(text):
            self._lost += 1
        return len(text)

    def flush(self) -> None:
        """Nothing waits here."""

    def isatty(self) -> bool:
        """Whether a person reads."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """The descriptor."""
        return self._stream.fileno()

    def _put(self, text: str) -> bool:
        data = text.encode(errors="backslashreplace")
        for at in range(0, len(data), PIECE_BYTES):
            try:
                if not system.has_room(self._fd):
                    return False
                os.write(self._fd, data[at : at + PIECE_BYTES])
            except OSError:
                return False
        return True
