"""The policy `reliable`: every frame arrives, and publishers wait for the slowest living one."""

import asyncio
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from framegate import shm
from framegate.errors import TopicFull

SLOTS = 4


def send(publisher: shm.Publisher, *numbers: int, timeout: float = 0.0) -> None:
    for number in numbers:
        publisher.send(number.to_bytes(4, "little"), timeout=timeout)


def take(subscriber: shm.Subscriber) -> int | None:
    frame = subscriber.try_take()
    if frame is None:
        return None
    with frame:
        return int.from_bytes(bytes(frame), "little")


@pytest.fixture
def topic() -> Any:
    with shm.Topic.create("t", slot_bytes=8, slots=SLOTS) as topic:
        yield topic


def test_a_publisher_is_refused_until_the_frame_was_read(topic: shm.Topic) -> None:
    with topic.publisher() as publisher, topic.subscriber("reliable") as subscriber:
        send(publisher, 1, 2, 3, 4)
        with pytest.raises(TopicFull):
            send(publisher, 5)
        with subscriber.take() as frame:
            assert frame.sequence == 1
            with pytest.raises(TopicFull):  # read, but still held
                send(publisher, 5)
        send(publisher, 5)
        with pytest.raises(TopicFull):
            send(publisher, 6)
        assert [take(subscriber) for _ in range(5)] == [2, 3, 4, 5, None]
        assert (subscriber.received, subscriber.lost, subscriber.position) == (5, 0, 5)


def test_the_refusal_names_who_holds_it_back(topic: shm.Topic) -> None:
    with topic.publisher() as publisher:
        fast = topic.subscriber("reliable", name="fast")
        slow = topic.subscriber("reliable", name="slow")
        send(publisher, 1, 2, 3, 4)
        assert [take(fast) for _ in range(4)] == [1, 2, 3, 4]
        assert take(slow) == 1
        send(publisher, 5)
        message = rf'"t".*reliable subscriber "slow" \(pid {os.getpid()}\).* frame 1 of 5'
        with pytest.raises(TopicFull, match=message):
            send(publisher, 6)
        slow.close()
        send(publisher, 6)
        held = [fast.take(), fast.take()]
        loans = [publisher.loan(), publisher.loan()]
        message = rf'2 leased, 2 of them by "fast" \(pid {os.getpid()}\), 2 being filled'
        with pytest.raises(TopicFull, match=message):
            send(publisher, 7)
        for loan in loans:
            loan.abandon()
        for frame in held:
            frame.release()
        fast.close()


def test_a_name_that_is_no_text_does_not_spoil_the_refusal(topic: shm.Topic) -> None:
    name = 'a\n"\x7f' + "ü" * 20  # cut in the middle of a letter at 32 bytes
    with topic.publisher() as publisher, topic.subscriber("reliable", name=name):
        send(publisher, 1, 2, 3, 4)
        with pytest.raises(TopicFull, match=r'a\?"\?ü'):
            send(publisher, 5)


@pytest.mark.parametrize("start", ["next", "newest"])
def test_where_it_starts(topic: shm.Topic, start: Any) -> None:
    with topic.publisher() as publisher:
        with topic.subscriber("reliable", start=start) as empty:
            send(publisher, 1, 2)
            assert [take(empty), take(empty), take(empty)] == [1, 2, None]
        with topic.subscriber("reliable", start=start) as subscriber:
            send(publisher, 3, 4)
            with pytest.raises(TopicFull):
                send(publisher, 5, 6, 7)
            came = [take(subscriber) for _ in range(5)]
            assert came == ([3, 4, 5, 6, None] if start == "next" else [2, 3, 4, 5, None])
            assert subscriber.lost == 0


def test_a_loan_waits_for_the_reader_and_no_longer_than_told(topic: shm.Topic) -> None:
    with topic.publisher() as publisher, topic.subscriber("reliable") as subscriber:
        send(publisher, 1, 2, 3, 4)
        began = time.monotonic()
        with pytest.raises(TopicFull, match="reliable subscriber"):
            publisher.loan(4, timeout=0.05)
        assert 0.05 <= time.monotonic() - began < 30
        got: list[int] = []
        waiting = threading.Thread(target=lambda: send(publisher, 5, timeout=60))
        waiting.start()
        while len(got) < 5:
            number = take(subscriber)
            if number is not None:
                got.append(number)
        waiting.join()
        assert got == [1, 2, 3, 4, 5]


def test_a_waiting_loan_goes_on_when_the_reader_closes(topic: shm.Topic) -> None:
    with topic.publisher() as publisher:
        subscriber = topic.subscriber("reliable")
        send(publisher, 1, 2, 3, 4)
        waiting = threading.Thread(target=lambda: send(publisher, 5, timeout=60))
        waiting.start()
        subscriber.close()
        waiting.join()
        assert publisher.sequence == 5


def test_a_dead_reader_holds_nobody_back_a_stopped_one_does(
    topic: shm.Topic, peer: Callable[..., Any]
) -> None:
    reader = peer("attach", "t", "reliable")
    assert reader.line() == "ready"
    with topic.publisher() as publisher:
        send(publisher, 1, 2, 3, 4)
        os.kill(reader.pid, signal.SIGSTOP)
        with pytest.raises(TopicFull, match=rf'"idler" \(pid {reader.pid}\)'):
            send(publisher, 5, timeout=0.1)
        killed = threading.Timer(0.05, lambda: os.kill(reader.pid, signal.SIGKILL))
        killed.start()
        send(publisher, 5, 6, 7, timeout=60)
        killed.join()


def test_every_frame_arrives_across_processes(topic: shm.Topic, peer: Callable[..., Any]) -> None:
    with shm.Topic.create("wide", slot_bytes=256, slots=SLOTS) as wide:
        readers = [peer("subscribe", "wide", "reliable", 600) for _ in range(2)]
        assert [reader.line() for reader in readers] == ["ready", "ready"]
        writers = [peer("publish", "wide", 300) for _ in range(2)]
        assert [writer.line() for writer in writers] == ["ready", "ready"]
        assert [reader.line() for reader in readers] == ["600 600 0", "600 600 0"]
        assert [writer.line() for writer in writers] == ["published 300", "published 300"]
        assert wide.inspect().sequence == 600


def test_an_event_loop_reads_all_while_a_thread_publishes(topic: shm.Topic) -> None:
    async def read(subscriber: shm.Subscriber) -> list[int]:
        came = []
        async for frame in subscriber:
            with frame:
                came.append(int.from_bytes(bytes(frame), "little"))
            if len(came) == 200:
                break
        return came

    with topic.publisher() as publisher, topic.subscriber("reliable") as subscriber:
        sender = threading.Thread(target=lambda: send(publisher, *range(200), timeout=60))
        sender.start()
        assert asyncio.run(read(subscriber)) == list(range(200))
        sender.join()


def test_an_inspector_shows_the_policy(topic: shm.Topic) -> None:
    with topic.publisher() as publisher, topic.subscriber("reliable") as subscriber:
        assert subscriber.policy == "reliable"
        assert re.search("reliable", repr(subscriber))
        send(publisher, 1)
        row = next(row for row in topic.inspect().participants if row.role == "subscriber")
        assert (row.policy, row.position) == ("reliable", 0)
        take(subscriber)
        row = next(row for row in topic.inspect().participants if row.role == "subscriber")
        assert row.position == 1
