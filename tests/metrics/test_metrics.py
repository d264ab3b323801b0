"""What is counted, and that the count of all workers is right."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

import framegate
from framegate import RunningServer, Server
from metrics.scraping import Metrics, admin_port, ask, eventually, scrape
from server_process import Launch


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answers with the status that the path names."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        return
    assert scope["type"] == "http"
    status = int(scope["path"].lstrip("/") or 200)
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b"x" * 1000})


@contextmanager
def serving(application: Any = app, **options: Any) -> Iterator[RunningServer]:
    options = {"lifespan": "off", "access_log": False, "port": 0, "admin_bind": "0", **options}
    with Server(application, **options).start_in_thread() as server:
        yield server


def port_of(server: RunningServer) -> int:
    (url,) = server.admin_urls
    return int(url.rpartition(":")[2])


@pytest.mark.parametrize("openmetrics", [False, True])
def test_requests_are_counted_by_method_and_status(openmetrics: bool) -> None:
    with serving() as server, httpx.Client(base_url=server.urls[0]) as client:
        for _ in range(7):
            client.get("/")
        for _ in range(3):
            client.post("/404")
        client.request("PROPFIND", "/500")
        client.request("REPORT", "/500")
        metrics = scrape(port_of(server), openmetrics=openmetrics)
    name = "http_requests_total"
    assert metrics.get(name, method="GET", status="200") == 7
    assert metrics.get(name, method="POST", status="404") == 3
    assert metrics.get(name, method="OTHER", status="500") == 2
    assert metrics[name] == 12
    assert all(labels.keys() == {"method", "status"} for labels in metrics.labels(name))
    assert metrics["http_request_duration_seconds_count"] == 12
    assert metrics.types["http_request_duration_seconds"] == "histogram"


def test_durations_are_in_their_buckets() -> None:
    with serving() as server, httpx.Client(base_url=server.urls[0]) as client:
        for _ in range(5):
            client.get("/")
        metrics = scrape(port_of(server))
    name = "http_request_duration_seconds"
    buckets = sorted(
        (float(labels["le"]), metrics.get(f"{name}_bucket", le=labels["le"]))
        for labels in metrics.labels(f"{name}_bucket")
    )
    assert buckets[-1] == (math.inf, 5)
    counts = [count for _, count in buckets]
    assert counts == sorted(counts)
    total = metrics[f"{name}_sum"]
    assert 0 < total < 60
    # The mean lies where the buckets say.
    assert any(bound >= total / 5 and count > 0 for bound, count in buckets)


def test_connections_requests_in_flight_and_bytes() -> None:
    with serving() as server:
        port = port_of(server)
        (address,) = server.addresses
        assert isinstance(address, tuple)

        def current(name: str) -> float:
            return scrape(port)[name]

        with socket.create_connection(address) as peer, socket.create_connection(address):
            eventually(lambda: current("http_connections_active") == 2, "two are connected")
            # A request whose body does not come is in flight, as long as its client stays.
            request = b"POST /200 HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n"
            peer.sendall(request)
            received = b""
            while b"x" * 1000 not in received:
                received += peer.recv(65536)
        eventually(lambda: current("http_connections_active") == 0, "nobody is connected")
        assert current("http_requests_in_flight") == 0
        # More than the body: the head counts, too.
        eventually(lambda: current("http_bytes_sent_total") >= len(received), "all are counted")
        assert current("http_bytes_sent_total") == len(received)
        assert current("http_bytes_received_total") == len(request)
        assert current("http_connections_accepted_total") == 2


def test_requests_that_wait_are_counted(launch: Launch) -> None:
    name = "framegate_requests_waiting"
    with serving() as unlimited:
        assert not scrape(port_of(unlimited)).labels(name)
    words = ("--limit-requests", "1", "--limit-queue-timeout", "60", "--admin-bind", "0")
    server = launch("supervised_apps:app", "--workers", "2", *words, "--port", "0").wait_ready()
    port = admin_port(server)
    assert scrape(port).labels(name) == [{}]
    server.hold_file.touch()
    with server.request("/slow"):
        server.wait_event("slow")
        with server.request(), server.request():
            eventually(lambda: scrape(port)[name] == 2, "they wait")
            server.hold_file.unlink()
            eventually(lambda: scrape(port)[name] == 0, "nobody waits any more")


def test_websockets_are_counted_while_they_are_open() -> None:
    with serving() as server:
        port = port_of(server)
        name = "framegate_websockets_open"
        with connect(server.urls[0].replace("http", "ws")):
            eventually(lambda: scrape(port)[name] == 1, "the WebSocket is counted")
        eventually(lambda: scrape(port)[name] == 0, "it is no more")
        assert scrape(port).get("http_requests_total", method="GET", status="101") == 1


def test_calls_and_streams_are_counted_while_they_last() -> None:
    go = threading.Event()

    async def holding(scope: dict[str, Any], receive: Any, send: Any) -> None:
        while not go.is_set():
            await asyncio.sleep(0.01)
        await app(scope, receive, send)

    with (
        serving(holding) as server,
        ThreadPoolExecutor() as threads,
        httpx.Client(base_url=server.urls[0], http1=False, http2=True, timeout=60) as client,
    ):
        port = port_of(server)

        def counted(count: int) -> bool:
            metrics = scrape(port)
            names = ("framegate_application_calls", "framegate_http2_streams_open")
            return all(metrics[name] == count for name in names)

        requests = [threads.submit(client.get, "/") for _ in range(3)]
        eventually(lambda: counted(3), "three calls are counted")
        go.set()
        assert all(request.result().status_code == 200 for request in requests)
        eventually(lambda: counted(0), "there are none any more")


def test_blocking_handlers_of_native_routes_are_counted() -> None:
    routes = framegate.App(threads_max=1, queue_max=2)
    entered, leave = threading.Semaphore(0), threading.Semaphore(0)

    @routes.get("/")
    def handler() -> str:
        entered.release()
        assert leave.acquire(timeout=60)
        return "done"

    def counts() -> list[float]:
        metrics = scrape(port_of(server))
        names = ("running", "waiting", "refused_total")
        return [metrics[f"framegate_handlers_{name}"] for name in names]

    with serving(routes) as server, ThreadPoolExecutor(3) as threads:
        asked = [threads.submit(httpx.get, server.urls[0], timeout=60) for _ in range(3)]
        assert entered.acquire(timeout=60)
        eventually(lambda: counts() == [1, 2, 0], "one runs, two wait")
        assert httpx.get(server.urls[0]).status_code == 503
        eventually(lambda: counts() == [1, 2, 1], "one was refused")
        leave.release(3)
        assert [reply.result().text for reply in asked] == ["done"] * 3
        eventually(lambda: counts() == [0, 0, 1], "none is left")


def test_frames_from_request_bodies_are_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FRAMEGATE_RUNTIME_DIR", str(tmp_path))

    async def taking(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["path"] == "/read":
            # A body that Python has begun to read cannot become a frame without it.
            message = await receive()

            async def read_again() -> Any:
                return message

            await framegate.ingest(scope, "raw", receive=read_again)
        else:
            await framegate.ingest(scope, "raw", receive=receive)
        await app({**scope, "path": "/"}, receive, send)

    with (
        framegate.Publisher("raw", slot_bytes=100),
        serving(taking) as server,
        httpx.Client(base_url=server.urls[0]) as client,
    ):
        for _ in range(3):
            assert client.post("/", content=b"native").status_code == 200
        assert client.post("/read", content=b"python").status_code == 200
        port, name = port_of(server), "framegate_ingested_frames_total"
        eventually(lambda: scrape(port)[name] == 4, "all are counted")
        metrics = scrape(port)
        assert (metrics.get(name, path="native"), metrics.get(name, path="python")) == (3, 1)


def test_what_a_server_says_of_itself(launch: Launch) -> None:
    before = time.time()
    # Half of what /pause takes: a pause of the machine is not a stall, too.
    words = ("--admin-bind", "0", "--log-stalls", "1.5s", "--access-log-file", "/dev/full")
    server = launch("supervised_apps:app", *words).wait_ready()
    port = admin_port(server)
    metrics = scrape(port)
    (labels,) = metrics.labels("framegate_build_info")
    assert labels == {"version": framegate.__version__}
    assert before - 60 < metrics["framegate_start_time_seconds"] < time.time() + 60
    worker = {"worker": "1", "pid": str(server.pid)}
    assert metrics.labels("framegate_worker_ready") == [worker]
    assert metrics["framegate_worker_ready"] == 1
    assert metrics["framegate_event_loop_stalls_total"] == 0
    assert scrape(port)["framegate_scrapes_total"] == metrics["framegate_scrapes_total"] + 1
    server.get("/pause")  # with the GIL, for longer than a stall is
    eventually(lambda: scrape(port)["framegate_event_loop_stalls_total"] == 1, "it is counted")
    eventually(lambda: scrape(port)["framegate_log_lines_dropped_total"] == 1, "a line was lost")

    def waits() -> float:
        server.get()  # each turn of the loop is a wait, of which one in sixteen is measured
        return scrape(port)["framegate_gil_waits_total"]

    eventually(lambda: waits() > 0, "waits for the GIL are counted")
    assert 0 < scrape(port)["framegate_gil_wait_seconds_total"] < 60


def test_too_many_kinds_of_requests_are_counted_by_class() -> None:
    """More pairs of method and status than there is room for: still each request counts once."""
    statuses = list(range(200, 320))
    with serving() as server, httpx.Client(base_url=server.urls[0]) as client:
        for status in statuses:
            if status not in (204, 304):
                client.get(f"/{status}")
        metrics = scrape(port_of(server))
    name = "http_requests_total"
    assert metrics[name] == len(statuses) - 2
    assert len(metrics.labels(name)) < 110
    assert metrics.get(name, method="OTHER", status="3xx") > 0


def test_path_on_the_main_port() -> None:
    with serving(admin_bind=(), metrics_path="/-/metrics") as server:
        (address,) = server.addresses
        port = int(address[1])
        assert scrape(port, "/-/metrics")["http_requests_total"] == 0
        assert scrape(port, "/-/metrics", openmetrics=True)["http_requests_total"] == 1
        assert ask(port, "/metrics/200")[0] != 200


def test_every_family_has_a_help_text_and_a_type() -> None:
    with serving() as server:
        httpx.get(server.urls[0])
        _, _, text = ask(port_of(server), "/metrics")
    families = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert families == {line.split()[2] for line in text.splitlines() if line.startswith("# HELP")}
    required = {
        "http_requests_total",
        "http_request_duration_seconds",
        "http_connections_active",
        "http_requests_in_flight",
        "http_bytes_sent_total",
        "framegate_event_loop_lag_seconds",
        "framegate_gil_wait_seconds_total",
        "framegate_worker_restarts_total",
        "framegate_worker_resident_memory_bytes",
        "framegate_websockets_open",
        "framegate_http2_streams_open",
    }
    assert required <= families


def test_counts_of_killed_workers_stay(launch: Launch) -> None:
    server = launch(
        "supervised_apps:app",
        "--port",
        "0",
        "--workers",
        "2",
        "--admin-bind",
        "0",
        "--no-access-log",
    ).wait_ready()
    port = admin_port(server)

    def count(metrics: Metrics) -> float:
        return metrics.get("http_requests_total", method="GET", status="200")

    def all_are_counted(sent: int) -> None:
        # A request is counted when its last byte has left, which its client may see before.
        eventually(lambda: count(scrape(port)) == sent, f"{sent} requests are counted")

    sent = 0
    for number in (1, 2):
        for _ in range(20):
            victim = int(server.get("/pid"))
            sent += 1
        all_are_counted(sent)
        seen = len(server.lines)
        os.kill(victim, signal.SIGKILL)
        # The other worker answers meanwhile, and nothing is lost or counted twice.
        assert count(scrape(port)) == sent
        server.wait_for(r"ready again", after=seen)
        metrics = scrape(port)
        assert count(metrics) == sent
        assert metrics["framegate_worker_restarts_total"] == number
        assert metrics["framegate_workers"] == 2
    memory = "framegate_worker_resident_memory_bytes"
    assert {labels["worker"] for labels in metrics.labels(memory)} == {"1", "2"}
    assert metrics.get(memory, worker="1") > 1 << 20
