"""Looking at topics without taking part."""

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from framegate import shm
from framegate.errors import TopicExists, TopicNotFound


def test_a_report_shows_geometry_counters_and_participants() -> None:
    before = time.time_ns()
    with (
        shm.Topic.create(
            "rig/cam", dtype="u1", shape=(4, None), slot_bytes=64, slots=6, keep=2
        ) as topic,
        topic.publisher(name="camera") as publisher,
        topic.subscriber("queue", name="viewer") as subscriber,
    ):
        import numpy as np

        for _ in range(9):
            publisher.send(np.zeros((4, 3), "u1"))
        frame = subscriber.take()
        loan = publisher.loan(("u1", (4, 1)))
        report = shm.inspect("rig/cam")
        assert report == topic.inspect()
        assert report.name == "rig/cam"
        assert report.schema == {"": shm.ArraySpec("uint8", (4, None))}
        assert (report.slots, report.slot_bytes, report.keep) == (6, 64, 2)
        assert report.sequence == 9
        assert (report.publishers, report.subscribers, report.dead) == (1, 1, 0)
        assert (report.slots_loaned, report.slots_leased) == (1, 1)
        assert before <= report.created_unix_ns <= time.time_ns()
        camera, viewer = report.participants
        assert (camera.role, camera.name, camera.received) == ("publisher", "camera", 9)
        assert (viewer.role, viewer.name, viewer.policy) == ("subscriber", "viewer", "queue")
        assert (viewer.received, viewer.lost, viewer.leases) == (1, subscriber.lost, 1)
        assert {camera.pid, viewer.pid} == {os.getpid()}
        assert camera.alive
        assert viewer.alive
        loan.abandon()
        frame.release()


def test_looking_disturbs_nobody(runtime_directory: Path) -> None:
    with shm.Publisher("t", slot_bytes=8) as publisher, shm.Subscriber("t", "queue") as subscriber:
        publisher.send(b"x")
        files = {
            name: (runtime_directory / name).read_bytes() for name in os.listdir(runtime_directory)
        }
        with shm.Inspector("t") as inspector:
            for _ in range(3):
                inspector.report()
        assert files == {
            name: (runtime_directory / name).read_bytes() for name in os.listdir(runtime_directory)
        }
        assert bytes(subscriber.take()) == b"x"


def test_an_inspector_follows_the_topic() -> None:
    with shm.Publisher("t", slot_bytes=8) as publisher, shm.Inspector("t") as inspector:
        assert inspector.report().sequence == 0
        publisher.send(b"x")
        assert inspector.report().sequence == 1


def test_a_missing_topic_is_not_found() -> None:
    for use in (shm.inspect, shm.Inspector, shm.Topic.open, shm.Subscriber, shm.unlink):
        with pytest.raises(TopicNotFound, match="nowhere"):
            use("nowhere")


def test_topics_are_listed_by_name() -> None:
    assert shm.topics() == []
    for name in ("b", "a/b.c/d", "a"):
        shm.Topic.create(name, slot_bytes=8, slots=2).close()
    assert shm.topics() == ["a", "a/b.c/d", "b"]
    shm.unlink("b")
    assert shm.topics() == ["a", "a/b.c/d"]


def test_no_runtime_directory_is_no_topics(
    monkeypatch: pytest.MonkeyPatch, runtime_directory: Path
) -> None:
    monkeypatch.setenv("FRAMEGATE_RUNTIME_DIR", str(runtime_directory / "none"))
    assert shm.topics() == []
    assert not (runtime_directory / "none").exists()


def test_unlinked_topics_go_on_among_those_who_have_them_open() -> None:
    with shm.Publisher("t", slot_bytes=8) as publisher, shm.Subscriber("t", "queue") as subscriber:
        shm.unlink("t")
        publisher.send(b"old")
        with shm.Publisher("t", slot_bytes=8) as again:
            again.send(b"new")
            assert bytes(subscriber.take()) == b"old"
            assert subscriber.try_take() is None


def test_create_refuses_an_existing_topic_and_open_or_create_takes_it() -> None:
    with shm.Topic.create("t", slot_bytes=8) as first:
        assert first.created
        with pytest.raises(TopicExists, match='"t"'):
            shm.Topic.create("t", slot_bytes=8)
        with shm.Topic.open_or_create("t", slot_bytes=8) as second:
            assert not second.created
        with shm.Topic.open("t") as third:
            assert not third.created


def test_files_have_the_mode_asked_for(runtime_directory: Path) -> None:
    shm.Topic.create("private", slot_bytes=8).close()
    shm.Topic.create("shared", slot_bytes=8, mode=0o660).close()
    for file in runtime_directory.iterdir():
        expected = 0o600 if "private" in file.name else 0o660
        if file.is_file():
            assert stat.S_IMODE(file.stat().st_mode) == expected, file.name


def test_a_dead_participant_is_shown_until_it_is_swept(peer: Callable[..., Any]) -> None:
    with shm.Topic.create("t", slot_bytes=8) as topic, topic.publisher() as publisher:
        holder = peer("loan", "t", 2)
        assert holder.line() == "ready 2"
        assert shm.inspect("t").slots_loaned == 2
        holder.kill()
        report = shm.inspect("t")
        assert report.dead == 1
        assert [row.alive for row in report.participants if row.pid == holder.pid] == [False]
        assert topic.reap() == 1
        report = shm.inspect("t")
        assert (report.dead, report.slots_loaned, len(report.participants)) == (0, 0, 1)
        assert publisher.published == 0


def test_participants_are_known_by_name_and_pid() -> None:
    with (
        shm.Topic.create("t", slots=4, slot_bytes=64) as topic,
        topic.publisher(name="camera"),
        topic.subscriber(name="viewer"),
        topic.subscriber("group:work"),
    ):
        rows = {row.name: row for row in topic.participants()}
        assert {row.pid for row in rows.values()} == {os.getpid()}
        assert {row.role for row in rows.values()} == {"publisher", "subscriber"}
        assert (rows["camera"].role, rows["viewer"].policy) == ("publisher", "latest")
        assert len(rows) == 3  # who gives no name is called as its program
