"""Pings by the server: who is asked, who is given up, and who is not."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from typing import Any

import pytest
from websockets.sync.client import connect

from websocket.raw import PING, PONG, TEXT, close_frame, frame

OPTIONS = {"lifespan": "off", "ws_ping_interval": 0.3, "ws_ping_timeout": 0.5}


def test_a_silent_client_is_asked_and_given_up(
    serve: Any, accepting: Any, raw: Any, saw: Any
) -> None:
    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        saw(await receive())

    client = raw(serve(app, **OPTIONS)).open()
    assert client.read_frame() == (PING, b"")
    assert client.read_close() == (1011, "ping timeout")
    assert saw.next() == {"type": "websocket.disconnect", "code": 1006, "reason": "ping timeout"}


@pytest.mark.parametrize("answer", [frame(PONG), frame(PONG, b"other"), frame(TEXT, b"x")])
def test_whatever_comes_is_life(
    serve: Any, accepting: Any, raw: Any, saw: Any, answer: bytes
) -> None:
    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (event := await receive())["type"] == "websocket.receive":
            pass
        saw(event["code"])

    client = raw(serve(app, **OPTIONS)).open()
    for _ in range(4):  # longer than the timeout
        assert client.read_frame() == (PING, b"")
        client.send(answer)
    client.send(close_frame(1000))
    assert saw.next() == 1000


def test_a_client_that_talks_is_not_asked(serve: Any, echo_app: Any, raw: Any) -> None:
    client = raw(serve(echo_app, **OPTIONS)).open()
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        client.send(frame(TEXT, b"x"))
        assert client.read_frame() == (TEXT, b"x")


def test_off(serve: Any, echo_app: Any, raw: Any) -> None:
    client = raw(serve(echo_app, lifespan="off", ws_ping_interval=None)).open()
    client.socket.settimeout(1.0)
    with pytest.raises(TimeoutError):
        client.read_frame()
    client.socket.settimeout(20)
    without_timeout = raw(serve(echo_app, **(OPTIONS | {"ws_ping_timeout": None}))).open()
    for _ in range(5):
        assert without_timeout.read_frame() == (PING, b"")
    without_timeout.send(frame(TEXT, b"still here"))
    assert without_timeout.read_frame() == (TEXT, b"still here")


def test_an_application_that_blocks_loses_nobody(serve: Any, accepting: Any, saw: Any) -> None:
    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/block":
            await receive()
            for _ in range(3):
                time.sleep(1.0)  # twice the timeout, with one turn of the loop between
                await asyncio.sleep(0)
            saw("blocked")
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})

    server = serve(app, **OPTIONS)
    url = f"ws://127.0.0.1:{server.port}"
    with ExitStack() as stack:
        # These answer pings by themselves, from threads of their own.
        others = [stack.enter_context(connect(url, ping_interval=None)) for _ in range(20)]
        blocking = stack.enter_context(connect(f"{url}/block", ping_interval=None))
        blocking.send("now")
        assert saw.next() == "blocked"
        for client in [blocking, *others]:
            client.send("hello")
            assert client.recv(20) == "hello"


def test_nobody_is_judged_while_nobody_reads(
    serve: Any, accepting: Any, raw: Any, saw: Any
) -> None:
    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(2.0)
        count = 0
        while (await receive())["type"] == "websocket.receive":
            count += 1
        saw(count)

    client = raw(serve(app, **OPTIONS)).open()
    # More than may wait for receive(); the answers to pings are behind them.
    client.send(frame(TEXT, b"x" * 1000) * 200)
    assert client.read_frame() == (PING, b"")
    client.send(frame(PONG), close_frame(1000))
    assert saw.next() == 200
