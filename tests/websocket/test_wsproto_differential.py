"""Any bytes, judged by framegate and by wsproto: equal verdicts, or a known reason.

A stream of frames, most of them valid, goes to a real server in pieces and to wsproto's server
side. What comes back from the real one is decoded by wsproto's client side. Behind every stream
come a close frame and zeros: they end it, unless an unfinished frame swallows them, in both worlds
alike.
"""

from __future__ import annotations

import random
import socket
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    Request,
    TextMessage,
)
from wsproto.extensions import PerMessageDeflate

from websocket.raw import (
    BINARY,
    CLOSE,
    CONTINUATION,
    MASK,
    PING,
    PONG,
    TEXT,
    close_frame,
    frame,
    mask,
)

MIB = 2**20
END = close_frame(4321, "the end") + bytes(32)
RSV1 = 4


@dataclass
class Verdict:
    """What a server made of a stream."""

    messages: list[str | bytes] = field(default_factory=list)
    #: Payloads of the pings, or of the pongs that answered them.
    pings: list[bytes] = field(default_factory=list)
    #: Code and reason of the close frame: the peer's own, or the one that fails the connection.
    code: int | None = None
    reason: str = ""
    failed: bool = False

    def add(self, events: Iterator[Event], parts: list[Any]) -> None:
        """Take what wsproto saw."""
        for event in events:
            match event:
                case TextMessage() | BytesMessage():
                    text = isinstance(event, TextMessage)
                    parts.append(event.data if text else bytes(event.data))
                    if event.message_finished:
                        self.messages.append(("" if text else b"").join(parts))
                        parts.clear()
                case Ping() | Pong():
                    self.pings.append(bytes(event.payload))
                case CloseConnection():
                    self.code, self.reason = int(event.code), event.reason or ""
                case _:
                    raise AssertionError(event)


def extensions(deflate: bool) -> list[PerMessageDeflate]:
    return [PerMessageDeflate(True, None, True, None)] if deflate else []


def wsprotos(wire: bytes, deflate: bool) -> Verdict:
    """What wsproto's server side makes of it."""
    opening = WSConnection(ConnectionType.CLIENT)
    server = WSConnection(ConnectionType.SERVER)
    server.receive_data(
        opening.send(Request(host="t", target="/", extensions=extensions(deflate)))  # type: ignore[arg-type]
    )
    assert isinstance(next(server.events()), Request)
    server.send(AcceptConnection(extensions=extensions(deflate)))  # type: ignore[arg-type]
    verdict = Verdict()
    server.receive_data(wire)
    verdict.add(server.events(), [])
    # It makes an event of a broken rule, too, but does not take it for the peer's close frame.
    verdict.failed = verdict.code is not None and server.state is ConnectionState.OPEN
    return verdict


def ours(server: Any, wire: bytes, cuts: list[int], deflate: bool, expected: Verdict) -> Verdict:
    """What framegate makes of it, told by its echo."""
    client = WSConnection(ConnectionType.CLIENT)
    verdict, parts = Verdict(), list[Any]()
    with server.connect(timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opening = Request(host="t", target="/", extensions=extensions(deflate))  # type: ignore[arg-type]
        connection.sendall(client.send(opening))
        while not (events := list(client.events())):
            client.receive_data(connection.recv(65536))
        assert isinstance(events[0], AcceptConnection)
        assert bool(events[0].extensions) == deflate
        for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
            try:
                connection.sendall(wire[start:end])
            except (BrokenPipeError, ConnectionResetError):
                break  # it has heard enough; what it said can still be read
        shut = False
        while verdict.code is None:
            # An unfinished frame keeps the connection open; then we end it, but not too early.
            if expected.code is None and verdict.messages == expected.messages and not shut:
                connection.shutdown(socket.SHUT_WR)
                shut = True
            received = connection.recv(65536)
            if not received:
                break
            client.receive_data(received)
            verdict.add(client.events(), parts)
    return verdict


def raw_frame(
    opcode: int, payload: bytes, fin: bool, rsv: int, masked: bool, form: int, missing: int
) -> bytes:
    """A frame of any kind: `form` is 7, 16 or 64 bits of length; `missing` bytes never come."""
    size = len(payload) + missing
    if size > 125 and form == 7:
        form = 16
    if size > 0xFFFF:
        form = 64
    bit = 0x80 * masked
    length = {
        7: lambda: bytes([bit | size]),
        16: lambda: bytes([bit | 126]) + struct.pack(">H", size),
        64: lambda: bytes([bit | 127]) + struct.pack(">Q", size),
    }[form]()
    head = bytes([fin << 7 | rsv << 4 | opcode]) + length
    return head + (MASK + mask(payload) if masked else payload)


def mostly(usual: Any, else_: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.integers(0, 5).flatmap(lambda n: else_ if n == 0 else st.just(usual))


DATA = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=100).map(lambda text: text.encode()),
    # At the borders of the forms of length.
    st.sampled_from([125, 126, 127, 65535, 65536]).map(lambda size: b"\xc3\xa9" * (size // 2)),
    # What is not UTF-8, in several ways: surrogates, too long, too large, cut, alone.
    st.sampled_from([b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", b"ok\xe2\x82", b"\x80"]),
)
CONTROL_DATA = st.binary(max_size=125)
CONTROLS = st.builds(lambda op, data: frame(op, data), st.sampled_from([PING, PONG]), CONTROL_DATA)
CODES = st.one_of(
    st.sampled_from([0, 999, 1000, 1001, 1003, 1004, 1005, 1006, 1007, 1011, 1012, 1013, 1014]),
    st.sampled_from([1015, 1016, 2999, 3000, 4999, 5000, 65535]),
    st.integers(0, 65535),
)
CLOSES = st.one_of(
    st.just(frame(CLOSE)),
    st.just(frame(CLOSE, b"\x03")),
    st.builds(
        lambda code, reason: frame(CLOSE, struct.pack(">H", code) + reason.encode()[:123]),
        CODES,
        st.text(max_size=60),
    ),
    st.builds(lambda code: frame(CLOSE, struct.pack(">H", code) + b"\xff"), CODES),
)
ANYTHING = st.builds(
    raw_frame,
    opcode=st.one_of(st.sampled_from([0, 1, 2, 8, 9, 10]), st.integers(0, 15)),
    payload=st.one_of(CONTROL_DATA, DATA),
    fin=mostly(True, st.booleans()),
    rsv=mostly(0, st.integers(0, 7)),
    masked=mostly(True, st.just(False)),
    form=mostly(7, st.sampled_from([16, 64])),
    missing=mostly(0, st.sampled_from([1, 200, 70_000, 17 * MIB, 2**63 - 1000, 2**63])),
)


def deflated(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


@st.composite
def message(draw: st.DrawFn, deflate: bool) -> bytes:
    """A message in one to four frames, control frames between them; compressed now and then."""
    data = draw(DATA)
    rsv = 0
    if deflate and draw(st.booleans()):
        rsv = RSV1
        data = deflated(data)
        if draw(st.integers(0, 7)) == 0:
            place = draw(st.integers(0, len(data) - 1))
            data = data[:place] + draw(st.binary(min_size=1, max_size=3)) + data[place + 1 :]
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=3)))
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    opcode = draw(st.sampled_from([TEXT, BINARY]))
    wire = b""
    for number, piece in enumerate(pieces):
        # A control frame inside a compressed message confuses wsproto: see DIFFERENCES.
        if number and not rsv and draw(st.booleans()):
            wire += draw(CONTROLS)
        fin = number == len(pieces) - 1
        first = number == 0
        wire += frame(opcode if first else CONTINUATION, piece, fin=fin, rsv=rsv * first)
    return wire


def streams(deflate: bool) -> st.SearchStrategy[bytes]:
    messages = message(deflate)
    frames = st.one_of(messages, messages, messages, CONTROLS, CLOSES, ANYTHING)
    return st.lists(frames, max_size=6).map(b"".join)


# Where the two may differ, and why framegate is right or at least free to.


def closing_reason(wire: bytes, theirs: Verdict, mine: Verdict) -> bool:
    """A reason that is not UTF-8: a broken frame (1002) to us, bad payload (1007) to wsproto.

    RFC 6455 leaves it open (section 8.1 speaks of "a byte stream that is interpreted as UTF-8");
    Autobahn accepts both.
    """
    return theirs.failed and theirs.code == 1007 and mine.code == 1002


def too_big(wire: bytes, theirs: Verdict, mine: Verdict) -> bool:
    """wsproto knows no largest message; we refuse one as soon as its length is announced."""
    return theirs.code != 1009 and mine.code == 1009


def unfinished_block(wire: bytes, theirs: Verdict, mine: Verdict) -> bool:
    """A compressed message that ends in the middle of a block of deflate.

    zlib, and so wsproto, waits for the rest of the block and takes what it has for the message; we
    refuse the message, as RFC 7692 (section 7.2.1) has compressed data end between blocks. What
    comes behind it may break wsproto, too.
    """
    refused = (mine.code, mine.reason) == (1007, "compressed data is broken")
    return refused and len(theirs.messages) > len(mine.messages)


DIFFERENCES = {
    closing_reason: frame(CLOSE, struct.pack(">H", 1000) + b"\xff"),
    too_big: raw_frame(BINARY, b"", True, 0, True, 64, 16 * MIB + 1),
    # The head of a block with Huffman codes of its own, and no more of it.
    unfinished_block: frame(TEXT, b"\x04\x00\x00", rsv=RSV1),
}


def differences(theirs: Verdict, mine: Verdict) -> list[str]:
    found = []
    if mine.messages != theirs.messages:
        found.append(f"messages: {mine.messages!r}, wsproto {theirs.messages!r}")
    if mine.code != theirs.code:
        found.append(f"code {mine.code} ({mine.reason}), wsproto {theirs.code}")
    elif not theirs.failed and mine.reason != theirs.reason:
        found.append(f"reason {mine.reason!r}, wsproto {theirs.reason!r}")
    # Not each ping is answered (RFC 6455, section 5.5.3), but none out of turn.
    left = iter(theirs.pings)
    if not all(pong in left for pong in mine.pings):
        found.append(f"pongs {mine.pings!r} to pings {theirs.pings!r}")
    return found


def allowed(wire: bytes, theirs: Verdict, mine: Verdict) -> bool:
    if mine.messages != theirs.messages[: len(mine.messages)]:
        return False
    return any(difference(wire, theirs, mine) for difference in DIFFERENCES)


@pytest.fixture
def server(serve: Any, echo_app: Any) -> Any:
    return serve(echo_app, lifespan="off")


def compare(server: Any, wire: bytes, seed: int, deflate: bool) -> None:
    dice = random.Random(seed)
    wire += END
    places = range(1, len(wire))
    cuts = sorted(dice.sample(places, min(len(places), dice.choice([0, 1, 5]))))
    theirs = wsprotos(wire, deflate)
    mine = ours(server, wire, cuts, deflate, theirs)
    found = differences(theirs, mine)
    assert not found or allowed(wire, theirs, mine), (found, wire)


COMMON = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@COMMON
@given(wire=streams(False), seed=st.integers(0, 2**32))
def test_any_frames(server: Any, wire: bytes, seed: int) -> None:
    compare(server, wire, seed, deflate=False)


@COMMON
@given(wire=streams(True), seed=st.integers(0, 2**32))
def test_any_frames_with_deflate(server: Any, wire: bytes, seed: int) -> None:
    compare(server, wire, seed, deflate=True)


@COMMON
@given(wire=st.binary(max_size=60), seed=st.integers(0, 2**32))
def test_any_bytes(server: Any, wire: bytes, seed: int) -> None:
    compare(server, wire, seed, deflate=False)


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.__name__)
def test_allowed_differences_exist(server: Any, difference: Any) -> None:
    """A difference that is gone does not stay on the list."""
    wire = DIFFERENCES[difference] + END
    theirs = wsprotos(wire, deflate=True)
    mine = ours(server, wire, [], True, theirs)
    assert difference(wire, theirs, mine), (theirs, mine)


def test_bad_gateway(server: Any, raw: Any) -> None:
    """wsproto 1.3 does not know 1014 of the IANA registry: it would not even take our answer."""
    wire = close_frame(1014)
    assert wsprotos(wire, deflate=False).failed
    client = raw(server).open()
    client.send(wire)
    assert client.read_close() == (1014, "")


def test_control_frames_inside_a_compressed_message(server: Any) -> None:
    """wsproto 1.3 takes what follows them for uncompressed; so this has no differential test."""
    data = deflated(b"to be continued")
    wire = frame(TEXT, data[:5], fin=False, rsv=RSV1)
    wire += frame(PING, b"?") + frame(CONTINUATION, data[5:])
    wire += END
    assert wsprotos(wire, deflate=True).messages != ["to be continued"]
    expected = Verdict(["to be continued"], [b"?"], 4321)
    mine = ours(server, wire, [7], True, expected)
    assert mine == Verdict(["to be continued"], [b"?"], 4321, "the end")
