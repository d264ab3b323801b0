"""The time of day is set back and forward by hours while the server serves.

libfaketime stands between the processes and the clock of the machine, which goes on undisturbed.
The monotonic clock is left alone, as the kernel leaves it alone when somebody sets the time.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest
from websockets.sync.client import connect

from server_process import Launch, ServerProcess, body, wait_for_death
from tls.authority import Authority

APP = "supervised_apps:streams"
HOUR = 3600
JUMPS = pytest.mark.parametrize("jump", [6 * HOUR, -6 * HOUR], ids=["forward", "back"])
LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


class Clock:
    """What the servers of a test take for the time of day."""

    def __init__(self, file: Path) -> None:
        assert LIBRARY is not None, "libfaketime is missing: `task setup`"
        self._file = file
        self.offset = 0
        self.set(0)
        self.environment = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DISABLE_SHM": "1",
            "NO_FAKE_STAT": "1",
        }

    def set(self, offset: int) -> None:
        """Set the time of day to so many seconds after the real one."""
        fresh = self._file.with_suffix(".fresh")
        fresh.write_text(f"{offset:+d}\n")
        fresh.rename(self._file)
        self.offset = offset

    def is_right(self, date: str) -> bool:
        """Whether a field `date` shows this clock's time, as nearly as a busy machine is."""
        shown = parsedate_to_datetime(date).timestamp()
        return abs(shown - (time.time() + self.offset)) < 60


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path / "clock")


def date_of(peer: socket.socket) -> str:
    """Send a request on an open connection; return the date of the answer."""
    peer.sendall(b"GET /pid HTTP/1.1\r\nhost: x\r\n\r\n")
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = peer.recv(4096)
        assert chunk, received
        received += chunk
    head, _, rest = received.partition(b"\r\n\r\n")
    fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    while len(rest) < int(fields["content-length"]):
        chunk = peer.recv(4096)
        assert chunk, received
        rest += chunk
    return fields["date"]


@contextlib.contextmanager
def kept_connection(server: ServerProcess) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as peer:
        yield peer


def wait_for_date(clock: Clock, peer: socket.socket) -> None:
    """Until responses show the clock's time, and stay with it.

    The sweep of the time limits looks at the clock, every 250 ms; what it never saw it cannot miss.
    """
    pause = threading.Event()
    for _ in range(600):
        if clock.is_right(date := date_of(peer)):
            break
        pause.wait(0.05)
    else:
        pytest.fail(f"at {clock.offset:+d} s the server says {date}")
    until = time.monotonic() + 0.8
    while time.monotonic() < until:
        assert clock.is_right(date_of(peer))
        pause.wait(0.05)


@JUMPS
def test_nobody_is_restarted_or_cut(launch: Launch, clock: Clock, jump: int) -> None:
    """Recycling, heartbeats, keep-alive, time limits of bodies: none of them goes by the clock."""
    words = ("--workers", "2", "--limit-max-lifetime", "3h", "--worker-timeout", "30s")
    limits = ("--timeout-keep-alive", "1h", "--ws-ping-interval", "1h", "--log-stalls", "30s")
    server = launch(APP, *words, *limits, extra=clock.environment).wait_ready()
    pids = server.worker_pids
    with contextlib.ExitStack() as stack:
        kept = stack.enter_context(kept_connection(server))
        assert clock.is_right(date_of(kept))
        item = stack.enter_context(connect(f"ws://127.0.0.1:{server.port}/ws"))
        server.wait_event("websocket")
        events = stack.enter_context(server.request("/events"))
        server.wait_event("events")
        upload = stack.enter_context(kept_connection(server))
        upload.sendall(b"POST /upload HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\n\r\nabc")
        server.wait_event("upload")
        clock.set(jump)
        wait_for_date(clock, kept)
        # Limits are looked at twice a second.
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            assert int(server.get()) in pids
        assert item.ping().wait(60)
        upload.sendall(b"def")
        assert upload.recv(4096).endswith(b"6")
        assert clock.is_right(date_of(kept))
        assert server.events("told") == []
        assert events.recv(4096)  # what it sent before, and no end
        clock.set(0)
        wait_for_date(clock, kept)
    assert sorted(server.events("startup")) == sorted(pids)
    for word in ("replaced", "killed", "stood still", "were cut", "shutdown"):
        assert word not in server.text
    assert server.stop() == 0


@JUMPS
def test_time_limits_hold_as_before(launch: Launch, clock: Clock, jump: int) -> None:
    words = ("--workers", "2", "--timeout-header", "1s", "--timeout-keep-alive", "1s")
    grace = ("--timeout-graceful-shutdown", "1s")
    server = launch(APP, *words, *grace, extra=clock.environment).wait_ready()
    with kept_connection(server) as slow, kept_connection(server) as idle:
        slow.sendall(b"GET /pid HTTP/1.1\r\nho")
        date_of(idle)
        clock.set(jump)
        assert b" 408 " in slow.recv(4096)
        assert idle.recv(4096) == b""
    # A death, its pause and its successor.
    victim = server.worker_pids[0]
    for _ in range(2):
        os.kill(victim, signal.SIGKILL)
        wait_for_death(victim)
        victim = int(server.wait_for(r"worker 1 ready again \(pid (\d+)\)")[1])
        server.lines.clear()
    server.signal(signal.SIGHUP)
    server.wait_for("reloaded: 2 of 2")
    stuck = server.request("/stuck")
    server.wait_event("stuck")
    clock.set(-jump)
    begin = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begin < 1 + 20  # the patience of the test, not of the server
    assert server.events("cancelled")
    stuck.close()


@JUMPS
def test_date_is_right_however_often_it_changes(launch: Launch, clock: Clock, jump: int) -> None:
    """What caches it goes by the second that it shows, which may come again."""
    server = launch(APP, extra=clock.environment).wait_ready()
    with kept_connection(server) as kept:
        for offset in (jump, 0, jump, -jump):
            clock.set(offset)
            wait_for_date(clock, kept)
    # Nobody was there when it changed: the first one to come gets the right time, or the second.
    clock.set(-2 * abs(jump))
    with kept_connection(server) as kept:
        wait_for_date(clock, kept)
    assert server.stop() == 0


@JUMPS
def test_changed_certificates_are_found(
    launch: Launch, clock: Clock, jump: int, tmp_path: Path
) -> None:
    authority = Authority()
    first, second = authority.issue("localhost"), authority.issue("localhost")
    files = first.write(tmp_path)
    words = [f"--{name.replace('_', '-')}={path}" for name, path in files.items()]
    server = launch("tls_app:app", *words, extra=clock.environment)
    server.wait_for("ready: pid")
    port = int(server.wait_for(r"https://[^ \"]*:(\d+)")[1])
    context = authority.client_context()

    def served() -> int:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=60) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            certificate = connection.getpeercert()
            assert certificate is not None
            return int(str(certificate["serialNumber"]), 16)

    assert served() == first.certificate.serial_number
    clock.set(jump)
    second.write(tmp_path)
    pause = threading.Event()
    for _ in range(600):
        if served() == second.certificate.serial_number:
            break
        pause.wait(0.05)
    else:
        pytest.fail("the old certificate is still served")
    assert server.stop() == 0


def test_log_shows_the_time_of_day(launch: Launch, clock: Clock) -> None:
    """The one thing that has to follow it."""
    server = launch(APP, "--log-format", "json", extra=clock.environment).wait_ready()
    clock.set(-48 * HOUR)
    with server.request() as peer:
        assert body(peer)
    shown = server.wait_for(r'"time":"([^"]+)".*/pid')[1]
    age = time.time() + clock.offset - datetime.fromisoformat(shown).timestamp()
    assert abs(age) < 60
    assert server.stop() == 0
