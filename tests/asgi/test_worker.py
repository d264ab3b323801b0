"""`_http.Worker` itself: sockets, several at once, stopping."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from typing import Any

import pytest

from apps import respond
from framegate import _http
from framegate.config import Config
from framegate.loop import new_event_loop
from peers.h11_client import Client
from peers.raw import head, read_all, read_head


async def application(scope: Any, receive: Any, send: Any) -> None:
    await respond(send, scope["path"].encode())


def test_workers_in_one_process_share_nothing(serve: Any) -> None:
    def app(name: bytes) -> Any:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await asyncio.sleep(0)
            await respond(send, name + threading.current_thread().name.encode())

        return app

    servers = [serve(app(b"%d " % number), lifespan="off") for number in range(3)]
    for _ in range(3):
        for number, server in enumerate(servers):
            with Client(server.connect()) as client:
                assert client.request("GET").body == b"%d server" % number
    counts = [server.submit(lambda server=server: server.worker.requests) for server in servers]
    assert counts == [3, 3, 3]


def test_one_worker_listens_on_several_sockets(serve: Any, tmp_path: Any) -> None:
    server = serve(application, lifespan="off")
    path = str(tmp_path / "second")
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(path)
    unix.listen()
    server.submit(lambda: server.worker.listen(unix.detach()))
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.sendall(head("GET", "/unix", "connection: close"))
        assert read_all(client).endswith(b"/unix")
    with Client(server.connect()) as client:
        assert client.request("GET", "/tcp").body == b"/tcp"


def test_listen_refuses_what_is_no_listening_socket(serve: Any) -> None:
    server = serve(application, lifespan="off")

    def listen(fd: int) -> Any:
        return server.submit(lambda: server.worker.listen(fd))

    with pytest.raises(ValueError, match="call listen"):
        listen(socket.socket().detach())
    with pytest.raises(ValueError, match="not a stream socket"):
        listen(socket.socket(type=socket.SOCK_DGRAM).detach())
    with pytest.raises(OSError, match="Socket operation on non-socket"):
        listen(os.open("/dev/null", os.O_RDONLY))
    with pytest.raises(OSError, match="Bad file descriptor"):
        listen(1_000_000)
    with pytest.raises(ValueError, match="-1 is not a file descriptor"):
        listen(-1)


def test_a_worker_needs_a_framegate_loop() -> None:
    async def main() -> None:
        _http.Worker(application, Config())

    with pytest.raises(RuntimeError, match="framegate event loop"):
        asyncio.run(main())


def test_a_worker_belongs_to_its_thread(serve: Any) -> None:
    server = serve(application, lifespan="off")
    for use in (
        lambda: server.worker.connections,
        lambda: server.worker.stop_accepting(),
        lambda: server.worker.drain(1),
        lambda: server.worker.close(),
    ):
        with pytest.raises(RuntimeError, match="another thread"):
            use()


def test_an_option_that_is_missing_or_wrong_is_an_error() -> None:
    async def main(config: Any) -> None:
        _http.Worker(application, config)

    class Wrong:
        root_path = ""

    for config in (object(), Wrong()):
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            with pytest.raises(AttributeError):
                runner.run(main(config))


def test_drain_ends_idle_connections_at_once_and_lets_others_finish(serve: Any) -> None:
    go_on = asyncio.Event()
    busy = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/busy":
            busy.set()
            await go_on.wait()
        await respond(send, scope["path"].encode())

    server = serve(app, lifespan="off")
    with server.connect() as idle, server.connect() as working:
        idle.sendall(head("GET", "/idle"))
        read_head(idle)
        assert idle.recv(100) == b"/idle"
        working.sendall(head("GET", "/busy"))
        assert busy.wait(10)

        async def drain() -> int:
            cut: int = await server.worker.drain(20)
            return cut

        drained = asyncio.run_coroutine_threadsafe(drain(), server.loop)
        assert read_all(idle) == b""
        with pytest.raises(OSError):
            server.connect().close()
        server.loop.call_soon_threadsafe(go_on.set)
        data = read_all(working)
        assert b"connection: close\r\n" in data
        assert data.endswith(b"/busy")
        assert drained.result(10) == 0


def test_close_cuts_and_may_be_repeated(serve: Any) -> None:
    server = serve(application, lifespan="off")
    with server.connect() as client:
        client.sendall(head("GET", "/x"))
        read_head(client)
        server.submit(lambda: server.worker.close())
        server.submit(lambda: server.worker.close())
        assert read_all(client) == b"/x"


def test_counters(serve: Any) -> None:
    server = serve(application, lifespan="off")
    with Client(server.connect()) as client:
        for _ in range(3):
            client.request("GET")
        worker = server.worker
        seen = server.submit(lambda: (worker.connections, worker.accepted, worker.requests))
    assert seen == (1, 1, 3)
