"""What the application learns when the client goes away."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from apps import respond
from framegate import ClientDisconnected
from peers.h11_client import Client
from peers.raw import head, read_head, reset

START = {"type": "http.response.start", "status": 200}


def chunk(data: bytes = b"x" * 1000) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": True}


class Probe:
    """Runs a handler and keeps what it saw."""

    def __init__(self, handler: Any) -> None:
        self.handler = handler
        self.seen: list[Any] = []
        self.waiting = threading.Event()
        self.done = threading.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/other":
            await respond(send)
            return
        try:
            await self.handler(self, receive, send)
        finally:
            self.done.set()


def run(serve: Any, handler: Any, *, leave: Any, request: bytes | None = None) -> Probe:
    probe = Probe(handler)
    # A close looks like a half-close until this time is over.
    server = serve(probe, lifespan="off", timeout_half_close=0.0)
    client = server.connect()
    client.sendall(request or head("GET", "/"))
    assert probe.waiting.wait(10)
    leave(client)
    assert probe.done.wait(10)
    with Client(server.connect()) as other:
        assert other.request("GET", "/other").status == 200
    return probe


def close(client: Any) -> None:
    client.close()


LEAVE = pytest.mark.parametrize("leave", [close, reset], ids=["close", "reset"])


@LEAVE
def test_receive_gives_disconnect_before_the_response(serve: Any, leave: Any) -> None:
    async def handler(probe: Probe, receive: Any, send: Any) -> None:
        probe.seen.append(await receive())
        probe.waiting.set()
        probe.seen.append(await receive())
        probe.seen.append(await receive())

    probe = run(serve, handler, leave=leave)
    assert [event["type"] for event in probe.seen] == [
        "http.request",
        "http.disconnect",
        "http.disconnect",
    ]


@LEAVE
def test_receive_gives_disconnect_in_mid_upload(serve: Any, leave: Any) -> None:
    async def handler(probe: Probe, receive: Any, send: Any) -> None:
        probe.seen.append(await receive())
        probe.waiting.set()
        probe.seen.append(await receive())

    request = head("POST", "/", "content-length: 100") + b"part"
    probe = run(serve, handler, leave=leave, request=request)
    assert probe.seen == [
        {"type": "http.request", "body": b"part", "more_body": True},
        {"type": "http.disconnect"},
    ]


@LEAVE
def test_receive_gives_disconnect_while_streaming(serve: Any, leave: Any) -> None:
    async def handler(probe: Probe, receive: Any, send: Any) -> None:
        await receive()
        await send(START)
        await send(chunk())
        probe.waiting.set()
        probe.seen.append(await receive())

    probe = run(serve, handler, leave=lambda client: (read_head(client), leave(client)))
    assert probe.seen == [{"type": "http.disconnect"}]


@LEAVE
def test_send_raises_an_os_error(serve: Any, leave: Any) -> None:
    async def handler(probe: Probe, receive: Any, send: Any) -> None:
        await receive()
        probe.waiting.set()
        await receive()
        for message in (START, chunk(), chunk()):
            try:
                await send(message)
            except OSError as error:
                probe.seen.append(error)

    probe = run(serve, handler, leave=leave)
    assert [type(error) for error in probe.seen] == [ClientDisconnected] * 3
    assert str(probe.seen[0]) == (
        "the client closed the connection before the response was complete"
    )


@LEAVE
def test_send_raises_while_it_waits_for_room(serve: Any, leave: Any) -> None:
    async def handler(probe: Probe, receive: Any, send: Any) -> None:
        await send(START)
        asyncio.get_running_loop().call_later(0.05, probe.waiting.set)
        try:
            while True:
                await send(chunk(bytes(2**20)))
        except ClientDisconnected as error:
            probe.seen.append(error)

    assert len(run(serve, handler, leave=leave).seen) == 1


def test_the_application_is_not_cancelled(serve: Any) -> None:
    async def handler(probe: Probe, receive: Any, send: Any) -> None:
        await receive()
        probe.waiting.set()
        await receive()
        await asyncio.sleep(0.01)
        probe.seen.append("went on")

    assert run(serve, handler, leave=reset).seen == ["went on"]


def test_a_propagated_disconnect_is_no_error(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def handler(probe: Probe, receive: Any, send: Any) -> None:
        await receive()
        probe.waiting.set()
        await receive()
        await send(START)

    with caplog.at_level(logging.DEBUG, "framegate.asgi"):
        run(serve, handler, leave=close)
    assert [record.levelname for record in caplog.records] == ["DEBUG"]


def test_a_disconnect_in_a_task_group_is_no_error(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(probe: Probe, receive: Any, send: Any) -> None:
        await receive()
        probe.waiting.set()
        await receive()
        async with asyncio.TaskGroup() as outer:
            outer.create_task(grouped(send))

    async def grouped(send: Any) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(wrapped(send))
            group.create_task(wrapped(send))

    async def wrapped(send: Any) -> None:
        await send(START)

    with caplog.at_level(logging.DEBUG, "framegate.asgi"):
        run(serve, handler, leave=close)
    assert [record.levelname for record in caplog.records] == ["DEBUG"]


def test_another_error_in_the_group_is_one(serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def handler(probe: Probe, receive: Any, send: Any) -> None:
        await receive()
        probe.waiting.set()
        await receive()
        raise ExceptionGroup("both", [ClientDisconnected("gone"), ValueError("mine")])

    run(serve, handler, leave=close)
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_pipelined_request_is_not_a_disconnect(serve: Any) -> None:
    async def handler(probe: Probe, receive: Any, send: Any) -> None:
        await receive()
        waiting = asyncio.ensure_future(receive())
        await asyncio.sleep(0.05)
        probe.seen.append(waiting.done())
        probe.waiting.set()
        await respond(send)
        probe.seen.append(await waiting)

    probe = run(serve, handler, leave=close, request=head("GET", "/") + head("GET", "/other"))
    assert probe.seen == [False, {"type": "http.disconnect"}]


def test_a_waiting_receive_is_told_when_the_response_is_complete(serve: Any) -> None:
    async def handler(probe: Probe, receive: Any, send: Any) -> None:
        await receive()
        waiting = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        await respond(send)
        probe.seen.append(await waiting)
        probe.waiting.set()

    assert run(serve, handler, leave=close).seen == [{"type": "http.disconnect"}]
