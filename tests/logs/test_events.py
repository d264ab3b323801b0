"""Lifecycle events: what a collector is told, and that it can harm nobody."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.sync.client import connect

import framegate
from framegate import ConfigError, Server
from framegate.config import Config
from framegate.errors import AppImportError
from framegate.events import (
    BufferedCollector,
    ConnectionClosed,
    ConnectionOpened,
    Event,
    RequestFailed,
    RequestStarted,
    ResponseCompleted,
    load_collector,
)
from logs.application import GO, app
from server_process import Launch
from tls.authority import Authority

OPENED = ConnectionOpened(1, 2, "127.0.0.1:3", "127.0.0.1:4", False)


def events_of(ask: Any, **options: Any) -> list[Event]:
    """All events of a server that `ask(url)` was asked of."""
    collector = BufferedCollector()
    options |= {"access_log": False, "collector": collector}
    with Server(app, port=0, **options).start_in_thread() as server:
        ask(server.urls[0])
    return all_of(collector)


def all_of(collector: BufferedCollector) -> list[Event]:
    """The events of a server that was stopped."""
    events = collector.take()
    # All is there now, unless the machine is very busy.
    while kinds(events).count("ConnectionOpened") != kinds(events).count("ConnectionClosed"):
        time.sleep(0.01)
        events += collector.take()
    return events


def kinds(events: Sequence[Event]) -> list[str]:
    return [type(event).__name__ for event in events]


REQUEST = ["ConnectionOpened", "RequestStarted", "ResponseCompleted", "ConnectionClosed"]


def test_one_request_from_accept_to_close() -> None:
    before = time.monotonic_ns()
    events = events_of(lambda url: httpx.post(url + "/a?b=1", content=b"12345"))
    assert kinds(events) == REQUEST
    opened, started, completed, closed = events
    assert isinstance(opened, ConnectionOpened)
    assert isinstance(started, RequestStarted)
    assert isinstance(completed, ResponseCompleted)
    assert isinstance(closed, ConnectionClosed)
    assert opened.local.startswith("127.0.0.1:")
    assert (opened.peer, opened.tls) == (started.client, False)
    assert (started.method, started.target, started.http_version) == ("POST", "/a?b=1", "HTTP/1.1")
    assert (completed.status, completed.body_bytes_in, completed.body_bytes_out) == (200, 5, 5)
    assert len({event.connection for event in events}) == 1
    assert started.request == completed.request
    assert 0 < completed.first_byte_ns <= completed.duration_ns
    assert completed.duration_ns == completed.at_ns - started.at_ns
    assert closed.bytes_in > 5
    assert closed.bytes_out > 5
    times = [event.at_ns for event in events]
    assert times == sorted(times)
    assert before - 1_000_000 <= times[0] <= times[-1] <= time.monotonic_ns() + 1_000_000


def test_streams_of_http2() -> None:
    def ask(url: str) -> None:
        with httpx.Client(http1=False, http2=True) as client:
            for number in range(3):
                assert client.get(f"{url}/{number}").status_code == 200

    events = events_of(ask)
    assert sorted(kinds(events)) == sorted(
        ["ConnectionOpened", "ConnectionClosed", *["RequestStarted", "ResponseCompleted"] * 3]
    )
    started = [event for event in events if isinstance(event, RequestStarted)]
    assert [event.target for event in started] == ["/0", "/1", "/2"]
    assert {event.http_version for event in started} == {"HTTP/2"}
    assert len({event.request for event in started}) == 3


def test_websocket() -> None:
    def ask(url: str) -> None:
        with connect(url.replace("http", "ws")) as peer:
            peer.send("x")

    events = events_of(ask)
    assert kinds(events) == REQUEST
    assert isinstance(events[2], ResponseCompleted)
    assert events[2].status == 101


def test_tls(tmp_path: Path) -> None:
    files = Authority().issue("127.0.0.1").write(tmp_path)

    def ask(url: str) -> None:
        assert httpx.get(url, verify=False).status_code == 200

    events = events_of(ask, **files)
    assert kinds(events) == REQUEST
    assert isinstance(events[0], ConnectionOpened)
    assert events[0].tls


def test_requests_to_topics_bind_have_numbers_of_their_own(runtime: Path) -> None:
    """Two threads serve, each counting for itself; the numbers of one worker are unique."""
    collector = BufferedCollector()
    options: dict[str, Any] = {"topics": "/topics", "topics_bind": "127.0.0.1:0"}
    options |= {"access_log": False, "collector": collector}
    with (
        framegate.Publisher("cam", slots=4, slot_bytes=10) as camera,
        Server(app, port=0, **options).start_in_thread() as server,
    ):
        camera.send(b"12345")
        (topics,) = server.topics_urls
        assert httpx.post(server.urls[0] + "/a", content=b"x").status_code == 200
        assert httpx.get(topics + "/topics/cam?view=latest").content == b"12345"
        with connect(topics.replace("http", "ws") + "/topics/cam") as viewer:
            viewer.recv(timeout=60)
    events = all_of(collector)
    assert sorted(kinds(events)) == sorted(REQUEST * 3)
    connections = {event.connection for event in events}
    requests = {event.request for event in events if isinstance(event, RequestStarted)}
    assert (len(connections), len(requests)) == (3, 3)
    told = {
        event.target: [one for one in events if one.connection == event.connection]
        for event in events
        if isinstance(event, RequestStarted)
    }
    for target, status, size in (("/topics/cam?view=latest", 200, 5), ("/topics/cam", 101, 0)):
        assert kinds(told[target]) == REQUEST
        opened, _, completed, closed = told[target]
        assert isinstance(opened, ConnectionOpened) and isinstance(completed, ResponseCompleted)
        assert opened.local == topics.removeprefix("http://")
        assert (completed.status, completed.body_bytes_out) == (status, size)
        assert isinstance(closed, ConnectionClosed) and closed.bytes_out > 100


def test_responses_that_are_cut_and_applications_that_fail() -> None:
    def ask(url: str) -> None:
        assert httpx.get(url + "/broken").status_code == 500
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(url + "/cut")
        GO.clear()
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(url + "/hold", timeout=httpx.Timeout(60, read=0.3))

    events = events_of(ask)
    ended = [item for item in events if isinstance(item, (RequestFailed, ResponseCompleted))]
    assert [(type(item), item.status) for item in ended] == [
        (ResponseCompleted, 500),
        (RequestFailed, 200),
        (RequestFailed, None),
    ]


class Failing:
    def __init__(self) -> None:
        self.calls = 0

    def record_batch(self, events: Sequence[Event]) -> None:
        self.calls += 1
        raise RuntimeError("no room")


class Messages(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.all: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.all.append(record.getMessage())


@pytest.fixture
def messages() -> Iterator[list[str]]:
    """What the logger `framegate` is told."""
    handler, logger = Messages(), logging.getLogger("framegate")
    logger.addHandler(handler)
    yield handler.all
    logger.removeHandler(handler)


def test_collector_that_raises_harms_no_request(messages: list[str]) -> None:
    collector = Failing()
    options: dict[str, Any] = {"access_log": False, "collector": collector}
    with Server(app, port=0, **options).start_in_thread() as server:
        for _ in range(3):
            batches = collector.calls
            assert httpx.get(server.urls[0]).status_code == 200
            while collector.calls == batches:
                time.sleep(0.005)  # nothing tells of it; the watchdog bounds the time
    told = [text for text in messages if "the collector failed" in text]
    assert len(told) == 1
    assert collector.calls >= 3


class Blocking:
    def __init__(self) -> None:
        self.go = threading.Event()
        self.entered = threading.Event()
        self.events: list[Event] = []

    def record_batch(self, events: Sequence[Event]) -> None:
        self.entered.set()
        assert self.go.wait(60)
        self.events += events


def test_collector_that_blocks_harms_no_request_and_loses_what_does_not_fit(
    messages: list[str],
) -> None:
    collector = Blocking()
    options: dict[str, Any] = {"access_log": False, "collector": collector}
    with Server(app, port=0, **options).start_in_thread() as server:
        with httpx.Client() as client:
            assert client.get(server.urls[0]).status_code == 200
            assert collector.entered.wait(60)
            # More than 8 MiB of targets of 15,000 bytes each.
            for _ in range(700):
                url = f"{server.urls[0]}/{'x' * 15_000}"
                assert client.get(url).status_code == 200
        collector.go.set()
    while not any("events were dropped" in text for text in messages):
        time.sleep(0.01)  # the watchdog bounds the time
    targets = [event for event in collector.events if isinstance(event, RequestStarted)]
    assert 500 < len(targets) < 600


def test_stop_does_not_wait_long_for_a_collector() -> None:
    collector = Blocking()
    options: dict[str, Any] = {"access_log": False, "collector": collector}
    server = Server(app, port=0, **options).start_in_thread()
    assert httpx.get(server.urls[0]).status_code == 200
    assert collector.entered.wait(60)
    server.stop()
    collector.go.set()


def test_workers_have_collectors_of_their_own(launch: Launch) -> None:
    words = ["--collector", "logs.printing_collector:Printing", "--workers", "2"]
    server = launch("logs.application:app", *words, "--lifespan", "off").wait_ready()
    for _ in range(10):
        assert server.get("/")

    def completed() -> int:
        return sum(line == "event ResponseCompleted" for line in server.lines)

    with server.changed:
        assert server.changed.wait_for(lambda: completed() == 10, timeout=60)
    assert server.stop() == 0


class Nothing:
    pass


def test_mistakes_are_named(launch: Launch) -> None:
    for wrong in ("nonsense", "a:b()", 5, Nothing()):
        with pytest.raises(ConfigError, match="expected `module:object`, or in code an object"):
            Config(collector=wrong)
    with pytest.raises(ConfigError, match=r"Nothing has no method record_batch\(events\)"):
        load_collector(Config(collector="logs.test_events:Nothing", app_dir="tests"))
    with pytest.raises(AppImportError, match='has no attribute "Missing"'):
        load_collector(Config(collector="logs.test_events:Missing", app_dir="tests"))
    with pytest.raises(ConfigError, match=r"workers=2 .* needs the collector as a string"):
        Config(collector=BufferedCollector(), workers=2, app="main:app")
    server = launch("logs.application:app", "--collector", "logs.test_events:Nothing")
    assert server.wait() == 2
    assert "has no method record_batch" in server.text


def test_events_are_frozen_and_small() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        OPENED.tls = True  # type: ignore[misc]
    assert not hasattr(OPENED, "__dict__")
    assert hash(OPENED) == hash(dataclasses.replace(OPENED))


@given(st.integers(1, 20), st.lists(st.integers(0, 30), max_size=8))
def test_buffered_collector_keeps_the_latest(capacity: int, batches: list[int]) -> None:
    collector = BufferedCollector(capacity)
    sent: list[Event] = []
    for size in batches:
        batch = [dataclasses.replace(OPENED, at_ns=len(sent) + place) for place in range(size)]
        sent += batch
        collector.record_batch(batch)
    assert len(collector) == min(capacity, len(sent))
    assert collector.dropped == max(0, len(sent) - capacity)
    assert collector.take() == sent[-capacity:]
    assert collector.take() == []


def test_buffered_collector_has_room_for_something() -> None:
    with pytest.raises(ValueError, match="capacity is 0, expected at least 1"):
        BufferedCollector(0)
