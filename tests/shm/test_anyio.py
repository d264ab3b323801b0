"""anyio over asyncio, uvloop and trio; and what cancellation does to frames: nothing."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from framegate import shm

BACKENDS: dict[str, dict[str, Any]] = {
    "asyncio": {"backend": "asyncio"},
    "uvloop": {"backend": "asyncio", "backend_options": {"use_uvloop": True}},
    "trio": {"backend": "trio"},
}


@pytest.fixture(params=list(BACKENDS))
def run(request: pytest.FixtureRequest) -> Callable[[Callable[[], Awaitable[Any]]], Any]:
    """Run a coroutine function by anyio on a backend of this kind."""
    return lambda main: anyio.run(main, **BACKENDS[request.param])


@pytest.fixture
def topic() -> Any:
    """64 slots of 8 bytes: a test's frames all stay readable."""
    with shm.Topic.create("t", slot_bytes=8, slots=64) as topic:
        yield topic


def test_frames_of_another_process_arrive(
    topic: shm.Topic, run: Any, peer: Callable[..., Any]
) -> None:
    async def main() -> None:
        with topic.subscriber("queue") as subscriber:
            peer("publish", "t", 300)
            last = 0
            async for frame in subscriber:
                with frame:
                    assert frame.sequence == last + 1 + frame.lost
                    last = frame.sequence
                if last == 300:
                    break
            assert subscriber.received + subscriber.lost == 300

    run(main)


def test_several_tasks_of_a_group_share_a_subscriber(topic: shm.Topic, run: Any) -> None:
    async def main() -> None:
        seen: list[bytes] = []

        async def take(subscriber: shm.Subscriber) -> None:
            with await subscriber.take_async() as frame:
                seen.append(bytes(frame))

        with topic.publisher() as publisher, topic.subscriber("queue") as subscriber:
            async with anyio.create_task_group() as group:
                for _ in range(4):
                    group.start_soon(take, subscriber)
                await anyio.wait_all_tasks_blocked()
                for letter in b"abcd":
                    publisher.send(bytes([letter]))
                    await anyio.lowlevel.checkpoint()
            assert sorted(seen) == [b"a", b"b", b"c", b"d"]

    import anyio.lowlevel

    run(main)


def test_cancelled_takes_lose_no_frame(topic: shm.Topic, run: Any) -> None:
    """Cancelled at every moment around the arrival of a frame, each frame comes exactly once."""

    async def main() -> None:
        seen: list[int] = []

        async def take(subscriber: shm.Subscriber, scope: anyio.CancelScope) -> None:
            with scope:
                with await subscriber.take_async() as frame:
                    seen.append(frame.sequence)

        with topic.publisher() as publisher, topic.subscriber("queue") as subscriber:
            for number in range(60):
                scope = anyio.CancelScope()
                async with anyio.create_task_group() as group:
                    group.start_soon(take, subscriber, scope)
                    if number % 2:
                        await anyio.wait_all_tasks_blocked()
                    if number % 4 != 3:
                        publisher.send(b"x")
                    for _ in range(number % 5):
                        await anyio.lowlevel.checkpoint()
                    scope.cancel()
                    if number % 4 == 3:
                        publisher.send(b"x")
            assert subscriber.leases == 0
            while (frame := await subscriber.take_async(timeout=0)) is not None:
                seen.append(frame.sequence)
                frame.release()
            assert seen == list(range(1, 61))
            assert subscriber.lost == 0

    import anyio.lowlevel

    run(main)


def test_a_time_out_of_a_scope_loses_no_frame(topic: shm.Topic, run: Any) -> None:
    async def main() -> None:
        with topic.publisher() as publisher, topic.subscriber("queue") as subscriber:
            with anyio.move_on_after(0.01) as scope:
                await subscriber.take_async()
            assert scope.cancelled_caught
            publisher.send(b"kept")
            assert bytes(await subscriber.take_async()) == b"kept"

    run(main)


def test_blocking_takes_work_in_worker_threads(topic: shm.Topic, run: Any) -> None:
    async def main() -> None:
        with topic.publisher() as publisher, topic.subscriber("queue") as subscriber:
            async with anyio.create_task_group() as group:

                async def take() -> None:
                    frame = await anyio.to_thread.run_sync(subscriber.take)
                    assert bytes(frame) == b"x"

                group.start_soon(take)
                await anyio.sleep(0.01)
                publisher.send(b"x")

    import anyio.to_thread

    run(main)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "framegate"])
def test_wait_for_loses_no_frame(topic: shm.Topic, loop: str) -> None:
    """asyncio.wait_for at time-outs that race with the frame."""
    import uvloop

    import framegate

    async def main() -> None:
        seen = 0
        loop = asyncio.get_running_loop()
        with topic.publisher() as publisher, topic.subscriber("queue") as subscriber:
            for number in range(40):
                loop.call_later(0.001, publisher.send, b"x")
                try:
                    frame = await asyncio.wait_for(
                        subscriber.take_async(), 0.0006 + 0.00002 * number
                    )
                    frame.release()
                    seen += 1
                except TimeoutError:
                    pass
            while publisher.published < 40:
                await asyncio.sleep(0.001)
            while (rest := await subscriber.take_async(timeout=0)) is not None:
                rest.release()
                seen += 1
            assert (seen, subscriber.lost) == (40, 0)

    factories: dict[str, Any] = {
        "asyncio": asyncio.new_event_loop,
        "uvloop": uvloop.new_event_loop,
        "framegate": framegate.new_event_loop,
    }
    with asyncio.Runner(loop_factory=factories[loop]) as runner:
        runner.run(main())


def test_frames_that_always_wait_leave_other_tasks_their_turn(topic: shm.Topic, run: Any) -> None:
    async def main() -> None:
        stopped = False

        async def stop() -> None:
            nonlocal stopped
            stopped = True

        with topic.publisher() as publisher, topic.subscriber("queue") as subscriber:
            async with anyio.create_task_group() as group:
                publisher.send(b"x")
                group.start_soon(stop)
                while not stopped:
                    with await subscriber.take_async():
                        publisher.send(b"x")

    run(main)
