"""A load that checks every answer: asyncio and h11, beside the test's own thread.

Half of the clients reuse their connection as long as the server lets them, half open one for each
request. Whatever a client cannot expect of a server that only restarts is an error: a refused
connection, a reset, an end before or within a response, a status that is not 200, a wrong body.
"""

from __future__ import annotations

import asyncio
import threading
from types import TracebackType
from typing import Self

import h11

REQUEST_SECONDS = 60.0


class Load:
    """Clients that ask until the end of the block.

    Args:
        port: Where.
        clients: How many at once.

    Attributes:
        answers: How many responses were right.
        pids: Who answered.
        errors: What went wrong.
    """

    def __init__(self, port: int, *, clients: int = 8) -> None:
        self.answers = 0
        self.pids: set[int] = set()
        self.errors: list[str] = []
        self._port = port
        self._clients = clients
        self._is_over = False
        self._moved = threading.Condition()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over = True
        self._thread.join(2 * REQUEST_SECONDS)
        assert not self._thread.is_alive()

    def wait_for_answers(self, count: int) -> None:
        """Wait until so many more have come."""
        with self._moved:
            end = self.answers + count
            assert self._moved.wait_for(
                lambda: self.answers >= end or self.errors, timeout=REQUEST_SECONDS
            )

    async def _run(self) -> None:
        await asyncio.gather(*(self._client(number % 2 == 0) for number in range(self._clients)))

    async def _client(self, is_reusing: bool) -> None:
        while not self._is_over and not self.errors:
            try:
                async with asyncio.timeout(REQUEST_SECONDS):
                    await self._connection(is_reusing)
            except (OSError, TimeoutError, AssertionError, h11.RemoteProtocolError) as error:
                self.errors.append(f"{type(error).__name__}: {error} (reusing: {is_reusing})")

    async def _connection(self, is_reusing: bool) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            client = h11.Connection(h11.CLIENT)
            count = 0
            while not self._is_over:
                await self._request(client, reader, writer, count)
                count += 1
                if not is_reusing or client.our_state is not h11.DONE:
                    return
                if client.their_state is not h11.DONE:
                    return
                client.start_next_cycle()
        finally:
            writer.close()

    async def _request(
        self,
        client: h11.Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        count: int,
    ) -> None:
        for event in (
            h11.Request(method="GET", target="/pid", headers=[("host", "x")]),
            h11.EndOfMessage(),
        ):
            writer.write(client.send(event) or b"")
        body = b""
        while True:
            event = client.next_event()
            if event is h11.NEED_DATA:
                data = await reader.read(65536)
                assert data, f"the connection ended before request {count + 1} was answered"
                client.receive_data(data)
            elif isinstance(event, h11.Response):
                assert event.status_code == 200, event
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                assert isinstance(event, h11.EndOfMessage), event
                break
        with self._moved:
            self.pids.add(int(body))
            self.answers += 1
            self._moved.notify_all()
