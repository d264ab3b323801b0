"""The native thread: heartbeats and the access log go on while Python blocks."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import struct
import tempfile
import threading
import time
from collections.abc import Iterator

import pytest

from framegate import _http, runtime_segment
from loop.helpers import Run, in_thread, open_descriptors

LAYOUT = _http.RUNTIME_LAYOUT
LINE = b"a line of the access log\n"


@contextlib.contextmanager
def segment(rows: int = 2, *, cut: int = 0, **header: int) -> Iterator[tuple[int, mmap.mmap]]:
    """A runtime segment as the supervisor makes it."""
    size = LAYOUT["header_bytes"] + (rows + 1) * LAYOUT["row_bytes"] - cut
    with tempfile.TemporaryFile() as file:
        file.truncate(size)
        with mmap.mmap(file.fileno(), size) as view:
            values = {"row_count": rows} | {n: LAYOUT[n] for n in ("magic", "version", "row_bytes")}
            for name, value in (values | header).items():
                struct.pack_into("<Q", view, LAYOUT[f"header_{name}"], value)
            yield file.fileno(), view


def wait_until(condition: object) -> None:
    """Return once a condition holds; the test's watchdog bounds the time."""
    assert callable(condition)
    while not condition():
        time.sleep(0.01)


def test_the_supervisor_has_the_same_layout() -> None:
    assert runtime_segment.RUNTIME_LAYOUT == _http.RUNTIME_LAYOUT


def test_the_layout_has_no_overlapping_fields() -> None:
    header = [value for name, value in LAYOUT.items() if name.startswith("header_")][1:]
    assert len(set(header)) == len(header)
    assert all(at % 8 == 0 and at + 8 <= LAYOUT["header_bytes"] for at in header)
    row = [
        value
        for name, value in LAYOUT.items()
        if name.startswith("row_") and name not in ("row_bytes", "row_counters", "row_series")
    ]
    assert all(at % 8 == 0 and at + 8 <= LAYOUT["row_counters"] for at in row)
    counters = list(_http.RUNTIME_COUNTERS.values())
    assert len(set(row + counters)) == len(row + counters)
    assert all(LAYOUT["row_counters"] <= at <= LAYOUT["row_bytes"] - 8 for at in counters)


def test_a_row_reads_what_the_supervisor_wrote() -> None:
    with segment() as (fd, view):
        at = LAYOUT["header_bytes"] + 2 * LAYOUT["row_bytes"]
        struct.pack_into("<Q", view, at + LAYOUT["row_pid"], 4711)
        struct.pack_into("<Q", view, at + _http.RUNTIME_COUNTERS["requests"], 42)
        row = _http.RuntimeRow(fd, 1)
        assert row.get("row_pid") == 4711
        assert row.get("requests") == 42
        assert _http.RuntimeRow(fd, 0).get("row_pid") == 0
        for name in ("row_bytes", "row_counters", "magic", "nonsense"):
            with pytest.raises(KeyError):
                row.get(name)


def test_files_that_are_no_runtime_segment_are_refused() -> None:
    for wrong in ({"magic": 1}, {"version": 2}, {"row_bytes": 64}):
        with segment(**wrong) as (fd, _), pytest.raises(ValueError, match="runtime segment"):
            _http.RuntimeRow(fd, 0)
    with tempfile.TemporaryFile() as file:
        with pytest.raises(OSError, match="Invalid argument"):
            _http.RuntimeRow(file.fileno(), 0)
        file.truncate(8)
        with pytest.raises(ValueError, match="runtime segment"):
            _http.RuntimeRow(file.fileno(), 0)


def test_rows_outside_of_the_segment_are_refused() -> None:
    with segment(2) as (fd, _):
        _http.RuntimeRow(fd, 1)
        for index in (2, 1 << 60):
            with pytest.raises(IndexError, match="has no row"):
                _http.RuntimeRow(fd, index)
    # A header that promises more than the file holds.
    with segment(2, cut=LAYOUT["row_bytes"]) as (fd, _):
        _http.RuntimeRow(fd, 0)
        with pytest.raises(IndexError):
            _http.RuntimeRow(fd, 1)
    with segment(2, row_count=(1 << 64) - 1) as (fd, _), pytest.raises(IndexError):
        _http.RuntimeRow(fd, (1 << 64) - 2)


def test_the_heart_beats_while_python_blocks_and_the_lag_shows_it(run: Run) -> None:
    async def main() -> None:
        with segment() as (fd, _):
            row = _http.RuntimeRow(fd, 0)
            native = _http._NativeThread(row)
            beats: set[int] = set()
            # The loop does not turn here; time.sleep lets nobody but the native thread run.
            while len(beats) < 4:
                beats.add(row.get("row_heartbeat_ns"))
                time.sleep(0.05)
            assert row.get("row_loop_lag_ns") >= 400_000_000
            assert row.get("requests") == 0
            assert abs(max(beats) - time.monotonic_ns()) < 30_000_000_000
            native.stop()

    run(main())


def test_a_loop_that_turns_answers_and_publishes_its_counters(run: Run) -> None:
    async def main() -> None:
        with segment() as (fd, _):
            row = _http.RuntimeRow(fd, 0)
            native = _http._NativeThread(row)
            # No callback of Python's is involved: the loop answers from inside select.
            while row.get("requests") == 0:
                await asyncio.sleep(0.01)
            assert row.get("requests") == 11
            assert row.get("accepted") == 3
            assert row.get("row_connections") == 7
            assert 0 < row.get("row_loop_lag_ns") < 30_000_000_000
            native.stop()

    run(main())


def test_lines_are_written_in_order_and_whole(run: Run) -> None:
    count = 20_000
    lines = [b"%06d %s" % (number, LINE) for number in range(count)]
    received = bytearray()

    async def main() -> None:
        reader, writer = os.pipe()

        def read() -> None:
            while data := os.read(reader, 1 << 20):
                received.extend(data)

        thread = threading.Thread(target=read)
        thread.start()
        native = _http._NativeThread(None, writer)
        for number, line in enumerate(lines):
            native.log(line)
            if number % 1000 == 0:
                await asyncio.sleep(0.001)
                # Never more under way than fits.
                while len(received) < (number - 10_000) * len(line):
                    await asyncio.sleep(0.001)
        native.stop()
        os.close(writer)
        await asyncio.to_thread(thread.join)
        os.close(reader)

    run(main())
    assert bytes(received) == b"".join(lines)


def test_an_idle_loop_writes_its_line_soon(run: Run) -> None:
    async def main() -> bytes:
        reader, writer = os.pipe()
        native = _http._NativeThread(None, writer)
        native.log(LINE)
        # The loop has nothing to do but to wait for the line.
        line = await asyncio.to_thread(os.read, reader, 100)
        native.stop()
        os.close(reader)
        os.close(writer)
        return line

    assert run(main()) == LINE


def test_a_reader_that_stalls_costs_lines_but_neither_loop_nor_heartbeat(run: Run) -> None:
    async def main() -> None:
        reader, writer = os.pipe()
        with segment() as (fd, _):
            row = _http.RuntimeRow(fd, 0)
            native = _http._NativeThread(row, writer)
            # Nobody reads. Far more than pipe and buffer hold:
            for _ in range(200_000):
                native.log(LINE)
            before = row.get("row_heartbeat_ns")
            while row.get("row_heartbeat_ns") == before or not row.get("log_lines_dropped"):
                await asyncio.sleep(0.01)
            assert 100_000 < row.get("log_lines_dropped") < 200_000
            os.close(reader)  # lets the write that hangs fail
            native.stop()
        os.close(writer)

    run(main())


def test_a_log_that_cannot_be_written_is_counted(run: Run) -> None:
    async def main() -> None:
        with segment() as (fd, _), open("/dev/full", "wb") as full:
            row = _http.RuntimeRow(fd, 0)
            native = _http._NativeThread(row, full.fileno())
            native.log(LINE)
            while not row.get("log_lines_dropped"):
                await asyncio.sleep(0.01)
            assert row.get("log_lines_dropped") == 1
            native.stop()

    run(main())


def test_the_native_thread_is_named_blocks_signals_and_ends(run: Run) -> None:
    def natives() -> list[str]:
        found = []
        for task in os.listdir("/proc/self/task"):
            with contextlib.suppress(FileNotFoundError):
                with open(f"/proc/self/task/{task}/comm") as file:
                    if file.read().strip() == "framegate-nativ":  # the kernel cuts at 15
                        found.append(task)
        return found

    async def main() -> None:
        native = _http._NativeThread()
        wait_until(natives)
        (task,) = natives()
        with open(f"/proc/self/task/{task}/status") as file:
            (blocked,) = [line.split()[1] for line in file if line.startswith("SigBlk")]
        # All but SIGKILL and SIGSTOP, and two that the C library keeps for itself.
        assert int(blocked, 16) | (3 << 31) == (1 << 64) - 1 & ~(1 << 8 | 1 << 18)
        native.stop()
        native.stop()
        wait_until(lambda: not natives())

    in_thread(lambda: run(main()))  # what is made once per process is made now
    before = open_descriptors()
    run(main())
    assert open_descriptors() == before
