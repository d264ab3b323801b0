"""Stopping must stop: whatever clients and handlers do, within the deadline and in order."""

from __future__ import annotations

import contextlib
import signal
import socket
import time

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from server_process import Launch, ServerProcess, body

APP = "supervised_apps:streams"
WORKERS = pytest.mark.parametrize("workers", ["1", "2"])


def read_until(peer: socket.socket, text: bytes) -> bytes:
    received = b""
    while text not in received:
        chunk = peer.recv(65536)
        assert chunk, received
        received += chunk
    return received


def upload(server: ServerProcess) -> socket.socket:
    peer = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    peer.sendall(b"POST /upload HTTP/1.1\r\nhost: x\r\ncontent-length: 6\r\n\r\nabc")
    return peer


@WORKERS
def test_event_streams_are_told_after_half_the_grace(launch: Launch, workers: str) -> None:
    grace = 2.0
    server = launch(
        APP, "--workers", workers, "--timeout-graceful-shutdown", f"{grace}"
    ).wait_ready()
    peer = server.request("/events")
    server.wait_event("events")
    begin = time.monotonic()
    server.signal(signal.SIGTERM)
    # The last event still reaches the client: told is not cut.
    read_until(peer, b"data: bye")
    assert time.monotonic() - begin >= grace / 2
    peer.close()
    assert server.wait() == 0
    assert "were cut" not in server.text
    assert len(server.events("told")) == 1
    assert len(server.events("shutdown")) == int(workers)


@WORKERS
def test_upload_may_go_on_until_the_end_of_the_grace(launch: Launch, workers: str) -> None:
    words = ("--workers", workers, "--timeout-graceful-shutdown", "2")
    server = launch(APP, *words).wait_ready()
    events = server.request("/events")
    peer = upload(server)
    server.wait_event("upload")
    server.wait_event("events")
    server.signal(signal.SIGTERM)
    read_until(events, b"data: bye")  # half of it is over
    events.close()
    peer.sendall(b"def")
    assert body(peer) == "6"
    assert server.wait() == 0
    assert server.events("upload-cut") == []


@WORKERS
def test_everything_at_once_ends_within_the_deadline(launch: Launch, workers: str) -> None:
    """WebSockets, event streams, uploads that do not go on, readers that do not read, handlers."""
    grace = 1.0
    words = ("--workers", workers, "--timeout-graceful-shutdown", f"{grace}")
    server = launch(APP, *words).wait_ready()
    with contextlib.ExitStack() as stack:
        url = f"ws://127.0.0.1:{server.port}/ws"
        sockets = [stack.enter_context(connect(url)) for _ in range(4)]
        server.wait_event("websocket", 4)
        for path in ("events", "stuck"):
            for _ in range(4):
                stack.enter_context(server.request(f"/{path}"))
            server.wait_event(path, 4)
        for _ in range(4):
            stack.enter_context(upload(server))
        server.wait_event("upload", 4)
        stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60))
        begin = time.monotonic()
        server.signal(signal.SIGTERM)
        for item in sockets:
            with pytest.raises(ConnectionClosed) as closed:
                item.recv(timeout=60)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012  # service restart
        assert server.wait() == 0
        assert time.monotonic() - begin < grace + 20  # a watchdog of the test, not a bound
    assert len(server.events("shutdown")) == int(workers)
    assert len(server.events("told")) == 4
    assert len(server.events("upload-cut")) == 4
    assert len(server.events("cancelled")) == 4
    assert "ended by force" not in server.text
    assert "is killed" not in server.text


@WORKERS
def test_handler_that_swallows_its_cancellation_is_ended_by_force(
    launch: Launch, workers: str
) -> None:
    words = ("--workers", workers, "--timeout-graceful-shutdown", "0")
    server = launch(APP, *words).wait_ready()
    peer = server.request("/stubborn")
    server.wait_event("stubborn")
    assert server.stop() == 1
    assert "did not stop in time and is ended by force" in server.text
    # What the lifespan opened is closed all the same.
    assert len(server.events("shutdown")) == int(workers)
    peer.close()


def test_retiring_worker_closes_websockets_as_a_restart(launch: Launch) -> None:
    server = launch(APP, "--workers", "2").wait_ready()
    with connect(f"ws://127.0.0.1:{server.port}/ws") as item:
        server.wait_event("websocket")
        server.signal(signal.SIGHUP)
        with pytest.raises(ConnectionClosed) as closed:
            item.recv(timeout=60)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
    server.wait_for("reloaded: 2 of 2")
    assert server.stop() == 0
