"""What the server itself says: one line per event, on stderr.

    19:02:11 info     worker 1 ready (pid 812)
    {"time":"2026-11-20T19:02:11.417Z","level":"info","logger":"framegate","message":"ready"}

It goes through standard loggers, so an embedding program may route it as it likes; only
`framegate.run` and the command line, which own their process, attach a handler.

| logger             | what it says                                                              |
|--------------------|---------------------------------------------------------------------------|
| `framegate`        | life of the server and its workers                                        |
| `framegate.asgi`   | what goes wrong between the core and the application, with its traceback  |
| `framegate.tls`    | certificates and handshakes                                               |
| `framegate.access` | requests, where it is configured (`access_pipe.py`); else the core writes |
|                    | them to stdout, and Python is not asked                                   |

The level word is coloured on a terminal and nowhere else. Each line is one write, so the lines of
several processes do not mix.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, TextIO, cast

from framegate.config import Config, LogFormat, LogLevel, Source
from framegate.steady_stream import SteadyStream

__all__ = ["JsonFormatter", "LineFormatter", "banner", "configure", "configure_from", "logger"]

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


class JsonFormatter(logging.Formatter):
    """One JSON object per line, with the keys of the access log where they mean the same.

    Args:
        prefix: Who speaks, where several processes share the stream.
    """

    def __init__(self, *, prefix: str = "") -> None:
        super().__init__()
        self._source = prefix.rstrip(": ")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        import json

        clock = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        found: dict[str, Any] = {
            "time": f"{clock}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        if self._source:
            found["source"] = self._source
        if isinstance(request := getattr(record, "request", None), dict):
            found["request"] = request
        if record.exc_info:
            found["exception"] = self.formatException(record.exc_info)
        return json.dumps(found, separators=(",", ":"))


def configure(
    level: LogLevel,
    *,
    prefix: str = "",
    stream: TextIO | None = None,
    form: LogFormat = "text",
    colour: bool | None = None,
) -> None:
    """Let the logger `framegate` write lines, unless the program has given it a handler.

    Args:
        level: Least severe level.
        prefix: Who speaks, where several processes share the stream.
        stream: Where to; stderr if None.
        form: Text or JSON.
        colour: Whether to colour the level; on a terminal if None.
    """
    logger.setLevel(level.upper())
    if logger.handlers:
        return
    target = stream or cast(TextIO, SteadyStream(sys.stderr))
    handler = logging.StreamHandler(target)
    if form == "json":
        handler.setFormatter(JsonFormatter(prefix=prefix))
    else:
        has_colour = _has_colour(target) if colour is None else colour
        handler.setFormatter(LineFormatter(prefix=prefix, colour=has_colour))
    logger.addHandler(handler)
    logger.propagate = False


def configure_from(config: Config, *, prefix: str = "") -> None:
    """Do for a process that belongs to framegate what its settings say about logging.

    Raises:
        ConfigError: The file that `log_config` names cannot be used.
    """
    if config.log_config is not None:
        from framegate.log_config import apply

        has_handler = apply(config)
        if has_handler:
            # The file decides about the level, unless somebody says it in a stronger place.
            if config.origins["log_level"].source is not Source.DEFAULT:
                logger.setLevel(config.log_level.upper())
            return
    configure(config.log_level, prefix=prefix, form=config.log_format, colour=config.use_colors)


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


def application_name(config: Config) -> str:
    """Return how the application is called in lines for people."""
    return config.app if isinstance(config.app, str) else type(config.app).__qualname__


def announce(
    config: Config,
    urls: Sequence[str],
    workers: int,
    build: Mapping[str, Any],
    admin: Sequence[str],
    topics: Sequence[str],
) -> None:
    """Log the start-up lines, and where there is more to look at.

    Args:
        config: The settings.
        urls: Where it really listens, after bind.
        workers: Their number.
        build: What a worker reported of itself: `version` and as for `banner`.
        admin: URLs of the admin listener.
        topics: URLs where frame routes alone are served (`topics_bind`).
    """
    app = application_name(config)
    lines = banner(str(build.get("version", "?")), urls, workers, build, app)
    reachable = [url for url in urls if url.startswith("http")]
    if config.live:
        lines += [f"live page: {url}{config.live}/" for url in reachable]
    lines += [f"topics: {url}" for url in topics]
    lines += [f"admin: {url}" for url in admin]
    if app == "framegate.demo.app:app" and reachable:
        from framegate.demo import hints

        lines += hints(reachable[0], config)
    for line in lines:
        logger.info("%s", line)


def dump_stacks(reason: str) -> None:
    """Write the stack of every thread to stderr, for a process that does not answer."""
    import faulthandler

    sys.stderr.write(f"{reason}; thread {threading.current_thread().name} reports all stacks:\n")
    sys.stderr.flush()
    faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
