"""Client libraries that people use, over plain connections and TLS."""

from __future__ import annotations

import asyncio
import random
import ssl
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import httpx_ws
import pytest
import websockets.asyncio.client
import websockets.exceptions
import websockets.sync.client

from peers.aiohttp_session import session
from peers.tls_threads import for_threads
from tls.authority import Authority

WORDS = "das ist heiß 🔥 " * 200
PATIENCE_SECONDS = 30.0


class ClosedError(Exception):
    """The server has closed: code and reason."""


class Client(ABC):
    """One connection, through one library."""

    #: Does the library offer permessage-deflate?
    deflates = True

    def __init__(self, stack: AsyncExitStack) -> None:
        self.stack = stack

    @abstractmethod
    async def open(self, url: str, tls: ssl.SSLContext | None) -> None: ...
    @abstractmethod
    async def send(self, message: str | bytes) -> None: ...
    @abstractmethod
    async def receive(self) -> str | bytes: ...
    @abstractmethod
    async def ping(self) -> None:
        """Send a ping and wait for the pong."""

    @abstractmethod
    async def close(self, code: int, reason: str) -> None: ...
    @property
    @abstractmethod
    def negotiated(self) -> tuple[str | None, bool]:
        """The subprotocol; is permessage-deflate in use?"""


class Websockets(Client):
    async def open(self, url: str, tls: ssl.SSLContext | None) -> None:
        connecting = websockets.asyncio.client.connect(url, ssl=tls, subprotocols=["a", "chat"])  # type: ignore[list-item]
        self.peer = await self.stack.enter_async_context(connecting)

    async def send(self, message: str | bytes) -> None:
        await self.peer.send(message)

    async def receive(self) -> str | bytes:
        try:
            return await self.peer.recv()
        except websockets.exceptions.ConnectionClosed as closed:
            assert closed.rcvd is not None
            raise ClosedError(closed.rcvd.code, closed.rcvd.reason) from closed

    async def ping(self) -> None:
        await (await self.peer.ping())

    async def close(self, code: int, reason: str) -> None:
        await self.peer.close(code, reason)
        assert self.peer.close_code == code

    @property
    def negotiated(self) -> tuple[str | None, bool]:
        names = [extension.name for extension in self.peer.protocol.extensions]
        return self.peer.subprotocol, names == ["permessage-deflate"]


class WebsocketsInThreads(Client):
    async def open(self, url: str, tls: ssl.SSLContext | None) -> None:
        connecting = websockets.sync.client.connect(
            url, ssl=tls and for_threads(tls), subprotocols=["a", "chat"]
        )  # type: ignore[list-item]
        self.peer = await asyncio.to_thread(connecting.__enter__)
        self.stack.push_async_callback(asyncio.to_thread, connecting.__exit__, None, None, None)

    async def send(self, message: str | bytes) -> None:
        await asyncio.to_thread(self.peer.send, message)

    async def receive(self) -> str | bytes:
        try:
            return await asyncio.to_thread(self.peer.recv)
        except websockets.exceptions.ConnectionClosed as closed:
            assert closed.rcvd is not None
            raise ClosedError(closed.rcvd.code, closed.rcvd.reason) from closed

    async def ping(self) -> None:
        assert await asyncio.to_thread(self.peer.ping().wait, PATIENCE_SECONDS)

    async def close(self, code: int, reason: str) -> None:
        await asyncio.to_thread(self.peer.close, code, reason)
        assert self.peer.close_code == code

    @property
    def negotiated(self) -> tuple[str | None, bool]:
        names = [extension.name for extension in self.peer.protocol.extensions]
        return self.peer.subprotocol, names == ["permessage-deflate"]


class Aiohttp(Client):
    async def open(self, url: str, tls: ssl.SSLContext | None) -> None:
        opened = await self.stack.enter_async_context(session(ssl=tls or True))
        self.peer = await opened.ws_connect(
            url, protocols=["a", "chat"], compress=15, autoping=False
        )

    async def send(self, message: str | bytes) -> None:
        if isinstance(message, str):
            await self.peer.send_str(message)
        else:
            await self.peer.send_bytes(message)

    async def receive(self) -> str | bytes:
        message = await self.peer.receive()
        if message.type is aiohttp.WSMsgType.CLOSE:
            raise ClosedError(message.data, message.extra)
        assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), message
        data: str | bytes = message.data
        return data

    async def ping(self) -> None:
        await self.peer.ping(b"there?")
        message = await self.peer.receive()
        assert (message.type, message.data) == (aiohttp.WSMsgType.PONG, b"there?")

    async def close(self, code: int, reason: str) -> None:
        await self.peer.close(code=code, message=reason.encode())
        assert self.peer.close_code == code

    @property
    def negotiated(self) -> tuple[str | None, bool]:
        return self.peer.protocol, bool(self.peer.compress)


class HttpxWs(Client):
    deflates = False

    async def open(self, url: str, tls: ssl.SSLContext | None) -> None:
        client = await self.stack.enter_async_context(httpx.AsyncClient(verify=tls or True))
        connecting = httpx_ws.aconnect_ws(
            url, client, subprotocols=["a", "chat"], max_message_size_bytes=4 * 2**20
        )
        self.peer = await self.stack.enter_async_context(connecting)

    async def send(self, message: str | bytes) -> None:
        if isinstance(message, str):
            await self.peer.send_text(message)
        else:
            await self.peer.send_bytes(message)

    async def receive(self) -> str | bytes:
        try:
            event = await self.peer.receive()
        except httpx_ws.WebSocketDisconnect as closed:
            raise ClosedError(closed.code, closed.reason or "") from closed
        data: str | bytes = event.data  # type: ignore[union-attr]
        return data if isinstance(data, str) else bytes(data)

    async def ping(self) -> None:
        await (await self.peer.ping()).wait()

    async def close(self, code: int, reason: str) -> None:
        await self.peer.close(code, reason)

    @property
    def negotiated(self) -> tuple[str | None, bool]:
        return self.peer.subprotocol, False


CLIENTS = [Websockets, WebsocketsInThreads, Aiohttp, HttpxWs]


def application(saw: Callable[[Any], None]) -> Any:
    """An echo that can be told to end in several ways."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept", "subprotocol": scope["subprotocols"][-1]})
        while (message := await receive())["type"] == "websocket.receive":
            match message.get("text"):
                case "close":
                    await send({"type": "websocket.close", "code": 4001, "reason": "as ärgerlich"})
                    return
                case "return":
                    return
                case "raise":
                    raise RuntimeError("as asked")
            await send(message | {"type": "websocket.send"})
        saw((message["code"], message["reason"]))

    return app


@pytest.fixture
def task_mode() -> str:
    """The mode of tasks makes no difference here."""
    return "lazy"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(params=["ws", "wss"])
def talk(
    request: pytest.FixtureRequest, serve: Any, saw: Any, authority: Authority, tmp_path: Path
) -> Any:
    """Have a conversation with a server, by one of the clients."""
    options: dict[str, Any] = {}
    context = None
    if request.param == "wss":
        options = authority.issue("localhost", "127.0.0.1").write(tmp_path)
        context = authority.client_context()
    server = serve(application(saw), lifespan="off", **options)

    def run(kind: type[Client], conversation: Callable[[Client], Awaitable[None]]) -> None:
        async def main() -> None:
            async with asyncio.timeout(PATIENCE_SECONDS), AsyncExitStack() as stack:
                client = kind(stack)
                await client.open(f"{request.param}://localhost:{server.port}/", context)
                await conversation(client)

        asyncio.run(main())

    return run


parametrized = pytest.mark.parametrize("kind", CLIENTS, ids=lambda kind: kind.__name__)


@parametrized
def test_messages(kind: type[Client], talk: Any) -> None:
    dice = random.Random(5)
    messages = ["", b"", "a", WORDS, WORDS.encode(), dice.randbytes(70_000), b"\0" * 2**20]

    async def conversation(client: Client) -> None:
        assert client.negotiated == ("chat", kind.deflates)
        for message in messages:
            await client.send(message)
            assert await client.receive() == message
        await client.ping()
        small = [dice.randbytes(dice.randrange(300)) for _ in range(60)]
        for message in small:
            await client.send(message)
        assert [await client.receive() for _ in small] == small
        await client.close(1000, "")

    talk(kind, conversation)


@parametrized
def test_the_server_closes(kind: type[Client], talk: Any, caplog: pytest.LogCaptureFixture) -> None:
    ends = {
        "close": (4001, "as ärgerlich"),
        "return": (1000, ""),
        "raise": (1011, "internal error"),
    }
    for word, end in ends.items():

        async def conversation(client: Client, word: str = word, end: Any = end) -> None:
            await client.send("one more")
            await client.send(word)
            assert await client.receive() == "one more"
            with pytest.raises(ClosedError) as caught:
                await client.receive()
            assert caught.value.args == end

        talk(kind, conversation)


@parametrized
def test_the_client_closes(kind: type[Client], talk: Any, saw: Any) -> None:
    async def conversation(client: Client) -> None:
        await client.send("hello")
        assert await client.receive() == "hello"
        await client.close(3001, "tschüß")

    talk(kind, conversation)
    assert saw.next() == (3001, "tschüß")
