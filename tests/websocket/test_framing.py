"""Broken rules of RFC 6455, from a bare socket: each is told by its close code, at once."""

from __future__ import annotations

from typing import Any

import pytest

from websocket.raw import (
    BINARY,
    CLOSE,
    CONTINUATION,
    MASK,
    PING,
    TEXT,
    close_frame,
    frame,
)

BROKEN = {
    "not masked": b"\x81\x02hi",
    "RSV1 without an extension": frame(TEXT, b"x", rsv=4),
    "RSV2": frame(BINARY, b"x", rsv=2),
    "RSV3": frame(PING, b"", rsv=1),
    "opcode 3": frame(3),
    "opcode 11": frame(11),
    "continuation of nothing": frame(CONTINUATION, b"x"),
    "text inside a message": frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"),
    "fragmented ping": frame(PING, b"x", fin=False),
    "long ping": frame(PING, b"x" * 126),
    "long close": frame(CLOSE, b"\x03\xe8" + b"x" * 124),
    "length not the shortest, 16 bits": b"\x82\xfe\x00\x05" + MASK + b"12345",
    "length not the shortest, 64 bits": b"\x82\xff" + bytes(6) + b"\xff\xff" + MASK,
    "length with the top bit": b"\x82\xff\x80" + bytes(7) + MASK,
    "close of one byte": frame(CLOSE, b"\x03"),
    "close code 1005": close_frame(1005),
    "close code 1015": close_frame(1015),
    "close code 999": close_frame(999),
    "close code 2000": close_frame(2000),
    "close reason not UTF-8": frame(CLOSE, b"\x03\xe8\xff"),
}

NOT_UTF8 = {
    "whole": frame(TEXT, b"abc\xff"),
    "surrogate": frame(TEXT, b"\xed\xa0\x80"),
    "overlong": frame(TEXT, b"\xc0\xaf"),
    "cut at the end": frame(TEXT, "🦀".encode()[:3]),
    "over two frames": frame(TEXT, b"\xf0\x9f", fin=False) + frame(CONTINUATION, b"\x41"),
    "before the frame is complete": frame(TEXT, b"\xff" + b"x" * 1000)[:20],
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_closes_with_1002(
    serve: Any, accepting: Any, raw: Any, saw: Any, name: str
) -> None:
    fails(serve, accepting, raw, saw, BROKEN[name], 1002)


@pytest.mark.parametrize("name", NOT_UTF8)
def test_text_that_is_not_utf8_closes_with_1007(
    serve: Any, accepting: Any, raw: Any, saw: Any, name: str
) -> None:
    fails(serve, accepting, raw, saw, NOT_UTF8[name], 1007)


def fails(serve: Any, accepting: Any, raw: Any, saw: Any, data: bytes, code: int) -> None:
    @accepting
    async def app(scope: Any, receive: Any, send: Any) -> None:
        saw(await receive())
        saw(await receive())

    client = raw(serve(app, lifespan="off")).open()
    # What came before the mistake counts, what comes behind it is dropped and does not reset the
    # connection.
    client.send(frame(TEXT, b"good"), data, frame(TEXT, b"ignored") * 1000)
    told, reason = client.read_close()
    assert told == code
    assert reason
    assert client.read_to_end() == b""
    assert saw.next() == {"type": "websocket.receive", "text": "good"}
    assert saw.next() == {"type": "websocket.disconnect", "code": code, "reason": reason}
