"""Making, closing, leaking, forking: a loop leaves nothing behind."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import warnings
import weakref
from collections.abc import AsyncIterator
from functools import partial

import anyio
import pytest

import framegate.loop
from framegate import _http
from framegate.loop import EventLoop, new_event_loop
from framegate.threading_model import runs_without_lock
from loop.helpers import Run, Script, in_thread, open_descriptors


def test_new_event_loop_is_an_asyncio_selector_loop(loop: EventLoop) -> None:
    assert isinstance(loop, asyncio.SelectorEventLoop)
    assert framegate.loop.__all__ == ["EventLoop", "new_event_loop"]


def test_a_closed_loop_leaves_no_descriptor_behind(run: Run) -> None:
    async def main() -> None:
        await asyncio.to_thread(lambda: None)
        process = await asyncio.create_subprocess_exec("true")
        await process.wait()

    run(main())  # what is made once per process is made now
    before = open_descriptors()
    for _ in range(3):
        run(main())
        in_thread(lambda: run(main()))
        loop = new_event_loop()
        in_thread(partial(loop.run_until_complete, main()))
        loop.close()
    assert open_descriptors() == before


def test_a_loop_closed_while_it_serves_drops_what_it_served() -> None:
    new_event_loop().close()
    before = open_descriptors()
    loop = new_event_loop()

    async def serve() -> None:
        loop._tokio._keep_busy(60.0, 5)

    loop.run_until_complete(serve())
    assert loop._tokio._tasks_alive() == 5
    loop.close()
    assert loop._tokio._tasks_alive() == 0
    assert open_descriptors() == before


def test_pending_tasks_at_close_are_reported_as_on_asyncio() -> None:
    loop = new_event_loop()
    messages: list[str] = []
    loop.set_exception_handler(lambda _, context: messages.append(context["message"]))
    task = loop.create_task(asyncio.sleep(60))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    del task
    gc.collect()
    assert messages == ["Task was destroyed but it is pending!"]


def test_a_forgotten_loop_is_collected_with_its_descriptors() -> None:
    loop: EventLoop | None = new_event_loop()
    assert loop is not None
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    before = open_descriptors()
    loop = new_event_loop()
    loop.run_until_complete(asyncio.sleep(0))
    loop.call_later(1000, loop.stop)
    gone = weakref.ref(loop)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del loop
        assert open_descriptors() == before
    assert gone() is None


def test_closing_a_running_loop_is_refused(run: Run) -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match="Cannot close a running event loop"):
            asyncio.get_running_loop().close()

    run(main())


def test_a_closed_loop_refuses_to_run(loop: EventLoop) -> None:
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.run_forever()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_soon(print)


def test_stop_before_running_runs_one_turn(loop: EventLoop) -> None:
    calls: list[int] = []
    loop.call_soon(calls.append, 1)
    loop.stop()
    loop.run_forever()
    assert calls == [1]


@pytest.mark.skipif(
    runs_without_lock(), reason="no destructor runs inside of select there (PEP 703)"
)
def test_select_inside_select_is_refused(run: Run) -> None:
    async def main() -> str:
        loop = asyncio.get_running_loop()
        result: asyncio.Future[str] = loop.create_future()

        def nested() -> None:
            try:
                _http.Selector().select(0)
            except RuntimeError as error:
                result.set_result(str(error))

        # Dies on another thread, so its destructor runs inside select.
        class Nested:
            def __del__(self) -> None:
                nested()

        objects = [_http._ThreadBound(Nested())]
        await asyncio.to_thread(objects.clear)
        return await result

    assert "inside a select()" in run(main())


def test_asyncgens_and_executor_are_shut_down(run: Run) -> None:
    closed: list[str] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append("generator")

    async def main() -> None:
        generator = numbers()
        await anext(generator)
        await asyncio.to_thread(lambda: None)

    threads = threading.active_count()
    run(main())
    assert closed == ["generator"]
    assert threading.active_count() == threads


def test_anyio_runs_on_the_loop() -> None:
    async def main() -> list[str]:
        seen: list[str] = [type(asyncio.get_running_loop()).__name__]

        async def child() -> None:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.001)
            seen.append("child")

        async with anyio.create_task_group() as group:
            group.start_soon(child)
            with anyio.move_on_after(0.001):
                await anyio.sleep_forever()
            seen.append(await anyio.to_thread.run_sync(lambda: "thread"))
        return seen

    seen = anyio.run(main, backend_options={"loop_factory": new_event_loop})
    assert sorted(seen) == ["EventLoop", "child", "thread"]


def test_a_forked_child_cannot_use_the_loop_and_does_not_hurt_the_parent(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, EventLoop)
        bound = _http._ThreadBound("parent's")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: fork with threads
            child = os.fork()
        if child == 0:
            status = 1
            try:
                with pytest.raises(RuntimeError, match="made before a fork"):
                    loop._tokio.select(0)
                with pytest.raises(RuntimeError, match="made before a fork"):
                    loop._tokio.register(0, 1)
                with pytest.raises(RuntimeError, match="another thread"):
                    bound.value  # noqa: B018
                del bound
                asyncio._set_running_loop(None)
                # Closing takes nothing away from the parent, and a loop of the child's own works.
                (self_pipe,) = loop._tokio.get_map() or (-1,)
                loop._tokio.unregister(self_pipe)
                loop._tokio.close()
                assert run(asyncio.sleep(0.001, "child")) == "child"
                status = 0
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        # The parent's self-pipe is still watched.
        done = loop.create_future()
        timer = threading.Timer(0.01, loop.call_soon_threadsafe, (done.set_result, None))
        timer.start()
        await done
        timer.join()

    run(main())


def test_the_interpreter_exits_with_a_loop_that_was_never_closed(script: Script) -> None:
    process = script(
        """
        import asyncio, warnings
        from framegate.loop import new_event_loop
        warnings.simplefilter("ignore")
        loop = new_event_loop()
        loop.run_until_complete(asyncio.sleep(0))
        """
    )
    out, err = process.communicate()
    assert (out, process.returncode) == ("", 0)
    # In development mode 3.13 itself reports an error of its own here, also with asyncio's loop.
    assert "panicked" not in err
    assert "fatal" not in err.lower()


def test_the_interpreter_exits_while_a_daemon_thread_runs_a_loop(script: Script) -> None:
    process = script(
        """
        import asyncio, threading
        from framegate.loop import new_event_loop

        ready = threading.Event()
        loop = new_event_loop()

        async def tick():
            ready.set()
            while True:
                await asyncio.sleep(0.0001)

        threading.Thread(target=loop.run_until_complete, args=(tick(),), daemon=True).start()
        ready.wait()
        print("end")
        """
    )
    out, err = process.communicate()
    assert (out, process.returncode) == ("end\n", 0)
    assert "panicked" not in err
    assert "fatal" not in err.lower()


def test_the_interpreter_exits_while_daemon_threads_work_without_its_lock(script: Script) -> None:
    """They come back while it ends, and may neither be ended there nor take part."""
    process = script(
        """
        import threading
        from framegate import _http

        started = threading.Barrier(5)

        def work():
            started.wait()
            while True:
                _http.collapse_heap()

        for _ in range(4):
            threading.Thread(target=work, daemon=True).start()
        started.wait()
        print("end")
        """
    )
    out, err = process.communicate()
    assert (out, process.returncode) == ("end\n", 0), err


def test_the_interpreter_exits_while_a_daemon_thread_sleeps_in_a_loop(script: Script) -> None:
    process = script(
        """
        import threading
        from framegate.loop import new_event_loop

        ready = threading.Event()
        loop = new_event_loop()
        loop.call_soon(ready.set)
        loop.call_soon(lambda: loop._tokio._keep_busy(0.05, 3))
        threading.Thread(target=loop.run_forever, daemon=True).start()
        ready.wait()
        print("end")
        """
    )
    out, err = process.communicate()
    assert (out, process.returncode) == ("end\n", 0)
    assert "panicked" not in err
