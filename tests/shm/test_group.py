"""The policy `group:NAME`: a work queue, each frame to one member, again if that one dies."""

import asyncio
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from framegate import shm
from framegate.errors import (
    GroupsExhausted,
    LeaseQuotaExceeded,
    ShmArgumentError,
    ShmError,
    TopicFull,
)


@pytest.fixture
def topic() -> Any:
    with shm.Topic.create("t", slot_bytes=8, slots=8) as topic:
        yield topic


def send(publisher: shm.Publisher, count: int, timeout: float = 0.0) -> None:
    for _ in range(count):
        publisher.send(b"work", timeout=timeout)


def sequences(*frames: shm.Frame | None) -> list[int | None]:
    return [None if frame is None else frame.sequence for frame in frames]


def test_each_frame_goes_to_one_member(topic: shm.Topic) -> None:
    with topic.publisher() as publisher:
        with topic.subscriber("group:a") as first, topic.subscriber("group:a") as second:
            with topic.subscriber("group:b") as other:
                send(publisher, 3)
                frames = [first.try_take(), second.try_take(), first.try_take(), second.try_take()]
                assert sequences(*frames) == [1, 2, 3, None]
                assert sequences(*(other.try_take() for _ in range(4))) == [1, 2, 3, None]
                assert (first.received, second.received, first.lost) == (2, 1, 0)


def test_a_frame_given_back_comes_again_and_says_so(topic: shm.Topic) -> None:
    with topic.publisher() as publisher:
        with topic.subscriber("group:a") as first, topic.subscriber("group:a") as second:
            send(publisher, 2)
            frame = first.take()
            assert not frame.redelivered
            frame.nack()
            assert frame.released
            frame.nack()  # ended: harmless, as release() is
            again = second.take()  # before the new frame
            assert (again.sequence, again.redelivered, bytes(again)) == (1, True, b"work")
            again.release()
            assert sequences(second.try_take(), first.try_take()) == [2, None]


def test_views_keep_a_frame_from_being_given_back(topic: shm.Topic) -> None:
    with topic.publisher() as publisher, topic.subscriber("group:a") as member:
        send(publisher, 1)
        frame = member.take()
        view = memoryview(frame)
        with pytest.raises(BufferError):
            frame.nack()
        view.release()
        frame.nack()
        assert sequences(member.try_take()) == [1]


def test_only_members_give_back_and_members_only_take(topic: shm.Topic) -> None:
    with topic.publisher() as publisher:
        with topic.subscriber("queue") as queue, topic.subscriber("group:a") as member:
            send(publisher, 1)
            frame = queue.take()
            with pytest.raises(ShmArgumentError, match="group"):
                frame.nack()
            assert queue.leases == 1
            frame.release()
            assert queue.leases == 0
            with pytest.raises(ShmError, match="policy"):
                member.peek()


def test_the_work_of_a_member_that_dies_goes_on(topic: shm.Topic, peer: Callable[..., Any]) -> None:
    with topic.publisher() as publisher, topic.subscriber("group:a") as survivor:
        worker = peer("work", "t", "group:a", 2)
        assert worker.line() == "ready"
        send(publisher, 4)
        assert [worker.line() for _ in range(3)] == ["1", "2", "holds 3 False"]
        assert survivor.take().sequence == 4
        assert survivor.try_take() is None
        worker.kill()
        frame = survivor.take(timeout=30)  # woken by its own sweep, about a second later
        assert frame is not None
        assert (frame.sequence, frame.redelivered) == (3, True)


def test_an_event_loop_gets_the_work_of_a_dead_member(
    topic: shm.Topic, peer: Callable[..., Any]
) -> None:
    async def take(member: shm.Subscriber) -> int:
        return (await member.take_async()).sequence

    with topic.publisher() as publisher, topic.subscriber("group:a") as survivor:
        worker = peer("work", "t", "group:a", 0)
        assert worker.line() == "ready"
        send(publisher, 1)
        assert worker.line() == "holds 1 False"
        worker.kill()
        assert asyncio.run(take(survivor)) == 1


def test_giving_back_wakes_members_that_wait(topic: shm.Topic) -> None:
    with topic.publisher() as publisher, topic.subscriber("group:a") as giver:
        send(publisher, 1)
        frame = giver.take()
        with topic.subscriber("group:a") as thread, topic.subscriber("group:a") as loop:
            fileno = loop.fileno()
            assert not loop.arm()
            poll = select.poll()
            poll.register(fileno, select.POLLIN)
            got: list[int | None] = []
            waiting = threading.Thread(
                target=lambda: got.extend(sequences(thread.take(timeout=60)))
            )
            waiting.start()
            frame.nack()
            assert poll.poll(60_000)
            waiting.join()
            assert got == [1]
            loop.drain()
            assert loop.try_take() is None


def test_publishers_wait_for_a_group_and_the_refusal_names_it(topic: shm.Topic) -> None:
    with topic.publisher() as publisher:
        member = topic.subscriber("group:slow-workers", max_leases=2)
        send(publisher, 8)
        with pytest.raises(TopicFull, match=r'8 wait for the group "slow-workers" .*frame 0 of 8'):
            send(publisher, 1)
        member.take().nack()
        with pytest.raises(TopicFull, match=r"7 wait for .* 1 to be delivered again"):
            send(publisher, 1)
        member.take().release()
        send(publisher, 1)
        waiting = threading.Thread(target=lambda: send(publisher, 1, timeout=60))
        waiting.start()
        member.take().release()
        waiting.join()
        member.close()  # the last member: the group is over
        send(publisher, 20)


def test_a_group_ends_with_its_last_member(topic: shm.Topic, peer: Callable[..., Any]) -> None:
    with topic.publisher() as publisher:
        worker = peer("work", "t", "group:a", 0)
        assert worker.line() == "ready"
        send(publisher, 8)
        assert worker.line() == "holds 1 False"
        worker.kill()
        with topic.subscriber("group:a") as fresh:
            assert fresh.try_take() is None
            send(publisher, 1)
            assert sequences(fresh.try_take()) == [9]


def test_a_closed_member_with_live_frames_still_finishes_them(topic: shm.Topic) -> None:
    with topic.publisher() as publisher, topic.subscriber("group:a") as other:
        member = topic.subscriber("group:a")
        send(publisher, 2)
        done, undone = member.take(), member.take()
        member.close()
        done.release()
        undone.nack()
        assert sequences(other.try_take(), other.try_take()) == [2, None]
        assert topic.inspect().subscribers == 1


def test_eight_groups_and_no_more(topic: shm.Topic) -> None:
    members = [topic.subscriber(f"group:{number}") for number in range(8)]
    with pytest.raises(GroupsExhausted, match="8 groups"):
        topic.subscriber("group:8")
    assert topic.inspect().subscribers == 8
    topic.subscriber("group:7").close()
    members[3].close()
    with topic.subscriber("group:8"):
        policies = {row.policy for row in topic.inspect().participants}
        assert policies == {f"group:{number}" for number in (0, 1, 2, 4, 5, 6, 7, 8)}
    for member in members:
        member.close()


def test_a_quota_of_a_member(topic: shm.Topic) -> None:
    with topic.publisher() as publisher, topic.subscriber("group:a", max_leases=1) as member:
        assert member.try_take() is None
        send(publisher, 2)
        frame = member.take()
        with pytest.raises(LeaseQuotaExceeded):
            member.take(timeout=60)
        frame.release()
        assert sequences(member.try_take(), member.try_take()) == [2, None]


@pytest.mark.parametrize(("start", "first"), [("next", 3), ("newest", 2)])
def test_the_founder_says_where_a_group_starts(topic: shm.Topic, start: Any, first: int) -> None:
    with topic.publisher() as publisher:
        send(publisher, 2)
        with topic.subscriber("group:a", start=start) as founder:
            other: Any = "newest" if start == "next" else "next"
            with topic.subscriber("group:a", start=other) as joiner:
                send(publisher, 1)
                frames = [joiner.try_take(), founder.try_take()]
                wanted = [first, first + 1 if first < 3 else None]
                assert sequences(*frames) == wanted


def test_iteration_shares_work_between_threads_and_loops(topic: shm.Topic) -> None:
    count = 400
    done: list[int] = []
    everything = threading.Event()

    def finish(frame: shm.Frame) -> None:
        with frame:
            done.append(frame.sequence)
        if len(done) >= count:
            everything.set()

    def in_thread(member: shm.Subscriber) -> None:
        for frame in member:
            finish(frame)

    async def in_loop(member: shm.Subscriber) -> None:
        async for frame in member:
            finish(frame)

    with topic.publisher() as publisher:
        members = [topic.subscriber("group:a") for _ in range(4)]
        threads = [threading.Thread(target=in_thread, args=(member,)) for member in members[:2]]
        threads += [
            threading.Thread(target=lambda m=member: asyncio.run(in_loop(m)))  # type: ignore[misc]
            for member in members[2:]
        ]
        for thread in threads:
            thread.start()
        send(publisher, count, timeout=60)
        assert everything.wait(60)
        for member in members:
            member.close()
        for thread in threads:
            thread.join()
    assert sorted(done) == list(range(1, count + 1))


def test_members_in_many_processes(topic: shm.Topic, peer: Callable[..., Any]) -> None:
    workers = [peer("work", "t", "group:a", 40) for _ in range(3)]
    assert [worker.line() for worker in workers] == ["ready"] * 3
    with topic.publisher() as publisher:
        send(publisher, 123, timeout=60)
    came = [worker.line() for worker in workers for _ in range(41)]
    numbers = [int(line.split()[1] if line.startswith("holds") else line) for line in came]
    assert sorted(numbers) == list(range(1, 124))
    for worker in workers:
        worker.tell()
        assert worker.line() == "done"
    assert os.getpid() not in {row.pid for row in topic.inspect().participants}


def test_a_resize_changes_nothing_for_a_group(topic: shm.Topic) -> None:
    with topic.publisher() as publisher, topic.subscriber("group:a") as first:
        with topic.subscriber("group:a") as second:
            send(publisher, 3)
            held, given_back = first.take(), second.take()
            for slots in (9, 4):
                topic.resize(slots=slots)
                send(publisher, 1)
            with shm.Topic.open("t") as elsewhere, elsewhere.subscriber("group:a") as late:
                assert sequences(late.try_take(), first.try_take()) == [3, 4]
                given_back.nack()
                again = late.try_take()
                assert again is not None
                assert (again.sequence, again.redelivered) == (2, True)
                assert (bytes(held), bytes(again)) == (b"work", b"work")
                again.release()
                held.release()
                assert sequences(second.try_take(), late.try_take()) == [5, None]


def test_frames_of_a_member_that_dies_behind_a_resize_come_again(topic: shm.Topic) -> None:
    with topic.publisher() as publisher, topic.subscriber("group:a") as survivor:
        send(publisher, 1)
        child = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import sys\n"
                "from framegate import shm\n"
                "frame = shm.Topic.open('t').subscriber('group:a').take(timeout=10)\n"
                "print(frame.sequence, flush=True)\n"
                "sys.stdin.read()\n",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"1\n"
        topic.resize(slots=6)
        send(publisher, 1)
        assert survivor.take().sequence == 2
        child.kill()
        child.communicate()
        again = survivor.take(timeout=30)  # within about a second
        assert (again.sequence, again.redelivered) == (1, True)
