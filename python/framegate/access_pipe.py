"""The access log as records of the logger `framegate.access`, for programs that want it there.

By itself the access log never meets Python: the core formats lines, a native thread writes them to
stdout or where `access_log_file` says. If the logger `framegate.access` has a handler or a level of
its own when the worker starts (`--log-config`, or an embedding program), and nobody has said
`access_log_file`, the native thread writes JSON into a pipe instead, and a thread here makes
records of it, in uvicorn's form:

    '%s - "%s %s HTTP/%s" %d', client, method, target, version, status

so formatters made for `uvicorn.access` work. `record.request` holds everything that is known. Each
record costs the interpreter some 20 us; if Python is too slow, the core drops lines and counts them
(`access log` in rust/py/src/native.rs).
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

from framegate.config import Config, Source

__all__ = ["access_log_fd"]

LOGGER: Final = logging.getLogger("framegate.access")

FLUSH_SECONDS: Final = 2.0
"""What the last records get when the process ends."""


@contextlib.contextmanager
def access_log_fd(config: Config) -> Iterator[int | None]:
    """Give the descriptor for the core's access log, to be duplicated; None for its own way."""
    is_wanted = bool(LOGGER.handlers) or LOGGER.level != logging.NOTSET
    has_place = config.origins["access_log_file"].source is not Source.DEFAULT
    if not config.access_log or not is_wanted or has_place:
        yield None
        return
    reader, writer = os.pipe()
    thread = threading.Thread(
        target=_read, args=(os.fdopen(reader, "rb"),), name="framegate access log", daemon=True
    )
    thread.start()
    # The end of the pipe comes when the core is closed. A daemon, in case that never happens.
    atexit.register(thread.join, FLUSH_SECONDS)
    try:
        yield writer
    finally:
        os.close(writer)


def _read(lines: BinaryIO) -> None:
    with lines:
        for line in lines:
            _log(json.loads(line))


def _log(request: dict[str, Any]) -> None:
    if not LOGGER.isEnabledFor(logging.INFO):
        return
    LOGGER.info(
        '%s - "%s %s HTTP/%s" %d',
        request["client"],
        request["method"],
        request["target"],
        request["http_version"],
        request["status"] or 0,
        extra={"request": request},
    )
