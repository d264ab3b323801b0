"""A supervisor that has nothing to do is small and does nothing."""

from __future__ import annotations

import threading
from pathlib import Path

from peers.procfs import status
from server_process import Launch

APP = "supervised_apps:app"
MEMORY_MAX_KIB = 22 * 1024
"""It is 19 MiB with Python 3.11, of which an empty interpreter is 10; 25 is what it may have. A
module more than is needed, such as asyncio or the parsers of all commands, is 3 to 5."""


def test_supervisor_is_small(launch: Launch) -> None:
    server = launch(APP, "--workers", "2").wait_ready()
    assert status(server.pid, "VmRSS") < MEMORY_MAX_KIB
    maps = Path(f"/proc/{server.pid}/maps").read_text()
    for module in ("_http.", "_shm.", "_asyncio.", "_ssl."):
        assert module not in maps
    assert server.stop() == 0


def test_idle_supervisor_does_not_wake_up(launch: Launch) -> None:
    server = launch(APP, "--workers", "2").wait_ready()
    pause = threading.Event()
    before = -1
    while before != (before := status(server.pid, "voluntary_ctxt_switches")):
        pause.wait(0.5)  # the last words of the start
    # It sleeps in the selector without a time-out: not one wake-up, however long one looks.
    pause.wait(2.0)
    assert status(server.pid, "voluntary_ctxt_switches") == before
    assert server.stop() == 0
