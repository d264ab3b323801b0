"""Timers, callbacks and tasks; fairness between them and work that is Rust's alone."""

from __future__ import annotations

import asyncio
import contextvars
import socket
import threading

import pytest

from framegate.loop import EventLoop
from loop.helpers import Run


def test_sleep_takes_at_least_its_time(run: Run) -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        start = loop.time()
        await asyncio.sleep(0.02)
        return loop.time() - start

    assert run(main()) >= 0.02


def test_timers_fire_in_order_of_their_time(run: Run) -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        fired: list[int] = []
        loop.call_later(0.03, fired.append, 3)
        loop.call_later(0.04, done.set_result, None)
        loop.call_later(0.01, fired.append, 1)
        loop.call_later(0.02, fired.append, 2)
        loop.call_later(0.015, fired.append, 9).cancel()
        await done
        return fired

    assert run(main()) == [1, 2, 3]


def test_callbacks_run_in_order_and_in_their_context(run: Run) -> None:
    variable = contextvars.ContextVar("variable", default="none")

    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        seen: list[str] = []
        variable.set("first")
        loop.call_soon(lambda: seen.append(variable.get()))
        variable.set("second")
        loop.call_soon(lambda: seen.append(variable.get()))
        await asyncio.sleep(0)
        return seen

    assert run(main()) == ["first", "second"]


def test_timeouts_and_cancellation(run: Run) -> None:
    async def main() -> list[str]:
        seen: list[str] = []
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        seen.append("timeout")

        async def stubborn() -> None:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                seen.append("cancelled")
                raise

        task = asyncio.create_task(stubborn())
        await asyncio.sleep(0)
        task.cancel("reason")
        with pytest.raises(asyncio.CancelledError, match="reason"):
            await task
        return seen

    assert run(main()) == ["timeout", "cancelled"]


def test_descriptors_are_seen_while_callbacks_never_end(
    run: Run, pair: tuple[socket.socket, socket.socket]
) -> None:
    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        stopped = False

        def again() -> None:
            if not stopped:
                loop.call_soon(again)

        again()
        received = asyncio.create_task(loop.sock_recv(pair[0], 1))
        await asyncio.sleep(0)
        pair[1].send(b"x")
        data = await received
        stopped = True
        return data

    assert run(main()) == b"x"


# In the tests below the loop has Rust work for longer than the watchdog waits. Whoever were starved
# by it would be so until the end, so no time is compared: it is enough to get there.
FOREVER = 600.0


def test_a_flood_of_rust_work_does_not_starve_timers_and_callbacks(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, EventLoop)
        loop._tokio._keep_busy(FOREVER, 200)
        for _ in range(20):
            await asyncio.sleep(0.005)
            await asyncio.sleep(0)
        assert loop._tokio._tasks_alive() == 200

    run(main())


def test_a_flood_of_callbacks_does_not_starve_rust_work(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, EventLoop)
        loop._tokio._keep_busy(0.05, 10)
        # Ends only if the tasks get their polls although the loop never waits.
        while loop._tokio._tasks_alive():
            await asyncio.sleep(0)

    run(main())


def test_other_threads_run_while_the_loop_does_rust_work_only(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, EventLoop)
        loop._tokio._keep_busy(FOREVER, 100)

        def work() -> int:
            progress = 0
            for _ in range(50_000):
                progress += 1
            return progress

        assert await asyncio.to_thread(work) == 50_000
        assert loop._tokio._tasks_alive() == 100

    run(main())


def test_a_thread_can_stop_a_loop_that_is_busy_with_rust_work(loop: EventLoop) -> None:
    loop.call_soon(lambda: loop._tokio._keep_busy(FOREVER, 50))
    thread = threading.Timer(0.05, loop.call_soon_threadsafe, (loop.stop,))
    thread.start()
    loop.run_forever()
    thread.join()
    assert loop._tokio._tasks_alive() == 50
