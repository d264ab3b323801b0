"""Every way in which a WebSocket ends, as both sides see it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import random
import socket
import threading
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

import framegate
from framegate import _http
from websocket.raw import BINARY, CLOSE, TEXT, close_frame, frame


def disconnect(code: int, reason: str = "") -> dict[str, Any]:
    return {"type": "websocket.disconnect", "code": code, "reason": reason}


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (1000, ""),
        (1000, "bye"),
        (1001, "going away"),
        (1011, ""),
        (3000, "grüße"),
        (4999, "x" * 123),
    ],
)
def test_the_client_closes(
    serve: Any, accepting: Any, raw: Any, saw: Any, code: int, reason: str
) -> None:
    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        saw(await receive())
        saw(await receive())

    client = raw(serve(app, lifespan="off")).open()
    client.send(close_frame(code, reason))
    assert client.read_close() == (code, reason)
    assert client.read_to_end() == b""
    assert saw.next() == saw.next() == disconnect(code, reason)


def test_the_client_closes_without_a_code(serve: Any, accepting: Any, raw: Any, saw: Any) -> None:
    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        saw(await receive())

    client = raw(serve(app, lifespan="off")).open()
    client.send(frame(CLOSE))
    assert client.read_frame() == (CLOSE, b"")
    assert client.read_to_end() == b""
    assert saw.next() == disconnect(1005)


@pytest.mark.parametrize(
    ("message", "code", "reason"),
    [
        ({}, 1000, ""),
        ({"code": None, "reason": None}, 1000, ""),
        ({"code": 1001}, 1001, ""),
        ({"code": 4000, "reason": "grüße"}, 4000, "grüße"),
        ({"reason": "ü" * 100}, 1000, "ü" * 61),
    ],
)
def test_the_application_closes(
    serve: Any, accepting: Any, saw: Any, message: dict[str, Any], code: int, reason: str
) -> None:
    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.send", "text": "last"})
        await send({"type": "websocket.close", **message})
        for late in [{"type": "websocket.send", "text": "late"}, {"type": "websocket.accept"}]:
            with pytest.raises(RuntimeError, match="unexpected ASGI message"):
                await send(late)
        saw(await receive())
        await send({"type": "websocket.close"})
        saw("closing what is closed is silent")

    server = serve(app, lifespan="off")
    with connect(f"ws://127.0.0.1:{server.port}") as client:
        assert client.recv() == "last"
        with pytest.raises(ConnectionClosed):
            client.recv()
        assert (client.close_code, client.close_reason) == (code, reason)
    assert saw.next() == disconnect(code, reason)
    assert saw.next() == "closing what is closed is silent"


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2000, 5000, -1, 1 << 70, "x"])
def test_codes_that_may_not_be_sent(
    serve: Any, accepting: Any, raw: Any, saw: Any, code: Any
) -> None:
    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(ValueError, match="3000 to 4999"):
            await send({"type": "websocket.close", "code": code})

    client = raw(serve(app, lifespan="off")).open()
    assert client.read_close() == (1000, "")


def test_the_application_returns(serve: Any, accepting: Any, raw: Any) -> None:
    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.send", "text": "last"})

    client = raw(serve(app, lifespan="off")).open()
    assert client.read_frame() == (TEXT, b"last")
    assert client.read_close() == (1000, "")


@pytest.mark.parametrize("suspended", [False, True])
def test_the_application_raises(
    serve: Any, accepting: Any, raw: Any, caplog: pytest.LogCaptureFixture, suspended: bool
) -> None:
    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if suspended:
            await receive()
        raise ValueError("a bug in the application")

    with caplog.at_level(logging.ERROR, "framegate"):
        client = raw(serve(app, lifespan="off")).open()
        client.send(frame(TEXT, b"x"))
        assert client.read_close() == (1011, "internal error")
    assert "a bug in the application" in caplog.text
    assert "Traceback" in caplog.text


def test_the_application_is_cancelled(serve: Any, accepting: Any, raw: Any) -> None:
    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_soon(task.cancel)
        await receive()

    client = raw(serve(app, lifespan="off")).open()
    assert client.read_close() == (1011, "internal error")


@pytest.mark.parametrize("how", ["end", "reset", "reset inside a message"])
def test_a_lost_link_is_1006(serve: Any, accepting: Any, raw: Any, saw: Any, how: str) -> None:
    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        saw(await receive())
        saw(await receive())
        with pytest.raises(OSError) as caught:
            await send({"type": "websocket.send", "text": "is anybody there?"})
        assert isinstance(caught.value, framegate.ClientDisconnected)
        await send({"type": "websocket.close"})
        saw("over")

    client = raw(serve(app, lifespan="off")).open()
    client.send(frame(TEXT, b"one"))
    assert saw.next()["text"] == "one"
    if how == "end":
        client.socket.close()
    else:
        if how == "reset inside a message":
            client.send(frame(BINARY, b"x" * 100_000)[:50_000])
        client.reset()
    assert saw.next() == disconnect(1006)
    assert saw.next() == "over"


def test_send_to_a_client_that_has_closed_raises(
    serve: Any, accepting: Any, raw: Any, saw: Any
) -> None:
    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(framegate.ClientDisconnected):
            while True:
                await send({"type": "websocket.send", "text": "tick"})
                await asyncio.sleep(0)
        saw(await receive())

    client = raw(serve(app, lifespan="off")).open()
    client.send(close_frame(1001, "done"))
    while (got := client.read_frame()) == (TEXT, b"tick"):
        pass
    assert got is not None and got[0] == CLOSE
    assert saw.next() == disconnect(1001, "done")


def test_an_uncaught_disconnection_is_no_error(
    serve: Any, accepting: Any, raw: Any, saw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        try:
            await send({"type": "websocket.send", "text": "to nobody"})
        finally:
            saw("out")

    with caplog.at_level(logging.INFO, "framegate"):
        server = serve(app, lifespan="off")
        client = raw(server).open()
        client.reset()
        assert saw.next() == "out"
        server.submit(lambda: asyncio.sleep(0))
    assert caplog.text == ""


def test_messages_before_the_close_are_delivered_first(
    serve: Any, accepting: Any, raw: Any, saw: Any
) -> None:
    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.05)
        while (event := await receive())["type"] == "websocket.receive":
            saw(event["text"])
        saw(event)

    client = raw(serve(app, lifespan="off")).open()
    client.send(*(frame(TEXT, b"%d" % n) for n in range(500)), close_frame(4321, "all said"))
    assert [saw.next() for _ in range(500)] == [str(n) for n in range(500)]
    assert saw.next() == disconnect(4321, "all said")
    assert client.read_close() == (4321, "all said")


def test_both_close_at_once(serve: Any, accepting: Any, raw: Any, saw: Any) -> None:
    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.close", "code": 4001})
        saw(await receive())

    client = raw(serve(app, lifespan="off")).open()
    # Our close frame is read in one piece with the message that makes the application close.
    client.send(frame(TEXT, b"close, please"), close_frame(4002))
    assert client.read_close() == (4001, "")
    assert client.read_to_end() == b""
    assert saw.next() == disconnect(4002)


# Two threads: the state of an HTTP/2 client belongs to one.
@pytest.mark.parametrize("http", ["h1"])
def test_the_last_message_survives_a_client_that_keeps_talking(
    serve: Any, accepting: Any, raw: Any
) -> None:
    last = random.Random(5).randbytes(4 << 20)

    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.send", "bytes": last})

    client = raw(serve(app, lifespan="off")).open()

    def talk() -> None:
        with contextlib.suppress(OSError):
            for _ in range(200):
                client.send(frame(BINARY, b"." * 10_000))
            client.send(close_frame(1000))

    talking = threading.Thread(target=talk)
    talking.start()
    assert client.read_frame() == (BINARY, last)
    assert client.read_close() == (1000, "")
    talking.join(30)
    assert client.read_to_end() == b""


# hyper-h2 takes the first GOAWAY for the end; over HTTP/2 the core's own tests show it.
@pytest.mark.parametrize("http", ["h1", "h1-tls"])
def test_a_draining_server_says_1012(serve: Any, accepting: Any, raw: Any, saw: Any) -> None:
    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        saw("open")
        saw(await receive())

    server = serve(app, lifespan="off")
    client = raw(server).open()
    assert saw.next() == "open"
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    assert client.read_close() == (1012, "the server is shutting down")
    client.send(close_frame(1012))
    assert client.read_to_end() == b""
    stopping.join(30)
    assert saw.next() == disconnect(1012)


@pytest.mark.parametrize("http", ["h1", "h1-tls"])
def test_a_client_that_ignores_the_drain_is_cut(
    serve: Any, accepting: Any, raw: Any, saw: Any
) -> None:
    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        saw("open")
        saw(await receive())

    server = serve(app, lifespan="off")
    client = raw(server).open()
    assert saw.next() == "open"

    async def drain() -> Any:
        return await server.worker.drain(0.3)

    assert server.submit(drain) == 1
    assert client.read_close()[0] == 1012
    assert saw.next() == disconnect(1006)


@pytest.mark.parametrize("http", ["h1", "h2"])
def test_a_loop_that_ends_with_open_websockets(raw: Any, accepting: Any) -> None:
    ended = []

    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await receive()
        finally:
            ended.append(scope["path"])

    clients = []

    class Address:
        port = 0

        def connect(self) -> socket.socket:
            return socket.create_connection(("127.0.0.1", self.port), 20)

    async def main() -> None:
        worker = _http.Worker(app, framegate.Config(lifespan="off", access_log=False))
        listener = socket.create_server(("127.0.0.1", 0))
        Address.port = listener.getsockname()[1]
        worker.listen(listener.detach())
        for _ in range(3):
            clients.append(await asyncio.to_thread(lambda: raw(Address()).open()))

    with asyncio.Runner(loop_factory=framegate.new_event_loop) as runner:
        runner.run(main())
    # The tasks were cancelled, as asyncio does; the connections went with the loop.
    assert ended == ["/"] * 3
    for client in clients:
        with contextlib.suppress(ConnectionResetError):
            client.read_to_end()


def test_nothing_is_left_of_a_closed_websocket(serve: Any, echo_app: Any, raw: Any) -> None:
    def left() -> int:
        gc.collect()
        return sum(type(thing).__name__ == "WebSocketExchange" for thing in gc.get_objects())

    server = serve(echo_app, lifespan="off")
    before = server.submit(left)
    for number in range(10):
        client = raw(server).open()
        client.send(frame(TEXT, b"x"))
        assert client.read_frame() == (TEXT, b"x")
        if number % 2:
            client.reset()
        else:
            client.send(close_frame(1000))
            client.read_to_end()
            client.socket.close()

    async def gone() -> None:
        while server.worker.connections or left() > before:
            await asyncio.sleep(0.01)

    server.submit(lambda: asyncio.wait_for(gone(), 15))


def test_send_and_receive_are_awaited_on_their_loop(
    serve: Any, accepting: Any, raw: Any, saw: Any
) -> None:
    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        loop = asyncio.get_running_loop()

        async def elsewhere(call: Any) -> None:
            await call()

        def use() -> None:
            for call in [receive, lambda: send({"type": "websocket.send", "text": "x"})]:
                with pytest.raises(RuntimeError, match="another thread"):
                    asyncio.run(elsewhere(call))
            sending = send({"type": "websocket.send", "text": "from a thread"})
            asyncio.run_coroutine_threadsafe(sending, loop).result(20)

        await asyncio.to_thread(use)
        await send({"type": "websocket.send", "text": "fine here"})

    client = raw(serve(app, lifespan="off")).open()
    assert client.read_frame() == (TEXT, b"from a thread")
    assert client.read_frame() == (TEXT, b"fine here")


def test_a_closed_connection_is_forgotten(serve: Any, accepting: Any, raw: Any) -> None:
    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()

    server = serve(app, lifespan="off")
    clients = [raw(server).open() for _ in range(20)]
    assert server.submit(lambda: server.worker.connections) == 20
    for number, client in enumerate(clients):
        client.send(close_frame(1000))
        client.read_close()
        if number % 2:
            client.socket.close()
        else:
            client.reset()

    async def gone() -> None:
        while server.worker.connections:
            await asyncio.sleep(0.01)

    server.submit(lambda: asyncio.wait_for(gone(), 15))
