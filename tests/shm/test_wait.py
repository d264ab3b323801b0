"""Blocking waits: woken by a frame, a release, a close, a signal; the GIL is free meanwhile."""

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from framegate import shm
from framegate.errors import ClosedError


@pytest.fixture
def topic() -> Any:
    """4 slots of 8 bytes."""
    with shm.Topic.create("t", slot_bytes=8, slots=4) as topic:
        yield topic


def in_thread(function: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Run `function` in a thread; its result or exception is appended to the list."""
    result: list[Any] = []

    def run() -> None:
        try:
            result.append(function())
        except Exception as error:
            result.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, result


def until_waiting(topic: shm.Topic) -> None:
    """Let a wait get under way. If it has not, nothing fails: the test only shows less."""
    time.sleep(0.02)


def test_take_sleeps_until_a_frame_comes(topic: shm.Topic) -> None:
    with topic.publisher() as publisher, topic.subscriber("queue") as subscriber:
        thread, result = in_thread(subscriber.take)
        until_waiting(topic)
        publisher.send(b"now")
        thread.join()
        assert bytes(result.pop()) == b"now"


def test_every_sleeping_subscriber_is_woken(topic: shm.Topic) -> None:
    with topic.publisher() as publisher:
        subscribers = [topic.subscriber("queue") for _ in range(8)]
        threads = [in_thread(subscriber.take) for subscriber in subscribers]
        until_waiting(topic)
        publisher.send(b"all")
        for thread, result in threads:
            thread.join()
            assert bytes(result.pop()) == b"all"
        for subscriber in subscribers:
            subscriber.close()


def test_several_threads_of_one_subscriber_share_the_frames(topic: shm.Topic) -> None:
    with topic.publisher() as publisher, topic.subscriber("queue", max_leases=3) as subscriber:
        threads = [in_thread(subscriber.take) for _ in range(3)]
        until_waiting(topic)
        for letter in b"abc":
            publisher.send(bytes([letter]))
        for thread, _ in threads:
            thread.join()
        assert sorted(bytes(result[0]) for _, result in threads) == [b"a", b"b", b"c"]
        for _, result in threads:
            result.clear()


def test_take_gives_up_after_the_timeout(topic: shm.Topic) -> None:
    with topic.subscriber() as subscriber:
        before = time.monotonic()
        assert subscriber.take(timeout=0.05) is None
        assert time.monotonic() - before >= 0.05
        assert subscriber.take(timeout=0) is None


def test_a_spinning_subscriber_takes_and_gives_up_too(topic: shm.Topic) -> None:
    with topic.publisher() as publisher, topic.subscriber("queue", spin=0.001) as subscriber:
        assert subscriber.take(timeout=0.01) is None
        thread, result = in_thread(subscriber.take)
        publisher.send(b"x")
        thread.join()
        assert bytes(result.pop()) == b"x"


def test_the_gil_is_free_while_waiting(topic: shm.Topic) -> None:
    with topic.publisher() as publisher, topic.subscriber() as subscriber:
        counted = 0

        def count_then_send() -> None:
            nonlocal counted
            for _ in range(1000):
                counted += 1
                time.sleep(0)
            publisher.send(b"x")

        thread, _ = in_thread(count_then_send)
        assert subscriber.take(timeout=60) is not None
        assert counted == 1000
        thread.join()


@pytest.mark.parametrize("policy", ["latest", "queue"])
def test_close_ends_a_take_of_another_thread(topic: shm.Topic, policy: Any) -> None:
    subscriber = topic.subscriber(policy)
    thread, result = in_thread(subscriber.take)
    iterating, iterated = in_thread(lambda: list(subscriber))
    until_waiting(topic)
    subscriber.close()
    thread.join()
    iterating.join()
    assert isinstance(result[0], ClosedError)
    assert iterated == [[]]


def test_close_ends_a_loan_of_another_thread(topic: shm.Topic) -> None:
    with topic.subscriber("queue", max_leases=3) as subscriber:
        publisher = topic.publisher()
        for _ in range(3):
            publisher.send(b"x")
        held = [subscriber.take() for _ in range(3)]
        publisher.send(b"newest")
        thread, result = in_thread(lambda: publisher.loan(timeout=None))
        until_waiting(topic)
        publisher.close()
        thread.join()
        assert isinstance(result[0], ClosedError)
        del held


@pytest.mark.parametrize(
    "wait",
    ["take", "take with a time-out", "iteration", "loan", "send", "open", "take_async"],
)
def test_ctrl_c_ends_every_wait(peer: Callable[..., Any], topic: shm.Topic, wait: str) -> None:
    waiting = peer("interrupt", "t", wait)
    assert waiting.line() == "ready"
    until_waiting(topic)
    waiting.process.send_signal(signal.SIGINT)
    assert waiting.line() == "interrupted"
    assert waiting.end() == 0


def test_a_signal_handler_runs_and_the_wait_goes_on(topic: shm.Topic) -> None:
    with topic.publisher() as publisher, topic.subscriber() as subscriber:
        previous = signal.signal(signal.SIGALRM, lambda *_: publisher.send(b"handler"))
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            frame = subscriber.take(timeout=60)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        assert bytes(frame) == b"handler"  # type: ignore[arg-type]


def test_a_subscriber_waits_for_its_topic(runtime_directory: Any) -> None:
    thread, result = in_thread(lambda: shm.Subscriber("later", "queue", start="newest", wait=60))
    with shm.Publisher("later") as publisher:
        publisher.send(b"first")
        thread.join()
        assert bytes(result[0].take(timeout=60)) == b"first"
        result.pop().close()
