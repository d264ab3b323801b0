"""asyncio's debug mode and the exception handler."""

from __future__ import annotations

import asyncio
import gc
import logging
import time

import pytest

from framegate.loop import EventLoop
from loop.helpers import Run, in_thread


def test_slow_callbacks_are_logged(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = 0.005
        loop.call_soon(time.sleep, 0.01)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    with caplog.at_level(logging.WARNING, "asyncio"):
        run(main(), debug=True)
    assert any("took" in message for message in caplog.messages)


def test_waiting_is_not_logged_as_slow(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        asyncio.get_running_loop().slow_callback_duration = (
            0.4  # a busy machine interrupts callbacks, too
        )
        await asyncio.sleep(0.8)

    gc.collect()
    gc.disable()  # a full collection is slow, too
    try:
        with caplog.at_level(logging.WARNING, "asyncio"):
            run(main(), debug=True)
    finally:
        gc.enable()
    assert caplog.messages == []


def test_call_soon_from_another_thread_is_refused(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
            in_thread(lambda: loop.call_soon(print))
        with pytest.raises(RuntimeError, match="Non-thread-safe operation"):
            in_thread(lambda: loop.call_later(1, print))

    run(main(), debug=True)


def test_errors_of_callbacks_reach_the_exception_handler(run: Run) -> None:
    async def main() -> BaseException:
        loop = asyncio.get_running_loop()
        caught: asyncio.Future[BaseException] = loop.create_future()
        loop.set_exception_handler(lambda _, context: caught.set_result(context["exception"]))
        loop.call_soon(lambda: 1 / 0)
        return await caught

    assert isinstance(run(main()), ZeroDivisionError)


def test_an_exit_raised_by_a_callback_ends_the_loop(loop: EventLoop) -> None:
    def leave() -> None:
        raise SystemExit(3)

    loop.call_soon(leave)
    with pytest.raises(SystemExit) as caught:
        loop.run_forever()
    assert caught.value.code == 3
    assert loop.run_until_complete(asyncio.sleep(0, "alive")) == "alive"


def test_everything_works_in_debug_mode(run: Run) -> None:
    async def main() -> bytes:
        process = await asyncio.create_subprocess_exec("echo", "x", stdout=asyncio.subprocess.PIPE)
        out, _ = await process.communicate()
        await asyncio.to_thread(lambda: None)
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0.001))
        return out

    assert run(main(), debug=True) == b"x\n"
