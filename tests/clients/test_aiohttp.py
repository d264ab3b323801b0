"""aiohttp, a client of HTTP/1.1 with a parser of its own, in the clear and over TLS."""

from __future__ import annotations

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from clients.application import PIECE, Application
from peers.aiohttp_session import session
from server_thread import Serve
from tls.conftest import ServeTls

Run = Callable[[Callable[[aiohttp.ClientSession], Awaitable[None]]], None]


@pytest.fixture
def application() -> Application:
    return Application()


@pytest.fixture(params=["plain", "tls"])
def run(
    request: pytest.FixtureRequest, application: Application, serve: Serve, serve_tls: ServeTls
) -> Run:
    """Run a coroutine function with a session whose base is the server."""
    if request.param == "tls":
        client = serve_tls(application, lifespan="off")
        base, context = f"https://localhost:{client.server.port}", client.context
    else:
        base, context = serve(application, lifespan="off").url, True

    def call(test: Callable[[aiohttp.ClientSession], Awaitable[None]]) -> None:
        async def main() -> None:
            limits = aiohttp.ClientTimeout(total=30)
            async with session(base, ssl=context, timeout=limits) as opened:
                await test(opened)

        asyncio.run(main())

    return call


def test_requests_one_after_the_other_and_side_by_side(run: Run) -> None:
    async def number(session: aiohttp.ClientSession, n: int) -> bytes:
        async with session.get(f"/number/{n}") as response:
            assert response.version == aiohttp.HttpVersion11
            return await response.read()

    async def test(session: aiohttp.ClientSession) -> None:
        for n in range(20):
            assert await number(session, n) == str(n).encode()
        wanted = range(200)
        found = await asyncio.gather(*(number(session, n) for n in wanted))
        assert found == [str(n).encode() for n in wanted]

    run(test)


def test_uploads(run: Run) -> None:
    body = PIECE * 100
    expected = f"{len(body)} {hashlib.sha256(body).hexdigest()}".encode()

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), 10_000):
            yield body[at : at + 10_000]

    async def test(session: aiohttp.ClientSession) -> None:
        ways: list[dict[str, Any]] = [
            {"data": io.BytesIO(body)},
            {"data": pieces()},
            {"data": io.BytesIO(body), "expect100": True},
            {"data": pieces(), "expect100": True},
        ]
        for way in ways:
            async with session.post("/digest", **way) as response:
                assert await response.read() == expected

    run(test)


def test_answer_to_an_upload_that_is_not_read(run: Run) -> None:
    async def test(session: aiohttp.ClientSession) -> None:
        for _ in range(3):
            async with session.post("/refused", data=io.BytesIO(bytes(4_000_000))) as response:
                assert (response.status, await response.text()) == (413, "too large for us")

    run(test)


def test_download_that_is_read_as_it_comes(run: Run) -> None:
    async def test(session: aiohttp.ClientSession) -> None:
        digest = hashlib.sha256()
        async with session.get("/stream/200") as response:
            assert response.headers["transfer-encoding"] == "chunked"
            async for data in response.content.iter_any():
                digest.update(data)
        assert digest.digest() == hashlib.sha256(PIECE * 200).digest()

    run(test)


@pytest.mark.parametrize("kind", ["", "/silent"])
def test_client_that_leaves_a_stream_of_events_is_missed(
    run: Run, application: Application, kind: str
) -> None:
    async def test(session: aiohttp.ClientSession) -> None:
        async with session.get(f"/events{kind}") as response:
            for n in range(10):
                assert await response.content.readline() == f"id: {n}\n".encode()
                assert await response.content.readline() == f"data: event {n}\n".encode()
                await response.content.readline()
            response.close()
        assert await asyncio.to_thread(application.left.wait, 10)

    run(test)


def test_websocket(run: Run) -> None:
    async def test(session: aiohttp.ClientSession) -> None:
        async with session.ws_connect("/") as websocket:
            for text in ("", "gr\u00fc\u00dfe", "x" * 100_000):
                await websocket.send_str(text)
                assert await websocket.receive_str() == text
            await websocket.send_bytes(PIECE)
            assert await websocket.receive_bytes() == PIECE
            await websocket.close()
            assert websocket.close_code == 1000

    run(test)
