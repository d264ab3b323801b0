"""Is it asyncio? Handlers that ask for tasks, contexts, timeouts and thread pools.

Every handler runs as a request of its own, in both ways of making tasks. What it returns is its
verdict; an assertion that fails in it is a 500.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import threading
import weakref
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from apps import read_body, respond
from peers.h11_client import Client
from peers.raw import head, read_all

variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)


def answer(serve: Any, *handlers: Any, count: int = 3) -> None:
    """Run each handler in several requests of one connection, between plain ones."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/plain":
            await respond(send, b"plain")
            return
        await handlers[int(scope["path"][1:])]()
        await respond(send, b"fine")

    with Client(serve(app, lifespan="off").connect()) as client:
        for _ in range(count):
            for number in range(len(handlers)):
                assert client.request("GET", "/plain").body == b"plain"
                assert client.request("GET", f"/{number}").body == b"fine"


def test_the_current_task_is_an_ordinary_one(serve: Any) -> None:
    async def handler() -> None:
        task = asyncio.current_task()
        assert isinstance(task, asyncio.Task)
        assert not task.done()
        assert task in asyncio.all_tasks()
        assert task.get_loop() is asyncio.get_running_loop()
        assert task.cancelling() == 0
        assert task.get_coro().__qualname__.endswith("app")  # type: ignore[union-attr]
        await asyncio.sleep(0)
        assert asyncio.current_task() is task
        assert task.get_stack()

    answer(serve, handler)


def test_the_task_has_a_name_a_repr_and_attributes(serve: Any) -> None:
    async def handler() -> None:
        task: Any = asyncio.current_task()
        text = repr(task)
        assert "pending" in text and "app" in text
        assert task.get_name().startswith("Task-")
        task.set_name("mine")
        task.extra = 1
        await asyncio.sleep(0)
        assert (task.get_name(), task.extra) == ("mine", 1)

    answer(serve, handler)


def test_the_task_is_the_same_before_and_after_it_is_touched(serve: Any) -> None:
    async def handler() -> None:
        task = asyncio.current_task()
        assert task is not None
        first = (id(task), hash(task), {task: 1}, weakref.ref(task))
        task.get_name()
        await asyncio.sleep(0)
        assert asyncio.current_task() is task
        assert (id(task), hash(task)) == first[:2]
        assert first[2][task] == 1
        assert first[3]() is task

    answer(serve, handler)


def test_a_kept_task_is_a_finished_one_afterwards(serve: Any) -> None:
    kept: list[asyncio.Task[Any]] = []

    async def keep() -> None:
        task = asyncio.current_task()
        assert task is not None
        assert all(task is not other for other in kept)
        kept.append(task)

    async def look() -> None:
        await asyncio.sleep(0)
        task = kept[-1]
        assert task.done() and task.result() is None and not task.cancelled()
        assert task is not asyncio.current_task()
        assert await task is None

    answer(serve, keep, look)
    assert len(kept) == 3


def test_a_callback_of_the_task_is_called(serve: Any) -> None:
    called: list[bool] = []

    async def handler() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(lambda done: called.append(done is task and done.done()))

    async def look() -> None:
        await asyncio.sleep(0)
        assert called and all(called)

    answer(serve, handler, look)


def test_a_task_that_is_only_weakly_kept_goes_away(serve: Any) -> None:
    kept: list[weakref.ref[Any]] = []

    async def keep() -> None:
        kept.append(weakref.ref(asyncio.current_task()))  # type: ignore[arg-type]

    async def look() -> None:
        await asyncio.sleep(0)
        gc.collect()
        assert [reference() for reference in kept] == [None] * len(kept)

    answer(serve, keep, look)
    assert len(kept) == 3


def test_another_thread_sees_the_task_of_a_suspended_request(serve: Any) -> None:
    async def handler() -> None:
        task = asyncio.current_task()
        assert task is not None
        await asyncio.sleep(0)
        await asyncio.to_thread(lambda: repr(task) and task.get_name())

    answer(serve, handler)


def test_another_thread_does_not_see_an_untouched_task(serve: Any, task_mode: str) -> None:
    async def handler() -> None:
        task = asyncio.current_task()
        assert task is not None
        errors: list[Exception] = []

        def look() -> None:
            try:
                task.get_name()
            except RuntimeError as error:
                errors.append(error)

        # A handler that blocks in its first segment.
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        assert len(errors) == (1 if task_mode == "lazy" else 0)
        assert task.get_name()

    answer(serve, handler)


def test_worker_tells_how_it_starts_tasks(serve: Any, task_mode: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await respond(send)

    server = serve(app, lifespan="off")
    import sys

    is_proven = (3, 11) <= sys.version_info[:2] <= (3, 13)
    lazy = server.submit(lambda: server.worker.lazy_tasks)
    assert lazy is (task_mode == "lazy" and is_proven)


# --- timeouts and cancellation


def test_timeouts(serve: Any) -> None:
    async def timeout() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.sleep(20)

    async def wait_for() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.sleep(20), 0.01)

    async def scope() -> None:
        with anyio.move_on_after(0.01) as scope:
            await anyio.sleep(20)
        assert scope.cancelled_caught

    async def cancelled_scope() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            with pytest.raises(asyncio.CancelledError):
                await anyio.sleep(20)
            await anyio.sleep(20)
        assert scope.cancelled_caught

    answer(serve, timeout, wait_for, scope, cancelled_scope)


def test_a_task_that_cancels_itself(serve: Any) -> None:
    async def at_a_bare_yield() -> None:
        task = asyncio.current_task()
        assert task is not None
        assert task.cancel("why")
        assert task.cancelling() == 1
        with pytest.raises(asyncio.CancelledError, match="why"):
            await asyncio.sleep(0)
        assert task.uncancel() == 0

    async def at_a_future() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel("why")
        with pytest.raises(asyncio.CancelledError, match="why"):
            await asyncio.sleep(20)
        task.uncancel()
        await asyncio.sleep(0)

    async def later() -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_later(0.001, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(20)
        task.uncancel()

    async def twice() -> None:
        for _ in range(2):
            await at_a_future()
            await at_a_bare_yield()

    answer(serve, at_a_bare_yield, at_a_future, later, twice)


def test_a_cancelled_request_is_500_and_its_task_cancelled(serve: Any) -> None:
    tasks: list[asyncio.Task[Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        if scope["path"] == "/later":
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(20)

    with Client(serve(app, lifespan="off").connect()) as client:
        assert client.request("GET", "/now").status == 500
        assert client.request("GET", "/later").status == 500
    assert len(tasks) == 2
    while not all(task.done() for task in tasks):
        pass
    assert all(task.cancelled() for task in tasks)


def test_cancelled_error_raised_by_hand_is_500(serve: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise asyncio.CancelledError

    with Client(serve(app, lifespan="off").connect()) as client:
        assert client.request("GET").status == 500
        assert client.request("GET").status == 500


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_an_exit_ends_the_loop(
    serve: Any, task_mode: str, late: bool, error: type[BaseException]
) -> None:
    from framegate.config import Config
    from server_thread import Server

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if late:
            await asyncio.sleep(0)
        raise error

    config = Config(lifespan="off", access_log=False)
    server = Server(app, config, plain_tasks=task_mode == "plain")
    server.start()
    with server.connect() as client:
        client.sendall(head("GET", "/"))
        read_all(client)
    with pytest.raises(error):
        server.stop()


def test_other_base_exceptions_do_not_end_the_loop(serve: Any) -> None:
    class Odd(BaseException):
        pass

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/later":
            await asyncio.sleep(0)
        raise Odd

    server = serve(app, lifespan="off", allow_unhandled=True)
    with Client(server.connect()) as client:
        for path in ("/", "/later", "/"):
            assert client.request("GET", path).status == 500


# --- groups and threads


def test_task_groups(serve: Any) -> None:
    async def groups() -> None:
        out: list[int] = []

        async def work(number: int) -> None:
            await anyio.sleep(0.001 * number)
            out.append(number)

        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(work, number)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(work(5))
        assert out == [0, 1, 2, 5]

    async def failing() -> None:
        async def fail() -> None:
            raise ValueError("x")

        with pytest.raises(ExceptionGroup):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(fail())
                await asyncio.sleep(20)

    async def gather() -> None:
        assert await asyncio.gather(asyncio.sleep(0, 1), asyncio.sleep(0.001, 2)) == [1, 2]

    answer(serve, groups, failing, gather)


def test_thread_pools(serve: Any) -> None:
    async def there_and_back() -> None:
        def work() -> bool:
            anyio.from_thread.run(anyio.sleep, 0)
            return threading.current_thread() is not threading.main_thread()

        assert await anyio.to_thread.run_sync(work)

    async def executor() -> None:
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(None, threading.get_ident) != threading.get_ident()

    answer(serve, there_and_back, executor)


def test_a_timer_set_in_the_first_segment_fires(serve: Any) -> None:
    fired = threading.Event()

    async def handler() -> None:
        asyncio.get_running_loop().call_later(0.01, fired.set)

    answer(serve, handler, count=1)
    assert fired.wait(10)


def test_a_background_task_of_the_first_segment_runs(serve: Any) -> None:
    ran = threading.Event()
    kept: list[Any] = []

    async def handler() -> None:
        async def work() -> None:
            ran.set()

        kept.append(asyncio.create_task(work()))

    answer(serve, handler, count=1)
    assert ran.wait(10)


# --- contexts


def test_contexts_are_isolated_and_live_as_long_as_the_request(serve: Any) -> None:
    async def handler() -> None:
        assert variable.get() == 0
        variable.set(7)
        await asyncio.sleep(0)
        assert variable.get() == 7
        assert await asyncio.to_thread(variable.get) == 7

    async def quick() -> None:
        assert variable.get() == 0
        variable.set(9)

    answer(serve, handler, quick)


def test_pipelined_requests_do_not_share_a_context(serve: Any) -> None:
    seen: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(variable.get())
        variable.set(len(seen))
        await respond(send)

    with serve(app, lifespan="off").connect() as client:
        client.sendall(head("GET", "/") * 5 + head("GET", "/", "connection: close"))
        read_all(client)
    assert seen == [0] * 6


def test_the_context_is_the_one_that_startup_left(serve: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            variable.set(42)
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await respond(send, str(variable.get()).encode())
            variable.set(1)

    with Client(serve(app, lifespan="on").connect()) as client:
        assert client.request("GET").body == b"42"
        assert client.request("GET").body == b"42"


# --- the loop


def test_debug_mode(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        if scope["path"] == "/touch":
            repr(task)
        if scope["path"] != "/quick":
            await asyncio.sleep(0)
        await read_body(receive)
        await respond(send, scope["path"].encode())

    caplog.set_level(logging.ERROR)
    server = serve(app, lifespan="off")
    server.submit(lambda: server.loop.set_debug(True))
    with Client(server.connect()) as client:
        for path in ("/quick", "/slow", "/touch", "/quick"):
            assert client.request("GET", path).body == path.encode()
            assert client.request("POST", path, body=b"x" * 100_000).body == path.encode()


def test_no_task_is_left_behind(serve: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/slow":
            await asyncio.sleep(0)
        if scope["path"] == "/touch":
            repr(asyncio.current_task())
        await respond(send)

    server = serve(app, lifespan="off")
    before = server.submit(lambda: len(asyncio.all_tasks()))
    with Client(server.connect()) as client:
        for path in ("/quick", "/slow", "/touch") * 3:
            assert client.request("GET", path).status == 200
    assert server.submit(lambda: len(asyncio.all_tasks())) == before


def test_a_task_factory_is_used(serve: Any, task_mode: str) -> None:
    made: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            loop = asyncio.get_running_loop()

            def factory(loop: Any, coroutine: Any, **options: Any) -> Any:
                made.append("request" if "context" in options else "other")
                return asyncio.Task(coroutine, loop=loop, **options)

            await receive()
            loop.set_task_factory(factory)
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await respond(send)

    server = serve(app, lifespan="on")
    with Client(server.connect()) as client:
        assert client.request("GET").status == 200
    assert "request" in made


def test_objects_are_used_again_only_when_nobody_kept_them(serve: Any) -> None:
    kept: list[Any] = []
    seen: list[tuple[int, int]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/keep":
            kept.append((receive, send))
        seen.append((id(receive), id(send)))
        await respond(send, scope["path"].encode())

    async def use_kept() -> None:
        for receive, send in kept:
            assert await receive() == {"type": "http.disconnect"}
            with pytest.raises(RuntimeError, match="the response is complete"):
                await send({"type": "http.response.start", "status": 200})

    server = serve(app, lifespan="off")
    with Client(server.connect()) as client:
        for path in ("/a", "/keep", "/a", "/keep", "/a"):
            assert client.request("GET", path).body == path.encode()
        server.submit(use_kept)
        assert client.request("GET", "/a").body == b"/a"
    assert len({seen[1], seen[3], seen[4]}) == 3


def test_a_request_that_only_it_can_reach_is_not_collected(serve: Any) -> None:
    # asyncio keeps weak references to tasks: a handler that waits for an object which nobody else
    # holds was garbage, and its request ended with 500.
    waiting = threading.Event()
    events: list[weakref.ref[asyncio.Event]] = []
    tasks: list[weakref.ref[Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        event = asyncio.Event()
        events.append(weakref.ref(event))
        tasks.append(weakref.ref(asyncio.current_task()))
        asyncio.get_running_loop().call_soon(waiting.set)
        await event.wait()
        await respond(send, b"fine")

    server = serve(app, lifespan="off")
    with Client(server.connect()) as client:
        client.send("GET", "/")
        assert waiting.wait(20)
        server.submit(gc.collect)

        def wake() -> None:
            event = events[0]()
            assert event is not None
            event.set()

        server.submit(wake)
        assert client.response().body == b"fine"

    def collected() -> bool:
        gc.collect()
        return tasks[0]() is None

    assert server.submit(collected)
