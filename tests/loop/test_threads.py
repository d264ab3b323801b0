"""Thread pools, calls from other threads, loops in other threads, thread-bound state."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable

import pytest

from framegate import _http
from framegate.loop import EventLoop, new_event_loop
from loop.helpers import Run, drop_elsewhere, in_thread


def test_to_thread_and_executors(run: Run) -> None:
    async def main() -> set[int]:
        threads = await asyncio.gather(*(asyncio.to_thread(threading.get_ident) for _ in range(4)))
        return set(threads)

    assert threading.get_ident() not in run(main())


def test_call_soon_threadsafe_wakes_an_idle_loop(run: Run) -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[int] = loop.create_future()
        thread = threading.Timer(0.02, loop.call_soon_threadsafe, (done.set_result, 7))
        thread.start()
        result = await done
        thread.join()
        return result

    assert run(main()) == 7


def test_run_coroutine_threadsafe_from_many_threads(run: Run) -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()

        async def double(number: int) -> int:
            await asyncio.sleep(0)
            return 2 * number

        def work(number: int) -> int:
            return asyncio.run_coroutine_threadsafe(double(number), loop).result()

        return sum(await asyncio.gather(*(asyncio.to_thread(work, n) for n in range(20))))

    assert run(main()) == 380


def test_a_loop_runs_in_another_thread(run: Run) -> None:
    async def main() -> str:
        process = await asyncio.create_subprocess_exec("true")
        assert await process.wait() == 0
        await asyncio.sleep(0.001)
        return threading.current_thread().name

    assert in_thread(lambda: run(main())) != threading.main_thread().name


def test_a_loop_made_here_runs_there_and_is_closed_here() -> None:
    loop = new_event_loop()
    assert in_thread(lambda: loop.run_until_complete(asyncio.sleep(0.001, 1))) == 1
    loop.close()


def test_an_idle_loop_moves_between_threads(loop: EventLoop) -> None:
    assert loop.run_until_complete(asyncio.sleep(0.001, 1)) == 1
    assert in_thread(lambda: loop.run_until_complete(asyncio.sleep(0.001, 2))) == 2
    assert loop.run_until_complete(asyncio.sleep(0.001, 3)) == 3


def test_a_loop_that_serves_stays_on_its_thread(loop: EventLoop) -> None:
    async def serve() -> None:
        loop._tokio._keep_busy(60.0, 1)

    loop.run_until_complete(serve())
    with pytest.raises(RuntimeError, match="serves connections in another thread"):
        in_thread(lambda: loop.run_until_complete(asyncio.sleep(0)))
    assert loop.run_until_complete(asyncio.sleep(0.001, 1)) == 1


def test_two_loops_in_two_threads_talk_to_each_other(run: Run) -> None:
    rounds = 200
    loops: dict[str, asyncio.AbstractEventLoop] = {}
    queues: dict[str, asyncio.Queue[int]] = {}
    both = threading.Barrier(2)

    async def player(name: str, other: str) -> int:
        loops[name] = asyncio.get_running_loop()
        queues[name] = asyncio.Queue()
        both.wait()
        got = 0
        if name == "left":
            loops[other].call_soon_threadsafe(queues[other].put_nowait, 0)
        while got < rounds:
            got = await queues[name].get() + 1
            loops[other].call_soon_threadsafe(queues[other].put_nowait, got)
        both.wait()
        return got

    right: list[int] = []
    thread = threading.Thread(target=lambda: right.append(run(player("right", "left"))))
    thread.start()
    assert run(player("left", "right")) >= rounds
    thread.join()
    assert right[0] >= rounds


def test_two_loops_take_turns_on_one_thread(loop: EventLoop, run: Run) -> None:
    for _ in range(3):
        assert loop.run_until_complete(asyncio.sleep(0, 1)) == 1
        assert run(asyncio.sleep(0, 2)) == 2


def test_running_a_loop_inside_another_is_refused(loop: EventLoop, run: Run) -> None:
    async def main() -> None:
        # Taken first: 3.13 forgets the running loop at the refusal.
        outer = asyncio.get_running_loop()
        with pytest.raises(RuntimeError, match="another loop is running"):
            loop.run_forever()
        with pytest.raises(RuntimeError, match="already running"):
            outer.run_forever()

    run(main())


class Witness:
    """Tells in which thread it dies."""

    def __init__(self, died: Callable[[int], object]) -> None:
        weakref.finalize(self, lambda: died(threading.get_ident()))


def test_thread_bound_state_is_reachable_at_home_only() -> None:
    bound = _http._ThreadBound("value")
    assert bound.value == "value"
    with pytest.raises(RuntimeError, match="another thread"):
        in_thread(lambda: bound.value)


def test_thread_bound_state_dropped_elsewhere_dies_at_home_at_once(run: Run) -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        death: asyncio.Future[int] = loop.create_future()
        objects = [_http._ThreadBound(Witness(death.set_result)), loop]
        timer = threading.Timer(0.02, drop_elsewhere, [objects])
        timer.start()
        # Idle loop: the death itself must wake it, and the callback it leaves must end select.
        thread = await death
        timer.join()
        return thread

    assert run(main()) == threading.get_ident()


def test_thread_bound_state_dropped_at_home_dies_there() -> None:
    deaths: list[int] = []
    bound = _http._ThreadBound(Witness(deaths.append))
    del bound
    assert deaths == [threading.get_ident()]


def test_thread_bound_state_of_an_ended_thread_is_never_touched() -> None:
    deaths: list[int] = []
    bound = in_thread(lambda: _http._ThreadBound(Witness(deaths.append)))
    with pytest.raises(RuntimeError, match="another thread"):
        bound.value  # noqa: B018
    del bound
    assert deaths == []
