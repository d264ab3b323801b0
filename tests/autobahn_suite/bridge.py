"""A proxy that makes of each WebSocket over HTTP/1.1 one over HTTP/2 (RFC 8441).

Autobahn's client speaks HTTP/1.1 only. The bridge takes its upgrade, opens a stream by an extended
CONNECT on a connection of its own, and passes bytes on as they are: what the client judges is
what our server says on that stream. An end or a reset on one side is one on the other; bytes are
read as far as the other side takes them, so windows and backpressure are those of both.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import ssl
import threading
from types import TracebackType
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions

__all__ = ["Bridge"]

PIECE_BYTES = 1 << 16
OF_A_CONNECTION = {"host", "upgrade", "connection", "sec-websocket-key", "content-length"}
"""Fields of an upgrade that HTTP/2 does not have."""


class Bridge:
    """A running bridge to the server at `port`; with `tls` it speaks TLS to it."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.server_port = port
        self.tls = tls
        if tls is not None:
            tls.set_alpn_protocols(["h2"])
        self.port = 0
        self.errors: list[str] = []
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda _, context: self.errors.append(str(context)))
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bridge")

    def __enter__(self) -> Bridge:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(30)
        if kind is None:
            assert self.errors == []

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._stopped = asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stopped.wait()
        server.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            target, fields, key = await read_upgrade(reader)
            far_reader, far_writer = await asyncio.open_connection(
                "127.0.0.1",
                self.server_port,
                ssl=self.tls,
                server_hostname="localhost" if self.tls else None,
            )
            stream = Stream(far_reader, far_writer)
            try:
                scheme = "https" if self.tls else "http"
                await stream.open(target, fields, scheme)
                writer.write(switching(key, stream.fields))
                to_server = asyncio.create_task(stream.pass_on(reader))
                try:
                    await stream.pass_back(writer)
                finally:
                    to_server.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await to_server
            finally:
                far_writer.close()
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            writer.transport.abort()  # as the client would see it without us
        finally:
            writer.close()


async def read_upgrade(reader: asyncio.StreamReader) -> tuple[str, list[tuple[str, str]], str]:
    """Read a request: its target, the fields that go on, its key."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    request, *lines = head[:-4].split("\r\n")
    pairs = [line.split(":", 1) for line in lines]
    fields = [(name.lower(), value.strip()) for name, value in pairs]
    key = dict(fields)["sec-websocket-key"]
    return request.split()[1], [item for item in fields if item[0] not in OF_A_CONNECTION], key


def switching(key: str, fields: list[tuple[str, str]]) -> bytes:
    """Make the answer to an upgrade."""
    magic = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    digest = hashlib.sha1((key + magic).encode(), usedforsecurity=False).digest()
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "upgrade: websocket",
        "connection: upgrade",
        f"sec-websocket-accept: {base64.b64encode(digest).decode()}",
        *(f"{name}: {value}" for name, value in fields),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class Stream:
    """One connection of HTTP/2 with one stream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        config = h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        self.state = h2.connection.H2Connection(config)
        self.number = 0
        self.fields: list[tuple[str, str]] = []
        self.events: list[Any] = []
        #: Set by everything that may let bytes pass.
        self.moved = asyncio.Event()
        #: The client's side has ended.
        self.is_shut = False

    async def open(self, target: str, fields: list[tuple[str, str]], scheme: str) -> None:
        """Send the request, read the answer."""
        self.state.initiate_connection()
        while not self.state.remote_settings.enable_connect_protocol:
            self.flush()
            await self.read()
        self.number = self.state.get_next_available_stream_id()
        head = [
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", scheme),
            (":authority", "localhost"),
            (":path", target),
        ]
        self.state.send_headers(self.number, [*head, *fields])
        self.flush()
        while True:
            for at, event in enumerate(self.events):
                if isinstance(event, h2.events.ResponseReceived):
                    answer = dict(event.headers)
                    assert answer.pop(":status") == "200", answer
                    self.fields = list(answer.items())
                    del self.events[: at + 1]
                    return
            await self.read()

    def flush(self) -> None:
        """Write what the state machine has to say."""
        self.writer.write(self.state.data_to_send())

    async def read(self) -> None:
        """Read once."""
        data = await self.reader.read(PIECE_BYTES)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        self.events += self.state.receive_data(data)
        self.flush()
        self.moved.set()

    async def pass_back(self, writer: asyncio.StreamWriter) -> None:
        """Pass what the server says to the client, until the server's side ends."""
        while True:
            for event in self.events:
                match event:
                    case h2.events.DataReceived():
                        writer.write(event.data)
                        await writer.drain()
                        if event.flow_controlled_length:
                            self.state.acknowledge_received_data(
                                event.flow_controlled_length, self.number
                            )
                    case h2.events.StreamEnded():
                        writer.write_eof()
                        self.flush()
                        # The client closes next; it is no more than a moment.
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(10):
                                while not self.is_shut:
                                    self.moved.clear()
                                    await self.moved.wait()
                        return
                    case h2.events.StreamReset() | h2.events.ConnectionTerminated():
                        raise ConnectionResetError("the server reset the stream")
            self.events.clear()
            self.flush()
            await self.read()

    async def pass_on(self, reader: asyncio.StreamReader) -> None:
        """Pass what the client says to the server, until the client's side ends."""
        try:
            while data := await reader.read(PIECE_BYTES):
                while data:
                    window = self.state.local_flow_control_window(self.number)
                    room = min(len(data), window, self.state.max_outbound_frame_size)
                    if room == 0:
                        self.moved.clear()
                        await self.moved.wait()
                        continue
                    self.state.send_data(self.number, data[:room])
                    data = data[room:]
                    self.flush()
                    await self.writer.drain()
            self.state.end_stream(self.number)
        except ConnectionError:
            self.state.reset_stream(self.number)
        except h2.exceptions.StreamClosedError:
            pass  # reset by the server, which the other direction passes on
        self.flush()
        self.is_shut = True
        self.moved.set()
