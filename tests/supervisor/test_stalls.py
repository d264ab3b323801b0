"""A loop that stands still: logged with the stack that holds it up, counted, killed on request."""

from __future__ import annotations

import os
import signal
import struct
import threading

from framegate import _http
from framegate.runtime_segment import RUNTIME_LAYOUT
from server_process import Launch, ServerProcess, body

APP = "supervised_apps:app"
LIMIT = "1.5"
"""Less than /pause takes, and more than the machine pauses: where stalls are counted."""


def stall_count(server: ServerProcess) -> int:
    (path,) = server.runtime_directory.glob("*.runtime")
    at = RUNTIME_LAYOUT["header_bytes"] + RUNTIME_LAYOUT["row_bytes"]
    data = path.read_bytes()
    count: int = struct.unpack_from("=Q", data, at + _http.RUNTIME_COUNTERS["stalls"])[0]
    return count


def test_stall_is_logged_with_its_stack_and_counted(launch: Launch) -> None:
    server = launch(APP, "--workers", "2", "--log-stalls", LIMIT).wait_ready()
    peer = server.request("/pause")
    server.wait_for(r"worker \d: the event loop has stood still for \d\.\d s; it is here:")
    server.wait_for(r"time\.sleep\(2\.5\)")
    server.wait_for(r"in app")
    assert body(peer)  # nobody killed it
    server.wait_for(r"the event loop turns again after \d\.\d s")
    assert server.text.count("has stood still") == 1
    assert server.stop() == 0


def test_single_worker_too_and_counted_once_per_stall(launch: Launch) -> None:
    server = launch(APP, "--log-stalls", LIMIT).wait_ready()
    for count in (1, 2):
        seen = len(server.lines)
        assert body(server.request("/pause"))
        server.wait_for("turns again", after=seen)
        assert stall_count(server) == count
    assert server.stop() == 0


def test_can_be_off(launch: Launch) -> None:
    server = launch(APP, "--log-stalls", "0").wait_ready()
    assert body(server.request("/pause"))
    assert "stood still" not in server.text
    assert server.stop() == 0


def test_code_that_keeps_the_gil_is_shown_by_a_signal(launch: Launch) -> None:
    extra = {"EXPONENT": "60"}  # years
    words = ("--log-stalls", "0.5", "--worker-timeout", "4")
    server = launch(APP, "--workers", "2", *words, extra=extra).wait_ready()
    peer = server.request("/compute")
    server.wait_for("has stood still for .* and code that keeps the GIL; all stacks:")
    server.wait_for(r'File ".*supervised_apps\.py", line \d+ in app')
    server.wait_for(r"is killed: its loop stands still for \d\.\d s \(--worker-timeout 4\)")
    server.wait_for(r"worker \d ready again")
    peer.close()
    assert server.stop() == 0


def test_worker_timeout_kills_and_replaces(launch: Launch) -> None:
    server = launch(APP, "--worker-timeout", "1").wait_ready()
    peer = server.request("/block")
    # Before it is killed, it is said where it stood.
    server.wait_for("the event loop has stood still for")
    server.wait_for(r"in app")
    server.wait_for(r"worker 1 \(pid \d+\) is killed: its loop stands still for")
    server.wait_for("worker 1 ended with SIGKILL: starting it again at once")
    assert int(server.get()) != server.worker_pids[0]
    peer.close()
    assert server.stop() == 0


def test_worker_that_was_stopped_is_not_a_stall(launch: Launch) -> None:
    server = launch(APP, "--workers", "2", "--log-stalls", "1.5").wait_ready()
    for pid in server.worker_pids:
        os.kill(pid, signal.SIGSTOP)
    peer = server.request()
    threading.Event().wait(2.5)  # there is nothing to wait for: that is the point
    for pid in server.worker_pids:
        os.kill(pid, signal.SIGCONT)
    assert body(peer)
    assert "stood still" not in server.text
    assert server.stop() == 0
