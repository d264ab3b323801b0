"""Response bodies: framing, length, streams."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from .cases_send import body, sends, start
from .registry import H1, H2, case, check

if TYPE_CHECKING:
    from .peer import Peer

LENGTH_5 = [(b"content-length", b"5")]

for kind, data in (
    ("bytes", b"abc"),
    ("bytearray", bytearray(b"abc")),
    ("memoryview", memoryview(b"abc")),
):
    case(f"body-{kind}", f"a body that is {kind}")(sends(start(), body(data)))

    @check
    def _(peer: Peer) -> None:
        response = peer.request()
        assert (response.body, response.complete) == (b"abc", True)


case("body-missing", "a body message without `body` is empty")(
    sends(start(), {"type": "http.response.body"})
)


@check
def _(peer: Peer) -> None:
    for _ in range(2):
        response = peer.request()
        assert (response.status, response.body, response.complete) == (200, b"", True)


case("more-body-missing", "a body message without `more_body` is the last")(
    sends(start(), body(b"a", True), {"type": "http.response.body", "body": b"b"})
)


@check
def _(peer: Peer) -> None:
    response = peer.request()
    assert (response.body, response.complete) == (b"ab", True)


case("body-empty-chunks", "empty pieces end nothing")(
    sends(start(), body(b"", True), body(b"a", True), body(b"", True), body(b"b", True), body())
)


@check
def _(peer: Peer) -> None:
    response = peer.request()
    assert (response.body, response.complete) == (b"ab", True)


@case("body-flushes", "an empty piece sends the head")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    await send(start(headers=[(b"x-early", b"1")]))
    await send(body(b"", True))
    await receive()
    while (await receive())["type"] != "http.disconnect":
        pass


@check
def _(peer: Peer) -> None:
    pending = peer.start()
    assert pending.until_head().header("x-early") == b"1"
    pending.cancel()


@case("body-streams-out", "a piece is sent before the next one is made")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    await send(start())
    await send(body(b"first", True))
    await receive()
    while (await receive())["type"] != "http.disconnect":
        pass


@check
def _(peer: Peer) -> None:
    pending = peer.start()
    pending.until(b"first")
    pending.cancel()


@case("body-8-mib", "8 MiB at once")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    await send(start())
    await send(body(bytes(range(256)) * 32768))


@check
def _(peer: Peer) -> None:
    response = peer.request()
    assert response.complete and response.body == bytes(range(256)) * 32768


@case("body-1000-pieces", "a thousand pieces")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    await send(start())
    for number in range(1000):
        await send(body(b"%04d," % number, True))
    await send(body())


@check
def _(peer: Peer) -> None:
    response = peer.request()
    assert response.complete
    assert response.body == b"".join(b"%04d," % number for number in range(1000))


@case("body-bytearray-reused", "a bytearray may be changed after `send()`")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    data = bytearray(b"a" * 5000)
    await send(start())
    await send(body(data, True))
    data[:] = b"b" * 5000
    await send(body(data))


@check
def _(peer: Peer) -> None:
    assert peer.request().body == b"a" * 5000 + b"b" * 5000


case("length-streamed", "a streamed body with a content-length has no other framing")(
    sends(start(headers=LENGTH_5), body(b"he", True), body(b"llo", True), body())
)


@check
def _(peer: Peer) -> None:
    for _ in range(2):
        response = peer.request()
        assert (response.body, response.complete) == (b"hello", True)
        assert response.header("content-length") == b"5"
        assert not response.all("transfer-encoding")


case("chunked", "a streamed body without a length is chunked", H1)(
    sends(start(), body(b"he", True), body(b"llo"))
)


@check
def _(peer: Peer) -> None:
    for _ in range(2):
        response = peer.request()
        assert (response.body, response.complete) == (b"hello", True)
        assert response.header("transfer-encoding") == b"chunked"


# --- more or less than promised


def longer(name: str, *messages: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any, note: Any) -> None:
        for message in messages:
            await send(message)

    case(name, "a body longer than its content-length reaches no other response")(app)

    @check
    def _(peer: Peer) -> None:
        for _ in range(3):
            response = peer.request()
            # All of what was promised or less, never more; whatever follows is a response.
            assert response.status in (200, 500)
            assert response.status == 500 or b"hello".startswith(response.body)
        if not peer.is_h2:
            data = peer.raw(
                peer.head("GET", peer.path()) * 2
                + peer.head("GET", peer.path(), "connection: close")
            )
            assert b"HTTP/1.1 299" not in data


longer("length-exceeded", start(headers=LENGTH_5), body(b"helloHTTP/1.1 299 Split\r\n\r\n"))
longer(
    "length-exceeded-streamed",
    start(headers=LENGTH_5),
    body(b"hel", True),
    body(b"loHTTP/1.1 299 Split\r\n\r\n", True),
    body(),
)


def shorter(name: str, *messages: Any) -> None:
    case(name, "a body shorter than its content-length does not end properly, nor hang")(
        sends(*messages)
    )

    @check
    def _(peer: Peer) -> None:
        response = peer.request()
        assert response.status == 500 or not response.complete
        assert peer.request().status in (200, 500, 0)


shorter("length-missed", start(headers=LENGTH_5), body(b"hel"))
shorter("length-missed-streamed", start(headers=LENGTH_5), body(b"he", True), body(b"l"))
shorter("length-missed-empty", start(headers=LENGTH_5), body())


# --- no body


for more in (False, True):
    kind = "streamed" if more else "whole"
    case(f"head-{kind}", f"HEAD of a {kind} body has no body")(
        sends(start(headers=[(b"x-a", b"1")]), body(b"hello", more), *([body()] if more else []))
    )

    @check
    def _(peer: Peer) -> None:
        for _ in range(2):
            response = peer.request("HEAD")
            assert (response.status, response.body, response.complete) == (200, b"", True)
            assert response.header("x-a") == b"1"


case("head-length", "HEAD keeps the application's content-length")(
    sends(start(headers=LENGTH_5), body(b"hello"))
)


@check
def _(peer: Peer) -> None:
    response = peer.request("HEAD")
    assert (response.body, response.header("content-length")) == (b"", b"5")
    assert not response.all("transfer-encoding")


case("head-length-added", "HEAD has the content-length that GET would have")(
    sends(start(), body(b"hello"))
)


@check
def _(peer: Peer) -> None:
    assert peer.request("GET").header("content-length") == peer.request("HEAD").header(
        "content-length"
    )


for status in (204, 304):
    case(f"status-{status}", f"{status} has no body and no framing of one")(
        sends(start(status, [(b"x-a", b"1")]), body(b"hello"))
    )

    @check
    def _(peer: Peer, status: int = status) -> None:
        for _ in range(2):
            response = peer.request()
            assert (response.status, response.body, response.complete) == (status, b"", True)
            assert not response.all("transfer-encoding")
            assert response.header("x-a") == b"1"


case("http-1.0-not-chunked", "a client of HTTP/1.0 gets no chunks", H1)(
    sends(start(), body(b"he", True), body(b"llo"))
)


@check
def _(peer: Peer) -> None:
    data = peer.raw(peer.head("GET", peer.path(), version="1.0"))
    top, _, rest = data.partition(b"\r\n\r\n")
    assert rest == b"hello"
    assert b"transfer-encoding" not in top.lower()


# --- both sides of a slow client


@case("backpressure", "`send()` waits for a client that does not read")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    await send(start())
    sent = 0
    try:
        async with asyncio.timeout(0.5):
            while sent < 256:
                await send(body(bytes(2**20), True))
                sent += 1
    except TimeoutError:
        pass
    except OSError:
        note("disconnected")
    note(sent)


@check
def _(peer: Peer) -> None:
    peer.start()
    noted = peer.notes()
    assert noted[-1] < 256


@case("send-unblocked", "a waiting `send()` ends when the client leaves")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    await send(start())
    try:
        async with asyncio.timeout(4):
            for _ in range(1000):
                await send(body(bytes(2**20), True))
        note("it was never stopped")
    except TimeoutError:
        note("it hangs")
    except OSError:
        note("OSError")


@check
def _(peer: Peer) -> None:
    pending = peer.start()
    pending.until_head()
    pending.cancel()
    assert peer.notes() == ["OSError"]


@case("send-after-disconnect", "`send()` to a client that left raises OSError")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    await send(start())
    await send(body(b"part", True))
    await receive()
    while (await asyncio.wait_for(receive(), 4))["type"] != "http.disconnect":
        pass
    await send(body(b"more", True))
    note("no error")


@check
def _(peer: Peer) -> None:
    pending = peer.start()
    pending.until(b"part")
    pending.cancel()
    assert "OSError" in peer.ending()


@case("streams-interleave", "two responses of one connection are sent at once", H2)
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    await send(start())
    await send(body(b"first", True))
    await receive()
    if b"slow" in scope["raw_path"]:
        while (await receive())["type"] != "http.disconnect":
            pass
    await send(body(b"last"))


@check
def _(peer: Peer) -> None:
    slow = peer.start(rest="/slow")
    slow.until(b"first")
    assert peer.request().body == b"firstlast"
    slow.cancel()


@case("stream-reset", "a stream that is reset leaves the others alone", H2)
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    await send(start())
    await send(body(b"first", True))
    await receive()
    if b"slow" in scope["raw_path"]:
        while (await receive())["type"] != "http.disconnect":
            pass
    await send(body(b"last"))


@check
def _(peer: Peer) -> None:
    for _ in range(3):
        slow = peer.start(rest="/slow")
        slow.until(b"first")
        slow.cancel()
    assert peer.request().body == b"firstlast"
