"""What `send()` makes of heads: status, fields, order of messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .cases_scope import whole
from .registry import H1, H2, case, check

if TYPE_CHECKING:
    from .peer import Peer


def start(status: Any = 200, headers: Any = None, **keys: Any) -> dict[str, Any]:
    message = {"type": "http.response.start", "status": status, **keys}
    if headers is not None:
        message["headers"] = headers
    return message


def body(data: Any = b"", more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def sends(*messages: Any) -> Any:
    async def app(scope: Any, receive: Any, send: Any, note: Any) -> None:
        for message in messages:
            await send(message)

    return app


case("start-without-headers", "`headers` of the start may be missing")(sends(start(), body(b"ok")))


@check
def _(peer: Peer) -> None:
    for _ in range(2):
        response = peer.request()
        assert (response.status, response.body, response.complete) == (200, b"ok", True)


for status in (201, 299, 404, 418, 500, 503, 599):
    case(f"status-{status}", f"status {status} is sent")(sends(start(status), body(b"ok")))

    @check
    def _(peer: Peer, status: int = status) -> None:
        response = peer.request()
        assert (response.status, response.body) == (status, b"ok")


PAIR = (b"x-a", b"1")
for name, title, fields in (
    ("lists", "headers are lists of lists", lambda: [list(PAIR)]),
    ("tuple", "headers are a tuple", lambda: (PAIR,)),
    ("generator", "headers are a generator", lambda: (pair for pair in [PAIR])),
    ("map", "headers are any iterable", lambda: {PAIR: None}.keys()),
    ("upper-case", "a header name in upper case", lambda: [(b"X-A", b"1")]),
):

    def app(fields: Any) -> Any:
        async def app(scope: Any, receive: Any, send: Any, note: Any) -> None:
            await send(start(headers=fields()))
            await send(body(b"ok"))

        return app

    case(f"headers-{name}", title)(app(fields))

    @check
    def _(peer: Peer) -> None:
        response = peer.request()
        assert (response.header("x-a"), response.body) == (b"1", b"ok")
        assert not peer.is_h2 or (b"x-a", b"1") in response.headers


case("headers-repeated", "repeated headers are sent apart, in order")(
    sends(start(headers=[(b"set-cookie", b"a=1"), PAIR, (b"set-cookie", b"b=2")]), body(b"ok"))
)


@check
def _(peer: Peer) -> None:
    assert peer.request().all("set-cookie") == [b"a=1", b"b=2"]


case("headers-order", "headers are sent in the application's order")(
    sends(start(headers=[(b"x-%d" % n, b"") for n in (3, 1, 2)]), body(b"ok"))
)


@check
def _(peer: Peer) -> None:
    names = [name.lower() for name, _ in peer.request().headers]
    assert [name for name in names if name.startswith(b"x-")] == [b"x-3", b"x-1", b"x-2"]


case("headers-latin-1", "bytes above 127 in a value are sent")(
    sends(start(headers=[(b"x-a", b"caf\xe9")]), body(b"ok"))
)


@check
def _(peer: Peer) -> None:
    assert peer.request().header("x-a") == b"caf\xe9"


case("headers-empty-value", "an empty value is sent")(
    sends(start(headers=[(b"x-a", b"")]), body(b"ok"))
)


@check
def _(peer: Peer) -> None:
    assert peer.request().header("x-a") == b""


case("headers-many", "a hundred headers, 20 KiB")(
    sends(start(headers=[(b"x-%d" % n, b"v" * 200) for n in range(100)]), body(b"ok"))
)


@check
def _(peer: Peer) -> None:
    response = peer.request()
    assert len([name for name, _ in response.headers if name.lower().startswith(b"x-")]) == 100


case("date", "`date` is there once, and the application's own wins")(
    sends(start(headers=[(b"date", b"Thu, 01 Jan 1970 00:00:00 GMT")]), body(b"ok"))
)


@check
def _(peer: Peer) -> None:
    assert peer.request().all("date") == [b"Thu, 01 Jan 1970 00:00:00 GMT"]


case("server-header", "the application's own `server` wins")(
    sends(start(headers=[(b"server", b"mine")]), body(b"ok"))
)


@check
def _(peer: Peer) -> None:
    assert peer.request().all("server") == [b"mine"]


case("transfer-encoding", "`transfer-encoding` of the application is ignored")(
    sends(start(headers=[(b"transfer-encoding", b"gzip, chunked")]), body(b"ok"))
)


@check
def _(peer: Peer) -> None:
    response = peer.request()
    assert (response.body, response.complete) == (b"ok", True)
    assert response.all("transfer-encoding") in ([], [b"chunked"])


case("connection-fields", "fields of HTTP/1 connections are not sent by HTTP/2", H2)(
    sends(
        start(headers=[(b"connection", b"keep-alive"), (b"keep-alive", b"timeout=5"), PAIR]),
        body(b"ok"),
    )
)


@check
def _(peer: Peer) -> None:
    response = peer.request()
    assert (response.body, response.complete) == (b"ok", True)
    names = {name for name, _ in response.headers}
    assert not names & {b"connection", b"keep-alive", b"transfer-encoding"}


case("connection-close", "`connection: close` of the application closes", H1)(
    sends(start(headers=[(b"connection", b"close")]), body(b"ok"))
)


@check
def _(peer: Peer) -> None:
    data = peer.raw(peer.head("GET", peer.path()))
    assert data.endswith(b"ok") or data.endswith(b"0\r\n\r\n")


def refused(name: str, title: str, *messages: Any) -> None:
    """A message that is wrong before anything left: the client gets 500, then a good answer."""
    case(name, f"{title}: 500, and the connection goes on")(sends(*messages))

    @check
    def _(peer: Peer) -> None:
        response = peer.request()
        assert (response.status, response.complete) == (500, True)
        assert not response.all("x-bad")
        assert "Exception" in peer.ending()
        assert peer.request().status == 500


def refused_header(name: str, title: str, *fields: Any) -> None:
    refused(name, title, start(headers=list(fields)), body(b"x"))


refused_header("header-crlf", "CR LF in a value", (b"x-bad", b"a\r\nx-split: b"))
refused_header("header-lf", "LF in a value", (b"x-bad", b"a\nb"))
refused_header("header-cr", "CR in a value", (b"x-bad", b"a\rb"))
refused_header("header-crlf-last", "CR LF at the end of a value", (b"x-bad", b"a\r\n"))
refused_header("header-nul", "NUL in a value", (b"x-bad", b"a\0b"))
refused_header("header-name-crlf", "CR LF in a name", (b"x-bad\r\nx", b"a"))
refused_header("header-name-space", "a blank in a name", (b"x bad", b"a"))
refused_header("header-name-empty", "an empty name", (b"", b"a"))
refused_header("header-pseudo", "a pseudo header", (b":status", b"201"))
refused_header("header-str", "a header that is str", ("x-bad", "a"))
refused_header("header-no-pair", "a header that is no pair", (b"x-bad",))
refused("status-str", "a status that is str", start("200"), body(b"x"))
refused("status-none", "a status that is None", start(None), body(b"x"))
refused("status-missing", "no status", {"type": "http.response.start"}, body(b"x"))
refused("status-42", "status 42", start(42), body(b"x"))
refused("message-none", "a message that is None", None)
refused("message-without-type", "a message without a type", {"status": 200})
refused("message-unknown", "an unknown message", {"type": "http.response.unknown"})
refused("message-websocket", "a message of another protocol", {"type": "websocket.accept"})
refused("body-first", "a body before the start", body(b"x"))
refused("start-twice", "two starts", start(), start(), body(b"x"))
refused(
    "length-malformed",
    "a content-length that is no number",
    start(headers=[(b"content-length", b"many")]),
    body(b"x"),
)


def late(name: str, title: str, *messages: Any) -> None:
    """A message too many, which never reaches the client; an error or not, as the server likes."""

    async def app(scope: Any, receive: Any, send: Any, note: Any) -> None:
        for message in messages[:-1]:
            await send(message)
        try:
            await send(messages[-1])
        except Exception as error:
            note(type(error).__name__)

    case(name, f"{title}: nothing of it is sent")(app)

    @check
    def _(peer: Peer) -> None:
        for _ in range(3):
            response = peer.request()
            assert (response.status, response.body, response.complete) == (200, b"ok", True)


late("body-after-end", "a body after the end", start(), body(b"ok"), body(b"late"))
late("start-after-end", "a start after the end", start(), body(b"ok"), start(500))
late("unknown-after-end", "an unknown message after the end", start(), body(b"ok"), {"type": "x"})


@case("start-in-stream", "a start in mid-stream: nothing of it is sent")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    await send(start())
    await send(body(b"o", True))
    try:
        await send(start(500, [(b"x-bad", b"1")]))
    except Exception as error:
        note(type(error).__name__)
    await send(body(b"k"))


@check
def _(peer: Peer) -> None:
    response = peer.request()
    assert (response.status, response.body, response.complete) == (200, b"ok", True)


@case("body-str", "a body that is str is an error, and the application may go on")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    try:
        await send(start())
        await send(body("text"))
    except Exception:
        await send(body(b"ok"))


@check
def _(peer: Peer) -> None:
    response = peer.request()
    assert (response.status, response.body) == (200, b"ok")


@case("error-caught", "an application that catches the error of a bad header can still answer")
async def _(scope: Any, receive: Any, send: Any, note: Any) -> None:
    try:
        await send(start(headers=[(b"x-bad", b"a\r\nb")]))
        await send(body(b"bad"))
    except Exception:
        await whole(send, b"caught", 418)


@check
def _(peer: Peer) -> None:
    response = peer.request()
    assert (response.status, response.body) == (418, b"caught")
