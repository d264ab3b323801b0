"""Messages: both kinds, all sizes, in order, whole, however they are cut on the way."""

from __future__ import annotations

import asyncio
import random
import socket
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.sync.client import connect
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, Message, Ping, Pong, Request, TextMessage

from websocket.raw import BINARY, CONTINUATION, PING, PONG, TEXT, frame

MIB = 1 << 20


def url(server: Any) -> str:
    return f"ws://127.0.0.1:{server.port}/"


def test_text_and_binary(serve: Any, echo_app: Any) -> None:
    server = serve(echo_app, lifespan="off")
    with connect(url(server), compression=None) as client:
        for message in [
            "",
            "hello",
            "grüße 🦀 \x00",
            b"",
            b"\x00\xff",
            "x" * 70_000,
            b"y" * 70_000,
        ]:
            client.send(message)
            assert client.recv() == message


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 200_001])
def test_every_form_of_length(serve: Any, echo_app: Any, raw: Any, size: int) -> None:
    client = raw(serve(echo_app, lifespan="off")).open()
    payload = random.Random(size).randbytes(size)
    client.send(frame(BINARY, payload))
    assert client.read_frame() == (BINARY, payload)


def test_ten_thousand_pipelined_messages_come_back_in_order(serve: Any, echo_app: Any) -> None:
    server = serve(echo_app, lifespan="off")
    with connect(url(server), compression=None) as client:
        messages = [str(number) if number % 3 else b"%d" % number for number in range(10_000)]
        for message in messages:
            client.send(message)
        assert [client.recv() for _ in messages] == messages


@pytest.mark.parametrize("size", [10, 200])
def test_a_burst_is_answered_by_one_write(serve: Any, echo_app: Any, raw: Any, size: int) -> None:
    """Each write is a segment at least, and what is written at once is one as far as it fits."""
    client = raw(serve(echo_app, lifespan="off")).open()
    client.send(frame(TEXT, b"the first"))
    assert client.read_frame() == (TEXT, b"the first")
    before = data_segments(client.socket)
    # As many as may wait for receive().
    client.send(frame(BINARY, b"x" * size) * 32)
    for _ in range(32):
        assert client.read_frame() == (BINARY, b"x" * size)
    # One, and over HTTP/2 what opens the windows again.
    assert data_segments(client.socket) - before <= 3


def data_segments(connection: Any) -> int:
    """Segments with data that came: `tcpi_data_segs_in` of `struct tcp_info` (linux/tcp.h)."""
    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160)
    return int.from_bytes(info[152:156], sys.byteorder)


def test_frames_behind_the_handshake_are_not_lost(serve: Any, echo_app: Any, raw: Any) -> None:
    client = raw(serve(echo_app, lifespan="off"))
    client.open(behind=frame(TEXT, b"early") + frame(BINARY, b"x" * 5000))
    assert client.read_frame() == (TEXT, b"early")
    assert client.read_frame() == (BINARY, b"x" * 5000)


def test_control_frames_between_fragments(serve: Any, echo_app: Any, raw: Any) -> None:
    client = raw(serve(echo_app, lifespan="off")).open()
    client.send(
        frame(TEXT, "gr\u00fc".encode()[:3], fin=False),
        frame(PING, b"in between"),
        frame(CONTINUATION, "\u00fc".encode()[1:], fin=False),
        frame(PONG, b"unasked"),
        frame(CONTINUATION, b"!", fin=True),
    )
    assert client.read_frame() == (PONG, b"in between")
    assert client.read_frame() == (TEXT, "grü!".encode())


def test_ping_is_answered_while_the_application_is_busy_elsewhere(
    serve: Any, accepting: Any, raw: Any
) -> None:
    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    server = serve(app, lifespan="off")
    client = raw(server).open()
    client.send(frame(PING, b"still there?"))
    assert client.read_frame() == (PONG, b"still there?")


MESSAGES = st.lists(st.one_of(st.text(max_size=300), st.binary(max_size=3000)), max_size=12)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(messages=MESSAGES, seed=st.integers(0, 2**32))
def test_any_messages_however_fragmented_and_cut(
    echo_server: Any, messages: list[str | bytes], seed: int
) -> None:
    """An independent implementation (wsproto) talks; frames and TCP segments are cut at random."""
    dice = random.Random(seed)
    peer = WSConnection(ConnectionType.CLIENT)
    with echo_server.connect() as connection:
        connection.sendall(peer.send(Request(host="example.com", target="/")))
        events = receive_events(peer, connection, dice)
        assert isinstance(next(events), AcceptConnection)
        unsent, pings = b"", []
        for message in messages:
            for event in fragments(message, dice):
                unsent += peer.send(event)
            if dice.random() < 0.3:
                pings.append(dice.randbytes(dice.randrange(126)))
                unsent += peer.send(Ping(payload=pings[-1]))
        while unsent:
            count = dice.choice([1, 7, 200, 5000])
            connection.sendall(unsent[:count])
            unsent = unsent[count:]
        got: list[str | bytes] = []
        parts: list[str | bytes] = []
        while len(got) < len(messages):
            event = next(events)
            if isinstance(event, Pong):
                # Not each ping is answered, but none out of turn.
                pings = pings[pings.index(bytes(event.payload)) + 1 :]
                continue
            assert isinstance(event, TextMessage | BytesMessage)
            text = isinstance(event, TextMessage)
            parts.append(event.data if text else bytes(event.data))
            if event.message_finished:
                got.append(("" if text else b"").join(parts))  # type: ignore[arg-type]
                parts.clear()
        assert got == messages


def receive_events(peer: WSConnection, connection: socket.socket, dice: random.Random) -> Any:
    """The events of a connection, read in pieces of any size."""
    while True:
        peer.receive_data(connection.recv(dice.choice([1, 100, 65536])))
        yield from peer.events()


def fragments(message: str | bytes, dice: random.Random) -> list[Message]:
    """The message in one to four frames."""
    kind = TextMessage if isinstance(message, str) else BytesMessage
    cuts = sorted(dice.randrange(len(message) + 1) for _ in range(dice.randrange(4)))
    ends = [*cuts, len(message)]
    starts = [0, *cuts]
    return [
        kind(data=message[start:end], message_finished=index == len(ends) - 1)  # type: ignore[arg-type]
        for index, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]


@pytest.fixture
def echo_server(serve: Any, echo_app: Any) -> Any:
    return serve(echo_app, lifespan="off")


def test_sixteen_mebibytes_pass_and_one_byte_more_does_not(
    serve: Any, echo_app: Any, raw: Any
) -> None:
    server = serve(echo_app, lifespan="off")
    client = raw(server).open()
    payload = random.Random(1).randbytes(16 * MIB)
    client.send(frame(BINARY, payload))
    assert client.read_frame() == (BINARY, payload)
    # Only the head of the frame is sent: the payload is not waited for.
    client.send(frame(BINARY, payload + b"!")[:14])
    assert client.read_close() == (1009, "message too big")
    assert client.read_to_end() == b""


def test_the_limit_counts_all_fragments_and_can_be_set(serve: Any, echo_app: Any, raw: Any) -> None:
    server = serve(echo_app, lifespan="off", ws_max_size=1000)
    client = raw(server).open()
    client.send(frame(BINARY, b"a" * 500, fin=False), frame(CONTINUATION, b"b" * 500))
    assert client.read_frame() == (BINARY, b"a" * 500 + b"b" * 500)
    client.send(frame(BINARY, b"a" * 500, fin=False), frame(CONTINUATION, b"b" * 501))
    assert client.read_close()[0] == 1009


def test_the_server_may_send_more_than_it_accepts(serve: Any, accepting: Any, raw: Any) -> None:
    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.send", "bytes": b"z" * (16 * MIB + 1)})
        await send({"type": "websocket.send", "text": "done"})

    client = raw(serve(app, lifespan="off")).open()
    assert client.read_frame() == (BINARY, b"z" * (16 * MIB + 1))
    assert client.read_frame() == (TEXT, b"done")


def test_what_may_be_sent(serve: Any, accepting: Any, raw: Any) -> None:
    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for data in [bytearray(b"array"), memoryview(b"-view-")[1:-1]]:
            await send({"type": "websocket.send", "bytes": data})
        await send({"type": "websocket.send", "bytes": None, "text": "one is None"})
        await send({"type": "websocket.send", "bytes": b"other is None", "text": None})
        for message, error in [
            ({}, ValueError),
            ({"text": None, "bytes": None}, ValueError),
            ({"text": b"bytes"}, TypeError),
            ({"bytes": "text"}, TypeError),
            ({"text": "\ud800"}, UnicodeEncodeError),
        ]:
            with pytest.raises(error):
                await send({"type": "websocket.send", **message})
        with pytest.raises(ValueError, match="unknown ASGI message"):
            await send({"type": "http.response.start", "status": 200})
        with pytest.raises(KeyError):
            await send({})
        with pytest.raises(TypeError):
            await send(None)
        await send({"type": "websocket.send", "text": "ok"})

    client = raw(serve(app, lifespan="off")).open()
    assert client.read_frame() == (BINARY, b"array")
    assert client.read_frame() == (BINARY, b"view")
    assert client.read_frame() == (TEXT, b"one is None")
    assert client.read_frame() == (BINARY, b"other is None")
    assert client.read_frame() == (TEXT, b"ok")


def test_a_cancelled_receive_loses_no_message(serve: Any, accepting: Any, raw: Any) -> None:
    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        cancelled = 0
        while True:
            receiving = asyncio.create_task(receive())
            for _ in range(cancelled % 3 + 1):
                await asyncio.sleep(0)
            receiving.cancel()
            try:
                event = await receiving
            except asyncio.CancelledError:
                cancelled += 1
                continue
            if event["type"] == "websocket.disconnect":
                return
            await send({"type": "websocket.send", "text": event["text"]})
            if event["text"] == "last":
                await send({"type": "websocket.send", "text": str(cancelled)})

    client = raw(serve(app, lifespan="off")).open()
    for number in range(300):
        text = b"%d" % number
        client.send(frame(TEXT, text))
        assert client.read_frame() == (TEXT, text)
    client.send(frame(TEXT, b"last"))
    assert client.read_frame() == (TEXT, b"last")
    opcode, cancelled = client.read_frame()
    assert opcode == TEXT and int(cancelled) > 0


def test_several_tasks_may_receive(serve: Any, accepting: Any, raw: Any) -> None:
    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def one() -> None:
            event = await receive()
            await send({"type": "websocket.send", "text": event["text"]})

        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(one())

    client = raw(serve(app, lifespan="off")).open()
    for text in [b"1", b"2", b"3"]:
        client.send(frame(TEXT, text))
        assert client.read_frame() == (TEXT, text)
    assert client.read_close() == (1000, "")


def test_sending_and_receiving_in_two_tasks(serve: Any, accepting: Any, raw: Any) -> None:
    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def count() -> None:
            for number in range(200):
                await send({"type": "websocket.send", "text": f"n{number}"})
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        while (event := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": event["text"]})
            if event["text"] == "e199":
                break
        await counting

    client = raw(serve(app, lifespan="off")).open()
    for number in range(200):
        client.send(frame(TEXT, b"e%d" % number))
    got = [client.read_frame()[1] for _ in range(400)]
    assert [text for text in got if text.startswith(b"n")] == [b"n%d" % n for n in range(200)]
    assert [text for text in got if text.startswith(b"e")] == [b"e%d" % n for n in range(200)]
