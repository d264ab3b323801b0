"""Where the access log goes, and that nobody waits for it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from framegate import ConfigError, Server
from logs.application import app
from server_process import Launch, ServerProcess

TIMEOUT_SECONDS = 60.0
APP = "logs.application:app"


def wait_until(condition: Any) -> None:
    """Return once a condition holds that nothing tells of; the test's watchdog bounds the time."""
    pause = threading.Event()
    while not condition():
        pause.wait(0.01)


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def raw(address: Any, request: bytes) -> bytes:
    with socket.create_connection(address, timeout=TIMEOUT_SECONDS) as peer:
        peer.sendall(request)
        received = b""
        while chunk := peer.recv(65536):
            received += chunk
    return received


def test_fields_of_request_and_response_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    form = '%m %U%q %>s %{bytes_in}n %B %{protocol}n %{worker}n "%{User-Agent}i" "%{X-Kind}o"'
    options = {"access_log_file": str(path), "access_log_format": form}
    with Server(app, port=0, **options).start_in_thread() as server:
        url = server.urls[0]
        headers = {"user-agent": 'a "quoted" agent'}
        assert httpx.post(f"{url}/a?b=%22", content=b"12345", headers=headers).text == "12345"
        with httpx.Client(http1=False, http2=True) as client:
            assert client.get(f"{url}/two").text == "hello"
        wait_until(lambda: len(lines_of(path)) == 2)
    first, second = lines_of(path)
    assert first == r'POST /a?b=%22 200 5 5 http/1.1 1 "a \x22quoted\x22 agent" "a b"'
    assert second.startswith("GET /two 200 0 5 h2 1 ")


def test_a_client_forges_no_line_by_what_it_sends(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    options = {"access_log_file": str(path), "access_log_format": "combined"}
    with Server(app, port=0, **options).start_in_thread() as server:
        address = server.addresses[0]
        for target in (b"/a%0d%0aGET", b"/a\x0bb", b"/a\x1b[2Jb", b'/"x', b"/\xc3\xa4"):
            for agent in (b"a\x1bb", b"\xff\xfe", b'" 200 1 "-" "', b"a\tb"):
                raw(
                    address,
                    b"GET " + target + b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
                    b"user-agent: " + agent + b"\r\n\r\n",
                )
    content = path.read_bytes()
    pattern = rb'127\.0\.0\.1 - - \[[^\]"]+\] "[^"]*" \d+ (\d+|-) "-" "[^"]*"'
    found = content.splitlines()
    assert found
    for line in found:
        assert re.fullmatch(pattern, line), line
        assert re.fullmatch(rb"[ -~]+", line), line


def test_paths_are_left_out_while_they_succeed(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    options: dict[str, Any] = {
        "access_log_file": str(path),
        "access_log_format": "%U %>s",
        "access_log_exclude": ["/livez", "/health/*"],
    }
    with Server(app, port=0, **options).start_in_thread() as server:
        for target in (
            "/livez",
            "/livez?a=1",
            "/health/db",
            "/livezz",
            "/health",
            "/health/broken",
        ):
            httpx.get(server.urls[0] + target)
        wait_until(lambda: len(lines_of(path)) == 3)
    assert lines_of(path) == ["/livezz 200", "/health 200", "/health/broken 500"]


def test_client_and_id_are_those_that_a_trusted_proxy_gives(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    options: dict[str, Any] = {
        "access_log_file": str(path),
        "access_log_format": "%h %L",
        "forwarded_allow_ips": "127.0.0.1",
        "request_id": True,
    }
    with Server(app, port=0, **options).start_in_thread() as server:
        headers = {"x-forwarded-for": "192.0.2.7", "x-request-id": "abc-1"}
        answer = httpx.get(server.urls[0], headers=headers)
        assert answer.headers["x-request-id"] == "abc-1"
        made = httpx.get(server.urls[0]).headers["x-request-id"]
        wait_until(lambda: len(lines_of(path)) == 2)
    assert lines_of(path) == ["192.0.2.7 abc-1", f"127.0.0.1 {made}"]


def test_websocket_is_one_line(tmp_path: Path) -> None:
    from websockets.sync.client import connect

    path = tmp_path / "access.log"
    options = {"access_log_file": str(path), "access_log_format": "json"}
    with Server(app, port=0, **options).start_in_thread() as server:
        with connect(server.urls[0].replace("http", "ws") + "/ws"):
            pass
    (line,) = lines_of(path)
    found = json.loads(line)
    assert (found["protocol"], found["http_version"], found["status"]) == ("websocket", "1.1", 101)


def test_file_is_opened_anew_on_a_signal(launch: Launch, tmp_path: Path) -> None:
    for workers in ("1", "2"):
        path, moved = tmp_path / f"access{workers}.log", tmp_path / f"moved{workers}.log"
        server = launch(
            APP, "--access-log-file", str(path), "--workers", workers, "--lifespan", "off"
        ).wait_ready()
        assert server.get("/before") == "hello"
        wait_until(lambda path=path: lines_of(path))
        path.rename(moved)
        server.signal(signal.SIGUSR1)
        wait_until(path.exists)  # some worker has it
        while not lines_of(path):  # another one may still write into the old file
            assert server.get("/after") == "hello"
        assert server.stop() == 0
        assert "/before" in moved.read_text()
        assert "/before" not in path.read_text()
        assert "GET /" not in server.text


def test_lines_of_four_workers_stay_whole(launch: Launch) -> None:
    """They share one pipe; each line is longer than a tenth of what it takes at once."""
    words = ["--workers", "4", "--access-log-format", "json", "--lifespan", "off"]
    server = launch(APP, *words).wait_ready()
    port, count = server.port, 100

    def ask(name: int) -> None:
        # A connection each, so that all workers get some.
        for number in range(count):
            target = f"/{name}/{number}/{'x' * 1500}"
            raw(
                ("127.0.0.1", port),
                f"GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode(),
            )

    threads = [threading.Thread(target=ask, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_SECONDS)
    assert server.stop() == 0
    found = [json.loads(line) for line in server.lines if line.startswith("{")]
    targets = {line["target"].rsplit("/", 1)[0] for line in found}
    assert targets == {f"/{name}/{number}" for name in range(4) for number in range(count)}
    assert {line["worker"] for line in found} <= {1, 2, 3, 4}
    assert len({line["pid"] for line in found}) == len({line["worker"] for line in found})


def blocked_server(tmp_path: Path) -> tuple[subprocess.Popen[bytes], int]:
    """A server whose standard output is a pipe that nobody reads; its port."""
    words = ["serve", APP, "--app-dir", str(Path(__file__).parents[1]), "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "framegate", *words, "--lifespan", "off"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "FRAMEGATE_RUNTIME_DIR": str(tmp_path)},
        cwd=tmp_path,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if match := re.search(rb"http://[^ ]*:(\d+)", line):
            port = int(match[1])
        if b"ready: pid" in line:
            return process, port
    raise AssertionError("it did not start")


def test_a_log_that_nobody_reads_stops_no_request_and_is_complained_of(tmp_path: Path) -> None:
    process, port = blocked_server(tmp_path)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        # More than the pipe (64 KiB) and the buffer (1 MiB) take.
        target = "/" + "x" * 2000
        with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_SECONDS) as peer:
            for _ in range(40):
                peer.sendall(f"GET {target} HTTP/1.1\r\nhost: x\r\n\r\n".encode() * 50)
                found = b""
                while found.count(b"hello") < 50:
                    found += peer.recv(65536)
        complaint = re.compile(rb"\d+ lines of the access log were lost: nobody reads it")
        assert any(complaint.search(line) for line in process.stderr)
    finally:
        process.stdout.close()
        process.terminate()
        assert process.wait(TIMEOUT_SECONDS) == 0
        process.stderr.close()


def test_full_disk_costs_lines_and_nothing_else(launch: Launch) -> None:
    words = ["--access-log-file", "/dev/full", "--lifespan", "off"]
    server: ServerProcess = launch(APP, *words).wait_ready()
    for _ in range(3):
        assert server.get("/") == "hello"
    server.wait_for(r"\d lines? of the access log were lost: nobody reads it, or the disk is full")
    assert server.get("/") == "hello"
    assert server.stop() == 0


def test_file_that_cannot_be_opened_is_named_at_the_start(launch: Launch, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"access_log_file.*/access.log cannot be opened: No such"
    ):
        Server(app, port=0, access_log_file="/nowhere/access.log").start_in_thread()
    for workers in ("1", "2"):
        server = launch(APP, "--access-log-file", str(tmp_path), "--workers", workers)
        assert server.wait() != 0
        assert f"{tmp_path} cannot be opened: Is a directory" in server.text
