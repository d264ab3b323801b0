"""What a slow subscriber sees: the newest frame or the oldest that exists; losses are counted."""

from typing import Any

import pytest

from framegate import shm
from framegate.errors import ClosedError, LeaseQuotaExceeded, ShmArgumentError


def send(publisher: shm.Publisher, *numbers: int) -> None:
    for number in numbers:
        publisher.send(number.to_bytes(4, "little"))


def number(frame: shm.Frame | None) -> int | None:
    return None if frame is None else int.from_bytes(bytes(frame), "little")


@pytest.fixture
def topic() -> Any:
    """4 slots of 8 bytes."""
    with shm.Topic.create("t", slot_bytes=8, slots=4) as topic:
        yield topic


def test_latest_jumps_to_the_newest_and_counts_what_it_jumped_over(topic: shm.Topic) -> None:
    with topic.publisher() as publisher, topic.subscriber("latest") as subscriber:
        assert subscriber.try_take() is None
        send(publisher, 1)
        assert number(subscriber.take()) == 1
        send(publisher, 2, 3, 4)
        frame = subscriber.take()
        assert number(frame) == 4
        assert frame.lost == 2
        assert subscriber.try_take() is None
        assert (subscriber.received, subscriber.lost, subscriber.position) == (2, 2, 4)
        assert subscriber.head == 4


def test_queue_takes_every_frame_and_counts_what_was_overwritten(topic: shm.Topic) -> None:
    with topic.publisher() as publisher, topic.subscriber("queue") as subscriber:
        send(publisher, 1, 2, 3)
        assert [number(subscriber.take()) for _ in range(3)] == [1, 2, 3]
        assert subscriber.lost == 0
        send(publisher, *range(4, 14))
        came = []
        while (frame := subscriber.try_take()) is not None:
            came.append(number(frame))
            frame.release()
        assert came == [10, 11, 12, 13]
        assert (subscriber.received, subscriber.lost) == (7, 6)


def test_where_a_subscriber_starts(topic: shm.Topic) -> None:
    with topic.publisher() as publisher:
        send(publisher, 1, 2)
        with topic.subscriber() as latest, topic.subscriber("queue") as queue:
            with (
                topic.subscriber(start="next") as late,
                topic.subscriber("queue", start="newest") as early,
            ):
                assert number(latest.try_take()) == 2
                assert number(queue.try_take()) is None
                assert number(late.try_take()) is None
                assert number(early.try_take()) == 2
                assert latest.lost == early.lost == 0


def test_peek_shows_the_newest_again(topic: shm.Topic) -> None:
    with topic.publisher() as publisher, topic.subscriber("queue") as subscriber:
        assert subscriber.peek() is None
        send(publisher, 1, 2)
        assert number(subscriber.peek()) == 2
        assert number(subscriber.take()) == 1
        assert number(subscriber.take()) == 2
        assert number(subscriber.peek()) == 2
        assert subscriber.try_take() is None


def test_a_quota_is_refused_when_it_is_used_up_and_free_after_a_release(topic: shm.Topic) -> None:
    with topic.publisher() as publisher, topic.subscriber("queue", max_leases=2) as subscriber:
        assert subscriber.max_leases == 2
        send(publisher, 1, 2, 3)
        held = [subscriber.take(), subscriber.take()]
        for take in (subscriber.try_take, lambda: subscriber.take(timeout=0.01)):
            with pytest.raises(LeaseQuotaExceeded):
                take()
        assert subscriber.leases == 2
        held[0].release()
        assert number(subscriber.take()) == 3


def test_the_default_quota_is_half_of_the_slots(topic: shm.Topic) -> None:
    with topic.subscriber() as subscriber:
        assert subscriber.max_leases == 2


def test_a_greedy_subscriber_cannot_starve_the_topic() -> None:
    with shm.Topic.create("t", slot_bytes=8, slots=6) as topic, topic.publisher() as publisher:
        with topic.subscriber("queue") as greedy, topic.subscriber("queue") as other:
            send(publisher, 1, 2, 3)
            held = [greedy.take() for _ in range(3)]
            while (frame := other.try_take()) is not None:
                frame.release()
            for index in range(50):
                send(publisher, index)
                with other.take() as frame:
                    assert (number(frame), frame.lost) == (index, 0)
            assert [number(frame) for frame in held] == [1, 2, 3]


@pytest.mark.parametrize(
    "options",
    [
        {"policy": ""},
        {"policy": "fair"},
        {"policy": "group"},
        {"policy": "group:"},
        {"policy": "group:a/b"},
        {"policy": "group:" + "x" * 33},
        {"policy": "group:" + "x" * 300},
        {"start": "oldest"},
        {"spin": 1.0},
        {"spin": -1.0},
        {"max_leases": 0},
        {"max_leases": 100},
    ],
)
def test_options_outside_their_limits_are_refused(topic: shm.Topic, options: Any) -> None:
    with pytest.raises((ValueError, ShmArgumentError)):
        topic.subscriber(**options)
    assert shm.inspect("t").subscribers == 0


def test_a_closed_subscriber_says_so_and_keeps_its_counters(topic: shm.Topic) -> None:
    with topic.publisher() as publisher:
        subscriber = topic.subscriber("queue")
        send(publisher, *range(10))
        subscriber.take()
        subscriber.close()
        subscriber.close()
        assert subscriber.closed
        assert (subscriber.received, subscriber.lost) == (1, 6)
        for use in (subscriber.take, subscriber.try_take, subscriber.fileno, subscriber.arm):
            with pytest.raises(ClosedError, match='"t"'):
                use()
        assert list(subscriber) == []


def test_iteration_ends_when_the_subscriber_is_closed(topic: shm.Topic) -> None:
    with topic.publisher() as publisher, topic.subscriber("queue") as subscriber:
        send(publisher, 1, 2, 3)
        came = []
        for frame in subscriber:
            came.append(number(frame))
            if len(came) == 3:
                subscriber.close()
        assert came == [1, 2, 3]
