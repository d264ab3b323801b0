"""Frames on event loops: any asyncio loop by its descriptor, and trio."""

import asyncio
import os
import select
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
import trio
import uvloop

import framegate
from framegate import shm
from framegate.errors import ClosedError

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
    "framegate": lambda: framegate.new_event_loop(),  # not before it is used: it loads the server
}


@pytest.fixture(params=list(LOOPS))
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Run a coroutine on a loop of this kind."""

    def run_on(coroutine: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            return runner.run(coroutine)

    return run_on


def is_readable(descriptor: Any, seconds: float) -> bool:
    """Wait for a descriptor; by poll, because select() takes none above 1023."""
    watch = select.poll()
    watch.register(descriptor, select.POLLIN)
    return bool(watch.poll(seconds * 1000))


@pytest.fixture
def topic() -> Any:
    """8 slots of 8 bytes."""
    with shm.Topic.create("t", slot_bytes=8, slots=8) as topic:
        yield topic


def test_the_descriptor_is_readable_exactly_after_arming(topic: shm.Topic) -> None:
    with topic.publisher() as publisher, topic.subscriber("queue") as subscriber:
        fd = subscriber.fileno()
        assert subscriber.fileno() == fd
        publisher.send(b"unarmed")
        assert subscriber.arm() is True  # there is one already
        assert bytes(subscriber.take()) == b"unarmed"
        assert subscriber.arm() is False
        publisher.send(b"armed")
        assert is_readable(fd, 60)
        subscriber.drain()
        assert not is_readable(fd, 0)
        assert bytes(subscriber.take()) == b"armed"


def test_the_descriptor_is_readable_from_another_process(
    topic: shm.Topic, peer: Callable[..., Any]
) -> None:
    with topic.subscriber("queue") as subscriber:
        subscriber.fileno()
        assert subscriber.arm() is False
        peer("publish", "t", 1)
        assert is_readable(subscriber, 60)


def test_take_async_waits_for_a_frame(topic: shm.Topic, run: Any) -> None:
    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        with topic.publisher() as publisher, topic.subscriber() as subscriber:
            loop.call_later(0.01, publisher.send, b"later")
            return bytes(await subscriber.take_async())

    assert run(main()) == b"later"


def test_take_async_gives_up_after_the_timeout(topic: shm.Topic, run: Any) -> None:
    async def main() -> None:
        with topic.publisher() as publisher, topic.subscriber() as subscriber:
            assert await subscriber.take_async(timeout=0) is None
            assert await subscriber.take_async(timeout=0.02) is None
            publisher.send(b"x")
            assert await subscriber.take_async(timeout=0) is not None

    run(main())


def test_async_for_sees_every_frame_of_another_process(
    topic: shm.Topic, run: Any, peer: Callable[..., Any]
) -> None:
    async def main() -> int:
        last = 0
        with topic.subscriber("queue") as subscriber:
            peer("publish", "t", 500)
            async for frame in subscriber:
                with frame:
                    assert frame.sequence == last + 1 + frame.lost
                    last = frame.sequence
                if last == 500:
                    break
            assert subscriber.received + subscriber.lost == 500
        return last

    assert run(main()) == 500


def test_a_burst_leaves_other_tasks_their_turn(topic: shm.Topic, run: Any) -> None:
    async def main() -> None:
        stop = False

        async def stop_it() -> None:
            nonlocal stop
            stop = True

        with topic.publisher() as publisher, topic.subscriber("queue") as subscriber:
            publisher.send(b"x")
            task: asyncio.Task[None] | None = None
            async for frame in subscriber:
                frame.release()
                publisher.send(b"x")  # there always is a next frame: this loop never has to wait
                task = task or asyncio.create_task(stop_it())
                if stop:
                    break
            assert task is not None
            await task

    run(main())


def test_several_tasks_share_a_subscriber(topic: shm.Topic, run: Any) -> None:
    async def main() -> None:
        with topic.publisher() as publisher, topic.subscriber("queue") as subscriber:
            tasks = [asyncio.create_task(subscriber.take_async()) for _ in range(4)]
            await asyncio.sleep(0)
            for letter in b"abcd":
                publisher.send(bytes([letter]))
                await asyncio.sleep(0)
            assert sorted(bytes(frame) for frame in await asyncio.gather(*tasks)) == [
                b"a", b"b", b"c", b"d",
            ]  # fmt: skip

    run(main())


def test_a_cancelled_take_leaves_the_frame_to_the_next(topic: shm.Topic, run: Any) -> None:
    async def main() -> None:
        with topic.publisher() as publisher, topic.subscriber("queue") as subscriber:
            task = asyncio.create_task(subscriber.take_async())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            publisher.send(b"kept")
            assert bytes(await subscriber.take_async()) == b"kept"
            assert subscriber.lost == 0

    run(main())


@pytest.mark.parametrize("where", ["on the loop", "on a thread"])
def test_close_wakes_the_waiting_task(topic: shm.Topic, run: Any, where: str) -> None:
    async def iterate(frames: AsyncIterator[shm.Frame]) -> list[shm.Frame]:
        return [frame async for frame in frames]

    async def main() -> None:
        subscriber = topic.subscriber()
        task = asyncio.create_task(subscriber.take_async())
        iteration = asyncio.create_task(iterate(subscriber))
        for _ in range(3):
            await asyncio.sleep(0)
        if where == "on the loop":
            subscriber.close()
        else:
            thread = threading.Thread(target=subscriber.close)
            thread.start()
        with pytest.raises(ClosedError):
            await task
        assert await iteration == []
        if where == "on a thread":
            thread.join()

    run(main())


def test_two_loops_on_one_subscriber_are_refused(topic: shm.Topic) -> None:
    refused = threading.Event()

    def other(subscriber: shm.Subscriber) -> None:
        with pytest.raises(RuntimeError, match="one per loop"):
            asyncio.run(subscriber.take_async(timeout=5))
        refused.set()

    async def main() -> None:
        with topic.publisher() as publisher, topic.subscriber() as subscriber:
            task = asyncio.create_task(subscriber.take_async())
            while not subscriber._event._waiters:
                await asyncio.sleep(0)
            await asyncio.to_thread(other, subscriber)
            publisher.send(b"x")
            await task

    asyncio.run(main())
    assert refused.is_set()


def test_one_loop_after_the_other_is_fine(topic: shm.Topic) -> None:
    with topic.publisher() as publisher, topic.subscriber("queue") as subscriber:
        for _ in range(2):
            assert asyncio.run(subscriber.take_async(timeout=0.01)) is None
        publisher.send(b"x")
        assert asyncio.run(subscriber.take_async()) is not None


def test_no_descriptor_is_leaked(topic: shm.Topic) -> None:
    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    async def main() -> None:
        with topic.subscriber() as subscriber:
            await subscriber.take_async(timeout=0.001)

    asyncio.run(main())
    before = count()
    for _ in range(5):
        asyncio.run(main())
    assert count() == before


def test_trio_waits_for_a_frame(topic: shm.Topic, peer: Callable[..., Any]) -> None:
    async def main() -> None:
        with topic.subscriber("queue") as subscriber:
            assert await subscriber.take_async(timeout=0.01) is None
            peer("publish", "t", 200)
            async for frame in subscriber:
                with frame:
                    if frame.sequence == 200:
                        break
            assert subscriber.received + subscriber.lost == 200

    trio.run(main)


@pytest.mark.parametrize("where", ["in the task", "on a thread"])
def test_close_ends_a_take_under_trio(topic: shm.Topic, where: str) -> None:
    async def take(subscriber: shm.Subscriber) -> None:
        with pytest.raises(ClosedError):
            await subscriber.take_async()

    async def main() -> None:
        subscriber = topic.subscriber()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, subscriber)
            await trio.testing.wait_all_tasks_blocked()
            if where == "in the task":
                subscriber.close()
            else:
                await trio.to_thread.run_sync(subscriber.close)

    import trio.testing

    trio.run(main)
