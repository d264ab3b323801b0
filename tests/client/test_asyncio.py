"""`framegate.client.connect_async`, on event loops of three makes."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from client.conftest import echo_app, run_on
from framegate import client
from framegate.client import connect_async, connections_async
from framegate.loop import new_event_loop
from server_thread import Serve

Run = Callable[[Any], Any]


def test_messages_go_both_ways(echo: str, run: Run) -> None:
    async def main() -> None:
        async with connect_async(echo, subprotocols=["a", "b"]) as websocket:
            assert websocket.subprotocol == "b"
            assert websocket.is_compressed
            for message in ["", "x", "heiß " * 300, b"", os.urandom(300_000), b"a" * 3_000_000]:
                await websocket.send(message)
                assert await websocket.recv() == message
        assert websocket.close_code == 1000

    run(main())


def test_the_server_closes(echo: str, run: Run) -> None:
    async def main() -> None:
        websocket = await connect_async(echo)
        await websocket.send("before")
        await websocket.send("close 4000 why")
        assert await websocket.recv() == "before"
        with pytest.raises(client.ConnectionClosedError, match="code 4000: why"):
            await websocket.recv()
        with pytest.raises(client.ConnectionClosedError):
            await websocket.send("after")
        await websocket.close()
        assert (websocket.close_code, websocket.close_reason) == (4000, "why")

    run(main())


def test_iteration_ends_with_a_good_close(own_echo: str, run: Run) -> None:
    async def main() -> None:
        async with connect_async(own_echo) as websocket:
            for text in ("a", "b", "close 1001"):
                await websocket.send(text)
            assert [message async for message in websocket] == ["a", "b"]

    run(main())


def test_cancelling_loses_no_message(own_echo: str, run: Run) -> None:
    async def main() -> None:
        async with connect_async(own_echo) as websocket:
            for i in range(50):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(websocket.recv(), 0.001 if i % 5 == 0 else 0)
                await websocket.send(str(i))
                assert await websocket.recv() == str(i)

    run(main())


def test_one_task_receives(own_echo: str, run: Run) -> None:
    async def main() -> None:
        async with connect_async(own_echo) as websocket:
            first = asyncio.create_task(websocket.recv())
            await asyncio.sleep(0)
            with pytest.raises(client.ClientArgumentError, match="another task is receiving"):
                await websocket.recv()
            await websocket.send("x")
            assert await first == "x"

    run(main())


def test_many_tasks_send(own_echo: str, run: Run) -> None:
    async def main() -> None:
        payload = os.urandom(100_000)
        async with connect_async(own_echo, compression=False) as websocket:

            async def send(name: int) -> None:
                for i in range(20):
                    await websocket.send(bytes([name, i]) + payload)

            async with asyncio.TaskGroup() as group:
                for name in range(5):
                    group.create_task(send(name))
                heads = []
                for _ in range(100):
                    message = await websocket.recv()
                    assert isinstance(message, bytes)
                    assert message[2:] == payload
                    heads.append((message[0], message[1]))
        for name in range(5):
            assert [i for of, i in heads if of == name] == list(range(20))

    run(main())


def test_a_sender_waits_for_a_slow_reader(run: Run) -> None:
    async def main() -> None:
        release = asyncio.Event()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"ws://127.0.0.1:{listener.getsockname()[1]}/"
            opening = asyncio.ensure_future(open_async(url))
            near = await asyncio.to_thread(shake_hands, listener)
            websocket = await opening
            sent = 0

            async def send() -> None:
                nonlocal sent
                for _ in range(100):
                    await websocket.send(os.urandom(1 << 20))
                    sent += 1
                release.set()

            sending = asyncio.create_task(send())
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(release.wait(), 1)
            assert sent < 20
            reading = asyncio.to_thread(read_all, near)
            reader = asyncio.ensure_future(reading)
            await sending
            # The far side answers no close frame: what ends it is the end of its reading.
            near.shutdown(socket.SHUT_WR)
            await websocket.close()
            assert await reader > 100 << 20
            near.close()

    run(main())


async def open_async(url: str) -> client.AsyncWebSocket:
    return await connect_async(url, compression=False, close_timeout=1)


def shake_hands(listener: socket.socket) -> socket.socket:
    import base64
    import hashlib

    connection, _ = listener.accept()
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += connection.recv(1)
    fields = dict(
        line.lower().split(b": ", 1) if b"key" not in line else (b"key", line.split(b": ")[1])
        for line in head.split(b"\r\n")[1:-2]
    )
    magic = fields[b"key"] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1(magic, usedforsecurity=False).digest())
    connection.sendall(
        b"HTTP/1.1 101 X\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-accept: " + accept + b"\r\n\r\n"
    )
    return connection


def read_all(connection: socket.socket) -> int:
    count = 0
    try:
        while chunk := connection.recv(1 << 20):
            count += len(chunk)
    except ConnectionResetError:
        pass
    return count


def test_who_does_not_receive_stops_the_server(own_echo: str, run: Run) -> None:
    async def main() -> None:
        async with connect_async(own_echo, compression=False) as websocket:
            payload = os.urandom(1 << 20)
            # The kernel may keep 36 of them in each direction: recent ones have 32 MiB for what
            # was received, and 4 MiB for what is to be sent.
            messages, sent = 100, 0

            async def send() -> None:
                nonlocal sent
                for _ in range(messages):
                    await websocket.send(payload)
                    sent += 1

            sending = asyncio.create_task(send())
            before = -1
            while sent != before:
                before = sent
                await asyncio.wait([sending], timeout=0.3)
            assert not sending.done()
            for _ in range(messages):
                assert await websocket.recv() == payload
            await sending

    run(main())


def test_an_answer_does_not_wait_for_messages_that_nobody_takes(run: Run) -> None:
    """Answers to messages that came together leave together, but wait for none."""

    def server(near: socket.socket, count: int) -> bytes:
        with near:
            near.sendall(b"\x81\x01x" * 3)
            got = b""
            while len(got) < count * 7 and (piece := near.recv(1024)):
                got += piece
            return got

    async def main(answers: int) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"ws://127.0.0.1:{listener.getsockname()[1]}/"
            opening = asyncio.ensure_future(connect_async(url, compression=False)._open())
            near = await asyncio.to_thread(shake_hands, listener)
            websocket = await opening
            received = asyncio.ensure_future(asyncio.to_thread(server, near, answers))
            for _ in range(answers):
                assert await websocket.recv() == "x"
                await websocket.send("y")
            # Nothing is received meanwhile.
            assert len(await asyncio.wait_for(received, 20)) == answers * 7

    for answers in (1, 2, 3):
        run(main(answers))


def test_silence_is_noticed(run: Run) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"ws://127.0.0.1:{listener.getsockname()[1]}/"
            opening = asyncio.ensure_future(
                asyncio.wait_for(
                    connect_async(url, ping_interval=0.05, ping_timeout=0.05)._open(), 20
                )
            )
            near = await asyncio.to_thread(shake_hands, listener)
            websocket = await opening
            with near, pytest.raises(client.ConnectionClosedError, match="ping timeout"):
                await websocket.recv()
            await websocket.close()

    run(main())


def test_a_server_that_does_not_end_the_connection_is_left(run: Run) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"ws://127.0.0.1:{listener.getsockname()[1]}/"
            opening = asyncio.ensure_future(
                connect_async(url, close_timeout=0.05, ping_interval=None)._open()
            )
            near = await asyncio.to_thread(shake_hands, listener)
            websocket = await opening
            near.sendall(b"\x88\x02\x03\xe9")  # going away
            with near, pytest.raises(client.ConnectionClosedOK):
                await websocket.recv()
            # Its time runs although nobody closes.
            while websocket._socket.state() & client.IS_DONE == 0:
                await asyncio.sleep(0.01)
            await websocket.close()

    run(main())


def test_opening_can_be_cancelled(run: Run) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"ws://127.0.0.1:{listener.getsockname()[1]}/"
            opening = asyncio.ensure_future(connect_async(url)._open())
            near, _ = await asyncio.to_thread(listener.accept)
            with near:
                assert await asyncio.to_thread(near.recv, 1) == b"G"
                opening.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await opening
                # Nothing is left of it: its connection has ended.
                await asyncio.to_thread(read_all, near)

    run(main())


def test_cancelling_a_close_cuts_the_connection(run: Run) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            url = f"ws://127.0.0.1:{listener.getsockname()[1]}/"
            opening = asyncio.ensure_future(connect_async(url)._open())
            near = await asyncio.to_thread(shake_hands, listener)
            websocket = await opening
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(websocket.close(), 0.05)
            with near:
                await asyncio.to_thread(read_all, near)

    run(main())


def test_failures_are_those_of_threads(own_echo: str, run: Run) -> None:
    async def main() -> None:
        with pytest.raises(client.HandshakeRefused) as caught:
            await connect_async(own_echo + "refused")
        assert caught.value.status == 403
        with pytest.raises(client.ClientArgumentError):
            await connect_async("nonsense")
        with pytest.raises(client.ServerUnreachable):
            await connect_async("ws://name.invalid/")

    run(main())


def test_connections_begin_anew(own_echo: str, run: Run) -> None:
    async def main() -> None:
        rounds = 0
        async for websocket in connections_async(own_echo, pause_first=0.01, pause_last=0.02):
            rounds += 1
            await websocket.send(f"close {4000 + rounds}")
            with pytest.raises(client.ConnectionClosedError):
                await websocket.recv()
            if rounds == 3:
                break
        assert rounds == 3

    run(main())


def test_a_handler_may_use_it(serve: Serve, own_echo: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            return await echo_app(scope, receive, send)
        async with connect_async(own_echo) as websocket:
            await websocket.send("from a handler")
            answer = await websocket.recv()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(answer).encode()})

    server = serve(app)
    with server.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    assert received.endswith(b"from a handler")


def test_two_loops_at_once(own_echo: str) -> None:
    async def main(name: str) -> None:
        async with connect_async(own_echo) as websocket:
            for i in range(200):
                await websocket.send(f"{name} {i}")
                assert await websocket.recv() == f"{name} {i}"

    threads = [
        threading.Thread(target=run_on, args=(factory, main(str(factory))))
        for factory in (asyncio.new_event_loop, new_event_loop)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
