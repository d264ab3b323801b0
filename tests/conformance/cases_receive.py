"""What `receive()` gives."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any

from .cases_scope import whole
from .registry import H1, case, check

if TYPE_CHECKING:
    from .peer import Peer

SECONDS = 4.0


async def body_of(receive: Any) -> bytes:
    pieces = []
    while True:
        event = await receive()
        assert event["type"] == "http.request", event
        pieces.append(event.get("body", b""))
        if not event.get("more_body", False):
            return b"".join(pieces)


async def echo(scope: Any, receive: Any, send: Any, note: Any) -> None:
    await whole(send, await body_of(receive))


@case("no-body", "a request without a body is one empty event")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    event = await receive()
    note([event["type"], event.get("body", b"").decode(), event.get("more_body", False)])
    await whole(send)


@check
def _(peer: Peer) -> None:
    assert peer.request().body == b"ok"
    assert peer.notes() == [["http.request", "", False]]


case("body", "a body of declared length arrives")(echo)


@check
def _(peer: Peer) -> None:
    for _ in range(2):
        assert peer.request("POST", body=b"some bytes").body == b"some bytes"


case("body-pieces", "a body in pieces without a length arrives")(echo)


@check
def _(peer: Peer) -> None:
    for _ in range(2):
        assert peer.request("POST", body=[b"one", b"two", b"three"]).body == b"onetwothree"


@case("body-large", "8 MiB of body arrive as they were sent")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    await whole(send, hashlib.sha256(await body_of(receive)).hexdigest().encode())


@check
def _(peer: Peer) -> None:
    data = bytes(range(256)) * 32768
    response = peer.request("POST", body=data)
    assert response.body.decode() == hashlib.sha256(data).hexdigest()


@case("body-type", "`body` is bytes, `more_body` a bool")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    event = await receive()
    note([type(event["body"]).__name__, type(event.get("more_body", False)).__name__])
    await whole(send)


@check
def _(peer: Peer) -> None:
    peer.request("POST", body=b"x")
    assert peer.notes() == [["bytes", "bool"]]


@case("body-streams", "pieces of the body are given out before the whole is there")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    await send({"type": "http.response.start", "status": 200})
    more = True
    while more:
        event = await receive()
        more = event.get("more_body", False)
        await send(
            {"type": "http.response.body", "body": event.get("body", b""), "more_body": more}
        )


@check
def _(peer: Peer) -> None:
    pending = peer.start("POST", end=False)
    pending.send(b"first")
    pending.until(b"first")
    pending.send(b"second", end=True)
    response = pending.response()
    assert (response.body, response.complete) == (b"firstsecond", True)


@case("receive-waits", "after the body `receive()` waits for the response's end")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    await body_of(receive)
    waiting = asyncio.ensure_future(receive())
    done, _ = await asyncio.wait([waiting], timeout=0.1)
    note(bool(done))
    await whole(send)
    note((await asyncio.wait_for(waiting, SECONDS))["type"])


@check
def _(peer: Peer) -> None:
    assert peer.request("POST", body=b"x").body == b"ok"
    assert peer.notes() == [False, "http.disconnect"]


@case("receive-after-end", "`receive()` after the response gives `http.disconnect` at once, always")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    await body_of(receive)
    await whole(send)
    for _ in range(2):
        note((await asyncio.wait_for(receive(), SECONDS))["type"])


@check
def _(peer: Peer) -> None:
    assert peer.request().body == b"ok"
    assert peer.notes() == ["http.disconnect"] * 2


@case("client-leaves-before", "a client that leaves before the response: `http.disconnect`")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    await body_of(receive)
    note("waits")
    note((await asyncio.wait_for(receive(), SECONDS))["type"])


@check
def _(peer: Peer) -> None:
    pending = peer.start()
    peer.wait_started()
    pending.cancel()
    assert peer.notes() == ["waits", "http.disconnect"]


@case("client-leaves-in-response", "a client that leaves in mid-response: `http.disconnect`")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    await body_of(receive)
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"part", "more_body": True})
    note((await asyncio.wait_for(receive(), SECONDS))["type"])


@check
def _(peer: Peer) -> None:
    pending = peer.start()
    pending.until(b"part")
    pending.cancel()
    assert peer.notes() == ["http.disconnect"]


@case("client-leaves-in-body", "a client that leaves in mid-body: `http.disconnect`, no end")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"started", "more_body": True})
    while (event := await asyncio.wait_for(receive(), SECONDS))["type"] == "http.request":
        assert event.get("more_body")
    note(event["type"])


@check
def _(peer: Peer) -> None:
    pending = peer.start("POST", end=False)
    pending.send(b"part")
    pending.until(b"started")
    pending.cancel()
    assert peer.notes() == ["http.disconnect"]


@case("receive-cancelled", "a cancelled `receive()` loses no bytes")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"go", "more_body": True})
    received = b""
    more = True
    while more:
        try:
            event = await asyncio.wait_for(receive(), 0.01)
        except TimeoutError:
            continue
        received += event.get("body", b"")
        more = event.get("more_body", False)
    await send({"type": "http.response.body", "body": received})


@check
def _(peer: Peer) -> None:
    pending = peer.start("POST", end=False)
    pending.until(b"go")
    for piece in range(20):
        pending.send(b"%d," % piece)
    pending.send(b"end", end=True)
    expected = b"".join(b"%d," % piece for piece in range(20)) + b"end"
    assert pending.response().body == b"go" + expected


@case("receive-twice-at-once", "two `receive()` at once do not hang")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    await body_of(receive)
    both = asyncio.gather(receive(), receive(), return_exceptions=True)
    await asyncio.sleep(0.05)
    await whole(send)
    await asyncio.wait_for(both, SECONDS)
    note("both came back")


@check
def _(peer: Peer) -> None:
    assert peer.request().body == b"ok"
    assert peer.notes() == ["both came back"]


@case("receive-and-send", "one task receives while another one sends")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    async def reads() -> bytes:
        return await body_of(receive)

    reader = asyncio.ensure_future(reads())
    await send({"type": "http.response.start", "status": 200})
    for _ in range(10):
        await send({"type": "http.response.body", "body": b"tick", "more_body": True})
        await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": await reader})


@check
def _(peer: Peer) -> None:
    pending = peer.start("POST", end=False)
    pending.until_head()
    pending.send(b"tock", end=True)
    assert pending.response().body == b"tick" * 10 + b"tock"


@case("body-unread", "a body that nobody reads does not spoil the next request")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    await whole(send, b"unread")


@check
def _(peer: Peer) -> None:
    for _ in range(3):
        assert peer.request("POST", body=b"GET / HTTP/1.1\r\n\r\n" * 10).body == b"unread"


@case("body-unread-large", "an answer in mid-upload reaches the client")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    await receive()
    await whole(
        send, b"too large", 413, [(b"connection", b"close")] * scope["http_version"].count(".")
    )


@check
def _(peer: Peer) -> None:
    response = peer.request("POST", body=bytes(4 * 2**20))
    assert (response.status, response.body) == (413, b"too large")


@case("request-trailers", "trailers of a request are not part of its body", H1)
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    assert not [name for name, _ in scope["headers"] if name == b"x-trailer"]
    await whole(send, await body_of(receive))


@check
def _(peer: Peer) -> None:
    chunked = ("transfer-encoding: chunked", "connection: close")
    data = peer.raw(
        peer.head("POST", peer.path(), *chunked) + b"3\r\nabc\r\n0\r\nx-trailer: 1\r\n\r\n"
    )
    assert data.endswith(b"\r\n\r\nabc")


case("expect-continue", "`100 Continue` is sent when the application reads", H1)(echo)


@check
def _(peer: Peer) -> None:
    with peer.connect() as connection:
        expect = ("content-length: 3", "expect: 100-continue", "connection: close")
        connection.sendall(peer.head("POST", peer.path(), *expect))
        assert connection.recv(1000).startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"abc")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")


@case("expect-unread", "`100 Continue` is not sent when the application answers at once", H1)
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    await asyncio.sleep(0.05)
    await whole(send, b"no", 403)


@check
def _(peer: Peer) -> None:
    with peer.connect() as connection:
        expect = ("content-length: 3", "expect: 100-continue")
        connection.sendall(peer.head("POST", peer.path(), *expect))
        assert connection.recv(1000).startswith(b"HTTP/1.1 403 ")
