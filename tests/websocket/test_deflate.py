"""permessage-deflate: negotiation, both directions, every mode, against three other libraries."""

from __future__ import annotations

import asyncio
import itertools
import random
import zlib
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosedError
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.sync.client import connect
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, Ping, Pong, Request, TextMessage
from wsproto.extensions import PerMessageDeflate

from websocket.raw import BINARY, CONTINUATION, HANDSHAKE, PING, PONG, TEXT, frame

MODES = ("shared", "context")
RSV1 = 4
MIB = 2**20
ALONE = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"


def url(server: Any) -> str:
    return f"ws://127.0.0.1:{server.port}/"


def deflate(payload: bytes) -> bytes:
    """A message that refers to none before it."""
    state = zlib.compressobj(wbits=-15)
    return (state.compress(payload) + state.flush(zlib.Z_SYNC_FLUSH))[:-4]


def messages(count: int = 60, size: int = 2048) -> list[str | bytes]:
    """Text, text alike to what was before, and bytes that cannot be made smaller."""
    numbers = random.Random(42)
    found: list[str | bytes] = []
    for number in range(count):
        words = (
            f'{{"id": {numbers.randrange(10**6)}, "name": "grüße-{number}"}}' for _ in range(99)
        )
        text = ", ".join(words)[:size]
        found.append((text, text.encode(), numbers.randbytes(size))[number % 3])
    return found


OFFERS: dict[str, dict[str, Any]] = {
    "default": {"client_max_window_bits": True},
    "nothing kept": {"server_no_context_takeover": True, "client_no_context_takeover": True},
    "server keeps nothing": {"server_no_context_takeover": True},
    "client keeps nothing": {"client_no_context_takeover": True},
    "small windows": {"server_max_window_bits": 9, "client_max_window_bits": 9},
    "smallest window": {"client_max_window_bits": 8},
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("offer", OFFERS)
def test_sixty_messages_both_ways_with_websockets(
    serve: Any, echo_app: Any, mode: str, offer: str
) -> None:
    server = serve(echo_app, lifespan="off", ws_per_message_deflate=mode)
    options = OFFERS[offer]
    if options.get("client_max_window_bits") == 8:  # zlib cannot, but says that it may
        options = {"client_max_window_bits": 9}
    extensions = [ClientPerMessageDeflateFactory(**options)]
    with connect(url(server), compression=None, extensions=extensions) as client:
        (agreed,) = client.protocol.extensions
        if mode == "shared":
            assert "remote_no_context_takeover=True, local_no_context_takeover=True" in repr(agreed)
        for message in messages():
            client.send(message)
            assert client.recv(timeout=60) == message


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("offer", ["nothing kept", "default", "small windows"])
def test_sixty_messages_both_ways_with_wsproto(
    serve: Any, echo_app: Any, mode: str, offer: str
) -> None:
    server = serve(echo_app, lifespan="off", ws_per_message_deflate=mode)
    options = {
        name: value
        for name, value in OFFERS[offer].items()
        if not isinstance(value, bool) or name != "client_max_window_bits"
    }
    with Peer(server, PerMessageDeflate(**options)) as peer:
        for message in messages():
            peer.send(message)
            assert peer.receive() == message


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bits", [15, 9])
def test_sixty_messages_both_ways_with_aiohttp(
    serve: Any, echo_app: Any, mode: str, bits: int
) -> None:
    server = serve(echo_app, lifespan="off", ws_per_message_deflate=mode)

    async def talk() -> None:
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url(server), compress=bits) as client,
        ):
            assert client.compress
            for message in messages():
                if isinstance(message, str):
                    await client.send_str(message)
                else:
                    await client.send_bytes(message)
                assert (await client.receive(timeout=60)).data == message

    asyncio.run(talk())


class Peer:
    """A client by wsproto."""

    def __init__(self, server: Any, extension: PerMessageDeflate) -> None:
        self.socket = server.connect()
        self.protocol = WSConnection(ConnectionType.CLIENT)
        self.events: list[Any] = []
        self.extension = extension
        self.send_event(Request(host="localhost", target="/", extensions=[extension]))
        accepted = self.next_event()
        assert isinstance(accepted, AcceptConnection)
        assert extension.enabled()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send_event(self, event: Any) -> None:
        self.socket.sendall(self.protocol.send(event))

    def send(self, message: str | bytes) -> None:
        kind: Any = TextMessage if isinstance(message, str) else BytesMessage
        self.send_event(kind(data=message))

    def next_event(self) -> Any:
        while not self.events:
            data = self.socket.recv(1 << 16)
            assert data, "the connection ended"
            self.protocol.receive_data(data)
            self.events += self.protocol.events()
        return self.events.pop(0)

    def receive(self) -> str | bytes:
        parts: list[Any] = []
        while True:
            event = self.next_event()
            if isinstance(event, Pong):
                continue
            assert isinstance(event, (TextMessage, BytesMessage)), event
            parts.append(event.data)
            if event.message_finished:
                return ("" if isinstance(event, TextMessage) else b"").join(parts)


MESSAGES = st.one_of(
    st.text(max_size=300),
    st.binary(max_size=300),
    st.text(alphabet="ab", max_size=3000),
    st.builds(lambda seed, size: random.Random(seed).randbytes(size), st.integers(), st.just(5000)),
)


@pytest.mark.parametrize("mode", MODES)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    pieces=st.lists(st.tuples(MESSAGES, st.lists(st.integers(0, 5000), max_size=4), st.booleans())),
    alone=st.booleans(),
    bits=st.integers(9, 15),
)
def test_any_messages_in_any_fragments_are_what_wsproto_makes_of_them(
    deflating: Callable[[str], Any], mode: str, pieces: Any, alone: bool, bits: int
) -> None:
    extension = PerMessageDeflate(
        client_no_context_takeover=alone, server_max_window_bits=bits, client_max_window_bits=bits
    )
    with Peer(deflating(mode), extension) as peer:
        for message, cuts, ping in pieces:
            kind: Any = TextMessage if isinstance(message, str) else BytesMessage
            bounds = [0, *sorted(min(cut, len(message)) for cut in cuts), len(message)]
            for start, end in itertools.pairwise(bounds[:-1]):
                peer.send_event(kind(data=message[start:end], message_finished=False))
                if ping:
                    peer.send_event(Ping(payload=b"between"))
            peer.send(message[bounds[-2] :])
        for message, _, _ in pieces:
            assert peer.receive() == message


@pytest.fixture
def deflating(serve: Any, echo_app: Any) -> Callable[[str], Any]:
    """Servers that last for all examples of a test."""
    servers: dict[str, Any] = {}

    def of(mode: str) -> Any:
        if mode not in servers:
            servers[mode] = serve(echo_app, lifespan="off", ws_per_message_deflate=mode)
        return servers[mode]

    return of


@pytest.mark.parametrize(
    ("offers", "shared", "context"),
    [
        # Chrome, Firefox.
        (
            ["permessage-deflate; client_max_window_bits"],
            ALONE,
            "permessage-deflate; server_max_window_bits=12",
        ),
        # Safari.
        (["permessage-deflate"], ALONE, "permessage-deflate; server_max_window_bits=12"),
        (["x-webkit-deflate-frame"], None, None),
        # The first one that fits, wherever it stands.
        (
            [
                "foo, permessage-deflate; server_max_window_bits=8",
                "permessage-deflate; server_max_window_bits=10",
            ],
            f"{ALONE}; server_max_window_bits=10",
            "permessage-deflate; server_max_window_bits=10",
        ),
        (
            ["permessage-deflate; server_max_window_bits; x=1, permessage-deflate; y"],
            None,
            None,
        ),
        (
            ["permessage-deflate; server_no_context_takeover; server_no_context_takeover"],
            None,
            None,
        ),
        (["permessage-deflate; =, ;;, \x22"], None, None),
    ],
)
def test_negotiation(
    serve: Any, echo_app: Any, raw: Any, offers: list[str], shared: str, context: str
) -> None:
    for mode, expected in (("shared", shared), ("context", context), ("off", None)):
        server = serve(echo_app, lifespan="off", ws_per_message_deflate=mode)
        client = raw(server)
        fields = [("sec-websocket-extensions", offer) for offer in offers]
        response = client.request((*HANDSHAKE, *fields))
        # What does not fit is no reason to refuse the WebSocket.
        assert response.status == client.accepted
        assert response.all("sec-websocket-extensions") == ([expected] if expected else [])
        client.send(frame(TEXT, b"plain"))
        assert client.read_frame() == (TEXT, b"plain")


OFFER = (*HANDSHAKE, ("sec-websocket-extensions", "permessage-deflate"))


def test_what_does_not_get_smaller_leaves_as_it_is(serve: Any, echo_app: Any, raw: Any) -> None:
    client = raw(serve(echo_app, lifespan="off", ws_deflate_min_size=10)).open(headers=OFFER)
    numbers = random.Random(1)
    for payload, smaller in (
        (b"", False),
        (b"123456789", False),
        (b"a" * 9, False),
        (b"a" * 10, True),
        (numbers.randbytes(200), False),
        (numbers.randbytes(200_000), False),
        (b"ab" * 100_000, True),
    ):
        client.send(frame(BINARY, payload))
        first, got = client.read_any_frame()
        assert (first == 0xC2) is smaller
        if smaller:
            assert len(got) < len(payload)
            got = zlib.decompressobj(wbits=-15).decompress(got + b"\x00\x00\xff\xff")
        assert got == payload


def test_control_frames_stand_between_compressed_fragments(
    serve: Any, echo_app: Any, raw: Any
) -> None:
    client = raw(serve(echo_app, lifespan="off", ws_deflate_min_size=MIB)).open(headers=OFFER)
    text = "grüße " * 100
    data = deflate(text.encode())
    client.send(frame(TEXT, data[:3], fin=False, rsv=RSV1), frame(PING, b"1"))
    assert client.read_frame() == (PONG, b"1")
    client.send(frame(CONTINUATION, b"", fin=False), frame(CONTINUATION, data[3:-1], fin=False))
    client.send(frame(PING, b"2"), frame(PONG), frame(CONTINUATION, data[-1:]))
    assert client.read_frame() == (PONG, b"2")
    assert client.read_frame() == (TEXT, text.encode())


BROKEN = {
    "RSV1 in the middle": (
        frame(TEXT, deflate(b"x"), fin=False, rsv=RSV1) + frame(CONTINUATION, b"", rsv=RSV1),
        1002,
    ),
    "RSV1 on a ping": (frame(PING, b"", rsv=RSV1), 1002),
    "RSV2": (frame(TEXT, deflate(b"x"), rsv=RSV1 | 2), 1002),
    "no such block": (frame(BINARY, b"\x07", rsv=RSV1), 1007),
    "refers to what never was": (frame(BINARY, b"\x02\x00\x11\x00\x00", rsv=RSV1), 1007),
    "cut off": (frame(BINARY, deflate(b"hello, hello, world" * 9)[:-5], rsv=RSV1), 1007),
    "not UTF-8": (frame(TEXT, deflate(b"\xff"), rsv=RSV1), 1007),
    "not UTF-8, before the end": (
        frame(TEXT, deflate(b"\xff" + bytes(5000)), fin=False, rsv=RSV1),
        1007,
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_data_is_told_by_its_code(serve: Any, echo_app: Any, raw: Any, name: str) -> None:
    data, code = BROKEN[name]
    client = raw(serve(echo_app, lifespan="off")).open(headers=OFFER)
    client.send(data, frame(TEXT, b"ignored") * 1000)
    assert client.read_close()[0] == code
    assert client.read_to_end() == b""


@pytest.mark.parametrize("mode", MODES)
def test_the_size_limit_is_that_of_the_inflated_message(
    serve: Any, echo_app: Any, mode: str
) -> None:
    server = serve(echo_app, lifespan="off", ws_max_size=1000, ws_per_message_deflate=mode)
    with connect(url(server)) as client:
        client.send("a" * 1000)
        assert client.recv(timeout=60) == "a" * 1000
        client.send("a" * 1001)
        with pytest.raises(ConnectionClosedError) as caught:
            client.recv(timeout=60)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == 1009


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096


def test_bombs_cost_no_memory(serve: Any, accepting: Any, raw: Any) -> None:
    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.disconnect"

    server = serve(app, lifespan="off", ws_max_size=MIB)
    # 1 GiB of zeros in 1 MiB; the largest block comes a thousand times.
    state = zlib.compressobj(9, wbits=-15)
    block = state.compress(bytes(MIB)) + state.flush(zlib.Z_FULL_FLUSH)
    again = state.compress(bytes(MIB)) + state.flush(zlib.Z_FULL_FLUSH)
    assert len(again) < 1100
    bomb = frame(BINARY, block + again * 1023, fin=False, rsv=RSV1)
    clients = [raw(server).open(headers=OFFER) for _ in range(8)]
    before = resident_bytes()
    for client in clients:
        try:
            client.send(bomb)
        except ConnectionError:  # refused while it was still being sent
            continue
        assert client.read_close()[0] == 1009
    assert resident_bytes() - before < 16 * MIB


@pytest.mark.parametrize("headers", [[(b"sec-websocket-extensions", b"")]])
def test_an_application_declines_compression(serve: Any, raw: Any, saw: Any, headers: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if scope["path"] == "/plain":
            await send({"type": "websocket.accept", "headers": headers})
        else:
            await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "a" * 1000})
        await receive()

    server = serve(app, lifespan="off")
    for path, agreed, first in (("/plain", [], 0x81), ("/", [ALONE], 0xC1)):
        client = raw(server).open(headers=OFFER, target=path)
        assert client.response.all("sec-websocket-extensions") == agreed
        assert client.read_any_frame()[0] == first


def test_an_application_cannot_negotiate_by_itself(serve: Any, raw: Any, saw: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        with pytest.raises(ValueError, match="sec-websocket-extensions"):
            await send(
                {
                    "type": "websocket.accept",
                    "headers": [(b"sec-websocket-extensions", b"permessage-deflate")],
                }
            )
        saw("refused")
        await send({"type": "websocket.accept"})
        await receive()

    client = raw(serve(app, lifespan="off")).open(headers=OFFER)
    assert saw.next() == "refused"
    assert client.response.all("sec-websocket-extensions") == [ALONE]


def test_contexts_are_capped(serve: Any, echo_app: Any, raw: Any) -> None:
    server = serve(
        echo_app, lifespan="off", ws_per_message_deflate="context", ws_deflate_max_contexts=2
    )
    kept = "permessage-deflate; server_max_window_bits=12"
    clients = [raw(server).open(headers=OFFER) for _ in range(3)]
    answers = [client.response.all("sec-websocket-extensions") for client in clients]
    assert answers == [[kept], [kept], [ALONE]]
    clients[0].send(frame(8, b"\x03\xe8"))
    assert clients[0].read_close()[0] == 1000
    assert raw(server).open(headers=OFFER).response.all("sec-websocket-extensions") == [kept]
