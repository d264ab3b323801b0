"""The runtime segment: one small file per server, one row per worker process.

Layout (u64 in the byte order of the machine; the worker's side declares the same numbers in
`rust/py/src/stats.rs`, and a test compares them):

    header, directory of series | row of totals | row of worker 0 | row of worker 1 | ... | limits

A row is identity and gauges in its first 128 bytes, and counters in the rest. Rules:

- The supervisor writes identity (pid, generation) when the worker starts, and everything once it is
  dead. While it lives only the worker writes its gauges and counters, so no lock exists.
- When a worker dies its counters are added to the totals and its row is cleared: a sum over all
  rows never falls. `header_folding` is odd during those stores, so that a reader can wait for
  their end.
- Gauges (connections, lag) die with the worker.

The file lies in the runtime directory, is readable by its owner only, and is removed at exit. Its
creator holds a lock on it; a file without a living creator is removed by its workers, which outlive
it for a moment, or by the next server.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import stat
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from framegate import system
from framegate.errors import RuntimeDirectoryError
from framegate.limits_area import ROW_BYTES, SEED_BYTES, new_seed, row_offset
from framegate.logging import logger

__all__ = ["RUNTIME_LAYOUT", "RuntimeSegment", "open_segment", "runtime_directory"]

RUNTIME_LAYOUT: Final[dict[str, int]] = {
    "magic": int.from_bytes(b"FGRUNTIM", "little"),
    "version": 1,
    "header_bytes": 2048,
    "header_magic": 0,
    "header_version": 8,
    "header_row_count": 16,
    "header_row_bytes": 24,
    "header_pid": 32,
    "header_started_ns": 40,
    "header_stopping": 48,
    "header_restarts": 56,
    "header_folding": 64,
    "header_directory": 1024,
    "row_bytes": 15360,
    "row_pid": 0,
    "row_generation": 8,
    "row_heartbeat_ns": 16,
    "row_loop_lag_ns": 24,
    "row_connections": 32,
    "row_phase": 40,
    "row_place": 48,
    "row_requests_in_flight": 56,
    "row_websockets": 64,
    "row_streams": 72,
    "row_calls": 80,
    "row_handlers_running": 88,
    "row_handlers_waiting": 96,
    "row_counters": 128,
    "row_series": 640,
    "series_words": 18,
    "series_count": 102,
}

# The first of the counters, and the only one that anybody but a reader of all looks at.
_REQUESTS: Final = RUNTIME_LAYOUT["row_counters"]

_WORD: Final = struct.Struct("=Q")
_MASK: Final = (1 << 64) - 1
_SUFFIX: Final = ".runtime"


def runtime_directory() -> Path:
    """Return the directory of all segments: `$FRAMEGATE_RUNTIME_DIR`, else one per user.

    It is in memory, where the system has such a place (Linux: /dev/shm).

    Raises:
        RuntimeDirectoryError: It cannot be made, or it is not this user's alone to write.
    """
    named = os.environ.get("FRAMEGATE_RUNTIME_DIR")
    path = Path(named or system.default_runtime_directory())
    try:
        path.mkdir(mode=0o700, parents=bool(named), exist_ok=True)
        status = path.lstat()
    except OSError as error:
        raise RuntimeDirectoryError(
            f"runtime directory {path} cannot be used",
            cause=error.strerror or str(error),
            fix="set FRAMEGATE_RUNTIME_DIR to a directory of this user",
        ) from None
    # /dev/shm is writable by all: somebody else may have put a directory or link there first.
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise RuntimeDirectoryError(
            f"runtime directory {path} is not a directory of this user",
            fix="remove it, or set FRAMEGATE_RUNTIME_DIR",
        )
    return path


def open_segment(
    row_count: int, limits_bytes: int = 0, *, is_needed: bool = False
) -> RuntimeSegment | None:
    """Make the segment of this server, or log why there is none: most serve without one, too.

    Raises:
        RuntimeDirectoryError: It is needed, and cannot be made.
    """
    try:
        return RuntimeSegment(runtime_directory(), row_count, limits_bytes)
    except RuntimeDirectoryError as error:
        if is_needed:
            raise
        logger.warning("no runtime segment: %s", error)
        return None


class RuntimeSegment:
    """The file as its creator sees it.

    Args:
        directory: Where to make it.
        row_count: Number of workers.
        limits_bytes: Size of what lies behind the rows.
    """

    def __init__(self, directory: Path, row_count: int, limits_bytes: int = 0) -> None:
        _remove_orphans(directory)
        self.row_count = row_count
        rows_bytes = (row_count + 1) * RUNTIME_LAYOUT["row_bytes"]
        self._limits = RUNTIME_LAYOUT["header_bytes"] + rows_bytes if limits_bytes else 0
        size = RUNTIME_LAYOUT["header_bytes"] + rows_bytes + limits_bytes
        self.path: Path = directory / f"server-{os.getpid()}-{time.monotonic_ns():x}{_SUFFIX}"
        # Locked before it has its name: no other server can mistake it for an orphan.
        unnamed = self.path.with_suffix(".new")
        try:
            self._fd = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            # Allocated, not only sized: a full /dev/shm is an error here, not a SIGBUS later.
            system.allocate(self._fd, size)
            self._map = mmap.mmap(self._fd, size)
            header = ("magic", "version", "row_bytes")
            for name in header:
                self._put(RUNTIME_LAYOUT[f"header_{name}"], RUNTIME_LAYOUT[name])
            self._put(RUNTIME_LAYOUT["header_row_count"], row_count)
            if self._limits:
                self._map[self._limits : self._limits + SEED_BYTES] = new_seed()
            self._put(RUNTIME_LAYOUT["header_pid"], os.getpid())
            self._put(RUNTIME_LAYOUT["header_started_ns"], time.time_ns())
            unnamed.rename(self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                unnamed.unlink()
            raise RuntimeDirectoryError(
                f"cannot create a runtime segment of {size} bytes in {directory}",
                cause=error.strerror or str(error),
                fix="free space there, or set FRAMEGATE_RUNTIME_DIR",
            ) from None

    def begin(self, index: int, pid: int, generation: int, *, place: int = 0) -> None:
        """Give a row to a new worker, the one of this place."""
        row = self._row(index)
        self._put(row + RUNTIME_LAYOUT["row_generation"], generation)
        self._put(row + RUNTIME_LAYOUT["row_place"], place)
        # Last: with a pid the row counts.
        self._put(row + RUNTIME_LAYOUT["row_pid"], pid)

    def begin_to_stop(self) -> None:
        """Tell readers that the server was asked to stop."""
        self._put(RUNTIME_LAYOUT["header_stopping"], 1)

    def count_restart(self) -> None:
        """Count a worker that died and is started again."""
        at = RUNTIME_LAYOUT["header_restarts"]
        self._put(at, self._get(at) + 1)

    def fold(self, index: int) -> None:
        """Add the counters of a dead worker to the totals and clear its row."""
        folding = RUNTIME_LAYOUT["header_folding"]
        self._put(folding, self._get(folding) + 1)
        self._fold(index)
        self._put(folding, self._get(folding) + 1)

    def _fold(self, index: int) -> None:
        row, totals = self._row(index), RUNTIME_LAYOUT["header_bytes"]
        for at in range(RUNTIME_LAYOUT["row_counters"], RUNTIME_LAYOUT["row_bytes"], _WORD.size):
            if count := self._get(row + at):
                self._put(totals + at, (self._get(totals + at) + count) & _MASK)
        self._map[row : row + RUNTIME_LAYOUT["row_bytes"]] = bytes(RUNTIME_LAYOUT["row_bytes"])
        if self._limits:
            held = self._limits + row_offset(index)
            for at in range(held, held + ROW_BYTES, _WORD.size):
                self._put(at, 0)

    def read(self, index: int, name: str) -> int:
        """Return one value of a worker's row by its name in the layout, such as `row_pid`."""
        return self._get(self._row(index) + RUNTIME_LAYOUT[name])

    def requests(self, index: int) -> int:
        """Return how many requests the worker of a row has served."""
        return self._get(self._row(index) + _REQUESTS)

    def counters(self) -> list[int]:
        """Return the sum of all counters over the dead and the living."""
        rows = [RUNTIME_LAYOUT["header_bytes"], *map(self._row, range(self.row_count))]
        offsets = range(RUNTIME_LAYOUT["row_counters"], RUNTIME_LAYOUT["row_bytes"], _WORD.size)
        return [sum(self._get(row + at) for row in rows) & _MASK for at in offsets]

    def close(self) -> None:
        """Remove the file."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        self._map.close()
        os.close(self._fd)

    def _row(self, index: int) -> int:
        if not 0 <= index < self.row_count:
            raise IndexError(f"row {index} of {self.row_count}")
        return RUNTIME_LAYOUT["header_bytes"] + (index + 1) * RUNTIME_LAYOUT["row_bytes"]

    def _get(self, offset: int) -> int:
        value: int = _WORD.unpack_from(self._map, offset)[0]
        return value

    def _put(self, offset: int, value: int) -> None:
        _WORD.pack_into(self._map, offset, value)


def _remove_orphans(directory: Path) -> None:
    for path in _segments(directory):
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(fd)


def _segments(directory: Path) -> Iterator[Path]:
    yield from directory.glob(f"server-*{_SUFFIX}")
