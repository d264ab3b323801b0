"""Several workers: spread, restart, stop, and no orphan."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import stat
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from framegate import _http, supervisor, worker
from framegate.config import Config
from framegate.runtime_segment import RUNTIME_LAYOUT, RuntimeSegment
from framegate.supervisor import restart_delay_seconds
from server_process import Launch, body, wait_for_death

APP = "supervised_apps:app"


def test_connections_are_spread_over_the_workers(launch: Launch) -> None:
    server = launch(APP, "--workers", "2").wait_ready()
    expected = {str(pid) for pid in server.worker_pids}
    seen: set[str] = set()
    for _ in range(500):  # the kernel hashes the client's port
        seen.add(server.get())
        if seen == expected:
            break
    assert seen == expected
    assert server.stop() == 0


def test_start_up_lines_tell_what_runs(launch: Launch) -> None:
    server = launch(APP, "--workers", "2").wait_ready()
    assert re.search(
        rf"framegate \S+ serves {APP} on http://127\.0\.0\.1:{server.port}\n", server.text
    )
    assert re.search(r"2 worker processes, Python 3\.\d+\.\d+ \((no )?GIL\)", server.text)
    assert server.text.count("development build") == 1


def test_sigterm_drains_and_exits_0(launch: Launch) -> None:
    server = launch(APP, "--workers", "2").wait_ready()
    server.hold_file.touch()
    peers = [server.request("/slow") for _ in range(6)]
    server.wait_event("slow", 6)
    server.signal(signal.SIGTERM)
    server.wait_for("stopping 2 workers")
    with pytest.raises(ConnectionRefusedError):
        # Refused, not queued for nobody; the port is known from the start-up lines.
        while True:
            with contextlib.suppress(ConnectionResetError):  # met the listener as it closed
                server.request().close()
    server.hold_file.unlink()
    assert [body(peer) for peer in peers] == ["done"] * 6
    assert server.wait() == 0
    assert sorted(server.events("shutdown")) == sorted(server.events("startup"))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_under_load_loses_no_accepted_request(launch: Launch, workers: str) -> None:
    server = launch(APP, "--workers", workers, "--no-access-log").wait_ready()
    port, refused = server.port, threading.Event()
    answers: list[bytes] = []

    def ask() -> None:
        while not refused.is_set():
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=60) as peer:
                    while answer := exchange(peer):
                        answers.append(answer)
            except ConnectionRefusedError:
                refused.set()
            except (ConnectionResetError, BrokenPipeError):
                pass  # closed while idle, or never accepted: no request of ours was begun

    def exchange(peer: socket.socket) -> bytes:
        """Return a whole response; nothing if the connection ended before it began."""
        peer.sendall(b"GET /pid HTTP/1.1\r\nhost: x\r\n\r\n")
        received = b""
        while not (
            whole := re.search(rb"content-length: (\d+)\r\n(.*\r\n)?\r\n", received, re.S)
        ) or (len(received) < whole.end() + int(whole[1])):
            chunk = peer.recv(65536)
            if not chunk:
                return received
            received += chunk
        return received

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    while len(answers) < 200:
        assert threads[0].is_alive()
        threads[0].join(0.01)
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    for thread in threads:
        thread.join()
    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert int(answer.rpartition(b"\r\n\r\n")[2]) in server.events("startup")
    assert "were cut" not in server.text
    assert len(server.events("shutdown")) == int(workers)


def test_ctrl_c_at_the_terminal_is_one_request_to_stop(launch: Launch) -> None:
    server = launch(APP, "--workers", "2").wait_ready()
    server.hold_file.touch()
    peer = server.request("/slow")
    server.wait_event("slow")
    os.killpg(server.pid, signal.SIGINT)  # what the terminal does
    server.wait_for("stopping 2 workers")
    server.hold_file.unlink()
    assert body(peer) == "done"
    assert server.wait() == 0
    assert len(server.events("shutdown")) == 2


def test_second_signal_cuts_but_lifespan_shutdown_runs(launch: Launch) -> None:
    server = launch(APP, "--workers", "2").wait_ready()
    peer = server.request("/endless")
    server.wait_event("endless")
    server.signal(signal.SIGTERM)
    server.wait_for("stopping 2 workers")
    server.signal(signal.SIGTERM)
    assert body(peer) == ""
    assert server.wait() == 0
    assert len(server.events("shutdown")) == 2


def test_third_signal_kills(launch: Launch) -> None:
    server = launch(APP, "--workers", "2").wait_ready()
    peer = server.request("/block")
    server.wait_event("block")
    server.signal(signal.SIGTERM)
    server.wait_for("stopping 2 workers")
    server.signal(signal.SIGTERM)
    server.wait_for("asked again to stop")
    server.signal(signal.SIGTERM)
    assert server.wait() == 1
    assert "is killed" in server.text
    peer.close()


def test_deadline_cuts_what_is_still_busy(launch: Launch) -> None:
    server = launch(APP, "--workers", "2", "--timeout-graceful-shutdown", "0.2").wait_ready()
    peer = server.request("/endless")
    server.wait_event("endless")
    assert server.stop() == 0
    assert body(peer) == ""
    assert "still busy after 0.2 s and were cut: 1" in server.text
    assert len(server.events("shutdown")) == 2


@pytest.mark.parametrize("path", ["/kill", "/exit"])
def test_dead_worker_is_replaced(launch: Launch, path: str) -> None:
    server = launch(APP, "--workers", "2").wait_ready()
    before = server.worker_pids
    body(server.request(path))
    assert int(server.wait_for(r"worker \d ready again \(pid (\d+)\)")[1]) not in before
    status = "SIGKILL" if path == "/kill" else "exit code 0"
    assert re.search(rf"worker \d ended with {status}: starting it again at once", server.text)
    assert server.stop() == 0


def test_connections_to_a_dead_worker_are_served_by_its_successor(launch: Launch) -> None:
    server = launch(APP, "--workers", "2").wait_ready()
    for pid in server.worker_pids:
        os.kill(pid, signal.SIGKILL)
    # Nobody accepts now, yet no connection is refused: the sockets belong to the supervisor.
    peers = [server.request() for _ in range(20)]
    answers = {body(peer) for peer in peers}
    assert answers <= {str(pid) for pid in server.events("startup")[2:]}
    assert server.stop() == 0


def test_endless_crashes_exhaust_the_budget(launch: Launch) -> None:
    server = launch("supervised_apps:crashing", "--workers", "2")
    assert server.wait() == 1
    assert "ended with exit code 9, for the 6th time within 60 s: giving up" in server.text
    assert 6 <= len(server.events("startup")) <= 12


def test_pause_before_a_restart_grows_to_a_limit() -> None:
    delays = [restart_delay_seconds(count) for count in range(1, 9)]
    assert delays == [0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 4.0, 4.0]


def test_startup_failure_stops_everything_with_3_and_is_said_once(launch: Launch) -> None:
    server = launch("supervised_apps:failing", "--workers", "3")
    assert server.wait() == 3
    assert server.text.count("error: FG-START-001 lifespan startup failed: no database") == 1
    assert len(server.events("startup")) <= 3
    assert "Traceback" not in server.text


def test_budget_of_crashes_can_be_set(launch: Launch) -> None:
    server = launch("supervised_apps:app", "--workers", "2", "--worker-restarts-max", "1")
    server.wait_ready()
    os.kill(server.worker_pids[1], signal.SIGKILL)
    again = int(server.wait_for(r"worker 2 ready again \(pid (\d+)\)")[1])
    os.kill(again, signal.SIGKILL)
    assert server.wait() == 1
    assert (
        "worker 2 ended with SIGKILL, for the 2nd time within 60 s: giving up, exit code 1 "
        "(--worker-restarts-max 1)" in server.text
    )
    assert server.events("shutdown") == [server.worker_pids[0]]


def test_worker_that_cannot_start_again_is_tried_while_others_serve(launch: Launch) -> None:
    server = launch("supervised_apps:failing_later", "--workers", "2").wait_ready()
    server.hold_file.touch()
    os.kill(server.worker_pids[0], signal.SIGKILL)
    server.wait_for("worker 1 ended with exit code 3: starting it again in 0.25 s")
    server.hold_file.unlink()
    server.wait_for("worker 1 ready again")
    assert server.stop() == 0


def test_startup_failure_beyond_the_budget_stops_everything_with_3(launch: Launch) -> None:
    words = ("--workers", "2", "--worker-restarts-max", "1")
    server = launch("supervised_apps:failing_later", *words).wait_ready()
    server.hold_file.touch()
    os.kill(server.worker_pids[0], signal.SIGKILL)
    assert server.wait() == 3
    assert "no database" in server.text
    assert server.events("shutdown") == [server.worker_pids[1]]


def test_import_error_of_a_worker_is_said_once(launch: Launch) -> None:
    server = launch("supervised_apps:ap", "--workers", "3")
    assert server.wait() == 3
    assert server.text.count("did you mean app?") == 1


def test_startup_that_hangs_ends_with_3(launch: Launch) -> None:
    server = launch("supervised_apps:hanging", "--workers", "2", "--timeout-startup", "0.5")
    assert server.wait() == 3
    assert "lifespan startup did not finish within" in server.text


def test_import_that_hangs_ends_with_3_and_shows_where(launch: Launch) -> None:
    server = launch(
        "supervised_apps:blocking_factory()", "--workers", "2", "--timeout-startup", "0.5"
    )
    assert server.wait() == 3
    assert "was not ready after 0.5 s" in server.text
    assert "in blocking_factory" in server.text


def test_failed_shutdown_exits_1(launch: Launch) -> None:
    server = launch("supervised_apps:bad_shutdown", "--workers", "2").wait_ready()
    assert server.stop() == 1
    assert "lifespan shutdown failed: still busy" in server.text


class TestKilledSupervisor:
    def test_leaves_no_orphan(self, launch: Launch) -> None:
        # granian left a worker that served the port 16 minutes later.
        server = launch(APP, "--workers", "2").wait_ready()
        pids = server.worker_pids
        server.signal(signal.SIGKILL)
        for pid in pids:
            wait_for_death(pid)
        server.wait_event("shutdown", 2)
        assert sorted(server.events("shutdown")) == sorted(pids)

    def test_leaves_no_orphan_that_is_busy(self, launch: Launch) -> None:
        server = launch(APP, "--workers", "2", "--timeout-graceful-shutdown", "0.2").wait_ready()
        peers = [server.request("/endless") for _ in range(4)]
        server.wait_event("endless", 4)
        server.signal(signal.SIGKILL)
        for pid in server.worker_pids:
            wait_for_death(pid)
        for peer in peers:
            peer.close()

    def test_leaves_no_orphan_that_still_imports(self, launch: Launch) -> None:
        server = launch("supervised_apps:blocking_factory()", "--workers", "2")
        server.wait_event("import", 2)
        pids = server.events("import")
        server.signal(signal.SIGKILL)
        for pid in pids:
            wait_for_death(pid)

    def test_segment_is_removed_by_the_workers(self, launch: Launch) -> None:
        server = launch(APP, "--workers", "2").wait_ready()
        server.signal(signal.SIGKILL)
        for pid in server.worker_pids:
            wait_for_death(pid)
        assert not list(server.runtime_directory.iterdir())

    def test_port_is_free_although_a_worker_is_blocked(self, launch: Launch) -> None:
        words = ("--timeout-graceful-shutdown", "0.5")
        server = launch(APP, "--workers", "2", *words).wait_ready()
        peer = server.request("/block")
        server.wait_event("block")
        (blocked,) = server.events("block")
        server.signal(signal.SIGKILL)
        (other,) = set(server.worker_pids) - {blocked}
        wait_for_death(other)
        poll = threading.Event()
        while True:  # its loop cannot close its socket; its other threads can
            following = launch(APP, "--port", str(server.port), "--workers", "2")
            following.wait_for("ready: pids|is in use")
            if "ready: pids" in following.text:
                break
            assert following.wait() == 3
            poll.wait(0.1)
        assert following.stop() == 0
        wait_for_death(blocked)
        peer.close()

    def test_worker_that_keeps_the_gil_ends_too(self, launch: Launch) -> None:
        extra = {"EXPONENT": "60"}  # years
        words = ("--timeout-graceful-shutdown", "0", "--timeout-worker-shutdown", "0")
        server = launch(APP, "--workers", "2", *words, extra=extra).wait_ready()
        peer = server.request("/compute")
        server.wait_event("compute")
        server.signal(signal.SIGKILL)
        for pid in server.worker_pids:
            wait_for_death(pid)
        peer.close()

    def test_segment_is_removed_by_the_next_server(self, launch: Launch) -> None:
        server = launch(APP, "--workers", "2").wait_ready()
        pids = server.worker_pids
        # The workers cannot do it: they die first. (Stopped ones would be continued by the kernel
        # when their parent dies, as an orphaned process group.)
        os.kill(server.pid, signal.SIGSTOP)
        for pid in [*pids, server.pid]:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            wait_for_death(pid)
        (orphan,) = server.runtime_directory.glob("*.runtime")
        following = launch(APP, "--workers", "2").wait_ready()
        assert not orphan.exists()
        assert following.stop() == 0


def test_blocked_worker_is_ended_by_force_and_exits_1(launch: Launch) -> None:
    server = launch(APP, "--timeout-graceful-shutdown", "0").wait_ready()
    peer = server.request("/block")
    server.wait_event("block")
    assert server.stop() == 1
    assert "did not stop in time and is ended by force" in server.text
    assert "time.sleep" in server.text or "in app" in server.text
    peer.close()


class TestOneWorker:
    def test_runs_in_the_calling_process(self, launch: Launch) -> None:
        server = launch(APP).wait_ready()
        assert server.get() == str(server.pid)
        assert server.stop() == 0
        assert server.events("shutdown") == [server.pid]

    def test_second_signal_cuts_but_lifespan_shutdown_runs(self, launch: Launch) -> None:
        server = launch(APP).wait_ready()
        peer = server.request("/endless")
        server.wait_event("endless")
        server.signal(signal.SIGINT)
        server.wait_for("stopping")
        server.signal(signal.SIGINT)
        assert body(peer) == ""
        assert server.wait() == 0
        assert server.events("shutdown") == [server.pid]

    def test_signal_during_import_exits_0(self, launch: Launch) -> None:
        server = launch("supervised_apps:blocking_factory()")
        server.wait_event("import")
        assert server.stop() == 0
        assert "Traceback" not in server.text

    def test_signal_during_startup_exits_0(self, launch: Launch) -> None:
        server = launch("supervised_apps:hanging")
        server.wait_event("startup")
        assert server.stop() == 0

    @pytest.mark.parametrize(
        ("app", "code"), [("failing", 3), ("hanging", 3), ("blocking_factory()", 3)]
    )
    def test_startup_failure_exits_3(self, launch: Launch, app: str, code: int) -> None:
        server = launch(f"supervised_apps:{app}", "--timeout-startup", "0.5")
        assert server.wait() == code


class TestListening:
    def test_port_in_use_names_the_holder(self, launch: Launch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as holder:
            port = str(holder.getsockname()[1])
            for workers in ("1", "2"):
                server = launch(APP, "--port", port, "--workers", workers)
                assert server.wait() == 3
                assert f"port {port} on 127.0.0.1 is in use" in server.text
                assert f"held by pid {os.getpid()} (" in server.text

    def test_second_server_does_not_share_the_port_of_the_first(self, launch: Launch) -> None:
        # SO_REUSEPORT alone would let it take half of the connections, silently.
        first = launch(APP, "--workers", "2").wait_ready()
        second = launch(APP, "--port", str(first.port), "--workers", "2")
        assert second.wait() == 3
        assert "is in use" in second.text
        assert first.stop() == 0

    def test_unknown_address_is_named(self, launch: Launch) -> None:
        server = launch(APP, "--host", "203.0.113.1")
        assert server.wait() == 3
        assert "203.0.113.1 is no address of this machine" in server.text

    @pytest.mark.parametrize("workers", ["1", "2"])
    def test_unix_socket_is_shared_and_removed(
        self, launch: Launch, tmp_path: Path, workers: str
    ) -> None:
        path = tmp_path / "socket"
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
        server = launch(APP, "--uds", str(path), "--workers", workers).wait_ready()
        server.wait_for(f"unix:{path}")
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(path))
            peer.sendall(b"GET /pid HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert int(body(peer)) in server.events("startup")
        second = launch(APP, "--uds", str(path))
        assert second.wait() == 3
        assert "another server listens on the Unix socket" in second.text
        assert server.stop() == 0
        assert not path.exists()

    def test_unix_socket_in_a_missing_directory(self, launch: Launch, tmp_path: Path) -> None:
        server = launch(APP, "--uds", str(tmp_path / "no/socket"))
        assert server.wait() == 3
        assert f"fix: create the directory {tmp_path}/no" in server.text

    def test_file_that_is_no_socket_is_not_removed(self, launch: Launch, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("precious")
        server = launch(APP, "--uds", str(tmp_path / "file"))
        assert server.wait() == 3
        assert (tmp_path / "file").read_text() == "precious"

    @pytest.mark.parametrize("workers", ["1", "2"])
    def test_inherited_descriptor(self, launch: Launch, workers: str) -> None:
        with socket.socket() as inherited:
            inherited.bind(("127.0.0.1", 0))
            fd = inherited.fileno()
            server = launch(APP, "--fd", str(fd), "--workers", workers, fds=(fd,)).wait_ready()
            assert server.port == inherited.getsockname()[1]
            assert int(server.get()) in server.events("startup")
            assert server.stop() == 0

    def test_descriptor_that_is_no_socket(self, launch: Launch) -> None:
        server = launch(APP, "--fd", "0")
        assert server.wait() == 3
        assert "--fd 0 is no socket" in server.text
        server = launch(APP, "--fd", "99")
        assert server.wait() == 3
        assert "--fd 99 cannot be used" in server.text


class TestRuntimeSegment:
    def test_has_a_row_per_worker_and_is_private(self, launch: Launch) -> None:
        server = launch(APP, "--workers", "2").wait_ready()
        (path,) = server.runtime_directory.glob("*.runtime")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(server.runtime_directory.stat().st_mode) == 0o700
        data = path.read_bytes()
        first = RUNTIME_LAYOUT["header_bytes"] + RUNTIME_LAYOUT["row_bytes"]
        pids = [
            int.from_bytes(data[at : at + 8], "little")
            for at in (first, first + RUNTIME_LAYOUT["row_bytes"])
        ]
        assert pids == server.worker_pids
        assert server.stop() == 0
        assert not path.exists()

    def test_counters_of_dead_workers_are_kept(self, tmp_path: Path) -> None:
        segment = RuntimeSegment(tmp_path, 2)
        segment.begin(0, 100, 0)
        segment.begin(1, 200, 0)
        row = RUNTIME_LAYOUT["header_bytes"] + RUNTIME_LAYOUT["row_bytes"]
        with segment.path.open("r+b") as file:  # as the worker of row 0 does
            file.seek(row + RUNTIME_LAYOUT["row_connections"])
            file.write((9).to_bytes(8, "little"))
            file.seek(row + RUNTIME_LAYOUT["row_counters"])
            file.write((7).to_bytes(8, "little") + (5).to_bytes(8, "little"))
        before = segment.counters()
        assert before[:3] == [7, 5, 0]
        segment.fold(0)
        segment.begin(0, 101, 1)
        assert segment.counters() == before
        assert segment.read(0, "row_connections") == 0
        assert segment.read(0, "row_pid") == 101
        assert segment.read(1, "row_pid") == 200
        with pytest.raises(IndexError):
            segment.fold(2)
        segment.close()
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("workers", ["1", "2"])
    def test_server_without_a_runtime_directory_warns_and_serves(
        self, launch: Launch, tmp_path: Path, workers: str
    ) -> None:
        (tmp_path / "run").write_text("in the way")
        server = launch(APP, "--workers", workers).wait_ready()
        assert "no runtime segment: runtime directory" in server.text
        assert int(server.get()) in server.events("startup")
        assert server.stop() == 0

    def test_worker_writes_its_row(self, launch: Launch) -> None:
        server = launch(APP).wait_ready()
        (path,) = server.runtime_directory.glob("*.runtime")
        row = RUNTIME_LAYOUT["header_bytes"] + RUNTIME_LAYOUT["row_bytes"]
        requests = row + _http.RUNTIME_COUNTERS["requests"]
        for _ in range(3):
            server.get()
        wait = threading.Event()
        for _ in range(3000):  # the native thread writes at its own pace
            if int.from_bytes(path.read_bytes()[requests : requests + 8], sys.byteorder) == 3:
                break
            wait.wait(0.02)
        else:
            pytest.fail("the counter of requests does not reach 3")
        assert server.stop() == 0

    def test_living_server_keeps_its_file(self, tmp_path: Path) -> None:
        first = RuntimeSegment(tmp_path, 1)
        second = RuntimeSegment(tmp_path, 1)
        assert first.path.exists()
        assert second.path.exists()
        first.close()
        second.close()


def test_supervisor_waits_as_long_as_its_workers_take() -> None:
    assert supervisor.SHUTDOWN_SECONDS == worker.SHUTDOWN_SECONDS
    assert supervisor.HASTY_SECONDS == worker.HASTY_SECONDS
    assert supervisor.STOP_MARGIN_SECONDS > worker.MARGIN_SECONDS
    assert supervisor.STARTUP_MARGIN_SECONDS > worker.MARGIN_SECONDS


class Deadlines(worker.Watchdog):
    """Keeps what it is armed with."""

    def __init__(self) -> None:
        super().__init__(lambda: None)
        self.seconds: list[float] = []

    def arm(self, seconds: float, reason: str, exit_code: int) -> None:
        self.seconds.append(seconds)


def test_last_spans_and_events_take_nothing_from_the_end_of_the_application() -> None:
    """They are sent before lifespan shutdown, so every deadline behind it is as much later."""

    def deadlines(**options: Any) -> list[float]:
        config = Config(timeout_graceful_shutdown=1.0, **options)
        watchdog = Deadlines()
        signals = worker.Signals(config, watchdog, is_supervised=False)
        signals.worker = cast(worker.Worker, SimpleNamespace(stop=lambda: None, has_worker_scope=0))
        with signals.installed():
            for _ in range(2):
                signal.raise_signal(signal.SIGTERM)
        return [*watchdog.seconds, worker.stop_seconds(config)]

    plain = deadlines()
    for options, seconds in [
        ({"otel": True}, 2.0),
        ({"collector": "a:b"}, 1.0),
        ({"otel": True, "collector": "a:b"}, 3.0),
    ]:
        assert deadlines(**options) == [before + seconds for before in plain]


def test_layout_of_the_runtime_segment_is_the_cores() -> None:
    assert _http.RUNTIME_LAYOUT == RUNTIME_LAYOUT


def test_threads_of_the_application_cannot_hold_up_the_exit(launch: Launch) -> None:
    server = launch("supervised_apps:lingering", "--timeout-graceful-shutdown", "0").wait_ready()
    assert server.stop() == 1
    assert "did not stop in time and is ended by force" in server.text
