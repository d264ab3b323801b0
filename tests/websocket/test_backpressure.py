"""Backpressure: nobody is made to keep what the other side does not take."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

import pytest

import framegate
from websocket.raw import BINARY, PING, TEXT, close_frame, frame

# Far above what the kernel buffers of a loopback connection hold.
MANY = 400
SIZE = 65536


def wait_until_still(server: Any, count: Callable[[], int]) -> None:
    """Returns when `count()` no longer grows."""
    before = -1
    while before != count():
        before = count()
        server.submit(lambda: asyncio.sleep(0.2))


def test_the_socket_is_not_read_while_the_application_does_not_receive(
    serve: Any, accepting: Any, until_told: Any, raw: Any, saw: Any
) -> None:
    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await until_told()
        for number in range(MANY):
            event = await receive()
            assert event["bytes"][:4] == number.to_bytes(4, "big")
        await send({"type": "websocket.send", "text": "all there"})

    client = raw(serve(app, lifespan="off")).open()
    go = saw.next()
    data = b"".join(
        frame(BINARY, number.to_bytes(4, "big") + bytes(SIZE)) for number in range(MANY)
    )
    client.socket.settimeout(0.5)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < len(data):
            sent += client.socket.send(data[sent : sent + SIZE])
    assert sent < len(data) // 2, "the server read what nobody wanted"
    go()
    client.socket.settimeout(20)
    client.socket.sendall(data[sent:])
    assert client.read_frame() == (TEXT, b"all there")


def test_many_small_messages_wait_in_the_kernel_too(
    serve: Any, counting: Any, raw: Any, saw: Any
) -> None:
    client = raw(serve(counting, lifespan="off")).open()
    go = saw.next()
    client.socket.settimeout(0.5)
    # Whole frames, so that the count is known.
    batch = frame(TEXT, b"m") * 1000
    batches, rest = 0, b""
    with contextlib.suppress(TimeoutError):
        for _ in range(20_000):
            batches += 1
            rest = batch
            while rest:
                rest = rest[client.socket.send(rest) :]
    assert rest, "140 MB of messages were read"
    go()
    client.socket.settimeout(20)
    client.socket.sendall(rest + close_frame(1000))
    assert saw.next() == batches * 1000


def test_send_waits_for_a_client_that_does_not_read(
    serve: Any, accepting: Any, raw: Any, saw: Any
) -> None:
    sent = 0

    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        for number in range(MANY):
            payload = number.to_bytes(4, "big") + bytes(SIZE)
            await send({"type": "websocket.send", "bytes": payload})
            sent += 1

    server = serve(app, lifespan="off")
    client = raw(server).open()
    wait_until_still(server, lambda: sent)
    assert sent < MANY // 2, "send() took what the client did not"
    for number in range(MANY):
        opcode, payload = client.read_frame()
        assert (opcode, payload[:4], len(payload)) == (BINARY, number.to_bytes(4, "big"), SIZE + 4)
    assert client.read_close() == (1000, "")


def test_while_send_waits_messages_and_pings_are_still_read(
    serve: Any, accepting: Any, raw: Any, saw: Any
) -> None:
    sent = 0

    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def flood() -> None:
            nonlocal sent
            while True:
                await send({"type": "websocket.send", "bytes": bytes(SIZE)})
                sent += 1

        flooding = asyncio.create_task(flood())
        saw((await receive())["text"])
        flooding.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await flooding
        await send({"type": "websocket.close", "code": 4000})

    server = serve(app, lifespan="off")
    client = raw(server).open()
    # As long as the kernel takes what is sent, every ping is answered.
    wait_until_still(server, lambda: sent)
    client.send(frame(PING, bytes(125)) * 1000, frame(TEXT, b"stop"))
    assert saw.next() == "stop"
    pongs = 0
    while (got := client.read_frame())[0] != 0x8:
        pongs += got[0] == 0xA
    # What waits to be written of them is bounded; of the others only the latest is answered.
    assert pongs < 500


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_waiting_send_ends_with_the_connection(
    serve: Any, accepting: Any, raw: Any, saw: Any, how: str
) -> None:
    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with pytest.raises(framegate.ClientDisconnected):
            while True:
                await send({"type": "websocket.send", "bytes": bytes(SIZE)})
        saw(await receive())

    client = raw(serve(app, lifespan="off")).open()
    assert client.read_frame() == (BINARY, bytes(SIZE))
    if how == "close":
        client.send(close_frame(1001))
        expected = 1001
    else:
        client.reset()
        expected = 1006
    assert saw.next()["code"] == expected


def test_a_slow_reader_gets_everything_after_the_application_has_ended(
    serve: Any, accepting: Any, raw: Any
) -> None:
    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.send", "bytes": bytes(16 << 20)})

    server = serve(app, lifespan="off")
    client = raw(server)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    client.open()
    server.submit(lambda: asyncio.sleep(0.2))
    assert client.read_frame() == (BINARY, bytes(16 << 20))
    assert client.read_close() == (1000, "")
