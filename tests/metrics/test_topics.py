"""Metrics of frames: what frame routes did, and the topics of the runtime directory."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

import framegate
from framegate import RunningServer, Server, errors
from framegate.shm import inspect
from metrics.scraping import Metrics, admin_port, ask, scrape
from server_process import Launch

pytestmark = pytest.mark.usefixtures("runtime")

PER_TOPIC = {
    "framegate_topic_frames_published_total",
    "framegate_topic_frames_lost",
    "framegate_topic_publishers",
    "framegate_topic_subscribers",
    "framegate_topic_leases",
    "framegate_topic_slots",
    "framegate_topic_slots_leased",
    "framegate_topic_memory_bytes",
}


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body"})


@contextmanager
def serving(served: Any = app, **options: Any) -> Iterator[RunningServer]:
    options = {"lifespan": "off", "access_log": False, "port": 0, "admin_bind": "0", **options}
    with Server(served, **options).start_in_thread() as server:
        yield server


def metrics_of(server: RunningServer, **options: Any) -> Metrics:
    (url,) = server.admin_urls
    return scrape(int(url.rpartition(":")[2]), **options)


RULES = {"raw/*": {"create": True, "slots": 4, "slot_bytes": 100}}


def test_refusals_of_frame_routes_are_counted_by_their_code() -> None:
    with (
        serving(topics="/topics", topic_rules=RULES) as server,
        httpx.Client(base_url=server.urls[0]) as client,
    ):
        assert not metrics_of(server).labels("framegate_topics_refused_total")
        for _ in range(3):
            assert client.get("/topics/none").json()["code"] == "topic-unknown"
        for _ in range(2):
            assert client.post("/topics/raw/a", content=bytes(101)).status_code == 413
        assert client.delete("/topics/raw/a").status_code == 405
        metrics = metrics_of(server)
    name = "framegate_topics_refused_total"
    counts = {labels["code"]: metrics.get(name, **labels) for labels in metrics.labels(name)}
    assert counts == {"topic-unknown": 3, "frame-too-large": 2, "method-not-allowed": 1}


def test_frames_through_frame_routes_are_counted() -> None:
    with (
        serving(topics="/topics", topic_rules=RULES) as server,
        httpx.Client(base_url=server.urls[0]) as client,
    ):
        for size in (10, 20):
            client.post("/topics/raw/a", content=bytes(size)).raise_for_status()
        for _ in range(3):
            assert client.get("/topics/raw/a?view=latest").content == bytes(20)
        metrics = metrics_of(server, openmetrics=True)
    frames, size_of = "framegate_topics_frames_total", "framegate_topics_bytes_total"
    assert (metrics.get(frames, direction="in"), metrics.get(size_of, direction="in")) == (2, 30)
    assert (metrics.get(frames, direction="out"), metrics.get(size_of, direction="out")) == (3, 60)
    assert metrics.types["framegate_topics_frames"] == "counter"


def test_copies_for_slow_viewers_are_counted() -> None:
    """Ten begin another frame each and stop; four at most of eight slots may be held."""
    payload = bytes(3 << 20)
    with (
        serving(topics="/topics") as server,
        framegate.Publisher("large", slot_bytes=len(payload), slots=8) as publisher,
        contextlib.ExitStack() as stack,
    ):
        host, _, port = server.urls[0].removeprefix("http://").rpartition(":")
        for _ in range(10):
            publisher.send(payload, timeout=20)
            peer = stack.enter_context(socket.create_connection((host, int(port))))
            peer.sendall(b"GET /topics/large?view=latest HTTP/1.1\r\nhost: localhost\r\n\r\n")
            assert peer.recv(1000).startswith(b"HTTP/1.1 200")
        assert 10 - 4 <= metrics_of(server).get("framegate_topics_copies_total") <= 10


async def frames_of_handlers(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """`/in` makes frames of 10 bytes of messages, all else shows the topic."""
    if scope["type"] == "websocket":
        with contextlib.suppress(errors.FramegateError):
            await framegate.websocket_to_topic(
                scope, "raw/a", dtype="uint8", shape=(10,), receive=receive, send=send
            )
    else:
        topic = scope["path"].strip("/")
        await framegate.FrameStream(topic, "latest", format="raw")(scope, receive, send)


@pytest.mark.parametrize("options", [{}, {"topics": "/topics"}], ids=["handlers alone", "beside"])
def test_frames_of_handlers_are_counted_with_and_without_frame_routes(options: Any) -> None:
    with (
        serving(frames_of_handlers, **options) as server,
        httpx.Client(base_url=server.urls[0]) as client,
    ):
        address = server.urls[0].replace("http", "ws") + "/in"
        for messages in ([bytes(10), bytes(10), bytes(11)], [bytes(10), bytes(9)]):
            with connect(address, compression=None) as socket:
                for message in messages:
                    socket.send(message)
                with pytest.raises(ConnectionClosed):
                    socket.recv(timeout=30)
        for _ in range(2):
            assert client.get("/raw/a").content == bytes(10)
        assert client.get("/none").status_code == 404
        metrics = metrics_of(server)
    frames, size_of = "framegate_topics_frames_total", "framegate_topics_bytes_total"
    assert (metrics.get(frames, direction="in"), metrics.get(size_of, direction="in")) == (3, 30)
    assert (metrics.get(frames, direction="out"), metrics.get(size_of, direction="out")) == (2, 20)
    name = "framegate_topics_refused_total"
    counts = {labels["code"]: metrics.get(name, **labels) for labels in metrics.labels(name)}
    assert counts == {"frame-too-large": 1, "frame-length": 1, "topic-unknown": 1}


@pytest.mark.parametrize("openmetrics", [False, True])
def test_topics_are_told_of_by_what_their_participants_do(openmetrics: bool) -> None:
    """Nobody of this server uses them: they are whatever there is in the directory."""
    with (
        serving() as server,
        framegate.Publisher("camera/front", slot_bytes=1000, slots=4) as publisher,
        framegate.Publisher("camera/rear", slot_bytes=1000, slots=8),
        framegate.Subscriber("camera/front") as slow,
        framegate.Subscriber("camera/front"),
    ):
        for _ in range(3):
            publisher.send(b"x")
        first = slow.take(timeout=5)
        second = None
        for _ in range(6):
            publisher.send(b"x")
        second = slow.take(timeout=5)
        assert second.sequence == 9
        metrics = metrics_of(server, openmetrics=openmetrics)

        def front(name: str) -> float:
            return metrics.get(f"framegate_topic_{name}", topic="camera/front")

        assert metrics["framegate_topics"] == 2
        assert front("frames_published_total") == 9
        assert front("frames_lost") == first.lost + second.lost > 0
        assert (front("publishers"), front("subscribers")) == (1, 2)
        assert (front("leases"), front("slots_leased"), front("slots")) == (2, 2, 4)
        assert 4 * 1000 < front("memory_bytes") < 1 << 20
        assert 0 < front("frame_age_seconds") < 600
        for name in PER_TOPIC:
            topics = {labels["topic"] for labels in metrics.labels(name)}
            assert topics == {"camera/front", "camera/rear"}, name
        # Of a topic without a frame there is no age.
        assert metrics.labels("framegate_topic_frame_age_seconds") == [{"topic": "camera/front"}]
        first.release()
        second.release()
        after = metrics_of(server)
        assert after.get("framegate_topic_leases", topic="camera/front") == 0


def test_scrapes_leave_topics_as_they_are(runtime: Path) -> None:
    with serving() as server, framegate.Publisher("a", slot_bytes=10, slots=2) as publisher:
        publisher.send(b"x")
        before = {file: file.read_bytes() for file in runtime.iterdir() if file.stem == "a"}
        assert before
        for _ in range(5):
            assert metrics_of(server).get("framegate_topic_publishers", topic="a") == 1
        assert {file: file.read_bytes() for file in before} == before
        assert len(inspect("a").participants) == 1
        # Nor does a scrape keep one alive.
        framegate.Topic.open("a").unlink()
        assert not metrics_of(server).labels("framegate_topic_publishers")


def test_only_so_many_topics_have_metrics() -> None:
    def named(metrics: Metrics) -> set[str]:
        return {labels["topic"] for labels in metrics.labels("framegate_topic_slots")}

    with (
        framegate.Publisher("a", slot_bytes=10),
        framegate.Publisher("b", slot_bytes=10),
        framegate.Publisher("c", slot_bytes=10),
    ):
        with serving(metrics_topics=2) as server:
            metrics = metrics_of(server)
            assert (named(metrics), metrics["framegate_topics"]) == ({"a", "b"}, 3)
        with serving(metrics_topics=3) as server:
            assert named(metrics_of(server)) == {"a", "b", "c"}
        with serving(metrics_topics=0) as server:
            metrics = metrics_of(server)
            assert not named(metrics)
            assert not metrics.labels("framegate_topics")


def test_files_that_are_no_topics_cost_only_themselves(runtime: Path) -> None:
    with framegate.Publisher("b", slot_bytes=10) as publisher, serving() as server:
        (file,) = runtime.glob("b*.ctl")
        (runtime / file.name.replace("b", "a", 1)).write_bytes(b"no topic")
        publisher.send(b"x")
        metrics = metrics_of(server)
        assert metrics.labels("framegate_topic_frames_published_total") == [{"topic": "b"}]


def test_refusals_of_killed_workers_stay_and_scrapes_do_not_wait(launch: Launch) -> None:
    words = ("--workers", "2", "--port", "0", "--admin-bind", "0", "--topics", "/topics")
    server = launch("supervised_apps:app", *words, "--no-access-log").wait_ready()
    port = admin_port(server)

    def refused() -> float:
        return scrape(port).get("framegate_topics_refused_total", code="topic-unknown")

    for _ in range(10):
        status, _, _ = ask(server.port, "/topics/none")
        assert status == 404
    assert refused() == 10
    for _ in range(2):
        seen = len(server.lines)
        os.kill(int(server.get("/pid")), signal.SIGKILL)
        server.wait_for(r"ready again", after=seen)
        assert refused() == 10
    # The thread beside a loop that stands still answers as well.
    server.hold_file.touch()
    with server.request("/block"):
        server.wait_event("block")
        for _ in range(10):
            assert refused() == 10
        server.hold_file.unlink()
