"""`add_reader`, `add_writer`, socket methods, transports and streams."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from pathlib import Path
from typing import cast

import pytest

from loop.helpers import Run

Pair = tuple[socket.socket, socket.socket]


def test_a_reader_is_called_as_long_as_something_is_unread(run: Run, pair: Pair) -> None:
    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        data = b""

        def read() -> None:
            nonlocal data
            data += pair[0].recv(1)
            if len(data) == 3:
                loop.remove_reader(pair[0])
                done.set_result(data)

        loop.add_reader(pair[0], read)
        pair[1].send(b"abc")
        assert await done == b"abc"
        pair[1].send(b"d")
        await asyncio.sleep(0.01)
        return data

    assert run(main()) == b"abc"


def test_a_writer_is_called_until_removed(run: Run, pair: Pair) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        calls = 0
        done = loop.create_future()

        def write() -> None:
            nonlocal calls
            calls += 1
            if calls == 3:
                assert loop.remove_writer(pair[0])
                done.set_result(None)

        loop.add_writer(pair[0], write)
        await done
        await asyncio.sleep(0.01)
        assert calls == 3
        assert not loop.remove_writer(pair[0])

    run(main())


def test_reader_and_writer_on_one_descriptor(run: Run, pair: Pair) -> None:
    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        seen: list[str] = []
        read, written = asyncio.Event(), asyncio.Event()

        def on_read() -> None:
            seen.append("read")
            loop.remove_reader(pair[0])
            read.set()

        def on_write() -> None:
            seen.append("write")
            loop.remove_writer(pair[0])
            written.set()

        loop.add_reader(pair[0], on_read)
        loop.add_writer(pair[0], on_write)
        await written.wait()
        pair[1].send(b"x")
        await read.wait()
        return seen

    assert run(main()) == ["write", "read"]


def test_regular_files_are_refused(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        with (tmp_path / "file").open("wb") as file, pytest.raises(PermissionError):
            asyncio.get_running_loop().add_reader(file, print)

    run(main())


def test_socket_methods(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            with socket.socket() as client:
                client.setblocking(False)
                accepting = asyncio.create_task(loop.sock_accept(listener))
                await loop.sock_connect(client, listener.getsockname())
                server, _ = await accepting
                with server:
                    size = 4 << 20
                    sending = asyncio.create_task(loop.sock_sendall(client, b"x" * size))
                    received = 0
                    while received < size:
                        received += len(await loop.sock_recv(server, 1 << 20))
                    await sending
                    assert received == size

    run(main())


def test_datagrams(run: Run) -> None:
    class Datagrams(asyncio.DatagramProtocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            # 3.11's own transport is no subclass of DatagramTransport.
            self.transport = cast(asyncio.DatagramTransport, transport)

        def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
            self.transport.sendto(data, address)

    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(Datagrams, ("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.connect(transport.get_extra_info("sockname"))
            await loop.sock_sendall(client, b"datagram")
            data = await loop.sock_recv(client, 100)
        transport.close()
        return data

    assert run(main()) == b"datagram"


class Echo:
    """A stream server's handler that can be waited for."""

    def __init__(self) -> None:
        self.handlers: set[asyncio.Task[None]] = set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.handlers.add(task)
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def done(self) -> None:
        await asyncio.gather(*self.handlers)


def test_streams_over_tcp_with_backpressure(run: Run) -> None:
    async def main() -> None:
        echo = Echo()
        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            address = server.sockets[0].getsockname()

            async def client(number: int) -> None:
                reader, writer = await asyncio.open_connection(*address)
                payload = bytes([number]) * 300_000

                async def send() -> None:
                    writer.write(payload)
                    await writer.drain()
                    writer.write_eof()

                sending = asyncio.create_task(send())
                assert await reader.read(-1) == payload
                await sending
                writer.close()
                await writer.wait_closed()

            await asyncio.gather(*(client(number) for number in range(20)))
            await echo.done()

    run(main())


def test_streams_over_unix_sockets(run: Run, tmp_path: Path) -> None:
    async def main() -> bytes:
        path = str(tmp_path / "socket")
        echo = Echo()
        async with await asyncio.start_unix_server(echo, path):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"line\n")
            line = await reader.readline()
            writer.close()
            await writer.wait_closed()
            await echo.done()
            return line

    assert run(main()) == b"line\n"


def test_tls_handshake_over_a_transport_fails_as_on_asyncio(run: Run) -> None:
    async def main() -> None:
        echo = Echo()
        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            with pytest.raises(ssl.SSLError):
                await asyncio.open_connection(
                    *server.sockets[0].getsockname(), ssl=ssl.create_default_context()
                )
            await echo.done()

    run(main())
