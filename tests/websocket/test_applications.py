"""Whole applications in a server process: Django channels, Socket.IO, GraphQL subscriptions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
import socketio
from gql import Client, gql
from gql.transport.exceptions import TransportQueryError
from gql.transport.websockets import WebsocketsTransport
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from server_process import Launch, launch

__all__ = ["launch"]

PATIENCE_SECONDS = 30.0


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a conversation, not for ever."""

    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await main()

    asyncio.run(bounded())


def test_django_channels(launch: Launch) -> None:
    words = ("--lifespan", "off", "--no-access-log")
    server = launch("websocket.channels_app:app", *words).wait_ready()
    host = f"127.0.0.1:{server.port}"
    origin = Origin(f"http://{host}")
    json_too = [Subprotocol("xml"), Subprotocol("json")]
    assert httpx.get(f"http://{host}/page").text == "http /page"
    with ExitStack() as stack:
        ann, bob = (
            stack.enter_context(
                connect(f"ws://{host}/rooms/den", subprotocols=names, origin=origin)
            )
            for names in (json_too, None)
        )
        assert (ann.subprotocol, bob.subprotocol) == ("json", None)
        ann.send(json.dumps({"text": "anybody? ß"}))
        for client in (ann, bob):
            assert json.loads(client.recv()) == {"text": "anybody? ß"}
        bob.close(3001, "bye")
        assert json.loads(ann.recv()) == {"left": 3001}
        ann.send(json.dumps({"leave": True}))
        with pytest.raises(ConnectionClosed):
            ann.recv()
        assert (ann.close_code, ann.close_reason) == (4003, "as you wish")
    elsewhere = Origin("http://elsewhere.example")
    for address, from_where in [("rooms/private", origin), ("reverse", elsewhere)]:
        with pytest.raises(InvalidStatus) as caught:
            connect(f"ws://{host}/{address}", origin=from_where)
        assert caught.value.response.status_code == 403
    with connect(f"ws://{host}/reverse", origin=origin) as client:
        for number in range(50):
            client.send(f"{number} ab")
        assert [client.recv() for _ in range(50)] == [f"{number} ab"[::-1] for number in range(50)]
        client.send(bytes(range(256)) * 1000)
        assert client.recv() == bytes(range(256))[::-1] * 1000
    assert server.stop() == 0


def test_socketio(launch: Launch) -> None:
    words = ("--lifespan", "off", "--no-access-log")
    server = launch("websocket.socketio_app:app", *words).wait_ready()
    url = f"http://127.0.0.1:{server.port}"

    async def conversation(transports: list[str] | None, final: str) -> None:
        heard: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        client, other = socketio.AsyncClient(), socketio.AsyncClient()
        client.on("*", lambda event, data: heard.put_nowait((event, data)))
        await client.connect(url, transports=transports)
        assert client.transport() == final
        answer = await client.call("shout", "heiß")
        assert answer == {"transport": final, "text": "HEISS"}
        assert await heard.get() == ("shouted", "HEISS")
        data = bytes(range(256)) * 400
        assert await client.call("reverse", data) == data[::-1]
        # Longer than the server's ping interval: the pings are answered.
        await asyncio.sleep(0.6)
        await other.connect(url, transports=["websocket"])
        await other.emit("leave")
        await other.wait()
        assert await heard.get() == ("left", "server disconnect")
        refused: asyncio.Queue[Any] = asyncio.Queue()
        other.on("connect_error", refused.put_nowait)
        with pytest.raises(socketio.exceptions.ConnectionError):
            # By polling the client takes its ping timeout to see it, on every server.
            await other.connect(url, auth={"token": "wrong"}, transports=["websocket"])
        assert "wrong token" in str(await refused.get())
        await client.disconnect()

    # By itself a client begins with polling and changes over.
    run(lambda: conversation(None, "websocket"))
    run(lambda: conversation(["websocket"], "websocket"))
    run(lambda: conversation(["polling"], "polling"))
    assert server.stop() == 0


def test_strawberry_subscriptions(launch: Launch) -> None:
    words = ("--lifespan", "off", "--no-access-log")
    server = launch("websocket.strawberry_app:app", *words).wait_ready()
    host = f"127.0.0.1:{server.port}"

    async def next_end() -> str:
        async with httpx.AsyncClient() as client:
            answer = await client.post(f"http://{host}/", json={"query": "{ nextEnd }"})
            name: str = answer.json()["data"]["nextEnd"]
            return name

    async def conversation(subprotocol: str) -> None:
        # It waits so long for the subscription that we leave open.
        transport = WebsocketsTransport(
            f"ws://{host}/", subprotocols=[Subprotocol(subprotocol)], close_timeout=0.1
        )
        async with Client(transport=transport) as session:

            async def numbers(to: int) -> list[int]:
                query = gql(f"subscription {{ count(to: {to}) }}")
                return [result["count"] async for result in session.subscribe(query)]

            # Several over one connection, at once.
            found = await asyncio.gather(*(numbers(to) for to in (0, 1, 50, 500)))
            assert found == [list(range(to)) for to in (0, 1, 50, 500)]
            got = []
            with pytest.raises(TransportQueryError, match="two is too much"):
                async for result in session.subscribe(gql("subscription { fail }")):
                    got.append(result["fail"])
            assert got == [1]
            # One that is left by the client, and one that ends with the connection.
            left = session.subscribe(gql('subscription { forever(name: "left") }'))
            async for result in left:
                assert result == {"forever": "left"}
                break
            await left.aclose()
            assert await next_end() == "left"
            lost = session.subscribe(gql('subscription { forever(name: "lost") }'))
            await anext(lost)
        assert await next_end() == "lost"

    run(lambda: conversation(WebsocketsTransport.GRAPHQLWS_SUBPROTOCOL))
    assert server.stop() == 0
