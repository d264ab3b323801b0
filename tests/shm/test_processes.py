"""Processes on one topic: they share it, die in it, stop, fork and leave; the others go on."""

import concurrent.futures
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from framegate import shm
from shm import peer as peer_programs

FRAME_BYTES = 4096


@pytest.fixture
def topic() -> Any:
    """12 slots of 4 KiB."""
    with shm.Topic.create("t", slot_bytes=FRAME_BYTES, slots=12) as topic:
        yield topic


def everything_is_free(topic: shm.Topic) -> None:
    topic.reap()
    report = topic.inspect()
    assert (report.dead, report.slots_loaned, report.slots_leased) == (0, 0, 0)
    assert report.slots_free + report.slots_published == report.slots


def test_two_publishers_and_four_subscribers_in_processes(
    topic: shm.Topic, peer: Callable[..., Any]
) -> None:
    subscribers = [peer("subscribe", "t", policy, 600) for policy in ("queue", "latest") * 2]
    for subscriber in subscribers:
        assert subscriber.line() == "ready"
    publishers = [peer("publish", "t", 300) for _ in range(2)]
    for publisher in publishers:
        assert publisher.line() == "ready"
        assert publisher.line() == "published 300"
    for subscriber in subscribers:
        sequence, received, lost = map(int, subscriber.line().split())
        assert sequence == 600
        assert received + lost == 600
        assert subscriber.end() == 0
    everything_is_free(topic)


def test_64_subscribers_in_processes_see_whole_frames(
    topic: shm.Topic, peer: Callable[..., Any]
) -> None:
    processes = [peer("subscribe_many", "t", 16, 200) for _ in range(4)]
    for process in processes:
        assert process.line() == "ready"
    assert topic.inspect().subscribers == 64
    with topic.publisher() as publisher:
        for number in range(200):
            with publisher.loan(timeout=60) as loan, memoryview(loan) as room:
                peer_programs.fill(room, number)
                loan.publish()
    for process in processes:
        assert process.line() == str(16 * 200)
        assert process.end() == 0
    everything_is_free(topic)


def test_a_killed_publisher_gives_its_loans_back(
    topic: shm.Topic, peer: Callable[..., Any]
) -> None:
    holder = peer("loan", "t", 12)
    assert holder.line() == "ready 12"
    holder.kill()
    with topic.publisher() as publisher:
        for _ in range(24):
            publisher.send(b"x")  # the first one finds nothing and sweeps
    everything_is_free(topic)


def test_a_killed_subscriber_gives_its_leases_back(
    topic: shm.Topic, peer: Callable[..., Any]
) -> None:
    holders = [peer("hold", "t", 5) for _ in range(2)]
    for holder in holders:
        assert holder.line() == "ready"
    with topic.publisher() as publisher:
        for number in range(5):
            with publisher.loan() as loan, memoryview(loan) as room:
                peer_programs.fill(room, number)
                loan.publish()
        for holder in holders:
            assert holder.line() == "1 2 3 4 5"
        assert topic.inspect().slots_leased == 5
        holders[0].kill()
        topic.reap()
        assert topic.inspect().slots_leased == 5  # the other one lives
        for _ in range(50):
            publisher.send(b"x")
        holders[1].tell()
        assert holders[1].line() == "intact"
        assert holders[1].end() == 0
    everything_is_free(topic)


@pytest.mark.parametrize("victim", ["publisher", "queue", "latest"])
def test_kill_9_at_random_moments_tears_no_frame_and_leaks_no_slot(
    topic: shm.Topic, peer: Callable[..., Any], victim: str
) -> None:
    writing, reading = peer("publish", "t", 0), peer("subscribe", "t", "queue", 0)
    assert (writing.line(), reading.line()) == ("ready", "ready")
    clock = random.Random(20261120)
    with topic.subscriber("queue") as subscriber:
        for _ in range(12):
            if victim == "publisher":
                doomed = peer("publish", "t", 0)
            else:
                doomed = peer("subscribe", "t", victim, 0)
            assert doomed.line() == "ready"
            deadline = time.monotonic() + clock.uniform(0, 0.02)
            while time.monotonic() < deadline:
                frame = subscriber.take(timeout=60)
                assert frame is not None
                with frame, memoryview(frame) as view:
                    peer_programs.check(view)
            doomed.kill()
        for _ in range(200):
            frame = subscriber.take(timeout=60)
            assert frame is not None
            with frame, memoryview(frame) as view:
                peer_programs.check(view)
        assert writing.process.poll() is None
        assert reading.process.poll() is None
        writing.kill()
        reading.kill()
    everything_is_free(topic)


def test_a_stopped_holder_is_not_taken_for_dead(topic: shm.Topic, peer: Callable[..., Any]) -> None:
    holder = peer("hold", "t", 2)
    assert holder.line() == "ready"
    with topic.publisher() as publisher:
        for number in range(2):
            with publisher.loan() as loan, memoryview(loan) as room:
                peer_programs.fill(room, number)
                loan.publish()
        assert holder.line() == "1 2"
        os.kill(holder.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, holder.pid, os.WSTOPPED | os.WNOWAIT)
        try:
            assert topic.reap() == 0
            for number in range(100):
                publisher.send(number.to_bytes(4, "little"))
            report = topic.inspect()
            assert (report.dead, report.slots_leased) == (0, 2)
        finally:
            os.kill(holder.pid, signal.SIGCONT)
        holder.tell()
        assert holder.line() == "intact"


def test_inherited_handles_refuse_after_fork_and_the_parent_goes_on(
    topic: shm.Topic, peer: Callable[..., Any]
) -> None:
    forking = peer("fork", "t")
    names = "send loan take wait fileno arm view array fill publish"
    assert forking.line() == f"refused {names}"
    assert forking.line() == "child's own"
    assert forking.line() == "before 1"
    assert forking.line() == "parent sent 3"
    assert forking.end() == 0


def test_the_interpreter_ends_cleanly_with_views_alive(
    topic: shm.Topic, peer: Callable[..., Any]
) -> None:
    leaving = peer("exit_with_views", "t")
    assert leaving.line() == "bye"
    assert leaving.end() == 0
    everything_is_free(topic)


def test_spawned_processes_open_their_own_handles(topic: shm.Topic) -> None:
    with topic.publisher() as publisher, topic.subscriber():
        publisher.send(b"x")
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            report = pool.submit(shm.inspect, "t").result()
        assert (report.publishers, report.subscribers, report.sequence) == (1, 1, 1)
