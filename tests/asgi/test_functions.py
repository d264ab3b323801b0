"""`receive` and `send` as objects: what libraries ask of functions that they are given."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import sys
import warnings
from typing import Any

import asgiref.sync
import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from apps import respond


def ask(serve: Any, kind: str, question: Any) -> None:
    """Ask in a request, or in a WebSocket; what fails there fails here."""
    failed: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
        try:
            await question(receive, send)
        except BaseException as error:
            failed.append(error)
        if scope["type"] == "http":
            await respond(send, b"asked")

    server = serve(app, lifespan="off")
    if kind == "http":
        for _ in range(3):  # the objects of a request are used again
            assert httpx.post(server.url, content=b"body").text == "asked"
    else:
        with connect(server.url.replace("http", "ws", 1)) as client:
            with contextlib.suppress(ConnectionClosed):  # nobody need wait for it
                client.send("text")
            assert list(client) in ([], ["sent"])
    for error in failed:
        raise error


@pytest.fixture(params=["http", "websocket"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_they_are_coroutine_functions(serve: Any, kind: str) -> None:
    async def question(receive: Any, send: Any) -> None:
        for function in (receive, send):
            assert asyncio.iscoroutinefunction(function)
            assert asgiref.sync.iscoroutinefunction(function)
            if sys.version_info >= (3, 12):
                assert inspect.iscoroutinefunction(function)

    ask(serve, kind, question)


def test_synchronous_code_sends_without_a_warning(serve: Any) -> None:
    """As consumers of Django channels do, and `WsgiToAsgi`."""

    async def question(receive: Any, send: Any) -> None:
        def use() -> None:
            assert asgiref.sync.async_to_sync(receive)() == {
                "type": "websocket.receive",
                "text": "text",
            }
            asgiref.sync.async_to_sync(send)({"type": "websocket.send", "text": "sent"})

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            await asgiref.sync.sync_to_async(use)()

    ask(serve, "websocket", question)


def test_they_look_like_functions(serve: Any, kind: str) -> None:
    async def question(receive: Any, send: Any) -> None:
        for name, function in (("receive", receive), ("send", send)):
            assert function.__name__ == function.__qualname__ == name
            assert type(function.__self__).__name__.endswith("Exchange")
            assert repr(function).startswith(f"<{name} of <framegate._http.")
            assert callable(function) and hash(function)
            assert inspect.signature(function)
            gc.collect()
            assert function in gc.get_referrers(function.__self__)

    ask(serve, kind, question)


def test_arguments(serve: Any, kind: str) -> None:
    async def question(receive: Any, send: Any) -> None:
        event = await receive(*(), **{})
        assert event["type"] == ("http.request" if kind == "http" else "websocket.receive")
        for call in (
            lambda: receive(1),
            lambda: receive(message=1),
            lambda: send(),
            lambda: send({}, {}),
            lambda: send({}, message={}),
            lambda: send(other={}),
        ):
            with pytest.raises(TypeError, match="argument"):
                call()
        for call in (lambda: send({"type": "x"}), lambda: send(message={"type": "x"})):
            with pytest.raises(ValueError, match="unknown ASGI message"):
                await call()

    ask(serve, kind, question)


def test_nobody_else_makes_one(serve: Any, kind: str) -> None:
    """One that Python had made would have nothing in it."""

    async def question(receive: Any, send: Any) -> None:
        awaitable = receive()
        await awaitable
        types = {type(receive), type(send), type(awaitable), type(asyncio.current_task())}
        if kind == "http":  # where it has to wait for the client to go
            waiting = receive().__await__()
            types.add(type(next(waiting)))
            waiting.close()
        for one in types - {asyncio.Task}:
            assert one.__module__ == "framegate._http"
            with pytest.raises(TypeError, match="cannot create"):
                one()
            with pytest.raises((TypeError, AttributeError)):
                one.__new__(one)
            with pytest.raises(TypeError, match="not safe"):
                object.__new__(one)

    ask(serve, kind, question)


def test_callbacks_stay_when_they_cannot_be_compared(serve: Any) -> None:
    async def question(receive: Any, send: Any) -> None:
        await receive()
        waiting = receive().__await__()
        waiter = next(waiting)
        called: list[Any] = []

        class Odd:
            def __call__(self, done: Any) -> None:
                called.append(done)

            def __eq__(self, other: object) -> bool:
                raise ValueError("odd")

            __hash__ = object.__hash__

        waiter.add_done_callback(called.append)
        waiter.add_done_callback(Odd())
        with pytest.raises(ValueError, match="odd"):
            waiter.remove_done_callback(print)
        assert waiter.cancel()
        while len(called) < 2:
            await asyncio.sleep(0)
        assert called == [waiter, waiter]
        waiting.close()

    ask(serve, "http", question)
