"""One handle, many threads."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from framegate import shm
from framegate.errors import ClosedError
from shm.peer import check, fill


def run_all(*functions: Callable[[], Any]) -> None:
    """Run each in a thread; raise what any of them raised."""
    broken: list[BaseException] = []

    def run(function: Callable[[], Any]) -> None:
        try:
            function()
        except BaseException as error:
            broken.append(error)

    threads = [threading.Thread(target=run, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if broken:
        raise broken[0]


@pytest.mark.parametrize("frame_bytes", [64, 256 * 1024])
def test_threads_share_a_publisher_and_a_subscriber(frame_bytes: int) -> None:
    each, writers = 50, 3
    with shm.Topic.create("t", slot_bytes=frame_bytes, slots=12) as topic:
        with topic.publisher() as publisher, topic.subscriber("queue", max_leases=6) as subscriber:
            seen: list[int] = []

            def write() -> None:
                payload = bytearray(frame_bytes)
                for number in range(each):
                    if number % 2:
                        fill(memoryview(payload), number)
                        publisher.send(payload, timeout=60)
                    else:
                        with publisher.loan(timeout=60) as loan, memoryview(loan) as room:
                            fill(room, number)
                            loan.publish()

            def read() -> None:
                while len(seen) + subscriber.lost < each * writers:
                    frame = subscriber.take(timeout=0.05)
                    if frame is not None:
                        with frame, memoryview(frame) as view:
                            check(view)
                        seen.append(frame.sequence)

            run_all(*[write] * writers, *[read] * 2)
            assert len(set(seen)) == len(seen)
            assert subscriber.received == len(seen)
            assert publisher.published == each * writers
            assert subscriber.leases == 0


def test_closing_under_use_is_an_error_for_the_user_and_nothing_worse() -> None:
    for _ in range(20):
        close_under_use(1024)
        close_under_use(1 << 20)  # copied without the GIL


def close_under_use(size: int) -> None:
    publisher = shm.Publisher(f"t{size}", slot_bytes=size)
    subscriber = shm.Subscriber(f"t{size}", "queue")
    payload = bytes(size)
    barrier = threading.Barrier(5)

    def until_closed(use: Callable[[], Any]) -> None:
        barrier.wait()
        try:
            while True:
                use()
        except ClosedError:
            pass

    def close() -> None:
        barrier.wait()
        publisher.close()
        subscriber.close()

    run_all(
        lambda: until_closed(lambda: publisher.send(payload)),
        lambda: until_closed(lambda: publisher.loan(8).publish()),
        lambda: until_closed(lambda: subscriber.take(timeout=1)),
        lambda: until_closed(subscriber.try_take),
        close,
    )


def test_first_frames_of_several_threads_make_one_topic() -> None:
    for index in range(10):
        publisher = shm.Publisher(f"t{index}")
        barrier = threading.Barrier(4)

        def send(
            publisher: shm.Publisher = publisher, barrier: threading.Barrier = barrier
        ) -> None:
            barrier.wait()
            publisher.send(b"first")

        run_all(*[send] * 4)
        assert publisher.published == 4
        assert shm.inspect(f"t{index}").publishers == 1
        publisher.close()


def test_a_frame_may_end_on_another_thread() -> None:
    with shm.Publisher("t", slot_bytes=64) as publisher, shm.Subscriber("t", "queue") as subscriber:
        for _ in range(50):
            publisher.send(b"x")
            frames = [subscriber.take()]
            views = [memoryview(frames[0])]
            run_all(frames.clear, views.clear)
        assert subscriber.leases == 0
