"""Formatters with the fields of those in `uvicorn.logging`, for configurations written for it.

`levelprefix` is the level with a colon, in colour on a terminal. `client_addr`, `request_line` and
`status_code` are those of a record of the access log.
"""

from __future__ import annotations

import copy
import http
import logging
import sys
from typing import Any, Final, Literal

__all__ = ["AccessFormatter", "DefaultFormatter"]

_LEVELS: Final = {
    logging.DEBUG: "\x1b[36m",
    logging.INFO: "\x1b[32m",
    logging.WARNING: "\x1b[33m",
    logging.ERROR: "\x1b[31m",
    logging.CRITICAL: "\x1b[91m",
}
_STATUSES: Final = {1: "\x1b[97m", 2: "\x1b[32m", 3: "\x1b[33m", 4: "\x1b[31m", 5: "\x1b[91m"}
_PREFIX_WIDTH: Final = 9


class DefaultFormatter(logging.Formatter):
    """With `levelprefix`.

    Args:
        fmt: As in `logging.Formatter`.
        datefmt: As there.
        style: As there.
        use_colors: Whether to colour; on a terminal if None.
    """

    def __init__(
        self,
        fmt: str | None = None,
        datefmt: str | None = None,
        style: Literal["%", "{", "$"] = "%",
        use_colors: bool | None = None,
    ) -> None:
        super().__init__(fmt, datefmt, style)
        self.use_colors: bool = sys.stderr.isatty() if use_colors is None else use_colors

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        record = copy.copy(record)
        padding = " " * (_PREFIX_WIDTH - len(record.levelname) - 1)
        level = self._colour(_LEVELS.get(record.levelno, ""), record.levelname)
        record.__dict__["levelprefix"] = f"{level}:{padding}"
        self._add(record)
        return super().format(record)

    def _add(self, record: logging.LogRecord) -> None:
        """Set more fields of a record."""

    def _colour(self, colour: str, text: str) -> str:
        return f"{colour}{text}\x1b[0m" if self.use_colors and colour else text


class AccessFormatter(DefaultFormatter):
    """With `client_addr`, `request_line` and `status_code` as well."""

    def _add(self, record: logging.LogRecord) -> None:
        arguments: Any = record.args
        client, method, target, version, status = arguments
        try:
            phrase = http.HTTPStatus(status).phrase
        except ValueError:
            phrase = ""
        shown = self._colour(_STATUSES.get(status // 100, ""), f"{status} {phrase}".rstrip())
        record.__dict__.update(
            client_addr=client,
            request_line=f"{method} {target} HTTP/{version}",
            status_code=shown,
        )
