"""What the server itself says: one line per event, on stderr.

    19:02:11 info     worker 1 ready (pid 812)

It goes through the standard logger `framegate`, so an embedding program may route it as it likes;
only `framegate.run` and the command line, which own their process, attach a handler. The level word
is coloured on a terminal and nowhere else. Each line is one write, so the lines of several
processes do not mix. The access log is not here: the core writes it to stdout.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, TextIO, cast

from framegate.config import LogLevel
from framegate.steady_stream import SteadyStream

__all__ = ["LineFormatter", "banner", "configure", "logger"]

logger: Final = logging.getLogger("framegate")

_COLOURS: Final = {
    logging.DEBUG: "\x1b[2m",
    logging.INFO: "\x1b[32m",
    logging.WARNING: "\x1b[33m",
    logging.ERROR: "\x1b[31m",
    logging.CRITICAL: "\x1b[1;31m",
}


class LineFormatter(logging.Formatter):
    """Time, level, message; a traceback follows on its own lines.

    Args:
        prefix: Who speaks, where several processes share the stream.
        colour: Whether to colour the level.
    """

    def __init__(self, *, prefix: str = "", colour: bool = False) -> None:
        super().__init__()
        self._prefix = prefix
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        level = f"{record.levelname.lower():<8}"
        if self._colour:
            level = f"{_COLOURS.get(record.levelno, '')}{level}\x1b[0m"
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        text = f"{clock} {level} {self._prefix}{record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return text


def configure(level: LogLevel, *, prefix: str = "", stream: TextIO | None = None) -> None:
    """Let the logger `framegate` write lines, unless the program has given it a handler."""
    logger.setLevel(level.upper())
    if logger.handlers:
        return
    target = stream or cast(TextIO, SteadyStream(sys.stderr))
    handler = logging.StreamHandler(target)
    handler.setFormatter(LineFormatter(prefix=prefix, colour=_has_colour(target)))
    logger.addHandler(handler)
    logger.propagate = False


def _has_colour(stream: TextIO) -> bool:
    """Whether to colour: https://no-color.org and https://force-color.org come first."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or stream.isatty()


def banner(
    version: str, urls: Sequence[str], workers: int, build: Mapping[str, Any], app: str
) -> list[str]:
    """Return the start-up lines.

    Args:
        version: Of framegate.
        urls: Where it really listens, after bind.
        workers: Their number.
        build: What a worker reported of itself: `profile`, `python`, `gil`.
        app: What is served.
    """
    plural = "process" if workers == 1 else "processes"
    gil = "GIL" if build.get("gil", True) else "no GIL"
    lines = [
        f"framegate {version} serves {app} on {' '.join(urls)}",
        f"{workers} worker {plural}, Python {build.get('python', '?')} ({gil})",
    ]
    profile = build.get("profile")
    if profile not in (None, "release"):
        lines.append(f"this is a development build ({profile} profile): slower, not for measuring")
    return lines


def dump_stacks(reason: str) -> None:
    """Write the stack of every thread to stderr, for a process that does not answer."""
    import faulthandler

    sys.stderr.write(f"{reason}; thread {threading.current_thread().name} reports all stacks:\n")
    sys.stderr.flush()
    faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
