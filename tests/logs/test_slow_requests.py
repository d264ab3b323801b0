"""`--slow-request` and `--server-timing`."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

import framegate
from framegate import Server
from framegate.slow_requests import LOGGER, report
from logs.application import GO, app
from metrics.scraping import eventually, scrape


class Seen(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        self.records: list[logging.LogRecord] = []
        self.changed = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self.changed:
            self.messages.append(record.getMessage())
            self.records.append(record)
            self.changed.notify_all()

    def wait_for_text(self, text: str) -> None:
        with self.changed:
            found = lambda: any(text in message for message in self.messages)  # noqa: E731
            assert self.changed.wait_for(found, timeout=60), self.messages

    def wait_for(self, count: int) -> list[str]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.messages) >= count, timeout=60)
            return self.messages


@pytest.fixture
def seen() -> Iterator[Seen]:
    handler = Seen()
    LOGGER.addHandler(handler)
    propagate, LOGGER.propagate = LOGGER.propagate, False
    yield handler
    LOGGER.propagate = propagate
    LOGGER.removeHandler(handler)


@pytest.mark.parametrize("http2", [False, True])
def test_slow_request_is_told_when_it_is_over(seen: Seen, http2: bool) -> None:
    with Server(app, port=0, access_log=False, slow_request=0.15).start_in_thread() as server:
        with httpx.Client(http1=not http2, http2=http2) as client:
            client.get(server.urls[0] + "/slow?q=1%0a")
    (message,) = [text for text in seen.messages if "took" in text]
    assert re.fullmatch(
        r"slow request: GET /slow\?q=1%0a took \d+\.\d{3} s, first byte after \d+\.\d{3} s, "
        r"status 200, client 127\.0\.0\.1:\d+, worker 1",
        message,
    )
    assert seen.records[0].__dict__["request"]["target"] == "/slow?q=1%0a"


def test_slow_request_to_topics_bind_is_told(seen: Seen, runtime: Path) -> None:
    options: dict[str, Any] = {"topics": "/topics", "topics_bind": "127.0.0.1:0"}
    with (
        framegate.Publisher("cam", slots=4, slot_bytes=10) as camera,
        Server(app, port=0, access_log=False, slow_request=0.1, **options).start_in_thread() as it,
    ):
        camera.send(b"first")
        (url,) = it.topics_urls
        assert httpx.get(f"{url}/topics/cam?view=latest").content == b"first"
        with ThreadPoolExecutor(1) as pool:
            late = pool.submit(httpx.get, f"{url}/topics/cam?view=latest&after=1", timeout=60)
            running = seen.wait_for(1)[0]
            camera.send(b"second")
            assert late.result().content == b"second"
        seen.wait_for(2)
    assert re.search(
        r"GET /topics/cam\S+after=1 has been running for \d+\.\d{3} s, no resp", running
    )
    (over,) = seen.messages[1:]
    assert re.search(r"GET /topics/cam\S+after=1 took \S+ s, .*status 200, .*, worker 1$", over)


def test_others_are_not_told_of(seen: Seen) -> None:
    for options in ({"slow_request": 60}, {}):
        with Server(app, port=0, access_log=False, **options).start_in_thread() as server:
            httpx.get(server.urls[0] + "/slow")
    assert seen.messages == []


def test_it_is_told_once_while_it_runs(seen: Seen) -> None:
    GO.clear()
    with Server(app, port=0, access_log=False, slow_request=0.1).start_in_thread() as server:
        asking = threading.Thread(
            target=httpx.get, args=(server.urls[0] + "/hold",), kwargs={"timeout": 60}
        )
        asking.start()
        seen.wait_for(1)
        GO.set()
        asking.join(60)
    running, over = seen.messages
    assert re.search(r"GET /hold has been running for \d+\.\d{3} s, no response yet, cl", running)
    assert re.search(r"GET /hold took \d+\.\d{3} s, first byte after \S+ s, status 200", over)


def test_stream_of_events_is_judged_by_its_beginning(seen: Seen) -> None:
    with Server(app, port=0, access_log=False, slow_request=2).start_in_thread() as server:
        assert httpx.get(server.urls[0] + "/stream", timeout=60).status_code == 200
    assert seen.messages == []


def test_clients_that_leave_are_told_of(seen: Seen) -> None:
    with Server(app, port=0, access_log=False, slow_request=0.05).start_in_thread() as server:
        GO.clear()
        with pytest.raises(httpx.ReadTimeout):
            httpx.get(server.urls[0] + "/hold", timeout=httpx.Timeout(60, read=0.3))
        seen.wait_for_text(", no response, cut")
    assert any(", no response, cut before its end, client" in text for text in seen.messages)


def test_many_are_counted(seen: Seen) -> None:
    line = (
        '{"method":"GET","target":"/","status":null,"milliseconds":1.0,"aborted":false,'
        '"first_byte_milliseconds":null,"client":"a","worker":2,"id":"x1"}'
    )
    report([(True, line)], 7)
    assert seen.messages == [
        "slow request: GET / has been running for 0.001 s, no response yet, id x1, client a, "
        "worker 2",
        "7 more requests were slow",
    ]


@pytest.mark.parametrize("http2", [False, True])
def test_server_timing(http2: bool) -> None:
    with Server(app, port=0, access_log=False, server_timing=True).start_in_thread() as server:
        with httpx.Client(http1=not http2, http2=http2) as client:
            slow = client.get(server.urls[0] + "/slow").headers["server-timing"]
            fast = client.get(server.urls[0] + "/").headers["server-timing"]
    match = re.fullmatch(r"app;dur=(\d+\.\d{3})", slow)
    assert match
    assert 190 < float(match[1]) < 60_000
    assert re.fullmatch(r"app;dur=\d+\.\d{3}", fast)
    with Server(app, port=0, access_log=False).start_in_thread() as server:
        assert "server-timing" not in httpx.get(server.urls[0]).headers


@pytest.mark.parametrize("http2", [False, True])
def test_server_timing_tells_of_the_queue(http2: bool) -> None:
    options: dict[str, Any] = {"limit_requests": 1, "limit_queue_timeout": 60.0}
    options |= {"server_timing": True, "admin_bind": "0"}
    GO.clear()
    with (
        Server(app, port=0, access_log=False, **options).start_in_thread() as server,
        httpx.Client(http1=not http2, http2=http2, timeout=60) as client,
        ThreadPoolExecutor(3) as pool,
    ):
        port = int(server.admin_urls[0].rpartition(":")[2])

        def becomes(name: str, count: int) -> None:
            eventually(lambda: scrape(port)[name] == count, f"{name} is {count}")

        # One is served, the others wait for it, and then the last one for the second.
        asked = [pool.submit(client.get, server.urls[0] + "/hold")]
        becomes("framegate_application_calls", 1)
        asked += [pool.submit(client.get, server.urls[0] + "/slow") for _ in range(2)]
        becomes("http_requests_in_flight", 3)
        GO.set()
        told = [one.result().headers["server-timing"] for one in asked]
    queued = []
    for text, at_least in zip(told, (0, 190, 190), strict=True):
        match = re.fullmatch(r"(?:queue;dur=(\d+\.\d{3}), )?app;dur=(\d+\.\d{3})", text)
        assert match, text
        assert at_least < float(match[2]) < 60_000
        queued.append(float(match[1] or 0))
    first, (second, third) = queued[0], sorted(queued[1:])
    assert first == 0
    assert second > 0
    assert third > second
    assert third > 190
